//! `l2_bridge`: hosts on two segments are one network, and the bridge is in nobody's way.

use std::net::{IpAddr, SocketAddr};
use std::process::Command;
use std::time::Duration;

use xfwd::pipeline::PortIndex;
use xfwd::prelude::*;
use xfwd::testing::Harness;
use xfwd::worker::Interface;
use xfwd_netns::clients::{curl, requests};
use xfwd_netns::topology::{BACKEND_INTERFACE, INTERFACE, host_v4, host_v6};
use xfwd_netns::{Capture, Lab, Namespace, VethOptions, commands_or_skip, lab_or_skip};

use crate::example::{Example, PATIENCE};

#[allow(dead_code, reason = "its `main` is run by the lab")]
#[path = "../../examples/l2_bridge.rs"]
mod program;

const READY: &str = "bridging eth0 and eth1";
const PORT: u16 = 8080;

/// Two segments of two hosts each, 1 and 2 on the left, 3 and 4 on the right, and the machine between them.
///
/// A segment is a hub: the switch that makes it learns nothing, so everybody gets every frame.
struct Segments {
    hosts: Vec<Namespace>,
    between: Namespace,
    _lab: Lab,
}

impl Segments {
    fn new(queues: u32) -> Self {
        let lab = Lab::new("bridge").unwrap();
        let between = lab.namespace("between").unwrap();
        let cable = VethOptions::default();
        let mut hosts = Vec::new();
        for (segment, interface) in [("left", INTERFACE), ("right", BACKEND_INTERFACE)] {
            let hub = lab.namespace(segment).unwrap();
            let wide = VethOptions { queues, ..VethOptions::default() };
            lab.veth(&between, interface, &hub, "uplink", &wide).unwrap();
            let mut ports = vec!["uplink".to_owned()];
            for _ in 0..2 {
                let number = hosts.len() as u8 + 1;
                let (host, port) =
                    (lab.namespace(&format!("host{number}")).unwrap(), format!("host{number}"));
                lab.veth(&host, INTERFACE, &hub, &port, &cable).unwrap();
                host.address(INTERFACE, &format!("{}/15", host_v4(number))).unwrap();
                host.address(INTERFACE, &format!("{}/32", host_v6(number))).unwrap();
                hosts.push(host);
                ports.push(port);
            }
            let names: Vec<&str> = ports.iter().map(String::as_str).collect();
            lab.bridge(&hub, "br0", &names).unwrap();
            for port in names {
                hub.ip(["link", "set", "dev", port, "type", "bridge_slave", "learning", "off"]).unwrap();
            }
            // What the hosts said when their links came up.
            hub.ip(["link", "set", "dev", "br0", "type", "bridge", "fdb_flush"]).unwrap();
        }
        Self { hosts, between, _lab: lab }
    }

    fn host(&self, number: u8) -> &Namespace {
        &self.hosts[usize::from(number) - 1]
    }

    fn start(&self, queues: &str) -> Example {
        Example::start(&self.between, "l2_bridge", &[INTERFACE, BACKEND_INTERFACE, queues], READY)
    }

    /// Whether the interfaces between take frames to whatever address.
    fn are_promiscuous(&self) -> bool {
        let counts = [INTERFACE, BACKEND_INTERFACE].map(|interface| {
            let shown = self.between.ip(["-d", "link", "show", "dev", interface]).unwrap();
            assert!(shown.contains("promiscuity "), "{shown}");
            shown.contains("promiscuity 1 ")
        });
        assert_eq!(counts[0], counts[1]);
        counts[0]
    }
}

fn addresses(number: u8) -> [IpAddr; 2] {
    [host_v4(number).into(), host_v6(number).into()]
}

fn pings(from: &Namespace, to: IpAddr, count: &str, wait: &str) -> bool {
    let address = to.to_string();
    let mut ping = Command::new("ping");
    from.output(ping.args(["-c", count, "-i", "0.1", "-W", wait, &address])).unwrap().status.success()
}

/// The MAC address that a host has found for another.
fn neighbour(of: &Namespace, address: IpAddr) -> String {
    of.ip(["neigh", "show", "to", &address.to_string(), "dev", INTERFACE]).unwrap()
}

#[test]
fn l2_bridge_makes_one_network_of_two_segments() {
    lab_or_skip!();
    commands_or_skip!("ping", "curl");
    let segments = Segments::new(2);
    assert!(!pings(segments.host(1), host_v4(3).into(), "1", "1"), "nobody joins them yet");
    assert!(!segments.are_promiscuous());
    for host in &segments.hosts {
        host.ip(["neigh", "flush", "all"]).unwrap();
    }
    let bridge = segments.start("2");
    assert!(segments.are_promiscuous());

    let mut servers = Vec::new();
    for number in 1..=4 {
        let listen = addresses(number).map(|address| SocketAddr::new(address, PORT));
        servers.push(requests::serve_http(segments.host(number), &format!("host{number}"), &listen).unwrap());
    }
    for (from, to) in [(1, 3), (2, 4), (4, 1), (3, 2)] {
        let (host, mac) = (segments.host(from), segments.host(to).mac(INTERFACE).unwrap().to_string());
        for address in addresses(to) {
            assert!(pings(host, address, "3", "5"), "host {from} to {address}");
            // Found by ARP and by neighbour discovery, which went through the bridge, unchanged.
            let found = neighbour(host, address);
            assert!(found.contains(&mac), "host {from} found {found} for {address}, which is {mac}");
            let page = curl::get(host, SocketAddr::new(address, PORT), "/", PATIENCE).unwrap();
            assert_eq!((page.status, page.server()), (200, &*format!("host{to}")));
        }
    }
    let said = bridge.stop();
    let forwarded: u64 = said.split(' ').next().unwrap().parse().unwrap();
    // Pings alone are three, and back, for each of four pairs and two families.
    assert!(forwarded > 48, "{said}");
    assert!(!segments.are_promiscuous());
    assert!(!pings(segments.host(1), host_v4(3).into(), "1", "1"), "it is gone");
}

#[test]
fn l2_bridge_keeps_what_is_for_the_same_side_to_itself() {
    lab_or_skip!();
    commands_or_skip!("ping");
    let segments = Segments::new(1);
    let bridge = segments.start("1");
    let (left, other) = (segments.host(1), addresses(2));
    let third = segments.host(3);
    // Both have been heard now.
    assert!(other.iter().all(|address| pings(left, *address, "1", "5")));
    let recording = third.run(|| Capture::open(INTERFACE)).unwrap().record();
    assert!(other.iter().all(|address| pings(left, *address, "5", "5")));
    // What is for the other side still gets there, so the recording shows all there was.
    assert!(pings(left, host_v4(3).into(), "3", "5"));

    let frames = recording.stop().unwrap();
    let to = |host: &Namespace| {
        let mac = host.mac(INTERFACE).unwrap().0;
        frames.iter().filter(|frame| frame.bytes[..6] == mac).count()
    };
    assert!(to(third) >= 3, "{} frames", frames.len());
    assert_eq!((to(left), to(segments.host(2))), (0, 0), "what the left side says among itself");
    let said = bridge.stop();
    let filtered: u64 = said.rsplit(", ").next().unwrap().split(' ').next().unwrap().parse().unwrap();
    assert!(filtered >= 20, "{said}");
}

#[test]
fn l2_bridge_takes_the_interfaces_from_the_host_and_gives_them_back_even_when_killed() {
    lab_or_skip!();
    commands_or_skip!("ping");
    let segments = Segments::new(1);
    segments.between.address(INTERFACE, &format!("{}/15", host_v4(9))).unwrap();
    let asks = |wait| pings(segments.host(1), host_v4(9).into(), "1", wait);
    assert!(asks("5"));
    let bridge = segments.start("1");
    assert!(segments.are_promiscuous());
    assert!(!asks("1"), "a bridge has no address");
    // By SIGKILL.
    drop(bridge);
    assert!(!segments.are_promiscuous());
    assert!(asks("5"));
}

// ---------------------------------------------------------------------------------------------------------------------
// The stage alone.

const A: [u8; 6] = [2, 0, 0, 0, 0, 0xa];
const B: [u8; 6] = [2, 0, 0, 0, 0, 0xb];
const FILTERED: Verdict = Verdict::Drop(DropReason::Rule);

fn frame(source: [u8; 6], destination: [u8; 6]) -> Vec<u8> {
    [&destination[..], &source, &[0x08, 0, 0x45], &[0; 45]].concat()
}

fn bridge() -> Harness<program::Bridge> {
    let interface = |name, mtu| Interface::new(name, MacAddress([2; 6]), mtu);
    let context = WorkerContext::new(0, 1, [interface("eth0", 1_500), interface("eth1", 9_000)]);
    Harness::new(program::Bridge::new(&context))
}

/// Feeds one frame by a port.
fn by(
    port: PortIndex,
    harness: Harness<program::Bridge>,
    frame: &[u8],
) -> (Harness<program::Bridge>, Verdict) {
    let mut harness = harness.with_port(port);
    let processed = harness.one(frame);
    assert_eq!(processed.bytes, frame, "a bridge changes nothing");
    (harness, processed.verdict)
}

#[test]
fn a_host_that_moves_is_found_again_and_one_that_is_silent_is_forgotten() {
    let (harness, verdict) = by(0, bridge(), &frame(A, B));
    assert_eq!(verdict, Verdict::Forward(1), "nobody knows where B is");
    let (harness, verdict) = by(0, harness, &frame(B, A));
    assert_eq!(verdict, FILTERED, "A is on that side itself");
    let (harness, _) = by(1, harness, &frame(A, [0xff; 6]));
    let (mut harness, verdict) = by(0, harness, &frame(B, A));
    assert_eq!(verdict, Verdict::Forward(1), "A has moved");

    harness.advance(program::AGEING - Duration::from_secs(1));
    let (mut harness, verdict) = by(1, harness, &frame(B, A));
    assert_eq!(verdict, FILTERED, "B has moved to where A still is");
    harness.advance(Duration::from_secs(1));
    let (_, verdict) = by(1, harness, &frame(B, A));
    assert_eq!(verdict, Verdict::Forward(0), "A has been silent for too long");
}

#[test]
fn a_flood_of_addresses_pushes_out_the_oldest_and_loses_no_frame() {
    let (mut harness, _) = by(0, bridge(), &frame(A, B));
    for number in 0..100_000_u32 {
        harness.advance(Duration::from_millis(1));
        let [a, b, c, d] = number.to_be_bytes();
        let verdict = harness.one(&frame([6, 0, a, b, c, d], [0xff; 6])).verdict;
        assert_eq!(verdict, Verdict::Forward(1));
    }
    let (_, verdict) = by(0, harness, &frame(B, A));
    assert_eq!(verdict, Verdict::Forward(1), "A is no longer known");
}

#[test]
fn groups_between_neighbours_and_what_nobody_may_send_end_at_the_bridge() {
    const MALFORMED: Verdict = Verdict::Drop(DropReason::Malformed);
    let group = |last| [0x01, 0x80, 0xc2, 0, 0, last];
    for (what, source, destination, expected) in [
        ("spanning tree", A, group(0), Verdict::Forward(1)),
        ("pause frame", A, group(1), FILTERED),
        ("LLDP", A, group(0x0e), FILTERED),
        ("any other group", A, group(0x10), Verdict::Forward(1)),
        ("broadcast", A, [0xff; 6], Verdict::Forward(1)),
        ("from a group", [3, 0, 0, 0, 0, 1], B, MALFORMED),
        ("from nobody", [0; 6], B, MALFORMED),
    ] {
        assert_eq!(by(0, bridge(), &frame(source, destination)).1, expected, "{what}");
    }
    assert_eq!(bridge().one(&[2; 13]).verdict, MALFORMED, "no Ethernet header");
}

#[test]
fn a_frame_that_is_too_long_for_the_other_side_is_dropped_by_name() {
    for (port, bytes, expected) in [
        (1, 1_518, Verdict::Forward(0)),
        (1, 1_519, Verdict::Drop(DropReason::TooBig)),
        (0, 3_000, Verdict::Forward(1)),
    ] {
        let mut long = frame(A, B);
        long.resize(bytes, 0);
        assert_eq!(by(port, bridge(), &long).1, expected, "{bytes} bytes by port {port}");
    }
}
