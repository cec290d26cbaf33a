//! The polling loop: one worker a queue index, alone on its core.
//!
//! A [`Worker`] owns its ports, its frames, its pipeline instance and its counters; nothing on its way is shared, locked or
//! allocated. One turn of the loop:
//!
//! ```text
//! stages' housekeeping
//! for every port:  complete ▸ receive ▸ pipeline ▸ verdicts ▸ refill
//! for every port:  transmit
//! idle, if nothing happened
//! ```

#![forbid(unsafe_code)]

mod context;
mod counters;
mod idle;
mod thread;
mod turn;

pub use context::{Counters, Interface, StageCounter, WorkerContext};
pub use counters::{WorkerCounters, WorkerSnapshot};
pub use idle::Idle;
pub use thread::{WorkerEnd, WorkerThread};
pub use turn::{FrameLeak, Worker};
