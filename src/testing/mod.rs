//! A test kit for stages and ports (feature `testing`): a stage is fed packets without an interface, without root and with a clock
//! that stands still, and a port that misbehaves shows what a worker makes of it.
//!
//! * [`Harness`] runs one stage, or a chain, batch by batch, and shows what became of each packet.
//! * [`built!`](built) gives the bytes of a packet that `etherparse` builds; [`packets`] are random ones of all kinds by seed, and
//!   [`strategies`] those for `proptest`.
//! * [`FaultyPort`] stands around another port and injects full rings, short batches, lost wakeups and completions out of order.
//! * A whole worker runs on [`MemoryPort`](crate::port::memory::MemoryPort)s.
//!
//! ```toml
//! [dev-dependencies]
//! xfwd = { version = "0.1", default-features = false, features = ["testing"] }
//! ```
//!
//! ```
//! use etherparse::PacketBuilder;
//! use xfwd::pipeline::{Batch, DropReason, Stage, Verdict};
//! use xfwd::testing::{Harness, built};
//!
//! /// Answers UDP packets to port 7, drops all others.
//! struct Echo;
//!
//! impl Stage for Echo {
//!     fn name(&self) -> &str { "echo" }
//!     fn process(&mut self, batch: &mut Batch<'_>) {
//!         batch.each_undecided(|packet| match packet.udp().map(|udp| udp.destination_port()) {
//!             Some(7) if packet.reply_udp(b"pong").is_ok() => Verdict::Bounce,
//!             _ => Verdict::Drop(DropReason::NotAnswered),
//!         });
//!     }
//! }
//!
//! let link = || PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);
//! let question = built!(link().ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64).udp(40_000, 7), b"ping");
//! let other = built!(link().ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64).tcp(40_000, 7, 1, 1_024).syn(), b"");
//!
//! let mut harness = Harness::new(Echo);
//! let step = harness.step([question, other]);
//! assert_eq!(step.packets[0].verdict, Verdict::Bounce);
//! assert_eq!(step.packets[0].payload(), Some(&b"pong"[..]));
//! assert_eq!(step.packets[1].verdict, Verdict::Drop(DropReason::NotAnswered));
//! ```

#![forbid(unsafe_code)]

mod faulty;
mod harness;
pub mod packets;
pub mod strategies;

pub use faulty::{FaultCounts, Faults, FaultyPort};
pub use harness::{Harness, Processed, Step};

/// The bytes of a packet from a builder of `etherparse` and its payload.
///
/// ```
/// # use xfwd::testing::built;
/// let step = etherparse::PacketBuilder::ethernet2([2; 6], [4; 6]).ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64);
/// assert_eq!(built!(step.udp(1, 2), b"payload").len(), 14 + 20 + 8 + 7);
/// ```
///
/// # Panics
///
/// When the payload is longer than the length fields can say.
#[doc(hidden)]
#[macro_export]
macro_rules! __testing_built {
    ($step:expr, $payload:expr $(,)?) => {{
        let (step, mut bytes) = ($step, ::std::vec::Vec::new());
        step.write(&mut bytes, $payload).expect("the payload fits");
        bytes
    }};
}

#[doc(inline)]
pub use crate::__testing_built as built;
