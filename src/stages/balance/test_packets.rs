//! Packets for the tests of this stage's parts, and plain second ways to say whether they are right.

use etherparse::{PacketBuilder, PacketBuilderStep, ether_type};

use crate::packet::{Fragment, Headers, Outcome, parse};
use crate::pipeline::{Batch, Packet, Span};

pub const CLIENT_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
pub const OUR_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];
pub const CLIENT4: [u8; 4] = [198, 18, 0, 1];
pub const VIP4: [u8; 4] = [198, 18, 10, 1];
pub const CLIENT6: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
pub const VIP6: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];

/// Puts the packet into a buffer with so many bytes in front of it and behind it, parses it and calls `work`; gives what
/// that returns, and the packet afterwards.
pub fn in_buffer<R>(
    bytes: &[u8],
    front: usize,
    back: usize,
    work: impl FnOnce(&mut Packet<'_>) -> R,
) -> (R, Vec<u8>) {
    let mut buffer = [vec![0xaa; front], bytes.to_vec(), vec![0xaa; back]].concat();
    let mut batch = Batch::new(0);
    batch.push_at(&mut buffer, Span { start: front, end: front + bytes.len() }, bytes.len() as u32);
    batch.parse();
    let packet = batch.packet_mut(0);
    let result = work(packet);
    (result, packet.bytes().to_vec())
}

fn link() -> PacketBuilderStep<etherparse::Ethernet2Header> {
    PacketBuilder::ethernet2(CLIENT_MAC, OUR_MAC)
}

pub fn tcp4(payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let step = link().ipv4(CLIENT4, VIP4, 64).tcp(40_000, 80, 1_000, 512).ack(2_000);
    step.write(&mut bytes, payload).unwrap();
    bytes
}

pub fn tcp6(payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let step = link().ipv6(CLIENT6, VIP6, 64).tcp(40_000, 80, 1_000, 512).ack(2_000);
    step.write(&mut bytes, payload).unwrap();
    bytes
}

pub fn udp4(payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    link().ipv4(CLIENT4, VIP4, 64).udp(40_000, 53).write(&mut bytes, payload).unwrap();
    bytes
}

pub fn udp6(payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    link().ipv6(CLIENT6, VIP6, 64).udp(40_000, 53).write(&mut bytes, payload).unwrap();
    bytes
}

/// The same with VLAN tags 100, 101 ... in front.
pub fn with_tags(mut packet: Vec<u8>, tags: usize) -> Vec<u8> {
    for tag in (0..tags).rev() {
        let [high, low] = ether_type::VLAN_TAGGED_FRAME.0.to_be_bytes();
        packet.splice(12..12, [high, low, 0, 100 + tag as u8]);
    }
    packet
}

/// A packet with so many VLAN tags.
pub fn tagged(tags: usize) -> Vec<u8> {
    with_tags(tcp4(b"hello"), tags)
}

/// The checksum by its definition, a pair of bytes at a time.
pub fn plain_checksum(parts: &[&[u8]]) -> u16 {
    let mut sum = 0u32;
    for part in parts {
        for pair in part.chunks(2) {
            sum += u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
            sum = (sum & 0xffff) + (sum >> 16);
        }
    }
    !(sum as u16)
}

/// The pseudo header of the packet's transport protocol.
pub fn pseudo_header(bytes: &[u8], headers: &Headers) -> Vec<u8> {
    let network = &bytes[headers.network_offset.into()..];
    let addresses = if headers.ip_version == 4 { &network[12..20] } else { &network[8..40] };
    let length = headers.end - u32::from(headers.transport_offset);
    [addresses, &length.to_be_bytes(), &[0, headers.protocol]].concat()
}

/// What the transport checksum of a packet sums up to: 0 if it is right.
pub fn transport_checksum(bytes: &[u8], headers: &Headers) -> u16 {
    let segment = &bytes[headers.transport_offset.into()..headers.end as usize];
    let pseudo = pseudo_header(bytes, headers);
    let covered: &[&[u8]] = if headers.protocol == 1 { &[segment] } else { &[&pseudo, segment] };
    plain_checksum(covered)
}

/// The packet with a right transport checksum, if it is a whole TCP, UDP or ICMP one.
pub fn right_checksums(mut bytes: Vec<u8>) -> Vec<u8> {
    let headers = parse(&bytes, bytes.len());
    let at = match headers.protocol {
        6 => 16,
        17 => 6,
        1 | 58 => 2,
        _ => return bytes,
    };
    if headers.outcome() != Outcome::Ip || headers.fragment() != Fragment::No || headers.transport_offset == 0
    {
        return bytes;
    }
    let at = usize::from(headers.transport_offset) + at;
    bytes[at..at + 2].fill(0);
    let checksum = match transport_checksum(&bytes, &headers) {
        0 if headers.protocol == 17 => 0xffff,
        checksum => checksum,
    };
    bytes[at..at + 2].copy_from_slice(&checksum.to_be_bytes());
    bytes
}
