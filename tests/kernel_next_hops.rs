//! Next hops of backends across veth pairs: direct, by gateways, in step with routes, interfaces and neighbours.
#![allow(missing_docs, clippy::unwrap_used)]

#[path = "support/netns.rs"]
mod netns;

use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::mpsc::{self, Receiver},
    time::{Duration, Instant},
};

use netns::{Namespace, veth_pair};
use xfwd::{
    kernel::{
        link::Link,
        next_hops::{Answer, Change, NextHop, NextHops, Unresolved},
    },
    packet::MacAddress,
};
use xfwd_netns::{Requirement, lab_or_skip};

const PATIENCE: Duration = Duration::from_secs(20);
/// In which a change of a route has to arrive.
const PROMPT: Duration = Duration::from_secs(1);
/// Of `va`, `vb` and `wb`.
const VA: MacAddress = MacAddress([2, 0, 0, 0, 0, 1]);
const VB: MacAddress = MacAddress([2, 0, 0, 0, 0, 0xb]);
const WB: MacAddress = MacAddress([2, 0, 0, 0, 0, 0xc]);

/// A balancer's port `va` with 10.9.0.1, and `vb` on the other side, who is the gateways 10.9.0.254 and fd00:9::fe and
/// the backends 10.9.0.2 and fd00:9::2. The kernel gives up within half a second instead of three.
struct Net {
    here: Namespace,
    there: Namespace,
    port: u32,
}

impl Net {
    fn new() -> Self {
        let (here, there) = veth_pair("");
        here.ip("link set va address 02:00:00:00:00:01");
        there.ip("link set vb address 02:00:00:00:00:0b");
        here.ip("addr add 10.9.0.1/24 dev va");
        here.ip("addr add fd00:9::1/64 dev va nodad");
        for address in ["10.9.0.2/24", "10.9.0.254/24"] {
            there.ip(&format!("addr add {address} dev vb"));
        }
        for address in ["fd00:9::2/64", "fd00:9::fe/64", "fe80::fe/64"] {
            there.ip(&format!("addr add {address} dev vb nodad"));
        }
        give_up_soon(&here, "va");
        let port = index(&here, "va");
        Self { here, there, port }
    }

    /// A second pair `wa` (10.10.0.1) and `wb` (10.10.0.2 and the gateway 10.10.0.254) between the same two, and the index
    /// of `wa`.
    fn second_pair(&self) -> u32 {
        self.here.ip(&format!("link add wa type veth peer name wb netns {}", self.there.name()));
        self.here.ip("link set wa up");
        self.there.ip("link set wb up");
        self.there.ip("link set wb address 02:00:00:00:00:0c");
        self.here.ip("addr add 10.10.0.1/24 dev wa");
        self.there.ip("addr add 10.10.0.2/24 dev wb");
        self.there.ip("addr add 10.10.0.254/24 dev wb");
        give_up_soon(&self.here, "wa");
        index(&self.here, "wa")
    }

    fn follow(&self, backends: &[&str]) -> Followed {
        self.follow_by(&[self.port], backends.iter().map(|backend| ip(backend)).collect())
    }

    fn follow_by(&self, ports: &[u32], wanted: Vec<IpAddr>) -> Followed {
        let (sender, calls) = mpsc::channel();
        let tell = move |changes: &[Change]| sender.send(changes.to_vec()).unwrap();
        let next_hops = self.here.enter(|| NextHops::start(ports.to_vec(), wanted, tell).unwrap());
        Followed { next_hops, calls, answers: BTreeMap::new(), heard: 0 }
    }
}

/// Says that a test is skipped since this kernel does not know a command, and in which words.
fn skip(test: &str, what: &str, error: &xfwd_netns::Error) {
    let said = error.to_string().lines().next().unwrap_or_default().to_owned();
    xfwd_netns::skip(test, &Requirement::Kernel(format!("{what}: {said}")));
}

fn give_up_soon(namespace: &Namespace, interface: &str) {
    for family in ["ipv4", "ipv6"] {
        for (setting, value) in
            [("retrans_time_ms", "100"), ("delay_first_probe_time", "1"), ("base_reachable_time_ms", "1000")]
        {
            namespace.sysctl(&format!("net.{family}.neigh.{interface}.{setting}"), value).unwrap();
        }
    }
}

fn index(namespace: &Namespace, interface: &str) -> u32 {
    namespace.enter(|| Link::find(interface)).unwrap().index
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// Next hops, and what was told of them.
struct Followed {
    next_hops: NextHops,
    calls: Receiver<Vec<Change>>,
    answers: BTreeMap<IpAddr, Answer>,
    /// Calls taken in by [`Self::until`].
    heard: u32,
}

impl Followed {
    /// Waits until what was told of a backend is this, and returns it.
    fn until(&mut self, time: Duration, backend: &str, is: impl Fn(&Answer) -> bool) -> Answer {
        let (backend, deadline) = (ip(backend), Instant::now() + time);
        loop {
            if let Some(answer) = self.answers.get(&backend).filter(|answer| is(answer)) {
                return answer.clone();
            }
            match self.calls.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(changes) => {
                    self.heard += 1;
                    self.answers.extend(changes.into_iter().map(|one| (one.backend, one.next_hop)))
                }
                Err(_) => panic!("{backend} is still at {:?}", self.answers.get(&backend)),
            }
        }
    }

    fn resolved(&mut self, backend: &str, by: &str) -> NextHop {
        self.until(PROMPT, backend, |answer| answer.as_ref().is_ok_and(|hop| hop.address == ip(by))).unwrap()
    }

    fn unresolved(&mut self, backend: &str) -> Unresolved {
        self.until(PATIENCE, backend, Answer::is_err).unwrap_err()
    }

    /// Those told of a backend since.
    fn told(&self, backend: &str) -> Vec<Answer> {
        let changes = self.calls.try_iter().flatten();
        changes.filter(|change| change.backend == ip(backend)).map(|change| change.next_hop).collect()
    }
}

#[test]
fn backends_on_the_link_are_reached_by_the_port_in_both_families() {
    lab_or_skip!();
    let net = Net::new();
    let followed = net.follow(&["10.9.0.2", "fd00:9::2"]);
    assert_eq!(followed.next_hops.wait_resolved(PATIENCE), []);
    let hop = |backend: &str, source: &str| NextHop {
        interface: net.port,
        vlan: None,
        source: VA,
        destination: VB,
        mtu: 1_500,
        address: ip(backend),
        preferred_source: Some(ip(source)),
    };
    let (v4, v6) = (hop("10.9.0.2", "10.9.0.1"), hop("fd00:9::2", "fd00:9::1"));
    let expected = BTreeMap::from([(ip("10.9.0.2"), Ok(v4)), (ip("fd00:9::2"), Ok(v6))]);
    assert_eq!(followed.next_hops.current(), expected);
    // What is shown has been told before.
    assert_eq!(followed.told("10.9.0.2"), [Ok(v4)]);
}

#[test]
fn backends_behind_a_gateway_have_its_mac_address() {
    lab_or_skip!();
    let net = Net::new();
    net.here.ip("route add 10.20.0.0/16 via 10.9.0.254");
    net.here.ip("route add fd00:20::/64 via fd00:9::fe");
    let mut followed = net.follow(&["10.20.1.1", "fd00:20::1"]);
    for (backend, gateway, source) in
        [("10.20.1.1", "10.9.0.254", "10.9.0.1"), ("fd00:20::1", "fd00:9::fe", "fd00:9::1")]
    {
        let hop = followed.resolved(backend, gateway);
        assert_eq!((hop.interface, hop.destination), (net.port, VB), "{backend}");
        assert_eq!(hop.preferred_source, Some(ip(source)), "{backend}");
    }
}

#[test]
fn an_ipv4_backend_may_be_behind_an_ipv6_gateway() {
    lab_or_skip!();
    let net = Net::new();
    net.here.ip("route add 10.30.0.0/16 via inet6 fe80::fe dev va");
    let mut followed = net.follow(&["10.30.1.1"]);
    assert_eq!(followed.resolved("10.30.1.1", "fe80::fe").destination, VB);
}

#[test]
fn another_gateway_is_told_within_a_second_and_without_a_gap() {
    lab_or_skip!();
    let net = Net::new();
    net.there.ip("addr add 10.9.0.253/24 dev vb");
    net.here.ip("route add 10.20.0.0/16 via 10.9.0.254");
    net.here.ip("route add fd00:20::/64 via fd00:9::fe");
    let mut followed = net.follow(&["10.20.1.1", "fd00:20::1"]);
    followed.resolved("10.20.1.1", "10.9.0.254");
    followed.resolved("fd00:20::1", "fd00:9::fe");
    net.here.ip("route replace 10.20.0.0/16 via 10.9.0.253");
    net.here.ip("route replace fd00:20::/64 via fd00:9::2");
    // `resolved` would also pass by an answer in between that there is no next hop.
    for (backend, gateway) in [("10.20.1.1", "10.9.0.253"), ("fd00:20::1", "fd00:9::2")] {
        let changed = followed
            .until(PROMPT, backend, |answer| answer.as_ref().map_or(true, |hop| hop.address == ip(gateway)));
        assert!(changed.is_ok(), "{changed:?}");
    }
}

#[test]
fn a_gateway_that_does_not_answer_is_told_after_a_while() {
    lab_or_skip!();
    let net = Net::new();
    net.here.ip("route add 10.20.0.0/16 via 10.9.0.254");
    let mut followed = net.follow(&["10.20.1.1"]);
    followed.resolved("10.20.1.1", "10.9.0.254");
    net.here.ip("route replace 10.20.0.0/16 via 10.9.0.77");
    assert_eq!(followed.unresolved("10.20.1.1").to_string(), "10.9.0.77 does not answer ARP on va");
    net.there.ip("addr add 10.9.0.77/24 dev vb");
    followed.until(PATIENCE, "10.20.1.1", Answer::is_ok).unwrap();
}

#[test]
fn a_more_specific_route_and_a_rule_are_followed_where_they_apply() {
    lab_or_skip!();
    let net = Net::new();
    net.here.ip("route add default via 10.9.0.254");
    let mut followed = net.follow(&["10.20.1.1", "10.21.1.1"]);
    followed.resolved("10.20.1.1", "10.9.0.254");
    followed.resolved("10.21.1.1", "10.9.0.254");
    net.here.ip("route add 10.20.0.0/16 via 10.9.0.2");
    followed.resolved("10.20.1.1", "10.9.0.2");
    net.here.ip("route del 10.20.0.0/16");
    followed.resolved("10.20.1.1", "10.9.0.254");
    net.here.ip("route add default via 10.9.0.2 table 77");
    net.here.ip("rule add to 10.20.0.0/16 table 77");
    followed.resolved("10.20.1.1", "10.9.0.2");
    net.here.ip("rule del to 10.20.0.0/16 table 77");
    followed.resolved("10.20.1.1", "10.9.0.254");
    assert_eq!(followed.told("10.21.1.1"), []);
}

#[test]
fn a_route_that_comes_and_goes_is_told() {
    lab_or_skip!();
    let net = Net::new();
    let mut followed = net.follow(&["10.20.1.1", "fd00:20::1"]);
    for backend in ["10.20.1.1", "fd00:20::1"] {
        assert!(matches!(followed.unresolved(backend), Unresolved::NoRoute { .. }), "{backend}");
    }
    // Nothing to wait for.
    let start = Instant::now();
    assert_eq!(followed.next_hops.wait_resolved(PATIENCE).len(), 2);
    assert!(start.elapsed() < PROMPT);
    net.here.ip("route add 10.20.0.0/16 via 10.9.0.254");
    followed.resolved("10.20.1.1", "10.9.0.254");
    net.here.ip("route replace unreachable 10.20.0.0/16");
    assert!(matches!(followed.unresolved("10.20.1.1"), Unresolved::NoRoute { .. }));
    net.here.ip("route del 10.20.0.0/16");
    net.here.ip("addr add 10.20.1.1/32 dev lo");
    followed.until(PROMPT, "10.20.1.1", |answer| *answer == Err(Unresolved::OwnAddress)).unwrap_err();
}

#[test]
fn a_route_to_another_port_is_told_with_that_port() {
    lab_or_skip!();
    let net = Net::new();
    let second = net.second_pair();
    net.here.ip("route add 10.20.0.0/16 via 10.9.0.254");
    let mut followed = net.follow_by(&[net.port, second], vec![ip("10.20.1.1")]);
    followed.resolved("10.20.1.1", "10.9.0.254");
    net.here.ip("route replace 10.20.0.0/16 via 10.10.0.254");
    let hop = followed.resolved("10.20.1.1", "10.10.0.254");
    assert_eq!((hop.interface, hop.destination), (second, WB));
    assert_eq!(hop.preferred_source, Some(ip("10.10.0.1")));
}

#[test]
fn each_backend_keeps_to_one_path_of_a_multipath_route_and_leaves_it_when_it_is_gone() {
    lab_or_skip!();
    let net = Net::new();
    let second = net.second_pair();
    net.here.ip("route add 10.20.0.0/16 nexthop via 10.9.0.254 dev va nexthop via 10.10.0.254 dev wa");
    let backends: Vec<IpAddr> = (1..=100).map(|n| ip(&format!("10.20.0.{n}"))).collect();
    let followed = net.follow_by(&[net.port, second], backends);
    assert_eq!(followed.next_hops.wait_resolved(PATIENCE), []);
    let ports = || {
        let answers = followed.next_hops.current().into_values();
        answers.map(|answer| answer.map_or(0, |hop| hop.interface)).collect::<Vec<_>>()
    };
    let before = ports();
    assert!(before.contains(&net.port) && before.contains(&second), "{before:?}");
    // Something else changes: all routes are looked up again, to the same effect.
    followed.calls.try_iter().for_each(drop);
    net.here.ip("addr add 10.11.0.1/24 dev lo");
    assert!(followed.calls.recv_timeout(Duration::from_millis(300)).is_err());
    assert_eq!(ports(), before);
    net.here.ip("link set wa down");
    let deadline = Instant::now() + PROMPT;
    while ports() != [net.port; 100] {
        assert!(Instant::now() < deadline, "{:?}", followed.next_hops.current());
        let _ = followed.calls.recv_timeout(PROMPT);
    }
}

#[test]
fn a_route_to_an_interface_that_is_no_port_is_told() {
    lab_or_skip!();
    let net = Net::new();
    net.second_pair();
    net.here.ip("route add 10.20.0.0/16 via 10.9.0.254");
    let mut followed = net.follow(&["10.20.1.1"]);
    followed.resolved("10.20.1.1", "10.9.0.254");
    net.here.ip("route replace 10.20.0.0/16 via 10.10.0.254");
    assert_eq!(
        followed.until(PROMPT, "10.20.1.1", Answer::is_err),
        Err(Unresolved::OtherInterface { name: "wa".to_owned(), via: Some(ip("10.10.0.254")) })
    );
}

#[test]
fn the_mtu_of_the_route_and_then_of_the_port_is_followed() {
    lab_or_skip!();
    let net = Net::new();
    net.here.ip("route add 10.20.0.0/16 via 10.9.0.254 mtu 1400");
    net.here.ip("route add fd00:20::/64 via fd00:9::fe mtu 1300");
    let mut followed = net.follow(&["10.20.1.1", "fd00:20::1", "10.9.0.2"]);
    assert_eq!(followed.resolved("10.20.1.1", "10.9.0.254").mtu, 1_400);
    assert_eq!(followed.resolved("fd00:20::1", "fd00:9::fe").mtu, 1_300);
    assert_eq!(followed.resolved("10.9.0.2", "10.9.0.2").mtu, 1_500);
    net.here.ip("route replace 10.20.0.0/16 via 10.9.0.254");
    let mtu = |bytes| move |answer: &Answer| answer.as_ref().is_ok_and(|hop| hop.mtu == bytes);
    followed.until(PROMPT, "10.20.1.1", mtu(1_500)).unwrap();
    net.here.ip("link set va mtu 1450");
    followed.until(PROMPT, "10.20.1.1", mtu(1_450)).unwrap();
    followed.until(PROMPT, "10.9.0.2", mtu(1_450)).unwrap();
    assert_eq!(followed.next_hops.current()[&ip("fd00:20::1")].as_ref().unwrap().mtu, 1_300);
}

#[test]
fn the_ports_own_mac_address_is_followed() {
    lab_or_skip!();
    let net = Net::new();
    let mut followed = net.follow(&["10.9.0.2"]);
    assert_eq!(followed.resolved("10.9.0.2", "10.9.0.2").source, VA);
    net.here.ip("link set va address 02:00:00:00:00:99");
    let new = MacAddress([2, 0, 0, 0, 0, 0x99]);
    followed.until(PROMPT, "10.9.0.2", |answer| answer.as_ref().is_ok_and(|hop| hop.source == new)).unwrap();
}

#[test]
fn a_port_that_is_set_down_and_up_loses_and_finds_its_backends() {
    lab_or_skip!();
    let net = Net::new();
    let mut followed = net.follow(&["10.9.0.2"]);
    followed.resolved("10.9.0.2", "10.9.0.2");
    net.here.ip("link set va down");
    assert!(matches!(followed.until(PROMPT, "10.9.0.2", Answer::is_err), Err(Unresolved::NoRoute { .. })));
    net.here.ip("link set va up");
    followed.resolved("10.9.0.2", "10.9.0.2");
}

#[test]
fn a_backend_that_disappears_comes_back_with_another_mac_address() {
    lab_or_skip!();
    let net = Net::new();
    let mut followed = net.follow(&["10.9.0.2"]);
    assert_eq!(followed.resolved("10.9.0.2", "10.9.0.2").destination, VB);
    net.there.ip("link set vb down");
    net.there.ip("link set vb address 02:00:00:00:00:0d");
    assert!(matches!(followed.unresolved("10.9.0.2"), Unresolved::NoNeighbour { carrier: false, .. }));
    net.there.ip("link set vb up");
    let new = MacAddress([2, 0, 0, 0, 0, 0xd]);
    followed
        .until(PATIENCE, "10.9.0.2", |answer| answer.as_ref().is_ok_and(|hop| hop.destination == new))
        .unwrap();
}

#[test]
fn thousands_of_backends_behind_a_gateway_are_a_few_calls() {
    const BACKENDS: usize = 10_000;
    lab_or_skip!();
    let net = Net::new();
    net.there.ip("addr add 10.9.0.253/24 dev vb");
    net.here.ip("route add 10.20.0.0/16 via 10.9.0.254");
    let backends: Vec<IpAddr> =
        (0..BACKENDS).map(|n| ip(&format!("10.20.{}.{}", n / 250, n % 250 + 1))).collect();
    let followed = net.follow_by(&[net.port], backends.clone());
    assert_eq!(followed.next_hops.wait_resolved(PATIENCE), []);
    let calls: Vec<_> = followed.calls.try_iter().collect();
    assert_eq!(calls.iter().map(Vec::len).collect::<Vec<_>>(), [BACKENDS]);

    net.here.ip("route replace 10.20.0.0/16 via 10.9.0.253");
    let (mut told, mut calls) = (0, 0);
    while told < backends.len() {
        let changes = followed.calls.recv_timeout(PATIENCE).unwrap();
        assert!(changes.iter().all(|one| one.next_hop.as_ref().unwrap().address == ip("10.9.0.253")));
        (told, calls) = (told + changes.len(), calls + 1);
    }
    assert!(told == BACKENDS && calls <= 2, "{told} changes in {calls} calls");
}

#[test]
fn a_storm_of_route_changes_is_a_few_calls_and_ends_with_the_last_one() {
    lab_or_skip!();
    let net = Net::new();
    net.here.ip("route add 10.20.0.0/16 via 10.9.0.254");
    let mut followed = net.follow(&["10.20.1.1", "10.9.0.2"]);
    followed.resolved("10.20.1.1", "10.9.0.254");
    followed.resolved("10.9.0.2", "10.9.0.2");
    let before = followed.heard;
    let gateways = ["10.9.0.254", "10.9.0.2"].iter().cycle().take(10_000);
    let start = Instant::now();
    net.here.ip_batch(gateways.map(|gateway| format!("route replace 10.20.0.0/16 via {gateway}")));
    followed.resolved("10.20.1.1", "10.9.0.2");
    // One more, so that nothing of the storm is still on its way.
    net.here.ip("route replace 10.20.0.0/16 via 10.9.0.2 mtu 1234");
    let last = |answer: &Answer| answer.as_ref().is_ok_and(|hop| hop.mtu == 1_234);
    followed.until(PROMPT, "10.20.1.1", last).unwrap();
    let (calls, took) = (followed.heard - before, start.elapsed());
    assert!(u128::from(calls) <= took.as_millis() / 50 + 1, "{calls} calls in {took:?}");
}

#[test]
fn hundreds_of_backends_on_the_link_are_a_few_calls() {
    lab_or_skip!();
    let net = Net::new();
    // The kernel's table holds 1,024 neighbours unless it is told otherwise, and is shared by all namespaces.
    let backends: Vec<IpAddr> =
        (0..500).map(|n| ip(&format!("10.9.{}.{}", n / 250 + 1, n % 250 + 1))).collect();
    net.here.ip("addr add 10.9.0.1/16 dev va");
    net.there.ip_batch(backends.iter().map(|backend| format!("addr add {backend}/16 dev vb")));
    let followed = net.follow_by(&[net.port], backends.clone());
    assert_eq!(followed.next_hops.wait_resolved(PATIENCE), []);
    let calls: Vec<usize> = followed.calls.try_iter().map(|changes| changes.len()).collect();
    assert_eq!(calls.iter().sum::<usize>(), backends.len());
    assert!(calls.len() < 50, "{calls:?}");
}

#[test]
fn the_set_is_changed_while_it_runs() {
    lab_or_skip!();
    let net = Net::new();
    net.here.ip("route add 10.20.0.0/16 via 10.9.0.254");
    let mut followed = net.follow(&["10.9.0.2", "10.20.1.1"]);
    followed.resolved("10.9.0.2", "10.9.0.2");
    followed.resolved("10.20.1.1", "10.9.0.254");
    followed.next_hops.set_wanted(vec![ip("10.20.1.1"), ip("10.20.1.2"), ip("fd00:9::2")]);
    assert_eq!(followed.next_hops.wait_resolved(PATIENCE), []);
    let known: Vec<IpAddr> = followed.next_hops.current().into_keys().collect();
    assert_eq!(known, [ip("10.20.1.1"), ip("10.20.1.2"), ip("fd00:9::2")]);
    let mut told: Vec<IpAddr> = followed.calls.try_iter().flatten().map(|change| change.backend).collect();
    told.sort();
    assert_eq!(told, [ip("10.20.1.2"), ip("fd00:9::2")]);

    // What has left is followed no more, what has stayed is.
    net.here.ip("route replace 10.20.0.0/16 via 10.9.0.2");
    followed.resolved("10.20.1.1", "10.9.0.2");
    net.here.ip("neigh replace 10.9.0.2 dev va lladdr 02:00:00:00:00:77 nud permanent");
    let new = MacAddress([2, 0, 0, 0, 0, 0x77]);
    followed
        .until(PROMPT, "10.20.1.2", |answer| answer.as_ref().is_ok_and(|hop| hop.destination == new))
        .unwrap();
    assert_eq!(followed.told("10.9.0.2"), []);
    followed.next_hops.set_wanted(vec![]);
    assert_eq!(followed.next_hops.wait_resolved(PATIENCE), []);
    assert!(followed.next_hops.current().is_empty());
}

#[test]
fn next_hop_objects_are_followed() {
    lab_or_skip!();
    let net = Net::new();
    if let Err(error) = net.here.try_ip("nexthop add id 5 via 10.9.0.254 dev va") {
        return skip("next_hop_objects_are_followed", "next hop objects (Linux 5.3)", &error);
    }
    // As routing daemons have it: a change of the object is not told as one of each route that uses it.
    net.here.sysctl("net.ipv4.nexthop_compat_mode", "0").unwrap();
    net.here.ip("route add 10.20.0.0/16 nhid 5");
    let mut followed = net.follow(&["10.20.1.1"]);
    followed.resolved("10.20.1.1", "10.9.0.254");
    net.here.ip("nexthop replace id 5 via 10.9.0.2 dev va");
    followed.resolved("10.20.1.1", "10.9.0.2");
}

#[test]
fn a_bridge_that_the_port_is_a_member_of_is_refused() {
    lab_or_skip!();
    let net = Net::new();
    net.here.ip("link add br0 type bridge");
    net.here.ip("link set va master br0");
    net.here.ip("link set br0 up");
    net.here.ip("addr add 10.40.0.1/24 dev br0");
    let mut followed = net.follow(&["10.40.0.2"]);
    let message = followed.unresolved("10.40.0.2").to_string();
    assert!(
        message.starts_with("the kernel reaches it by br0, a bridge of which the port va is a member"),
        "{message}"
    );
}

#[test]
fn another_kind_of_interface_on_the_port_is_not_the_port() {
    lab_or_skip!();
    let net = Net::new();
    if let Err(error) = net.here.try_ip("link add link va name mv type macvlan mode bridge") {
        let test = "another_kind_of_interface_on_the_port_is_not_the_port";
        return skip(test, "macvlan interfaces", &error);
    }
    net.here.ip("link set mv up");
    net.here.ip("addr add 10.40.0.1/24 dev mv");
    let mut followed = net.follow(&["10.40.0.2"]);
    let expected = Unresolved::OtherInterface { name: "mv".to_owned(), via: None };
    assert_eq!(followed.unresolved("10.40.0.2"), expected);
}

/// The kernels of small virtual machines often lack 8021q: there only the unit tests of `next_hops/links.rs` run, on
/// messages made by hand.
#[test]
fn a_backend_on_a_vlan_of_the_port_is_reached_by_the_port_with_the_tag() {
    lab_or_skip!();
    let net = Net::new();
    if let Err(error) = net.here.try_ip("link add link va name va.42 type vlan id 42") {
        let test = "a_backend_on_a_vlan_of_the_port_is_reached_by_the_port_with_the_tag";
        return skip(test, "VLAN interfaces (8021q)", &error);
    }
    net.there.ip("link add link vb name vb.42 type vlan id 42");
    net.here.ip("link set va.42 address 02:00:00:00:00:42");
    net.here.ip("link set va.42 up mtu 1400");
    net.there.ip("link set vb.42 up");
    net.here.ip("addr add 10.42.0.1/24 dev va.42");
    net.there.ip("addr add 10.42.0.2/24 dev vb.42");
    let mut followed = net.follow(&["10.42.0.2"]);
    let hop = followed.resolved("10.42.0.2", "10.42.0.2");
    assert_eq!((hop.interface, hop.vlan), (net.port, Some(42)));
    assert_eq!((hop.source, hop.destination, hop.mtu), (MacAddress([2, 0, 0, 0, 0, 0x42]), VB, 1_400));

    net.here.ip("link add link va name va.q type vlan protocol 802.1ad id 7");
    net.here.ip("link add link va.42 name va.n type vlan id 8");
    for (interface, address, what) in
        [("va.q", "10.43.0", "an 802.1ad VLAN"), ("va.n", "10.44.0", "a VLAN inside another")]
    {
        net.here.ip(&format!("link set {interface} up"));
        net.here.ip(&format!("addr add {address}.1/24 dev {interface}"));
        let backend = format!("{address}.2");
        let mut followed = net.follow(&[&backend]);
        let message = followed.unresolved(&backend).to_string();
        assert!(message.contains(&format!("{interface}, {what} on the port va")), "{message}");
    }
}
