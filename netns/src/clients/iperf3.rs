//! iperf3: bulk TCP and paced UDP.
//!
//! A test is a TCP connection that controls it and further flows for the data, all to one port: through a balancer they
//! meet at one server only by affinity to the source, or with one backend. UDP needs a TCP service and a UDP service on
//! the same port that choose alike.

use std::{
    net::SocketAddr,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

use super::{PATIENCE, report};
use crate::{
    error::{Error, Result},
    lab::Namespace,
    process::Child,
};

/// What a server says that has a test under way.
const BUSY: &str = "the server is busy";

/// What kind of data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// As much as goes, on this many connections.
    Tcp {
        /// How many.
        connections: u16,
    },
    /// Datagrams at a rate.
    Udp {
        /// Bits of payload a second.
        bits_per_second: u64,
        /// Bytes of payload of each.
        datagram_bytes: u16,
    },
}

/// How much data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Amount {
    /// All that goes in this time, in whole seconds.
    For(Duration),
    /// Bytes of payload, of all connections together, however long that takes. The sender's are counted: what its kernel and
    /// that of the receiver still hold when it is done, up to some MiB a connection, has not arrived.
    Bytes(u64),
}

/// A test.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// What is sent.
    pub kind: Kind,
    /// How much of it.
    pub amount: Amount,
    /// The server sends, and the client receives.
    pub reverse: bool,
}

/// How a test went.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Throughput {
    /// Bytes of payload that were sent.
    pub sent_bytes: u64,
    /// Bytes of payload that arrived.
    pub received_bytes: u64,
    /// Payload that arrived, in bits a second.
    pub bits_per_second: f64,
    /// TCP segments that were sent again; 0 for UDP.
    pub retransmits: u64,
    /// UDP datagrams that did not arrive; 0 for TCP.
    pub lost: u64,
}

/// Starts a server, which serves one test after another.
///
/// # Errors
///
/// If it cannot listen.
pub fn serve(host: &Namespace, address: SocketAddr) -> Result<Child> {
    let mut command = Command::new("iperf3");
    command.args(["--server", "--forceflush", "--bind", &address.ip().to_string()]);
    command.args(["--port", &address.port().to_string()]);
    let server = host.spawn(&mut command)?;
    server.wait_for("Server listening on", PATIENCE)?;
    Ok(server)
}

/// Runs a test against a server, and waits for it while it has not finished another.
///
/// # Errors
///
/// If it does not come to its end, with what iperf3 says.
pub fn run(host: &Namespace, to: SocketAddr, options: &Options) -> Result<Throughput> {
    let mut command = Command::new("iperf3");
    command.args(["--client", &to.ip().to_string(), "--port", &to.port().to_string(), "--json"]);
    command.args(["--connect-timeout", "5000"]);
    match options.amount {
        Amount::For(time) => command.args(["--time", &time.as_secs().max(1).to_string()]),
        Amount::Bytes(bytes) => command.args(["--bytes", &bytes.to_string()]),
    };
    if options.reverse {
        command.arg("--reverse");
    }
    match options.kind {
        Kind::Tcp { connections } => _ = command.args(["--parallel", &connections.to_string()]),
        Kind::Udp { bits_per_second, datagram_bytes } => {
            command.args(["--udp", "--bitrate", &bits_per_second.to_string()]);
            command.args(["--length", &datagram_bytes.to_string()]);
        }
    }
    let deadline = Instant::now() + PATIENCE;
    loop {
        match report(host, &mut command, read) {
            // It still takes what the test before had under way when its client was done.
            Err(Error::Report { why, .. }) if why.contains(BUSY) && Instant::now() < deadline => {
                thread::sleep(Duration::from_millis(20));
            }
            result => return result,
        }
    }
}

fn read(text: &str) -> std::result::Result<Throughput, String> {
    let report: Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
    if let Some(error) = report.get("error").and_then(Value::as_str) {
        return Err(error.to_owned());
    }
    let end = &report["end"];
    let number = |pointer: &str| end.pointer(pointer).and_then(Value::as_u64);
    let missing = || "a sum is missing".to_owned();
    // UDP has one sum for both sides, counted by the sender, with what the receiver missed.
    if let Some(lost) = number("/sum/lost_packets") {
        let (sent_bytes, packets) =
            (number("/sum/bytes").ok_or_else(missing)?, number("/sum/packets").ok_or_else(missing)?);
        let lost = lost.min(packets);
        let received_bytes = sent_bytes.checked_div(packets).unwrap_or_default() * (packets - lost);
        let seconds = end.pointer("/sum/seconds").and_then(Value::as_f64).ok_or_else(missing)?;
        let bits_per_second = received_bytes as f64 * 8.0 / seconds;
        return Ok(Throughput { sent_bytes, received_bytes, bits_per_second, retransmits: 0, lost });
    }
    Ok(Throughput {
        sent_bytes: number("/sum_sent/bytes").ok_or_else(missing)?,
        received_bytes: number("/sum_received/bytes").ok_or_else(missing)?,
        bits_per_second: end
            .pointer("/sum_received/bits_per_second")
            .and_then(Value::as_f64)
            .ok_or_else(missing)?,
        retransmits: number("/sum_sent/retransmits").unwrap_or_default(),
        lost: 0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sums_of_tcp_and_udp_are_read() {
        let tcp = r#"{"end": {"sum_sent": {"bytes": 1000, "retransmits": 2},
            "sum_received": {"bytes": 900, "bits_per_second": 7200.0}}}"#;
        let expected = Throughput {
            sent_bytes: 1000,
            received_bytes: 900,
            bits_per_second: 7200.0,
            retransmits: 2,
            lost: 0,
        };
        assert_eq!(read(tcp), Ok(expected));
        let udp = r#"{"end": {"sum": {"bytes": 1000, "packets": 10, "lost_packets": 1, "seconds": 1.0}}}"#;
        assert_eq!(read(udp), Ok(Throughput { retransmits: 0, lost: 1, ..expected }));
    }

    #[test]
    fn what_iperf3_complains_of_is_told() {
        let text = r#"{"start": {}, "end": {}, "error": "unable to connect to server"}"#;
        assert_eq!(read(text), Err("unable to connect to server".to_owned()));
    }
}
