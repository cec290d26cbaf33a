//! The dissector finds nothing wrong with good packets of every kind, and something with each kind of damage.
#![allow(clippy::unwrap_used)]

use std::{env, fs, panic, process};

use etherparse::{IcmpEchoHeader, Icmpv4Type, Icmpv6Type, PacketBuilder, icmpv4};
use xfwd_netns::{
    Captured, commands_or_skip,
    dissect::{self, Dissected, GUE_PORT, dissect_frames},
    write_pcap,
};

const CLIENT_V4: [u8; 4] = [198, 18, 0, 1];
const VIP_V4: [u8; 4] = [198, 18, 10, 1];
const CLIENT_V6: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
const VIP_V6: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
/// Length of an Ethernet header.
const ETHERNET: usize = 14;

/// An IP packet by etherparse, with right checksums.
fn packet(ipv6: bool, kind: &str, payload: &[u8]) -> Vec<u8> {
    let builder = if ipv6 {
        PacketBuilder::ipv6(CLIENT_V6, VIP_V6, 64)
    } else {
        PacketBuilder::ipv4(CLIENT_V4, VIP_V4, 64)
    };
    let mut packet = Vec::new();
    match kind {
        "tcp" => builder.tcp(40_000, 80, 1, 1_000).ack(7).write(&mut packet, payload),
        "udp" => builder.udp(40_000, 53).write(&mut packet, payload),
        "gue" => builder.udp(50_000, GUE_PORT).write(&mut packet, payload),
        "ip4" => builder.write(&mut packet, etherparse::IpNumber::IPV4, payload),
        "ip6" => builder.write(&mut packet, etherparse::IpNumber::IPV6, payload),
        "icmp" if ipv6 => {
            let echo = IcmpEchoHeader { id: 1, seq: 2 };
            builder.icmpv6(Icmpv6Type::EchoRequest(echo)).write(&mut packet, payload)
        }
        "icmp" => {
            let echo = IcmpEchoHeader { id: 1, seq: 2 };
            builder.icmpv4(Icmpv4Type::EchoRequest(echo)).write(&mut packet, payload)
        }
        "too-big" if ipv6 => {
            builder.icmpv6(Icmpv6Type::PacketTooBig { mtu: 1_400 }).write(&mut packet, payload)
        }
        "too-big" => {
            let kind = icmpv4::DestUnreachableHeader::FragmentationNeeded { next_hop_mtu: 1_400 };
            builder.icmpv4(Icmpv4Type::DestinationUnreachable(kind)).write(&mut packet, payload)
        }
        other => panic!("{other}"),
    }
    .unwrap();
    packet
}

fn frame(packet: &[u8]) -> Vec<u8> {
    let kind = if packet[0] >> 4 == 6 { [0x86, 0xdd] } else { [8, 0] };
    [&[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2][..], &kind, packet].concat()
}

fn captured(bytes: Vec<u8>) -> Captured {
    Captured { bytes, partial_checksum: false }
}

fn dissected(frames: &[Vec<u8>]) -> Dissected {
    let frames: Vec<Captured> = frames.iter().cloned().map(captured).collect();
    dissect_frames(&frames, GUE_PORT).unwrap()
}

#[test]
fn good_packets_of_every_kind_are_well_formed() {
    commands_or_skip!("tshark");
    let mut frames = Vec::new();
    let mut layers = Vec::new();
    for inner_is_ipv6 in [false, true] {
        let inner_name = if inner_is_ipv6 { "ipv6" } else { "ip" };
        let icmp = if inner_is_ipv6 { "icmpv6" } else { "icmp" };
        for kind in ["tcp", "udp", "icmp", "too-big"] {
            // Something that a dissector of HTTP or DNS would stumble over.
            let quoted = packet(inner_is_ipv6, "udp", b"quoted");
            let payload = if kind == "too-big" { &quoted[..] } else { &b"HTTP/1.1 2\r\n\xff"[..] };
            let inner = packet(inner_is_ipv6, kind, payload);
            let inner_layers = match kind {
                "icmp" => format!("{inner_name}:{icmp}"),
                "too-big" => format!("{inner_name}:{icmp}:{inner_name}:udp"),
                kind => format!("{inner_name}:{kind}"),
            };
            frames.push(frame(&inner));
            layers.push(inner_layers.clone());
            for outer_is_ipv6 in [false, true] {
                let outer_name = if outer_is_ipv6 { "ipv6" } else { "ip" };
                let protocol = if inner_is_ipv6 { "ip6" } else { "ip4" };
                frames.push(frame(&packet(outer_is_ipv6, protocol, &inner)));
                layers.push(format!("{outer_name}:{inner_layers}"));
                frames.push(frame(&packet(outer_is_ipv6, "gue", &inner)));
                // Wireshark's dissector for IPv4 hands IPv6 on, and shows so.
                let by = if inner_is_ipv6 { ":ip" } else { "" };
                layers.push(format!("{outer_name}:udp{by}:{inner_layers}"));
            }
        }
    }
    let dissected = dissected(&frames);
    assert_eq!(dissected.packets.len(), frames.len());
    assert_eq!(dissected.complaints(), "");
    for (packet, layers) in dissected.packets.iter().zip(&layers) {
        let all = packet.layers.join(":");
        assert!(all.starts_with(&format!("eth:ethertype:{layers}")), "{all}, not {layers}");
    }
    assert_eq!(dissected.with_layers("ip:ip:tcp").count(), 1);
}

#[test]
fn fields_are_those_of_the_outer_header_first() {
    commands_or_skip!("tshark");
    let inner = packet(false, "tcp", b"payload");
    let mut outer = packet(false, "ip4", &inner);
    // A TTL and source of its own.
    outer[8] = 17;
    outer[12..16].copy_from_slice(&[198, 18, 0, 2]);
    let dissected = dissected(&[frame(&outer)]);
    let packet = &dissected.packets[0];
    assert_eq!(packet.fields("ip.ttl"), ["17", "64"]);
    assert_eq!(packet.fields("ip.src"), ["198.18.0.2", "198.18.0.1"]);
    assert_eq!((packet.field("tcp.dstport"), packet.field("udp.dstport")), (Some("80"), None));
    assert_eq!(packet.problems.len(), 1, "the outer checksum is still the old one: {packet}");
}

/// Length of the IP header, and of that of UDP.
const V4: usize = 20;
const V6: usize = 40;
const UDP: usize = 8;

/// Flips bits of one byte of an IP packet.
fn damaged(packet: Vec<u8>, offset: usize, bits: u8) -> Vec<u8> {
    let mut frame = frame(&packet);
    frame[ETHERNET + offset] ^= bits;
    frame
}

#[test]
fn every_kind_of_damage_is_found() {
    commands_or_skip!("tshark");
    let tcp4 = || packet(false, "tcp", b"payload");
    let tcp6 = || packet(true, "tcp", b"payload");
    let in4 = |inner: Vec<u8>| packet(false, if inner[0] >> 4 == 4 { "ip4" } else { "ip6" }, &inner);
    let in6 = |inner: Vec<u8>| packet(true, if inner[0] >> 4 == 4 { "ip4" } else { "ip6" }, &inner);
    let gue4 = |inner: Vec<u8>| packet(false, "gue", &inner);
    let gue6 = |inner: Vec<u8>| packet(true, "gue", &inner);
    let cut = |packet: Vec<u8>, bytes: usize| frame(&packet[..packet.len() - bytes]);
    let cases = [
        ("IPv4 checksum", damaged(tcp4(), 10, 1)),
        ("TTL changed without the checksum", damaged(tcp4(), 8, 1)),
        ("TCP checksum over IPv4", damaged(tcp4(), V4 + 16, 1)),
        ("TCP checksum over IPv6", damaged(tcp6(), V6 + 16, 1)),
        ("IPv6 address changed without the checksum", damaged(tcp6(), 39, 1)),
        ("UDP checksum over IPv4", damaged(packet(false, "udp", b"payload"), V4 + 6, 1)),
        ("UDP checksum over IPv6", damaged(packet(true, "udp", b"payload"), V6 + 6, 1)),
        ("ICMP checksum", damaged(packet(false, "icmp", b"payload"), V4 + 2, 1)),
        ("ICMPv6 checksum", damaged(packet(true, "icmp", b"payload"), V6 + 2, 1)),
        ("IPv4 header length below the least", damaged(tcp4(), 0, 0b0111)),
        ("IPv4 length longer than the frame", damaged(tcp4(), 2, 1)),
        ("IPv6 length longer than the frame", damaged(tcp6(), 4, 1)),
        ("TCP header length below the least", damaged(tcp4(), V4 + 12, 0b0111_0000)),
        ("UDP length longer than the packet", damaged(packet(false, "udp", b"payload"), V4 + 4, 1)),
        ("IPv4 cut in the payload", cut(tcp4(), 3)),
        ("IPv4 cut in the TCP header", cut(tcp4(), 12)),
        ("IPv6 cut in the TCP header", cut(tcp6(), 12)),
        ("outer IPv4 checksum", damaged(in4(tcp4()), 10, 1)),
        ("inner IPv4 checksum in IPv4", damaged(in4(tcp4()), V4 + 10, 1)),
        ("inner IPv4 checksum in IPv6", damaged(in6(tcp4()), V6 + 10, 1)),
        ("inner TCP checksum, 6in4", damaged(in4(tcp6()), V4 + V6 + 16, 1)),
        ("inner TCP checksum, 6in6", damaged(in6(tcp6()), V6 + V6 + 16, 1)),
        ("inner version, 4in4", damaged(in4(tcp4()), V4, 0x20)),
        ("inner version, 6in6", damaged(in6(tcp6()), V6, 0x20)),
        ("inner version, 4in6", damaged(in6(tcp4()), 6, 41 ^ 4)),
        ("inner version, 6in4", {
            let mut outer = packet(false, "ip4", &tcp6());
            let header = etherparse::Ipv4Header::from_slice(&outer).unwrap().0;
            outer[10..12].copy_from_slice(&header.calc_header_checksum().to_be_bytes());
            frame(&outer)
        }),
        ("a byte behind the inner packet, 4in4", frame(&packet(false, "ip4", &[&tcp4()[..], &[0]].concat()))),
        ("a byte behind the inner packet, 6in6", frame(&packet(true, "ip6", &[&tcp6()[..], &[0]].concat()))),
        ("a byte behind the inner packet, GUE", frame(&gue6([&tcp6()[..], &[0]].concat()))),
        ("inner length, 4in4", damaged(in4(tcp4()), V4 + 2, 1)),
        ("inner length, 6in6", damaged(in6(tcp6()), V6 + 4, 1)),
        ("inner length one too few, 4in4", damaged(in4(tcp4()), V4 + 3, 1)),
        ("outer length, 6in6", damaged(in6(tcp6()), 4, 1)),
        ("GUE over IPv4: UDP checksum", damaged(gue4(tcp4()), V4 + 6, 1)),
        ("GUE over IPv6: UDP checksum", damaged(gue6(tcp6()), V6 + 6, 1)),
        ("GUE over IPv6: no UDP checksum", {
            let mut frame = frame(&gue6(tcp6()));
            frame[ETHERNET + V6 + 6..ETHERNET + V6 + 8].fill(0);
            frame
        }),
        ("GUE: UDP length", damaged(gue4(tcp4()), V4 + 5, 1)),
        ("GUE: version 5 inside", damaged(gue4(tcp4()), V4 + UDP, 0x10)),
        ("GUE: inner TCP checksum", damaged(gue6(tcp4()), V6 + UDP + V4 + 16, 1)),
        ("GUE: inner IPv4 checksum", damaged(gue4(tcp4()), V4 + UDP + 10, 1)),
    ];
    let frames: Vec<Vec<u8>> = cases.iter().map(|(_, frame)| frame.clone()).collect();
    let dissected = dissected(&frames);
    assert_eq!(dissected.packets.len(), cases.len());
    let overlooked: Vec<_> = cases
        .iter()
        .zip(&dissected.packets)
        .inspect(|((what, _), packet)| println!("{what}: {packet}"))
        .filter(|(_, packet)| packet.problems.is_empty())
        .map(|((what, _), _)| what)
        .collect();
    assert!(overlooked.is_empty(), "{overlooked:?}");
    assert_eq!(dissected.offenders().count(), cases.len());
}

#[test]
fn a_file_with_an_offender_fails_the_test_and_names_it() {
    commands_or_skip!("tshark");
    let good = frame(&packet(false, "tcp", b"payload"));
    let bad = damaged(packet(false, "tcp", b"payload"), V4 + 16, 1);
    let path = env::temp_dir().join(format!("xfwd-offender-{}.pcap", process::id()));
    write_pcap(&path, &[captured(good), captured(bad)]).unwrap();
    let result = panic::catch_unwind(|| dissect::assert_well_formed(&path));
    let _ = fs::remove_file(&path);
    let payload = result.unwrap_err();
    let message = payload.downcast_ref::<String>().unwrap();
    assert!(message.contains("packet 2, eth:ethertype:ip:tcp:data 198.18.0.1 198.18.10.1"), "{message}");
    assert!(!message.contains("packet 1,"), "{message}");
}
