//! Stages, batches and verdicts: what happens to packets between receive and transmit.
//!
//! A [`Batch`] of up to [`BATCH_SIZE`] packets runs through the [`Stage`]s of a pipeline in order. A stage looks at
//! the packets that are still undecided, may change their bytes, and sets a [`Verdict`] on those it has an
//! opinion about. Nothing here knows where packets come from: the same pipeline runs on an AF_XDP socket, on
//! memory and on a capture file.
//!
//! Stages are chained in one of two ways, with the same meaning:
//!
//! * **statically**, as a tuple `(a, b, c)`: compiles to one loop with no dynamic call, for embedders;
//! * **dynamically**, as a [`Pipeline`] of boxed stages, built from a config file: one dynamic call a stage and
//!   batch, never one a packet.
//!
//! ```
//! use xfwd::pipeline::{Batch, DropReason, Stage, Verdict};
//!
//! /// Drops what is shorter than `min` bytes, bounces the rest.
//! struct MinLength { min: usize }
//!
//! impl Stage for MinLength {
//!     fn name(&self) -> &str { "min-length" }
//!     fn process(&mut self, batch: &mut Batch<'_>) {
//!         batch.each_undecided(|packet| {
//!             if packet.len() < self.min { Verdict::Drop(DropReason::Rule) } else { Verdict::Bounce }
//!         });
//!     }
//! }
//!
//! let mut bytes = [0u8; 60];
//! let mut batch = Batch::new(0);
//! batch.push(&mut bytes, 60);
//! MinLength { min: 64 }.process(&mut batch);
//! assert_eq!(batch.finish()[0], Verdict::Drop(DropReason::Rule));
//! ```

#![forbid(unsafe_code)]

mod batch;
mod chain;
mod counter;
#[cfg(test)]
mod misuse_tests;
mod packet;
mod stage;
mod verdict;

pub use batch::{BATCH_SIZE, Batch, Decided, MAX_ORIGINATED, Undecided, Verdicts};
pub use chain::Pipeline;
pub use counter::Counter;
pub use packet::{EditError, NoRoom, Packet, Span};
pub use stage::Stage;
pub use verdict::{DropReason, PortIndex, Verdict};
