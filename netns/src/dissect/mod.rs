//! An independent opinion on captured packets: Wireshark's dissectors, by `tshark`.
//!
//! Only Ethernet, IP, ICMP, TCP, UDP, VXLAN and sFlow are dissected, with every checksum computed; GUE variant 1 is shown as the IP packet
//! that it carries. What applications say is left alone, and so is what depends on packets that were not captured, such as
//! missing TCP segments. Two things that Wireshark lets pass in tunnels are checked by its fields: the inner packet's version,
//! and that it fills the outer one.
//!
//! ```no_run
//! # use xfwd_netns::{Capture, dissect, topology};
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let network = topology::tunnel(1, 1)?;
//! let recording = network.backends[0].run(|| Capture::open("eth0"))?.record();
//! // Traffic.
//! let dissected = dissect::assert_frames_well_formed(&recording.stop()?);
//! for packet in dissected.with_layers("ip:ip:tcp") {
//!     assert_eq!(packet.fields("ip.dst"), ["198.19.0.11", "198.18.10.1"]);
//! }
//! # Ok(())
//! # }
//! ```

mod packet;
mod tshark;
mod tunnel;

use std::{
    env, fs,
    path::{Path, PathBuf},
    process,
    sync::atomic::{AtomicU32, Ordering},
};

pub use packet::{Packet, Problem};

use crate::{capture::Captured, error::Result, pcap::write_pcap};

/// The UDP port whose payload is taken for GUE, unless another is named.
pub const GUE_PORT: u16 = 6080;

/// What the dissector says of each packet, in the order of the capture.
#[derive(Clone, Debug, Default)]
pub struct Dissected {
    /// All packets.
    pub packets: Vec<Packet>,
}

impl Dissected {
    /// Packets that something is wrong with.
    pub fn offenders(&self) -> impl Iterator<Item = &Packet> {
        self.packets.iter().filter(|packet| !packet.problems.is_empty())
    }

    /// Packets with these layers one behind the other, such as `ip:ip:tcp` or `ipv6:udp:ip:tcp`.
    pub fn with_layers(&self, layers: &str) -> impl Iterator<Item = &Packet> {
        let wanted = format!(":{layers}:");
        self.packets.iter().filter(move |packet| format!(":{}:", packet.layers.join(":")).contains(&wanted))
    }

    /// All offenders, one a line.
    pub fn complaints(&self) -> String {
        self.offenders().map(|packet| format!("{packet}\n")).collect()
    }
}

/// Dissects a capture file. UDP of port `gue_port` is taken for GUE.
///
/// # Errors
///
/// If there is no `tshark`, or it cannot read the file.
pub fn dissect(pcap: &Path, gue_port: u16) -> Result<Dissected> {
    tshark::run(pcap, gue_port)
}

/// Dissects frames. UDP of port `gue_port` is taken for GUE.
///
/// # Errors
///
/// If there is no `tshark`, or no file can be written.
pub fn dissect_frames(frames: &[Captured], gue_port: u16) -> Result<Dissected> {
    let path = temporary();
    let result = write_pcap(&path, frames).and_then(|()| dissect(&path, gue_port));
    let _ = fs::remove_file(&path);
    result
}

/// Dissects a capture file, with GUE at [`GUE_PORT`].
///
/// # Panics
///
/// If there is anything wrong with any packet, naming them all, or [`dissect`] fails.
#[track_caller]
pub fn assert_well_formed(pcap: &Path) -> Dissected {
    let dissected = dissect(pcap, GUE_PORT).unwrap_or_else(|error| panic!("{error}"));
    let complaints = dissected.complaints();
    assert!(complaints.is_empty(), "in {}:\n{complaints}", pcap.display());
    dissected
}

/// As [`assert_well_formed`], for frames. If something is wrong they are left in a file, which the message names.
///
/// # Panics
///
/// As [`assert_well_formed`].
#[track_caller]
pub fn assert_frames_well_formed(frames: &[Captured]) -> Dissected {
    let path = temporary();
    write_pcap(&path, frames).unwrap_or_else(|error| panic!("{error}"));
    let dissected = assert_well_formed(&path);
    let _ = fs::remove_file(&path);
    dissected
}

/// A file of its own.
fn temporary() -> PathBuf {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    env::temp_dir().join(format!("xfwd-{}-{number}.pcap", process::id()))
}
