use std::net::SocketAddr;

use proptest::prelude::*;

use super::super::packets::*;
use super::*;
use crate::packet::parse;
use crate::packet::protocol::{TCP, UDP};

fn every_case() -> impl Iterator<Item = (u8, bool)> {
    PROTOCOLS.into_iter().flat_map(|protocol| FAMILIES.map(|is_ipv4| (protocol, is_ipv4)))
}

fn embedded(bytes: &[u8]) -> Embedded {
    Embedded::of(bytes, &parse(bytes, bytes.len())).unwrap()
}

/// What an error quotes of a packet: its IP part, cut behind this many bytes.
fn quote(protocol: u8, from: SocketAddr, to: SocketAddr, limit: usize) -> Vec<u8> {
    let mut bytes = packet(protocol, from, to, &[0xa5; 100]).split_off(NETWORK);
    bytes.truncate(limit);
    bytes
}

fn ip_header_bytes(is_ipv4: bool) -> usize {
    if is_ipv4 { 20 } else { 40 }
}

#[test]
fn an_error_from_the_backends_side_becomes_one_of_the_service_about_the_clients_packet() {
    for (protocol, is_ipv4) in every_case() {
        let (world, session) = (world(is_ipv4), session(protocol, is_ipv4));
        let nat = SocketAddr::from(session.nat);
        // Whole; cut behind the checksum of TCP; cut as short as may be.
        for limit in [1_000, ip_header_bytes(is_ipv4) + 19, ip_header_bytes(is_ipv4) + 8] {
            for from in [world.router, world.backend.ip()] {
                let mut bytes = error(from, nat.ip(), &quote(protocol, nat, world.backend, limit));
                on(&mut bytes, |packet| translate_error_reply(packet, &session)).unwrap();
                assert!(is_right(&bytes[NETWORK..]));
                let mut expected = quote(protocol, world.client, world.service, limit);
                if protocol == TCP && limit < ip_header_bytes(is_ipv4) + 18 {
                    assert_eq!(expected.len(), limit, "its checksum is not there to be wrong");
                }
                expected = error(world.service.ip(), world.client.ip(), &expected);
                assert_eq!(bytes, expected, "as if the service had sent it");
            }
        }
    }
}

#[test]
fn an_error_from_the_clients_side_becomes_one_for_the_backend_about_its_reply() {
    for (protocol, is_ipv4) in every_case() {
        let (world, session) = (world(is_ipv4), session(protocol, is_ipv4));
        for limit in [1_000, ip_header_bytes(is_ipv4) + 19, ip_header_bytes(is_ipv4) + 8] {
            let quoted = quote(protocol, world.service, world.client, limit);
            let mut bytes = error(world.router, world.service.ip(), &quoted);
            on(&mut bytes, |packet| translate_error_to_backend(packet, &session)).unwrap();
            assert!(is_right(&bytes[NETWORK..]));
            let quoted = quote(protocol, world.backend, session.nat.into(), limit);
            assert_eq!(bytes, error(world.router, world.backend.ip(), &quoted), "its source stays");
        }
    }
}

#[test]
fn quoted_checksums_are_right_if_they_were() {
    for (protocol, is_ipv4) in every_case() {
        let (world, session) = (world(is_ipv4), session(protocol, is_ipv4));
        let nat = SocketAddr::from(session.nat);
        let mut bytes = error(world.router, nat.ip(), &quote(protocol, nat, world.backend, 1_000));
        on(&mut bytes, |packet| translate_error_reply(packet, &session)).unwrap();
        let found = embedded(&bytes);
        assert!(is_right(&bytes[found.network_offset.into()..]));
        assert_eq!(found.tuple, flow(protocol, world.client, world.service));
    }
}

#[test]
fn a_quoted_header_with_options_and_a_lower_hop_limit_is_translated() {
    let (world, session) = (world(true), session(UDP, true));
    let nat = SocketAddr::from(session.nat);
    let quoted = |from, to| {
        let mut bytes = quote(UDP, from, to, 1_000);
        bytes.splice(20..20, [1; 8]);
        (bytes[0], bytes[8]) = (0x47, 3);
        let total = bytes.len() as u16;
        let mut header = crate::packet::Ipv4::new_checked(&mut bytes).unwrap();
        header.set_total_bytes(total);
        header.fill_checksum();
        bytes
    };
    let mut bytes = error(world.router, nat.ip(), &quoted(nat, world.backend));
    on(&mut bytes, |packet| translate_error_reply(packet, &session)).unwrap();
    let expected = error(world.service.ip(), world.client.ip(), &quoted(world.client, world.service));
    assert_eq!(bytes, expected);
}

#[test]
fn a_quoted_datagram_without_checksum_stays_without() {
    let (world, session) = (world(true), session(UDP, true));
    let nat = SocketAddr::from(session.nat);
    let mut quoted = quote(UDP, nat, world.backend, 1_000);
    quoted[26..28].copy_from_slice(&[0, 0]);
    let mut bytes = error(world.router, nat.ip(), &quoted);
    on(&mut bytes, |packet| translate_error_reply(packet, &session)).unwrap();
    assert_eq!(bytes[NETWORK + 28 + 26..][..2], [0, 0]);
    assert!(is_right(&bytes[NETWORK..]));
}

#[test]
fn what_quotes_nothing_of_the_session_is_left_as_it_was() {
    let (four, six) = (world(true), world(false));
    let session = session(TCP, true);
    let nat = SocketAddr::from(session.nat);
    let mut later = quote(TCP, nat, four.backend, 1_000);
    later[7] = 1;
    for (what, bytes) in [
        ("no error", echo(four.router, nat.ip())),
        ("no ICMP", packet(TCP, four.backend, nat, b"hello")),
        ("another protocol", error(four.router, nat.ip(), &quote(UDP, nat, four.backend, 1_000))),
        ("a quote without ports", error(four.router, nat.ip(), &later)),
        ("a quote that is too short", error(four.router, nat.ip(), &quote(TCP, nat, four.backend, 27))),
        ("another family", error(six.router, six.service.ip(), &quote(TCP, six.service, six.client, 90))),
        ("nothing", Vec::new()),
    ] {
        let mut translated = bytes.clone();
        let results = on(&mut translated, |packet| {
            [translate_error_reply(packet, &session), translate_error_to_backend(packet, &session)]
        });
        assert_eq!(results, [Err(NotOfSession); 2], "{what}");
        assert_eq!(translated, bytes, "{what}");
    }
}

proptest! {
    #[test]
    fn arbitrary_errors_do_not_panic_and_keep_a_right_checksum_right(
        quoted in proptest::collection::vec(any::<u8>(), 0..200), keep in 0usize..260, seed: u64,
        is_ipv4: bool, is_tcp: bool,
    ) {
        let (world, session) = (world(is_ipv4), session(if is_tcp { TCP } else { UDP }, is_ipv4));
        let damaged = crate::packet::packets::packet(seed);
        let well_formed = crate::packet::packets::well_formed(seed);
        let quotes = [&quoted[..], damaged.get(14..).unwrap_or(&[]), well_formed.get(14..).unwrap_or(&[])];
        for bytes in quotes.map(|quoted| error(world.router, world.service.ip(), quoted)) {
            for translate in [translate_error_reply, translate_error_to_backend] {
                let mut translated = bytes.clone();
                match on(&mut translated, |packet| translate(packet, &session)) {
                    Ok(()) => prop_assert!(is_right(&translated[NETWORK..])),
                    Err(NotOfSession) => prop_assert_eq!(&translated, &bytes),
                }
                let mut cut = bytes[..keep.min(bytes.len())].to_vec();
                let _ = on(&mut cut, |packet| translate(packet, &session));
            }
        }
    }
}
