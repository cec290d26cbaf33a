//! Whether two rules may match the same packet.

use std::net::IpAddr;
use std::ops::RangeInclusive;

use crate::packet::protocol::{ICMP, ICMPV6, SCTP, TCP, UDP};
use crate::stages::filter::{FragmentKind, Match, Prefix, PrefixSet, Rule};

/// Whether some packet may be matched by both rules. Errs on the side of `true`: `not` is not looked at, and only
/// conditions on the same thing are compared.
pub fn may_overlap(a: &Rule, b: &Rule) -> bool {
    let (a, b) = (&a.matches, &b.matches);
    lists(&a.src, &b.src, prefixes_meet)
        && lists(&a.dst, &b.dst, prefixes_meet)
        && sets(&a.src_set, &a.src, &b.src_set, &b.src)
        && sets(&a.dst_set, &a.dst, &b.dst_set, &b.dst)
        && (0..=u8::MAX).any(|protocol| may_be(a, protocol) && may_be(b, protocol))
        && lists(&a.src_port, &b.src_port, ranges_meet)
        && lists(&a.dst_port, &b.dst_port, ranges_meet)
        && lists(&a.vlan, &b.vlan, ranges_meet)
        && lists(&a.icmp_type, &b.icmp_type, ranges_meet)
        && lists(&a.icmp_code, &b.icmp_code, ranges_meet)
        && both(&a.length, &b.length, ranges_meet)
        && both(&a.tcp_flags, &b.tcp_flags, |a, b| a.set & b.clear == 0 && b.set & a.clear == 0)
        && both(&a.fragment, &b.fragment, fragments_meet)
        && both(&a.ip_options, &b.ip_options, PartialEq::eq)
        && both(&a.malformed, &b.malformed, PartialEq::eq)
}

/// A condition that is left out meets every other.
fn lists<T>(a: &[T], b: &[T], meet: impl Fn(&T, &T) -> bool) -> bool {
    a.is_empty() || b.is_empty() || a.iter().any(|a| b.iter().any(|b| meet(a, b)))
}

fn both<T>(a: &Option<T>, b: &Option<T>, meet: impl Fn(&T, &T) -> bool) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => meet(a, b),
        _ => true,
    }
}

fn prefixes_meet(a: &Prefix, b: &Prefix) -> bool {
    a.covers(*b) || b.covers(*a)
}

fn ranges_meet<T: PartialOrd>(a: &RangeInclusive<T>, b: &RangeInclusive<T>) -> bool {
    a.start() <= b.end() && b.start() <= a.end()
}

fn fragments_meet(a: &FragmentKind, b: &FragmentKind) -> bool {
    use FragmentKind::Any;
    let is_fragment = |kind: &FragmentKind| *kind != FragmentKind::No;
    a == b || (*a == Any && is_fragment(b)) || (*b == Any && is_fragment(a))
}

/// Whether a packet of this protocol can match: ports, TCP flags and ICMP types ask for a protocol, too. A packet that
/// has no protocol is taken for one of protocol 0, which nothing here asks for.
fn may_be(conditions: &Match, protocol: u8) -> bool {
    let Match { protocol: wanted, src_port, dst_port, tcp_flags, icmp_type, icmp_code, .. } = conditions;
    (wanted.is_empty() || wanted.contains(&protocol))
        && ((src_port.is_empty() && dst_port.is_empty()) || matches!(protocol, TCP | UDP | SCTP))
        && (tcp_flags.is_none() || protocol == TCP)
        && ((icmp_type.is_empty() && icmp_code.is_empty()) || matches!(protocol, ICMP | ICMPV6))
}

type Set = Option<std::sync::Arc<PrefixSet>>;

/// Sets with each other and with the lists of the other rule.
fn sets(a: &Set, a_list: &[Prefix], b: &Set, b_list: &[Prefix]) -> bool {
    both(a, b, |a, b| sorted_meet(a.prefixes(), b.prefixes()))
        && a.as_ref()
            .is_none_or(|a| b_list.is_empty() || b_list.iter().any(|prefix| meets_sorted(a, *prefix)))
        && b.as_ref()
            .is_none_or(|b| a_list.is_empty() || a_list.iter().any(|prefix| meets_sorted(b, *prefix)))
}

fn meets_sorted(set: &PrefixSet, prefix: Prefix) -> bool {
    sorted_meet(set.prefixes(), &[prefix])
}

/// Two prefixes are one in the other or apart, so in the order of their addresses it is enough to compare each with
/// the next of the other list, and to go on in the list whose prefix ends first.
fn sorted_meet(a: &[Prefix], b: &[Prefix]) -> bool {
    let (mut a, mut b) = (a, b);
    // The longer list is searched for the first prefix that can matter.
    if a.len() < b.len() {
        (a, b) = (b, a);
    }
    b.iter().any(|prefix| {
        let first = last(*prefix);
        // All that start at or before the end of `prefix`; of those the ones that meet it reach its start.
        let end = a.partition_point(|other| other.address() <= first);
        let start = a.partition_point(|other| other.address() < prefix.address());
        // One that starts inside is inside.
        start < end || covered(&a[..start], *prefix)
    })
}

/// Whether one of the sorted prefixes, which all start before `prefix`, covers it: there are as many lengths as bits.
fn covered(sorted: &[Prefix], prefix: Prefix) -> bool {
    (0..prefix.length()).any(|length| sorted.binary_search(&Prefix::new(prefix.address(), length)).is_ok())
}

fn last(prefix: Prefix) -> IpAddr {
    match prefix.address() {
        IpAddr::V4(address) => {
            let host = u32::MAX.checked_shr(prefix.length().into()).unwrap_or(0);
            IpAddr::V4((address.to_bits() | host).into())
        }
        IpAddr::V6(address) => {
            let host = u128::MAX.checked_shr(prefix.length().into()).unwrap_or(0);
            IpAddr::V6((address.to_bits() | host).into())
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::stages::filter::{Action, TcpFlags};

    fn rule(change: impl FnOnce(&mut Match)) -> Rule {
        let mut rule = Rule::new("r", Action::Drop);
        change(&mut rule.matches);
        rule
    }

    fn prefixes(texts: &[&str]) -> Vec<Prefix> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn set(texts: &[&str]) -> Set {
        Some(Arc::new(PrefixSet::new("set.txt", prefixes(texts))))
    }

    fn expect(meet: bool, a: impl FnOnce(&mut Match), b: impl FnOnce(&mut Match)) {
        let (a, b) = (rule(a), rule(b));
        assert_eq!(may_overlap(&a, &b), meet, "{a:?} and {b:?}");
        assert_eq!(may_overlap(&b, &a), meet, "{b:?} and {a:?}");
    }

    #[test]
    fn a_rule_without_conditions_meets_all() {
        expect(true, |_| {}, |m| m.dst_port = vec![80..=80]);
    }

    #[test]
    fn addresses() {
        expect(false, |m| m.src = prefixes(&["10.0.0.0/8"]), |m| m.src = prefixes(&["11.0.0.0/8", "::/0"]));
        expect(true, |m| m.src = prefixes(&["10.0.0.0/8"]), |m| m.src = prefixes(&["10.1.2.3"]));
        expect(true, |m| m.src = prefixes(&["10.0.0.0/8"]), |m| m.dst = prefixes(&["11.0.0.0/8"]));
        expect(
            true,
            |m| m.src_set = set(&["10.0.0.0/8", "10.9.0.0/16"]),
            |m| m.src_set = set(&["10.200.0.0/16"]),
        );
        expect(
            false,
            |m| m.src_set = set(&["10.0.0.0/9", "12.0.0.0/8"]),
            |m| m.src = prefixes(&["10.200.0.0/16"]),
        );
        expect(
            true,
            |m| m.dst_set = set(&["10.0.0.0/9", "12.0.0.0/8"]),
            |m| m.dst = prefixes(&["0.0.0.0/0"]),
        );
        expect(
            false,
            |m| m.src_set = set(&["2001:db8::/32"]),
            |m| m.src_set = set(&["0.0.0.0/0", "2001:db9::/32"]),
        );
        expect(false, |m| m.src_set = set(&[]), |m| m.src = prefixes(&["0.0.0.0/0"]));
    }

    #[test]
    fn ports_and_what_asks_for_a_protocol() {
        expect(false, |m| m.dst_port = vec![0..=79], |m| m.dst_port = vec![80..=80, 90..=99]);
        expect(true, |m| m.dst_port = vec![0..=95], |m| m.dst_port = vec![80..=80, 90..=99]);
        expect(false, |m| m.dst_port = vec![0..=79], |m| m.protocol = vec![1]);
        expect(false, |m| m.dst_port = vec![0..=79], |m| m.icmp_type = vec![8..=8]);
        expect(false, |m| m.tcp_flags = Some(TcpFlags { set: 2, clear: 0 }), |m| m.protocol = vec![17]);
        expect(
            false,
            |m| m.tcp_flags = Some(TcpFlags { set: 2, clear: 0 }),
            |m| m.tcp_flags = Some(TcpFlags { set: 0, clear: 2 }),
        );
        expect(true, |m| m.src_port = vec![7..=7], |m| m.tcp_flags = Some(TcpFlags { set: 0, clear: 2 }));
    }

    #[test]
    fn the_rest() {
        expect(false, |m| m.fragment = Some(FragmentKind::No), |m| m.fragment = Some(FragmentKind::Any));
        expect(true, |m| m.fragment = Some(FragmentKind::Later), |m| m.fragment = Some(FragmentKind::Any));
        expect(false, |m| m.fragment = Some(FragmentKind::Later), |m| m.fragment = Some(FragmentKind::First));
        expect(false, |m| m.malformed = Some(true), |m| m.malformed = Some(false));
        expect(true, |m| m.malformed = Some(true), |m| m.ip_options = Some(false));
        expect(false, |m| m.length = Some(0..=99), |m| m.length = Some(100..=1500));
        expect(false, |m| m.vlan = vec![0..=0], |m| m.vlan = vec![1..=4094]);
    }
}
