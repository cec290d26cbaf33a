//! The internet checksum (RFC 1071): computed over bytes ([`Sum`]), and updated when a few of them change
//! ([`Delta`], RFC 1624). All values are in host byte order.

use std::net::{Ipv4Addr, Ipv6Addr};

/// Folds the carries of a one's complement sum back into 16 bits.
#[inline]
const fn fold(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

/// A one's complement sum in the making.
///
/// ```
/// # use xfwd::packet::checksum::Sum;
/// // The example of RFC 1071, section 3.
/// let data = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
/// assert_eq!(Sum::new().bytes(&data).checksum(), !0xddf2);
/// ```
#[derive(Clone, Copy, Debug, Default)]
#[must_use]
pub struct Sum(u64);

impl Sum {
    /// The sum of nothing.
    #[inline]
    pub const fn new() -> Self {
        Self(0)
    }

    /// Adds `bytes`. If their number is odd they count as if a zero byte followed, so nothing may be added
    /// that comes behind them in the packet.
    #[inline]
    pub fn bytes(self, bytes: &[u8]) -> Self {
        // 32-bit words may be summed instead of 16-bit ones, since 2^16 is 1 modulo 2^16 - 1. 64 bits hold
        // the carries of 2^32 words. The sum may be made in either byte order and swapped at the end (RFC 1071, section 2 (B)), so
        // words are taken as they lie.
        let (words, rest) = bytes.as_chunks::<4>();
        let sum = words.iter().fold(0, |sum: u64, word| sum + u64::from(u32::from_le_bytes(*word)));
        let mut last = [0; 4];
        last[..rest.len()].copy_from_slice(rest);
        let sum = fold(sum + u64::from(u32::from_le_bytes(last)));
        Self(self.0 + u64::from(sum.swap_bytes()))
    }

    /// Adds a 16-bit field that lies at an even offset.
    #[inline]
    pub const fn u16(self, field: u16) -> Self {
        Self(self.0 + field as u64)
    }

    /// Adds another sum, over bytes that begin at an even offset.
    #[inline]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 + other.0)
    }

    /// Takes out bytes that are part of the sum: gives the sum over the others.
    ///
    /// ```
    /// # use xfwd::packet::checksum::Sum;
    /// let (all, part) = (Sum::new().bytes(&[0xde, 0xad, 0xbe, 0xef]), Sum::new().bytes(&[0xde, 0xad]));
    /// assert_eq!(all.without(part).checksum(), Sum::new().bytes(&[0xbe, 0xef]).checksum());
    /// ```
    #[inline]
    pub const fn without(self, part: Self) -> Self {
        Self(self.0 + part.checksum() as u64)
    }

    /// Adds the IPv4 pseudo header of TCP and UDP (RFC 9293, section 3.1): `length_bytes` is that of the
    /// transport header and what follows it.
    #[inline]
    pub fn ipv4_pseudo_header(
        self,
        source: Ipv4Addr,
        destination: Ipv4Addr,
        protocol: u8,
        length_bytes: u16,
    ) -> Self {
        let sum = self.bytes(&source.octets()).bytes(&destination.octets());
        Self(sum.0 + u64::from(protocol) + u64::from(length_bytes))
    }

    /// Adds the IPv6 pseudo header (RFC 8200, section 8.1): `length_bytes` is that of the transport header
    /// and what follows it.
    #[inline]
    pub fn ipv6_pseudo_header(
        self,
        source: Ipv6Addr,
        destination: Ipv6Addr,
        protocol: u8,
        length_bytes: u32,
    ) -> Self {
        let sum = self.bytes(&source.octets()).bytes(&destination.octets());
        Self(sum.0 + u64::from(protocol) + u64::from(length_bytes))
    }

    /// The checksum to put in a header. Over bytes that hold their own right checksum it is 0.
    #[inline]
    pub const fn checksum(self) -> u16 {
        !fold(self.0)
    }

    /// The checksum to put in a UDP header: 0 means "no checksum" there, so a computed 0 is sent as 0xffff
    /// (RFC 768).
    #[inline]
    pub const fn udp_checksum(self) -> u16 {
        avoid_zero(self.checksum())
    }
}

/// What has changed in the bytes under a checksum; applied to the old checksum it gives the new one
/// (RFC 1624, equation 3).
///
/// One delta of the addresses serves the IPv4 header and the transport header alike. The result is the one
/// that computing in full would give, save that bytes that become zero altogether give 0 instead of 0xffff; a
/// TCP, UDP or IP header never does.
///
/// ```
/// # use xfwd::packet::checksum::{Delta, Sum};
/// let old = Sum::new().bytes(&[0x45, 0, 64, 6]).checksum();
/// let new = Sum::new().bytes(&[0x45, 0, 63, 6]).checksum();
/// assert_eq!(Delta::new().u16(0x4006, 0x3f06).apply(old), new);
/// ```
#[derive(Clone, Copy, Debug, Default)]
#[must_use]
pub struct Delta(u64);

impl Delta {
    /// No change.
    #[inline]
    pub const fn new() -> Self {
        Self(0)
    }

    /// A 16-bit field that lies at an even offset has changed, such as a port.
    #[inline]
    pub const fn u16(self, old: u16, new: u16) -> Self {
        Self(self.0 + !old as u64 + new as u64)
    }

    /// A 32-bit field that lies at an even offset has changed, such as a sequence number.
    #[inline]
    pub const fn u32(self, old: u32, new: u32) -> Self {
        Self(self.0 + !old as u64 + new as u64)
    }

    /// An IPv4 address has changed.
    #[inline]
    pub const fn ipv4(self, old: Ipv4Addr, new: Ipv4Addr) -> Self {
        self.u32(old.to_bits(), new.to_bits())
    }

    /// An IPv6 address has changed.
    #[inline]
    pub const fn ipv6(mut self, old: Ipv6Addr, new: Ipv6Addr) -> Self {
        let (old, new) = (old.to_bits(), new.to_bits());
        let mut shift = 0;
        while shift < 128 {
            self = self.u32((old >> shift) as u32, (new >> shift) as u32);
            shift += 32;
        }
        self
    }

    /// These changes and others.
    #[inline]
    pub const fn and(self, others: Self) -> Self {
        Self(self.0 + others.0)
    }

    /// The checksum after the changes, from the one before.
    #[inline]
    pub const fn apply(self, checksum: u16) -> u16 {
        !fold(self.0 + !checksum as u64)
    }

    /// Like [`Self::apply`] for the checksum of a UDP header: 0 is no checksum and stays so, a computed 0
    /// becomes 0xffff.
    #[inline]
    pub const fn apply_udp(self, checksum: u16) -> u16 {
        if checksum == 0 { 0 } else { avoid_zero(self.apply(checksum)) }
    }
}

/// 0xffff for 0: the other zero of one's complement.
#[inline]
const fn avoid_zero(checksum: u16) -> u16 {
    if checksum == 0 { 0xffff } else { checksum }
}

#[cfg(test)]
mod tests {
    use etherparse::{TcpHeader, UdpHeader, ip_number};
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn bytes_match_the_definition(data in proptest::collection::vec(any::<u8>(), 0..2000)) {
            let mut sum = 0u32;
            for pair in data.chunks(2) {
                sum += u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
                sum = (sum & 0xffff) + (sum >> 16);
            }
            prop_assert_eq!(Sum::new().bytes(&data).checksum(), !(sum as u16));
        }

        #[test]
        fn pieces_of_even_length_add_up(data in proptest::collection::vec(any::<u8>(), 0..200), at in 0usize..100) {
            let at = (at * 2).min(data.len() & !1);
            let pieces = Sum::new().bytes(&data[..at]).bytes(&data[at..]);
            prop_assert_eq!(pieces.checksum(), Sum::new().bytes(&data).checksum());
        }

        #[test]
        fn udp_and_tcp_agree_with_etherparse(
            v4 in any::<([u8; 4], [u8; 4])>(), v6 in any::<([u8; 16], [u8; 16])>(),
            ports in any::<(u16, u16)>(), payload in proptest::collection::vec(any::<u8>(), 0..1500),
        ) {
            let length = payload.len() as u16 + 8;
            let udp = UdpHeader { source_port: ports.0, destination_port: ports.1, length, checksum: 0 };
            let sum = Sum::new().bytes(&udp.to_bytes()).bytes(&payload);
            let over_v4 = sum.ipv4_pseudo_header(v4.0.into(), v4.1.into(), 17, length).udp_checksum();
            prop_assert_eq!(over_v4, udp.calc_checksum_ipv4_raw(v4.0, v4.1, &payload).unwrap());
            let over_v6 = sum.ipv6_pseudo_header(v6.0.into(), v6.1.into(), 17, length.into()).udp_checksum();
            prop_assert_eq!(over_v6, udp.calc_checksum_ipv6_raw(v6.0, v6.1, &payload).unwrap());

            let tcp = TcpHeader::new(ports.0, ports.1, 1, 2);
            let sum = Sum::new().bytes(&tcp.to_bytes()).bytes(&payload);
            let length = payload.len() as u16 + 20;
            let over_v4 = sum.ipv4_pseudo_header(v4.0.into(), v4.1.into(), ip_number::TCP.0, length).checksum();
            prop_assert_eq!(over_v4, tcp.calc_checksum_ipv4_raw(v4.0, v4.1, &payload).unwrap());
            let over_v6 = sum.ipv6_pseudo_header(v6.0.into(), v6.1.into(), ip_number::TCP.0, length.into()).checksum();
            prop_assert_eq!(over_v6, tcp.calc_checksum_ipv6_raw(v6.0, v6.1, &payload).unwrap());
        }

        #[test]
        fn incremental_equals_full(
            // A header that is never all zero: its first byte is not.
            rest in proptest::collection::vec(prop_oneof![Just(0u8), Just(0xff), any::<u8>()], 63),
            port in any::<u16>(), sequence in any::<u32>(), v4 in any::<[u8; 4]>(), v6 in any::<[u8; 16]>(),
        ) {
            let mut data = vec![0x45];
            data.extend(rest);
            let before = Sum::new().bytes(&data).checksum();
            let mut delta = Delta::new();
            delta = delta.u16(u16::from_be_bytes(data[2..4].try_into().unwrap()), port);
            data[2..4].copy_from_slice(&port.to_be_bytes());
            delta = delta.u32(u32::from_be_bytes(data[6..10].try_into().unwrap()), sequence);
            data[6..10].copy_from_slice(&sequence.to_be_bytes());
            delta = delta.ipv4(<[u8; 4]>::try_from(&data[20..24]).unwrap().into(), v4.into());
            data[20..24].copy_from_slice(&v4);
            delta = delta.ipv6(<[u8; 16]>::try_from(&data[24..40]).unwrap().into(), v6.into());
            data[24..40].copy_from_slice(&v6);
            let full = Sum::new().bytes(&data);
            prop_assert_eq!(delta.apply(before), full.checksum());
            if before != 0 {
                prop_assert_eq!(delta.apply_udp(before), full.udp_checksum());
            }
        }
    }

    #[test]
    fn example_of_rfc_1624_section_4() {
        assert_eq!(Delta::new().u16(0x5555, 0x3285).apply(0xdd2f), 0x0000);
    }

    #[test]
    fn udp_without_checksum_stays_without() {
        assert_eq!(Delta::new().u16(80, 8080).apply_udp(0), 0);
    }

    #[test]
    fn udp_checksum_that_becomes_zero_is_sent_as_ffff() {
        assert_eq!(Sum::new().bytes(&[0xff, 0xff]).checksum(), 0);
        assert_eq!(Sum::new().bytes(&[0xff, 0xff]).udp_checksum(), 0xffff);
        assert_eq!(Delta::new().u16(0x5555, 0x3285).apply_udp(0xdd2f), 0xffff);
    }

    #[test]
    fn a_sum_over_right_bytes_is_zero() {
        let mut data = *b"\x45\0\0\x14\0\0\0\0\x40\x06\0\0\x0a\0\0\x01\x0a\0\0\x02";
        let checksum = Sum::new().bytes(&data).checksum();
        data[10..12].copy_from_slice(&checksum.to_be_bytes());
        assert_eq!(Sum::new().bytes(&data).checksum(), 0);
    }
}
