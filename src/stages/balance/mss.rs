//! The limit on what a TCP peer may send in one segment.
//!
//! A tunnel takes bytes from every packet of a connection. Where "too big" messages do not get through, and over links that
//! a client cannot know, a smaller maximum segment size (RFC 9293, section 3.7.1) in the SYN keeps both sides to what fits.

use crate::packet::checksum::Delta;
use crate::packet::protocol::TCP;
use crate::packet::{Headers, Tcp};
use crate::pipeline::Packet;

const END_OF_OPTIONS: u8 = 0;
const NO_OPERATION: u8 = 1;
const MAXIMUM_SEGMENT_SIZE: u8 = 2;

/// Lowers the maximum segment size that a SYN or SYN-ACK announces to `limit` bytes; the TCP checksum follows. Returns
/// whether something was changed.
///
/// A smaller one stays, and where there is none none is added: 536 (IPv4) and 1220 (IPv6) are meant then (RFC 9293, section
/// 3.7.1). Segments whose options are malformed are left alone.
pub fn clamp_mss(packet: &mut Packet<'_>, limit: u16) -> bool {
    let (headers, bytes) = packet.headers_and_bytes();
    if headers.tcp_flags & Tcp::SYN == 0 || headers.protocol != TCP || headers.payload_offset == 0 {
        return false;
    }
    clamp(headers, bytes, limit).is_some_and(|changed| changed)
}

/// `None` when the options are malformed.
#[cold]
fn clamp(headers: &Headers, bytes: &mut [u8], limit: u16) -> Option<bool> {
    let segment = bytes.get_mut(headers.transport_offset.into()..headers.payload_offset.into())?;
    // Twice over them: nothing is changed in front of what turns out to be malformed.
    let mut at = Tcp::<&[u8]>::MIN_HEADER_BYTES;
    while let Some(option) = option_at(segment, at)? {
        at = option.end;
    }
    let (mut at, mut delta, mut changed) = (Tcp::<&[u8]>::MIN_HEADER_BYTES, Delta::new(), false);
    while let Some(option) = option_at(segment, at)? {
        if let Some(value_at) = option.segment_size_at {
            let old = u16::from_be_bytes([segment[value_at], segment[value_at + 1]]);
            if old > limit {
                segment[value_at..value_at + 2].copy_from_slice(&limit.to_be_bytes());
                // At an odd offset each byte counts in the other half of a 16-bit word (RFC 1071, section 2 (B)).
                delta = if value_at.is_multiple_of(2) {
                    delta.u16(old, limit)
                } else {
                    delta.u16(old.swap_bytes(), limit.swap_bytes())
                };
                changed = true;
            }
        }
        at = option.end;
    }
    if changed {
        let mut tcp = Tcp::new_checked(segment).ok()?;
        let checksum = delta.apply(tcp.checksum());
        tcp.set_checksum(checksum);
    }
    Some(changed)
}

/// A TCP option.
struct OptionAt {
    /// Where the next one begins.
    end: usize,
    /// Where the value lies if it is a maximum segment size.
    segment_size_at: Option<usize>,
}

/// The option at this offset of the TCP header: `Some(None)` behind the last one, `None` when it is malformed.
fn option_at(header: &[u8], at: usize) -> Option<Option<OptionAt>> {
    let kind = match header.get(at) {
        None | Some(&END_OF_OPTIONS) => return Some(None),
        Some(&NO_OPERATION) => return Some(Some(OptionAt { end: at + 1, segment_size_at: None })),
        Some(&kind) => kind,
    };
    let length = usize::from(*header.get(at + 1)?);
    let end = at + length;
    let is_segment_size = kind == MAXIMUM_SEGMENT_SIZE;
    if length < 2 || end > header.len() || (is_segment_size && length != 4) {
        return None;
    }
    Some(Some(OptionAt { end, segment_size_at: is_segment_size.then_some(at + 2) }))
}

#[cfg(test)]
mod tests {
    use etherparse::{PacketBuilder, TcpHeader};
    use proptest::prelude::*;

    use super::super::test_packets::{
        CLIENT_MAC, CLIENT4, CLIENT6, OUR_MAC, VIP4, VIP6, in_buffer, transport_checksum,
    };
    use super::*;
    use crate::packet::{packets, parse};

    /// Segments of both families with these options.
    fn segments(options: &[u8], flags: u8, payload: &[u8]) -> [Vec<u8>; 2] {
        let mut header = TcpHeader::new(40_000, 80, 1_000, 512);
        (header.syn, header.ack) = (flags & Tcp::SYN != 0, flags & Tcp::ACK != 0);
        header.set_options_raw(options).unwrap();
        let link = || PacketBuilder::ethernet2(CLIENT_MAC, OUR_MAC);
        let mut packets = [Vec::new(), Vec::new()];
        link().ipv4(CLIENT4, VIP4, 64).tcp_header(header.clone()).write(&mut packets[0], payload).unwrap();
        link().ipv6(CLIENT6, VIP6, 64).tcp_header(header).write(&mut packets[1], payload).unwrap();
        packets
    }

    fn clamped(packet: &[u8], limit: u16) -> Option<Vec<u8>> {
        let (changed, after) = in_buffer(packet, 0, 0, |packet| clamp_mss(packet, limit));
        assert_eq!(changed, after != packet);
        changed.then_some(after)
    }

    #[test]
    fn a_larger_size_is_lowered_wherever_the_option_lies() {
        for (options, expected) in [
            (&[2, 4, 5, 0xb4][..], &[2, 4, 5, 0x78][..]),
            (&[1, 2, 4, 5, 0xb4, 0, 0, 0], &[1, 2, 4, 5, 0x78, 0, 0, 0]),
            (&[4, 2, 2, 4, 5, 0xb4, 1, 1], &[4, 2, 2, 4, 5, 0x78, 1, 1]),
            (&[3, 3, 7, 2, 4, 0xff, 0xff, 1], &[3, 3, 7, 2, 4, 5, 0x78, 1]),
            // Twice: both, since hosts differ in which one they take.
            (&[2, 4, 5, 0xb4, 1, 2, 4, 6, 0, 1, 1, 1], &[2, 4, 5, 0x78, 1, 2, 4, 5, 0x78, 1, 1, 1]),
        ] {
            for flags in [Tcp::SYN, Tcp::SYN | Tcp::ACK] {
                let (before, expected) =
                    (segments(options, flags, b"odd"), segments(expected, flags, b"odd"));
                for (before, expected) in before.iter().zip(expected) {
                    assert_eq!(clamped(before, 1_400), Some(expected), "{options:?}");
                }
            }
        }
    }

    #[test]
    fn what_is_small_enough_or_missing_stays() {
        for options in
            [&[2, 4, 5, 0x78][..], &[2, 4, 2, 0x18], &[], &[1, 1, 1, 0], &[0, 0, 2, 4, 5, 0xb4, 0, 0]]
        {
            for packet in segments(options, Tcp::SYN, b"") {
                assert_eq!(clamped(&packet, 1_400), None, "{options:?}");
            }
        }
    }

    #[test]
    fn only_segments_with_syn_announce_a_size() {
        for packet in segments(&[2, 4, 5, 0xb4], Tcp::ACK, b"") {
            assert_eq!(clamped(&packet, 1_400), None);
        }
    }

    #[test]
    fn malformed_options_leave_all_of_them_alone() {
        for options in [
            &[2, 4, 5, 0xb4, 8, 1, 1, 1][..],
            &[2, 4, 5, 0xb4, 8, 0, 1, 1],
            &[2, 4, 5, 0xb4, 8, 10, 1, 1],
            &[2, 4, 5, 0xb4, 1, 1, 1, 8],
            &[2, 3, 5, 1],
            &[2, 6, 5, 0xb4, 1, 1, 1, 1],
            &[1, 1, 2, 4],
        ] {
            for packet in segments(options, Tcp::SYN, b"") {
                assert_eq!(clamped(&packet, 1_400), None, "{options:?}");
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]
        #[test]
        fn whatever_the_options_are_the_checksum_stays_right(
            front in 0..4usize, size: u16,
            back in proptest::collection::vec(prop_oneof![4 => Just(1u8), 1 => any::<u8>()], 0..30),
            limit in 536..=65_495u16, payload in proptest::collection::vec(any::<u8>(), 0..9),
        ) {
            let [high, low] = size.to_be_bytes();
            let options = [&[1; 4][..front], &[2, 4, high, low], &back].concat();
            for before in segments(&options, Tcp::SYN, &payload) {
                if let Some(after) = clamped(&before, limit) {
                    prop_assert_eq!(transport_checksum(&after, &parse(&after, after.len())), 0);
                }
            }
        }

        #[test]
        fn arbitrary_packets_keep_all_but_their_options(seed: u64, limit: u16) {
            let before = packets::packet(seed);
            let headers = parse(&before, before.len());
            if let Some(after) = clamped(&before, limit) {
                let options = usize::from(headers.transport_offset) + 20..usize::from(headers.payload_offset);
                for (at, (old, new)) in before.iter().zip(&after).enumerate() {
                    let may_change = options.contains(&at) || [options.start - 4, options.start - 3].contains(&at);
                    prop_assert!(old == new || may_change);
                }
            }
        }
    }
}
