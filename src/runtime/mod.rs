//! Puts plan, kernel, ports and workers together: start, watch, stop.
//!
//! [`Runner`] says what to run on what, and [`Runner::start`] does everything in an order in which a failure leaves nothing behind:
//!
//! 1. look: privileges, interfaces, their queues and what is attached to them, routes to the backends;
//! 2. open: UMEM and sockets, fill rings primed;
//! 3. load: XDP program and maps, sockets put into the XSKMAP;
//! 4. run: workers start, next hops and health of backends are followed;
//! 5. attach: only now packets arrive.
//!
//! [`Running::stop`] goes the other way. The program is held by a bpf_link of this process, so even when the process is
//! killed the interface goes back to the host stack.

#![forbid(unsafe_code)]

mod balance;
mod balance_snapshot;
mod cores;
mod error;
mod events;
mod plan;
mod reload;
mod runner;
mod running;
mod snapshot;
mod start;

#[cfg(feature = "offline")]
pub(crate) use balance::{options as balance_options, services as balanced_services};
pub use balance_snapshot::{Answers, BalanceSnapshot, Connections, Fragments, Nat};
pub use cores::{NoSuchCore, choose_cores};
pub use error::{RunError, StartError};
pub use plan::kernel_plan;
#[cfg(feature = "offline")]
pub(crate) use plan::{Besides, filter as filter_control, steering};
pub use reload::ReloadError;
pub use runner::Runner;
pub use running::{Event, Running};
pub use snapshot::{InterfaceSnapshot, QueueSnapshot, Snapshot, Totals, Verdicts, WorkerRow};
