//! The XDP program in user space does what the one in the kernel does: random services, rules and deny lists, and packets
//! that come close to them.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::{Config, TestRunner};
use xfwd::kernel::deny::file::Line;
use xfwd::kernel::deny::{DenyEntry, DenyTable};
use xfwd::kernel::filter::compile;
use xfwd::kernel::offline::OfflineProgram;
use xfwd::kernel::xdp::{SteeredKind, SteeredService, Steering, XdpAction, XdpProgram};
use xfwd::packet::parse;
use xfwd::stages::filter::Prefix;
use xfwd_netns::lab_or_skip;

use crate::packets::*;
use crate::steering::socket;
use crate::support::packets as generated;
use crate::support::{kernel_rules, rules};

/// Addresses that generated packets are from or to, and some beside them.
fn address() -> impl Strategy<Value = IpAddr> {
    let v4 = select(generated::IPV4.to_vec()).prop_map(IpAddr::from);
    let v6 = select(generated::IPV6.to_vec()).prop_map(IpAddr::from);
    // An IPv6 packet may have one, too: the maps hold both families as one.
    let mapped = select(generated::IPV4.to_vec())
        .prop_map(|octets| IpAddr::from(std::net::Ipv4Addr::from(octets).to_ipv6_mapped()));
    prop_oneof![6 => v4, 4 => v6, 1 => mapped]
}

fn prefix() -> impl Strategy<Value = Prefix> {
    let length = prop_oneof![3 => Just(128_u8), 2 => 0..=128_u8, 1 => 96..=128_u8];
    (address(), length).prop_map(|(address, length)| match address {
        IpAddr::V4(_) if length < 128 => Prefix::new(address, length % 33),
        _ => Prefix::new(address, length),
    })
}

fn service() -> impl Strategy<Value = SteeredService> {
    let port = prop_oneof![4 => select(generated::PORTS.to_vec()), 1 => any::<u16>()];
    let ports = (port.clone(), port, any::<bool>());
    let kind = prop_oneof![3 => Just(SteeredKind::Vip), 1 => Just(SteeredKind::Host)];
    // No service has an IPv4-mapped address: a config that says so is refused.
    let network = prefix().prop_map(|prefix| match prefix.address().to_canonical() {
        address @ IpAddr::V4(_) => Prefix::new(address, prefix.length().min(32)),
        address @ IpAddr::V6(_) => Prefix::new(address, prefix.length()),
    });
    (network, select(vec![TCP, UDP]), ports, select(vec![0, 20, 36, 48]), kind).prop_map(
        |(network, protocol, (a, b, single), room, kind)| SteeredService {
            network,
            protocol,
            ports: if single { a..=a } else { a.min(b)..=a.max(b) },
            room,
            kind,
        },
    )
}

fn steering() -> impl Strategy<Value = Steering> {
    let hosts = vec(address(), 0..3);
    let steer = select(vec![(false, false), (true, false), (false, true), (true, true)]);
    let room = select(vec![0, 1, 50, 255]);
    (steer, room, vec(service(), 0..8), hosts).prop_map(|((all, everything), room, services, hosts)| {
        Steering {
            all,
            everything,
            room,
            services,
            host_addresses: if all { hosts.into_iter().collect() } else { Default::default() },
        }
    })
}

fn denied() -> impl Strategy<Value = Vec<DenyEntry>> {
    let flow =
        (address(), address(), select(vec![TCP, UDP, SCTP]), vec(select(generated::PORTS.to_vec()), 2))
            .prop_filter_map("of one family", |(src, dst, protocol, ports)| {
                let one_family = src.is_ipv4() == dst.is_ipv4();
                let (src, dst) = ((src, ports[0]).into(), (dst, ports[1]).into());
                one_family.then_some(DenyEntry::Flow { src, dst, protocol })
            });
    let source = prefix().prop_map(|prefix| match prefix.address() {
        // All that packets come from would leave nothing to look at.
        IpAddr::V4(address) => DenyEntry::Source(Prefix::new(address.into(), prefix.length().max(30))),
        IpAddr::V6(address) => DenyEntry::Source(Prefix::new(address.into(), prefix.length().max(120))),
    });
    let entries = vec(prop_oneof![source, flow], 1..4);
    prop_oneof![2 => Just(Vec::new()), 1 => entries]
}

/// An ICMP error about an answer to a generated packet, now and then a broken one.
fn error_about(packet: &[u8], choice: u64) -> Vec<u8> {
    let headers = parse(packet, packet.len());
    let network = usize::from(headers.network_offset);
    let mut quoted = packet[network.min(packet.len())..].to_vec();
    quoted.truncate(if choice.is_multiple_of(7) { 30 } else { 64 });
    let width = match headers.ip_version {
        4 => 4,
        6 => 16,
        _ => return packet.to_vec(),
    };
    let addresses = if width == 4 { 12..20 } else { 8..40 };
    if quoted.len() < addresses.end {
        return packet.to_vec();
    }
    quoted[addresses].rotate_left(width);
    let ports = usize::from(headers.transport_offset).saturating_sub(network);
    if ports != 0 && quoted.len() >= ports + 4 {
        quoted[ports..ports + 4].rotate_left(2);
    }
    let kinds = if width == 4 { [3, 11, 12, 5] } else { [1, 2, 3, 4] };
    let kind = kinds[(choice >> 8) as usize % 4];
    let error = icmp(kind, 0, &quoted);
    if width == 4 { frame4(&ipv4(HOST4, ICMP, &error)) } else { frame6(&ipv6(HOST6, ICMPV6, &error)) }
}

/// Echo requests and fragments to the addresses of services, besides all that is generated.
fn packet(rules: &[xfwd::stages::filter::Rule], steering: &Steering, seed: u64, choice: u64) -> Vec<u8> {
    let near = kernel_rules::packet_near(rules, seed, choice);
    match choice >> 60 {
        0..=2 => error_about(&near, choice),
        3 if !steering.services.is_empty() => {
            let service = &steering.services[seed as usize % steering.services.len()];
            let last = choice.is_multiple_of(3);
            match service.network.address() {
                IpAddr::V4(to) if last => frame4(&ipv4_part(to, service.protocol, &[], LAST, b"x")),
                IpAddr::V4(to) => frame4(&ipv4(to, ICMP, &icmp(8, 0, b""))),
                IpAddr::V6(to) => frame6(&ipv6(to, ICMPV6, &icmp(128, 0, b""))),
            }
        }
        4 if !steering.services.is_empty() => {
            let service = &steering.services[seed as usize % steering.services.len()];
            let port = service.ports.start().wrapping_add((choice % 3) as u16).wrapping_sub(1);
            match service.network.address() {
                IpAddr::V4(to) => frame4(&ipv4(to, service.protocol, &segment(service.protocol, port))),
                IpAddr::V6(to) => frame6(&ipv6(to, service.protocol, &segment(service.protocol, port))),
            }
        }
        _ => near,
    }
}

#[test]
fn the_program_in_user_space_does_what_the_one_in_the_kernel_does() {
    lab_or_skip!();
    const PACKETS: usize = 200;
    let seen = RefCell::new(BTreeMap::<&'static str, u64>::new());
    let mut runner = TestRunner::new(Config { cases: 100, max_shrink_iters: 1_000, ..Config::default() });
    let list = prop_oneof![
        1 => Just(Vec::new()),
        2 => kernel_rules::rules(3),
        1 => kernel_rules::rules(12),
        1 => rules::list(30),
    ];
    let cases = (list, steering(), denied(), vec(any::<(u64, u64)>(), PACKETS));
    let result = runner.run(&cases, |(rules, steering, denied, packets)| {
        let plan = compile(&rules).unwrap();
        let mut program = XdpProgram::load_with(&steering, &plan).unwrap();
        let socket = socket();
        program.insert_socket(0, &socket).unwrap();
        let mut maps = program.take_deny_maps().unwrap();
        for entry in &denied {
            maps.insert(entry).unwrap();
        }
        let lines: Vec<Line> = denied.iter().map(|entry| Line { entry: *entry, ttl: None }).collect();
        let mut offline = OfflineProgram::new(&steering, &plan, &lines).unwrap();
        let mut before = program.counters().unwrap();
        for (seed, choice) in packets {
            let packet = packet(&rules, &steering, seed, choice);
            // The kernel runs no shorter ones.
            if packet.len() < 14 {
                continue;
            }
            let headers = parse(&packet, packet.len());
            let (action, left) = program.test_run_for_bytes(&packet).unwrap();
            let after = program.counters().unwrap();
            let moved = before.iter().zip(after.iter()).find(|(before, after)| before.2 != after.2);
            let (_, (_, cause, _)) = moved.expect("every way out has a counter");
            let ruling = offline.run(&packet, packet.len(), &headers, Duration::ZERO);
            prop_assert_eq!((ruling.action, ruling.cause), (action, cause), "{:?}", headers);
            if action == XdpAction::Redirect {
                prop_assert_eq!(usize::from(ruling.room), left.len() - packet.len(), "{:?}", headers);
            }
            *seen.borrow_mut().entry(cause).or_default() += 1;
            before = after;
        }
        prop_assert_eq!(offline.rule_counts(), program.rule_counts().unwrap());
        prop_assert_eq!(offline.counters(), &program.counters().unwrap());
        Ok(())
    });
    if let Err(error) = result {
        panic!("{error}");
    }
    let seen = seen.into_inner();
    println!("{seen:?}");
    for (cause, least) in [
        ("steered-service", 100),
        ("steered-fragment", 50),
        ("steered-icmp", 100),
        ("steered-all", 100),
        ("passed-host", 10),
        ("passed-arp", 50),
        ("passed-neighbour-discovery", 50),
        ("passed-fragment", 50),
        ("passed-no-service", 200),
        ("dropped-rule", 100),
        ("dropped-denied", 5),
    ] {
        let packets = seen.get(cause).copied().unwrap_or(0);
        assert!(packets >= least, "{packets} packets with {cause}: the packets miss what is compared");
    }
}

#[test]
fn a_deny_line_with_a_time_ends_with_it() {
    let frame = frame4(&ipv4(VIP4, TCP, &tcp(PORT, 0, b"x")));
    let headers = parse(&frame, frame.len());
    let line = |text: &str, ttl| Line { entry: text.parse().unwrap(), ttl };
    let minute = Some(Duration::from_secs(60));
    let denied = [line("198.51.100.0/24", minute), line("198.51.100.7", Some(Duration::from_secs(5)))];
    let mut program = OfflineProgram::new(&Steering::default(), &Default::default(), &denied).unwrap();
    let mut is_dropped = |seconds| {
        program.run(&frame, frame.len(), &headers, Duration::from_secs(seconds)).action == XdpAction::Drop
    };
    assert!(is_dropped(0) && is_dropped(4) && is_dropped(59) && !is_dropped(60));
}
