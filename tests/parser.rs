//! The parser on whole packets: a table, every truncation, and etherparse as reference on random packets.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use etherparse::{LinkExtSlice, NetSlice, PacketBuilder, SlicedPacket, TransportSlice};
use proptest::prelude::*;
use xfwd::packet::{FiveTuple, Fragment, Headers, Outcome, parse};

use support::{packets, promises};

const CLIENT: [u8; 6] = [2, 0, 0, 0, 0, 1];
const BALANCER: [u8; 6] = [2, 0, 0, 0, 0, 2];
const V6_CLIENT: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
const V6_VIP: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2];
const IP: u8 = Outcome::Ip as u8;

fn tcp4() -> Vec<u8> {
    let mut packet = Vec::new();
    PacketBuilder::ethernet2(CLIENT, BALANCER)
        .ipv4([10, 0, 0, 1], [198, 18, 10, 1], 64)
        .tcp(40_000, 80, 1, 1024)
        .syn()
        .options_raw(&[2, 4, 5, 0xb4])
        .unwrap()
        .write(&mut packet, b"hello")
        .unwrap();
    packet
}

fn udp6() -> Vec<u8> {
    let mut packet = Vec::new();
    PacketBuilder::ethernet2(CLIENT, BALANCER)
        .ipv6(V6_CLIENT, V6_VIP, 64)
        .udp(5353, 53)
        .write(&mut packet, b"query")
        .unwrap();
    packet
}

fn double_tagged_ping() -> Vec<u8> {
    let mut packet = Vec::new();
    PacketBuilder::ethernet2(CLIENT, BALANCER)
        .double_vlan(100.try_into().unwrap(), 200.try_into().unwrap())
        .ipv4([10, 0, 0, 1], [198, 18, 10, 1], 64)
        .icmpv4_echo_request(7, 1)
        .write(&mut packet, b"ping")
        .unwrap();
    packet
}

/// An Ethernet header and what follows it.
fn ethernet(ethertype: u16, rest: &[&[u8]]) -> Vec<u8> {
    [&BALANCER[..], &CLIENT, &ethertype.to_be_bytes(), &rest.concat()].concat()
}

/// An IPv4 packet with these flags and offset, protocol, and payload.
fn ipv4(fragment: u16, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let length = (20 + payload.len() as u16).to_be_bytes();
    let [high, low] = fragment.to_be_bytes();
    let header =
        [0x45, 0, length[0], length[1], 0, 1, high, low, 64, protocol, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
    ethernet(0x0800, &[&header, payload])
}

/// An IPv6 packet with this next header and payload.
fn ipv6(next: u8, payload: &[&[u8]]) -> Vec<u8> {
    let payload = payload.concat();
    let [high, low] = (payload.len() as u16).to_be_bytes();
    ethernet(0x86dd, &[&[0x60, 0, 0, 0, high, low, next, 64], &V6_CLIENT, &V6_VIP, &payload])
}

const UDP: [u8; 8] = [0x9c, 0x40, 0, 80, 0, 8, 0, 0];

fn parsed(packet: &[u8]) -> Headers {
    parse(packet, packet.len())
}

fn outcome(packet: &[u8]) -> Outcome {
    parsed(packet).outcome()
}

#[test]
fn tcp_over_ipv4() {
    let expected = Headers {
        outcome: IP,
        ip_version: 4,
        protocol: 6,
        tcp_flags: 0x02,
        ethertype: 0x0800,
        network_offset: 14,
        transport_offset: 34,
        payload_offset: 58,
        src_port: 40_000,
        dst_port: 80,
        end: 63,
        ..Headers::default()
    };
    assert_eq!(parsed(&tcp4()), expected);
    let padded = [&tcp4()[..], &[0; 9]].concat();
    assert_eq!(parsed(&padded), expected, "Ethernet padding is not the packet's");
}

#[test]
fn udp_over_ipv6() {
    let expected = Headers {
        outcome: IP,
        ip_version: 6,
        protocol: 17,
        ethertype: 0x86dd,
        network_offset: 14,
        transport_offset: 54,
        payload_offset: 62,
        src_port: 5353,
        dst_port: 53,
        end: 67,
        ..Headers::default()
    };
    assert_eq!(parsed(&udp6()), expected);
}

#[test]
fn icmp_behind_two_vlan_tags() {
    let expected = Headers {
        outcome: IP,
        ip_version: 4,
        protocol: 1,
        vlan_count: 2,
        icmp_type: 8,
        vlan_tci: [100, 200],
        ethertype: 0x0800,
        network_offset: 22,
        transport_offset: 42,
        payload_offset: 50,
        end: 54,
        ..Headers::default()
    };
    assert_eq!(parsed(&double_tagged_ping()), expected);
}

#[test]
fn a_third_tag_is_not_looked_into() {
    let tags = [&[0, 1, 0x81, 0][..], &[0, 2, 0x88, 0xa8], &[0, 3, 8, 0]];
    let headers = parsed(&ethernet(0x8100, &tags));
    assert_eq!(headers.outcome(), Outcome::NotIp);
    assert_eq!((headers.vlan_count, headers.vlan_tci, headers.ethertype), (2, [1, 2], 0x88a8));
    assert_eq!(headers.network_offset, 22);
}

#[test]
fn what_is_not_ip() {
    let headers = parsed(&ethernet(0x0806, &[&[0; 28]]));
    let expected = Headers {
        outcome: Outcome::NotIp as u8,
        ethertype: 0x0806,
        network_offset: 14,
        ..Headers::default()
    };
    assert_eq!(headers, expected);
}

#[test]
fn broken_ipv4_headers() {
    let good = ipv4(0, 17, &UDP);
    assert_eq!(outcome(&good), Outcome::Ip);
    let with = |at: usize, value: u8| {
        let mut packet = good.clone();
        packet[14 + at] = value;
        parsed(&packet)
    };
    assert_eq!((with(0, 0x65).outcome(), with(0, 0x65).ip_version), (Outcome::Ipv4Version, 0));
    assert_eq!((with(0, 0x44).outcome(), with(0, 0x44).ip_version), (Outcome::Ipv4HeaderLength, 4));
    assert_eq!(with(0, 0x4f).outcome(), Outcome::TruncatedIpv4, "options behind the end of the packet");
    assert_eq!(with(3, 19).outcome(), Outcome::Ipv4TotalLength, "shorter than its header");
    assert_eq!(with(3, 29).outcome(), Outcome::Ipv4TotalLength, "longer than what was received");
    assert_eq!(with(3, 29).end, 0);
    assert_eq!((with(3, 27).outcome(), with(3, 27).end), (Outcome::TruncatedUdp, 41));
}

#[test]
fn broken_ipv6_headers() {
    let good = ipv6(17, &[&UDP]);
    assert_eq!(outcome(&good), Outcome::Ip);
    let with = |at: usize, value: u8| {
        let mut packet = good.clone();
        packet[14 + at] = value;
        parsed(&packet)
    };
    assert_eq!((with(0, 0x40).outcome(), with(0, 0x40).ip_version), (Outcome::Ipv6Version, 0));
    assert_eq!((with(5, 9).outcome(), with(5, 9).ip_version), (Outcome::Ipv6PayloadLength, 6));
    assert_eq!((with(5, 0).outcome(), with(5, 0).end), (Outcome::TruncatedUdp, 54), "no jumbograms");
}

#[test]
fn broken_transport_headers() {
    let mut tcp = tcp4();
    tcp[34 + 12] = 0x40;
    let headers = parsed(&tcp);
    assert_eq!(headers.outcome(), Outcome::TcpDataOffset);
    assert_eq!((headers.src_port, headers.dst_port, headers.payload_offset), (40_000, 80, 0));
    tcp[34 + 12] = 0xf0;
    assert_eq!(outcome(&tcp), Outcome::TruncatedTcp);

    assert_eq!(outcome(&ipv4(0, 17, &[0, 1, 0, 2, 0, 7, 0, 0])), Outcome::UdpLength);
    assert_eq!(outcome(&ipv4(0, 17, &[0, 1, 0, 2, 0, 9, 0, 0])), Outcome::UdpLength);
    assert_eq!(
        outcome(&ipv4(0, 17, &[0, 1, 0, 2, 0, 8, 0, 0, 1])),
        Outcome::Ip,
        "shorter than the IP payload"
    );
    assert_eq!(outcome(&ipv4(0, 1, &[8, 0, 0, 0, 0, 0, 0])), Outcome::TruncatedIcmp);
    assert_eq!(outcome(&ipv4(0, 6, &[0; 19])), Outcome::TruncatedTcp);
}

#[test]
fn sctp_has_ports_and_a_header_of_12_bytes() {
    let sctp = [0x9c, 0x40, 0x0b, 0x59, 0, 0, 0, 1, 0, 0, 0, 0, 0xff];
    for (packet, transport) in [(ipv4(0, 132, &sctp), 34), (ipv6(132, &[&sctp]), 54)] {
        let headers = parsed(&packet);
        assert_eq!((headers.outcome(), headers.src_port, headers.dst_port), (Outcome::Ip, 40_000, 2905));
        assert_eq!((headers.transport_offset, headers.payload_offset), (transport, transport + 12));
    }
    assert_eq!(outcome(&ipv4(0, 132, &sctp[..11])), Outcome::TruncatedSctp);
    assert_eq!(outcome(&ipv6(132, &[&sctp[..11]])), Outcome::TruncatedSctp);
    assert_eq!(parsed(&ipv4(1, 132, &sctp)).dst_port, 0, "a later fragment has no ports");
}

/// The inner packet is not looked at, not even for whether it is there.
#[test]
fn parsing_stops_at_a_tunnel() {
    let inner = &tcp4()[14..];
    let gre = [&[0, 0, 8, 0], inner].concat();
    for (protocol, content) in
        [(4, inner), (4, &inner[..3]), (41, &udp6()[14..]), (47, &gre), (47, &[]), (50, inner)]
    {
        for packet in [ipv4(0, protocol, content), ipv6(protocol, &[content])] {
            let headers = parsed(&packet);
            assert_eq!((headers.outcome(), headers.protocol), (Outcome::Ip, protocol));
            assert_eq!((headers.transport_offset, headers.payload_offset, headers.dst_port), (0, 0, 0));
        }
    }
}

#[test]
fn ip_options_of_both_versions() {
    assert_eq!(parsed(&tcp4()).ip_options, 0);
    let with_options = |options: usize| {
        let mut packet = ipv4(0, 17, &[&vec![1; options][..], &UDP].concat());
        packet[14] = 0x45 + (options / 4) as u8;
        parsed(&packet)
    };
    assert_eq!((with_options(0).ip_options, with_options(4).ip_options), (0, 1));
    assert_eq!((with_options(40).ip_options, with_options(40).dst_port), (1, 80));

    let chain = |kind: u8, header: &[u8]| parsed(&ipv6(kind, &[header, &UDP]));
    let plain = [17, 0, 1, 4, 0, 0, 0, 0];
    for kind in [0, 43, 60] {
        assert_eq!((chain(kind, &plain).outcome(), chain(kind, &plain).ip_options), (Outcome::Ip, 1));
    }
    assert_eq!(chain(44, &[17, 0, 0, 0, 0, 0, 0, 1]).ip_options, 0, "a fragment header carries none");
    assert_eq!(chain(51, &[17, 0, 0, 0, 0, 0, 0, 1]).ip_options, 0, "nor does an authentication header");
    let cut = chain(0, &[60, 0, 1, 4, 0, 0, 0, 0, 17, 9]);
    assert_eq!((cut.outcome(), cut.ip_options), (Outcome::TruncatedExtension, 1), "what was found stays");
}

#[test]
fn icmp_belongs_to_its_ip_version() {
    for packet in [ipv4(0, 58, &[128, 0, 0, 0, 0, 0, 0, 0]), ipv6(1, &[&[8, 0, 0, 0, 0, 0, 0, 0]])] {
        let headers = parsed(&packet);
        assert_eq!(headers.outcome(), Outcome::Ip);
        assert_eq!((headers.transport_offset, headers.payload_offset, headers.icmp_type), (0, 0, 0));
    }
    assert_eq!(parsed(&ipv6(58, &[&[135, 0, 0, 0, 0, 0, 0, 0]])).icmp_type, 135);
}

#[test]
fn ipv4_fragments() {
    // The UDP length is that of the whole datagram.
    let first = parsed(&ipv4(0x2000, 17, &[0x9c, 0x40, 0, 80, 5, 0, 0, 0]));
    assert_eq!((first.outcome(), first.fragment(), first.dst_port), (Outcome::Ip, Fragment::First, 80));
    let later = parsed(&ipv4(0x0001, 17, &UDP));
    assert_eq!((later.outcome(), later.fragment(), later.protocol), (Outcome::Ip, Fragment::Later, 17));
    assert_eq!((later.transport_offset, later.dst_port), (0, 0));
    assert_eq!(parsed(&ipv4(0x4000, 17, &UDP)).fragment(), Fragment::No, "don't fragment is no fragment");
    assert_eq!(outcome(&ipv4(0x2000, 17, &[0; 8])), Outcome::UdpLength);
}

#[test]
fn ipv6_fragments() {
    let fragment = |next, word: u16, payload: &[u8]| {
        let [high, low] = word.to_be_bytes();
        parsed(&ipv6(44, &[&[next, 0, high, low, 0, 0, 0, 1], payload]))
    };
    let first = fragment(17, 0x0001, &[0x9c, 0x40, 0, 80, 5, 0, 0, 0]);
    assert_eq!((first.outcome(), first.fragment(), first.dst_port), (Outcome::Ip, Fragment::First, 80));
    assert_eq!(first.transport_offset, 62);
    let later = fragment(17, 0x0009, &UDP);
    assert_eq!((later.outcome(), later.fragment(), later.protocol), (Outcome::Ip, Fragment::Later, 17));
    assert_eq!((later.transport_offset, later.dst_port), (0, 0));
    let later = fragment(60, 0x0008, &[17]);
    assert_eq!((later.outcome(), later.protocol), (Outcome::Ip, 60), "what follows is not looked into");
    let atomic = fragment(17, 0, &UDP);
    assert_eq!((atomic.fragment(), atomic.dst_port), (Fragment::No, 80));
}

#[test]
fn ipv6_extension_chains() {
    let options = [60, 0, 1, 4, 0, 0, 0, 0];
    let routing = [51, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let authentication = [17, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let to_routing = [43, 0, 1, 4, 0, 0, 0, 0];
    let headers = parsed(&ipv6(0, &[&options, &to_routing, &routing, &authentication, &UDP]));
    assert_eq!((headers.outcome(), headers.protocol, headers.dst_port), (Outcome::Ip, 17, 80));
    assert_eq!(headers.transport_offset, 54 + 8 + 8 + 16 + 24);

    let chain = |count: usize, last: u8| {
        let mut chain = options.repeat(count);
        chain[(count - 1) * 8] = last;
        parsed(&ipv6(60, &[&chain, &UDP]))
    };
    assert_eq!((chain(8, 17).outcome(), chain(8, 17).dst_port), (Outcome::Ip, 80));
    assert_eq!((chain(9, 17).outcome(), chain(9, 17).protocol), (Outcome::TooManyExtensions, 0));
    assert_eq!((chain(8, 59).outcome(), chain(8, 59).protocol), (Outcome::Ip, 59), "no next header");

    assert_eq!(outcome(&ipv6(0, &[&[17, 0, 0, 0, 0, 0, 0]])), Outcome::TruncatedExtension);
    assert_eq!(outcome(&ipv6(0, &[&[17, 1, 0, 0, 0, 0, 0, 0], &UDP[..7]])), Outcome::TruncatedExtension);
}

/// A packet that was cut off is never taken for a whole one, and its outcome names the header it was cut in.
#[test]
fn every_truncation_is_noticed() {
    let with_extension = ipv6(0, &[&[6, 0, 1, 4, 0, 0, 0, 0], &tcp4()[34..]]);
    for packet in [tcp4(), udp6(), double_tagged_ping(), with_extension] {
        let whole = parsed(&packet);
        assert_eq!(whole.outcome(), Outcome::Ip);
        for length in 0..packet.len() {
            let cut = outcome(&packet[..length]);
            let network = usize::from(whole.network_offset);
            let expected = match (length, whole.ip_version) {
                (0..14, _) => Outcome::TruncatedEthernet,
                _ if length < network => Outcome::TruncatedVlan,
                (_, 4) if length < network + 20 => Outcome::TruncatedIpv4,
                (_, 4) => Outcome::Ipv4TotalLength,
                _ if length < network + 40 => Outcome::TruncatedIpv6,
                _ => Outcome::Ipv6PayloadLength,
            };
            assert_eq!(cut, expected, "{length} of {} bytes", packet.len());

            // The same bytes as first frame of a multi-buffer packet: only the headers have to be there.
            let first_frame = parse(&packet[..length], packet.len());
            if length >= usize::from(whole.payload_offset) {
                assert_eq!(first_frame, whole);
            } else {
                assert!(first_frame.outcome().is_malformed(), "{length} of {} bytes", packet.len());
            }
        }
    }
}

#[test]
fn a_packet_length_below_the_slice_is_ignored() {
    assert_eq!(parse(&tcp4(), 0), parsed(&tcp4()));
}

/// What etherparse finds, in the form of ours; `None` where its rules differ on purpose.
fn reference(packet: &[u8]) -> Option<Headers> {
    let sliced = SlicedPacket::from_ethernet(packet).ok()?;
    let mut expected = Headers { network_offset: 14, outcome: Outcome::NotIp as u8, ..Headers::default() };
    expected.ethertype = u16::from_be_bytes([packet[12], packet[13]]);
    for extension in &sliced.link_exts {
        let LinkExtSlice::Vlan(vlan) = extension else {
            return None;
        };
        // It takes 0x9100, which no standard assigns, for a tag as well.
        if expected.vlan_count == 2 || expected.ethertype == 0x9100 {
            return Some(expected);
        }
        let slice = vlan.slice();
        expected.vlan_tci[usize::from(expected.vlan_count)] = u16::from_be_bytes([slice[0], slice[1]]);
        expected.vlan_count += 1;
        expected.ethertype = vlan.ether_type().0;
        expected.network_offset += 4;
    }
    let offset_of = |slice: &[u8]| (slice.as_ptr() as usize - packet.as_ptr() as usize) as u16;
    let mut later_protocol = None;
    let (payload, fragmented) = match &sliced.net {
        Some(NetSlice::Ipv4(ip)) => {
            expected.ip_version = 4;
            let header = ip.header();
            expected.ip_options = u8::from(!header.options().is_empty());
            expected.fragment = match (header.fragments_offset().value(), header.more_fragments()) {
                (0, false) => Fragment::No,
                (0, true) => Fragment::First,
                _ => Fragment::Later,
            } as u8;
            // etherparse takes an authentication header in IPv4 for an extension, we take it for a protocol.
            (ip.extensions().auth.is_none().then(|| ip.payload())?, ip.payload().fragmented)
        }
        Some(NetSlice::Ipv6(ip)) => {
            expected.ip_version = 6;
            let extensions = ip.extensions().clone().into_iter();
            // It goes on behind more than eight of them, and takes the payload length 0 for "unknown".
            if extensions.clone().count() > 8 || ip.header().payload_length() == 0 {
                return None;
            }
            for extension in extensions {
                use etherparse::Ipv6ExtensionSlice as Extension;
                let fragment = match extension {
                    Extension::Fragment(fragment) => fragment,
                    Extension::Authentication(_) => continue,
                    Extension::HopByHop(_) | Extension::Routing(_) | Extension::DestinationOptions(_) => {
                        expected.ip_options = 1;
                        continue;
                    }
                };
                if fragment.fragment_offset().value() > 0 {
                    // It goes on behind the fragment header of a later fragment.
                    expected.fragment = Fragment::Later as u8;
                    later_protocol = Some(fragment.next_header().0);
                    break;
                }
                if fragment.more_fragments() {
                    expected.fragment = Fragment::First as u8;
                }
            }
            (ip.payload(), ip.payload().fragmented)
        }
        _ => return Some(expected),
    };
    expected.outcome = IP;
    expected.protocol = later_protocol.unwrap_or(payload.ip_number.0);
    expected.end = u32::from(offset_of(payload.payload)) + payload.payload.len() as u32;
    assert_eq!(fragmented, expected.fragment != 0);
    if expected.fragment == Fragment::First as u8 {
        // It does not look into the first fragment: this much it says.
        return Some(expected);
    }
    match &sliced.transport {
        Some(TransportSlice::Tcp(tcp)) => {
            expected.transport_offset = offset_of(tcp.slice());
            expected.payload_offset = offset_of(tcp.payload());
            (expected.src_port, expected.dst_port) = (tcp.source_port(), tcp.destination_port());
            expected.tcp_flags = tcp.slice()[13];
        }
        Some(TransportSlice::Udp(udp)) => {
            expected.transport_offset = offset_of(udp.slice());
            expected.payload_offset = offset_of(udp.payload());
            (expected.src_port, expected.dst_port) = (udp.source_port(), udp.destination_port());
        }
        Some(TransportSlice::Icmpv4(icmp)) if expected.ip_version == 4 => {
            (expected.icmp_type, expected.icmp_code) = (icmp.type_u8(), icmp.code_u8());
            expected.transport_offset = offset_of(icmp.slice());
            expected.payload_offset = expected.transport_offset + 8;
        }
        Some(TransportSlice::Icmpv6(icmp)) if expected.ip_version == 6 => {
            (expected.icmp_type, expected.icmp_code) = (icmp.type_u8(), icmp.code_u8());
            expected.transport_offset = offset_of(icmp.slice());
            expected.payload_offset = expected.transport_offset + 8;
        }
        // It does not know SCTP.
        None if expected.protocol == 132 && expected.fragment == Fragment::No as u8 => {
            let header = payload.payload;
            expected.transport_offset = offset_of(header);
            expected.payload_offset = expected.transport_offset + 12;
            expected.src_port = u16::from_be_bytes([header[0], header[1]]);
            expected.dst_port = u16::from_be_bytes([header[2], header[3]]);
        }
        _ => {}
    }
    Some(expected)
}

#[test]
fn agrees_with_etherparse_on_well_formed_packets() {
    let (mut compared, mut differing_rules, mut transports, mut fragments) = (0, 0, 0, 0);
    for seed in 0..50_000 {
        let packet = packets::well_formed(seed);
        let Some(expected) = reference(&packet) else {
            differing_rules += 1;
            continue;
        };
        let mut headers = parsed(&packet);
        if headers.fragment() == Fragment::First {
            transports += i32::from(headers.transport_offset != 0);
            headers = Headers {
                transport_offset: 0,
                payload_offset: 0,
                src_port: 0,
                dst_port: 0,
                tcp_flags: 0,
                icmp_type: 0,
                icmp_code: 0,
                ..headers
            };
        }
        assert_eq!(headers, expected, "seed {seed}: {:02x?}", &packet[..packet.len().min(120)]);
        compared += 1;
        fragments += i32::from(headers.fragment != 0);
        transports += i32::from(headers.transport_offset != 0);
    }
    assert!(compared > 45_000, "{differing_rules} packets not compared");
    assert!(
        transports > 30_000 && fragments > 5_000,
        "{transports} transport headers, {fragments} fragments"
    );
}

/// The generator has to reach every outcome, or comparing parsers on it says little.
#[test]
fn generated_packets_reach_every_outcome() {
    let mut seen = [0u32; Outcome::ALL.len()];
    for seed in 0..100_000 {
        let packet = packets::packet(seed);
        let headers = parsed(&packet);
        seen[usize::from(headers.outcome)] += 1;
        promises::check(&packet);
    }
    for (outcome, count) in Outcome::ALL.iter().zip(seen) {
        println!("{:>26} {count}", outcome.name());
        assert!(count >= 20, "{}: {count}", outcome.name());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_bytes_never_panic(packet in proptest::collection::vec(any::<u8>(), 0..200), extra in 0usize..3000) {
        promises::check(&packet);
        promises::check_headers(&packet, packet.len() + extra, &parse(&packet, packet.len() + extra));
    }

    #[test]
    fn fragments_of_a_datagram_belong_to_one_flow(offset in 1u16..0x2000, src_port: u16, dst_port: u16) {
        let [a, b] = src_port.to_be_bytes();
        let [c, d] = dst_port.to_be_bytes();
        let first = ipv4(0x2000, 17, &[a, b, c, d, 5, 0, 0, 0]);
        let later = ipv4(offset, 17, b"anything");
        let whole = ipv4(0, 17, &[a, b, c, d, 0, 8, 0, 0]);
        let tuple = |packet: &[u8]| FiveTuple::of(packet, &parsed(packet)).unwrap();
        prop_assert_eq!(tuple(&first), tuple(&later));
        prop_assert_eq!((tuple(&whole).src_port, tuple(&whole).dst_port), (src_port, dst_port));
        prop_assert_eq!(tuple(&whole).source().ip().to_string(), "10.0.0.1");
    }
}
