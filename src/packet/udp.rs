//! View of a UDP header (RFC 768).

use super::{Truncated, be_u16, check_length};

mod field {
    use core::ops::Range;
    pub const SOURCE_PORT: Range<usize> = 0..2;
    pub const DESTINATION_PORT: Range<usize> = 2..4;
    pub const LENGTH: Range<usize> = 4..6;
    pub const CHECKSUM: Range<usize> = 6..8;
}

/// A UDP datagram.
#[derive(Clone, Copy, Debug)]
pub struct Udp<T>(T);

impl<T: AsRef<[u8]>> Udp<T> {
    /// Bytes of the header.
    pub const HEADER_BYTES: usize = 8;

    /// A view of the datagram that starts with `bytes`.
    ///
    /// # Errors
    ///
    /// [`Truncated`] when there are fewer than [`Self::HEADER_BYTES`] bytes.
    #[inline]
    pub fn new_checked(bytes: T) -> Result<Self, Truncated> {
        check_length("a UDP header", bytes.as_ref(), Self::HEADER_BYTES)?;
        Ok(Self(bytes))
    }

    /// Source port; 0 when the sender expects no answer.
    #[inline]
    pub fn source_port(&self) -> u16 {
        be_u16(self.0.as_ref(), field::SOURCE_PORT)
    }

    /// Destination port.
    #[inline]
    pub fn destination_port(&self) -> u16 {
        be_u16(self.0.as_ref(), field::DESTINATION_PORT)
    }

    /// Bytes of the datagram by its own length field, header included.
    #[inline]
    pub fn length_bytes(&self) -> u16 {
        be_u16(self.0.as_ref(), field::LENGTH)
    }

    /// Checksum as it stands in the datagram; 0 means that there is none.
    #[inline]
    pub fn checksum(&self) -> u16 {
        be_u16(self.0.as_ref(), field::CHECKSUM)
    }
}

impl<T: AsRef<[u8]> + AsMut<[u8]>> Udp<T> {
    /// Sets the source port. No checksum is changed.
    #[inline]
    pub fn set_source_port(&mut self, port: u16) {
        self.0.as_mut()[field::SOURCE_PORT].copy_from_slice(&port.to_be_bytes());
    }

    /// Sets the destination port. No checksum is changed.
    #[inline]
    pub fn set_destination_port(&mut self, port: u16) {
        self.0.as_mut()[field::DESTINATION_PORT].copy_from_slice(&port.to_be_bytes());
    }

    /// Sets the length in bytes, header included.
    #[inline]
    pub fn set_length_bytes(&mut self, bytes: u16) {
        self.0.as_mut()[field::LENGTH].copy_from_slice(&bytes.to_be_bytes());
    }

    /// Sets the checksum, given in host byte order. A computed checksum comes from
    /// [`Sum::udp_checksum`](super::checksum::Sum::udp_checksum), which knows that 0 means none.
    #[inline]
    pub fn set_checksum(&mut self, checksum: u16) {
        self.0.as_mut()[field::CHECKSUM].copy_from_slice(&checksum.to_be_bytes());
    }

    /// Exchanges source and destination port; the checksum does not change by that.
    #[inline]
    pub fn swap_ports(&mut self) {
        let (source, destination) = (self.source_port(), self.destination_port());
        self.set_source_port(destination);
        self.set_destination_port(source);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agrees_with_etherparse() {
        let reference =
            etherparse::UdpHeader { source_port: 53, destination_port: 40_000, length: 20, checksum: 0xbeef };
        let mut bytes = reference.to_bytes();
        let mut datagram = Udp::new_checked(&mut bytes[..]).unwrap();
        assert_eq!((datagram.source_port(), datagram.destination_port()), (53, 40_000));
        assert_eq!((datagram.length_bytes(), datagram.checksum()), (20, 0xbeef));

        datagram.swap_ports();
        datagram.set_length_bytes(21);
        datagram.set_checksum(0x1234);
        let (read, _) = etherparse::UdpHeader::from_slice(&bytes).unwrap();
        let expected =
            etherparse::UdpHeader { source_port: 40_000, destination_port: 53, length: 21, checksum: 0x1234 };
        assert_eq!(read, expected);
        assert_eq!(Udp::new_checked(&bytes[..7]).unwrap_err().need, 8);
    }
}
