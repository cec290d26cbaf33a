//! Network functions on AF_XDP: packets go from the driver to user space and back, past the host's network stack.
//!
//! This is a framework to write such functions with, and the functions that ship with it: an L4 load balancer, a packet filter, a
//! deny list and a bouncer, which the `xfwd` command runs from a config file. A function is a [`Stage`]: it is shown batches of up to
//! 64 packets and says what becomes of each. Everything around it (the XDP program, sockets, rings, frames, one pinned thread a
//! queue, counters, an orderly start and end) is done by a [`Runner`].
//!
//! # The way of a packet
//!
//! ```text
//!  NIC queue i ─▶ XDP program ──XDP_PASS──▶ host network stack: SSH, ARP, all that is not steered
//!                    │ XDP_REDIRECT                                                         kernel
//!  ──────────────────┼─────────────────────────────────────────────────────────────────────────────
//!                    ▼                                                                  user space
//!  AF_XDP socket i ─▶ worker i (pinned) ─▶ batch ─▶ stage ▸ stage ▸ stage ─▶ verdicts
//!                 ◀────────────────────────────────────────────────────────────┘ bounce / forward
//! ```
//!
//! One worker serves one queue index of every interface; it owns its sockets, its frames, its stages and its counters. Nothing on this
//! way is shared, locked or allocated. Only what a function asks for leaves the kernel, so the machine stays reachable by the
//! same interface. However the process ends, the interface goes back to the host.
//!
//! # A whole program
//!
//! Discards what is sent to UDP port 9 (RFC 863), and counts it:
//!
//! ```no_run
//! use xfwd::prelude::*;
//!
//! struct Discard {
//!     bytes: StageCounter,
//! }
//!
//! impl Stage for Discard {
//!     fn name(&self) -> &str {
//!         "discard"
//!     }
//!     fn process(&mut self, batch: &mut Batch<'_>) {
//!         batch.each_undecided(|packet| {
//!             self.bytes.add(packet.len() as u64);
//!             Verdict::Drop(DropReason::Rule)
//!         });
//!     }
//! }
//!
//! fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     let running = Runner::new()
//!         .interface("eth0")
//!         .steer(SteeredService::udp("198.18.0.2:9".parse()?))
//!         .stage(|worker| Discard { bytes: worker.counter("discarded-bytes") })
//!         .start()?;
//!     // Until something ends it: a removed interface, a panic in a stage.
//!     while !running.wait(std::time::Duration::MAX).is_some_and(|event| event.is_end()) {}
//!     let (snapshot, errors) = running.stop();
//!     println!("{:?}", snapshot.counters);
//!     errors.into_iter().next().map_or(Ok(()), |error| Err(error.into()))
//! }
//! ```
//!
//! # Where to go on
//!
//! * [`pipeline`]: what a stage sees and decides, and how stages are chained; tried on memory, without root, with
//!   [`port::memory`].
//! * [`packet`]: typed views of headers, the parser, checksums.
//! * [`Runner`]: all that a run can be told; state of a stage's own and what other threads have to tell it.
//! * [`Registry`]: stages of one's own in the config file, and with the feature `cli` in the `xfwd` command (`cli::main_with`).
//! * [`stages`]: those that ship, to be put into a pipeline of one's own.
//! * [`kernel`]: the XDP program, links, addresses, next hops, what this kernel can do; usable without the rest.
//! * `examples/` of the repository: `bounce` is as small as a program gets, `udp_echo` a complete server on a page, `sampler` has something to
//!   tell to another thread, `embed_in_tokio` stands beside async code, `custom_stage` and `whoami` are the command with one stage more;
//!   `dns_responder`, `syn_scrubber`, `l2_bridge` and `vxlan_gateway` are network functions of their own.
//! * The guide, `docs/` of the repository: a stage that grows step by step (`docs/writing-a-stage.md`), how to run and tune it.
//! * `testing` (feature `testing`, for dev-dependencies): stages fed with packets and judged without an interface, ports with faults.
//!
//! # Features
//!
//! | feature | default | what it adds |
//! |---|---|---|
//! | `cli` | yes | the `xfwd` command, and [`cli`](https://docs.rs/xfwd/latest/xfwd/cli/) to make one with more stages: clap, tables, JSON |
//! | `offline` | with `cli` | [`offline`](https://docs.rs/xfwd/latest/xfwd/offline/): a config over capture files |
//! | `testing` | no | `testing`, the test kit: proptest |
//! | `health` | yes | health checks of backends: tokio, hyper, rustls. Without it a config that asks for them does not start |
//!
//! With `default-features = false` there is neither an async runtime nor a crate of the command line, of HTTP or of a terminal in
//! the tree; a test sees to that.
//!
//! # What it needs
//!
//! Linux 6.1 (6.12 for filter rules in the XDP program), on any architecture that Rust and the driver know; `xfwd features` says
//! what a kernel and a driver can do. Drivers without AF_XDP zero-copy are run in copy mode, those without XDP in generic mode if that is asked for. Root, or
//! CAP_NET_ADMIN, CAP_NET_RAW, CAP_BPF and CAP_PERFMON ([`kernel::capabilities`]). To build: a C compiler and libclang, for libxdp; not
//! clang for BPF: the XDP program is part of the crate.
//!
//! # Versions
//!
//! Semantic versioning as cargo has it: until 1.0 a change of the second number may break what uses the library, a change of the third does
//! not. What is public stands in `docs/public-api.txt`, so that a change of it is seen. Enums and structs that will grow are
//! `#[non_exhaustive]`: more variants and fields are no break, nor are more keys in the JSON of a snapshot, and more words in a message.
//!
//! The oldest Rust that builds it is 1.95 (`rust-version`); a newer one is asked for only with a change of the second number.

pub mod config;
pub mod health;
mod hints;
pub mod kernel;
mod lanes;
#[cfg(feature = "offline")]
pub mod offline;
pub mod packet;
pub mod pipeline;
pub mod port;
pub mod runtime;
pub mod stages;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
mod words;
pub mod worker;

#[cfg(feature = "cli")]
pub mod cli;

pub use crate::config::{Dataplane, Plan, Registry, Steer};
pub use crate::kernel::deny::DenyList;
pub use crate::kernel::xdp::SteeredService;
pub use crate::packet::{Headers, MacAddress};
pub use crate::pipeline::{Batch, DropReason, Packet, Pipeline, PortIndex, Stage, Verdict};
pub use crate::port::xsk::Mode;
pub use crate::runtime::{Event, RunError, Runner, Running, Snapshot, StartError};
pub use crate::stages::filter::Rule;
pub use crate::worker::{Idle, StageCounter, WorkerContext};

/// What a program that has a stage of its own uses: `use xfwd::prelude::*;`.
pub mod prelude {
    pub use crate::{
        Batch, DropReason, Event, Idle, MacAddress, Mode, Packet, PortIndex, Runner, Running, Stage,
        StageCounter, Steer, SteeredService, Verdict, WorkerContext,
    };
}
