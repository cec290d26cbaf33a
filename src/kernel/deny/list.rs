//! Entries, and the handle by which they are added.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crossbeam::queue::ArrayQueue;

use super::held::{DenyCounts, DenyError, Held};
use crate::packet::protocol::{SCTP, TCP, UDP};
use crate::stages::filter::{ParsePrefixError, Prefix};

/// Room for entries that the thread has not taken yet: more than a worker can find in the few milliseconds until it does.
const QUEUE: usize = 16_384;

/// What is denied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum DenyEntry {
    /// Every packet from these addresses.
    Source(Prefix),
    /// Every packet of a 5-tuple, in one direction. Both addresses are of one family.
    Flow {
        /// Source address and port.
        src: SocketAddr,
        /// Destination address and port.
        dst: SocketAddr,
        /// TCP 6, UDP 17 or SCTP 132.
        protocol: u8,
    },
}

impl fmt::Display for DenyEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Source(prefix) => prefix.fmt(f),
            Self::Flow { src, dst, protocol } => {
                let name = match *protocol {
                    TCP => "tcp",
                    UDP => "udp",
                    SCTP => "sctp",
                    other => return write!(f, "protocol {other} {src} {dst}"),
                };
                write!(f, "{name} {src} {dst}")
            }
        }
    }
}

/// A text that is no entry.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ParseEntryError {
    /// Not a prefix.
    #[error(transparent)]
    Prefix(#[from] ParsePrefixError),
    /// Not a 5-tuple.
    #[error(
        "not a 5-tuple, such as `tcp 192.0.2.1:40000 198.51.100.1:443` or `udp [2001:db8::1]:53 [2001:db8::2]:53`"
    )]
    Flow,
}

impl FromStr for DenyEntry {
    type Err = ParseEntryError;

    /// An address, a prefix, or `tcp|udp|sctp SOURCE:PORT DESTINATION:PORT`.
    fn from_str(text: &str) -> Result<Self, ParseEntryError> {
        let words: Vec<&str> = text.split_whitespace().collect();
        let protocol = match words.first() {
            Some(&"tcp") => TCP,
            Some(&"udp") => UDP,
            Some(&"sctp") => SCTP,
            _ => return Ok(Self::Source(text.trim().parse()?)),
        };
        let [_, src, dst] = words[..] else { return Err(ParseEntryError::Flow) };
        let parse = |text: &str| text.parse::<SocketAddr>().map_err(|_| ParseEntryError::Flow);
        let (src, dst) = (parse(src)?, parse(dst)?);
        if src.is_ipv4() != dst.is_ipv4() {
            return Err(ParseEntryError::Flow);
        }
        Ok(Self::Flow { src, dst, protocol })
    }
}

/// Adds to and removes from the deny list of a run. Clones are the same list.
#[derive(Clone)]
pub struct DenyList {
    pub(super) shared: Arc<Shared>,
}

pub(super) struct Shared {
    pub queue: ArrayQueue<(DenyEntry, Instant)>,
    pub queue_full: AtomicU64,
    pub held: Mutex<Held>,
}

impl Shared {
    pub fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl DenyList {
    pub(super) fn new(held: Held) -> Self {
        let queue = ArrayQueue::new(QUEUE);
        Self { shared: Arc::new(Shared { queue, queue_full: AtomicU64::new(0), held: Mutex::new(held) }) }
    }

    /// A list that takes effect nowhere: entries are counted, and stay in the queue. For stages that run without a run.
    pub fn detached() -> Self {
        Self::new(Held::new(Vec::new()))
    }

    /// Denies a source address from within [`PATIENCE`](super::PATIENCE) on for `ttl`. For stages: takes some
    /// nanoseconds beside a look at the clock, and never blocks, allocates or calls the kernel. `false` when there was no
    /// room in the queue; that is counted.
    pub fn deny(&self, src: IpAddr, ttl: Duration) -> bool {
        self.enqueue(DenyEntry::Source(Prefix::new(src, 128)), ttl)
    }

    /// As [`deny`](Self::deny), for any entry.
    pub fn enqueue(&self, entry: DenyEntry, ttl: Duration) -> bool {
        let taken = self.shared.queue.push((entry, end(ttl))).is_ok();
        if !taken {
            self.shared.queue_full.fetch_add(1, Relaxed);
        }
        taken
    }

    /// Denies at once. Not for stages: it locks and calls the kernel.
    ///
    /// # Errors
    ///
    /// [`DenyError::Full`] when there is no room, [`DenyError::Kernel`] when the kernel refuses. Nothing has changed then.
    pub fn add(&self, entry: DenyEntry, ttl: Duration) -> Result<(), DenyError> {
        self.shared.held().add(entry, end(ttl))
    }

    /// Takes back what [`add`](Self::add) or [`deny`](Self::deny) did; `false` when there was nothing. An entry that
    /// the file has as well stays.
    ///
    /// # Errors
    ///
    /// [`DenyError::Kernel`] when the kernel refuses.
    pub fn remove(&self, entry: &DenyEntry) -> Result<bool, DenyError> {
        self.shared.held().remove(entry)
    }

    /// What was done so far, and how many entries there are.
    pub fn counts(&self) -> DenyCounts {
        DenyCounts { queue_full: self.shared.queue_full.load(Relaxed), ..self.shared.held().counts() }
    }
}

/// A time to live beyond what the clock can tell is a hundred years.
fn end(ttl: Duration) -> Instant {
    const LONG: Duration = Duration::from_secs(100 * 365 * 86_400);
    let now = Instant::now();
    now.checked_add(ttl.min(LONG)).unwrap_or(now)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_read_as_they_are_shown() {
        for text in [
            "192.0.2.1/32",
            "10.0.0.0/8",
            "2001:db8::/32",
            "tcp 192.0.2.1:40000 198.51.100.1:443",
            "udp [::1]:5 [::2]:6",
        ] {
            assert_eq!(text.parse::<DenyEntry>().unwrap().to_string(), text);
        }
        assert_eq!("192.0.2.1".parse::<DenyEntry>().unwrap().to_string(), "192.0.2.1/32");
        for text in
            ["", "10.0.0.1/8", "tcp 192.0.2.1:1", "tcp 192.0.2.1:1 [::1]:2", "tcp 192.0.2.1 192.0.2.2"]
        {
            assert!(text.parse::<DenyEntry>().is_err(), "{text}");
        }
    }
}
