//! Where the kernel would send a packet: what [`next_hops`](super::next_hops) asks for each backend.

#![forbid(unsafe_code)]

use std::{io, net::IpAddr};

use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    route::{RouteAddress, RouteAttribute, RouteLwEnCapType, RouteMessage, RouteMetric, RouteType, RouteVia},
};

use super::netlink::Netlink;

/// What the kernel does with packets to a destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum RouteKind {
    /// They are sent out, to the gateway or to the destination itself.
    Unicast,
    /// The destination is an address of this host.
    Local,
    /// The destination is a broadcast address.
    Broadcast,
    /// The destination is a multicast group.
    Multicast,
    /// The destination is an anycast address of this host.
    Anycast,
    /// Any other `RTN_*` number.
    Other(u8),
}

/// The kernel's route to one address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Route {
    /// The address asked for.
    pub destination: IpAddr,
    /// Index of the interface that packets leave by.
    pub interface: u32,
    /// The router that they are sent to; `None` if the destination is on the link. An IPv4 destination may have an
    /// IPv6 gateway (RFC 5549).
    pub gateway: Option<IpAddr>,
    /// The source address that the kernel would choose.
    pub source: Option<IpAddr>,
    /// What is done with them.
    pub kind: RouteKind,
    /// The largest layer 3 packet that the route allows, in bytes (`RTAX_MTU`), where it says: set by the administrator
    /// (`ip route add … mtu 1400`) or learned by the host's own path MTU discovery. `None`: that of the interface.
    pub mtu: Option<u32>,
    /// Whether the kernel would put the packets into a tunnel of the route's own (`ip route add … encap …`).
    pub encapsulates: bool,
}

impl Route {
    /// The neighbour whose link-layer address packets are sent to: the gateway, or else the destination.
    #[must_use]
    pub fn next_hop(&self) -> IpAddr {
        self.gateway.unwrap_or(self.destination)
    }
}

/// Why there is no route.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RouteError {
    /// The kernel would not send to this address.
    #[error(
        "the host has no route to {address} ({reason}); `ip route get {address}` shows what the kernel finds"
    )]
    Unroutable {
        /// The address asked for.
        address: IpAddr,
        /// In the words of the kernel.
        reason: String,
    },
    /// The request failed, or its answer made no sense.
    #[error("RTM_GETROUTE for {address}: {source}")]
    Kernel {
        /// The address asked for.
        address: IpAddr,
        /// What the kernel answered.
        source: io::Error,
    },
}

/// The kernel's routing tables and rules, asked over one socket for any number of addresses.
pub struct Routes {
    netlink: Netlink,
}

impl Routes {
    /// Opens them, in the network namespace of the calling thread.
    ///
    /// # Errors
    ///
    /// What the kernel says to a netlink socket.
    pub fn open() -> io::Result<Self> {
        Ok(Self { netlink: Netlink::open()? })
    }

    /// Asks the kernel for the route to an address.
    ///
    /// # Errors
    ///
    /// [`RouteError::Unroutable`] if there is none, or if it is one of the kinds that refuse packets (unreachable,
    /// prohibit, blackhole, throw); [`RouteError::Kernel`].
    pub fn route_to(&mut self, address: IpAddr) -> Result<Route, RouteError> {
        let mut request = RouteMessage::default();
        (request.header.address_family, request.header.destination_prefix_length) = match address {
            IpAddr::V4(_) => (AddressFamily::Inet, 32),
            IpAddr::V6(_) => (AddressFamily::Inet6, 128),
        };
        request.attributes.push(RouteAttribute::Destination(address.into()));
        let answer = self.netlink.get(RouteNetlinkMessage::GetRoute(request)).map_err(|source| {
            match source.raw_os_error() {
                // A blackhole route answers EINVAL, prohibit EACCES, unreachable EHOSTUNREACH.
                Some(libc::ENETUNREACH | libc::EHOSTUNREACH | libc::EACCES | libc::EINVAL) => {
                    RouteError::Unroutable { address, reason: source.to_string() }
                }
                _ => RouteError::Kernel { address, source },
            }
        })?;
        match answer {
            RouteNetlinkMessage::NewRoute(message) => from_message(address, &message),
            other => Err(nonsense(address, format!("unexpected answer {other:?}"))),
        }
    }
}

fn from_message(destination: IpAddr, message: &RouteMessage) -> Result<Route, RouteError> {
    let kind = match message.header.kind {
        RouteType::Unicast => RouteKind::Unicast,
        RouteType::Local => RouteKind::Local,
        RouteType::Broadcast => RouteKind::Broadcast,
        RouteType::Multicast => RouteKind::Multicast,
        RouteType::Anycast => RouteKind::Anycast,
        refused
        @ (RouteType::Unreachable | RouteType::Prohibit | RouteType::BlackHole | RouteType::Throw) => {
            let reason = format!("a route of type {refused:?}").to_lowercase();
            return Err(RouteError::Unroutable { address: destination, reason });
        }
        other => RouteKind::Other(other.into()),
    };
    let (mut interface, mut gateway, mut source, mut mtu, mut encapsulates) = (None, None, None, None, false);
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Oif(index) => interface = Some(*index),
            RouteAttribute::Gateway(address) => gateway = ip(address),
            RouteAttribute::Via(RouteVia::Inet(address)) => gateway = Some((*address).into()),
            RouteAttribute::Via(RouteVia::Inet6(address)) => gateway = Some((*address).into()),
            RouteAttribute::PrefSource(address) => source = ip(address),
            RouteAttribute::Metrics(metrics) => mtu = mtu_of(metrics),
            RouteAttribute::EncapType(kind) => encapsulates = *kind != RouteLwEnCapType::None,
            _ => {}
        }
    }
    let interface =
        interface.ok_or_else(|| nonsense(destination, "the answer names no interface".to_owned()))?;
    Ok(Route { destination, interface, gateway, source, kind, mtu, encapsulates })
}

fn mtu_of(metrics: &[RouteMetric]) -> Option<u32> {
    metrics.iter().find_map(|metric| match metric {
        RouteMetric::Mtu(bytes) => Some(*bytes),
        _ => None,
    })
}

pub(super) fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(address) => Some((*address).into()),
        RouteAddress::Inet6(address) => Some((*address).into()),
        _ => None,
    }
}

fn nonsense(address: IpAddr, text: String) -> RouteError {
    RouteError::Kernel { address, source: io::Error::new(io::ErrorKind::InvalidData, text) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_local() {
        let address = "127.0.0.1".parse().unwrap();
        let route = Routes::open().unwrap().route_to(address).unwrap();
        assert_eq!((route.kind, route.gateway, route.source), (RouteKind::Local, None, Some(address)));
        assert_eq!(route.next_hop(), address);
    }

    #[test]
    fn ipv4_route_may_have_an_ipv6_gateway() {
        let destination = "10.1.2.3".parse().unwrap();
        let gateway = "fe80::1".parse().unwrap();
        let mut message = RouteMessage::default();
        message.header.kind = RouteType::Unicast;
        message.attributes.push(RouteAttribute::Oif(7));
        message.attributes.push(RouteAttribute::Via(RouteVia::Inet6(gateway)));
        let route = from_message(destination, &message).unwrap();
        assert_eq!((route.interface, route.next_hop()), (7, IpAddr::from(gateway)));
    }

    #[test]
    fn route_may_have_an_mtu_and_a_tunnel_of_its_own() {
        let mut message = RouteMessage::default();
        message.header.kind = RouteType::Unicast;
        message.attributes.push(RouteAttribute::Oif(7));
        let destination = "10.1.2.3".parse().unwrap();
        let plain = from_message(destination, &message).unwrap();
        assert_eq!((plain.mtu, plain.encapsulates), (None, false));
        let metrics = vec![RouteMetric::Hoplimit(3), RouteMetric::Mtu(1_400)];
        message.attributes.push(RouteAttribute::Metrics(metrics));
        message.attributes.push(RouteAttribute::EncapType(RouteLwEnCapType::Mpls));
        let route = from_message(destination, &message).unwrap();
        assert_eq!((route.mtu, route.encapsulates), (Some(1_400), true));
    }

    #[test]
    fn route_that_refuses_is_unroutable() {
        let mut message = RouteMessage::default();
        message.header.kind = RouteType::BlackHole;
        assert_eq!(
            from_message("10.1.2.3".parse().unwrap(), &message).unwrap_err().to_string(),
            "the host has no route to 10.1.2.3 (a route of type blackhole); `ip route get 10.1.2.3` shows what the \
             kernel finds"
        );
    }
}
