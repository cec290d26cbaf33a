//! From routes, interfaces and neighbours to the answer for each backend; no system call.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    ops::RangeInclusive,
};

use netlink_packet_route::{
    AddressFamily,
    route::{RouteAttribute, RouteMessage},
};

use super::{Answer, Change, NextHop, Unresolved, links::Links};
use crate::kernel::{
    neighbours::{self, Key},
    routes::{self, Route, RouteKind},
};

/// The wanted backends, and what is known of each.
#[derive(Default)]
pub(super) struct Backends {
    backends: BTreeMap<IpAddr, Backend>,
    /// Those whose route has to be looked up, again or for the first time.
    stale: BTreeSet<IpAddr>,
}

#[derive(Default)]
struct Backend {
    /// The route, or why there is none.
    route: Option<Result<Route, String>>,
    /// What was told last.
    told: Option<Answer>,
    /// What is shown to those who ask: `told`, or that the answer is still awaited.
    shown: Option<Answer>,
}

/// What [`Backends::update`] found out.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Update {
    /// To be told.
    pub changes: Vec<Change>,
    /// To be shown only: backends that have no answer yet.
    pub awaited: Vec<Change>,
    /// The answer of some depends on neighbours that were asked just now, so time alone may change it.
    pub pending: bool,
}

impl Backends {
    /// Wants these and no others; those that stay keep what is known of them.
    pub fn set_wanted(&mut self, wanted: Vec<IpAddr>) {
        let wanted: BTreeSet<IpAddr> = wanted.into_iter().collect();
        self.backends.retain(|address, _| wanted.contains(address));
        self.stale.retain(|address| wanted.contains(address));
        for address in wanted {
            self.backends.entry(address).or_insert_with(|| {
                self.stale.insert(address);
                Backend::default()
            });
        }
    }

    pub fn contains(&self, address: &IpAddr) -> bool {
        self.backends.contains_key(address)
    }

    /// Every route may be another one.
    pub fn all_stale(&mut self) {
        self.stale.extend(self.backends.keys());
    }

    /// A route came or went: only destinations in its prefix can be concerned, whatever its table, since the kernel
    /// does not look up gateways recursively. Says whether any backend is.
    pub fn stale_under(&mut self, message: &RouteMessage) -> bool {
        let Some(range) = destinations(message) else { return false };
        let before = self.stale.len();
        let concerned = self.backends.range(range).map(|(address, _)| *address);
        self.stale.extend(concerned);
        self.stale.len() > before
    }

    /// Whose route to look up.
    pub fn take_stale(&mut self) -> BTreeSet<IpAddr> {
        std::mem::take(&mut self.stale)
    }

    /// The kernel's route to a backend, or why it has none.
    pub fn found(&mut self, address: IpAddr, route: Result<Route, String>) {
        if let Some(backend) = self.backends.get_mut(&address) {
            backend.route = Some(route);
        }
    }

    /// The kernel did not say: what was known stays, and is looked up again.
    pub fn not_found_out(&mut self, address: IpAddr, why: String) {
        if let Some(backend) = self.backends.get_mut(&address) {
            backend.route.get_or_insert(Err(why));
            self.stale.insert(address);
        }
    }

    /// The neighbours that frames for the backends go to, each once.
    pub fn neighbours(&self, links: &Links) -> BTreeSet<Key> {
        let routes = self.backends.values().filter_map(|backend| backend.route.as_ref()?.as_ref().ok());
        let usable =
            routes.filter(|route| check(route).is_ok() && links.exit(route.interface, route.gateway).is_ok());
        usable.map(key).collect()
    }

    /// Finds the answers anew, and what of them is news.
    ///
    /// An answer that rests on a neighbour who was asked just now is not told: a backend that had a next hop keeps it so
    /// long, so that a route to another gateway does not interrupt traffic.
    pub fn update(&mut self, links: &Links, neighbour: impl Fn(Key) -> neighbours::Answer) -> Update {
        let mut update = Update::default();
        for (&address, backend) in &mut self.backends {
            let Some(route) = &backend.route else { continue };
            let (answer, certain) = answer(address, route, links, &neighbour);
            if certain {
                if backend.told.as_ref() != Some(&answer) {
                    update.changes.push(Change { backend: address, next_hop: answer.clone() });
                    backend.told = Some(answer.clone());
                }
                backend.shown = Some(answer);
                continue;
            }
            update.pending = true;
            if !matches!(backend.told, Some(Ok(_))) && backend.shown.as_ref() != Some(&answer) {
                update.awaited.push(Change { backend: address, next_hop: answer.clone() });
                backend.shown = Some(answer);
            }
        }
        update
    }
}

fn key(route: &Route) -> Key {
    (route.interface, route.next_hop())
}

/// The answer, and whether it can be told: `false` if a neighbour has been asked, but not for long.
fn answer(
    address: IpAddr,
    route: &Result<Route, String>,
    links: &Links,
    neighbour: impl Fn(Key) -> neighbours::Answer,
) -> (Answer, bool) {
    let route = match route {
        Ok(route) => route,
        Err(reason) => return (Err(Unresolved::NoRoute { address, reason: reason.clone() }), true),
    };
    let exit = match check(route).and_then(|()| links.exit(route.interface, route.gateway)) {
        Ok(exit) => exit,
        Err(unresolved) => return (Err(unresolved), true),
    };
    let (_, address) = key(route);
    let certain = match neighbour(key(route)) {
        neighbours::Answer::At(destination) => {
            let limit = exit.mtu(route.destination);
            let next_hop = NextHop {
                interface: exit.port,
                vlan: exit.vlan,
                source: exit.source,
                destination,
                mtu: route.mtu.map_or(limit, |mtu| mtu.min(limit)),
                address,
                preferred_source: route.source,
            };
            return (Ok(next_hop), true);
        }
        neighbours::Answer::Asking => false,
        neighbours::Answer::Silent => true,
    };
    let unresolved = Unresolved::NoNeighbour {
        interface: exit.port,
        name: exit.name.to_owned(),
        vlan: exit.vlan,
        address,
        carrier: exit.carrier,
    };
    (Err(unresolved), certain)
}

/// Whether the route is one to another host that frames can be sent to.
fn check(route: &Route) -> Result<(), Unresolved> {
    match route.kind {
        RouteKind::Unicast if route.encapsulates => Err(Unresolved::RouteEncapsulates),
        RouteKind::Unicast => Ok(()),
        RouteKind::Local => Err(Unresolved::OwnAddress),
        RouteKind::Broadcast => Err(Unresolved::NotOneHost("a broadcast address")),
        RouteKind::Multicast => Err(Unresolved::NotOneHost("a multicast group")),
        RouteKind::Anycast => Err(Unresolved::NotOneHost("an anycast address of this host")),
        RouteKind::Other(number) => Err(Unresolved::NoRoute {
            address: route.destination,
            reason: format!("a route of type {number}"),
        }),
    }
}

/// The destinations of a route; `None` if it is neither IPv4 nor IPv6.
fn destinations(message: &RouteMessage) -> Option<RangeInclusive<IpAddr>> {
    let destination = message.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Destination(address) => routes::ip(address),
        _ => None,
    });
    let length = u32::from(message.header.destination_prefix_length);
    match (message.header.address_family, destination) {
        (AddressFamily::Inet, Some(IpAddr::V4(first))) => {
            let host = u32::MAX.checked_shr(length).unwrap_or(0);
            let last = Ipv4Addr::from_bits(first.to_bits() | host);
            Some(IpAddr::V4(first)..=IpAddr::V4(last))
        }
        (AddressFamily::Inet6, Some(IpAddr::V6(first))) => {
            let host = u128::MAX.checked_shr(length).unwrap_or(0);
            let last = Ipv6Addr::from_bits(first.to_bits() | host);
            Some(IpAddr::V6(first)..=IpAddr::V6(last))
        }
        // A default route names no destination.
        (AddressFamily::Inet, _) => Some(Ipv4Addr::UNSPECIFIED.into()..=Ipv4Addr::BROADCAST.into()),
        (AddressFamily::Inet6, _) => {
            Some(Ipv6Addr::UNSPECIFIED.into()..=Ipv6Addr::from_bits(u128::MAX).into())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use netlink_packet_route::link::LinkAttribute;

    use super::super::links::tests::{PORT, PORT_MAC, link, links, vlan};
    use super::*;
    use crate::packet::MacAddress;

    const GATEWAY_MAC: MacAddress = MacAddress([2, 0, 0, 0, 1, 1]);
    const BACKEND_MAC: MacAddress = MacAddress([2, 0, 0, 0, 1, 2]);

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn route(to: &str, interface: u32, gateway: Option<&str>) -> Route {
        Route {
            destination: ip(to),
            interface,
            gateway: gateway.map(ip),
            source: Some(ip("10.0.0.9")),
            kind: RouteKind::Unicast,
            mtu: None,
            encapsulates: false,
        }
    }

    fn wanted(addresses: &[&str]) -> Backends {
        let mut backends = Backends::default();
        backends.set_wanted(addresses.iter().map(|address| ip(address)).collect());
        assert_eq!(backends.take_stale().len(), addresses.len());
        backends
    }

    /// One backend 10.0.0.2 with this route.
    fn with(route: Route) -> Backends {
        let mut backends = wanted(&["10.0.0.2"]);
        backends.found(ip("10.0.0.2"), Ok(route));
        backends
    }

    fn at(key: Key) -> neighbours::Answer {
        neighbours::Answer::At(if key.1 == ip("10.0.0.2") { BACKEND_MAC } else { GATEWAY_MAC })
    }

    fn silent(_: Key) -> neighbours::Answer {
        neighbours::Answer::Silent
    }

    fn asking(_: Key) -> neighbours::Answer {
        neighbours::Answer::Asking
    }

    fn only(update: Update) -> Answer {
        assert_eq!(update.changes.len(), 1, "{update:?}");
        update.changes.into_iter().next().unwrap().next_hop
    }

    fn reason(backends: &mut Backends, links: &Links) -> String {
        only(backends.update(links, at)).unwrap_err().to_string()
    }

    #[test]
    fn a_backend_on_the_link_is_its_own_next_hop() {
        let mut backends = with(route("10.0.0.2", PORT, None));
        let links = links(&[]);
        assert_eq!(backends.neighbours(&links), BTreeSet::from([(PORT, ip("10.0.0.2"))]));
        let expected = NextHop {
            interface: PORT,
            vlan: None,
            source: PORT_MAC,
            destination: BACKEND_MAC,
            mtu: 1_500,
            address: ip("10.0.0.2"),
            preferred_source: Some(ip("10.0.0.9")),
        };
        assert_eq!(only(backends.update(&links, at)), Ok(expected));
        assert_eq!(backends.update(&links, at), Update::default());
    }

    #[test]
    fn backends_behind_one_gateway_share_its_neighbour_whatever_its_family() {
        let mut backends = wanted(&["10.0.1.2", "10.0.1.3", "2001:db8::2"]);
        for backend in ["10.0.1.2", "10.0.1.3", "2001:db8::2"] {
            backends.found(ip(backend), Ok(route(backend, PORT, Some("fe80::1"))));
        }
        let links = links(&[]);
        assert_eq!(backends.neighbours(&links), BTreeSet::from([(PORT, ip("fe80::1"))]));
        let changes = backends.update(&links, at).changes;
        assert_eq!(changes.len(), 3);
        for change in changes {
            let hop = change.next_hop.unwrap();
            assert_eq!((hop.address, hop.destination), (ip("fe80::1"), GATEWAY_MAC), "{}", change.backend);
        }
    }

    #[test]
    fn a_route_by_a_vlan_interface_asks_there_and_sends_by_the_port() {
        let mut backends = with(route("10.0.0.2", 7, None));
        let links = links(&[vlan(7, "ens1f0.42", 42, PORT)]);
        assert_eq!(backends.neighbours(&links), BTreeSet::from([(7, ip("10.0.0.2"))]));
        let hop = only(backends.update(&links, at)).unwrap();
        assert_eq!((hop.interface, hop.vlan), (PORT, Some(42)));
        assert_eq!(hop.source, MacAddress([2, 0, 0, 0, 0, 7]));
        let unresolved = only(backends.update(&links, silent)).unwrap_err();
        assert_eq!(unresolved.to_string(), "10.0.0.2 does not answer ARP on ens1f0.42");
    }

    #[test]
    fn the_mtu_is_the_least_of_route_and_link() {
        for (of_route, expected) in [(None, 1_500), (Some(1_400), 1_400), (Some(9_000), 1_500)] {
            let mut backends = with(Route { mtu: of_route, ..route("10.0.0.2", PORT, None) });
            assert_eq!(only(backends.update(&links(&[]), at)).unwrap().mtu, expected);
        }
    }

    #[test]
    fn the_ports_new_address_and_mtu_are_followed() {
        let (mut backends, mut links) = (with(route("10.0.0.2", PORT, None)), links(&[]));
        backends.update(&links, at);
        let attributes = vec![LinkAttribute::Mtu(9_000), LinkAttribute::Address(vec![2, 0, 0, 0, 9, 9])];
        links.observe(&link(PORT, "ens1f0", attributes));
        let hop = only(backends.update(&links, at)).unwrap();
        assert_eq!((hop.mtu, hop.source), (9_000, MacAddress([2, 0, 0, 0, 9, 9])));
    }

    #[test]
    fn what_cannot_be_a_backend_is_told_why() {
        let links = links(&[]);
        let direct = route("10.0.0.2", PORT, None);
        let kind = |kind| Route { kind, ..direct };
        for (route, expected) in [
            (kind(RouteKind::Local), "it is an address of this host"),
            (kind(RouteKind::Broadcast), "it is a broadcast address, not that of one host"),
            (kind(RouteKind::Multicast), "it is a multicast group, not that of one host"),
            (
                Route { encapsulates: true, ..direct },
                "the kernel's route to it encapsulates packets (`encap`), which xfwd does not do",
            ),
        ] {
            let mut backends = with(route);
            assert!(backends.neighbours(&links).is_empty());
            assert_eq!(reason(&mut backends, &links), expected);
        }
        let mut backends = with(direct);
        backends.found(ip("10.0.0.2"), Err("Network is unreachable".to_owned()));
        assert_eq!(
            reason(&mut backends, &links),
            "the host has no route to 10.0.0.2 (Network is unreachable); `ip route get 10.0.0.2` shows what the kernel \
             finds"
        );
    }

    #[test]
    fn a_neighbour_is_not_called_silent_before_it_had_time_to_answer() {
        let (mut backends, links) = (with(route("10.0.0.2", PORT, None)), links(&[]));
        let update = backends.update(&links, asking);
        assert!(update.changes.is_empty() && update.pending);
        assert!(matches!(update.awaited[0].next_hop, Err(Unresolved::NoNeighbour { .. })));
        let update = backends.update(&links, asking);
        assert!(update.awaited.is_empty() && update.pending);
        assert!(only(backends.update(&links, silent)).is_err());
    }

    #[test]
    fn the_old_next_hop_is_kept_until_the_new_gateway_answers() {
        let (mut backends, links) = (with(route("10.0.0.2", PORT, None)), links(&[]));
        assert!(only(backends.update(&links, at)).is_ok());
        backends.found(ip("10.0.0.2"), Ok(route("10.0.0.2", PORT, Some("10.0.0.1"))));
        let update = backends.update(&links, asking);
        assert_eq!(update, Update { pending: true, ..Update::default() });
        assert_eq!(only(backends.update(&links, at)).unwrap().destination, GATEWAY_MAC);
    }

    #[test]
    fn a_lost_carrier_is_told_with_the_silence() {
        let (mut backends, mut links) = (with(route("10.0.0.2", PORT, None)), links(&[]));
        let mut cut = link(PORT, "ens1f0", vec![]);
        cut.header.flags = netlink_packet_route::link::LinkFlags::Up;
        links.observe(&cut);
        let unresolved = only(backends.update(&links, silent)).unwrap_err();
        assert_eq!(unresolved.to_string(), "10.0.0.2 does not answer ARP on ens1f0, which has no carrier");
    }

    #[test]
    fn a_lookup_that_failed_changes_nothing_and_is_repeated() {
        let (mut backends, links) = (with(route("10.0.0.2", PORT, None)), links(&[]));
        assert!(only(backends.update(&links, at)).is_ok());
        backends.not_found_out(ip("10.0.0.2"), "No buffer space available".to_owned());
        assert_eq!(backends.take_stale(), BTreeSet::from([ip("10.0.0.2")]));
        assert_eq!(backends.update(&links, at), Update::default());
    }

    #[test]
    fn changing_the_set_keeps_what_stays_and_forgets_what_goes() {
        let (mut backends, links) = (with(route("10.0.0.2", PORT, None)), links(&[]));
        backends.update(&links, at);
        backends.set_wanted(vec![ip("10.0.0.3"), ip("10.0.0.2"), ip("10.0.0.3")]);
        assert_eq!(backends.take_stale(), BTreeSet::from([ip("10.0.0.3")]));
        assert_eq!(backends.update(&links, at), Update::default());
        backends.set_wanted(vec![]);
        assert!(!backends.contains(&ip("10.0.0.2")) && backends.neighbours(&links).is_empty());
        backends.set_wanted(vec![ip("10.0.0.2")]);
        backends.found(ip("10.0.0.2"), Ok(route("10.0.0.2", PORT, None)));
        assert!(only(backends.update(&links, at)).is_ok());
    }

    #[test]
    fn a_route_concerns_the_backends_in_its_prefix_alone() {
        let stale = |family, destination: Option<&str>, length| {
            let mut backends = wanted(&["10.0.0.255", "10.0.1.0", "10.0.1.255", "10.0.2.0", "2001:db8::1"]);
            let mut message = RouteMessage::default();
            message.header.address_family = family;
            message.header.destination_prefix_length = length;
            let destination = destination.map(ip).map(|address| RouteAttribute::Destination(address.into()));
            message.attributes.extend(destination);
            assert_eq!(backends.stale_under(&message), !backends.stale.is_empty());
            backends.take_stale().iter().map(IpAddr::to_string).collect::<Vec<_>>()
        };
        assert_eq!(stale(AddressFamily::Inet, Some("10.0.1.0"), 24), ["10.0.1.0", "10.0.1.255"]);
        assert_eq!(stale(AddressFamily::Inet, Some("10.0.2.0"), 32), ["10.0.2.0"]);
        assert_eq!(stale(AddressFamily::Inet, None, 0).len(), 4);
        assert_eq!(stale(AddressFamily::Inet6, Some("2001:db8::"), 32), ["2001:db8::1"]);
        assert_eq!(stale(AddressFamily::Inet6, Some("2001:db8::1"), 128), ["2001:db8::1"]);
        assert_eq!(stale(AddressFamily::Inet6, None, 0), ["2001:db8::1"]);
        assert!(stale(AddressFamily::Inet, Some("10.0.3.0"), 24).is_empty());
        assert!(stale(AddressFamily::Mpls, None, 0).is_empty());
    }
}
