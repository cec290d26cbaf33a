//! View of an IPv4 header (RFC 791).

use std::net::Ipv4Addr;

use super::checksum::Sum;
use super::{Truncated, array, be_u16, check_length};

mod field {
    use core::ops::Range;
    pub const VERSION_AND_LENGTH: usize = 0;
    pub const TRAFFIC_CLASS: usize = 1;
    pub const TOTAL_LENGTH: Range<usize> = 2..4;
    pub const IDENTIFICATION: Range<usize> = 4..6;
    pub const FLAGS_AND_OFFSET: Range<usize> = 6..8;
    pub const TTL: usize = 8;
    pub const PROTOCOL: usize = 9;
    pub const CHECKSUM: Range<usize> = 10..12;
    pub const SOURCE: Range<usize> = 12..16;
    pub const DESTINATION: Range<usize> = 16..20;
}

/// An IPv4 packet.
#[derive(Clone, Copy, Debug)]
pub struct Ipv4<T>(T);

impl<T: AsRef<[u8]>> Ipv4<T> {
    /// Bytes of a header without options.
    pub const MIN_HEADER_BYTES: usize = 20;

    /// A view of the packet that starts with `bytes`.
    ///
    /// # Errors
    ///
    /// [`Truncated`] when `bytes` is shorter than the header, whose length is read from it and taken as 20 if
    /// it says less. Version and total length are not looked at: [`super::parse()`] does that.
    #[inline]
    pub fn new_checked(bytes: T) -> Result<Self, Truncated> {
        check_length("an IPv4 header", bytes.as_ref(), Self::MIN_HEADER_BYTES)?;
        let packet = Self(bytes);
        check_length("an IPv4 header with options", packet.0.as_ref(), packet.header_bytes())?;
        Ok(packet)
    }

    /// Bytes of the header with its options, 20 to 60.
    #[inline]
    pub fn header_bytes(&self) -> usize {
        let words = usize::from(self.0.as_ref()[field::VERSION_AND_LENGTH] & 0x0f);
        (words * 4).max(Self::MIN_HEADER_BYTES)
    }

    /// Bytes of the packet by its own length field, header included.
    #[inline]
    pub fn total_bytes(&self) -> u16 {
        be_u16(self.0.as_ref(), field::TOTAL_LENGTH)
    }

    /// DSCP in the upper six bits (RFC 2474), ECN in the lower two (RFC 3168).
    #[inline]
    pub fn traffic_class(&self) -> u8 {
        self.0.as_ref()[field::TRAFFIC_CLASS]
    }

    /// What tells the fragments of one packet from those of others.
    #[inline]
    pub fn identification(&self) -> u16 {
        be_u16(self.0.as_ref(), field::IDENTIFICATION)
    }

    /// Whether routers must not fragment the packet (flag DF).
    #[inline]
    pub fn dont_fragment(&self) -> bool {
        self.0.as_ref()[field::FLAGS_AND_OFFSET.start] & 0x40 != 0
    }

    /// Time to live, in hops.
    #[inline]
    pub fn ttl(&self) -> u8 {
        self.0.as_ref()[field::TTL]
    }

    /// Number of the protocol behind the header.
    #[inline]
    pub fn protocol(&self) -> u8 {
        self.0.as_ref()[field::PROTOCOL]
    }

    /// Header checksum as it stands in the packet.
    #[inline]
    pub fn checksum(&self) -> u16 {
        be_u16(self.0.as_ref(), field::CHECKSUM)
    }

    /// Source address.
    #[inline]
    pub fn source(&self) -> Ipv4Addr {
        array(self.0.as_ref(), field::SOURCE).into()
    }

    /// Destination address.
    #[inline]
    pub fn destination(&self) -> Ipv4Addr {
        array(self.0.as_ref(), field::DESTINATION).into()
    }

    /// Whether the header checksum fits the header.
    pub fn has_valid_checksum(&self) -> bool {
        Sum::new().bytes(&self.0.as_ref()[..self.header_bytes()]).checksum() == 0
    }
}

impl<T: AsRef<[u8]> + AsMut<[u8]>> Ipv4<T> {
    /// Sets the total length in bytes, header included.
    #[inline]
    pub fn set_total_bytes(&mut self, bytes: u16) {
        self.0.as_mut()[field::TOTAL_LENGTH].copy_from_slice(&bytes.to_be_bytes());
    }

    /// Sets DSCP (upper six bits) and ECN (lower two). The checksum is not changed.
    #[inline]
    pub fn set_traffic_class(&mut self, class: u8) {
        self.0.as_mut()[field::TRAFFIC_CLASS] = class;
    }

    /// Sets the identification. The checksum is not changed.
    #[inline]
    pub fn set_identification(&mut self, identification: u16) {
        self.0.as_mut()[field::IDENTIFICATION].copy_from_slice(&identification.to_be_bytes());
    }

    /// Makes the packet one that is no fragment, and which routers may fragment or not. The checksum is not changed.
    #[inline]
    pub fn set_dont_fragment(&mut self, dont_fragment: bool) {
        let flags = if dont_fragment { [0x40, 0] } else { [0, 0] };
        self.0.as_mut()[field::FLAGS_AND_OFFSET].copy_from_slice(&flags);
    }

    /// Sets the time to live, in hops. The checksum is not changed.
    #[inline]
    pub fn set_ttl(&mut self, hops: u8) {
        self.0.as_mut()[field::TTL] = hops;
    }

    /// Sets the number of the protocol behind the header.
    #[inline]
    pub fn set_protocol(&mut self, protocol: u8) {
        self.0.as_mut()[field::PROTOCOL] = protocol;
    }

    /// Sets the header checksum, given in host byte order.
    #[inline]
    pub fn set_checksum(&mut self, checksum: u16) {
        self.0.as_mut()[field::CHECKSUM].copy_from_slice(&checksum.to_be_bytes());
    }

    /// Sets the source address. No checksum is changed.
    #[inline]
    pub fn set_source(&mut self, address: Ipv4Addr) {
        self.0.as_mut()[field::SOURCE].copy_from_slice(&address.octets());
    }

    /// Sets the destination address. No checksum is changed.
    #[inline]
    pub fn set_destination(&mut self, address: Ipv4Addr) {
        self.0.as_mut()[field::DESTINATION].copy_from_slice(&address.octets());
    }

    /// Exchanges source and destination; no checksum changes by that.
    #[inline]
    pub fn swap_addresses(&mut self) {
        let (source, destination) = (self.source(), self.destination());
        self.set_source(destination);
        self.set_destination(source);
    }

    /// Computes the header checksum anew.
    pub fn fill_checksum(&mut self) {
        self.set_checksum(0);
        let checksum = Sum::new().bytes(&self.0.as_ref()[..self.header_bytes()]).checksum();
        self.set_checksum(checksum);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agrees_with_etherparse() {
        let mut reference =
            etherparse::Ipv4Header::new(100, 64, etherparse::ip_number::UDP, [10, 0, 0, 1], [10, 0, 0, 2])
                .unwrap();
        reference.options = [1, 1, 1, 0].into();
        reference.header_checksum = reference.calc_header_checksum();
        let mut bytes = reference.to_bytes().to_vec();
        let mut packet = Ipv4::new_checked(&mut bytes[..]).unwrap();
        assert_eq!((packet.header_bytes(), packet.total_bytes()), (24, 120));
        assert_eq!((packet.ttl(), packet.protocol(), packet.checksum()), (64, 17, reference.header_checksum));
        assert_eq!(packet.source(), Ipv4Addr::new(10, 0, 0, 1));
        assert_eq!((packet.traffic_class(), packet.identification()), (0, reference.identification));
        assert_eq!(packet.dont_fragment(), reference.dont_fragment);
        assert!(packet.has_valid_checksum());

        packet.set_traffic_class(0xb9);
        packet.set_identification(0x1234);
        packet.set_dont_fragment(true);
        assert!(packet.dont_fragment());
        packet.set_destination(Ipv4Addr::new(192, 0, 2, 1));
        packet.set_ttl(63);
        packet.set_protocol(6);
        packet.set_total_bytes(99);
        assert!(!packet.has_valid_checksum());
        packet.fill_checksum();
        packet.swap_addresses();
        assert!(packet.has_valid_checksum());

        let (read, _) = etherparse::Ipv4Header::from_slice(&bytes).unwrap();
        assert_eq!((read.source, read.destination), ([192, 0, 2, 1], [10, 0, 0, 1]));
        assert_eq!((read.time_to_live, read.protocol.0, read.total_len), (63, 6, 99));
        assert_eq!((read.dscp.value(), read.ecn.value(), read.identification), (0x2e, 1, 0x1234));
        assert!(read.dont_fragment && !read.more_fragments && read.fragment_offset.value() == 0);
        assert_eq!(read.header_checksum, read.calc_header_checksum());
    }

    #[test]
    fn options_have_to_be_there() {
        let mut bytes = [0; 59];
        bytes[0] = 0x4f;
        assert_eq!(Ipv4::new_checked(bytes).unwrap_err().need, 60);
        assert_eq!(Ipv4::new_checked(&bytes[..19]).unwrap_err().need, 20);
        bytes[0] = 0x40;
        assert_eq!(Ipv4::new_checked(&bytes[..20]).unwrap().header_bytes(), 20);
    }
}
