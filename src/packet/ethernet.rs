//! View of an Ethernet header (IEEE 802.3), without the VLAN tags that may follow it.

use super::{MacAddress, Truncated, array, be_u16, check_length};

mod field {
    use core::ops::Range;
    pub const DESTINATION: Range<usize> = 0..6;
    pub const SOURCE: Range<usize> = 6..12;
    pub const ETHERTYPE: Range<usize> = 12..14;
}

/// An Ethernet frame.
#[derive(Clone, Copy, Debug)]
pub struct Ethernet<T>(T);

impl<T: AsRef<[u8]>> Ethernet<T> {
    /// Bytes of the header.
    pub const HEADER_BYTES: usize = 14;

    /// A view of the frame that starts with `bytes`.
    ///
    /// # Errors
    ///
    /// [`Truncated`] when there are fewer than [`Self::HEADER_BYTES`] bytes.
    #[inline]
    pub fn new_checked(bytes: T) -> Result<Self, Truncated> {
        check_length("an Ethernet header", bytes.as_ref(), Self::HEADER_BYTES)?;
        Ok(Self(bytes))
    }

    /// Destination address.
    #[inline]
    pub fn destination(&self) -> MacAddress {
        MacAddress(array(self.0.as_ref(), field::DESTINATION))
    }

    /// Source address.
    #[inline]
    pub fn source(&self) -> MacAddress {
        MacAddress(array(self.0.as_ref(), field::SOURCE))
    }

    /// Ethertype, in host byte order; that of the outermost VLAN tag if there is one.
    #[inline]
    pub fn ethertype(&self) -> u16 {
        be_u16(self.0.as_ref(), field::ETHERTYPE)
    }
}

impl<T: AsRef<[u8]> + AsMut<[u8]>> Ethernet<T> {
    /// Sets the destination address.
    #[inline]
    pub fn set_destination(&mut self, mac: MacAddress) {
        self.0.as_mut()[field::DESTINATION].copy_from_slice(&mac.0);
    }

    /// Sets the source address.
    #[inline]
    pub fn set_source(&mut self, mac: MacAddress) {
        self.0.as_mut()[field::SOURCE].copy_from_slice(&mac.0);
    }

    /// Sets the ethertype, given in host byte order.
    #[inline]
    pub fn set_ethertype(&mut self, ethertype: u16) {
        self.0.as_mut()[field::ETHERTYPE].copy_from_slice(&ethertype.to_be_bytes());
    }

    /// Exchanges source and destination.
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
    fn reads_and_writes_its_fields() {
        let mut bytes = *b"\x02\0\0\0\0\x01\x02\0\0\0\0\x02\x08\0rest";
        let mut frame = Ethernet::new_checked(&mut bytes[..]).unwrap();
        assert_eq!(frame.destination(), MacAddress([2, 0, 0, 0, 0, 1]));
        assert_eq!(frame.source(), MacAddress([2, 0, 0, 0, 0, 2]));
        assert_eq!(frame.ethertype(), 0x0800);
        frame.swap_addresses();
        frame.set_ethertype(0x86dd);
        assert_eq!(&bytes, b"\x02\0\0\0\0\x02\x02\0\0\0\0\x01\x86\xddrest");
    }

    #[test]
    fn names_what_is_too_short() {
        let error = Ethernet::new_checked(&[0; 13]).unwrap_err();
        assert_eq!(error.to_string(), "13 bytes are too short for an Ethernet header, which needs 14");
    }
}
