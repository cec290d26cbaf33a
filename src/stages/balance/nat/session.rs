//! One translated flow, as a worker sees it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use xfwd_ebpf_types::map_ipv4;

use super::super::connections::Tick;
use super::state::State;
use crate::packet::{FiveTuple, Fragment, Headers, protocol};

/// An address and a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Endpoint {
    /// The address; IPv4 as IPv4-mapped IPv6 address.
    pub address: [u8; 16],
    /// The port.
    pub port: u16,
}

impl Endpoint {
    /// The address if it is one of IPv4.
    #[inline]
    pub(super) fn ipv4(&self) -> Option<Ipv4Addr> {
        Ipv6Addr::from(self.address).to_ipv4_mapped()
    }

    #[inline]
    pub(super) fn is_ipv4(&self) -> bool {
        self.ipv4().is_some()
    }
}

impl From<SocketAddr> for Endpoint {
    fn from(socket: SocketAddr) -> Self {
        Self { address: mapped(socket.ip()), port: socket.port() }
    }
}

impl From<Endpoint> for SocketAddr {
    fn from(endpoint: Endpoint) -> Self {
        Self::new(Ipv6Addr::from(endpoint.address).to_canonical(), endpoint.port)
    }
}

/// IPv4 as IPv4-mapped IPv6 address.
pub(super) fn mapped(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(address) => map_ipv4(address.octets()),
        IpAddr::V6(address) => address.octets(),
    }
}

/// Number of a session: what a connection table keeps of it. The number comes to be another flow's when the session is
/// over, so [`NatWorker::flow`](super::NatWorker::flow) holds the flow against it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId(pub u32);

/// A translated flow: a copy, taken in one piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Session {
    /// Its number.
    pub id: SessionId,
    /// IP protocol number: TCP or UDP.
    pub protocol: u8,
    /// Who sent the first packet.
    pub client: Endpoint,
    /// Where the client sent it: a virtual address and port.
    pub service: Endpoint,
    /// What the backend takes for the client: address and port of the pool.
    pub nat: Endpoint,
    /// Where it was sent on.
    pub backend: Endpoint,
    /// What was given to [`NatWorker::open`](super::NatWorker::open).
    pub member: u32,
    pub(super) seen: Seen,
}

/// What changes while a session lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) state: State,
    /// Which opening of the session's number this is.
    pub(super) generation: u32,
    pub(super) last: Tick,
}

impl Session {
    /// The flow from the client's side.
    #[inline]
    pub fn flow(&self) -> FiveTuple {
        tuple(self.protocol, self.client, self.service)
    }

    /// Whether a packet of the client with these flags begins a new connection in place of one that is over.
    #[inline]
    pub fn is_restarted_by(&self, tcp_flags: u8) -> bool {
        self.seen.state.is_restarted_by(tcp_flags)
    }

    /// The flow from the backend's side: what its replies look like.
    #[inline]
    pub fn reply(&self) -> FiveTuple {
        tuple(self.protocol, self.backend, self.nat)
    }
}

#[inline]
fn tuple(protocol: u8, source: Endpoint, destination: Endpoint) -> FiveTuple {
    FiveTuple {
        src: source.address,
        dst: destination.address,
        src_port: source.port,
        dst_port: destination.port,
        protocol,
    }
}

#[inline]
pub(super) fn source(flow: &FiveTuple) -> Endpoint {
    Endpoint { address: flow.src, port: flow.src_port }
}

#[inline]
pub(super) fn destination(flow: &FiveTuple) -> Endpoint {
    Endpoint { address: flow.dst, port: flow.dst_port }
}

/// The five-tuple of a TCP or UDP packet or of the first fragment of one, with its ports. ([`FiveTuple::of`] leaves
/// them out for every fragment.) `None` for what has none: later fragments, other protocols, broken packets.
#[inline]
pub fn tuple_with_ports(data: &[u8], headers: &Headers) -> Option<FiveTuple> {
    if headers.fragment() == Fragment::Later || !matches!(headers.protocol, protocol::TCP | protocol::UDP) {
        return None;
    }
    let tuple = FiveTuple::of(data, headers)?;
    Some(FiveTuple { src_port: headers.src_port, dst_port: headers.dst_port, ..tuple })
}
