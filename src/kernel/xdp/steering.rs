//! Which packets leave the kernel, as plain data.

use std::{
    collections::HashSet,
    net::{IpAddr, Ipv6Addr},
};

use xfwd_ebpf_types::{ServiceKey, map_ipv4};

/// Which packets of an interface go to AF_XDP sockets. Everything else stays with the host network stack.
///
/// ```
/// use xfwd::kernel::xdp::{Steering, service_key};
///
/// const TCP: u8 = 6;
/// let steering = Steering {
///     services: [service_key("192.0.2.10".parse().unwrap(), TCP, 443)].into(),
///     ..Steering::default()
/// };
/// assert!(!steering.all);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Steering {
    /// Everything leaves the kernel but ARP, neighbour discovery, malformed packets, and what is addressed to
    /// the host (fragments of a service's packets too, if the service's address is one of the host's).
    /// Multicast and broadcast leave as well, unless their addresses are listed in `host_addresses`.
    pub all: bool,
    /// Packets to these leave the kernel, whole TCP and UDP packets only; also when the address is one of the
    /// host's.
    pub services: HashSet<ServiceKey>,
    /// Addresses of the host; looked at only with `all`.
    pub host_addresses: HashSet<IpAddr>,
}

/// The map key of a service: address, IP protocol number (6 TCP, 17 UDP) and port (in host byte order).
pub fn service_key(address: IpAddr, protocol: u8, port: u16) -> ServiceKey {
    ServiceKey { address: address_key(address), port: port.to_be_bytes(), protocol, zero: 0 }
}

/// An address as the maps hold it: IPv6, or IPv4 mapped to IPv6 (RFC 4291, section 2.5.5.2).
pub fn address_key(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(address) => map_ipv4(address.octets()),
        IpAddr::V6(address) => address.octets(),
    }
}

/// A service's key in words, for messages.
pub(super) fn service_name(key: &ServiceKey) -> String {
    let address = Ipv6Addr::from(key.address).to_canonical();
    let port = u16::from_be_bytes(key.port);
    match key.protocol {
        6 => format!("{address} tcp/{port}"),
        17 => format!("{address} udp/{port}"),
        other => format!("{address} protocol {other} port {port}"),
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
        assert_eq!(key.zero, 0);
    }

    #[test]
    fn messages_name_a_service_as_people_write_it() {
        assert_eq!(service_name(&service_key(IpAddr::from([192, 0, 2, 1]), 17, 53)), "192.0.2.1 udp/53");
        let address = "2001:db8::1".parse().unwrap();
        assert_eq!(service_name(&service_key(address, 6, 443)), "2001:db8::1 tcp/443");
    }
}
