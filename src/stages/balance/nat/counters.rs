//! What a worker counts about its sessions.

use crossbeam::utils::CachePadded;

use crate::pipeline::Counter;

/// Numbers that a worker writes and anybody reads.
#[derive(Debug, Default)]
pub struct NatCounters(CachePadded<Numbers>);

#[derive(Debug, Default)]
pub(super) struct Numbers {
    pub(super) open: Counter,
    pub(super) opened: Counter,
    pub(super) reused: Counter,
    pub(super) restarted: Counter,
    pub(super) expired: Counter,
    pub(super) evicted: Counter,
    pub(super) exhausted: Counter,
}

/// [`NatCounters`] at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct NatSnapshot {
    /// Sessions that are open now.
    pub open: u64,
    /// Sessions opened.
    pub opened: u64,
    /// Of these, how many got a port that another session of this run had before.
    pub reused: u64,
    /// Connections begun anew within a session whose last one was over.
    pub restarted: u64,
    /// Sessions closed because nothing was seen of them for as long as their state allows.
    pub expired: u64,
    /// Sessions closed to make room for another when no port was free.
    pub evicted: u64,
    /// Flows that got no session since no port was free.
    pub exhausted: u64,
}

impl NatCounters {
    #[inline]
    pub(super) fn numbers(&self) -> &Numbers {
        &self.0
    }

    /// The numbers as they are now.
    pub fn snapshot(&self) -> NatSnapshot {
        let Numbers { open, opened, reused, restarted, expired, evicted, exhausted } = &*self.0;
        NatSnapshot {
            open: open.get(),
            opened: opened.get(),
            reused: reused.get(),
            restarted: restarted.get(),
            expired: expired.get(),
            evicted: evicted.get(),
            exhausted: exhausted.get(),
        }
    }
}
