//! `xfwd-lab-decap` on a backend: what a kernel's tunnel devices would do.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    process::Command,
    time::Duration,
};

use serde::Deserialize;

use crate::{
    error::{Error, Result},
    lab::Namespace,
    process::{Child, tool},
    topology::INTERFACE,
};

const PATIENCE: Duration = Duration::from_secs(20);

/// Takes the outer headers off what a host receives through tunnels, and gives the inner packets to its stack, for as long
/// as this lives.
#[derive(Debug)]
pub struct Decap {
    child: Child,
}

/// What came through tunnels.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Decapsulated {
    /// Packets given to the stack, by kind: `4in4`, `6in4`, `4in6`, `6in6`, and the same after `gue-`.
    pub received: BTreeMap<String, u64>,
    /// Packets that went no further, by reason: `not-ours`, `version`, `length`, `congestion`, `udp-checksum`, `kernel`.
    pub refused: BTreeMap<String, u64>,
    /// Outer sources of packets given to the stack.
    pub sources: BTreeMap<IpAddr, u64>,
    /// Outer UDP source ports of packets given to the stack.
    pub gue_source_ports: BTreeSet<u16>,
}

impl Decapsulated {
    /// Packets of this kind.
    pub fn of(&self, kind: &str) -> u64 {
        self.received.get(kind).copied().unwrap_or_default()
    }

    /// Packets given to the stack, of all kinds.
    pub fn all(&self) -> u64 {
        self.received.values().sum()
    }
}

impl Decap {
    /// Starts the command on a host with these arguments, and turns GRO of the host's [`INTERFACE`] off: the kernel would
    /// merge inner segments without finishing their checksums.
    ///
    /// # Errors
    ///
    /// If it cannot be started, as where its sockets or its device are not allowed.
    pub fn start(host: &Namespace, arguments: &[&str]) -> Result<Self> {
        host.set_gro(INTERFACE, false)?;
        let child = host.spawn(Command::new(tool("xfwd-lab-decap")?).args(arguments))?;
        child.wait_for("ready", PATIENCE)?;
        Ok(Self { child })
    }

    /// Ends it, and returns what it counted.
    ///
    /// # Errors
    ///
    /// If it has ended badly before.
    pub fn stop(mut self) -> Result<Decapsulated> {
        let ended = self.child.stop(PATIENCE)?;
        let json = ended.stdout.lines().last().unwrap_or_default();
        serde_json::from_str(json).map_err(|error| Error::Report {
            command: "xfwd-lab-decap".to_owned(),
            why: error.to_string(),
            stdout: ended.stdout.clone(),
            stderr: ended.stderr.clone(),
        })
    }
}
