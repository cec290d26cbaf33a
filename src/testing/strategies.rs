//! Packets for `proptest`.
//!
//! ```
//! use proptest::prelude::*;
//! use xfwd::stages::bounce::{Bounce, Layer};
//! use xfwd::testing::{Harness, strategies};
//!
//! proptest!(|(packet in strategies::any_packet())| {
//!     let processed = Harness::new(Bounce::new(Layer::L4)).one(&packet);
//!     prop_assert_eq!(processed.bytes.len(), packet.len());
//! });
//! ```

use proptest::collection::{SizeRange, vec};
use proptest::prelude::{Just, Strategy, any, prop_oneof};

use super::packets;
use crate::packet::protocol::{ETHERTYPE_IPV4, ETHERTYPE_IPV6, TCP, UDP};
use crate::packet::{Ipv4, Ipv6};

/// Longest arbitrary packet: that of an Ethernet without jumbo frames.
const MAX_BYTES: usize = 1_514;

/// Packets as a sender would send them, of all kinds ([`packets::well_formed`]): tags, options, extension headers, fragments, TCP, UDP,
/// SCTP, ICMP and other protocols. Transport checksums are random. They are found by seed, so a failing one is not made smaller.
pub fn well_formed() -> impl Strategy<Value = Vec<u8>> + Clone {
    any::<u64>().no_shrink().prop_map(packets::well_formed)
}

/// The same, with right checksums wherever all of a datagram is there.
pub fn with_checksums() -> impl Strategy<Value = Vec<u8>> + Clone {
    well_formed().prop_map(packets::with_checksums)
}

/// Packets two in five of which are damaged ([`packets::packet`]); they are not made smaller either.
pub fn damaged() -> impl Strategy<Value = Vec<u8>> + Clone {
    any::<u64>().no_shrink().prop_map(packets::packet)
}

/// Any bytes at all, up to 1,514.
pub fn arbitrary() -> impl Strategy<Value = Vec<u8>> + Clone {
    vec(any::<u8>(), 0..=MAX_BYTES)
}

/// All of the above.
pub fn any_packet() -> impl Strategy<Value = Vec<u8>> + Clone {
    prop_oneof![4 => well_formed(), 2 => with_checksums(), 4 => damaged(), 1 => arbitrary()]
}

/// UDP datagrams with right checksums over IPv4 and IPv6 between two hosts, without options and tags. A failing one is made
/// smaller: shorter payload, lower ports.
///
/// # Panics
///
/// When the payload is longer than 1,400 bytes.
pub fn udp(payload: impl Into<SizeRange>) -> impl Strategy<Value = Vec<u8>> + Clone {
    transport(UDP, payload.into())
}

/// TCP segments like [`udp`], with any flags and numbers.
///
/// # Panics
///
/// When the payload is longer than 1,400 bytes.
pub fn tcp(payload: impl Into<SizeRange>) -> impl Strategy<Value = Vec<u8>> + Clone {
    transport(TCP, payload.into())
}

fn transport(protocol: u8, payload: SizeRange) -> impl Strategy<Value = Vec<u8>> + Clone {
    assert!(payload.end_excl() <= 1_401, "the packet would be too long");
    let hosts = prop_oneof![Just(4u8), Just(6u8)];
    (hosts, 1u16.., 1u16.., 1u8.., any::<[u8; 12]>(), vec(any::<u8>(), payload)).prop_map(
        move |(version, source, destination, hops, rest, payload)| {
            let mut segment = [source.to_be_bytes(), destination.to_be_bytes()].concat();
            if protocol == UDP {
                segment.extend((8 + payload.len() as u16).to_be_bytes());
                segment.extend([0; 2]);
            } else {
                segment.extend(&rest[..8]);
                segment.extend([0x50, rest[8], rest[9], rest[10], 0, 0, 0, 0]);
            }
            segment.extend(&payload);
            packets::with_checksums(framed(version, protocol, hops, &segment))
        },
    )
}

/// A segment behind Ethernet and IP headers.
fn framed(version: u8, protocol: u8, hops: u8, segment: &[u8]) -> Vec<u8> {
    let length = segment.len() as u16;
    let mut packet = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1];
    let mut header = [0; 40];
    let header = if version == 4 {
        header[0] = 0x45;
        if let Ok(mut ip) = Ipv4::new_checked(&mut header[..20]) {
            ip.set_total_bytes(20 + length);
            ip.set_protocol(protocol);
            ip.set_ttl(hops);
            ip.set_source(packets::IPV4[3].into());
            ip.set_destination(packets::IPV4[0].into());
        }
        packet.extend(ETHERTYPE_IPV4.to_be_bytes());
        &header[..20]
    } else {
        if let Ok(mut ip) = Ipv6::new_checked(&mut header[..]) {
            ip.set_class_and_label(0, 0);
            ip.set_payload_bytes(length);
            ip.set_next_header(protocol);
            ip.set_hop_limit(hops);
            ip.set_source(packets::IPV6[1].into());
            ip.set_destination(packets::IPV6[0].into());
        }
        packet.extend(ETHERTYPE_IPV6.to_be_bytes());
        &header[..]
    };
    packet.extend(header);
    packet.extend(segment);
    packet
}

#[cfg(test)]
mod tests {
    use etherparse::{SlicedPacket, TransportSlice};
    use proptest::prelude::*;

    use super::*;
    use crate::packet::{Outcome, parse};

    proptest! {
        #[test]
        fn datagrams_and_segments_are_what_they_say(udp in udp(0..=100), tcp in tcp(3)) {
            let udp_length = udp.len();
            let sliced = SlicedPacket::from_ethernet(&udp).unwrap();
            let Some(TransportSlice::Udp(datagram)) = sliced.transport else { panic!("no UDP") };
            prop_assert_eq!(datagram.payload().len() + 8 + sliced.net.as_ref().map_or(0, |net| match net {
                etherparse::NetSlice::Ipv4(_) => 34,
                _ => 54,
            }), udp_length);
            prop_assert_eq!(parse(&tcp, tcp.len()).outcome(), Outcome::Ip);
            let sliced = SlicedPacket::from_ethernet(&tcp).unwrap();
            let Some(TransportSlice::Tcp(segment)) = sliced.transport else { panic!("no TCP") };
            let checksum = match sliced.net {
                Some(etherparse::NetSlice::Ipv4(ip)) => segment.calc_checksum_ipv4(ip.header().source(), ip.header().destination()),
                Some(etherparse::NetSlice::Ipv6(ip)) => segment.calc_checksum_ipv6(ip.header().source(), ip.header().destination()),
                _ => panic!("no IP"),
            };
            prop_assert_eq!(segment.checksum(), checksum.unwrap());
        }

        #[test]
        fn well_formed_packets_are_not_malformed(packet in with_checksums()) {
            let outcome = parse(&packet, packet.len()).outcome();
            // More extension headers than are looked behind are well-formed as well.
            prop_assert!(!outcome.is_malformed() || outcome == Outcome::TooManyExtensions, "{outcome:?}");
        }
    }
}
