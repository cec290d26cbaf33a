//! HTTP/1.1 and UDP by `xfwd-lab-http`: many requests, each on a new connection or from a new socket, and the share of
//! every server.

use std::{collections::BTreeMap, net::SocketAddr, process::Command, time::Duration};

use serde::Deserialize;

use super::report;
use crate::{
    error::Result,
    lab::Namespace,
    process::{Child, tool},
};

/// What requests are made, and how.
#[derive(Clone, Copy, Debug)]
pub struct Requests {
    /// How many.
    pub count: u64,
    /// How many at a time.
    pub concurrency: u16,
    /// How many a second, of all together; as many as go if `None`.
    pub rate: Option<u64>,
    /// How long one may take.
    pub timeout: Duration,
}

impl Default for Requests {
    /// 100 requests, 4 at a time, 5 s for each.
    fn default() -> Self {
        Self { count: 100, concurrency: 4, rate: None, timeout: Duration::from_secs(5) }
    }
}

/// What became of requests.
#[derive(Clone, Debug, Deserialize)]
pub struct Answers {
    /// Requests that were answered.
    pub succeeded: u64,
    /// Requests that were not.
    pub failed: u64,
    /// Answers by the name of the server.
    pub backends: BTreeMap<String, u64>,
    /// Requests that failed, by reason.
    pub failures: BTreeMap<String, u64>,
}

/// Starts an HTTP/1.1 server that answers with its name.
///
/// # Errors
///
/// If it cannot listen on all addresses.
pub fn serve_http(host: &Namespace, name: &str, addresses: &[SocketAddr]) -> Result<Child> {
    super::serve(host, "serve", name, addresses)
}

/// Starts a UDP server that answers with its name and the datagram.
///
/// # Errors
///
/// If it cannot listen on all addresses.
pub fn serve_udp(host: &Namespace, name: &str, addresses: &[SocketAddr]) -> Result<Child> {
    super::serve(host, "udp-serve", name, addresses)
}

/// Gets `/` from an HTTP server.
///
/// # Errors
///
/// If there is no report.
pub fn http(host: &Namespace, to: SocketAddr, requests: &Requests) -> Result<Answers> {
    run(host, ["fetch", "--url", &format!("http://{to}/")], requests)
}

/// Asks a UDP server.
///
/// # Errors
///
/// If there is no report.
pub fn udp(host: &Namespace, to: SocketAddr, requests: &Requests) -> Result<Answers> {
    run(host, ["udp-fetch", "--to", &to.to_string()], requests)
}

fn run(host: &Namespace, task: [&str; 3], requests: &Requests) -> Result<Answers> {
    let mut command = Command::new(tool("xfwd-lab-http")?);
    command.args(task).arg("--json");
    command.args(["--count", &requests.count.to_string()]);
    command.args(["--concurrency", &requests.concurrency.to_string()]);
    command.args(["--timeout-ms", &requests.timeout.as_millis().to_string()]);
    if let Some(rate) = requests.rate {
        command.args(["--rate", &rate.to_string()]);
    }
    report(host, &mut command, |text| serde_json::from_str(text).map_err(|error| error.to_string()))
}
