//! What becomes of one packet.

use std::net::IpAddr;
use std::time::Duration;

use crate::packet::Headers;
use crate::stages::filter::Facts;
use crate::words::choices;

choices! {
    /// Where the verdict was given.
    pub enum Place {
        /// In the XDP program.
        Kernel = "kernel",
        /// In the stages of a worker.
        Worker = "worker",
    }
}

choices! {
    /// What becomes of a packet in the end.
    pub enum Verdict {
        /// It is left to the host's network stack.
        Pass = "pass",
        /// It is dropped.
        Drop = "drop",
        /// It is sent out of the port that it came in by: bounced, answered, or sent to a backend there.
        Bounce = "bounce",
        /// It is sent out of another port.
        Forward = "forward",
    }
}

/// What becomes of one packet.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Fate<'p> {
    /// Number of the packet in the capture, from 1.
    pub number: u64,
    /// When it was captured, since 1970.
    pub time: Duration,
    /// Bytes that it had.
    pub len: u32,
    /// Bytes of it that the capture has.
    pub captured: u32,
    /// What the parser found in it, as it came.
    pub headers: &'p Headers,
    /// What a rule could look at, as it came.
    pub facts: &'p Facts,
    /// Where the verdict was given.
    pub place: Place,
    /// What becomes of it.
    pub verdict: Verdict,
    /// The counter that says why, where there is one: the XDP program's cause, or the reason of a worker's drop.
    pub reason: Option<&'static str>,
    /// What is sent, if it is bounced or forwarded.
    pub sent: Option<Sent<'p>>,
    /// The rules that acted on it, by their places in the list; only if it was asked to
    /// [explain](super::Offline::explain).
    pub rules: &'p [usize],
    /// The rule or service that decided, if one did; likewise.
    pub by: Option<&'p str>,
    /// The backend that it was sent to; likewise.
    pub backend: Option<IpAddr>,
}

/// A packet as it is sent.
#[derive(Clone, Copy, Debug)]
pub struct Sent<'p> {
    /// Its bytes, as far as the capture has them.
    pub bytes: &'p [u8],
    /// How many it has.
    pub len: u32,
}
