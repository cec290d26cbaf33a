//! The neighbours behind next hops, across a veth pair: resolved, followed, given up.
#![allow(missing_docs, clippy::unwrap_used)]

#[path = "support/netns.rs"]
mod netns;

use std::{
    net::IpAddr,
    process::Command,
    sync::mpsc::{self, Receiver},
    time::{Duration, Instant},
};

use netns::{Namespace, veth_pair};
use xfwd::kernel::{
    link::Link,
    next_hops::{Change, NextHops, Unresolved},
};
use xfwd_netns::lab_or_skip;

const PATIENCE: Duration = Duration::from_secs(20);
const A: [u8; 6] = [2, 0, 0, 0, 0, 0xa];
const B: [u8; 6] = [2, 0, 0, 0, 0, 0xb];

/// A router's side `va` with 10.9.0.1, and a backend's side `vb` with 10.9.0.2, fd00:9::2 and the MAC address [`A`].
/// The kernel gives up and ages within a second or so instead of half a minute.
fn lab() -> (Namespace, Namespace, u32) {
    let (here, there) = veth_pair("");
    for family in ["ipv4", "ipv6"] {
        for (setting, value) in
            [("retrans_time_ms", "100"), ("delay_first_probe_time", "1"), ("base_reachable_time_ms", "1000")]
        {
            here.sysctl(&format!("net.{family}.neigh.va.{setting}"), value).unwrap();
        }
    }
    there.ip("link set vb address 02:00:00:00:00:0a");
    here.ip("addr add 10.9.0.1/24 dev va");
    here.ip("addr add fd00:9::1/64 dev va nodad");
    there.ip("addr add 10.9.0.2/24 dev vb");
    there.ip("addr add fd00:9::2/64 dev vb nodad");
    let index = here.enter(|| Link::find("va")).unwrap().index;
    (here, there, index)
}

fn follow(namespace: &Namespace, interface: u32, addresses: &[&str]) -> (NextHops, Receiver<Change>) {
    let (sender, changes) = mpsc::channel();
    let wanted = addresses.iter().map(|address| ip(address)).collect();
    let tell = move |changes: &[Change]| changes.iter().for_each(|one| sender.send(one.clone()).unwrap());
    let next_hops = namespace.enter(|| NextHops::start(vec![interface], wanted, tell).unwrap());
    (next_hops, changes)
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn mac(changes: &Receiver<Change>) -> Option<[u8; 6]> {
    changes.recv_timeout(PATIENCE).unwrap().next_hop.ok().map(|hop| hop.destination.octets())
}

/// The backends without a next hop after this time.
fn missing(next_hops: &NextHops, after: Duration) -> Vec<IpAddr> {
    next_hops.wait_resolved(after).into_iter().map(|(backend, _)| backend).collect()
}

fn entries(namespace: &Namespace, address: &str) -> String {
    let arguments = ["-n", namespace.name(), "neigh", "show", address];
    String::from_utf8(Command::new("ip").args(arguments).output().unwrap().stdout).unwrap()
}

#[test]
fn both_families_are_resolved_without_any_traffic_of_the_host() {
    lab_or_skip!();
    let (here, _there, interface) = lab();
    let (next_hops, changes) = follow(&here, interface, &["10.9.0.2", "fd00:9::2"]);
    assert_eq!(next_hops.wait_resolved(PATIENCE), []);
    let mut told: Vec<_> = changes
        .try_iter()
        .map(|change| (change.backend, change.next_hop.unwrap().destination.octets()))
        .collect();
    told.sort();
    assert_eq!(told, [(ip("10.9.0.2"), A), (ip("fd00:9::2"), A)]);
    // The entries are dynamic: nothing has to be taken back at the end.
    drop(next_hops);
    for address in ["10.9.0.2", "fd00:9::2"] {
        let entry = entries(&here, address);
        assert!(entry.contains("02:00:00:00:00:0a") && !entry.contains("PERMANENT"), "{entry}");
        assert!(!entry.contains("managed"), "{entry}");
    }
}

#[test]
fn new_mac_address_is_followed_without_a_gap() {
    lab_or_skip!();
    let (here, there, interface) = lab();
    let (_next_hops, changes) = follow(&here, interface, &["10.9.0.2"]);
    assert_eq!(mac(&changes), Some(A));
    // No gratuitous ARP: it is found out because the kernel is asked to probe what went stale.
    there.ip("link set vb address 02:00:00:00:00:0b");
    assert_eq!(mac(&changes), Some(B));
}

#[test]
fn backend_that_stops_answering_is_given_up_and_found_again() {
    lab_or_skip!();
    let (here, there, interface) = lab();
    let (next_hops, changes) = follow(&here, interface, &["10.9.0.2"]);
    assert_eq!(mac(&changes), Some(A));
    there.ip("addr del 10.9.0.2/24 dev vb");
    assert_eq!(mac(&changes), None);
    assert_eq!(missing(&next_hops, Duration::ZERO), [ip("10.9.0.2")]);
    there.ip("addr add 10.9.0.2/24 dev vb");
    assert_eq!(mac(&changes), Some(A));
}

#[test]
fn address_that_nobody_has_is_reported_as_missing() {
    lab_or_skip!();
    let (here, _there, interface) = lab();
    let (next_hops, changes) = follow(&here, interface, &["10.9.0.2", "10.9.0.77"]);
    assert_eq!(missing(&next_hops, Duration::from_secs(2)), [ip("10.9.0.77")]);
    assert_eq!(mac(&changes), Some(A));
    assert_eq!(mac(&changes), None);
    assert!(changes.try_recv().is_err());
}

#[test]
fn flush_does_not_interrupt() {
    lab_or_skip!();
    let (here, _there, interface) = lab();
    let (_next_hops, changes) = follow(&here, interface, &["10.9.0.2"]);
    assert_eq!(mac(&changes), Some(A));
    here.ip("neigh flush dev va");
    assert!(changes.recv_timeout(Duration::from_secs(3)).is_err());
    assert!(entries(&here, "10.9.0.2").contains("02:00:00:00:00:0a"));
}

#[test]
fn permanent_entry_is_used_as_it_is_and_stays() {
    lab_or_skip!();
    let (here, _there, interface) = lab();
    here.ip("neigh add 10.9.0.2 dev va lladdr 02:00:00:00:00:99 nud permanent");
    let (_next_hops, changes) = follow(&here, interface, &["10.9.0.2", "10.9.0.3"]);
    assert_eq!(mac(&changes), Some([2, 0, 0, 0, 0, 0x99]));
    // One that appears later, in the middle of our own asking for it.
    here.ip("neigh replace 10.9.0.3 dev va lladdr 02:00:00:00:00:98 nud permanent");
    assert_eq!(mac(&changes), Some([2, 0, 0, 0, 0, 0x98]));
    // Longer than the kernel is left alone between two requests.
    std::thread::sleep(Duration::from_secs(4));
    for address in ["10.9.0.2", "10.9.0.3"] {
        assert!(entries(&here, address).contains("PERMANENT"), "{}", entries(&here, address));
    }
}

#[test]
fn the_thread_ends_promptly_also_on_interfaces_that_are_gone() {
    lab_or_skip!();
    let (here, _there, interface) = lab();
    let (next_hops, changes) = follow(&here, interface, &["10.9.0.2"]);
    assert_eq!(mac(&changes), Some(A));
    here.ip("link del va");
    let (gone, _told) = follow(&here, interface, &["10.9.0.2"]);
    assert!(matches!(gone.wait_resolved(PATIENCE)[..], [(_, Unresolved::NoRoute { .. })]));
    let start = Instant::now();
    drop((next_hops, gone));
    assert!(start.elapsed() < Duration::from_millis(500), "{:?}", start.elapsed());
}
