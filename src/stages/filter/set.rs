//! Sets of prefixes, as a file holds them.

use std::path::{Path, PathBuf};

use super::Prefix;

/// Most prefixes a set holds: what a map of the XDP program has room for.
pub const MAX_SET_PREFIXES: usize = 1 << 20;

/// Prefixes of a set file: sorted, each once. Rules share a set by [`Arc`](std::sync::Arc).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PrefixSet {
    file: PathBuf,
    prefixes: Vec<Prefix>,
    /// Number of IPv4 prefixes, which come first.
    ipv4: usize,
    /// What the IPv4 and the IPv6 prefixes hold: first and last address, in order, none touches another.
    ranges: [Vec<(u128, u128)>; 2],
}

impl PrefixSet {
    /// A set of these prefixes; `file` is where they came from, for messages.
    pub fn new(file: impl Into<PathBuf>, mut prefixes: Vec<Prefix>) -> Self {
        prefixes.sort_unstable();
        prefixes.dedup();
        let ipv4 = prefixes.partition_point(|prefix| prefix.ip_version() == 4);
        let ranges = [ranges(&prefixes[..ipv4]), ranges(&prefixes[ipv4..])];
        Self { file: file.into(), prefixes, ipv4, ranges }
    }

    /// The file it was read from.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// The prefixes, in order: IPv4 before IPv6.
    pub fn prefixes(&self) -> &[Prefix] {
        &self.prefixes
    }

    /// The IPv4 prefixes and the IPv6 prefixes.
    pub fn by_version(&self) -> (&[Prefix], &[Prefix]) {
        self.prefixes.split_at(self.ipv4)
    }

    /// First and last address, as IPv4-mapped IPv6 address, of what the IPv4 and the IPv6 prefixes hold: in order, none
    /// touches another.
    pub(super) fn ranges(&self) -> &[Vec<(u128, u128)>; 2] {
        &self.ranges
    }

    /// Number of prefixes.
    pub fn len(&self) -> usize {
        self.prefixes.len()
    }

    /// Whether there is no prefix.
    pub fn is_empty(&self) -> bool {
        self.prefixes.is_empty()
    }

    /// Whether a prefix holds the address, given as [`Facts`](super::Facts) has it. By binary search.
    #[inline]
    pub fn contains_mapped(&self, ip_version: u8, address: &[u8; 16]) -> bool {
        let ranges = match ip_version {
            4 => &self.ranges[0],
            6 => &self.ranges[1],
            _ => return false,
        };
        let address = u128::from_be_bytes(*address);
        let behind = ranges.partition_point(|(first, _)| *first <= address);
        behind > 0 && address <= ranges[behind - 1].1
    }
}

/// The addresses of prefixes of one version, which are in order.
fn ranges(prefixes: &[Prefix]) -> Vec<(u128, u128)> {
    merged(prefixes.iter().map(|prefix| prefix.mapped_range()))
}

/// Ranges in order of their first number; what overlaps or touches becomes one.
pub(super) fn merged(ordered: impl Iterator<Item = (u128, u128)>) -> Vec<(u128, u128)> {
    let mut ranges: Vec<(u128, u128)> = Vec::new();
    for (first, last) in ordered {
        match ranges.last_mut() {
            Some((_, end)) if first <= end.saturating_add(1) => *end = last.max(*end),
            _ => ranges.push((first, last)),
        }
    }
    ranges
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_set_contains_what_one_of_its_prefixes_contains(
            prefixes in proptest::collection::vec((any::<bool>(), any::<u128>(), 0u8..=128), 0..40),
            probes in proptest::collection::vec(any::<(u128, proptest::sample::Index)>(), 20),
        ) {
            // Few bits differ, so that prefixes nest and touch.
            let address = |ipv4, bits: u128| -> std::net::IpAddr {
                if ipv4 { ((bits >> 120) as u32).to_be_bytes().map(|byte| byte & 0x81).into() }
                else { (bits & (0x81 << 120 | 0x3)).to_be_bytes().into() }
            };
            let prefixes: Vec<_> =
                prefixes.iter().map(|(ipv4, bits, length)| Prefix::new(address(*ipv4, *bits), *length)).collect();
            let set = PrefixSet::new("test", prefixes.clone());
            for (bits, _) in probes {
                for ipv4 in [true, false] {
                    let probe = address(ipv4, bits);
                    let (mapped, _) = Prefix::new(probe, 128).mapped();
                    let expected = prefixes.iter().any(|prefix| prefix.contains(probe));
                    prop_assert_eq!(set.contains_mapped(if ipv4 { 4 } else { 6 }, &mapped), expected);
                    prop_assert!(!set.contains_mapped(0, &mapped));
                }
            }
        }
    }
}
