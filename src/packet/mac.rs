//! Ethernet addresses.

use std::fmt;
use std::str::FromStr;

/// An Ethernet (EUI-48) address, in the order of the wire.
///
/// ```
/// # use xfwd::packet::MacAddress;
/// let mac: MacAddress = "02:00:00:00:00:2a".parse()?;
/// assert_eq!(mac.octets(), [2, 0, 0, 0, 0, 0x2a]);
/// assert_eq!(mac.to_string(), "02:00:00:00:00:2a");
/// # Ok::<(), xfwd::packet::ParseMacError>(())
/// ```
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MacAddress(pub [u8; 6]);

impl MacAddress {
    /// `ff:ff:ff:ff:ff:ff`: every station.
    pub const BROADCAST: Self = Self([0xff; 6]);
    /// `00:00:00:00:00:00`: no station; what an interface without an address shows.
    pub const ZERO: Self = Self([0; 6]);

    /// The six bytes, in the order of the wire.
    #[inline]
    pub const fn octets(self) -> [u8; 6] {
        self.0
    }

    /// Whether this is the broadcast address.
    #[inline]
    pub const fn is_broadcast(self) -> bool {
        matches!(self.0, [0xff, 0xff, 0xff, 0xff, 0xff, 0xff])
    }

    /// Whether the group bit is set: multicast, broadcast included.
    #[inline]
    pub const fn is_multicast(self) -> bool {
        self.0[0] & 0x01 != 0
    }

    /// Whether all bytes are zero.
    #[inline]
    pub const fn is_zero(self) -> bool {
        matches!(self.0, [0, 0, 0, 0, 0, 0])
    }

    /// Whether one station can have this address: neither multicast nor zero.
    #[inline]
    pub const fn is_unicast(self) -> bool {
        !self.is_multicast() && !self.is_zero()
    }

    /// Whether the local bit is set: assigned by software, not by a manufacturer.
    #[inline]
    pub const fn is_local(self) -> bool {
        self.0[0] & 0x02 != 0
    }
}

impl From<[u8; 6]> for MacAddress {
    fn from(octets: [u8; 6]) -> Self {
        Self(octets)
    }
}

impl From<MacAddress> for [u8; 6] {
    fn from(mac: MacAddress) -> Self {
        mac.0
    }
}

impl fmt::Display for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A text is no Ethernet address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not an Ethernet address such as `02:00:00:00:00:2a`")]
pub struct ParseMacError(String);

impl FromStr for MacAddress {
    type Err = ParseMacError;

    /// Reads six pairs of hexadecimal digits with `:` or, throughout, `-` between them.
    ///
    /// # Errors
    ///
    /// [`ParseMacError`] for any other text.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = || ParseMacError(text.to_owned());
        let separator = if text.contains('-') { '-' } else { ':' };
        let mut octets = [0; 6];
        let mut parts = text.split(separator);
        for octet in &mut octets {
            let part = parts.next().ok_or_else(error)?;
            if part.len() != 2 || !part.bytes().all(|b| b.is_ascii_hexdigit()) {
                return Err(error());
            }
            *octet = u8::from_str_radix(part, 16).map_err(|_| error())?;
        }
        match parts.next() {
            None => Ok(Self(octets)),
            Some(_) => Err(error()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_forms() {
        let mac = MacAddress([0x02, 0, 0x5e, 0xab, 0xcd, 0xef]);
        assert_eq!(mac.to_string(), "02:00:5e:ab:cd:ef");
        assert_eq!("02:00:5e:AB:cd:ef".parse(), Ok(mac));
        assert_eq!("02-00-5e-ab-cd-ef".parse(), Ok(mac));
        for wrong in [
            "",
            "02:00:5e:ab:cd",
            "02:00:5e:ab:cd:ef:00",
            "2:0:5e:ab:cd:ef",
            "02:00-5e:ab:cd:ef",
            "+2:00:5e:ab:cd:ef",
        ] {
            let error = wrong.parse::<MacAddress>().unwrap_err();
            assert!(error.to_string().starts_with(&format!("`{wrong}` is not")), "{error}");
        }
    }

    #[test]
    fn kinds_of_addresses() {
        assert!(MacAddress::BROADCAST.is_multicast() && MacAddress::BROADCAST.is_broadcast());
        let ipv4_multicast = MacAddress([0x01, 0, 0x5e, 0, 0, 1]);
        assert!(
            ipv4_multicast.is_multicast() && !ipv4_multicast.is_broadcast() && !ipv4_multicast.is_unicast()
        );
        let veth = MacAddress([0x02, 0, 0, 0, 0, 1]);
        assert!(veth.is_unicast() && veth.is_local());
        assert!(MacAddress::ZERO.is_zero() && !MacAddress::ZERO.is_unicast());
    }
}
