//! The dynamic deny list: addresses, prefixes and 5-tuples that the XDP program drops for a time, before it asks the
//! rules of the filter.
//!
//! [`DenyList`] is the handle: cheap to clone, and for every thread. There are two ways in:
//!
//! * [`DenyList::deny`] is for stages: it puts the address into a bounded lock-free queue, nothing else, and a thread
//!   takes it to the kernel within [`PATIENCE`]. What does not fit is counted and not denied.
//! * [`DenyList::add`] and [`DenyList::remove`] are for everyone else: the entry is in the kernel when they return, or the
//!   error says why not.
//!
//! A file may hold entries as well ([`file`](mod@file)); it is watched. An entry is in the kernel as long as somebody wants it
//! there: adding it twice keeps it until the later end, and removing a line of the file does not remove what a stage has
//! denied. When a map is full the entry is refused: nothing is evicted, and nothing else is dropped for it.

#![forbid(unsafe_code)]

pub mod file;
mod held;
mod list;
mod thread;

pub(crate) use held::too_many;
pub use held::{DenyCounts, DenyError};
pub use list::{DenyEntry, DenyList, ParseEntryError};
pub use thread::{DenyThread, PATIENCE, StartDenyError};

/// Where entries take effect: the maps of an XDP program, or, in tests, anything.
pub trait DenyTable: Send {
    /// Starts dropping; an entry that is there already is fine.
    ///
    /// # Errors
    ///
    /// What the kernel said.
    fn insert(&mut self, entry: &DenyEntry) -> Result<(), crate::kernel::xdp::XdpError>;

    /// Stops dropping; an entry that is not there is fine.
    ///
    /// # Errors
    ///
    /// What the kernel said.
    fn remove(&mut self, entry: &DenyEntry) -> Result<(), crate::kernel::xdp::XdpError>;
}
