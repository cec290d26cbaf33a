//! Fragments: all of a datagram go to one backend.

use std::time::Duration;

use xfwd::pipeline::{DropReason, Verdict};
use xfwd::stages::balance::{BalancedService, Forward};

use crate::packets::{FAMILIES, Family, Packet, Transport, UDP, from_client, relinked, tuple, udp};
use crate::rig::{Out, Rig, service, with};

fn dns(family: Family, forward: Forward) -> BalancedService {
    with(service(family.vip(), UDP, 53, forward), family, 0..4)
}

fn ntp(family: Family, forward: Forward) -> BalancedService {
    with(service(family.vip(), UDP, 123, forward), family, 4..8)
}

/// A datagram that makes three fragments, and these.
fn datagram(family: Family, client: u8, to_port: u16) -> (Packet, Vec<Vec<u8>>) {
    let mut packet =
        Packet { payload: vec![client; 1_000], ..from_client(family, 40_000, to_port, Transport::Udp) };
    packet.from = match packet.from {
        std::net::SocketAddr::V4(v4) => ([203, 0, 113, client], v4.port()).into(),
        std::net::SocketAddr::V6(v6) => {
            let mut octets = v6.ip().octets();
            octets[15] = client;
            (octets, v6.port()).into()
        }
    };
    let fragments = packet.fragments(u16::from(client) + 500, 400);
    assert_eq!(fragments.len(), 3);
    (packet, fragments)
}

fn backends(rig: &mut Rig, fragments: &[Vec<u8>]) -> Vec<usize> {
    fragments.iter().map(|fragment| rig.pass(fragment).backend()).collect()
}

#[test]
fn fragments_for_the_only_service_reach_one_backend_in_any_order() {
    for family in FAMILIES {
        for forward in [Forward::Dsr, Forward::Ipip, Forward::Gue] {
            let mut rig = Rig::new([dns(family, forward)]);
            let mut seen = std::collections::HashSet::new();
            for client in 1..60 {
                let (packet, mut fragments) = datagram(family, client, 53);
                fragments.rotate_left(usize::from(client) % 3);
                let reached = backends(&mut rig, &fragments);
                let no_ports = tuple(&fragments[0]);
                assert_eq!((no_ports.src_port, no_ports.src), (0, packet.tuple().src));
                let expected = crate::rig::chosen(&dns(family, forward), family, &no_ports);
                assert_eq!(reached, [expected; 3], "{forward:?}");
                seen.insert(expected);
            }
            assert_eq!(seen.len(), 4);
            let missed: u64 =
                rig.control.stage_counters().map(|side| side.fragments.get().unwrap().missed.get()).sum();
            assert_eq!(missed, 0, "there is nothing to look for");
        }
    }
}

#[test]
fn the_bytes_of_fragments_are_as_they_were() {
    for family in FAMILIES {
        let mut rig = Rig::new([dns(family, Forward::Dsr)]);
        for fragment in datagram(family, 7, 53).1 {
            let out = rig.pass(&fragment);
            let link = crate::rig::egress(family, out.backend()).link;
            assert_eq!(out.bytes, relinked(&fragment[14..], link.source.0, link.destination.0, link.vlan));
        }
    }
}

#[test]
fn where_services_share_an_address_the_first_fragment_tells_which_it_is() {
    for family in FAMILIES {
        let mut rig = Rig::new([dns(family, Forward::Dsr), ntp(family, Forward::Ipip)]);
        for client in 1..40 {
            let (_, fragments) = datagram(family, client, if client % 2 == 0 { 53 } else { 123 });
            rig.pass(&fragments[1]).assert_dropped(DropReason::UnknownFragment);
            let reached = backends(&mut rig, &fragments);
            assert_eq!(reached, [reached[0]; 3]);
            assert_eq!(reached[0] < 4, client % 2 == 0);
        }
        rig.now += Duration::from_secs(31);
        let (_, fragments) = datagram(family, 2, 53);
        rig.pass(&fragments[1]).assert_dropped(DropReason::UnknownFragment);
    }
}

#[test]
fn a_later_fragment_does_not_go_to_another_service_after_a_reload() {
    let family = FAMILIES[0];
    let mut rig = Rig::new([dns(family, Forward::Dsr), ntp(family, Forward::Dsr)]);
    let (_, fragments) = datagram(family, 7, 53);
    rig.pass(&fragments[0]).backend();
    rig.control.set_services(vec![ntp(family, Forward::Dsr), dns(family, Forward::Dsr)]).unwrap();
    rig.pass(&fragments[1]).assert_dropped(DropReason::UnknownFragment);
    // What is changed in weights and health alone forgets nothing.
    rig.pass(&fragments[0]).backend();
    rig.control.set_health([(&*dns(family, Forward::Dsr).name, family.backend(3), false)]);
    rig.pass(&fragments[1]).backend();
}

#[test]
fn a_first_fragment_to_a_port_that_is_no_services_is_not_ours() {
    let family = FAMILIES[0];
    let mut rig = Rig::new([dns(family, Forward::Dsr)]);
    assert_eq!(rig.pass(&datagram(family, 7, 99).1[0]).verdict, Verdict::Continue);
}

#[test]
fn with_nat_fragments_are_translated_both_ways_by_the_session_of_the_flow() {
    for family in FAMILIES {
        let mut rig = Rig::new([dns(family, Forward::Nat)]);
        for client in 1..30 {
            let (packet, fragments) = datagram(family, client, 53);
            let whole = Packet { payload: b"whole".to_vec(), ..packet.clone() };
            let session = tuple(&rig.pass(&whole.bytes()).bytes);
            let there: Vec<Out> = fragments.iter().map(|fragment| rig.pass(fragment)).collect();
            assert_translated(&there, &packet, session.source(), session.destination(), client);

            let reply = Packet {
                from: session.destination(),
                to: session.source(),
                payload: vec![9; 1_000],
                ..packet.clone()
            };
            let back: Vec<Out> = reply
                .fragments(u16::from(client) + 900, 400)
                .iter()
                .map(|fragment| rig.pass(fragment))
                .collect();
            for out in &back {
                out.assert_answered();
            }
            assert_translated(&back, &reply, packet.to, packet.from, client);
        }
        let (_, fragments) = datagram(family, 77, 53);
        rig.pass(&fragments[2]).assert_dropped(DropReason::UnknownFragment);
    }
}

/// The fragments together are the datagram from and to these.
fn assert_translated(
    fragments: &[Out],
    before: &Packet,
    from: std::net::SocketAddr,
    to: std::net::SocketAddr,
    client: u8,
) {
    let family = Family { is_ipv4: from.is_ipv4() };
    let whole = Packet { from, to, ..before.clone() };
    let header = family.ip_bytes() + if family.is_ipv4 { 0 } else { 8 };
    let mut payload = Vec::<u8>::new();
    for out in fragments {
        let ip_at = if out.bytes[12..14] == [0x81, 0] { 18 } else { 14 };
        let (found, ip) = (tuple(&out.bytes), &out.bytes[ip_at..]);
        assert_eq!((found.source().ip(), found.destination().ip()), (from.ip(), to.ip()), "client {client}");
        if family.is_ipv4 {
            let ip = etherparse::Ipv4Header::from_slice(ip).unwrap().0;
            assert_eq!((ip.header_checksum, ip.time_to_live), (ip.calc_header_checksum(), 63));
        }
        payload.extend(&ip[header..]);
    }
    // The checksum of the whole datagram is in the first of them.
    assert_eq!(payload, whole.ip()[family.ip_bytes()..], "client {client}");
}

#[test]
fn whole_packets_and_fragments_of_a_client_may_have_two_backends_but_each_has_one() {
    let mut rig = Rig::new([dns(FAMILIES[0], Forward::Dsr)]);
    let whole = rig.pass(&udp(FAMILIES[0], 40_000).bytes()).backend();
    let (_, fragments) = datagram(FAMILIES[0], 7, 53);
    let first = rig.pass(&fragments[0]).backend();
    assert_eq!(rig.pass(&udp(FAMILIES[0], 40_000).bytes()).backend(), whole);
    assert_eq!(rig.pass(&fragments[1]).backend(), first);
}
