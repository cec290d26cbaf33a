//! View of an IPv6 header (RFC 8200), without its extension headers.

use std::net::Ipv6Addr;

use super::{Truncated, array, be_u16, check_length};

mod field {
    use core::ops::Range;
    pub const VERSION_CLASS_AND_LABEL: Range<usize> = 0..4;
    pub const PAYLOAD_LENGTH: Range<usize> = 4..6;
    pub const NEXT_HEADER: usize = 6;
    pub const HOP_LIMIT: usize = 7;
    pub const SOURCE: Range<usize> = 8..24;
    pub const DESTINATION: Range<usize> = 24..40;
}

/// An IPv6 packet.
#[derive(Clone, Copy, Debug)]
pub struct Ipv6<T>(T);

impl<T: AsRef<[u8]>> Ipv6<T> {
    /// Bytes of the header.
    pub const HEADER_BYTES: usize = 40;

    /// A view of the packet that starts with `bytes`.
    ///
    /// # Errors
    ///
    /// [`Truncated`] when there are fewer than [`Self::HEADER_BYTES`] bytes. Version and payload length are
    /// not looked at: [`super::parse()`] does that.
    #[inline]
    pub fn new_checked(bytes: T) -> Result<Self, Truncated> {
        check_length("an IPv6 header", bytes.as_ref(), Self::HEADER_BYTES)?;
        Ok(Self(bytes))
    }

    /// DSCP in the upper six bits (RFC 2474), ECN in the lower two (RFC 3168).
    #[inline]
    pub fn traffic_class(&self) -> u8 {
        (be_u16(self.0.as_ref(), 0..2) >> 4) as u8
    }

    /// Flow label (RFC 6437), 20 bits.
    #[inline]
    pub fn flow_label(&self) -> u32 {
        u32::from_be_bytes(array(self.0.as_ref(), field::VERSION_CLASS_AND_LABEL)) & 0x000f_ffff
    }

    /// Bytes behind this header by its own length field, extension headers included.
    #[inline]
    pub fn payload_bytes(&self) -> u16 {
        be_u16(self.0.as_ref(), field::PAYLOAD_LENGTH)
    }

    /// Number of the extension header or protocol that follows.
    #[inline]
    pub fn next_header(&self) -> u8 {
        self.0.as_ref()[field::NEXT_HEADER]
    }

    /// Hops the packet may still take.
    #[inline]
    pub fn hop_limit(&self) -> u8 {
        self.0.as_ref()[field::HOP_LIMIT]
    }

    /// Source address.
    #[inline]
    pub fn source(&self) -> Ipv6Addr {
        array::<16>(self.0.as_ref(), field::SOURCE).into()
    }

    /// Destination address.
    #[inline]
    pub fn destination(&self) -> Ipv6Addr {
        array::<16>(self.0.as_ref(), field::DESTINATION).into()
    }
}

impl<T: AsRef<[u8]> + AsMut<[u8]>> Ipv6<T> {
    /// Sets version 6, DSCP (upper six bits of the class), ECN (lower two) and the flow label, of which the lower 20
    /// bits count.
    #[inline]
    pub fn set_class_and_label(&mut self, class: u8, label: u32) {
        let word = 6 << 28 | u32::from(class) << 20 | label & 0x000f_ffff;
        self.0.as_mut()[field::VERSION_CLASS_AND_LABEL].copy_from_slice(&word.to_be_bytes());
    }

    /// Sets the number of bytes behind this header.
    #[inline]
    pub fn set_payload_bytes(&mut self, bytes: u16) {
        self.0.as_mut()[field::PAYLOAD_LENGTH].copy_from_slice(&bytes.to_be_bytes());
    }

    /// Sets the number of the header that follows.
    #[inline]
    pub fn set_next_header(&mut self, protocol: u8) {
        self.0.as_mut()[field::NEXT_HEADER] = protocol;
    }

    /// Sets the hops the packet may still take.
    #[inline]
    pub fn set_hop_limit(&mut self, hops: u8) {
        self.0.as_mut()[field::HOP_LIMIT] = hops;
    }

    /// Sets the source address. No checksum is changed.
    #[inline]
    pub fn set_source(&mut self, address: Ipv6Addr) {
        self.0.as_mut()[field::SOURCE].copy_from_slice(&address.octets());
    }

    /// Sets the destination address. No checksum is changed.
    #[inline]
    pub fn set_destination(&mut self, address: Ipv6Addr) {
        self.0.as_mut()[field::DESTINATION].copy_from_slice(&address.octets());
    }

    /// Exchanges source and destination; no checksum changes by that.
    #[inline]
    pub fn swap_addresses(&mut self) {
        let (source, destination) = (self.source(), self.destination());
        self.set_source(destination);
        self.set_destination(source);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agrees_with_etherparse() {
        let mut bytes = [0; 40];
        let (source, destination): (Ipv6Addr, Ipv6Addr) =
            ("2001:db8::1".parse().unwrap(), "2001:db8::2".parse().unwrap());
        let mut packet = Ipv6::new_checked(&mut bytes[..]).unwrap();
        packet.set_class_and_label(0xb9, 0xf_edcb);
        assert_eq!((packet.traffic_class(), packet.flow_label()), (0xb9, 0xf_edcb));
        packet.set_payload_bytes(1234);
        packet.set_next_header(58);
        packet.set_hop_limit(255);
        packet.set_source(destination);
        packet.set_destination(source);
        packet.swap_addresses();
        assert_eq!((packet.payload_bytes(), packet.next_header(), packet.hop_limit()), (1234, 58, 255));
        assert_eq!((packet.source(), packet.destination()), (source, destination));

        let (read, _) = etherparse::Ipv6Header::from_slice(&bytes).unwrap();
        assert_eq!((read.payload_length, read.next_header.0, read.hop_limit), (1234, 58, 255));
        assert_eq!((read.traffic_class, read.flow_label.value()), (0xb9, 0xf_edcb));
        assert_eq!((read.source, read.destination), (source.octets(), destination.octets()));
        assert_eq!(Ipv6::new_checked(&bytes[..39]).unwrap_err().need, 40);
    }
}
