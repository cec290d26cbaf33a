//! Networks that are used more than once.
//!
//! | network | for | backends are reached |
//! |---|---|---|
//! | [`pair`] | one host against another | |
//! | [`dsr`] | direct server return | on the link of the balancer, and have the VIPs |
//! | [`nat`] | address translation | on the link of the balancer, and know nothing of VIPs |
//! | [`tunnel`] | tunnels | through a router, by address only, and have the VIPs |
//! | [`two_sided`] | a second interface | on the balancer's other interface, and have the VIPs |
//!
//! Addresses are from the ranges set aside for benchmarks (198.18.0.0/15, RFC 2544) and documentation (2001:db8::/32,
//! RFC 3849). VIPs are on the interface that the balancer turns to the client, so its kernel answers ARP and neighbour
//! discovery for them.

mod bridged;
mod host;
mod pair;
mod routed;

use std::net::{Ipv4Addr, Ipv6Addr};

pub use bridged::{Bridged, Dsr, Nat, dsr, nat};
pub use pair::{Pair, pair, pair_with};
pub use routed::{Routed, RoutedOptions, tunnel, tunnel_with, two_sided, two_sided_with};

/// Name of the interface that every host of a topology has.
pub const INTERFACE: &str = "eth0";
/// Name of the second interface, of hosts that have one; it is on the side of the backends.
pub const BACKEND_INTERFACE: &str = "eth1";

/// IPv4 VIP of all topologies.
pub const VIP_V4: Ipv4Addr = Ipv4Addr::new(198, 18, 10, 1);
/// IPv6 VIP of all topologies.
pub const VIP_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x10, 0, 0, 0, 0, 1);

/// IPv4 address that the balancer can translate to; backends reach it wherever they can answer the balancer.
pub const NAT_V4: Ipv4Addr = Ipv4Addr::new(198, 18, 2, 1);
/// IPv6 address that the balancer can translate to.
pub const NAT_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 2, 0, 0, 0, 0, 1);

/// Address number `host` in 198.18.0.0/15.
pub const fn host_v4(host: u8) -> Ipv4Addr {
    Ipv4Addr::new(198, 18, 0, host)
}

/// Address number `host` in 2001:db8::/32, which reads as the number does: host 11 has 2001:db8::11.
pub const fn host_v6(host: u8) -> Ipv6Addr {
    Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, digits(host))
}

/// Address number `host` behind the router: 198.19.0.0/16.
pub const fn far_v4(host: u8) -> Ipv4Addr {
    Ipv4Addr::new(198, 19, 0, host)
}

/// Address number `host` behind the router: 2001:db8:1::/48, which reads as the number does.
pub const fn far_v6(host: u8) -> Ipv6Addr {
    Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, digits(host))
}

/// The hexadecimal number that reads as the decimal one.
const fn digits(host: u8) -> u16 {
    let host = host as u16;
    ((host / 100) << 8) | ((host / 10 % 10) << 4) | (host % 10)
}
