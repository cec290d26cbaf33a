//! The hop that a packet takes by being routed.

use crate::packet::checksum::Delta;
use crate::packet::{Ipv4, Ipv6};
use crate::pipeline::Packet;

/// What has become of a packet by one more hop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Hop {
    /// It has one hop less, and goes on.
    Taken,
    /// It had no hop left. It is as it was, and is to be dropped and answered (RFC 1812, section 5.3.1; RFC 8200,
    /// section 3).
    Expired,
}

/// Takes one hop off the time to live of an IPv4 packet, whose checksum follows (RFC 1624), or the hop limit of an IPv6
/// packet. What is not IP has none, and goes on.
#[inline]
pub fn pass_hop(packet: &mut Packet<'_>) -> Hop {
    let (headers, bytes) = packet.headers_and_bytes();
    let network = bytes.get_mut(usize::from(headers.network_offset)..).unwrap_or_default();
    match headers.ip_version {
        4 => Ipv4::new_checked(network).map_or(Hop::Taken, |mut ip| {
            let (ttl, protocol) = (ip.ttl(), ip.protocol());
            let Some(left) = hops_left(ttl) else { return Hop::Expired };
            let word = |ttl| u16::from_be_bytes([ttl, protocol]);
            let checksum = Delta::new().u16(word(ttl), word(left)).apply(ip.checksum());
            ip.set_ttl(left);
            ip.set_checksum(checksum);
            Hop::Taken
        }),
        6 => Ipv6::new_checked(network).map_or(Hop::Taken, |mut ip| {
            let Some(left) = hops_left(ip.hop_limit()) else { return Hop::Expired };
            ip.set_hop_limit(left);
            Hop::Taken
        }),
        _ => Hop::Taken,
    }
}

/// `None` when none is left: a packet is not forwarded with 0.
#[inline]
fn hops_left(ttl: u8) -> Option<u8> {
    if ttl > 1 { Some(ttl - 1) } else { None }
}

#[cfg(test)]
mod tests {
    use super::super::super::test_packets::{in_buffer, tcp4, tcp6};
    use super::*;

    #[test]
    fn every_time_to_live_loses_one_and_the_checksum_is_that_of_the_new_header() {
        for ttl in 0..=255u8 {
            for (mut before, at) in [(tcp4(b"hello"), 14 + 8), (tcp6(b"hello"), 14 + 7)] {
                before[at] = ttl;
                if at == 22 {
                    Ipv4::new_checked(&mut before[14..]).unwrap().fill_checksum();
                }
                let (hop, after) = in_buffer(&before, 0, 0, pass_hop);
                if ttl < 2 {
                    assert_eq!((hop, after), (Hop::Expired, before));
                    continue;
                }
                let mut expected = before.clone();
                expected[at] = ttl - 1;
                if at == 22 {
                    Ipv4::new_checked(&mut expected[14..]).unwrap().fill_checksum();
                }
                assert_eq!((hop, after), (Hop::Taken, expected));
            }
        }
    }

    #[test]
    fn a_wrong_checksum_is_not_made_right() {
        let mut before = tcp4(b"");
        before[24] ^= 1;
        let (_, after) = in_buffer(&before, 0, 0, pass_hop);
        assert!(!Ipv4::new_checked(&after[14..]).unwrap().has_valid_checksum());
    }

    #[test]
    fn what_is_not_ip_has_no_hops() {
        let mut arp = tcp4(b"");
        arp[12..14].copy_from_slice(&[8, 6]);
        assert_eq!(in_buffer(&arp, 0, 0, pass_hop), (Hop::Taken, arp));
    }
}
