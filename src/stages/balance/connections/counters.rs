//! What a table has done so far.

use crate::pipeline::Counter;

/// Written by the worker that owns the table, readable by any thread.
///
/// At every moment of rest, `inserted` = `entries` + `expired` + `evicted` + `removed`.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct ConnectionCounters {
    /// Entries there are, with those that have expired and were not found by the sweep yet.
    pub entries: Counter,
    /// Flows stored.
    pub inserted: Counter,
    /// Entries freed since their time was over.
    pub expired: Counter,
    /// Entries in probation that made way for a new flow.
    pub evicted: Counter,
    /// Entries removed by the owner.
    pub removed: Counter,
    /// Flows not stored since there was no room.
    pub refused: Counter,
    /// Flows out of probation.
    pub promoted: Counter,
    /// Entries moved to their other bucket to make room.
    pub moved: Counter,
}
