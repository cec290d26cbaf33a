//! Steer or pass: what becomes of a packet that no rule drops.

use std::collections::{HashMap, HashSet};

use foldhash::fast::FixedState;
use xfwd_ebpf_types::{
    Cause, MAX_HOST_ADDRESSES, MAX_NETWORKS, MAX_PORTS, MAX_SERVICES, NetworkKey, PortKey, ServiceKey,
    Settings, map_ipv4,
};

use super::lpm::Lpm;
use crate::kernel::xdp::{Numbers, Steering, Wanted, XdpError, address_key, compile};
use crate::packet::protocol::{ETHERTYPE_ARP, ICMP, ICMPV6, TCP, UDP};
use crate::packet::{Fragment, Headers, Outcome};
use crate::stages::filter::is_neighbour_discovery;

const ECHO_REQUEST: u8 = 8;
const ECHO_REQUEST_V6: u8 = 128;
/// Bytes of an ICMP error in front of the packet that it is about.
const ICMP_BYTES: usize = 8;
/// The program looks for the packet that an error is about only if the error begins before this offset.
const MAX_OFFSET: usize = 4_096;

/// `SETTINGS`, `SERVICES`, `NETWORKS`, `PORTS` and `HOST_ADDRESSES`.
pub(super) struct Steered {
    settings: Settings,
    services: HashMap<ServiceKey, u32, FixedState>,
    networks: Lpm<u32>,
    /// By the bits of a [`PortKey`], from the uppermost on.
    ports: Lpm<u32>,
    host_addresses: HashSet<[u8; 16]>,
}

impl Steered {
    pub fn new(steering: &Steering) -> Result<Self, XdpError> {
        let wanted = Numbers::default().number(compile(&steering.services));
        let settings = wanted.settings(steering);
        let Wanted { services, networks, ports } = wanted;
        for (map, wanted, capacity) in [
            ("PORTS", ports.len(), MAX_PORTS),
            ("NETWORKS", networks.len(), MAX_NETWORKS),
            ("SERVICES", services.len(), MAX_SERVICES),
            ("HOST_ADDRESSES", steering.host_addresses.len(), MAX_HOST_ADDRESSES),
        ] {
            if wanted > capacity as usize {
                return Err(XdpError::MapFull { map, wanted, capacity });
            }
        }
        let network =
            |(key, number): (NetworkKey, u32)| (u128::from_be_bytes(key.address), key.length as u8, number);
        let port = |(key, room): (PortKey, u32)| {
            let bits = port_bits(key.network, key.protocol, key.scope, u16::from_be_bytes(key.port));
            (bits, key.length as u8, room)
        };
        Ok(Self {
            settings,
            services: services.into_iter().collect(),
            networks: Lpm::new(networks.into_iter().map(network)),
            ports: Lpm::new(ports.into_iter().map(port)),
            host_addresses: steering.host_addresses.iter().map(|address| address_key(*address)).collect(),
        })
    }

    /// Whether malformed packets are steered, too.
    pub fn steers_everything(&self) -> bool {
        self.settings.steer == Settings::EVERYTHING
    }

    /// What becomes of the packet, and how much room is made in front of it.
    pub fn decide(&self, linear: &[u8], headers: &Headers) -> (Cause, u8) {
        let everything = self.steers_everything();
        let is_ip = headers.outcome() == Outcome::Ip;
        if is_ip {
            let Some(destination) = destination(linear, headers) else {
                // Not reached: the parser has seen the whole IP header.
                return (Cause::PassedNoService, 0);
            };
            if let Some((key, cause)) = key(linear, headers, destination)
                && let Some(room) = self.room(&key)
            {
                return (cause, room as u8);
            }
            if is_neighbour_discovery(headers) && !everything {
                return (Cause::PassedNeighbourDiscovery, 0);
            }
            if self.settings.steer == Settings::ALL && self.host_addresses.contains(&destination) {
                return (Cause::PassedHost, 0);
            }
        } else if headers.ethertype == ETHERTYPE_ARP && !everything {
            return (Cause::PassedArp, 0);
        }
        let cause = if self.settings.steer != 0 {
            return (Cause::SteeredAll, self.settings.room as u8);
        } else if !is_ip {
            Cause::PassedNotIp
        } else if is_tcp_or_udp(headers) && headers.fragment() != Fragment::No {
            Cause::PassedFragment
        } else {
            Cause::PassedNoService
        };
        (cause, 0)
    }

    /// The room that a service wants in front of its packets; `None` when nobody has this key.
    fn room(&self, key: &ServiceKey) -> Option<u32> {
        if let Some(room) = self.services.get(key) {
            return Some(*room);
        }
        if self.settings.networks == 0 {
            return None;
        }
        let address = ServiceKey { port: [0; 2], protocol: 0, scope: ServiceKey::NETWORK, ..*key };
        let network = match self.services.get(&address) {
            Some(number) => *number,
            None => *self.networks.get(u128::from_be_bytes(key.address))?,
        };
        self.ports.get(port_bits(network, key.protocol, key.scope, u16::from_be_bytes(key.port))).copied()
    }
}

/// A [`PortKey`] as the upper 64 bits of a number.
fn port_bits(network: u32, protocol: u8, scope: u8, port: u16) -> u128 {
    u128::from(network) << 96 | u128::from(protocol) << 88 | u128::from(scope) << 80 | u128::from(port) << 64
}

/// Under which key the packet would be a service's, and what it is then counted as. `None` for what no service has.
fn key(linear: &[u8], headers: &Headers, address: [u8; 16]) -> Option<(ServiceKey, Cause)> {
    let protocol = headers.protocol;
    let any_port = ServiceKey { address, port: [0; 2], protocol, scope: ServiceKey::ANY_PORT };
    if is_tcp_or_udp(headers) {
        return Some(if headers.fragment() == Fragment::No {
            let port = headers.dst_port.to_be_bytes();
            (ServiceKey { address, port, protocol, scope: 0 }, Cause::SteeredService)
        } else {
            (any_port, Cause::SteeredFragment)
        });
    }
    if headers.fragment() != Fragment::No {
        return None;
    }
    let key = match (protocol, headers.icmp_type) {
        (ICMP, ECHO_REQUEST) | (ICMPV6, ECHO_REQUEST_V6) => any_port,
        // Destination unreachable, time exceeded, parameter problem (RFC 792).
        (ICMP, 3 | 11 | 12) => embedded(linear, headers)?,
        // The same and packet too big (RFC 4443).
        (ICMPV6, 1..=4) => embedded(linear, headers)?,
        _ => return None,
    };
    Some((key, Cause::SteeredIcmp))
}

/// Source of the TCP or UDP packet that an ICMP error is about, as the destination of an answer to it.
fn embedded(linear: &[u8], headers: &Headers) -> Option<ServiceKey> {
    let offset = usize::from(headers.transport_offset);
    if offset >= MAX_OFFSET {
        return None;
    }
    let inner = offset + ICMP_BYTES;
    let (address, protocol, transport) = if headers.ip_version == 4 {
        let header = linear.get(inner..)?.first_chunk::<20>()?;
        let length = usize::from(header[0] & 0x0f) * 4;
        let is_later_fragment = header[6] & 0x1f | header[7] != 0;
        if header[0] >> 4 != 4 || length < 20 || is_later_fragment {
            return None;
        }
        (map_ipv4([header[12], header[13], header[14], header[15]]), header[9], inner + length)
    } else {
        let header = linear.get(inner..)?.first_chunk::<40>()?;
        if header[0] >> 4 != 6 {
            return None;
        }
        (*header[8..].first_chunk::<16>()?, header[6], inner + 40)
    };
    if !matches!(protocol, TCP | UDP) || transport + 4 > headers.end as usize {
        return None;
    }
    let ports = linear.get(transport..)?.first_chunk::<4>()?;
    Some(ServiceKey { address, port: [ports[0], ports[1]], protocol, scope: 0 })
}

fn is_tcp_or_udp(headers: &Headers) -> bool {
    matches!(headers.protocol, TCP | UDP)
}

/// Destination address of an IP packet, as the maps hold it.
fn destination(linear: &[u8], headers: &Headers) -> Option<[u8; 16]> {
    let header = linear.get(usize::from(headers.network_offset)..)?;
    if headers.ip_version == 4 {
        Some(map_ipv4(*header.get(16..)?.first_chunk()?))
    } else {
        header.get(24..)?.first_chunk().copied()
    }
}
