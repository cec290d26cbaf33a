//! Which packets leave the kernel, as plain data.

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;

use serde::Serialize;
use xfwd_ebpf_types::{ServiceKey, map_ipv4};

use crate::packet::protocol::{TCP, UDP};
use crate::stages::filter::Prefix;

/// Which packets of an interface go to AF_XDP sockets. Everything else stays with the host network stack.
///
/// ```
/// use xfwd::kernel::xdp::{SteeredService, Steering};
///
/// const TCP: u8 = 6;
/// let steering = Steering {
///     services: vec![SteeredService::single("192.0.2.10".parse().unwrap(), TCP, 443)],
///     ..Steering::default()
/// };
/// assert!(!steering.all);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Steering {
    /// Everything leaves the kernel but ARP, neighbour discovery, malformed packets, and what is addressed to
    /// the host. Multicast and broadcast leave as well, unless their addresses are listed in `host_addresses`.
    pub all: bool,
    /// Everything leaves the kernel, without exception; `all` is not looked at. The host hears nothing of the interface any more
    /// and cannot be reached by it.
    pub everything: bool,
    /// Bytes of room in front of what leaves by `all` or `everything`, as [`SteeredService::room`] is for a service.
    pub room: u8,
    /// Packets for these leave the kernel, also when the address is one of the host's.
    pub services: Vec<SteeredService>,
    /// Addresses of the host; looked at only with `all`, and not with `everything`.
    pub host_addresses: HashSet<IpAddr>,
}

/// A service whose packets leave the kernel:
///
/// * whole packets of its protocol to one of its addresses and ports;
/// * fragments of its protocol, the first and later ones, to one of its addresses, whatever the port;
/// * ICMP errors about a packet *from* one of its addresses and ports: destination unreachable, packet too big, time
///   exceeded, parameter problem. The packet they are about must be TCP or UDP, have its ports (so be no later fragment), and no
///   IPv6 extension headers;
/// * for a [`Vip`](SteeredKind::Vip), echo requests to one of its addresses, unless they are fragments.
///
/// Several may have an address in common. A packet is that of the service of this very address and port; else that of the
/// longest prefix which has a service on that port (not: of the longest prefix at all); where two are alike, of the first.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct SteeredService {
    /// Its addresses. A prefix that is one address is the same as that address.
    pub network: Prefix,
    /// IP protocol number: 6 (TCP) or 17 (UDP). No packet is found for others.
    pub protocol: u8,
    /// Its ports.
    pub ports: RangeInclusive<u16>,
    /// Bytes of outer headers that its packets are going to get: so much room is made in front of each, where the driver
    /// lets it. 0 for none, else at least [`MIN_ROOM`](xfwd_ebpf_types::MIN_ROOM) and at most
    /// [`MAX_ROOM`](xfwd_ebpf_types::MAX_ROOM), to which others are brought. Fragments get the most that a service of their
    /// address and protocol wants, ICMP errors that of their service, echo requests none.
    pub room: u8,
    /// Whose the addresses are.
    pub kind: SteeredKind,
}

/// Whose the addresses of a [`SteeredService`] are, which is to say: who answers pings to them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum SteeredKind {
    /// Virtual addresses, which are the service's alone: pings leave the kernel as well.
    Vip,
    /// Addresses of the host, of which some ports are taken, by NAT or by a function that answers there. Pings stay with
    /// the host.
    Host,
}

impl SteeredService {
    /// A virtual service of one address and port (in host byte order), without room.
    pub fn single(address: IpAddr, protocol: u8, port: u16) -> Self {
        Self {
            network: Prefix::new(address, u8::MAX),
            protocol,
            ports: port..=port,
            room: 0,
            kind: SteeredKind::Vip,
        }
    }

    /// What a TCP socket bound to `address` would get, and the fragments and ICMP errors named above. Pings stay with the
    /// host.
    pub fn tcp(address: SocketAddr) -> Self {
        Self::of_host(address, TCP)
    }

    /// As [`tcp`](Self::tcp), for UDP.
    pub fn udp(address: SocketAddr) -> Self {
        Self::of_host(address, UDP)
    }

    /// The same with room in front of its packets for so many bytes of outer headers ([`room`](Self::room)).
    #[must_use]
    pub fn with_room(self, bytes: u8) -> Self {
        Self { room: bytes, ..self }
    }

    fn of_host(address: SocketAddr, protocol: u8) -> Self {
        Self { kind: SteeredKind::Host, ..Self::single(address.ip(), protocol, address.port()) }
    }
}

/// The map key of a service: address, IP protocol number (6 TCP, 17 UDP) and port (in host byte order).
pub fn service_key(address: IpAddr, protocol: u8, port: u16) -> ServiceKey {
    ServiceKey { address: address_key(address), port: port.to_be_bytes(), protocol, scope: 0 }
}

/// An address as the maps hold it: IPv6, or IPv4 mapped to IPv6 (RFC 4291, section 2.5.5.2).
pub fn address_key(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(address) => map_ipv4(address.octets()),
        IpAddr::V6(address) => address.octets(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_is_what_the_program_builds_from_a_packet() {
        let key = service_key(IpAddr::from([192, 0, 2, 1]), 6, 0x1234);
        assert_eq!(key.address, [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 192, 0, 2, 1]);
        assert_eq!(key.port, [0x12, 0x34]);
        assert_eq!(key.scope, 0);
    }

    #[test]
    fn of_an_address_of_the_host_a_function_takes_a_port_but_not_the_pings() {
        let address = "192.0.2.1:53".parse().unwrap();
        for (service, protocol) in [(SteeredService::tcp(address), TCP), (SteeredService::udp(address), UDP)]
        {
            assert_eq!(
                (service.kind, service.protocol, service.ports),
                (SteeredKind::Host, protocol, 53..=53)
            );
        }
        assert_eq!(SteeredService::single(address.ip(), TCP, 53).kind, SteeredKind::Vip);
    }

    #[test]
    fn one_address_is_a_prefix_of_its_whole_length() {
        for address in ["192.0.2.1", "2001:db8::1"] {
            let service = SteeredService::single(address.parse().unwrap(), 6, 443);
            assert_eq!(service.network, address.parse().unwrap());
        }
    }
}
