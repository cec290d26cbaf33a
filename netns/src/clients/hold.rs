//! TCP connections that live long, by `xfwd-lab-http`: every answer has the name of the server, so that a connection that
//! moves is noticed as well as one that breaks.

use std::{collections::BTreeMap, net::SocketAddr, process::Command, time::Duration};

use nix::sys::signal::Signal;
use serde::Deserialize;

use super::PATIENCE;
use crate::{
    error::{Error, Result},
    lab::Namespace,
    process::{Child, tool},
};

/// Which connections are held.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// How many.
    pub connections: u16,
    /// For how long at most.
    pub time: Duration,
    /// Between two exchanges of a connection.
    pub interval: Duration,
    /// How long an answer may take.
    pub timeout: Duration,
    /// Bytes of every question and every answer, at least.
    pub size: usize,
}

impl Default for Options {
    /// 50 connections, for ten minutes unless stopped, ten exchanges a second on each, 5 s for an answer.
    fn default() -> Self {
        Self {
            connections: 50,
            time: Duration::from_secs(600),
            interval: Duration::from_millis(100),
            timeout: Duration::from_secs(5),
            size: 0,
        }
    }
}

/// Connections that are being held.
#[derive(Debug)]
pub struct Holding {
    client: Child,
}

/// How they went.
#[derive(Clone, Debug, Deserialize)]
pub struct Held {
    /// Connections that were tried.
    pub connections: u64,
    /// Those that had an answer.
    pub established: u64,
    /// Questions that were answered, of all connections.
    pub exchanges: u64,
    /// Connections by the server that answered first.
    pub backends: BTreeMap<String, u64>,
    /// Those that broke, and those that never had an answer.
    pub broken: Vec<Broken>,
    /// How long it took, in seconds.
    pub seconds: f64,
}

/// A connection that broke.
#[derive(Clone, Debug, Deserialize)]
pub struct Broken {
    /// The client's end, unless there never was a connection.
    pub local: Option<SocketAddr>,
    /// Its server, if that ever answered.
    pub server: Option<String>,
    /// Questions that were answered.
    pub exchanges: u64,
    /// When it broke, in milliseconds since the start.
    pub after_ms: u64,
    /// How: `timed out`, `connection reset`, `closed by the server`, `answered by NAME`, …
    pub reason: String,
}

/// Starts an echo server that names itself.
///
/// # Errors
///
/// If it cannot listen on all addresses.
pub fn serve(host: &Namespace, name: &str, addresses: &[SocketAddr]) -> Result<Child> {
    super::serve(host, "echo-serve", name, addresses)
}

/// Opens connections, and returns when each has had its first answer, or will have none.
///
/// # Errors
///
/// If the client cannot be started.
pub fn start(host: &Namespace, to: SocketAddr, options: &Options) -> Result<Holding> {
    let mut command = Command::new(tool("xfwd-lab-http")?);
    command.args(["hold", "--json", "--to", &to.to_string()]);
    for (name, value) in [
        ("--connections", u128::from(options.connections)),
        ("--seconds", options.time.as_secs().into()),
        ("--interval-ms", options.interval.as_millis()),
        ("--timeout-ms", options.timeout.as_millis()),
        ("--size", options.size as u128),
    ] {
        command.args([name, &value.to_string()]);
    }
    let client = host.spawn(&mut command)?;
    client.wait_for("connections have been tried", PATIENCE + options.timeout)?;
    Ok(Holding { client })
}

impl Holding {
    /// Ends all connections and says how they went.
    ///
    /// # Errors
    ///
    /// If there is no report.
    pub fn stop(mut self) -> Result<Held> {
        self.client.signal(Signal::SIGTERM)?;
        self.wait(PATIENCE)
    }

    /// Waits until their time is over, `patience` at most, and says how they went.
    ///
    /// # Errors
    ///
    /// If there is no report by then.
    pub fn finish(mut self, patience: Duration) -> Result<Held> {
        self.wait(patience)
    }

    fn wait(&mut self, patience: Duration) -> Result<Held> {
        let ended = self.client.wait(patience)?;
        serde_json::from_str(&ended.stdout).map_err(|error| Error::Report {
            command: "xfwd-lab-http hold".to_owned(),
            why: error.to_string(),
            stdout: ended.stdout.clone(),
            stderr: ended.stderr.clone(),
        })
    }
}
