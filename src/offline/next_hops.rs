//! What a capture does not tell of the network, made up.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::config::Plan;
use crate::packet::MacAddress;
use crate::stages::balance::Egress;
use crate::stages::balance::way::LinkHeader;

/// MAC address of the interface, if none is told. It is locally administered, as all that are made up.
pub const PORT_MAC: MacAddress = MacAddress([0x02, 0, 0, 0, 0, 0x01]);
/// Source of outer IPv4 headers, if the config names none (RFC 5737).
pub const TUNNEL_SOURCE_V4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
/// Source of outer IPv6 headers, if the config names none (RFC 3849).
pub const TUNNEL_SOURCE_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);

const DEFAULT_MTU: u32 = 1_500;

/// The MAC address that stands for a backend's next hop, if none is told: `06:00` and the IPv4 address, or `0a` and the last
/// five bytes of the IPv6 address.
pub fn backend_mac(address: IpAddr) -> MacAddress {
    match address {
        IpAddr::V4(address) => {
            let [a, b, c, d] = address.octets();
            MacAddress([0x06, 0, a, b, c, d])
        }
        IpAddr::V6(address) => {
            let [.., a, b, c, d, e] = address.octets();
            MacAddress([0x0a, a, b, c, d, e])
        }
    }
}

/// What is known of the network besides the capture.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Options {
    /// MAC address of the interface.
    pub mac: MacAddress,
    /// Longest IP packet that the ways to the backends take, in bytes.
    pub mtu: u32,
    /// MAC addresses of next hops, by the address of the backend. The others are [`backend_mac`].
    pub neighbours: HashMap<IpAddr, MacAddress>,
    /// Addresses of the host, which `steer = "all"` leaves to it.
    pub host_addresses: Vec<IpAddr>,
}

impl Default for Options {
    fn default() -> Self {
        Self { mac: PORT_MAC, mtu: DEFAULT_MTU, neighbours: HashMap::new(), host_addresses: Vec::new() }
    }
}

impl Options {
    /// The ways to all backends: each is on the link of the one port.
    pub(super) fn egress(&self, plan: &Plan) -> Vec<(IpAddr, Option<Egress>)> {
        let backends = plan.services.iter().flat_map(|service| &service.backends);
        backends.map(|backend| (backend.address, Some(self.way(plan, backend.address)))).collect()
    }

    fn way(&self, plan: &Plan, backend: IpAddr) -> Egress {
        let sources = &plan.balance.tunnel_sources;
        let source = sources.iter().find(|source| source.is_ipv4() == backend.is_ipv4()).copied();
        let made_up = if backend.is_ipv4() { TUNNEL_SOURCE_V4.into() } else { TUNNEL_SOURCE_V6.into() };
        Egress {
            port: 0,
            link: LinkHeader { source: self.mac, destination: self.mac_of(backend), vlan: None },
            mtu: self.mtu,
            is_direct: true,
            source: Some(source.unwrap_or(made_up)),
        }
    }

    pub(super) fn mac_of(&self, backend: IpAddr) -> MacAddress {
        self.neighbours.get(&backend).copied().unwrap_or_else(|| backend_mac(backend))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mac_address_that_is_made_up_is_local_and_shows_the_address() {
        let shown = |address: &str| backend_mac(address.parse().unwrap());
        assert_eq!(shown("198.18.0.11").to_string(), "06:00:c6:12:00:0b");
        assert_eq!(shown("2001:db8::1:2:3").to_string(), "0a:01:00:02:00:03");
        for mac in [shown("255.255.255.255"), shown("::"), PORT_MAC] {
            assert!(mac.is_local() && mac.is_unicast(), "{mac}");
        }
    }
}
