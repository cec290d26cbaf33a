//! Rules as entries of the table.

use std::ops::RangeInclusive;

use xfwd_ebpf_types::filter::{Entry, Has, Verdict};

use crate::stages::filter::Action;
use crate::stages::filter::{FragmentKind, Match, Prefix, Rule};

/// Prefix lists of a match that an entry cannot hold: numbers of the sets that stand for them, as bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sets {
    pub src: u32,
    pub dst: u32,
}

/// The entries of a rule, which will stand from number `first` on. A match that no packet can meet has none.
pub(super) fn entries(
    rule: &Rule,
    verdict: Verdict,
    sets: Sets,
    sets_of_not: Sets,
    first: u32,
) -> Vec<Entry> {
    let not = rule.not.as_ref().map(|not| of_match(not, sets_of_not)).unwrap_or_default();
    let matches = of_match(&rule.matches, sets);
    let behind = first + (not.len() + matches.len()) as u32;
    let effect = if rule.action == Action::Count { Entry::COUNT } else { Entry::DECIDE };
    let with = |effect| move |entry| Entry { effect, verdict: verdict.0, next: behind, ..entry };
    not.into_iter().map(with(Entry::SKIP)).chain(matches.into_iter().map(with(effect))).collect()
}

/// How many entries a rule takes.
pub(super) fn count(rule: &Rule) -> usize {
    let of_match = |conditions: &Match| {
        let Match { src_port, dst_port, vlan, icmp_type, icmp_code, .. } = conditions;
        [src_port.len(), dst_port.len(), vlan.len(), icmp_type.len(), icmp_code.len()]
            .iter()
            .fold(1_usize, |product, length| product.saturating_mul((*length).max(1)))
    };
    of_match(&rule.matches).saturating_add(rule.not.as_ref().map_or(0, of_match))
}

/// One entry for each combination of ranges.
fn of_match(conditions: &Match, sets: Sets) -> Vec<Entry> {
    let Some(base) = base(conditions, sets) else { return Vec::new() };
    let mut entries = vec![base];
    multiply(&mut entries, &conditions.src_port, Has::PORTS, |entry, range| entry.src_port = range);
    multiply(&mut entries, &conditions.dst_port, Has::PORTS, |entry, range| entry.dst_port = range);
    multiply(&mut entries, &conditions.vlan, Has::VLAN, |entry, range| entry.vlan = range);
    multiply(&mut entries, &conditions.icmp_type, Has::ICMP, |entry, range| entry.icmp_type = range);
    multiply(&mut entries, &conditions.icmp_code, Has::ICMP, |entry, range| entry.icmp_code = range);
    entries
}

fn multiply<T: Copy>(
    entries: &mut Vec<Entry>,
    ranges: &[RangeInclusive<T>],
    needs: u32,
    set: impl Fn(&mut Entry, [T; 2]),
) {
    if ranges.is_empty() {
        return;
    }
    *entries = entries
        .iter()
        .flat_map(|entry| {
            ranges.iter().map(|range| {
                let mut entry = Entry { needs: entry.needs | needs, ..*entry };
                set(&mut entry, [*range.start(), *range.end()]);
                entry
            })
        })
        .collect();
}

/// All but the ranges; `None` when no packet can meet it.
fn base(conditions: &Match, sets: Sets) -> Option<Entry> {
    let mut entry = Entry { src_sets: sets.src, dst_sets: sets.dst, ..Entry::ANY };
    if let Some(prefix) = inline(&conditions.src) {
        (entry.src, entry.src_mask) = bits(prefix);
        entry.needs |= family(prefix);
    }
    if let Some(prefix) = inline(&conditions.dst) {
        (entry.dst, entry.dst_mask) = bits(prefix);
        entry.needs |= family(prefix);
    }
    if !conditions.protocol.is_empty() {
        entry.needs |= Has::PROTOCOL;
        entry.protocols = [0; 4];
        for protocol in &conditions.protocol {
            entry.protocols[usize::from(protocol >> 6)] |= 1 << (protocol & 63);
        }
    }
    if let Some(flags) = conditions.tcp_flags {
        if flags.set & flags.clear != 0 {
            return None;
        }
        entry.needs |= Has::TCP_FLAGS;
        entry.flags_mask = u16::from(flags.set | flags.clear);
        entry.flags = flags.set.into();
    }
    if let Some(length) = &conditions.length {
        entry.needs |= Has::LENGTH;
        (entry.length_min, entry.length_max) = (*length.start(), *length.end());
    }
    entry.needs |= match conditions.fragment {
        None => 0,
        Some(FragmentKind::No) => Has::NO_FRAGMENT,
        Some(FragmentKind::Any) => Has::FRAGMENT,
        Some(FragmentKind::First) => Has::FIRST_FRAGMENT,
        Some(FragmentKind::Later) => Has::LATER_FRAGMENT,
    };
    entry.needs |= match conditions.ip_options {
        None => 0,
        Some(true) => Has::OPTIONS,
        Some(false) => Has::NO_OPTIONS,
    };
    entry.needs |= match conditions.malformed {
        None => 0,
        Some(true) => Has::MALFORMED,
        Some(false) => Has::WELL_FORMED,
    };
    Some(entry)
}

/// A list of one prefix stands in the entry; a longer one is a set.
pub(super) fn inline(prefixes: &[Prefix]) -> Option<Prefix> {
    match prefixes {
        [prefix] => Some(*prefix),
        _ => None,
    }
}

fn family(prefix: Prefix) -> u32 {
    if prefix.ip_version() == 4 { Has::IPV4 } else { Has::IPV6 }
}

/// Address and mask in words of native byte order.
fn bits(prefix: Prefix) -> ([u64; 2], [u64; 2]) {
    let (address, length) = prefix.mapped();
    let mask = u128::MAX.checked_shl(128 - u32::from(length)).unwrap_or(0);
    (words(address), words(mask.to_be_bytes()))
}

/// An address as [`PacketFacts`](xfwd_ebpf_types::filter::PacketFacts) has it.
pub(super) fn words(address: [u8; 16]) -> [u64; 2] {
    let [first, second] = address.as_chunks::<8>().0 else { unreachable!("16 bytes are twice 8") };
    [u64::from_ne_bytes(*first), u64::from_ne_bytes(*second)]
}
