use std::net::IpAddr;

use proptest::prelude::*;

use super::super::packets::*;
use super::super::session::Endpoint;
use super::*;
use crate::packet::parse;
use crate::packet::protocol::{TCP, UDP};

#[test]
fn a_packet_of_the_client_goes_from_the_pool_to_the_backend() {
    for (protocol, is_ipv4) in
        PROTOCOLS.into_iter().flat_map(|protocol| FAMILIES.map(|family| (protocol, family)))
    {
        let (world, session) = (world(is_ipv4), session(protocol, is_ipv4));
        let before = packet(protocol, world.client, world.service, b"hello");
        let mut bytes = before.clone();
        on(&mut bytes, |packet| translate_to_backend(packet, &session)).unwrap();
        let nat = std::net::SocketAddr::from(session.nat);
        assert_eq!(ends(&bytes), format!("{nat} > {}", world.backend));
        assert!(is_right(&bytes[NETWORK..]));
        assert_eq!(bytes, packet(protocol, nat, world.backend, b"hello"), "as if built so, to the last byte");
        assert_eq!(bytes.len(), before.len());
    }
}

#[test]
fn a_reply_goes_from_the_service_to_the_client() {
    for (protocol, is_ipv4) in
        PROTOCOLS.into_iter().flat_map(|protocol| FAMILIES.map(|family| (protocol, family)))
    {
        let (world, session) = (world(is_ipv4), session(protocol, is_ipv4));
        let mut bytes = packet(protocol, world.backend, session.nat.into(), b"hello");
        on(&mut bytes, |packet| translate_reply(packet, &session)).unwrap();
        assert!(is_right(&bytes[NETWORK..]));
        assert_eq!(bytes, packet(protocol, world.service, world.client, b"hello"));
    }
}

#[test]
fn a_packet_behind_vlan_tags_is_translated_too() {
    let (world, session) = (world(false), session(UDP, false));
    let tags = [0x81, 0x00, 0x00, 0x05, 0x81, 0x00, 0x00, 0x06];
    let mut bytes = packet(UDP, world.client, world.service, b"hello");
    bytes.splice(12..12, tags);
    on(&mut bytes, |packet| translate_to_backend(packet, &session)).unwrap();
    let mut expected = packet(UDP, session.nat.into(), world.backend, b"hello");
    expected.splice(12..12, tags);
    assert_eq!(bytes, expected);
}

#[test]
fn udp_without_checksum_stays_without() {
    let (world, session) = (world(true), session(UDP, true));
    let mut bytes = packet(UDP, world.client, world.service, b"hello");
    bytes[40..42].copy_from_slice(&[0, 0]);
    on(&mut bytes, |packet| translate_to_backend(packet, &session)).unwrap();
    assert_eq!(bytes[40..42], [0, 0]);
    assert_eq!(ends(&bytes), format!("{} > {}", std::net::SocketAddr::from(session.nat), world.backend));
}

#[test]
fn a_udp_checksum_that_comes_to_zero_is_written_as_ffff() {
    for is_ipv4 in FAMILIES {
        let (world, session) = (world(is_ipv4), session(UDP, is_ipv4));
        // The payload that makes the translated datagram's checksum 0: its checksum without payload.
        let at = if is_ipv4 { 40 } else { 60 };
        let with_zeros = packet(UDP, session.nat.into(), world.backend, &[0, 0]);
        let payload = [with_zeros[at], with_zeros[at + 1]];
        let mut bytes = packet(UDP, world.client, world.service, &payload);
        on(&mut bytes, |packet| translate_to_backend(packet, &session)).unwrap();
        assert_eq!(bytes[at..at + 2], [0xff, 0xff]);
        assert!(is_right(&bytes[NETWORK..]));
    }
}

/// An IPv4 packet in fragments: the first of these bytes of payload, and the rest.
fn fragments_v4(whole: &[u8], first: usize) -> [Vec<u8>; 2] {
    let payload = &whole[34..];
    [(0x2000, &payload[..first]), (first as u16 / 8, &payload[first..])].map(|(word, part)| {
        let mut bytes = whole[..34].to_vec();
        bytes[16..18].copy_from_slice(&(20 + part.len() as u16).to_be_bytes());
        bytes[20..22].copy_from_slice(&u16::to_be_bytes(word));
        let mut header = crate::packet::Ipv4::new_checked(&mut bytes[14..]).unwrap();
        header.fill_checksum();
        bytes.extend(part);
        bytes
    })
}

fn fragments_v6(whole: &[u8], first: usize) -> [Vec<u8>; 2] {
    let payload = &whole[54..];
    [(1, &payload[..first]), (first as u16, &payload[first..])].map(|(word, part)| {
        let mut bytes = whole[..54].to_vec();
        bytes[18..20].copy_from_slice(&(8 + part.len() as u16).to_be_bytes());
        let [high, low] = u16::to_be_bytes(word);
        let next = std::mem::replace(&mut bytes[20], 44);
        bytes.extend([next, 0, high, low, 0, 0, 0, 7]);
        bytes.extend(part);
        bytes
    })
}

#[test]
fn fragments_put_together_again_are_the_translated_packet() {
    let payload: Vec<u8> = (0..200).collect();
    for protocol in PROTOCOLS {
        let (four, six) = (world(true), world(false));
        let (session4, session6) = (session(protocol, true), session(protocol, false));
        let whole = packet(protocol, four.client, four.service, &payload);
        let [mut first, mut later] = fragments_v4(&whole, 64);
        let expected = packet(protocol, session4.nat.into(), four.backend, &payload);
        for part in [&mut first, &mut later] {
            on(part, |packet| translate_to_backend(packet, &session4)).unwrap();
            let header = crate::packet::Ipv4::new_checked(&part[14..]).unwrap();
            assert!(header.has_valid_checksum());
            assert_eq!(part[26..34], expected[26..34], "addresses");
        }
        assert_eq!([&first[34..], &later[34..]].concat(), expected[34..]);

        let whole = packet(protocol, six.backend, session6.nat.into(), &payload);
        let [mut first, mut later] = fragments_v6(&whole, 64);
        let expected = packet(protocol, six.service, six.client, &payload);
        for part in [&mut first, &mut later] {
            on(part, |packet| translate_reply(packet, &session6)).unwrap();
            assert_eq!(part[22..54], expected[22..54], "addresses");
        }
        assert_eq!([&first[62..], &later[62..]].concat(), expected[54..]);
    }
}

#[test]
fn what_is_not_of_the_session_is_left_as_it_was() {
    let (four, six) = (world(true), world(false));
    let mut tiny = packet(TCP, four.client, four.service, b"");
    tiny[16..18].copy_from_slice(&28u16.to_be_bytes());
    tiny[20] = 0x20;
    tiny.truncate(42);
    for (what, bytes) in [
        ("another protocol", packet(UDP, four.client, four.service, b"hello")),
        ("another family", packet(TCP, six.client, six.service, b"hello")),
        ("ICMP", echo(four.client.ip(), four.service.ip())),
        ("a first fragment that ends within the TCP header", tiny),
        ("cut", packet(TCP, four.client, four.service, b"hello")[..50].to_vec()),
        ("nothing", Vec::new()),
    ] {
        let session = session(TCP, true);
        let mut translated = bytes.clone();
        let result = on(&mut translated, |packet| {
            (translate_to_backend(packet, &session), translate_reply(packet, &session))
        });
        assert_eq!(result, (Err(NotOfSession), Err(NotOfSession)), "{what}");
        assert_eq!(translated, bytes, "{what}");
    }
}

fn any_session() -> impl Strategy<Value = Session> {
    let ends = proptest::array::uniform4(any::<([u8; 16], u16)>());
    (any::<(bool, bool)>(), ends).prop_map(|((is_tcp, is_ipv4), ends)| {
        let [client, service, nat, backend] = ends.map(|(address, port)| {
            let ipv4 = IpAddr::from([address[0], address[1], address[2], address[3]]);
            let ip = if is_ipv4 { ipv4 } else { IpAddr::from(address) };
            Endpoint::from(std::net::SocketAddr::new(ip, port))
        });
        let of = session(if is_tcp { TCP } else { UDP }, is_ipv4);
        Session { client, service, nat, backend, ..of }
    })
}

proptest! {
    #[test]
    fn there_and_back_is_the_same_packet(
        session in any_session(), payload in proptest::collection::vec(any::<u8>(), 0..300),
    ) {
        let original = packet(session.protocol, session.client.into(), session.service.into(), &payload);
        let mut bytes = original.clone();
        on(&mut bytes, |packet| translate_to_backend(packet, &session)).unwrap();
        prop_assert!(is_right(&bytes[NETWORK..]));
        prop_assert_eq!(&bytes, &packet(session.protocol, session.nat.into(), session.backend.into(), &payload));
        let back = Session { service: session.client, client: session.service, ..session };
        on(&mut bytes, |packet| translate_reply(packet, &back)).unwrap();
        prop_assert_eq!(bytes, original);
    }

    #[test]
    fn arbitrary_bytes_do_not_panic_and_a_damaged_packet_stays_damaged(
        session in any_session(), seed: u64, bytes in proptest::collection::vec(any::<u8>(), 0..200),
        damage in 38usize..54, bit in 0u8..8,
    ) {
        for mut bytes in [bytes, crate::packet::packets::packet(seed), crate::packet::packets::well_formed(seed)] {
            let before = bytes.clone();
            let len = bytes.len();
            for translate in [translate_to_backend, translate_reply] {
                let result = on(&mut bytes, |packet| translate(packet, &session));
                if result.is_err() {
                    prop_assert_eq!(&bytes, &before);
                }
                prop_assert_eq!(bytes.len(), len);
                bytes.copy_from_slice(&before);
            }
        }
        let mut bytes = packet(session.protocol, session.client.into(), session.service.into(), &[7; 40]);
        let at = bytes.len() - damage + 14;
        bytes[at] ^= 1 << bit;
        if parse(&bytes, bytes.len()).outcome == Outcome::Ip as u8 {
            let damaged = !is_right(&bytes[NETWORK..]);
            on(&mut bytes, |packet| translate_to_backend(packet, &session)).unwrap();
            prop_assert_eq!(!is_right(&bytes[NETWORK..]), damaged);
        }
    }
}
