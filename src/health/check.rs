//! What is to be checked, and what is known of it: plain data, in every build.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    ops::RangeInclusive,
    time::{Duration, Instant},
};

use serde::Serialize;

use crate::packet::MacAddress;
use crate::words::choices;

choices! {
    /// What is asked of a backend.
    pub enum HealthKind {
        /// A TCP connection can be opened.
        Tcp = "tcp",
        /// An HTTP GET is answered with an expected status.
        Http = "http",
        /// The same over TLS.
        Https = "https",
        /// A TLS handshake completes.
        Tls = "tls",
        /// An ICMP or ICMPv6 echo request is answered.
        Icmp = "icmp",
        /// A command ends with exit status 0.
        Command = "command",
    }
}

choices! {
    /// Which way a check goes.
    #[derive(Default)]
    pub enum Through {
        #[default]
        /// To the backend's own address, as any other connection of this host.
        Address = "address",
        /// To the VIP, by the service's own way: what is seen is what a client sees.
        Path = "path",
    }
}

/// How the backends of a service are checked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct HealthCheck {
    /// What is asked.
    pub kind: HealthKind,
    /// Time from the start of a check to the start of the next.
    pub interval: Duration,
    /// Time after which a check has failed. A config file has it no longer than `interval`; if it is, it delays the next check:
    /// checks of a backend never overlap.
    pub timeout: Duration,
    /// Good checks in a row that bring a backend up; 1 at least.
    pub rise: u32,
    /// Failed checks in a row that take a backend down; 1 at least.
    pub fall: u32,
    /// Port to check instead of that of the backend, or of the service.
    pub port: Option<u16>,
    /// Path and query of an HTTP request, beginning with a slash.
    pub path: String,
    /// `Host` of an HTTP request; with TLS also the name that is asked for (SNI) and that the certificate has to carry.
    /// Without it: the backend's address, and no SNI.
    pub host: Option<String>,
    /// HTTP status codes that are good.
    pub status: Vec<RangeInclusive<u16>>,
    /// Whether the certificate must be trusted by this system and carry the name. If not, any certificate does.
    pub verify: bool,
    /// Program and arguments; no shell is between.
    pub command: Vec<String>,
    /// Which way the check goes.
    pub through: Through,
}

impl Default for HealthCheck {
    /// TCP every 2 s, 1 s of patience, up after 2 good checks, down after 3 failed ones.
    fn default() -> Self {
        Self {
            kind: HealthKind::Tcp,
            interval: Duration::from_secs(2),
            timeout: Duration::from_secs(1),
            rise: 2,
            fall: 3,
            port: None,
            path: "/".to_owned(),
            host: None,
            status: vec![200..=399],
            verify: false,
            command: Vec::new(),
            through: Through::Address,
        }
    }
}

/// A backend to check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Chosen by the caller and unique: what has the same id in the next list is the same backend, and another address is
    /// another id.
    pub id: u64,
    /// Service the backend belongs to, for messages and commands.
    pub service: String,
    /// The backend.
    pub address: IpAddr,
    /// Port that the backend serves on, unless the check names another.
    pub port: u16,
    /// How it is checked.
    pub check: HealthCheck,
    /// The service's way to it, if its next hop is known: a check [through](Through::Path) it fails without. Unused by all others.
    pub path: Option<ServicePath>,
}

impl Target {
    /// Address and port of the check.
    pub fn endpoint(&self) -> SocketAddr {
        SocketAddr::new(self.address, self.check.port.unwrap_or(self.port))
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "backend {} of service `{}`", self.address, self.service)
    }
}

/// The way of a client's packet through a service to one backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePath {
    /// Address and port that clients send to.
    pub vip: SocketAddr,
    /// Address of this host that the backend's answer to the VIP comes back to; of the VIP's family.
    pub source: IpAddr,
    /// How the packet gets to the backend.
    pub delivery: Delivery,
}

/// How a packet for a VIP gets to its backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Delivery {
    /// In an Ethernet frame to the backend's MAC address (direct server return).
    Frame {
        /// Index of the interface that the backend is on; that of the VLAN if it is on one.
        interface: u32,
        /// MAC address of the interface.
        from: MacAddress,
        /// MAC address of the backend.
        to: MacAddress,
    },
    /// In IPv4 or IPv6 (IP protocol 4 or 41), sent to the target's address.
    Ipip {
        /// Outer source address; the kernel's choice if there is none.
        from: Option<IpAddr>,
    },
    /// In UDP without any header between (GUE variant 1), sent to the target's address.
    Gue {
        /// Outer source address; the kernel's choice if there is none.
        from: Option<IpAddr>,
        /// UDP port that the backend decapsulates on.
        port: u16,
    },
}

choices! {
    /// What the checks say of a backend.
    pub enum Condition {
        /// No check has ended yet. It gets traffic: a start would otherwise refuse every client for as long as the first checks
        /// take, and the first result decides at once.
        Unknown = "unknown",
        /// It gets traffic.
        Up = "up",
        /// It gets none.
        Down = "down",
    }
}

impl Condition {
    /// Whether a backend in this condition gets traffic.
    pub const fn serves(self) -> bool {
        !matches!(self, Self::Down)
    }
}

/// A backend's condition has changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// [`Target::id`].
    pub id: u64,
    /// Condition before.
    pub from: Condition,
    /// Condition now.
    pub to: Condition,
    /// What the last check said.
    pub reason: String,
}

/// What is known of a backend.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Status {
    /// [`Target::id`].
    pub id: u64,
    /// Whether it gets traffic.
    pub condition: Condition,
    /// Since when.
    pub since: Instant,
    /// What the last check said, such as `HTTP status 503` or `connection refused`; empty before the first.
    pub reason: String,
    /// Whether the last check was good; `None` before the first.
    pub last_good: Option<bool>,
    /// How long the last check took.
    pub last_duration: Option<Duration>,
    /// Results in a row like the last one.
    pub consecutive: u32,
    /// Checks done since the backend, or how it is checked, was last changed.
    pub checks: u64,
    /// Those of them that failed.
    pub failed: u64,
}

/// Why health checks cannot run as they are asked for.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HealthError {
    /// The feature `health` is off.
    #[error("this build of xfwd has no health checks: build it with the cargo feature `health`")]
    NotBuilt,
    /// A check makes no sense.
    #[error("health check of {target}: {problem}")]
    Check {
        /// The backend.
        target: String,
        /// What is wrong with its check.
        problem: String,
    },
    /// Two targets have the same id.
    #[error("two health checks have the id {0}")]
    TwiceTheSameId(u64),
    /// The kernel refuses raw sockets.
    #[error("health checks of the kind {kind} need CAP_NET_RAW, which this process lacks: {source}")]
    NotPermitted {
        /// `icmp`, or `tcp through the path`.
        kind: &'static str,
        /// What the kernel answered.
        source: std::io::Error,
    },
    /// A system call failed.
    #[error("health checks: {call}: {source}")]
    System {
        /// The call.
        call: &'static str,
        /// What the kernel answered.
        source: std::io::Error,
    },
    /// Certificates are to be verified, and there is nothing to verify them by.
    #[error("health checks verify certificates, but this system has no trusted ones: {0}")]
    NoTrust(String),
}
