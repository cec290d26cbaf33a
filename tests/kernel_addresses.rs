//! Addresses and routes in namespaces of their own.
#![allow(missing_docs, clippy::unwrap_used)]

#[path = "support/netns.rs"]
mod netns;

use std::{net::IpAddr, sync::mpsc, time::Duration};

use netns::veth_pair;
use xfwd::kernel::{
    addresses::{AddressWatcher, host_addresses},
    link::Link,
    routes::{RouteError, RouteKind, Routes},
};
use xfwd_netns::lab_or_skip;

const PATIENCE: Duration = Duration::from_secs(10);

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[test]
fn added_and_removed_addresses_are_told_with_all_that_remain() {
    lab_or_skip!();
    let (here, _there) = veth_pair("");
    here.ip("link set va down");
    let (sender, changes) = mpsc::channel();
    let (watcher, initial) =
        here.enter(|| AddressWatcher::start(move |change| sender.send(change).unwrap()).unwrap());
    assert_eq!(initial, [ip("127.0.0.1"), ip("::1")]);

    here.ip("addr add 10.9.0.1/24 dev va");
    let change = changes.recv_timeout(PATIENCE).unwrap();
    assert_eq!((change.added, change.removed), (vec![ip("10.9.0.1")], vec![]));
    assert_eq!(change.all, [ip("10.9.0.1"), ip("127.0.0.1"), ip("::1")]);

    here.ip("addr add fd00:9::1/64 dev va nodad");
    assert_eq!(changes.recv_timeout(PATIENCE).unwrap().added, [ip("fd00:9::1")]);

    here.ip("addr del 10.9.0.1/24 dev va");
    let change = changes.recv_timeout(PATIENCE).unwrap();
    assert_eq!((change.added, change.removed), (vec![], vec![ip("10.9.0.1")]));
    assert_eq!(change.all, here.enter(host_addresses).unwrap());
    drop(watcher);
}

#[test]
fn address_on_two_interfaces_is_lost_with_the_second() {
    lab_or_skip!();
    let (here, _there) = veth_pair("");
    here.ip("addr add 10.9.0.1/32 dev lo");
    here.ip("addr add 10.9.0.1/24 dev va");
    let (sender, changes) = mpsc::channel();
    let (_watcher, _) =
        here.enter(|| AddressWatcher::start(move |change| sender.send(change.removed).unwrap()).unwrap());
    here.ip("addr del 10.9.0.1/24 dev va");
    here.ip("addr del 10.9.0.1/32 dev lo");
    let removed =
        std::iter::from_fn(|| changes.recv_timeout(PATIENCE).ok()).find(|removed| !removed.is_empty());
    assert_eq!(removed, Some(vec![ip("10.9.0.1")]));
}

#[test]
fn point_to_point_address_is_the_local_end() {
    lab_or_skip!();
    let (here, _there) = veth_pair("");
    here.ip("addr add 10.9.0.1 peer 10.9.0.2 dev va");
    let addresses = here.enter(host_addresses).unwrap();
    assert!(addresses.contains(&ip("10.9.0.1")) && !addresses.contains(&ip("10.9.0.2")), "{addresses:?}");
}

#[test]
fn routes_name_interface_gateway_and_source() {
    lab_or_skip!();
    let (here, _there) = veth_pair("");
    here.ip("addr add 10.9.0.1/24 dev va");
    here.ip("addr add fd00:9::1/64 dev va nodad");
    here.ip("route add 10.20.0.0/16 via 10.9.0.254");
    here.ip("route add 10.30.0.0/16 via inet6 fe80::1 dev va");
    here.ip("route add fd00:20::/64 via fd00:9::fe");
    let interface = here.enter(|| Link::find("va")).unwrap().index;
    for (destination, gateway, source) in [
        ("10.9.0.2", None, "10.9.0.1"),
        ("10.20.1.1", Some("10.9.0.254"), "10.9.0.1"),
        ("10.30.1.1", Some("fe80::1"), "10.9.0.1"),
        ("fd00:9::2", None, "fd00:9::1"),
        ("fd00:20::1", Some("fd00:9::fe"), "fd00:9::1"),
    ] {
        let route = here.enter(|| Routes::open().unwrap().route_to(ip(destination))).unwrap();
        assert_eq!((route.kind, route.interface), (RouteKind::Unicast, interface), "{destination}");
        assert_eq!((route.gateway, route.source), (gateway.map(ip), Some(ip(source))), "{destination}");
        assert_eq!(route.next_hop(), ip(gateway.unwrap_or(destination)));
    }
    for (destination, kind) in [
        ("10.9.0.1", RouteKind::Local),
        ("fd00:9::1", RouteKind::Local),
        ("10.9.0.255", RouteKind::Broadcast),
    ] {
        assert_eq!(
            here.enter(|| Routes::open().unwrap().route_to(ip(destination))).unwrap().kind,
            kind,
            "{destination}"
        );
    }
}

#[test]
fn unroutable_addresses_are_named() {
    lab_or_skip!();
    let (here, _there) = veth_pair("");
    here.ip("addr add 10.9.0.1/24 dev va");
    for (kind, number) in [("blackhole", 1), ("unreachable", 2), ("prohibit", 3)] {
        here.ip(&format!("route add {kind} 10.40.{number}.0/24"));
        here.ip(&format!("route add {kind} fd00:40:0:{number}::/64"));
    }
    for destination in [
        "192.0.2.1",
        "2001:db8::1",
        "10.40.1.1",
        "10.40.2.1",
        "10.40.3.1",
        "fd00:40:0:1::1",
        "fd00:40:0:2::1",
        "fd00:40:0:3::1",
    ] {
        let error = here.enter(|| Routes::open().unwrap().route_to(ip(destination))).unwrap_err();
        assert!(
            matches!(error, RouteError::Unroutable { address, .. } if address == ip(destination)),
            "{error:?}"
        );
    }
    assert_eq!(
        here.enter(|| Routes::open().unwrap().route_to(ip("192.0.2.1"))).unwrap_err().to_string(),
        "the host has no route to 192.0.2.1 (Network is unreachable (os error 101)); `ip route get 192.0.2.1` shows \
         what the kernel finds"
    );
}
