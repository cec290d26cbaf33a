//! What is told of a backend: where its packets go, or why nowhere.

use std::net::IpAddr;

use crate::packet::MacAddress;

/// What the Ethernet frame of a packet for a backend looks like, and by which port it leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NextHop {
    /// Index of the port's link.
    pub interface: u32,
    /// The VLAN whose 802.1Q tag the frame carries; `None`: untagged.
    pub vlan: Option<u16>,
    /// The source address: of the port, or of its VLAN interface.
    pub source: MacAddress,
    /// The destination address: of the gateway, or of the backend.
    pub destination: MacAddress,
    /// The largest layer 3 packet, in bytes: the least of what the route, the port and the VLAN interface allow.
    pub mtu: u32,
    /// Whose MAC address the destination is: the gateway, or else the backend. The gateway of an IPv4 backend may have
    /// an IPv6 address (RFC 5549).
    pub address: IpAddr,
    /// The source address that the kernel would choose for packets of the host's own: for tunnels.
    pub preferred_source: Option<IpAddr>,
}

/// Why there is no next hop.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Unresolved {
    /// The kernel would not send to this address.
    #[error(
        "the host has no route to {address} ({reason}); `ip route get {address}` shows what the kernel finds"
    )]
    NoRoute {
        /// The backend.
        address: IpAddr,
        /// In the words of the kernel.
        reason: String,
    },
    /// The backend is this host.
    #[error("it is an address of this host")]
    OwnAddress,
    /// The address is a broadcast, multicast or anycast one.
    #[error("it is {0}, not that of one host")]
    NotOneHost(&'static str),
    /// The route puts packets into a tunnel.
    #[error("the kernel's route to it encapsulates packets (`encap`), which xfwd does not do")]
    RouteEncapsulates,
    /// The route leaves by an interface that is none of the ports.
    #[error("the kernel reaches it {}, which is none of the ports", reached(.via, .name))]
    OtherInterface {
        /// Name of the interface.
        name: String,
        /// The gateway.
        via: Option<IpAddr>,
    },
    /// The route leaves by a bond, bridge or team that a port is a member of.
    #[error(
        "the kernel reaches it by {name}, a {kind} of which the port {port} is a member: which member a frame takes is \
         decided inside the kernel; give the port {port} an address and a route of its own"
    )]
    Aggregate {
        /// Name of the interface.
        name: String,
        /// What it is, in the words of the kernel: `bond`, `bridge`, `team`.
        kind: String,
        /// Name of the port.
        port: String,
    },
    /// The route leaves by a VLAN interface whose tags cannot be written.
    #[error(
        "the kernel reaches it by {name}, {what} on the port {port}: xfwd writes one 802.1Q tag and no other"
    )]
    UnsupportedVlan {
        /// Name of the interface.
        name: String,
        /// What it is: an 802.1ad VLAN, or a VLAN inside another.
        what: &'static str,
        /// Name of the port.
        port: String,
    },
    /// The interface is not one of Ethernet.
    #[error("the kernel reaches it by {name}, which has no Ethernet address")]
    NotEthernet {
        /// Name of the interface.
        name: String,
    },
    /// The gateway or backend does not answer, or has not yet.
    #[error("{address} does not answer {} on {name}{}", question(.address), line(*.carrier))]
    NoNeighbour {
        /// Index of the port's link.
        interface: u32,
        /// Name of the interface: the port, or its VLAN interface.
        name: String,
        /// The VLAN whose tag the frames would carry.
        vlan: Option<u16>,
        /// Who is asked: the gateway, or else the backend.
        address: IpAddr,
        /// Whether the line is connected.
        carrier: bool,
    },
}

fn reached(via: &Option<IpAddr>, name: &str) -> String {
    match via {
        Some(gateway) => format!("via {gateway} on {name}"),
        None => format!("by {name}"),
    }
}

fn question(address: &IpAddr) -> &'static str {
    match address {
        IpAddr::V4(_) => "ARP",
        IpAddr::V6(_) => "neighbour discovery",
    }
}

fn line(carrier: bool) -> &'static str {
    if carrier { "" } else { ", which has no carrier" }
}

/// Where packets for a backend go, or why nowhere.
pub type Answer = Result<NextHop, Unresolved>;

/// The answer for a backend became known, or changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The backend.
    pub backend: IpAddr,
    /// Its next hop now.
    pub next_hop: Answer,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_say_who_does_not_answer_what_and_where() {
        let silent = |address: &str, carrier| {
            let (address, name) = (address.parse().unwrap(), "ens1f0.7".to_owned());
            Unresolved::NoNeighbour { interface: 2, name, vlan: Some(7), address, carrier }.to_string()
        };
        assert_eq!(silent("10.0.0.1", true), "10.0.0.1 does not answer ARP on ens1f0.7");
        assert_eq!(
            silent("fe80::1", false),
            "fe80::1 does not answer neighbour discovery on ens1f0.7, which has no carrier"
        );
    }

    #[test]
    fn an_interface_that_is_no_port_is_told_with_the_gateway() {
        let other = |via: Option<&str>| {
            let via = via.map(|via| via.parse().unwrap());
            Unresolved::OtherInterface { name: "eth1".to_owned(), via }.to_string()
        };
        assert_eq!(other(None), "the kernel reaches it by eth1, which is none of the ports");
        assert_eq!(
            other(Some("10.0.0.1")),
            "the kernel reaches it via 10.0.0.1 on eth1, which is none of the ports"
        );
    }
}
