//! What is balanced: services and their backends, as the control side is given them.

use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use super::choose::Affinity;
use super::maglev;
use super::way::LinkHeader;
use crate::pipeline::PortIndex;
use crate::stages::filter::Prefix;
use crate::words::choices;

/// UDP port of GUE (IANA `gue`).
pub const GUE_PORT: u16 = 6080;

choices! {
    /// How a packet gets to its backend.
    pub enum Forward {
        /// Direct server return on one Ethernet segment: only the destination MAC address changes, the
        /// backend has the VIP on a loopback interface and answers the client itself.
        Dsr = "dsr",
        /// Within an IP header to the backend's address (RFC 2003, RFC 2473, RFC 4213), over any number of routers; the
        /// backend has the VIP on a loopback interface and answers the client itself.
        Ipip = "ipip",
        /// Within UDP, by Generic UDP Encapsulation variant 1 (draft-ietf-intarea-gue); otherwise as `ipip`.
        Gue = "gue",
        /// Source and destination are rewritten, and those of the replies back; the backend needs no setup.
        Nat = "nat",
    }
}

impl Forward {
    /// Whether the packet travels within an outer header.
    pub const fn is_tunnel(self) -> bool {
        matches!(self, Self::Ipip | Self::Gue)
    }

    /// Whether backends must have addresses of the VIP's family.
    pub const fn keeps_family(self) -> bool {
        !self.is_tunnel()
    }
}

choices! {
    /// What happens to a flow when no backend can take it.
    #[derive(Default)]
    pub enum NoBackend {
        /// Its packets are dropped.
        #[default]
        Drop = "drop",
        /// It is answered: TCP with a reset, UDP with ICMP port unreachable.
        Reject = "reject",
    }
}

choices! {
    /// What the operator wants of a backend.
    #[derive(Default)]
    pub enum BackendState {
        /// It gets its share.
        #[default]
        Up = "up",
        /// It gets no new flows; those it has stay.
        Drain = "drain",
        /// It gets nothing: its flows are given to the others.
        Down = "down",
    }
}

/// A service: which packets are its, how they get to a backend, and the backends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BalancedService {
    /// Name of the service, as counters show it; unique. A service keeps its flows over a reload if it keeps its name.
    pub name: String,
    /// Addresses that clients send to.
    pub network: Prefix,
    /// IP protocol number.
    pub protocol: u8,
    /// Ports that clients send to.
    pub ports: RangeInclusive<u16>,
    /// How a packet gets to its backend.
    pub forward: Forward,
    /// UDP port that backends receive GUE at.
    pub gue_port: u16,
    /// What chooses the backend of a new flow.
    pub affinity: Affinity,
    /// Slots of the Maglev table: a prime.
    pub table_size: u32,
    /// What happens to a flow when no backend can take it.
    pub no_backend: NoBackend,
    /// How long a backend that comes back takes to get its full share.
    pub slow_start: Option<Duration>,
    /// Upper limit for the maximum segment size that TCP handshakes announce.
    pub mss: Option<u16>,
    /// The backends, no address twice.
    pub backends: Vec<BalancedBackend>,
}

impl BalancedService {
    /// A service of one address and port without backends; everything else as a config that does not say it.
    pub fn new(name: impl Into<String>, vip: IpAddr, protocol: u8, port: u16, forward: Forward) -> Self {
        Self {
            name: name.into(),
            network: Prefix::new(vip, u8::MAX),
            protocol,
            ports: port..=port,
            forward,
            gue_port: GUE_PORT,
            affinity: Affinity::default(),
            table_size: maglev::DEFAULT_SIZE,
            no_backend: NoBackend::default(),
            slow_start: None,
            mss: None,
            backends: Vec::new(),
        }
    }

    /// The same with one more backend, of this weight.
    #[must_use]
    pub fn with(mut self, address: IpAddr, weight: u32) -> Self {
        self.backends.push(BalancedBackend { address, port: None, weight, state: BackendState::default() });
        self
    }
}

/// A backend of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BalancedBackend {
    /// Its address.
    pub address: IpAddr,
    /// Port that packets are sent to by [`Forward::Nat`]; without one, that which the client sent to.
    pub port: Option<u16>,
    /// Its share of the flows relative to the others; 0 is none.
    pub weight: u32,
    /// What the operator wants of it.
    pub state: BackendState,
}

/// How a backend is reached: the next hop on one of the worker's ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Egress {
    /// The port that leads to it.
    pub port: PortIndex,
    /// The Ethernet header of what goes there.
    pub link: LinkHeader,
    /// Longest IP packet that this way takes, in bytes.
    pub mtu: u32,
    /// Whether that is the backend itself, not a router: direct server return needs that.
    pub is_direct: bool,
    /// Source address of outer headers.
    pub source: Option<IpAddr>,
}
