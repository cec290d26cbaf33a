//! Generated packets and their bounced ones, built anew by `etherparse`, which shares no code with either side.
#![allow(missing_docs, clippy::unwrap_used, reason = "each test uses a part of it, and fails by panicking")]

use std::net::IpAddr;

use etherparse::{
    EtherType, Ethernet2Header, IcmpEchoHeader, Icmpv4Header, Icmpv4Type, Icmpv6Header, Icmpv6Type, IpNumber,
    Ipv4Header, Ipv6Header, SingleVlanHeader, TcpHeader, UdpHeader,
};
use xfwd_netns::{
    MacAddress,
    trafficgen::{MARKER, Protocol, Traffic},
};

const HOP_LIMIT: u8 = 64;
const SHORTEST_FRAME: usize = 60;

/// One packet of a generator's traffic.
pub struct Flow<'a> {
    traffic: &'a Traffic,
    source_mac: MacAddress,
    source: IpAddr,
    source_port: u16,
    /// Number of the packet.
    number: u32,
}

impl<'a> Flow<'a> {
    /// Packet `number` of `traffic`, by the rules that [`Traffic`] states.
    pub fn of(traffic: &'a Traffic, source_mac: MacAddress, number: u64) -> Self {
        let flow = number as u32 % traffic.flows;
        let offset = flow % traffic.source_addresses;
        let source = match traffic.source {
            IpAddr::V4(first) => IpAddr::V4((u32::from(first) + offset).into()),
            IpAddr::V6(first) => IpAddr::V6((u128::from(first) + u128::from(offset)).into()),
        };
        let source_port = traffic.source_port + (flow / traffic.source_addresses) as u16;
        Self { traffic, source_mac, source, source_port, number: number as u32 }
    }
}

/// What has to come back for a packet, by layer: `l2`, `l3` or `l4`.
pub fn bounced(flow: &Flow<'_>, layer: &str) -> Vec<u8> {
    let traffic = flow.traffic;
    let (swaps_ip, swaps_ports) = (layer != "l2", layer == "l4");
    let (source, destination) = swapped(swaps_ip, flow.source, traffic.destination);
    let ports = swapped(swaps_ports, flow.source_port, traffic.destination_port);

    let tags_bytes = 4 * traffic.vlans.len();
    let ip_bytes = if source.is_ipv4() { 20 } else { 40 };
    let transport_bytes = if traffic.protocol == Protocol::TcpSyn { 20 } else { 8 };
    let headers_bytes = 14 + tags_bytes + ip_bytes + transport_bytes;
    let mut payload = Vec::new();
    if traffic.protocol != Protocol::TcpSyn {
        payload.extend(MARKER);
        payload.extend(flow.number.to_be_bytes());
        let end = traffic.frame_length.max(SHORTEST_FRAME);
        payload.extend((headers_bytes + payload.len()..end).map(|at| at as u8));
    }

    let (transport, protocol) = transport(flow, source, destination, ports, &payload, swaps_ports);
    let mut frame = Vec::new();
    link(flow, &mut frame);
    let length = transport.len() + payload.len();
    match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let (source, destination) = (source.octets(), destination.octets());
            let mut header =
                Ipv4Header::new(length as u16, HOP_LIMIT, protocol, source, destination).unwrap();
            header.dont_fragment = true;
            header.header_checksum = header.calc_header_checksum();
            header.write(&mut frame).unwrap();
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => Ipv6Header {
            payload_length: length as u16,
            next_header: protocol,
            hop_limit: HOP_LIMIT,
            source: source.octets(),
            destination: destination.octets(),
            ..Ipv6Header::default()
        }
        .write(&mut frame)
        .unwrap(),
        other => panic!("{other:?}"),
    }
    frame.extend(transport);
    frame.extend(payload);
    frame.resize(frame.len().max(SHORTEST_FRAME), 0);
    frame
}

fn swapped<T>(swap: bool, left: T, right: T) -> (T, T) {
    if swap { (right, left) } else { (left, right) }
}

/// From the subject back to the generator, with the tags of the way there.
fn link(flow: &Flow<'_>, frame: &mut Vec<u8>) {
    let ip = if flow.source.is_ipv4() { EtherType::IPV4 } else { EtherType::IPV6 };
    let vlans = &flow.traffic.vlans;
    let kinds = match vlans.len() {
        0 => vec![ip],
        1 => vec![EtherType::VLAN_TAGGED_FRAME, ip],
        _ => vec![EtherType::PROVIDER_BRIDGING, EtherType::VLAN_TAGGED_FRAME, ip],
    };
    Ethernet2Header {
        source: flow.traffic.destination_mac.0,
        destination: flow.source_mac.0,
        ether_type: kinds[0],
    }
    .write(frame)
    .unwrap();
    for (vlan, kind) in vlans.iter().zip(&kinds[1..]) {
        let header = SingleVlanHeader {
            vlan_id: (*vlan).try_into().unwrap(),
            ether_type: *kind,
            ..SingleVlanHeader::default()
        };
        header.write(frame).unwrap();
    }
}

fn transport(
    flow: &Flow<'_>,
    source: IpAddr,
    destination: IpAddr,
    (source_port, destination_port): (u16, u16),
    payload: &[u8],
    answers_echo: bool,
) -> (Vec<u8>, IpNumber) {
    match flow.traffic.protocol {
        Protocol::Udp => {
            let length = (8 + payload.len()) as u16;
            let mut header = UdpHeader { source_port, destination_port, length, checksum: 0 };
            header.checksum = match (source, destination) {
                (IpAddr::V4(source), IpAddr::V4(destination)) => {
                    header.calc_checksum_ipv4_raw(source.octets(), destination.octets(), payload)
                }
                (IpAddr::V6(source), IpAddr::V6(destination)) => {
                    header.calc_checksum_ipv6_raw(source.octets(), destination.octets(), payload)
                }
                other => panic!("{other:?}"),
            }
            .unwrap();
            (header.to_bytes().to_vec(), IpNumber::UDP)
        }
        Protocol::TcpSyn => {
            let mut header = TcpHeader::new(source_port, destination_port, flow.number, 65_535);
            header.syn = true;
            header.checksum = match (source, destination) {
                (IpAddr::V4(source), IpAddr::V4(destination)) => {
                    header.calc_checksum_ipv4_raw(source.octets(), destination.octets(), payload)
                }
                (IpAddr::V6(source), IpAddr::V6(destination)) => {
                    header.calc_checksum_ipv6_raw(source.octets(), destination.octets(), payload)
                }
                other => panic!("{other:?}"),
            }
            .unwrap();
            (header.to_bytes().to_vec(), IpNumber::TCP)
        }
        Protocol::IcmpEcho => {
            let echo = IcmpEchoHeader { id: flow.source_port, seq: 1 };
            match (source, destination) {
                (IpAddr::V4(_), IpAddr::V4(_)) => {
                    let kind = if answers_echo {
                        Icmpv4Type::EchoReply(echo)
                    } else {
                        Icmpv4Type::EchoRequest(echo)
                    };
                    (Icmpv4Header::with_checksum(kind, payload).to_bytes().to_vec(), IpNumber::ICMP)
                }
                (IpAddr::V6(source), IpAddr::V6(destination)) => {
                    let kind = if answers_echo {
                        Icmpv6Type::EchoReply(echo)
                    } else {
                        Icmpv6Type::EchoRequest(echo)
                    };
                    let (source, destination) = (source.octets(), destination.octets());
                    let header = Icmpv6Header::with_checksum(kind, source, destination, payload).unwrap();
                    (header.to_bytes().to_vec(), IpNumber::IPV6_ICMP)
                }
                other => panic!("{other:?}"),
            }
        }
    }
}
