//! Where the kernel would send a packet: used to find the interface and the next hop of a backend.

#![forbid(unsafe_code)]

use std::{io, net::IpAddr};

use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    route::{RouteAddress, RouteAttribute, RouteMessage, RouteType, RouteVia},
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

/// Asks the kernel for the route to an address, in the network namespace of the calling thread.
///
/// # Errors
///
/// [`RouteError::Unroutable`] if there is none, or if it is one of the kinds that refuse packets (unreachable,
/// prohibit, blackhole, throw); [`RouteError::Kernel`].
pub fn route_to(address: IpAddr) -> Result<Route, RouteError> {
    let mut request = RouteMessage::default();
    (request.header.address_family, request.header.destination_prefix_length) = match address {
        IpAddr::V4(_) => (AddressFamily::Inet, 32),
        IpAddr::V6(_) => (AddressFamily::Inet6, 128),
    };
    request.attributes.push(RouteAttribute::Destination(address.into()));
    let answer = Netlink::open()
        .and_then(|mut netlink| netlink.get(RouteNetlinkMessage::GetRoute(request)))
        .map_err(|source| match source.raw_os_error() {
            // A blackhole route answers EINVAL, prohibit EACCES, unreachable EHOSTUNREACH.
            Some(libc::ENETUNREACH | libc::EHOSTUNREACH | libc::EACCES | libc::EINVAL) => {
                RouteError::Unroutable { address, reason: source.to_string() }
            }
            _ => RouteError::Kernel { address, source },
        })?;
    match answer {
        RouteNetlinkMessage::NewRoute(message) => from_message(address, &message),
        other => Err(nonsense(address, format!("unexpected answer {other:?}"))),
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
    let (mut interface, mut gateway, mut source) = (None, None, None);
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Oif(index) => interface = Some(*index),
            RouteAttribute::Gateway(address) => gateway = ip(address),
            RouteAttribute::Via(RouteVia::Inet(address)) => gateway = Some((*address).into()),
            RouteAttribute::Via(RouteVia::Inet6(address)) => gateway = Some((*address).into()),
            RouteAttribute::PrefSource(address) => source = ip(address),
            _ => {}
        }
    }
    let interface =
        interface.ok_or_else(|| nonsense(destination, "the answer names no interface".to_owned()))?;
    Ok(Route { destination, interface, gateway, source, kind })
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
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
        let route = route_to(address).unwrap();
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
