//! View of a TCP header (RFC 9293).

use super::{Truncated, array, be_u16, check_length};

mod field {
    use core::ops::Range;
    pub const SOURCE_PORT: Range<usize> = 0..2;
    pub const DESTINATION_PORT: Range<usize> = 2..4;
    pub const SEQUENCE: Range<usize> = 4..8;
    pub const ACKNOWLEDGEMENT: Range<usize> = 8..12;
    pub const DATA_OFFSET: usize = 12;
    pub const FLAGS: usize = 13;
    pub const CHECKSUM: Range<usize> = 16..18;
}

/// A TCP segment.
#[derive(Clone, Copy, Debug)]
pub struct Tcp<T>(T);

impl Tcp<()> {
    /// Flag FIN: the sender is done.
    pub const FIN: u8 = 0x01;
    /// Flag SYN: sequence numbers are to be synchronised.
    pub const SYN: u8 = 0x02;
    /// Flag RST: the connection is reset.
    pub const RST: u8 = 0x04;
    /// Flag PSH: data is to be handed to the application.
    pub const PSH: u8 = 0x08;
    /// Flag ACK: the acknowledgement number counts.
    pub const ACK: u8 = 0x10;
    /// Flag URG: the urgent pointer counts.
    pub const URG: u8 = 0x20;
    /// Flag ECE (RFC 3168).
    pub const ECE: u8 = 0x40;
    /// Flag CWR (RFC 3168).
    pub const CWR: u8 = 0x80;
}

impl<T: AsRef<[u8]>> Tcp<T> {
    /// Bytes of a header without options.
    pub const MIN_HEADER_BYTES: usize = 20;

    /// A view of the segment that starts with `bytes`.
    ///
    /// # Errors
    ///
    /// [`Truncated`] when there are fewer than [`Self::MIN_HEADER_BYTES`] bytes. The data offset is not
    /// looked at: [`super::parse()`] does that.
    #[inline]
    pub fn new_checked(bytes: T) -> Result<Self, Truncated> {
        check_length("a TCP header", bytes.as_ref(), Self::MIN_HEADER_BYTES)?;
        Ok(Self(bytes))
    }

    /// Source port.
    #[inline]
    pub fn source_port(&self) -> u16 {
        be_u16(self.0.as_ref(), field::SOURCE_PORT)
    }

    /// Destination port.
    #[inline]
    pub fn destination_port(&self) -> u16 {
        be_u16(self.0.as_ref(), field::DESTINATION_PORT)
    }

    /// Sequence number of the first byte, or of the SYN.
    #[inline]
    pub fn sequence(&self) -> u32 {
        u32::from_be_bytes(array(self.0.as_ref(), field::SEQUENCE))
    }

    /// Acknowledgement number: the next sequence number that the sender expects. Counts with flag ACK.
    #[inline]
    pub fn acknowledgement(&self) -> u32 {
        u32::from_be_bytes(array(self.0.as_ref(), field::ACKNOWLEDGEMENT))
    }

    /// Bytes of the header with its options, as the data offset says: 0 to 60, in a valid segment 20 or more.
    #[inline]
    pub fn header_bytes(&self) -> usize {
        usize::from(self.0.as_ref()[field::DATA_OFFSET] >> 4) * 4
    }

    /// Flags, CWR in the high bit to FIN in the low one; the bits are `Tcp::SYN` and so on.
    #[inline]
    pub fn flags(&self) -> u8 {
        self.0.as_ref()[field::FLAGS]
    }

    /// Checksum as it stands in the segment.
    #[inline]
    pub fn checksum(&self) -> u16 {
        be_u16(self.0.as_ref(), field::CHECKSUM)
    }
}

impl<T: AsRef<[u8]> + AsMut<[u8]>> Tcp<T> {
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

    /// Sets the sequence number. No checksum is changed.
    #[inline]
    pub fn set_sequence(&mut self, number: u32) {
        self.0.as_mut()[field::SEQUENCE].copy_from_slice(&number.to_be_bytes());
    }

    /// Sets the acknowledgement number. No checksum is changed.
    #[inline]
    pub fn set_acknowledgement(&mut self, number: u32) {
        self.0.as_mut()[field::ACKNOWLEDGEMENT].copy_from_slice(&number.to_be_bytes());
    }

    /// Sets the flags. No checksum is changed.
    #[inline]
    pub fn set_flags(&mut self, flags: u8) {
        self.0.as_mut()[field::FLAGS] = flags;
    }

    /// Sets the checksum, given in host byte order.
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
        let mut reference = etherparse::TcpHeader::new(443, 50_000, 7, 1024);
        (reference.syn, reference.cwr, reference.checksum) = (true, true, 0xbeef);
        reference.set_options_raw(&[1, 1, 1, 0]).unwrap();
        let mut bytes = reference.to_bytes().to_vec();
        let mut segment = Tcp::new_checked(&mut bytes[..]).unwrap();
        assert_eq!(
            (segment.source_port(), segment.destination_port(), segment.header_bytes()),
            (443, 50_000, 24)
        );
        assert_eq!((segment.flags(), segment.checksum()), (Tcp::SYN | Tcp::CWR, 0xbeef));

        assert_eq!((segment.sequence(), segment.acknowledgement()), (7, 0));

        segment.swap_ports();
        segment.set_sequence(0xfeed_beef);
        segment.set_acknowledgement(0x0102_0304);
        segment.set_flags(Tcp::RST | Tcp::ACK);
        segment.set_checksum(0x1234);
        let (read, _) = etherparse::TcpHeader::from_slice(&bytes).unwrap();
        assert_eq!((read.source_port, read.destination_port, read.checksum), (50_000, 443, 0x1234));
        assert_eq!((read.sequence_number, read.acknowledgment_number), (0xfeed_beef, 0x0102_0304));
        assert!(read.rst && read.ack && !read.syn && !read.cwr);
        assert_eq!(Tcp::new_checked(&bytes[..19]).unwrap_err().need, 20);
    }
}
