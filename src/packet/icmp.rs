//! View of the part that every ICMP (RFC 792) and ICMPv6 (RFC 4443) message has.

use super::{Truncated, be_u16, check_length};

mod field {
    use core::ops::Range;
    pub const TYPE: usize = 0;
    pub const CODE: usize = 1;
    pub const CHECKSUM: Range<usize> = 2..4;
}

/// An ICMP or ICMPv6 message.
#[derive(Clone, Copy, Debug)]
pub struct Icmp<T>(T);

impl<T: AsRef<[u8]>> Icmp<T> {
    /// Bytes of the header: the common part and the four bytes whose meaning depends on the type.
    pub const HEADER_BYTES: usize = 8;

    /// A view of the message that starts with `bytes`.
    ///
    /// # Errors
    ///
    /// [`Truncated`] when there are fewer than [`Self::HEADER_BYTES`] bytes.
    #[inline]
    pub fn new_checked(bytes: T) -> Result<Self, Truncated> {
        check_length("an ICMP header", bytes.as_ref(), Self::HEADER_BYTES)?;
        Ok(Self(bytes))
    }

    /// Type; ICMP and ICMPv6 number theirs differently.
    #[inline]
    pub fn message_type(&self) -> u8 {
        self.0.as_ref()[field::TYPE]
    }

    /// Code within the type.
    #[inline]
    pub fn code(&self) -> u8 {
        self.0.as_ref()[field::CODE]
    }

    /// Checksum as it stands in the message.
    #[inline]
    pub fn checksum(&self) -> u16 {
        be_u16(self.0.as_ref(), field::CHECKSUM)
    }
}

impl<T: AsRef<[u8]> + AsMut<[u8]>> Icmp<T> {
    /// Sets the type. The checksum is not changed.
    #[inline]
    pub fn set_message_type(&mut self, message_type: u8) {
        self.0.as_mut()[field::TYPE] = message_type;
    }

    /// Sets the code. The checksum is not changed.
    #[inline]
    pub fn set_code(&mut self, code: u8) {
        self.0.as_mut()[field::CODE] = code;
    }

    /// Sets the checksum, given in host byte order.
    #[inline]
    pub fn set_checksum(&mut self, checksum: u16) {
        self.0.as_mut()[field::CHECKSUM].copy_from_slice(&checksum.to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_and_writes_its_fields() {
        let mut bytes = [8, 0, 0xbe, 0xef, 0, 1, 0, 2];
        let mut message = Icmp::new_checked(&mut bytes[..]).unwrap();
        assert_eq!((message.message_type(), message.code(), message.checksum()), (8, 0, 0xbeef));
        message.set_message_type(3);
        message.set_code(4);
        message.set_checksum(0x1234);
        assert_eq!(bytes, [3, 4, 0x12, 0x34, 0, 1, 0, 2]);
        assert_eq!(Icmp::new_checked(&bytes[..7]).unwrap_err().need, 8);
    }
}
