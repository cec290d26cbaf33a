//! `[[filter]]`: the rules of the packet filter, in order.

mod overlap;
mod rate;
mod set_file;
#[cfg(test)]
mod tests;
pub(super) mod values;

use std::collections::HashMap;

use super::reader::{Reader, Section, Span};
use crate::packet::protocol;
use crate::stages::filter::{Action, Match, Rule};
pub(super) use set_file::Files;
use set_file::SetFiles;

/// Keys of a rule.
pub(crate) const KEYS: &[&str] = &[
    "name",
    "src",
    "dst",
    "src_set",
    "dst_set",
    "protocol",
    "src_port",
    "dst_port",
    "vlan",
    "tcp_flags",
    "icmp_type",
    "icmp_code",
    "length",
    "fragment",
    "ip_options",
    "malformed",
    "not",
    "action",
    "rate",
    "burst",
    "per",
];
/// Keys of `not`: conditions only.
const NOT_KEYS: &[&str] = &[
    "src",
    "dst",
    "src_set",
    "dst_set",
    "protocol",
    "src_port",
    "dst_port",
    "vlan",
    "tcp_flags",
    "icmp_type",
    "icmp_code",
    "length",
    "fragment",
    "ip_options",
    "malformed",
];
const HIGHEST_PORT: u32 = u16::MAX as u32;
/// The shortest IP packet is an IPv4 header, the longest an IPv6 header and 65,535 bytes.
const IP_BYTES: std::ops::RangeInclusive<u32> = 20..=65_575;

/// A rule, and where its name or header is.
struct Placed {
    rule: Rule,
    span: Span,
}

pub(super) fn read(root: &Section<'_>, reader: &mut Reader<'_>, files: &Files) -> Vec<Rule> {
    let mut names = HashMap::new();
    let mut sets = SetFiles::new(files);
    let sections = root.tables(reader, "filter", "[[filter]]", KEYS);
    let placed: Vec<Placed> =
        sections.iter().filter_map(|section| rule(section, reader, &mut sets, &mut names)).collect();
    if placed.len() == sections.len() {
        overlap::warn(&placed, reader);
    }
    placed.into_iter().map(|placed| placed.rule).collect()
}

/// `None` when it has no name or action to go by, which is reported.
fn rule(
    section: &Section<'_>,
    reader: &mut Reader<'_>,
    sets: &mut SetFiles<'_>,
    names: &mut HashMap<String, Span>,
) -> Option<Placed> {
    let name = section.text(reader, "name");
    section.require(reader, "name", "\"bogons\"");
    let action: Option<Action> = section.choice(reader, "action");
    section.require(reader, "action", "\"drop\"");
    let matches = conditions(section, reader, sets);
    let not = section.table(reader, "not", "not = { … }", NOT_KEYS).map(|section| {
        let not = conditions(&section, reader, sets);
        if section.is_empty() {
            reader
                .error(section.span(), "`not` is empty")
                .label("every packet meets no condition, so the rule would match none");
        }
        not
    });
    let rate = rate::read(section, reader);

    let name = name?;
    let word = name.get_ref().trim();
    if word.is_empty() {
        reader.error(name.span(), "`name` is empty").label("counters and messages call the rule by it");
        return None;
    }
    if let Some(first) = names.get(word) {
        let line = reader.line(first);
        reader
            .error(name.span(), format!("two rules have the name `{word}`"))
            .label(format!("the first is in line {line}"));
        return None;
    }
    names.insert(word.to_owned(), name.span());
    let rule = Rule { name: word.to_owned(), matches, not, action: action?, rate };
    warn_if_never(&rule, section, reader);
    Some(Placed { rule, span: name.span() })
}

fn conditions(section: &Section<'_>, reader: &mut Reader<'_>, sets: &mut SetFiles<'_>) -> Match {
    Match {
        src: values::prefixes(section, reader, "src"),
        dst: values::prefixes(section, reader, "dst"),
        src_set: sets.read(section, reader, "src_set"),
        dst_set: sets.read(section, reader, "dst_set"),
        protocol: values::protocols(section, reader),
        src_port: values::ranges(section, reader, "src_port", 0..=HIGHEST_PORT),
        dst_port: values::ranges(section, reader, "dst_port", 0..=HIGHEST_PORT),
        vlan: values::vlans(section, reader),
        tcp_flags: values::tcp_flags(section, reader),
        icmp_type: values::ranges(section, reader, "icmp_type", 0..=255),
        icmp_code: values::ranges(section, reader, "icmp_code", 0..=255),
        length: values::range(section, reader, "length", IP_BYTES),
        fragment: values::fragment(section, reader),
        ip_options: section.boolean(reader, "ip_options"),
        malformed: section.boolean(reader, "malformed"),
    }
}

/// Conditions that contradict each other: no packet meets them.
fn warn_if_never(rule: &Rule, section: &Section<'_>, reader: &mut Reader<'_>) {
    let Match { src, dst, protocol, tcp_flags, icmp_type, icmp_code, fragment, .. } = &rule.matches;
    let has_ports = !rule.matches.src_port.is_empty() || !rule.matches.dst_port.is_empty();
    let has_icmp = !icmp_type.is_empty() || !icmp_code.is_empty();
    let excludes = |wanted: &[u8]| !protocol.is_empty() && !protocol.iter().any(|one| wanted.contains(one));
    let later = *fragment == Some(crate::stages::filter::FragmentKind::Later);
    let why = if has_ports && excludes(&[protocol::TCP, protocol::UDP, protocol::SCTP]) {
        "ports are those of `tcp`, `udp` and `sctp`"
    } else if tcp_flags.is_some() && excludes(&[protocol::TCP]) {
        "`tcp_flags` are those of `tcp`"
    } else if has_icmp && excludes(&[protocol::ICMP, protocol::ICMPV6]) {
        "`icmp_type` and `icmp_code` are those of `icmp` and `icmpv6`"
    } else if has_icmp && (has_ports || tcp_flags.is_some()) {
        "no packet has both ports and an ICMP type"
    } else if later && (has_ports || has_icmp || tcp_flags.is_some()) {
        "a later fragment has no transport header"
    } else if !src.is_empty() && !dst.is_empty() && !src.iter().any(|src| has_family(dst, src.ip_version())) {
        "`src` and `dst` are of different IP versions"
    } else {
        return;
    };
    let place = section.value("name").map_or(section.span(), |name| name.span());
    reader.warning(place, format!("the rule `{}` matches no packet", rule.name)).label(why);
}

fn has_family(prefixes: &[crate::stages::filter::Prefix], ip_version: u8) -> bool {
    prefixes.iter().any(|prefix| prefix.ip_version() == ip_version)
}
