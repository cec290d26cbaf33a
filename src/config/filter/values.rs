//! What the keys of a rule may hold: one value, or a list of which one must match.

use std::ops::RangeInclusive;

use toml::Spanned;
use toml::de::DeValue;

use crate::config::choice::{list, nearest};
use crate::config::reader::{Reader, Section, choice};
use crate::packet::protocol;
use crate::stages::filter::{FragmentKind, ParsePrefixError, Prefix, TcpFlags};

/// Protocols that have a name here; every one has a number.
const PROTOCOLS: [(&str, u8); 13] = [
    ("icmp", protocol::ICMP),
    ("igmp", 2),
    ("ipip", 4),
    ("tcp", protocol::TCP),
    ("udp", protocol::UDP),
    ("ipv6", 41),
    ("gre", 47),
    ("esp", 50),
    ("ah", protocol::AUTHENTICATION),
    ("icmpv6", protocol::ICMPV6),
    ("ospf", 89),
    ("vrrp", 112),
    ("sctp", protocol::SCTP),
];

/// Flags by bit, from the lowest (RFC 9293).
const TCP_FLAGS: [&str; 8] = ["fin", "syn", "rst", "psh", "ack", "urg", "ece", "cwr"];

const VLAN_IDS: RangeInclusive<u32> = 1..=4094;

type Values<'t> = Vec<&'t Spanned<DeValue<'t>>>;

/// The value of `key`, or those of its list.
fn each<'t>(section: &Section<'t>, reader: &mut Reader<'_>, key: &str) -> Values<'t> {
    let Some(value) = section.value(key) else { return Vec::new() };
    let DeValue::Array(items) = value.get_ref() else { return vec![value] };
    if items.is_empty() {
        reader
            .error(value.span(), format!("`{key}` is an empty list"))
            .label("which matches nothing: leave the key out, or name a value");
    }
    items.iter().collect()
}

pub(super) fn prefixes(section: &Section<'_>, reader: &mut Reader<'_>, key: &str) -> Vec<Prefix> {
    let mut prefixes = Vec::new();
    for value in each(section, reader, key) {
        let Some(text) = value.get_ref().as_str() else {
            reader.wrong_type(key, value, "a string, or an array of strings");
            continue;
        };
        match text.parse() {
            Ok(prefix) => prefixes.push(prefix),
            Err(error) => {
                let (message, label) = describe(key, &error);
                reader.error(value.span(), message).label(label);
            }
        }
    }
    prefixes
}

/// Message and label for a text that is no prefix; `key` is what it was meant for.
pub(in crate::config) fn describe(key: &str, error: &ParsePrefixError) -> (String, String) {
    match error {
        ParsePrefixError::Syntax => (
            format!("`{key}` is not an address or prefix"),
            "expected one such as `198.18.0.0/15` or `2001:db8::/32`".to_owned(),
        ),
        ParsePrefixError::Length { max } => {
            (format!("the prefix length of `{key}` is out of range"), format!("must be 0 to {max}"))
        }
        ParsePrefixError::HostBits { meant } => {
            (format!("`{key}` has bits set behind its prefix"), format!("did you mean `{meant}`?"))
        }
        ParsePrefixError::Mapped { meant } => {
            (format!("`{key}` is an IPv4-mapped IPv6 prefix"), format!("write `{meant}`"))
        }
    }
}

pub(super) fn protocols(section: &Section<'_>, reader: &mut Reader<'_>) -> Vec<u8> {
    let mut numbers = Vec::new();
    for value in each(section, reader, "protocol") {
        let Some(name) = value.get_ref().as_str() else {
            numbers.extend(number(reader, "protocol", value, &(0..=255)).map(|number| number as u8));
            continue;
        };
        if let Some((_, number)) = PROTOCOLS.iter().find(|(known, _)| *known == name) {
            numbers.push(*number);
            continue;
        }
        let names = || PROTOCOLS.iter().map(|(name, _)| *name);
        let error = reader.error(value.span(), format!("unknown value `{name}` for `protocol`"));
        match nearest(name, names()) {
            Some(meant) => error.label(format!("did you mean `{meant}`?")),
            None => error.label("write its number").help(format!("known names: {}", list(names()))),
        };
    }
    numbers.sort_unstable();
    numbers.dedup();
    numbers
}

/// Numbers and ranges, in order and without overlap.
pub(in crate::config) fn ranges<T>(
    section: &Section<'_>,
    reader: &mut Reader<'_>,
    key: &str,
    allowed: RangeInclusive<u32>,
) -> Vec<RangeInclusive<T>>
where
    T: TryFrom<u32>,
{
    let values = each(section, reader, key);
    merged(values.into_iter().filter_map(|value| one_range(reader, key, value, &allowed)).collect())
}

pub(super) fn vlans(section: &Section<'_>, reader: &mut Reader<'_>) -> Vec<RangeInclusive<u16>> {
    let mut vlans = Vec::new();
    for value in each(section, reader, "vlan") {
        if value.get_ref().as_str() == Some("none") {
            vlans.push(0..=0);
        } else {
            vlans.extend(one_range(reader, "vlan", value, &VLAN_IDS));
        }
    }
    merged(vlans)
}

pub(super) fn range(
    section: &Section<'_>,
    reader: &mut Reader<'_>,
    key: &str,
    allowed: RangeInclusive<u32>,
) -> Option<RangeInclusive<u32>> {
    one_range(reader, key, section.value(key)?, &allowed)
}

fn one_range(
    reader: &mut Reader<'_>,
    key: &str,
    value: &Spanned<DeValue<'_>>,
    allowed: &RangeInclusive<u32>,
) -> Option<RangeInclusive<u32>> {
    let Some(text) = value.get_ref().as_str() else {
        return number(reader, key, value, allowed).map(|number| number..=number);
    };
    let (low, high) = text.split_once('-').unwrap_or((text, text));
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|digit| digit.is_ascii_digit());
    let (low, high) = (low.trim(), high.trim());
    if !is_number(low) || !is_number(high) {
        let (first, last) = (allowed.start(), allowed.end());
        let or_none = if key == "vlan" { ", or `\"none\"`" } else { "" };
        reader
            .error(value.span(), format!("`{key}` is not a number or range"))
            .label(format!("expected one such as `{last}` or `\"{first}-{last}\"`{or_none}"));
        return None;
    }
    // Digits that are too many for a number are out of range, too.
    let bounds = low.parse().ok().zip(high.parse().ok());
    match bounds.filter(|(low, high)| allowed.contains(low) && allowed.contains(high)) {
        None => {
            out_of_range(reader, key, value, allowed);
            None
        }
        Some((low, high)) if low > high => {
            reader
                .error(value.span(), format!("`{key}` is a reversed range"))
                .label(format!("write `\"{high}-{low}\"`"));
            None
        }
        Some((low, high)) => Some(low..=high),
    }
}

fn number(
    reader: &mut Reader<'_>,
    key: &str,
    value: &Spanned<DeValue<'_>>,
    allowed: &RangeInclusive<u32>,
) -> Option<u32> {
    let DeValue::Integer(integer) = value.get_ref() else {
        reader.wrong_type(key, value, "a number, a range such as \"1-9\", or a list of them");
        return None;
    };
    let number = u32::from_str_radix(integer.as_str(), integer.radix()).ok();
    let number = number.filter(|number| allowed.contains(number));
    if number.is_none() {
        out_of_range(reader, key, value, allowed);
    }
    number
}

fn out_of_range(
    reader: &mut Reader<'_>,
    key: &str,
    value: &Spanned<DeValue<'_>>,
    allowed: &RangeInclusive<u32>,
) {
    reader.error(value.span(), format!("`{key}` is out of range")).label(format!(
        "must be {} to {}",
        allowed.start(),
        allowed.end()
    ));
}

/// In order, and those that touch as one. Every bound was checked to fit.
fn merged<T: TryFrom<u32>>(mut ranges: Vec<RangeInclusive<u32>>) -> Vec<RangeInclusive<T>> {
    ranges.sort_unstable_by_key(|range| *range.start());
    let mut merged: Vec<RangeInclusive<u32>> = Vec::new();
    for range in ranges {
        match merged.last_mut() {
            Some(last) if *range.start() <= last.end().saturating_add(1) => {
                *last = *last.start()..=*last.end().max(range.end());
            }
            _ => merged.push(range),
        }
    }
    let narrow = |range: RangeInclusive<u32>| {
        let (low, high) = range.into_inner();
        Some(T::try_from(low).ok()?..=T::try_from(high).ok()?)
    };
    merged.into_iter().filter_map(narrow).collect()
}

pub(super) fn tcp_flags(section: &Section<'_>, reader: &mut Reader<'_>) -> Option<TcpFlags> {
    let table = section.table(reader, "tcp_flags", "tcp_flags = { … }", &["set", "clear"])?;
    let [set, clear] = ["set", "clear"].map(|key| {
        let mut flags = 0;
        for value in each(&table, reader, key) {
            let Some(name) = value.get_ref().as_str() else {
                reader.wrong_type(key, value, "the name of a flag, or an array of them");
                continue;
            };
            match TCP_FLAGS.iter().position(|known| *known == name) {
                Some(bit) => flags |= 1 << bit,
                None => {
                    let error = reader.error(value.span(), format!("unknown value `{name}` for `{key}`"));
                    match nearest(name, TCP_FLAGS) {
                        Some(meant) => error.label(format!("did you mean `{meant}`?")),
                        None => error.label(format!("known: {}", list(TCP_FLAGS))),
                    };
                }
            }
        }
        flags
    });
    if set & clear != 0 {
        reader
            .error(table.span(), "a flag stands in both `set` and `clear`")
            .label("no packet can meet that");
    }
    if table.is_empty() {
        reader
            .error(table.span(), "`tcp_flags` is empty")
            .label("name flags, as in `{ set = [\"syn\"], clear = [\"ack\"] }`");
    }
    Some(TcpFlags { set, clear })
}

/// `true`, `false`, or which fragment.
pub(super) fn fragment(section: &Section<'_>, reader: &mut Reader<'_>) -> Option<FragmentKind> {
    let value = section.value("fragment")?;
    match value.get_ref() {
        DeValue::Boolean(true) => Some(FragmentKind::Any),
        DeValue::Boolean(false) => Some(FragmentKind::No),
        DeValue::String(word) => choice(reader, "fragment", &Spanned::new(value.span(), word.as_ref())),
        _ => {
            reader.wrong_type("fragment", value, "`true`, `false`, \"first\" or \"later\"");
            None
        }
    }
}
