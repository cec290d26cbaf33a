//! What can be measured: `xfwd`, and its peers, one file each.

pub mod bare;
mod bare_receive;
pub mod library;
pub mod linux;
pub mod nftables;
pub mod testpmd;
pub mod two_lines;
pub mod xdp_filter;
pub mod xfwd;

use std::process::Command;
use std::time::Duration;

use anyhow::Result;
use xfwd_netns::MacAddress;
use xfwd_netns::topology::INTERFACE;

use crate::bench::Bench;
use crate::site::Site;

/// How long anything may take that should take no time. Long, since it is only waited for when something is wrong.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Why there is no figure.
#[derive(Debug)]
pub enum Failure {
    /// The subject cannot be had on this machine, or cannot do this: it is named as missing, and not tried again.
    Missing(String),
    /// Something went wrong this time.
    Failed(anyhow::Error),
}

impl<E: Into<anyhow::Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

/// What a measurement gives.
pub type Outcome<T> = std::result::Result<T, Failure>;

/// Something that packets are sent to.
pub trait Subject {
    /// What the report calls it.
    fn name(&self) -> String;

    /// Whether it works in the driver of the interface, which on a veth is the generator's core.
    fn shares_core(&self) -> bool {
        false
    }

    /// Where packets for it are sent, by MAC address.
    ///
    /// # Errors
    ///
    /// If the address cannot be read.
    fn destination(&self, site: &Site) -> Result<MacAddress> {
        Ok(site.subject.mac(INTERFACE)?)
    }

    /// Starts it in the subject's namespace of `site`; packets are handled when this returns.
    ///
    /// # Errors
    ///
    /// [`Failure::Missing`] if it cannot be had here.
    fn start(&self, bench: &Bench, site: &Site) -> Outcome<Box<dyn Running>>;
}

/// A subject at work. Dropping it ends it, at once.
pub trait Running {
    /// Its process, if it is one.
    fn pid(&self) -> Option<u32> {
        None
    }

    /// Ends it in good order and returns what it has counted itself.
    ///
    /// # Errors
    ///
    /// If it did not end well.
    fn stop(self: Box<Self>) -> Result<Own>;
}

/// What a subject has counted itself, since it was started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Own {
    /// Packets that have reached it; of those that drop, packets dropped.
    pub received: Option<u64>,
    /// Packets that it has sent.
    pub sent: Option<u64>,
}

/// Finds a command that `scripts/bench` installs from a Debian package.
///
/// # Errors
///
/// [`Failure::Missing`] with the package's name.
pub fn command(name: &'static str, package: &str) -> Outcome<Command> {
    let directories = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path)
        .chain(directories.iter().map(Into::into))
        .map(|directory| directory.join(name))
        .find(|path| path.is_file());
    found
        .map(Command::new)
        .ok_or_else(|| Failure::Missing(format!("{name} is not installed (Debian package {package})")))
}
