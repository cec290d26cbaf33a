//! `rate`, `burst` and `per`: what makes a rule a policer.

use toml::Spanned;

use crate::config::reader::{Reader, Section};
use crate::stages::filter::{Per, Rate, RateLimit};

/// Highest rate: a packet a nanosecond, which is what the clock of a policer can tell apart.
const HIGHEST_PPS: u64 = 1_000_000_000;
/// Highest rate in bits: above every NIC.
const HIGHEST_BPS: u64 = 10_000_000_000_000;
/// Bytes of ten full-size frames: a bucket in bytes that is not said to hold less holds these at least.
const LEAST_BURST_BYTES: u64 = 15_140;
/// A host has the whole subnet behind these bits (RFC 4291, 2.5.4; RFC 8981): `per = "src"` counts it as one.
const IPV6_HOST_BITS: u8 = 64;

pub(super) fn read(section: &Section<'_>, reader: &mut Reader<'_>) -> Option<Rate> {
    if !section.has("rate") {
        for key in ["burst", "per"] {
            if let Some(value) = section.value(key) {
                reader
                    .error(value.span(), format!("`{key}` without `rate`"))
                    .label("add for example `rate = \"1000 pps\"`");
            }
        }
        return None;
    }
    let per = per(section, reader).unwrap_or(Per::Whole);
    let burst = section.integer(reader, "burst", 1..=u32::MAX).map(Spanned::into_inner);
    let limit = limit(section, reader)?;
    let burst = burst.map_or_else(|| default_burst(limit), u64::from);
    Some(Rate { limit, burst, per })
}

/// A tenth of a second.
fn default_burst(limit: RateLimit) -> u64 {
    match limit {
        RateLimit::PacketsPerSecond(packets) => (packets / 10).max(1),
        RateLimit::BitsPerSecond(bits) => (bits / 80).max(LEAST_BURST_BYTES),
    }
}

fn limit(section: &Section<'_>, reader: &mut Reader<'_>) -> Option<RateLimit> {
    let text = section.text(reader, "rate")?;
    match parse_limit(text.get_ref()) {
        Ok(limit) => Some(limit),
        Err(label) => {
            reader.error(text.span(), "`rate` is not a rate").label(label);
            None
        }
    }
}

/// A number, perhaps `k`, `M` or `G`, and `pps` or `bit/s`.
fn parse_limit(text: &str) -> Result<RateLimit, &'static str> {
    const EXPECTED: &str = "expected one such as `1000 pps`, `20 kpps`, `500 kbit/s` or `1.5 Gbit/s`";
    let split = text.find(|letter: char| !letter.is_ascii_digit() && letter != '.').ok_or(EXPECTED)?;
    let (number, unit) = text.split_at(split);
    let number: f64 = number.parse().map_err(|_| EXPECTED)?;
    let unit = unit.trim();
    let (factor, unit) = match unit.as_bytes() {
        [b'k', ..] => (1e3, &unit[1..]),
        [b'M', ..] => (1e6, &unit[1..]),
        [b'G', ..] => (1e9, &unit[1..]),
        _ => (1.0, unit),
    };
    let value = (number * factor).round() as u64;
    match unit {
        "pps" if value > HIGHEST_PPS => Err("at most `1 Gpps`"),
        "pps" if value > 0 => Ok(RateLimit::PacketsPerSecond(value)),
        "bit/s" | "bps" if value > HIGHEST_BPS => Err("at most `10000 Gbit/s`"),
        // Less than a byte a second is no rate either.
        "bit/s" | "bps" if value >= 8 => Ok(RateLimit::BitsPerSecond(value)),
        "pps" | "bit/s" | "bps" => Err("to let nothing pass, leave `rate` out and use `action = \"drop\"`"),
        _ => Err(EXPECTED),
    }
}

fn per(section: &Section<'_>, reader: &mut Reader<'_>) -> Option<Per> {
    let text = section.text(reader, "per")?;
    let found = parse_per(text.get_ref());
    if found.is_none() {
        reader
            .error(text.span(), format!("unknown value `{}` for `per`", text.get_ref()))
            .label("expected `src`, `src/24` (of IPv4), `src/24/56` (of IPv4 and IPv6) or `flow`");
    }
    found
}

fn parse_per(text: &str) -> Option<Per> {
    let bits = |text: &str, max: u8| text.parse().ok().filter(|bits| (1..=max).contains(bits));
    match text.split('/').collect::<Vec<_>>()[..] {
        ["flow"] => Some(Per::Flow),
        ["src"] => Some(Per::Src { ipv4: 32, ipv6: IPV6_HOST_BITS }),
        ["src", ipv4] => Some(Per::Src { ipv4: bits(ipv4, 32)?, ipv6: IPV6_HOST_BITS }),
        ["src", ipv4, ipv6] => Some(Per::Src { ipv4: bits(ipv4, 32)?, ipv6: bits(ipv6, 128)? }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates() {
        use RateLimit::{BitsPerSecond, PacketsPerSecond};
        assert_eq!(parse_limit("1000 pps"), Ok(PacketsPerSecond(1000)));
        assert_eq!(parse_limit("1.5kpps"), Ok(PacketsPerSecond(1500)));
        assert_eq!(parse_limit("10 Mbit/s"), Ok(BitsPerSecond(10_000_000)));
        assert_eq!(parse_limit("2Gbps"), Ok(BitsPerSecond(2_000_000_000)));
        for wrong in
            ["", "pps", "10", "10 MB/s", "-1 pps", "1e3 pps", "1..2 pps", "0 pps", "2 Gpps", "1 bit/s"]
        {
            assert!(parse_limit(wrong).is_err(), "{wrong}");
        }
        assert_eq!(default_burst(PacketsPerSecond(5)), 1);
        assert_eq!(default_burst(PacketsPerSecond(1000)), 100);
        assert_eq!(default_burst(BitsPerSecond(1_000_000_000)), 12_500_000);
    }

    #[test]
    fn buckets() {
        assert_eq!(parse_per("src"), Some(Per::Src { ipv4: 32, ipv6: 64 }));
        assert_eq!(parse_per("src/24"), Some(Per::Src { ipv4: 24, ipv6: 64 }));
        assert_eq!(parse_per("src/24/56"), Some(Per::Src { ipv4: 24, ipv6: 56 }));
        assert_eq!(parse_per("flow"), Some(Per::Flow));
        for wrong in ["", "dst", "src/", "src/0", "src/33", "src/24/129", "src/24/56/1"] {
            assert_eq!(parse_per(wrong), None, "{wrong}");
        }
    }
}
