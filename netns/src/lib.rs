//! The xfwd lab: networks made of namespaces and veth pairs on one machine, with real clients, real servers and a
//! traffic generator, for tests, benchmarks and demonstrations.
//!
//! A [`Lab`] is a set of network namespaces that live as long as it does: dropping it, also by a panic, ends the
//! processes inside and removes the namespaces. [`topology`] has the networks that are used more than once.
//!
//! ```no_run
//! use std::process::Command;
//! use xfwd_netns::{Lab, VethOptions};
//!
//! let lab = Lab::new("ping")?;
//! let client = lab.namespace("client")?;
//! let server = lab.namespace("server")?;
//! lab.veth(&client, "eth0", &server, "eth0", &VethOptions { queues: 4, ..VethOptions::default() })?;
//! client.address("eth0", "198.18.0.1/15")?;
//! server.address("eth0", "198.18.0.2/15")?;
//! let listener = server.run(|| std::net::TcpListener::bind("198.18.0.2:80"))?;
//! let stream = client.run(|| std::net::TcpStream::connect("198.18.0.2:80"))?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! What is set up can be looked at with `nsenter --net=/run/netns/<name>` while it exists (`ip netns list`).
//! `ip netns exec` does as well for most things, but remounts `/sys` and so hides bpffs.
//!
//! A test that needs a lab starts with [`lab_or_skip!`], which skips it visibly where a [`Requirement`] is missing.

mod capture;
#[cfg(feature = "tools")]
pub mod clients;
#[cfg(feature = "tools")]
pub mod decap;
#[cfg(feature = "tools")]
pub mod dissect;
mod error;
mod ethtool;
mod exchange;
mod iproute;
mod lab;
mod packet_socket;
mod pcap;
mod process;
mod requirements;
pub mod topology;
pub mod trafficgen;
pub mod vm;

pub use capture::{Capture, Captured, Recording};
pub use error::{Error, Result};
pub use exchange::{Exchange, TAG_BYTES, exchange, tag};
pub use hdrhistogram::Histogram;
pub use lab::{Lab, MacAddress, Namespace, ParseMacError, VethOptions};
pub use pcap::{TimedFrame, read_pcap, write_pcap};
pub use process::{Child, ExitReport, tool};
pub use requirements::{Requirement, Skipped, command, requirements, skip};
