//! What the parser of the XDP program finds, header by header.

use xfwd::kernel::xdp::{Steering, XdpProgram};
use xfwd_ebpf_types::{Fragment, Headers, Outcome};
use xfwd_netns::lab_or_skip;

use crate::packets::*;

fn program() -> XdpProgram {
    XdpProgram::load(&Steering::default()).unwrap()
}

fn outcome(program: &mut XdpProgram, frame: &[u8]) -> Outcome {
    program.parse(frame).unwrap().outcome()
}

#[test]
fn tcp_in_ipv4_in_full() {
    lab_or_skip!();
    let content = ipv4(VIP4, TCP, &tcp(PORT, 12, b"hello"));
    // Ethernet padding is not part of the packet.
    let frame = [frame4(&content), vec![0; 6]].concat();
    let expected = Headers {
        outcome: Outcome::Ip as u8,
        ip_version: 4,
        protocol: TCP,
        tcp_flags: 0x12,
        ethertype: 0x0800,
        network_offset: 14,
        transport_offset: 34,
        payload_offset: 34 + 20 + 12,
        src_port: SOURCE_PORT,
        dst_port: PORT,
        end: 34 + 20 + 12 + 5,
        ..Headers::default()
    };
    assert_eq!(program().parse(&frame).unwrap(), expected);
}

#[test]
fn udp_in_ipv6_in_full() {
    lab_or_skip!();
    let frame = frame6(&ipv6(VIP6, UDP, &udp(PORT, b"hello")));
    let expected = Headers {
        outcome: Outcome::Ip as u8,
        ip_version: 6,
        protocol: UDP,
        ethertype: 0x86dd,
        network_offset: 14,
        transport_offset: 54,
        payload_offset: 62,
        src_port: SOURCE_PORT,
        dst_port: PORT,
        end: 67,
        ..Headers::default()
    };
    assert_eq!(program().parse(&frame).unwrap(), expected);
}

#[test]
fn icmp_only_where_it_belongs() {
    lab_or_skip!();
    let mut program = program();
    let found = program.parse(&frame4(&ipv4(VIP4, ICMP, &icmp(3, 4, b"abc")))).unwrap();
    assert_eq!(
        (found.icmp_type, found.icmp_code, found.transport_offset, found.payload_offset),
        (3, 4, 34, 42)
    );
    let found = program.parse(&frame6(&ipv6(VIP6, ICMPV6, &icmp(2, 0, b"abc")))).unwrap();
    assert_eq!(
        (found.icmp_type, found.icmp_code, found.transport_offset, found.payload_offset),
        (2, 0, 54, 62)
    );
    let found = program.parse(&frame4(&ipv4(VIP4, ICMPV6, &icmp(135, 0, b"")))).unwrap();
    assert_eq!((found.outcome(), found.icmp_type, found.transport_offset), (Outcome::Ip, 0, 0));
    let found = program.parse(&frame6(&ipv6(VIP6, ICMP, b"x"))).unwrap();
    assert_eq!((found.outcome(), found.icmp_type, found.transport_offset), (Outcome::Ip, 0, 0));
}

#[test]
fn vlan_tags_up_to_two() {
    lab_or_skip!();
    let mut program = program();
    let content = ipv4(VIP4, UDP, &udp(PORT, b""));
    for (tags, offset) in [
        (&[][..], 14),
        (&[(VLAN, 0xe00a)][..], 18),
        (&[(SERVICE_VLAN, 100)][..], 18),
        (&[(SERVICE_VLAN, 100), (VLAN, 200)][..], 22),
        (&[(VLAN, 100), (VLAN, 200)][..], 22),
        (&[(VLAN, 100), (SERVICE_VLAN, 4095)][..], 22),
    ] {
        let found = program.parse(&ethernet(tags, 0x0800, &content)).unwrap();
        let mut tci = [0; 2];
        for (to, (_, from)) in tci.iter_mut().zip(tags) {
            *to = *from;
        }
        assert_eq!(found.outcome(), Outcome::Ip);
        assert_eq!(usize::from(found.vlan_count), tags.len());
        assert_eq!(found.vlan_tci, tci);
        assert_eq!(found.network_offset, offset);
        assert_eq!(found.transport_offset, offset + 20);
    }
    let three = [(SERVICE_VLAN, 1), (VLAN, 2), (VLAN, 3)];
    let found = program.parse(&ethernet(&three, 0x0800, &content)).unwrap();
    let expected = Headers {
        outcome: Outcome::NotIp as u8,
        vlan_count: 2,
        vlan_tci: [1, 2],
        ethertype: VLAN,
        network_offset: 22,
        ..Headers::default()
    };
    assert_eq!(found, expected);
}

#[test]
fn frame_that_ends_at_its_ethertype_is_not_ip_or_truncated() {
    lab_or_skip!();
    let mut program = program();
    for (ethertype, expected, network_offset) in [
        (0x88cc, Outcome::NotIp, 14),
        (0x0800, Outcome::TruncatedIpv4, 14),
        (0x86dd, Outcome::TruncatedIpv6, 14),
        (VLAN, Outcome::TruncatedVlan, 0),
    ] {
        let found = program.parse(&ethernet(&[], ethertype, &[])).unwrap();
        assert_eq!(found.outcome(), expected);
        assert_eq!(found.network_offset, network_offset);
        assert_eq!(found.ethertype, if network_offset == 0 { 0 } else { ethertype });
    }
    let mut tagged = ethernet(&[(SERVICE_VLAN, 7), (VLAN, 8)], 0x0800, &[]);
    tagged.pop();
    let expected = Headers {
        outcome: Outcome::TruncatedVlan as u8,
        vlan_count: 1,
        vlan_tci: [7, 0],
        ..Headers::default()
    };
    assert_eq!(program.parse(&tagged).unwrap(), expected);
}

#[test]
fn ipv4_options_of_every_length() {
    lab_or_skip!();
    let mut program = program();
    for words in 0..=10 {
        let content = ipv4_part(VIP4, UDP, &vec![1; words * 4], WHOLE, &udp(PORT, b"x"));
        let found = program.parse(&frame4(&content)).unwrap();
        assert_eq!(found.outcome(), Outcome::Ip);
        assert_eq!(usize::from(found.transport_offset), 34 + words * 4);
        assert_eq!(found.dst_port, PORT);
    }
}

#[test]
fn broken_ip_headers() {
    lab_or_skip!();
    let mut program = program();
    let mut expect = |content: &[u8], change: &dyn Fn(&mut [u8]), ip_version: u8, expected: Outcome| {
        let mut content = content.to_vec();
        change(&mut content);
        let ethertype = if matches!(expected, Outcome::Ipv6Version | Outcome::Ipv6PayloadLength) {
            0x86dd
        } else {
            0x0800
        };
        let found = program.parse(&ethernet(&[], ethertype, &content)).unwrap();
        let only = Headers {
            outcome: expected as u8,
            ip_version,
            ethertype,
            network_offset: 14,
            ..Headers::default()
        };
        assert_eq!(found, only);
    };
    let v4 = ipv4(VIP4, UDP, &udp(PORT, b"x"));
    expect(&v4, &|bytes| bytes[0] = 0x65, 0, Outcome::Ipv4Version);
    expect(&v4, &|bytes| bytes[0] = 0x44, 4, Outcome::Ipv4HeaderLength);
    expect(&v4, &|bytes| bytes[0] = 0x4f, 4, Outcome::TruncatedIpv4);
    expect(&v4, &|bytes| bytes[2..4].copy_from_slice(&19_u16.to_be_bytes()), 4, Outcome::Ipv4TotalLength);
    expect(&v4, &|bytes| bytes[3] += 1, 4, Outcome::Ipv4TotalLength);
    expect(&v4, &|bytes| bytes[2..4].copy_from_slice(&[0xff, 0xff]), 4, Outcome::Ipv4TotalLength);
    let v6 = ipv6(VIP6, UDP, &udp(PORT, b"x"));
    expect(&v6, &|bytes| bytes[0] = 0x45, 0, Outcome::Ipv6Version);
    expect(&v6, &|bytes| bytes[5] += 1, 6, Outcome::Ipv6PayloadLength);
    expect(&v6, &|bytes| bytes[4..6].copy_from_slice(&[0xff, 0xff]), 6, Outcome::Ipv6PayloadLength);
}

#[test]
fn ipv6_extension_headers_are_skipped_in_any_order() {
    lab_or_skip!();
    let mut program = program();
    let segment = tcp(PORT, 0, b"x");
    let chain = extension(
        ROUTING,
        1,
        &extension(AUTHENTICATION, 3, &authentication(DESTINATION_OPTIONS, 3, &extension(TCP, 2, &segment))),
    );
    let found = program.parse(&frame6(&ipv6(VIP6, HOP_BY_HOP, &chain))).unwrap();
    assert_eq!(found.outcome(), Outcome::Ip);
    assert_eq!(found.protocol, TCP);
    assert_eq!(found.transport_offset, 54 + 8 + 24 + 24 + 16);
    assert_eq!(found.dst_port, PORT);
    // The largest, 2,048 and 1,028 bytes.
    let chain = extension(AUTHENTICATION, 256, &authentication(TCP, 254, &segment));
    let found = program.parse(&frame6(&ipv6(VIP6, DESTINATION_OPTIONS, &chain))).unwrap();
    assert_eq!(found.outcome(), Outcome::Ip);
    assert_eq!(found.transport_offset, 54 + 2_048 + 1_028);
}

#[test]
fn ipv6_extension_headers_up_to_eight() {
    lab_or_skip!();
    let mut program = program();
    for count in 0..=9 {
        let mut content = udp(PORT, b"x");
        let mut next = UDP;
        for _ in 0..count {
            content = extension(next, 1, &content);
            next = DESTINATION_OPTIONS;
        }
        let found = program.parse(&frame6(&ipv6(VIP6, next, &content))).unwrap();
        if count <= 8 {
            assert_eq!(found.outcome(), Outcome::Ip);
            assert_eq!(found.transport_offset, 54 + 8 * count);
        } else {
            assert_eq!(found.outcome(), Outcome::TooManyExtensions);
            assert_eq!((found.protocol, found.end), (0, 14 + 40 + 8 * 9 + 9));
        }
    }
    // The ninth is one too many even if it is not there.
    let mut content = Vec::new();
    for _ in 0..8 {
        content = extension(DESTINATION_OPTIONS, 1, &content);
    }
    assert_eq!(
        outcome(&mut program, &frame6(&ipv6(VIP6, DESTINATION_OPTIONS, &content))),
        Outcome::TooManyExtensions
    );
}

#[test]
fn no_next_header_and_unknown_protocols_have_no_transport() {
    lab_or_skip!();
    let mut program = program();
    for protocol in [59, 50, 135, 47, 41, 255] {
        let found = program.parse(&frame6(&ipv6(VIP6, protocol, b""))).unwrap();
        assert_eq!(
            (found.outcome(), found.protocol, found.transport_offset, found.end),
            (Outcome::Ip, protocol, 0, 54)
        );
    }
    let found = program.parse(&frame6(&ipv6(VIP6, HOP_BY_HOP, b""))).unwrap();
    assert_eq!(found.outcome(), Outcome::TruncatedExtension);
}

#[test]
fn fragments() {
    lab_or_skip!();
    let mut program = program();
    let datagram = udp(PORT, &[0; 64]);
    for (part, expected) in
        [(WHOLE, Fragment::No), (FIRST, Fragment::First), (MIDDLE, Fragment::Later), (LAST, Fragment::Later)]
    {
        let transport = |offset| if expected == Fragment::Later { 0 } else { offset };
        let found = program.parse(&frame4(&ipv4_part(VIP4, UDP, &[], part, &datagram))).unwrap();
        assert_eq!(found.outcome(), Outcome::Ip);
        assert_eq!((found.fragment(), found.protocol), (expected, UDP));
        assert_eq!(found.transport_offset, transport(34));
        let found =
            program.parse(&frame6(&ipv6(VIP6, FRAGMENT, &fragment_header(UDP, part, &datagram)))).unwrap();
        assert_eq!(found.outcome(), Outcome::Ip);
        assert_eq!((found.fragment(), found.protocol), (expected, UDP));
        assert_eq!(found.transport_offset, transport(62));
        assert_eq!(found.dst_port, transport(PORT));
    }
    // The length of a fragmented datagram goes beyond its first fragment, and only there.
    let first = &datagram[..32];
    assert_eq!(outcome(&mut program, &frame4(&ipv4_part(VIP4, UDP, &[], FIRST, first))), Outcome::Ip);
    assert_eq!(outcome(&mut program, &frame4(&ipv4_part(VIP4, UDP, &[], WHOLE, first))), Outcome::UdpLength);
    // A later fragment may be shorter than any transport header.
    assert_eq!(outcome(&mut program, &frame4(&ipv4_part(VIP4, TCP, &[], LAST, b"x"))), Outcome::Ip);
}

#[test]
fn several_fragment_headers() {
    lab_or_skip!();
    let mut program = program();
    let datagram = udp(PORT, b"x");
    for (outer, inner, expected) in [
        (WHOLE, WHOLE, Fragment::No),
        (WHOLE, FIRST, Fragment::First),
        (FIRST, WHOLE, Fragment::First),
        (FIRST, LAST, Fragment::Later),
    ] {
        let content = fragment_header(FRAGMENT, outer, &fragment_header(UDP, inner, &datagram));
        let found = program.parse(&frame6(&ipv6(VIP6, FRAGMENT, &content))).unwrap();
        assert_eq!((found.outcome(), found.fragment()), (Outcome::Ip, expected));
        assert_eq!(found.protocol, UDP);
    }
    // What is behind a later fragment's header is payload, whatever its number says.
    let content = fragment_header(DESTINATION_OPTIONS, LAST, b"x");
    let found = program.parse(&frame6(&ipv6(VIP6, FRAGMENT, &content))).unwrap();
    assert_eq!((found.outcome(), found.protocol), (Outcome::Ip, DESTINATION_OPTIONS));
}

#[test]
fn broken_transport_headers_keep_their_ports() {
    lab_or_skip!();
    let mut program = program();
    let mut expect = |protocol: u8, segment: Vec<u8>, expected: Outcome| {
        let found = program.parse(&frame4(&ipv4(VIP4, protocol, &segment))).unwrap();
        assert_eq!(found.outcome(), expected);
        assert_eq!((found.transport_offset, found.payload_offset), (34, 0));
        assert_eq!((found.src_port, found.dst_port), (SOURCE_PORT, PORT));
    };
    let mut segment = tcp(PORT, 0, b"x");
    segment[12] = 0x40;
    expect(TCP, segment.clone(), Outcome::TcpDataOffset);
    segment[12] = 0x60;
    expect(TCP, segment, Outcome::TruncatedTcp);
    let mut datagram = udp(PORT, b"xy");
    for length in [0, 7, 11, 0xffff_u16] {
        datagram[4..6].copy_from_slice(&length.to_be_bytes());
        expect(UDP, datagram.clone(), Outcome::UdpLength);
    }
    // A UDP length below the IP payload is fine (RFC 768 does not say otherwise, and it is seen).
    datagram[4..6].copy_from_slice(&9_u16.to_be_bytes());
    assert_eq!(outcome(&mut program, &frame4(&ipv4(VIP4, UDP, &datagram))), Outcome::Ip);
}

/// Cuts frames at every length, as received packets that lie about their length.
#[test]
fn truncation_at_every_length() {
    lab_or_skip!();
    let mut program = program();
    let v4 = ethernet(&[(VLAN, 5)], 0x0800, &ipv4_part(VIP4, TCP, &[1; 8], WHOLE, &tcp(PORT, 4, b"data")));
    for length in 14..v4.len() {
        let expected = match length {
            14..18 => Outcome::TruncatedVlan,
            18..46 => Outcome::TruncatedIpv4,
            _ => Outcome::Ipv4TotalLength,
        };
        assert_eq!(outcome(&mut program, &v4[..length]), expected, "{length} bytes");
    }
    assert_eq!(outcome(&mut program, &v4), Outcome::Ip);
    let v6 = frame6(&ipv6(VIP6, HOP_BY_HOP, &extension(UDP, 2, &udp(PORT, b"data"))));
    for length in 14..v6.len() {
        let expected = if length < 54 { Outcome::TruncatedIpv6 } else { Outcome::Ipv6PayloadLength };
        assert_eq!(outcome(&mut program, &v6[..length]), expected, "{length} bytes");
    }
    assert_eq!(outcome(&mut program, &v6), Outcome::Ip);
}

/// Cuts the IP packet at every length, with a length field that is right, in a frame that is long enough.
#[test]
fn ip_packet_that_ends_early() {
    lab_or_skip!();
    let mut program = program();
    type Case = (u8, Vec<u8>, fn(usize) -> Outcome);
    let cases: [Case; 6] = [
        (TCP, tcp(PORT, 12, b"data"), |length| if length < 32 { Outcome::TruncatedTcp } else { Outcome::Ip }),
        (UDP, udp(PORT, b"data"), |length| match length {
            0..8 => Outcome::TruncatedUdp,
            8..12 => Outcome::UdpLength,
            _ => Outcome::Ip,
        }),
        (
            ICMPV6,
            icmp(128, 0, b"data"),
            |length| {
                if length < 8 { Outcome::TruncatedIcmp } else { Outcome::Ip }
            },
        ),
        (SCTP, vec![7; 13], |length| if length < 12 { Outcome::TruncatedSctp } else { Outcome::Ip }),
        (ROUTING, extension(UDP, 3, &udp(PORT, b"")), |length| match length {
            0..24 => Outcome::TruncatedExtension,
            24..32 => Outcome::TruncatedUdp,
            _ => Outcome::Ip,
        }),
        (FRAGMENT, fragment_header(TCP, FIRST, &tcp(PORT, 0, b"x")), |length| match length {
            0..8 => Outcome::TruncatedExtension,
            8..28 => Outcome::TruncatedTcp,
            _ => Outcome::Ip,
        }),
    ];
    for (protocol, segment, expected) in cases {
        for length in 0..=segment.len() {
            let padding = vec![0xff; segment.len() - length + 64];
            let frame = [frame6(&ipv6(VIP6, protocol, &segment[..length])), padding.clone()].concat();
            assert_eq!(outcome(&mut program, &frame), expected(length), "IPv6, {protocol}, {length} bytes");
            if matches!(protocol, TCP | UDP | SCTP) {
                let frame = [frame4(&ipv4(VIP4, protocol, &segment[..length])), padding].concat();
                assert_eq!(
                    outcome(&mut program, &frame),
                    expected(length),
                    "IPv4, {protocol}, {length} bytes"
                );
            }
        }
    }
}

#[test]
fn packet_in_several_buffers() {
    lab_or_skip!();
    let mut program = program();
    let content = ipv4(VIP4, UDP, &udp(PORT, &[0; 8_000]));
    let found = program.parse(&frame4(&content)).unwrap();
    assert_eq!((found.outcome(), found.end), (Outcome::Ip, 14 + 20 + 8 + 8_000));
    let cut = &frame4(&content)[..8_041];
    assert_eq!(outcome(&mut program, cut), Outcome::Ipv4TotalLength);
    let content = ipv6(VIP6, UDP, &udp(PORT, &[0; 8_000]));
    assert_eq!(outcome(&mut program, &frame6(&content)), Outcome::Ip);
    assert_eq!(outcome(&mut program, &frame6(&content)[..8_061]), Outcome::Ipv6PayloadLength);
    // A header that reaches into the second buffer (from about 3,500 bytes on) is not read.
    let long = extension(DESTINATION_OPTIONS, 255, &extension(UDP, 255, &udp(PORT, &[0; 1_000])));
    let found = program.parse(&frame6(&ipv6(VIP6, DESTINATION_OPTIONS, &long))).unwrap();
    assert_eq!(found.outcome(), Outcome::TruncatedExtension);
    assert_eq!((found.end, found.protocol), (14 + 40 + 2 * 2_040 + 1_008, 0));
}
