//! Address prefixes of both families.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use serde::{Serialize, Serializer};
use xfwd_ebpf_types::map_ipv4;

/// A prefix of IPv4 or IPv6 addresses, such as `198.18.0.0/15`. Bits behind the prefix are zero.
///
/// An IPv4 prefix holds no IPv6 address and the other way round, IPv4-mapped addresses (`::ffff:0:0/96`) included:
/// an IPv6 packet with such an address is an IPv6 packet.
///
/// ```
/// use xfwd::stages::filter::Prefix;
///
/// let prefix: Prefix = "198.18.0.0/15".parse()?;
/// assert!(prefix.contains("198.19.255.255".parse()?));
/// assert_eq!("198.18.0.1".parse::<Prefix>()?.length(), 32);
/// let error = "198.18.0.1/15".parse::<Prefix>().unwrap_err();
/// assert_eq!(error.to_string(), "bits are set behind the prefix: write `198.18.0.0/15`");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Prefix {
    address: IpAddr,
    length: u8,
}

/// A text that is no prefix.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ParsePrefixError {
    /// No address in front of the `/`.
    #[error("not an address or prefix, such as `198.18.0.0/15` or `2001:db8::/32`")]
    Syntax,
    /// The length is not a number, or longer than an address.
    #[error("the prefix length must be 0 to {max}")]
    Length {
        /// Bits of an address of this family.
        max: u8,
    },
    /// Bits behind the prefix are set.
    #[error("bits are set behind the prefix: write `{meant}`")]
    HostBits {
        /// The prefix of that length which holds the address.
        meant: Prefix,
    },
    /// An IPv4-mapped IPv6 prefix, which means neither family.
    #[error("IPv4-mapped IPv6 addresses match no IPv4 packet: write `{meant}`")]
    Mapped {
        /// The same as IPv4 prefix.
        meant: Prefix,
    },
}

impl Prefix {
    /// The prefix of `length` bits of `address`; what is behind them is cleared. A length above that of an address
    /// is taken as the whole address.
    pub fn new(address: IpAddr, length: u8) -> Self {
        match address {
            IpAddr::V4(address) => {
                let length = length.min(32);
                let mask = u32::MAX.checked_shl(32 - u32::from(length)).unwrap_or(0);
                Self { address: Ipv4Addr::from_bits(address.to_bits() & mask).into(), length }
            }
            IpAddr::V6(address) => {
                let length = length.min(128);
                let mask = u128::MAX.checked_shl(128 - u32::from(length)).unwrap_or(0);
                Self { address: Ipv6Addr::from_bits(address.to_bits() & mask).into(), length }
            }
        }
    }

    /// The first address.
    pub fn address(self) -> IpAddr {
        self.address
    }

    /// Number of leading bits that are fixed: 0 to 32 or 0 to 128.
    pub fn length(self) -> u8 {
        self.length
    }

    /// 4 or 6.
    pub fn ip_version(self) -> u8 {
        if self.address.is_ipv4() { 4 } else { 6 }
    }

    /// The first address as 16 bytes, IPv4 as IPv4-mapped IPv6 address, and the number of leading bits of those
    /// bytes that are fixed. To be compared only with addresses of the same family.
    pub fn mapped(self) -> ([u8; 16], u8) {
        match self.address {
            IpAddr::V4(address) => (map_ipv4(address.octets()), self.length + 96),
            IpAddr::V6(address) => (address.octets(), self.length),
        }
    }

    /// First and last address as numbers, IPv4 as IPv4-mapped IPv6 address.
    pub(super) fn mapped_range(self) -> (u128, u128) {
        let (first, length) = self.mapped();
        let first = u128::from_be_bytes(first);
        (first, first | u128::MAX.checked_shr(u32::from(length)).unwrap_or(0))
    }

    /// Whether the prefix holds `address`.
    pub fn contains(self, address: IpAddr) -> bool {
        address.is_ipv4() == self.address.is_ipv4() && Self::new(address, self.length) == self
    }

    /// Whether every address of `other` is one of this prefix.
    pub fn covers(self, other: Prefix) -> bool {
        self.length <= other.length && self.contains(other.address)
    }

    /// [`contains`](Self::contains) for an address as [`Facts`](super::Facts) has it.
    pub fn contains_mapped(self, ip_version: u8, address: &[u8; 16]) -> bool {
        let (prefix, length) = self.mapped();
        let differing = u128::from_be_bytes(prefix) ^ u128::from_be_bytes(*address);
        ip_version == self.ip_version() && differing.leading_zeros() >= u32::from(length)
    }
}

impl FromStr for Prefix {
    type Err = ParsePrefixError;

    /// An address with prefix length, or an address alone, which is a prefix of its whole length.
    fn from_str(text: &str) -> Result<Self, ParsePrefixError> {
        let (address, length) = match text.split_once('/') {
            Some((address, length)) => (address, Some(length)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| ParsePrefixError::Syntax)?;
        let max = if address.is_ipv4() { 32 } else { 128 };
        let length = match length {
            None => max,
            // `parse` would take a sign.
            Some(digits) => digits
                .parse()
                .ok()
                .filter(|length| *length <= max && digits.bytes().all(|digit| digit.is_ascii_digit()))
                .ok_or(ParsePrefixError::Length { max })?,
        };
        let meant = Self::new(address, length);
        if let IpAddr::V6(v6) = address
            && let Some(v4) = v6.to_ipv4_mapped()
            && length >= 96
        {
            return Err(ParsePrefixError::Mapped { meant: Self::new(v4.into(), length - 96) });
        }
        if meant.address != address {
            return Err(ParsePrefixError::HostBits { meant });
        }
        Ok(meant)
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.length)
    }
}

impl Serialize for Prefix {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefix(text: &str) -> Prefix {
        text.parse().unwrap()
    }

    #[test]
    fn families_do_not_meet() {
        let mapped: Ipv6Addr = "::ffff:10.0.0.1".parse().unwrap();
        assert!(!prefix("0.0.0.0/0").contains(mapped.into()));
        assert!(prefix("::/0").contains(mapped.into()));
        assert!(!prefix("::/0").contains("10.0.0.1".parse().unwrap()));
        assert!(!prefix("::/0").contains_mapped(4, &mapped.octets()));
        assert!(prefix("0.0.0.0/0").contains_mapped(4, &mapped.octets()));
        assert!(!prefix("0.0.0.0/0").contains_mapped(6, &mapped.octets()));
    }

    #[test]
    fn prefixes_hold_what_they_say() {
        assert!(prefix("10.0.0.0/8").contains("10.255.0.1".parse().unwrap()));
        assert!(!prefix("10.0.0.0/8").contains("11.0.0.0".parse().unwrap()));
        assert!(prefix("2001:db8::/33").contains("2001:db8:7fff::1".parse().unwrap()));
        assert!(!prefix("2001:db8::/33").contains("2001:db8:8000::1".parse().unwrap()));
        assert!(prefix("10.0.0.0/8").covers(prefix("10.1.0.0/16")));
        assert!(!prefix("10.1.0.0/16").covers(prefix("10.0.0.0/8")));
        assert_eq!(prefix("10.0.0.0/8").to_string(), "10.0.0.0/8");
        assert_eq!(prefix("2001:db8::1").to_string(), "2001:db8::1/128");
    }

    #[test]
    fn what_is_no_prefix() {
        let error = |text: &str| text.parse::<Prefix>().unwrap_err().to_string();
        let syntax = "not an address or prefix, such as `198.18.0.0/15` or `2001:db8::/32`";
        assert_eq!(error("10.0.0/8"), syntax);
        assert_eq!(error(""), syntax);
        assert_eq!(error("10.0.0.0/33"), "the prefix length must be 0 to 32");
        assert_eq!(error("10.0.0.0/+8"), "the prefix length must be 0 to 32");
        assert_eq!(error("10.0.0.0/"), "the prefix length must be 0 to 32");
        assert_eq!(error("::/129"), "the prefix length must be 0 to 128");
        assert_eq!(error("10.1.2.3/8"), "bits are set behind the prefix: write `10.0.0.0/8`");
        assert_eq!(error("2001:db8::1/64"), "bits are set behind the prefix: write `2001:db8::/64`");
        assert_eq!(
            error("::ffff:10.0.0.0/104"),
            "IPv4-mapped IPv6 addresses match no IPv4 packet: write `10.0.0.0/8`"
        );
    }
}
