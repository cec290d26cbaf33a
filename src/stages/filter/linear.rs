//! The meaning of a list, rule after rule. For tests, and as the words that explain a list.

use std::ops::RangeInclusive;
use std::sync::Arc;

use super::{Action, Facts, FragmentKind, Match, Prefix, PrefixSet, Rule};
use crate::packet::Fragment;

/// Index of the first rule that matches. Rules that are switched off ([`Action::Continue`]) are passed over.
pub fn first_match(rules: &[Rule], facts: &Facts) -> Option<usize> {
    next_match(rules, facts, 0)
}

/// Index of the first rule from `start` on that matches; like [`first_match`].
pub fn next_match(rules: &[Rule], facts: &Facts, start: usize) -> Option<usize> {
    (start..rules.len())
        .find(|&index| rules[index].action != Action::Continue && matches(&rules[index], facts))
}

/// Index of the rule that decides about a packet; `None` when none does, and it goes on with the next stage.
///
/// `exceeds` is asked for each rule that matches and has a rate, in order, whether the packet is above it; `act` is told of
/// each rule that acts on the packet, in order, the deciding one included: what its counter counts.
pub fn decide(
    rules: &[Rule],
    facts: &Facts,
    mut exceeds: impl FnMut(usize) -> bool,
    mut act: impl FnMut(usize),
) -> Option<usize> {
    for (index, rule) in rules.iter().enumerate() {
        if rule.action == Action::Continue || !matches(rule, facts) {
            continue;
        }
        if rule.rate.is_some() && !exceeds(index) {
            continue;
        }
        act(index);
        if rule.action.decides() {
            return Some(index);
        }
    }
    None
}

/// Whether a rule matches.
pub fn matches(rule: &Rule, facts: &Facts) -> bool {
    holds(&rule.matches, facts) && !rule.not.as_ref().is_some_and(|not| holds(not, facts))
}

/// Whether all conditions hold.
pub fn holds(conditions: &Match, facts: &Facts) -> bool {
    holds_with(conditions, facts, |set, ip_version, address| {
        set.prefixes().iter().any(|prefix| prefix.contains_mapped(ip_version, address))
    })
}

/// [`holds`], with a way to look an address up in a set: its IP version, and its bytes.
#[inline]
pub(super) fn holds_with(
    conditions: &Match,
    facts: &Facts,
    contains: impl Fn(&PrefixSet, u8, &[u8; 16]) -> bool,
) -> bool {
    // An empty set holds no address: unlike an empty list it is a condition.
    let in_set = |set: &Option<Arc<PrefixSet>>, address: &[u8; 16]| {
        set.as_ref().is_none_or(|set| contains(set, facts.ip_version, address))
    };
    let Match {
        src,
        dst,
        src_set,
        dst_set,
        protocol,
        src_port,
        dst_port,
        vlan,
        tcp_flags,
        icmp_type,
        icmp_code,
        length,
        fragment,
        ip_options,
        malformed,
    } = conditions;
    let version = facts.ip_version;
    in_prefixes(src, version, &facts.src)
        && in_prefixes(dst, version, &facts.dst)
        && in_set(src_set, &facts.src)
        && in_set(dst_set, &facts.dst)
        && (protocol.is_empty() || facts.protocol.is_some_and(|number| protocol.contains(&number)))
        && in_ranges(src_port, facts.ports.map(|(src, _)| src))
        && in_ranges(dst_port, facts.ports.map(|(_, dst)| dst))
        && in_ranges(vlan, facts.vlan)
        && tcp_flags.is_none_or(|wanted| {
            facts.tcp_flags.is_some_and(|flags| flags & wanted.set == wanted.set && flags & wanted.clear == 0)
        })
        && in_ranges(icmp_type, facts.icmp.map(|(kind, _)| kind))
        && in_ranges(icmp_code, facts.icmp.map(|(_, code)| code))
        && length.as_ref().is_none_or(|range| facts.length.is_some_and(|bytes| range.contains(&bytes)))
        && fragment.is_none_or(|wanted| facts.fragment.is_some_and(|found| is_kind(wanted, found)))
        && ip_options.is_none_or(|wanted| facts.ip_options == Some(wanted))
        && malformed.is_none_or(|wanted| facts.malformed == wanted)
}

fn in_prefixes(prefixes: &[Prefix], ip_version: u8, address: &[u8; 16]) -> bool {
    prefixes.is_empty() || prefixes.iter().any(|prefix| prefix.contains_mapped(ip_version, address))
}

fn in_ranges<T: PartialOrd>(ranges: &[RangeInclusive<T>], value: Option<T>) -> bool {
    ranges.is_empty() || value.is_some_and(|value| ranges.iter().any(|range| range.contains(&value)))
}

fn is_kind(wanted: FragmentKind, found: Fragment) -> bool {
    match wanted {
        FragmentKind::No => found == Fragment::No,
        FragmentKind::Any => found != Fragment::No,
        FragmentKind::First => found == Fragment::First,
        FragmentKind::Later => found == Fragment::Later,
    }
}
