//! What the XDP program does with a packet, and which counter tells.

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use xfwd_netns::lab_or_skip;

use xfwd::kernel::xdp::{
    KernelCounters, SteeredService, Steering, XdpAction, XdpError, XdpProgram, address_key,
};
use xfwd::port::xsk::Gate;
use xfwd_ebpf_types::{Cause, CauseClass, MAX_HOST_ADDRESSES, MAX_QUEUES, Outcome};

use crate::packets::*;

fn services() -> Steering {
    Steering {
        services: vec![
            SteeredService::single(VIP4.into(), TCP, PORT),
            SteeredService::single(VIP4.into(), UDP, PORT),
            SteeredService::single(VIP6.into(), TCP, PORT),
            SteeredService::single(VIP6.into(), UDP, PORT),
        ],
        ..Steering::default()
    }
}

/// Everything, with a service on an address of the host.
fn all() -> Steering {
    Steering {
        all: true,
        host_addresses: [HOST4.into(), HOST6.into(), VIP4.into()].into(),
        services: vec![SteeredService::single(VIP4.into(), TCP, PORT)],
        ..Steering::default()
    }
}

/// Nothing stays in the kernel.
fn everything() -> Steering {
    Steering { everything: true, ..all() }
}

/// An AF_XDP socket as the map takes it: it need not be bound.
pub fn socket() -> OwnedFd {
    // SAFETY: the descriptor was opened by this call and is known to nobody else.
    unsafe {
        let descriptor = libc::socket(libc::AF_XDP, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0);
        assert!(descriptor >= 0, "{}", std::io::Error::last_os_error());
        OwnedFd::from_raw_fd(descriptor)
    }
}

/// A program with a socket for queue 0, by which test runs come.
pub fn with_socket(steering: &Steering) -> (XdpProgram, OwnedFd) {
    let mut program = XdpProgram::load(steering).unwrap();
    let socket = socket();
    program.insert_socket(0, &socket).unwrap();
    (program, socket)
}

/// Runs a packet; exactly the counter that `count` reads must move, by one.
pub fn expect(
    program: &XdpProgram,
    what: &str,
    frame: &[u8],
    action: XdpAction,
    count: impl Fn(&KernelCounters) -> u64,
) {
    let before = program.counters().unwrap();
    assert_eq!(program.test_run(frame).unwrap(), action, "{what}");
    let after = program.counters().unwrap();
    let moved: Vec<_> = before
        .iter()
        .zip(after.iter())
        .filter(|(before, after)| before.2 != after.2)
        .map(|((.., before), (_, name, after))| (name, after - before))
        .collect();
    assert_eq!(count(&after) - count(&before), 1, "{what}: {moved:?}");
    assert_eq!(moved.len(), 1, "{what}: {moved:?}");
}

pub fn expect_cause(program: &XdpProgram, what: &str, frame: &[u8], cause: Cause) {
    let action = match cause {
        cause if cause.class() == CauseClass::Steered => XdpAction::Redirect,
        _ => XdpAction::Pass,
    };
    expect(program, what, frame, action, |counters| counters.get(cause));
}

#[test]
fn service_packets_are_steered_and_all_others_pass() {
    lab_or_skip!();
    let (program, _socket) = with_socket(&services());
    let tcp4 = ipv4(VIP4, TCP, &tcp(PORT, 0, b"x"));
    let cases: &[(&str, Vec<u8>, Cause)] = &[
        ("TCP/IPv4", frame4(&tcp4), Cause::SteeredService),
        ("UDP/IPv4", frame4(&ipv4(VIP4, UDP, &udp(PORT, b"x"))), Cause::SteeredService),
        ("TCP/IPv6", frame6(&ipv6(VIP6, TCP, &tcp(PORT, 0, b"x"))), Cause::SteeredService),
        ("UDP/IPv6", frame6(&ipv6(VIP6, UDP, &udp(PORT, b"x"))), Cause::SteeredService),
        ("one VLAN tag", ethernet(&[(VLAN, 5)], 0x0800, &tcp4), Cause::SteeredService),
        ("two VLAN tags", ethernet(&[(SERVICE_VLAN, 5), (VLAN, 6)], 0x0800, &tcp4), Cause::SteeredService),
        ("three VLAN tags", ethernet(&[(VLAN, 5), (VLAN, 6), (VLAN, 7)], 0x0800, &tcp4), Cause::PassedNotIp),
        (
            "IPv4 options",
            frame4(&ipv4_part(VIP4, TCP, &[1; 40], WHOLE, &tcp(PORT, 0, b""))),
            Cause::SteeredService,
        ),
        (
            "IPv6 extension headers",
            frame6(&ipv6(VIP6, HOP_BY_HOP, &extension(ROUTING, 1, &extension(TCP, 2, &tcp(PORT, 0, b""))))),
            Cause::SteeredService,
        ),
        (
            "atomic fragment",
            frame6(&ipv6(VIP6, FRAGMENT, &fragment_header(TCP, WHOLE, &tcp(PORT, 0, b"")))),
            Cause::SteeredService,
        ),
        ("other address", frame4(&ipv4(OTHER4, TCP, &tcp(PORT, 0, b""))), Cause::PassedNoService),
        ("other IPv6 address", frame6(&ipv6(OTHER6, TCP, &tcp(PORT, 0, b""))), Cause::PassedNoService),
        ("other port", frame4(&ipv4(VIP4, TCP, &tcp(PORT + 1, 0, b""))), Cause::PassedNoService),
        (
            "port in the other byte order",
            frame4(&ipv4(VIP4, TCP, &tcp(PORT.swap_bytes(), 0, b""))),
            Cause::PassedNoService,
        ),
        ("ping of the VIP", frame4(&ipv4(VIP4, ICMP, &icmp(8, 0, b""))), Cause::SteeredIcmp),
        ("unknown protocol to the VIP", frame4(&ipv4(VIP4, 132, &[0; 12])), Cause::PassedNoService),
        ("ARP", ethernet(&[], ARP, &arp()), Cause::PassedArp),
        ("ARP with a VLAN tag", ethernet(&[(VLAN, 5)], ARP, &arp()), Cause::PassedArp),
        ("LLDP", ethernet(&[], 0x88cc, &[0; 46]), Cause::PassedNotIp),
        (
            "first fragment",
            frame4(&ipv4_part(VIP4, UDP, &[], FIRST, &udp(PORT, b"x"))),
            Cause::SteeredFragment,
        ),
        ("later fragment", frame4(&ipv4_part(VIP4, UDP, &[], LAST, b"x")), Cause::SteeredFragment),
        ("fragment elsewhere", frame4(&ipv4_part(OTHER4, UDP, &[], LAST, b"x")), Cause::PassedFragment),
        (
            "IPv6 fragment",
            frame6(&ipv6(VIP6, FRAGMENT, &fragment_header(TCP, FIRST, &tcp(PORT, 0, b"")))),
            Cause::SteeredFragment,
        ),
        ("fragment of a ping", frame4(&ipv4_part(VIP4, ICMP, &[], LAST, b"x")), Cause::PassedNoService),
        (
            "neighbour solicitation",
            frame6(&ipv6(VIP6, ICMPV6, &icmp(135, 0, &[0; 16]))),
            Cause::PassedNeighbourDiscovery,
        ),
        ("ping of the IPv6 VIP", frame6(&ipv6(VIP6, ICMPV6, &icmp(128, 0, b""))), Cause::SteeredIcmp),
    ];
    for (what, frame, cause) in cases {
        expect_cause(&program, what, frame, *cause);
    }
}

#[test]
fn everything_is_steered_but_what_the_host_needs() {
    lab_or_skip!();
    let (program, _socket) = with_socket(&all());
    let cases: &[(&str, Vec<u8>, Cause)] = &[
        ("to another address", frame4(&ipv4(OTHER4, TCP, &tcp(22, 0, b""))), Cause::SteeredAll),
        ("to another IPv6 address", frame6(&ipv6(OTHER6, UDP, &udp(53, b""))), Cause::SteeredAll),
        ("ping of another address", frame4(&ipv4(OTHER4, ICMP, &icmp(8, 0, b""))), Cause::SteeredAll),
        ("unknown protocol", frame4(&ipv4(OTHER4, 132, &[0; 12])), Cause::SteeredAll),
        ("first fragment", frame4(&ipv4_part(OTHER4, UDP, &[], FIRST, &udp(PORT, b"x"))), Cause::SteeredAll),
        ("later fragment", frame4(&ipv4_part(OTHER4, UDP, &[], LAST, b"x")), Cause::SteeredAll),
        ("LLDP", ethernet(&[], 0x88cc, &[0; 46]), Cause::SteeredAll),
        ("three VLAN tags", ethernet(&[(VLAN, 5), (VLAN, 6), (VLAN, 7)], 0x0800, b""), Cause::SteeredAll),
        ("ARP", ethernet(&[], ARP, &arp()), Cause::PassedArp),
        ("SSH to the host", frame4(&ipv4(HOST4, TCP, &tcp(22, 0, b""))), Cause::PassedHost),
        ("SSH to the host by IPv6", frame6(&ipv6(HOST6, TCP, &tcp(22, 0, b""))), Cause::PassedHost),
        (
            "SSH to the host in a VLAN",
            ethernet(&[(VLAN, 5)], 0x0800, &ipv4(HOST4, TCP, &tcp(22, 0, b""))),
            Cause::PassedHost,
        ),
        ("ping of the host", frame4(&ipv4(HOST4, ICMP, &icmp(8, 0, b""))), Cause::PassedHost),
        ("later fragment to the host", frame4(&ipv4_part(HOST4, TCP, &[], LAST, b"x")), Cause::PassedHost),
        (
            "service on an address of the host",
            frame4(&ipv4(VIP4, TCP, &tcp(PORT, 0, b""))),
            Cause::SteeredService,
        ),
        ("other port of that address", frame4(&ipv4(VIP4, TCP, &tcp(22, 0, b""))), Cause::PassedHost),
        (
            "fragment to that address",
            frame4(&ipv4_part(VIP4, TCP, &[], FIRST, &tcp(PORT, 0, b""))),
            Cause::SteeredFragment,
        ),
        ("fragment of another protocol", frame4(&ipv4_part(VIP4, UDP, &[], LAST, b"x")), Cause::PassedHost),
    ];
    for (what, frame, cause) in cases {
        expect_cause(&program, what, frame, *cause);
    }
    for kind in 130..=140 {
        let cause =
            if (133..=137).contains(&kind) { Cause::PassedNeighbourDiscovery } else { Cause::SteeredAll };
        let frame = frame6(&ipv6(OTHER6, ICMPV6, &icmp(kind, 0, &[0; 16])));
        expect_cause(&program, &format!("ICMPv6 type {kind}"), &frame, cause);
    }
    // ICMPv6 in IPv4 is nothing that anybody discovers neighbours with.
    expect_cause(
        &program,
        "135 in IPv4",
        &frame4(&ipv4(OTHER4, ICMPV6, &icmp(135, 0, b""))),
        Cause::SteeredAll,
    );
}

#[test]
fn nothing_stays_with_the_host_when_everything_is_asked_for() {
    lab_or_skip!();
    let (mut program, _socket) = with_socket(&everything());
    let tcp4 = frame4(&ipv4(VIP4, TCP, &tcp(PORT, 0, b"x")));
    let mut wrong_version = tcp4.clone();
    wrong_version[14] = 0x55;
    let cases: &[(&str, Vec<u8>)] = &[
        ("ARP", ethernet(&[], ARP, &arp())),
        ("ARP with a VLAN tag", ethernet(&[(VLAN, 5)], ARP, &arp())),
        ("neighbour solicitation", frame6(&ipv6(HOST6, ICMPV6, &icmp(135, 0, &[0; 16])))),
        ("router advertisement", frame6(&ipv6(OTHER6, ICMPV6, &icmp(134, 0, &[0; 16])))),
        ("SSH to the host", frame4(&ipv4(HOST4, TCP, &tcp(22, 0, b"")))),
        ("SSH to the host by IPv6", frame6(&ipv6(HOST6, TCP, &tcp(22, 0, b"")))),
        ("ping of the host", frame4(&ipv4(HOST4, ICMP, &icmp(8, 0, b"")))),
        ("later fragment to the host", frame4(&ipv4_part(HOST4, TCP, &[], LAST, b"x"))),
        ("LLDP", ethernet(&[], 0x88cc, &[0; 46])),
        ("spanning tree, with a length for an EtherType", ethernet(&[], 38, &[0x42; 46])),
        ("three VLAN tags", ethernet(&[(VLAN, 5), (VLAN, 6), (VLAN, 7)], 0x0800, b"")),
        ("nothing behind the MAC addresses", ethernet(&[], 0x0800, b"")),
        ("cut in the IP header", tcp4[..33].to_vec()),
        ("IP version 5", wrong_version),
        ("UDP header cut", frame6(&ipv6(VIP6, UDP, &udp(PORT, b"")[..7]))),
    ];
    for (what, frame) in cases {
        expect_cause(&program, what, frame, Cause::SteeredAll);
    }
    expect_cause(&program, "a service", &tcp4, Cause::SteeredService);
    // There and back.
    program.set_steering(&all()).unwrap();
    expect_cause(&program, "all", &cases[0].1, Cause::PassedArp);
    expect_cause(&program, "all", &cases[4].1, Cause::PassedHost);
    program.set_steering(&everything()).unwrap();
    expect_cause(&program, "everything", &cases[0].1, Cause::SteeredAll);
    // Without services nobody looks at a packet, and the same packets leave.
    program.set_steering(&Steering { services: Vec::new(), ..everything() }).unwrap();
    for (what, frame) in cases {
        expect_cause(&program, what, frame, Cause::SteeredAll);
    }
    expect_cause(&program, "no service any more", &tcp4, Cause::SteeredAll);
    // What has no socket goes to the host all the same.
    program.remove_socket(0).unwrap();
    for (what, frame) in cases {
        expect_cause(&program, what, frame, Cause::PassedNoSocket);
    }
}

#[test]
fn malformed_packets_pass_and_are_counted_by_what_is_wrong() {
    lab_or_skip!();
    for steering in [services(), all()] {
        let (program, _socket) = with_socket(&steering);
        let frame = frame4(&ipv4(VIP4, TCP, &tcp(PORT, 0, b"x")));
        let mut wrong_version = frame.clone();
        wrong_version[14] = 0x55;
        for (what, frame, outcome) in [
            ("cut in the IP header", &frame[..33], Outcome::TruncatedIpv4),
            ("cut in the segment", &frame[..50], Outcome::Ipv4TotalLength),
            ("IP version 5", &wrong_version, Outcome::Ipv4Version),
            ("TCP header cut", &frame4(&ipv4(VIP4, TCP, &tcp(PORT, 0, b"")[..19])), Outcome::TruncatedTcp),
            ("UDP header cut", &frame6(&ipv6(VIP6, UDP, &udp(PORT, b"")[..7])), Outcome::TruncatedUdp),
        ] {
            expect(&program, what, frame, XdpAction::Pass, |counters| counters.malformed(outcome));
        }
    }
}

#[test]
fn queue_without_socket_passes() {
    lab_or_skip!();
    let frame = frame4(&ipv4(VIP4, TCP, &tcp(PORT, 0, b"x")));
    let mut program = XdpProgram::load(&services()).unwrap();
    expect_cause(&program, "no socket", &frame, Cause::PassedNoSocket);
    let first = socket();
    program.insert_socket(1, &first).unwrap();
    expect_cause(&program, "socket of another queue", &frame, Cause::PassedNoSocket);
    program.insert_socket(0, &first).unwrap();
    expect_cause(&program, "socket", &frame, Cause::SteeredService);
    program.insert_socket(0, &socket()).unwrap();
    expect_cause(&program, "another socket, closed since", &frame, Cause::PassedNoSocket);
    program.insert_socket(0, &first).unwrap();
    program.remove_socket(0).unwrap();
    program.remove_socket(0).unwrap();
    expect_cause(&program, "socket removed", &frame, Cause::PassedNoSocket);
    drop(first);
}

#[test]
fn a_closed_gate_drops_what_would_be_steered_and_nothing_else() {
    lab_or_skip!();
    let (program, _socket) = with_socket(&all());
    let mut gate = Gate::new(program.gates(), 0).unwrap();
    let mut other = Gate::new(program.gates(), 1).unwrap();
    let steered = frame4(&ipv4(VIP4, TCP, &tcp(PORT, 0, b"")));
    let to_host = frame4(&ipv4(HOST4, TCP, &tcp(PORT, 0, b"")));
    other.set(true);
    expect_cause(&program, "the gate of another queue", &steered, Cause::SteeredService);
    gate.set(true);
    for _ in 0..3 {
        let lost = |counters: &KernelCounters| counters.get(Cause::LostQueueFull);
        expect(&program, "closed", &steered, XdpAction::Drop, lost);
    }
    expect_cause(&program, "closed, to the host", &to_host, Cause::PassedHost);
    expect_cause(&program, "closed, ARP", &ethernet(&[], ARP, &arp()), Cause::PassedArp);
    assert_eq!((program.shed(0).unwrap(), program.shed(1).unwrap()), (3, 0));
    assert!(matches!(program.shed(MAX_QUEUES), Err(XdpError::QueueTooHigh { queue: MAX_QUEUES })));
    drop(gate);
    expect_cause(&program, "opened", &steered, Cause::SteeredService);
}

#[test]
fn sockets_that_cannot_be_inserted() {
    lab_or_skip!();
    let mut program = XdpProgram::load(&services()).unwrap();
    let error = program.insert_socket(MAX_QUEUES, &socket()).unwrap_err();
    assert!(matches!(error, XdpError::QueueTooHigh { queue: MAX_QUEUES }), "{error}");
    let no_socket = std::fs::File::open("/dev/null").unwrap();
    let error = program.insert_socket(3, &no_socket.as_raw_fd()).unwrap_err();
    assert!(matches!(error, XdpError::Map { map: "XSKS", .. }), "{error}");
    assert!(error.to_string().contains("queue 3"), "{error}");
}

#[test]
fn steering_changes_while_the_program_runs() {
    lab_or_skip!();
    let (mut program, _socket) = with_socket(&services());
    let to_vip = frame4(&ipv4(VIP4, TCP, &tcp(PORT, 0, b"")));
    let to_other = frame4(&ipv4(OTHER4, TCP, &tcp(PORT, 0, b"")));
    let to_host = frame4(&ipv4(HOST4, TCP, &tcp(PORT, 0, b"")));
    expect_cause(&program, "before", &to_other, Cause::PassedNoService);
    program
        .set_steering(&Steering {
            services: vec![SteeredService::single(OTHER4.into(), TCP, PORT)],
            ..Steering::default()
        })
        .unwrap();
    expect_cause(&program, "new service", &to_other, Cause::SteeredService);
    expect_cause(&program, "old service", &to_vip, Cause::PassedNoService);
    program.set_steering(&all()).unwrap();
    expect_cause(&program, "service of the host", &to_vip, Cause::SteeredService);
    expect_cause(&program, "all", &to_other, Cause::SteeredAll);
    expect_cause(&program, "host", &to_host, Cause::PassedHost);
    program.set_steering(&Steering { all: true, ..Steering::default() }).unwrap();
    expect_cause(&program, "no host address left", &to_host, Cause::SteeredAll);
    program.set_steering(&Steering::default()).unwrap();
    expect_cause(&program, "nothing", &to_vip, Cause::PassedNoService);
}

#[test]
fn too_many_addresses_are_refused_by_name() {
    lab_or_skip!();
    let address = |number: u32| std::net::IpAddr::from((0x0a00_0000 + number).to_be_bytes());
    let steering = |numbers: std::ops::Range<u32>| Steering {
        all: true,
        host_addresses: numbers.map(address).collect(),
        ..Steering::default()
    };
    let mut program = XdpProgram::load(&steering(0..MAX_HOST_ADDRESSES)).unwrap();
    let error = program.set_steering(&steering(0..MAX_HOST_ADDRESSES + 1)).unwrap_err();
    assert!(matches!(error, XdpError::MapFull { map: "HOST_ADDRESSES", .. }), "{error}");
    // A full map can be exchanged for another one all the same.
    program.set_steering(&steering(1_000..1_000 + MAX_HOST_ADDRESSES)).unwrap();
    assert_eq!(address_key(address(0))[12..], [10, 0, 0, 0]);
}
