//! The ports that the kernel takes for connections of its own.

#![forbid(unsafe_code)]

use std::fs::read_to_string;
use std::ops::RangeInclusive;

/// Read in the network namespace of the calling thread. Both families have the same.
const RANGE: &str = "/proc/sys/net/ipv4/ip_local_port_range";
const RESERVED: &str = "/proc/sys/net/ipv4/ip_local_reserved_ports";

/// Some of `ports` that the kernel may take for a connection of its own, in the network namespace of the calling thread: the
/// first and the last of them. `None` if there are none, or if the kernel does not tell.
///
/// Source: `ip_local_port_range` and `ip_local_reserved_ports` in Documentation/networking/ip-sysctl.rst.
pub fn taken_of(ports: &RangeInclusive<u16>) -> Option<RangeInclusive<u16>> {
    taken(ports, &read_to_string(RANGE).ok()?, &read_to_string(RESERVED).unwrap_or_default())
}

fn taken(ports: &RangeInclusive<u16>, range: &str, reserved: &str) -> Option<RangeInclusive<u16>> {
    let mut ends = range.split_whitespace().map(|number| number.parse::<u16>().ok());
    let (low, high) = (ends.next()??, ends.next()??);
    let reserved: Vec<RangeInclusive<u16>> = reserved.trim().split(',').filter_map(span).collect();
    let is_taken = |port: &u16| !reserved.iter().any(|range| range.contains(port));
    let both = low.max(*ports.start())..=high.min(*ports.end());
    Some(both.clone().find(is_taken)?..=both.rev().find(is_taken)?)
}

/// `8080` or `9148-9150`.
fn span(text: &str) -> Option<RangeInclusive<u16>> {
    let (low, high) = text.split_once('-').unwrap_or((text, text));
    Some(low.parse().ok()?..=high.parse().ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_that_the_kernel_takes_are_found() {
        let taken = |ports, reserved| taken(&ports, "32768\t60999\n", reserved);
        assert_eq!(taken(1_024..=32_767, "\n"), None);
        assert_eq!(taken(61_000..=65_535, "\n"), None);
        assert_eq!(taken(1_024..=65_535, "\n"), Some(32_768..=60_999));
        assert_eq!(taken(40_000..=40_001, "\n"), Some(40_000..=40_001));
        assert_eq!(taken(40_000..=50_000, "8080,40000-49990\n"), Some(49_991..=50_000));
        assert_eq!(taken(40_000..=50_000, "40000-50000\n"), None);
    }

    #[test]
    fn this_kernel_tells() {
        assert!(taken_of(&(1..=u16::MAX)).is_some());
    }
}
