//! Packets, put together header by header.

use std::net::{Ipv4Addr, Ipv6Addr};

use etherparse::{
    ArpHardwareId, ArpOperation, ArpPacket, EtherType, Ethernet2Header, IpFragOffset, IpNumber, Ipv4Header,
    Ipv4Options, Ipv6FragmentHeader, Ipv6Header, Ipv6RawExtHeader, SingleVlanHeader, TcpHeader, UdpHeader,
    VlanId,
};

pub const TCP: u8 = 6;
pub const UDP: u8 = 17;
pub const ICMP: u8 = 1;
pub const ICMPV6: u8 = 58;
pub const FRAGMENT: u8 = 44;
pub const HOP_BY_HOP: u8 = 0;
pub const ROUTING: u8 = 43;
pub const AUTHENTICATION: u8 = 51;
pub const DESTINATION_OPTIONS: u8 = 60;
pub const SCTP: u8 = 132;

pub const VLAN: u16 = 0x8100;
pub const SERVICE_VLAN: u16 = 0x88a8;
pub const ARP: u16 = 0x0806;

pub const VIP4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 10);
pub const OTHER4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 99);
pub const HOST4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
pub const VIP6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x10);
pub const OTHER6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x99);
pub const HOST6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
pub const SOURCE_PORT: u16 = 40_000;
pub const PORT: u16 = 443;

/// An Ethernet frame with VLAN tags (tag protocol and TCI each) around `content`.
pub fn ethernet(tags: &[(u16, u16)], ethertype: u16, content: &[u8]) -> Vec<u8> {
    let mut following = tags.iter().map(|&(protocol, _)| protocol).chain([ethertype]);
    let mut frame = Ethernet2Header {
        destination: [2, 0, 0, 0, 0, 1],
        source: [2, 0, 0, 0, 0, 2],
        ether_type: EtherType(following.next().unwrap()),
    }
    .to_bytes()
    .to_vec();
    for &(_, tci) in tags {
        let tag = SingleVlanHeader {
            pcp: ((tci >> 13) as u8).try_into().unwrap(),
            drop_eligible_indicator: tci & 0x1000 != 0,
            vlan_id: VlanId::try_new(tci & 0xfff).unwrap(),
            ether_type: EtherType(following.next().unwrap()),
        };
        frame.extend(tag.to_bytes());
    }
    frame.extend(content);
    frame
}

/// What of a datagram a packet carries: offset in units of 8 bytes, and whether more follows.
pub type Part = (u16, bool);
pub const WHOLE: Part = (0, false);
pub const FIRST: Part = (0, true);
pub const MIDDLE: Part = (185, true);
pub const LAST: Part = (370, false);

pub fn ipv4_part(
    to: Ipv4Addr,
    protocol: u8,
    options: &[u8],
    (offset, more): Part,
    payload: &[u8],
) -> Vec<u8> {
    let mut header = Ipv4Header::new(0, 64, IpNumber(protocol), [198, 51, 100, 7], to.octets()).unwrap();
    header.options = Ipv4Options::try_from(options).unwrap();
    header.set_payload_len(payload.len()).unwrap();
    header.fragment_offset = IpFragOffset::try_new(offset).unwrap();
    header.more_fragments = more;
    header.header_checksum = header.calc_header_checksum();
    [header.to_bytes().as_slice(), payload].concat()
}

pub fn ipv4(to: Ipv4Addr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    ipv4_part(to, protocol, &[], WHOLE, payload)
}

pub fn ipv6(to: Ipv6Addr, next_header: u8, payload: &[u8]) -> Vec<u8> {
    let header = Ipv6Header {
        payload_length: payload.len().try_into().unwrap(),
        next_header: IpNumber(next_header),
        hop_limit: 64,
        source: Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 7).octets(),
        destination: to.octets(),
        ..Ipv6Header::default()
    };
    [header.to_bytes().as_slice(), payload].concat()
}

/// Hop-by-hop, routing or destination options of 8 * `units` bytes.
pub fn extension(next_header: u8, units: usize, payload: &[u8]) -> Vec<u8> {
    let header = Ipv6RawExtHeader::new_raw(IpNumber(next_header), &vec![0; units * 8 - 2]).unwrap();
    [header.to_bytes().as_slice(), payload].concat()
}

/// AH with an integrity check value of 4 * `words` bytes.
pub fn authentication(next_header: u8, words: usize, payload: &[u8]) -> Vec<u8> {
    let icv = vec![0; words * 4];
    let header = etherparse::IpAuthHeader::new(IpNumber(next_header), 1, 1, &icv).unwrap();
    [header.to_bytes().as_slice(), payload].concat()
}

pub fn fragment_header(next_header: u8, (offset, more): Part, payload: &[u8]) -> Vec<u8> {
    let offset = IpFragOffset::try_new(offset).unwrap();
    let header = Ipv6FragmentHeader::new(IpNumber(next_header), offset, more, 7);
    [header.to_bytes().as_slice(), payload].concat()
}

pub fn tcp(port: u16, option_bytes: usize, payload: &[u8]) -> Vec<u8> {
    let mut header = TcpHeader::new(SOURCE_PORT, port, 1, 64_240);
    header.syn = true;
    header.ack = true;
    header.set_options_raw(&vec![1; option_bytes]).unwrap();
    [header.to_bytes().as_slice(), payload].concat()
}

pub fn udp(port: u16, payload: &[u8]) -> Vec<u8> {
    let header = UdpHeader {
        source_port: SOURCE_PORT,
        destination_port: port,
        length: (8 + payload.len()).try_into().unwrap(),
        checksum: 0x1234,
    };
    [header.to_bytes().as_slice(), payload].concat()
}

/// ICMP and ICMPv6 start alike; the checksum is of no interest here.
pub fn icmp(kind: u8, code: u8, payload: &[u8]) -> Vec<u8> {
    [&[kind, code, 0, 0, 0, 1, 0, 1][..], payload].concat()
}

pub fn arp() -> Vec<u8> {
    let packet = ArpPacket::new(
        ArpHardwareId::ETHERNET,
        EtherType::IPV4,
        ArpOperation::REQUEST,
        &[2, 0, 0, 0, 0, 2],
        &[198, 51, 100, 7],
        &[0; 6],
        &HOST4.octets(),
    )
    .unwrap();
    packet.to_bytes().to_vec()
}

pub fn frame4(content: &[u8]) -> Vec<u8> {
    ethernet(&[], 0x0800, content)
}

pub fn frame6(content: &[u8]) -> Vec<u8> {
    ethernet(&[], 0x86dd, content)
}

/// An ICMP error, which quotes `packet` as far as RFC 792 asks for: its IP header and 8 bytes.
pub fn icmp_error(kind: u8, packet: &[u8], header_bytes: usize) -> Vec<u8> {
    icmp(kind, 0, &packet[..packet.len().min(header_bytes + 8)])
}

/// A TCP or UDP packet from a service to some client.
pub fn answer4(from: Ipv4Addr, protocol: u8, port: u16) -> Vec<u8> {
    let mut packet = ipv4(Ipv4Addr::new(203, 0, 113, 5), protocol, &segment(protocol, SOURCE_PORT));
    packet[12..16].copy_from_slice(&from.octets());
    packet[20..22].copy_from_slice(&port.to_be_bytes());
    packet
}

/// As [`answer4`], in IPv6.
pub fn answer6(from: Ipv6Addr, protocol: u8, port: u16) -> Vec<u8> {
    let mut packet = ipv6(OTHER6, protocol, &segment(protocol, SOURCE_PORT));
    packet[8..24].copy_from_slice(&from.octets());
    packet[40..42].copy_from_slice(&port.to_be_bytes());
    packet
}

/// A TCP or UDP header with some payload.
pub fn segment(protocol: u8, port: u16) -> Vec<u8> {
    if protocol == TCP { tcp(port, 0, b"payload") } else { udp(port, b"payload") }
}
