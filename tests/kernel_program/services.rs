//! Services of prefixes and port ranges, fragments, ICMP, and the room in front of packets.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

use xfwd::kernel::xdp::{
    SteeredKind, SteeredService, Steering, XdpAction, XdpError, XdpMode, XdpProgram, room_mark,
};
use xfwd::stages::filter::Prefix;
use xfwd_ebpf_types::{Cause, MAX_ROOM, MAX_SERVICES, MIN_ROOM};
use xfwd_netns::lab_or_skip;

use crate::packets::*;
use crate::steering::{expect_cause, with_socket};

fn service(network: &str, protocol: u8, ports: RangeInclusive<u16>) -> SteeredService {
    let network = network.parse().unwrap();
    SteeredService { network, protocol, ports, room: 0, kind: SteeredKind::Vip }
}

fn steering(services: impl IntoIterator<Item = SteeredService>) -> Steering {
    Steering { services: services.into_iter().collect(), ..Steering::default() }
}

fn whole(to: &str, protocol: u8, port: u16) -> Vec<u8> {
    match to.parse().unwrap() {
        IpAddr::V4(to) => frame4(&ipv4(to, protocol, &segment(protocol, port))),
        IpAddr::V6(to) => frame6(&ipv6(to, protocol, &segment(protocol, port))),
    }
}

#[test]
fn prefixes_and_port_ranges_are_steered_and_nothing_beside_them() {
    lab_or_skip!();
    let (program, _socket) = with_socket(&steering([
        service("192.0.2.10", TCP, 8_000..=8_100),
        service("203.0.113.0/24", UDP, 0..=u16::MAX),
        service("203.0.113.128/25", TCP, 443..=443),
        service("2001:db8:10::/64", TCP, 80..=90),
        service("::/0", UDP, 53..=53),
    ]));
    use Cause::{PassedNoService as No, SteeredService as Yes};
    for (to, protocol, port, cause) in [
        ("192.0.2.10", TCP, 8_000, Yes),
        ("192.0.2.10", TCP, 8_063, Yes),
        ("192.0.2.10", TCP, 8_100, Yes),
        ("192.0.2.10", TCP, 7_999, No),
        ("192.0.2.10", TCP, 8_101, No),
        ("192.0.2.10", UDP, 8_050, No),
        ("192.0.2.11", TCP, 8_050, No),
        ("203.0.113.0", UDP, 0, Yes),
        ("203.0.113.255", UDP, 65_535, Yes),
        ("203.0.112.255", UDP, 53, No),
        ("203.0.113.127", TCP, 443, No),
        ("203.0.113.128", TCP, 443, Yes),
        // The longer prefix does not serve it, the shorter does.
        ("203.0.113.128", UDP, 443, Yes),
        ("203.0.113.128", TCP, 444, No),
        ("2001:db8:10::", TCP, 80, Yes),
        ("2001:db8:10:0:ffff:ffff:ffff:ffff", TCP, 90, Yes),
        ("2001:db8:10::1", TCP, 91, No),
        ("2001:db8:10:1::1", TCP, 80, No),
        ("2001:db8:10::1", UDP, 53, Yes),
        ("2001:db8:99::1", UDP, 53, Yes),
        // An IPv6 prefix holds no IPv4 address.
        ("198.18.0.1", UDP, 53, No),
    ] {
        let what = format!("{to} protocol {protocol} port {port}");
        expect_cause(&program, &what, &whole(to, protocol, port), cause);
    }
}

#[test]
fn fragments_and_pings_of_a_prefix_are_steered() {
    lab_or_skip!();
    let (program, _socket) = with_socket(&steering([
        service("203.0.113.0/24", UDP, 53..=53),
        SteeredService { kind: SteeredKind::Host, ..service("203.0.113.9", TCP, 32_768..=65_535) },
        SteeredService { kind: SteeredKind::Host, ..service("198.18.0.2", UDP, 32_768..=65_535) },
        service("2001:db8:10::/64", TCP, 1..=2),
    ]));
    let to = |last| Ipv4Addr::new(203, 0, 113, last);
    let nat = Ipv4Addr::new(198, 18, 0, 2);
    let vip6 = Ipv6Addr::new(0x2001, 0xdb8, 0x10, 0, 0, 0, 0, 1);
    let part4 = |to, protocol, part| frame4(&ipv4_part(to, protocol, &[], part, &[7; 40]));
    let part6 = |to, protocol, part| {
        frame6(&ipv6(to, FRAGMENT, &fragment_header(protocol, part, &segment(protocol, 99))))
    };
    let ping4 = |to| frame4(&ipv4(to, ICMP, &icmp(8, 0, b"ping")));
    let cases: &[(&str, Vec<u8>, Cause)] = &[
        ("first", frame4(&ipv4_part(to(1), UDP, &[], FIRST, &udp(99, b"x"))), Cause::SteeredFragment),
        ("middle", part4(to(1), UDP, MIDDLE), Cause::SteeredFragment),
        ("last", part4(to(1), UDP, LAST), Cause::SteeredFragment),
        ("of TCP", part4(to(1), TCP, LAST), Cause::PassedFragment),
        ("of TCP to the NAT address within", part4(to(9), TCP, LAST), Cause::SteeredFragment),
        ("of UDP to the NAT address within", part4(to(9), UDP, LAST), Cause::SteeredFragment),
        ("to the other NAT address", part4(nat, UDP, LAST), Cause::SteeredFragment),
        ("of IPv6, first", part6(vip6, TCP, FIRST), Cause::SteeredFragment),
        ("of IPv6, later", part6(vip6, TCP, LAST), Cause::SteeredFragment),
        ("of IPv6, UDP", part6(vip6, UDP, LAST), Cause::PassedFragment),
        ("ping", ping4(to(200)), Cause::SteeredIcmp),
        ("ping of the NAT address within", ping4(to(9)), Cause::SteeredIcmp),
        ("ping of the other NAT address", ping4(nat), Cause::PassedNoService),
        ("echo reply", frame4(&ipv4(to(1), ICMP, &icmp(0, 0, b""))), Cause::PassedNoService),
        (
            "fragment of a ping",
            frame4(&ipv4_part(to(1), ICMP, &[], FIRST, &icmp(8, 0, b""))),
            Cause::PassedNoService,
        ),
        ("ping of the IPv6 prefix", frame6(&ipv6(vip6, ICMPV6, &icmp(128, 0, b""))), Cause::SteeredIcmp),
        ("echo reply", frame6(&ipv6(vip6, ICMPV6, &icmp(129, 0, b""))), Cause::PassedNoService),
        ("ping of another", frame6(&ipv6(OTHER6, ICMPV6, &icmp(128, 0, b""))), Cause::PassedNoService),
    ];
    for (what, frame, cause) in cases {
        expect_cause(&program, what, frame, *cause);
    }
    for kind in 133..=137 {
        let frame = frame6(&ipv6(vip6, ICMPV6, &icmp(kind, 0, &[0; 16])));
        expect_cause(&program, "neighbour discovery", &frame, Cause::PassedNeighbourDiscovery);
    }
}

#[test]
fn icmp_errors_about_packets_of_a_service_are_steered() {
    lab_or_skip!();
    let (program, _socket) = with_socket(&steering([
        service("192.0.2.10", TCP, 443..=443),
        SteeredService { kind: SteeredKind::Host, ..service("198.18.0.2", UDP, 32_768..=65_535) },
        service("2001:db8:10::/64", UDP, 53..=53),
    ]));
    let nat = Ipv4Addr::new(198, 18, 0, 2);
    let vip6 = Ipv6Addr::new(0x2001, 0xdb8, 0x10, 0, 0, 0, 0, 1);
    // The error is sent to the service's address, but what counts is the packet in it.
    let error4 = |kind, packet: &[u8], header| frame4(&ipv4(VIP4, ICMP, &icmp_error(kind, packet, header)));
    let error6 = |kind, packet: &[u8]| frame6(&ipv6(vip6, ICMPV6, &icmp_error(kind, packet, 40)));
    let (about, about6) = (answer4(VIP4, TCP, 443), answer6(vip6, UDP, 53));
    for kind in 0..=18 {
        let cause = match kind {
            3 | 8 | 11 | 12 => Cause::SteeredIcmp,
            _ => Cause::PassedNoService,
        };
        expect_cause(&program, &format!("type {kind}"), &error4(kind, &about, 20), cause);
    }
    for kind in (0..=8).chain(128..=129) {
        let cause = match kind {
            1..=4 | 128 => Cause::SteeredIcmp,
            _ => Cause::PassedNoService,
        };
        expect_cause(&program, &format!("IPv6 type {kind}"), &error6(kind, &about6), cause);
    }
    let with_options = {
        let mut packet = ipv4_part(OTHER4, TCP, &[1; 40], WHOLE, &segment(TCP, SOURCE_PORT));
        packet[12..16].copy_from_slice(&VIP4.octets());
        packet[60..62].copy_from_slice(&443u16.to_be_bytes());
        packet
    };
    let part = |part| {
        let mut packet = ipv4_part(OTHER4, TCP, &[], part, &443u16.to_be_bytes().repeat(10));
        packet[12..16].copy_from_slice(&VIP4.octets());
        packet
    };
    let mut no_version = about.clone();
    no_version[0] = 0x55;
    let mut short_header = about.clone();
    short_header[0] = 0x44;
    let mut with_extension = ipv6(OTHER6, HOP_BY_HOP, &extension(UDP, 1, &udp(53, b"")));
    with_extension[8..24].copy_from_slice(&vip6.octets());
    let elsewhere = frame4(&ipv4(OTHER4, ICMP, &icmp_error(3, &about, 20)));
    let in_vlan = ethernet(&[(VLAN, 5)], 0x0800, &ipv4(VIP4, ICMP, &icmp_error(3, &about, 20)));
    let later = frame4(&ipv4_part(VIP4, ICMP, &[], LAST, &icmp_error(3, &about, 20)));
    let first = frame4(&ipv4_part(VIP4, ICMP, &[], FIRST, &icmp_error(3, &about, 20)));
    let hop_by_hop = extension(ICMPV6, 1, &icmp_error(2, &about6, 40));
    let behind_extension = frame6(&ipv6(vip6, HOP_BY_HOP, &hop_by_hop));
    // The ports are behind the end of the IP packet, in the padding of the Ethernet frame.
    let mut padded = frame4(&ipv4(VIP4, ICMP, &icmp(3, 0, &about[..22])));
    padded.extend([0; 20]);
    for (what, frame, steered) in [
        ("to another address", elsewhere, true),
        ("in a VLAN", in_vlan, true),
        ("behind an extension header", behind_extension, true),
        ("about a packet with IP options", error4(3, &with_options, 60), true),
        ("about a first fragment", error4(3, &part(FIRST), 20), true),
        ("about a later fragment", error4(3, &part(MIDDLE), 20), false),
        ("about another port", error4(3, &answer4(VIP4, TCP, 444), 20), false),
        ("about another protocol", error4(3, &answer4(VIP4, UDP, 443), 20), false),
        ("about another address", error4(3, &answer4(OTHER4, TCP, 443), 20), false),
        ("about a packet to the service", error4(3, &ipv4(VIP4, TCP, &tcp(443, 0, b"")), 20), false),
        ("about NAT", error4(3, &answer4(nat, UDP, 40_000), 20), true),
        ("about a port that NAT has not", error4(3, &answer4(nat, UDP, 1_000), 20), false),
        (
            "about ICMP",
            error4(
                3,
                &{
                    let mut p = about.clone();
                    p[9] = ICMP;
                    p
                },
                20,
            ),
            false,
        ),
        ("about IP version 5", error4(3, &no_version, 20), false),
        ("about a header of 16 bytes", error4(3, &short_header, 20), false),
        ("cut", frame4(&ipv4(VIP4, ICMP, &icmp(3, 0, &about[..22]))), false),
        ("padded", padded, false),
        ("cut in the IP header", frame4(&ipv4(VIP4, ICMP, &icmp(3, 0, &about[..19]))), false),
        ("a first fragment", first, false),
        ("a later fragment", later, false),
        ("IPv6, about an extension header", error6(2, &with_extension), false),
        ("IPv6, about another port", error6(2, &answer6(vip6, UDP, 54)), false),
        ("IPv6, cut", frame6(&ipv6(vip6, ICMPV6, &icmp(2, 0, &about6[..43]))), false),
    ] {
        let cause = if steered { Cause::SteeredIcmp } else { Cause::PassedNoService };
        expect_cause(&program, what, &frame, cause);
    }
}

/// What the program leaves of a packet: the room in front of it, which must be marked, and the packet as it was.
fn room_of(program: &XdpProgram, frame: &[u8]) -> usize {
    let (action, bytes) = program.test_run_for_bytes(frame).unwrap();
    assert_eq!(action, XdpAction::Redirect);
    let room = bytes.len() - frame.len();
    assert_eq!(&bytes[room..], frame);
    let word = u64::from_le_bytes(bytes[..8].try_into().unwrap());
    assert_eq!(room_mark().room(word).unwrap_or(0), room);
    room
}

#[test]
fn packets_of_tunnelled_services_get_marked_room() {
    lab_or_skip!();
    let with_room = |room, service: SteeredService| SteeredService { room, ..service };
    let services = [
        with_room(20, service("192.0.2.10", TCP, 443..=443)),
        with_room(36, service("192.0.2.10", UDP, 443..=443)),
        with_room(56, service("192.0.2.10", UDP, 8_000..=8_100)),
        with_room(1, service("192.0.2.99", TCP, 1..=1)),
        with_room(255, service("192.0.2.99", TCP, 2..=2)),
        with_room(40, service("2001:db8::/64", TCP, 0..=u16::MAX)),
        service("198.18.0.1", TCP, 80..=80),
    ];
    let (mut program, socket) = with_socket(&steering(services.clone()));
    assert_eq!(room_of(&program, &whole("192.0.2.10", TCP, 443)), 20);
    assert_eq!(room_of(&program, &whole("192.0.2.10", UDP, 443)), 36);
    assert_eq!(room_of(&program, &whole("192.0.2.10", UDP, 8_099)), 56);
    assert_eq!(room_of(&program, &whole("192.0.2.99", TCP, 1)), usize::from(MIN_ROOM));
    assert_eq!(room_of(&program, &whole("192.0.2.99", TCP, 2)), usize::from(MAX_ROOM));
    assert_eq!(room_of(&program, &whole("2001:db8::5", TCP, 5)), 40);
    assert_eq!(room_of(&program, &whole("198.18.0.1", TCP, 80)), 0);
    // Fragments: the most of their protocol.
    assert_eq!(room_of(&program, &frame4(&ipv4_part(VIP4, UDP, &[], LAST, b"x"))), 56);
    assert_eq!(room_of(&program, &frame4(&ipv4_part(VIP4, TCP, &[], LAST, b"x"))), 20);
    // We answer pings ourselves; errors go the way of what they are about.
    assert_eq!(room_of(&program, &frame4(&ipv4(VIP4, ICMP, &icmp(8, 0, b"")))), 0);
    let error = icmp_error(3, &answer4(VIP4, UDP, 8_000), 20);
    assert_eq!(room_of(&program, &frame4(&ipv4(VIP4, ICMP, &error))), 56);
    // In a VLAN, and packets of several buffers.
    let tagged = ethernet(&[(VLAN, 5)], 0x0800, &ipv4(VIP4, TCP, &tcp(PORT, 0, b"x")));
    assert_eq!(room_of(&program, &tagged), 20);
    let jumbo = frame4(&ipv4(VIP4, TCP, &tcp(PORT, 0, &[3; 8_900])));
    assert_eq!(room_of(&program, &jumbo), 20);
    // Another room for a service that stays.
    program.set_steering(&steering([with_room(44, services[0].clone())])).unwrap();
    assert_eq!(room_of(&program, &whole("192.0.2.10", TCP, 443)), 44);
    // What passes is left as it is, also when it would have been steered.
    program.remove_socket(0).unwrap();
    let frame = whole("192.0.2.10", TCP, 443);
    assert_eq!(program.test_run_for_bytes(&frame).unwrap(), (XdpAction::Pass, frame));
    drop(socket);
}

#[test]
fn what_leaves_besides_services_gets_the_room_that_was_asked_for() {
    lab_or_skip!();
    let arp = ethernet(&[], ARP, &arp());
    let other = frame4(&ipv4(OTHER4, TCP, &tcp(PORT, 0, b"x")));
    let web = service("192.0.2.10", TCP, 443..=443).with_room(20);
    for (asked, made) in [(50, 50), (1, usize::from(MIN_ROOM)), (255, usize::from(MAX_ROOM)), (0, 0)] {
        let besides = Steering { room: asked, ..steering([web.clone()]) };
        let (mut program, _socket) = with_socket(&Steering { everything: true, ..besides.clone() });
        assert_eq!((room_of(&program, &arp), room_of(&program, &other)), (made, made));
        assert_eq!(room_of(&program, &arp[..14]), made, "no more than an Ethernet header");
        assert_eq!(room_of(&program, &whole("192.0.2.10", TCP, 443)), 20, "a service has its own");
        program.set_steering(&Steering { all: true, ..besides }).unwrap();
        assert_eq!(room_of(&program, &other), made);
        assert_eq!(program.test_run_for_bytes(&arp).unwrap(), (XdpAction::Pass, arp.clone()));
    }
}

#[test]
fn a_program_that_is_attached_takes_services_of_all_kinds() {
    lab_or_skip!();
    let pair = xfwd_netns::topology::pair(1).unwrap();
    pair.subject.run(|| {
        let link = xfwd::kernel::link::Link::find(xfwd_netns::topology::INTERFACE).unwrap();
        let mut program = XdpProgram::load(&steering([service("192.0.2.0/24", TCP, 1..=9)])).unwrap();
        program.attach(link.index, &link.name, XdpMode::Native).unwrap();
        program.set_steering(&steering([service("2001:db8::/64", UDP, 0..=u16::MAX)])).unwrap();
    });
}

/// Numbers that look random, and are the same every time.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }

    fn address(&mut self) -> IpAddr {
        let last = self.below(8);
        if self.below(2) == 0 {
            Ipv4Addr::new(192, 0, 2, last as u8).into()
        } else {
            Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, last as u16).into()
        }
    }

    fn port(&mut self) -> u16 {
        (8_000 + self.below(24)) as u16
    }

    fn service(&mut self) -> SteeredService {
        let address = self.address();
        let full = if address.is_ipv4() { 32 } else { 128 };
        let (a, b) = (self.port(), self.port());
        SteeredService {
            network: Prefix::new(address, full - [0, 0, 1, 2, 3, 20][self.below(6) as usize]),
            protocol: [TCP, UDP][self.below(2) as usize],
            ports: match self.below(3) {
                0 => a..=a,
                1 => a.min(b)..=a.max(b),
                _ => 0..=u16::MAX,
            },
            room: [0, 20, 36, 40, 56][self.below(5) as usize],
            kind: [SteeredKind::Vip, SteeredKind::Host][self.below(2) as usize],
        }
    }
}

/// The room by what [`SteeredService`] promises: a scan of all services. `None` for what is not steered.
fn scan(services: &[SteeredService], address: IpAddr, protocol: u8, port: u16) -> Option<usize> {
    let is_exact = |service: &SteeredService| {
        service.network == Prefix::new(address, u8::MAX) && service.ports.start() == service.ports.end()
    };
    let serving = services.iter().filter(|service| {
        service.protocol == protocol && service.ports.contains(&port) && service.network.contains(address)
    });
    // The last of the greatest, and the first of the list among equals.
    let best = serving.rev().max_by_key(|service| (is_exact(service), service.network.length()));
    best.map(|service| service.room.into())
}

#[test]
fn the_maps_say_what_a_scan_of_the_services_says() {
    const CONFIGS: usize = 150;
    const PACKETS: usize = 150;
    lab_or_skip!();
    let mut numbers = Numbers(0x5eed_1234_5678_9abc);
    let (mut program, _socket) = with_socket(&Steering::default());
    let mut steered = [0; 5];
    for _ in 0..CONFIGS {
        let count = numbers.below(14);
        let services: Vec<SteeredService> = (0..count).map(|_| numbers.service()).collect();
        // One config follows the other in the same maps.
        program.set_steering(&steering(services.clone())).unwrap();
        for _ in 0..PACKETS {
            let (address, port) = (numbers.address(), numbers.port());
            let protocol = [TCP, UDP][numbers.below(2) as usize];
            let here = || services.iter().filter(|service| service.network.contains(address));
            let same = here().filter(|service| service.protocol == protocol);
            let largest = same.map(|service| usize::from(service.room)).max();
            let is_vip = here().any(|service| service.kind == SteeredKind::Vip);
            let part = [FIRST, MIDDLE, LAST][numbers.below(3) as usize];
            let kind = numbers.below(4) as usize;
            let frame = match (kind, address) {
                (0, IpAddr::V4(to)) => frame4(&ipv4(to, protocol, &segment(protocol, port))),
                (0, IpAddr::V6(to)) => frame6(&ipv6(to, protocol, &segment(protocol, port))),
                (1, IpAddr::V4(to)) => frame4(&ipv4_part(to, protocol, &[], part, &segment(protocol, port))),
                (1, IpAddr::V6(to)) => {
                    let fragment = fragment_header(protocol, part, &segment(protocol, port));
                    frame6(&ipv6(to, FRAGMENT, &fragment))
                }
                (2, IpAddr::V4(to)) => frame4(&ipv4(to, ICMP, &icmp(8, 0, b""))),
                (2, IpAddr::V6(to)) => frame6(&ipv6(to, ICMPV6, &icmp(128, 0, b""))),
                (_, IpAddr::V4(from)) => {
                    frame4(&ipv4(OTHER4, ICMP, &icmp_error(11, &answer4(from, protocol, port), 20)))
                }
                (_, IpAddr::V6(from)) => {
                    frame6(&ipv6(OTHER6, ICMPV6, &icmp_error(3, &answer6(from, protocol, port), 40)))
                }
            };
            let expected = match kind {
                1 => largest,
                2 => is_vip.then_some(0),
                _ => scan(&services, address, protocol, port),
            };
            let (action, bytes) = program.test_run_for_bytes(&frame).unwrap();
            let found = (action == XdpAction::Redirect).then(|| bytes.len() - frame.len());
            assert_eq!(found, expected, "{services:#?}\n{address} {protocol} {port}, kind {kind}");
            steered[if found.is_some() { kind } else { 4 }] += 1;
        }
    }
    println!("steered by kind, and passed: {steered:?}");
    assert!(steered.iter().all(|packets| *packets > 1_000), "{steered:?}");
}

#[test]
fn a_thousand_services_of_ten_ports_are_exchanged_quickly() {
    lab_or_skip!();
    let address = |number: u32| Ipv4Addr::from_bits(0x0a00_0000 + number);
    let singles = |from: u32| {
        steering((from..from + 1_000).flat_map(|number| {
            (8_000..8_010).map(move |port| SteeredService::single(address(number).into(), TCP, port))
        }))
    };
    let ranges = |from: u32| {
        steering((from..from + 1_000).map(|number| SteeredService {
            network: Prefix::new(address(number).into(), 32),
            ports: 8_000..=8_009,
            ..SteeredService::single(address(number).into(), TCP, 0)
        }))
    };
    let (mut program, _socket) = with_socket(&Steering::default());
    for (what, change) in [
        ("single ports", singles(0)),
        ("the same again", singles(0)),
        ("half of them others", singles(500)),
        ("ranges", ranges(0)),
        ("half of them others", ranges(500)),
        ("nothing", Steering::default()),
    ] {
        let start = Instant::now();
        program.set_steering(&change).unwrap();
        let took = start.elapsed();
        println!("{what}: {took:?}");
        // A tenth of it is usual, without optimization.
        assert!(took < Duration::from_secs(1), "{what}: {took:?}");
        let last = change.services.last().map(|service| service.network.address().to_string());
        if let Some(last) = last {
            expect_cause(&program, what, &whole(&last, TCP, 8_009), Cause::SteeredService);
        }
    }
    expect_cause(&program, "nothing", &whole("10.0.0.1", TCP, 8_000), Cause::PassedNoService);
}

#[test]
fn too_many_services_are_refused_by_name() {
    lab_or_skip!();
    let services = (0..MAX_SERVICES / 3 + 1)
        .map(|number| SteeredService::single(Ipv4Addr::from_bits(0x0a00_0000 + number).into(), TCP, 80));
    let mut program = XdpProgram::load(&Steering::default()).unwrap();
    let error = program.set_steering(&steering(services)).unwrap_err();
    assert!(matches!(error, XdpError::MapFull { map: "SERVICES", .. }), "{error}");
}
