//! A traffic generator, and a counter for what arrives.
//!
//! The generator makes packets inside the kernel: it runs an XDP program on live frames (`BPF_PROG_RUN` with
//! `BPF_F_TEST_XDP_LIVE_FRAMES`, Linux 5.18) that writes the headers of the next packet and redirects the frame to an
//! interface. On a veth this makes millions of packets per second from one core, to the exact count.
//!
//! The other end of a veth must have NAPI: an XDP program (such as a [`Counter`]'s), or GRO. All packets of one core
//! arrive on one queue of it, `core % queues`, unless they are [spread](Traffic::spread).
//!
//! What this makes on one core of a shared virtual machine (two cores, Linux 6.18), into a program that drops:
//!
//! | traffic | packets per second |
//! |---|---|
//! | 60 bytes | 13.0 to 15.0 million |
//! | 1,514 bytes, or 3,314 | 14.2 to 15.6 million |
//! | IMIX | 12.0 to 13.4 million |
//! | 60 bytes with time stamps, no rate | 9.9 to 10.3 million |
//! | 60 bytes with time stamps, paced, sent back by XDP_TX (above it the generator is late, and says so) | up to 6.0 million |
//! | 60 bytes, spread over four queues | 4.3 to 4.6 million |
//! | 9,014 bytes by [`Replay`] | 0.71 to 0.74 million |
//!
//! [`calibrate`] says it for the machine at hand. What a live frame cannot be (longer than a page, or byte for byte that of a
//! capture) is sent by [`Replay`]. [`latency`] explains how delays are measured.
//!
//! Both act on an interface of the calling thread's network namespace: use them inside [`Namespace::run`].
//!
//! ```no_run
//! use xfwd_netns::topology::{self, INTERFACE};
//! use xfwd_netns::trafficgen::{Amount, Class, Counter, CounterOptions, Generator, Traffic};
//!
//! let pair = topology::pair(1)?;
//! let counter = pair.subject.run(|| Counter::attach(INTERFACE, &CounterOptions::default()))?;
//! let traffic = Traffic {
//!     destination_mac: pair.subject.mac(INTERFACE)?,
//!     flows: 1_000,
//!     ..Traffic::udp(topology::host_v4(1).into(), topology::host_v4(2).into(), 9)
//! };
//! let sent = pair.generator.run(|| Generator::new(INTERFACE, &traffic)?.run(Amount::Packets(1_000_000)))?;
//! assert_eq!(counter.read()?.class(Class::Ipv4Udp).ours, sent.packets);
//! # Ok::<(), xfwd_netns::Error>(())
//! ```
//!
//! [`Namespace::run`]: crate::Namespace::run

mod call;
mod counter;
mod generator;
pub mod latency;
mod limit;
mod mix;
mod object;
mod replay;
mod statistics;
mod template;
mod traffic;

pub use counter::{Counter, CounterOptions, Counts};
pub(crate) use generator::probe;
pub use generator::{Amount, Generator, Sent};
pub use limit::calibrate;
pub use mix::Mix;
pub use replay::{Pace, Replay};
pub use traffic::{MAX_FRAME_LENGTH, Protocol, SpecError, Traffic};
pub use xfwd_ebpf_types::trafficgen::{Class, ClassCounters, CounterVerdict, MARKER};
