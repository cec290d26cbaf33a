//! A config run over a capture: what xfwd would have done with these packets, without a kernel, an interface or a right.
//!
//! [`Capture`] reads a pcap or pcapng file, packet by packet. [`Offline`] takes each packet the way that it takes live: the
//! [XDP program](crate::kernel::offline) drops it, leaves it to the host or hands it to a worker; there it runs through the
//! stages of the config, the very ones that run live. What becomes of it is a [`Fate`]. [`PcapWriter`] writes what would be
//! sent.
//!
//! ```no_run
//! use xfwd::offline::{Capture, Offline, Options, PcapWriter};
//!
//! let plan = xfwd::config::load("lb.toml".as_ref())?;
//! let mut offline = Offline::new(&plan, &Options::default())?;
//! let mut capture = Capture::open(std::fs::File::open("in.pcap")?)?;
//! let mut sent = PcapWriter::new(std::fs::File::create("out.pcap")?)?;
//! offline.run(&mut capture, |fate| match fate.sent {
//!     Some(packet) => sent.write(fate.time, packet.bytes, packet.len),
//!     None => Ok(()),
//! })?;
//! println!("{} packets", offline.summary().packets);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # What is not in a capture
//!
//! | live | offline |
//! |---|---|
//! | time | that of the capture, which never goes back: policers, timeouts and deny lines with a time go by it |
//! | batches of what has arrived | up to 64 packets of at most 100 µs ([`WINDOW`]) |
//! | one worker a queue | one worker, one port: what a backend is sent leaves by the port it came in by (`bounce`) |
//! | MAC addresses of backends and the interface | made up from their addresses ([`backend_mac`], [`PORT_MAC`]), or told |
//! | MTU of the way to a backend | 1,500, or told |
//! | source address of outer headers | `tunnel_sources` of the config, else [`TUNNEL_SOURCE_V4`] and [`TUNNEL_SOURCE_V6`] |
//! | addresses of the host (`steer = "all"`) | none, or told |
//! | health of backends | all healthy |
//! | packets in several buffers | one buffer, however long |
//! | numbers from a process's random seed (GUE ports, flow labels) | likewise random |
//!
//! Packets that were cut by the capture's snapshot length ("snapped") are looked at as far as they go, with the length that they
//! had, as live those whose rest lies in other buffers. One whose headers were cut is malformed. What is sent of them is
//! as short, and says its whole length.

#![forbid(unsafe_code)]

mod capture;
mod clock;
mod engine;
mod explain;
mod fate;
mod frame;
mod next_hops;
mod summary;
mod writer;

pub use capture::{Capture, CaptureError};
pub use clock::WINDOW;
pub use engine::{Offline, RunError};
pub use fate::{Fate, Place, Sent, Verdict};
pub use frame::Frame;
pub use next_hops::{Options, PORT_MAC, TUNNEL_SOURCE_V4, TUNNEL_SOURCE_V6, backend_mac};
pub use summary::{Summary, Verdicts};
pub use writer::PcapWriter;
