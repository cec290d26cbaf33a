//! Whether a packet fits the link that it is to leave by.

use crate::packet::Ipv4;
use crate::pipeline::Packet;

/// Every IPv6 link takes packets of this size (RFC 8200, section 5), so no less may be told (RFC 4443, section 3.2).
const IPV6_MIN_MTU: usize = 1280;
/// Every IPv4 link takes packets of this size (RFC 791, section 3.2).
const IPV4_MIN_MTU: usize = 68;

/// Whether a packet fits, and what becomes of it if not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Fit {
    /// It does.
    Fits,
    /// It does not, and its sender learns from an ICMP error what would.
    TooBig {
        /// The longest IP packet that fits, in bytes, as the sender builds it: without what a tunnel adds.
        mtu: u16,
    },
    /// It does not and its sender is not told: IPv4 without "don't fragment", or IPv6 of 1280 bytes or fewer, which a
    /// tunnel would have to take (RFC 2473, section 7.1). A router would fragment it. Nothing is fragmented here, so it is
    /// dropped: fragments cost each end more than a right MTU of the link to the backends, which is what is missing.
    NotFragmented,
}

/// Whether the packet fits a link that takes IP packets of `mtu` bytes, once a tunnel has added `overhead` bytes (0 without a
/// tunnel). Only looks: ask before anything is changed.
#[inline]
pub fn fit(packet: &Packet<'_>, overhead: usize, mtu: usize) -> Fit {
    if ip_bytes(packet) + overhead <= mtu { Fit::Fits } else { misfit(packet, mtu.saturating_sub(overhead)) }
}

/// Bytes of the IP packet by its own length field, from its IP header on. 0 when it is not IP.
#[inline]
pub(super) fn ip_bytes(packet: &Packet<'_>) -> usize {
    let headers = packet.headers();
    (headers.end as usize).saturating_sub(usize::from(headers.network_offset))
}

#[cold]
fn misfit(packet: &Packet<'_>, mtu: usize) -> Fit {
    let headers = packet.headers();
    let (told, least) = if headers.ip_version == 4 {
        let header = packet.bytes().get(usize::from(headers.network_offset)..).unwrap_or_default();
        (Ipv4::new_checked(header).is_ok_and(|ip| ip.dont_fragment()), IPV4_MIN_MTU)
    } else {
        (true, IPV6_MIN_MTU)
    };
    let mtu = mtu.max(least);
    // Below the least, telling it changes nothing.
    if told && ip_bytes(packet) > mtu {
        Fit::TooBig { mtu: u16::try_from(mtu).unwrap_or(u16::MAX) }
    } else {
        Fit::NotFragmented
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::test_packets::{in_buffer, tcp4, tcp6};
    use super::*;

    /// A packet whose IP length is `bytes`.
    fn ipv4(bytes: usize, dont_fragment: bool) -> Vec<u8> {
        let mut packet = tcp4(&vec![0; bytes - 40]);
        Ipv4::new_checked(&mut packet[14..]).unwrap().set_dont_fragment(dont_fragment);
        packet
    }

    fn ipv6(bytes: usize) -> Vec<u8> {
        tcp6(&vec![0; bytes - 60])
    }

    fn of(packet: &[u8], overhead: usize, mtu: usize) -> Fit {
        in_buffer(packet, 0, 0, |packet| fit(packet, overhead, mtu)).0
    }

    #[test]
    fn the_last_byte_that_fits() {
        for (packet, overhead) in [(ipv4(1_480, true), 20), (ipv4(1_452, false), 48), (ipv6(1_500), 0)] {
            let length = packet.len() - 14 + overhead;
            assert_eq!(of(&packet, overhead, length), Fit::Fits);
            assert_ne!(of(&packet, overhead, length - 1), Fit::Fits);
        }
    }

    #[test]
    fn senders_that_can_make_smaller_packets_are_told_what_is_left_for_them() {
        assert_eq!(of(&ipv4(1_500, true), 28, 1_500), Fit::TooBig { mtu: 1_472 });
        assert_eq!(of(&ipv6(1_500), 48, 1_500), Fit::TooBig { mtu: 1_452 });
        assert_eq!(of(&ipv4(1_500, true), 20, 60), Fit::TooBig { mtu: 68 });
        assert_eq!(of(&ipv6(1_281), 40, 1_300), Fit::TooBig { mtu: 1_280 });
    }

    #[test]
    fn what_would_have_to_be_fragmented_is_not() {
        assert_eq!(of(&ipv4(1_500, false), 28, 1_500), Fit::NotFragmented);
        assert_eq!(of(&ipv6(1_280), 40, 1_300), Fit::NotFragmented, "1280 has to pass, and cannot be told");
        assert_eq!(of(&ipv4(68, true), 20, 60), Fit::NotFragmented);
    }

    #[test]
    fn ethernet_padding_does_not_count() {
        let mut short = tcp4(b"");
        short.extend([0; 40]);
        assert_eq!(of(&short, 0, 40), Fit::Fits);
    }
}
