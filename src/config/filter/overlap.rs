//! Rules that get in each other's way: what is never reached, and what decides by order alone.

use std::ops::RangeInclusive;
use std::sync::Arc;

use super::Placed;
use crate::config::reader::Reader;
use crate::stages::filter::{FragmentKind, Match, Prefix, PrefixSet, Rule};

/// Lists longer than this are not compared rule by rule: that takes a time that grows with the square.
const MOST_COMPARED: usize = 10_000;
/// A list that was put together by a program can have many, and all of them say the same.
const MOST_WARNINGS: usize = 20;

/// Warns of
/// * rules that are never reached, since an earlier one decides about all they match;
/// * pairs with different actions that ask for the same fields and match a part of each other's packets: which of
///   them decides about that part hangs on nothing but their order. One inside the other is not
///   warned of: that is how exceptions are written.
pub(super) fn warn(rules: &[Placed], reader: &mut Reader<'_>) {
    if rules.len() > MOST_COMPARED {
        reader
            .warning(rules[0].span.clone(), "the rules are not checked for overlap")
            .label(format!("{} rules; up to {MOST_COMPARED} are compared", rules.len()));
        return;
    }
    let mut warnings = 0;
    for (index, later) in rules.iter().enumerate() {
        if warnings >= MOST_WARNINGS {
            break;
        }
        let decides = |earlier: &&Placed| earlier.rule.action.decides();
        let before = rules[..index].iter().filter(decides);
        if let Some(earlier) =
            before.clone().find(|earlier| earlier.rule.rate.is_none() && covers(&earlier.rule, &later.rule))
        {
            let line = reader.line(&earlier.span);
            reader
                .warning(later.span.clone(), format!("the rule `{}` is never reached", later.rule.name))
                .label(format!(
                    "`{}` in line {line} matches all that it matches: {}",
                    earlier.rule.name, earlier.rule.action
                ));
            warnings += 1;
            continue;
        }
        let different =
            |earlier: &&Placed| later.rule.action.decides() && earlier.rule.action != later.rule.action;
        if let Some(earlier) = before.filter(different).find(|earlier| cross(&earlier.rule, &later.rule)) {
            let line = reader.line(&earlier.span);
            let (first, second) = (&earlier.rule, &later.rule);
            reader
                .warning(
                    later.span.clone(),
                    format!("the rules `{}` and `{}` overlap", first.name, second.name),
                )
                .label(format!("what both match, `{}` in line {line} decides: {}", first.name, first.action));
            warnings += 1;
        }
    }
}

/// Whether `a` matches everything that `b` matches. `false` when in doubt.
fn covers(a: &Rule, b: &Rule) -> bool {
    implied(&a.matches, &b.matches) && (a.not.is_none() || a.not == b.not)
}

/// Whether all conditions of `a` hold where those of `b` do.
fn implied(a: &Match, b: &Match) -> bool {
    prefixes_within(&b.src, &a.src)
        && prefixes_within(&b.dst, &a.dst)
        && set_within(&b.src_set, &a.src_set)
        && set_within(&b.dst_set, &a.dst_set)
        && (a.protocol.is_empty()
            || (!b.protocol.is_empty() && b.protocol.iter().all(|number| a.protocol.contains(number))))
        && ranges_within(&b.src_port, &a.src_port)
        && ranges_within(&b.dst_port, &a.dst_port)
        && ranges_within(&b.vlan, &a.vlan)
        && a.tcp_flags.is_none_or(|a| {
            b.tcp_flags.is_some_and(|b| a.set & b.set == a.set && a.clear & b.clear == a.clear)
        })
        && ranges_within(&b.icmp_type, &a.icmp_type)
        && ranges_within(&b.icmp_code, &a.icmp_code)
        && a.length.as_ref().is_none_or(|a| b.length.as_ref().is_some_and(|b| within(b, a)))
        && a.fragment.is_none_or(|a| {
            b.fragment.is_some_and(|b| a == b || (a == FragmentKind::Any && b != FragmentKind::No))
        })
        && a.ip_options.is_none_or(|a| b.ip_options == Some(a))
        && a.malformed.is_none_or(|a| b.malformed == Some(a))
}

fn prefixes_within(inner: &[Prefix], outer: &[Prefix]) -> bool {
    outer.is_empty()
        || (!inner.is_empty() && inner.iter().all(|inner| outer.iter().any(|outer| outer.covers(*inner))))
}

fn set_within(inner: &Option<Arc<PrefixSet>>, outer: &Option<Arc<PrefixSet>>) -> bool {
    outer.is_none() || inner == outer
}

fn within<T: PartialOrd>(inner: &RangeInclusive<T>, outer: &RangeInclusive<T>) -> bool {
    outer.start() <= inner.start() && inner.end() <= outer.end()
}

/// The ranges of a list are in order and do not touch, so what lies in several of them lies in one.
fn ranges_within<T: PartialOrd>(inner: &[RangeInclusive<T>], outer: &[RangeInclusive<T>]) -> bool {
    outer.is_empty()
        || (!inner.is_empty() && inner.iter().all(|inner| outer.iter().any(|outer| within(inner, outer))))
}

/// Whether both ask for the same fields, have packets in common, and neither holds all of the other's.
fn cross(a: &Rule, b: &Rule) -> bool {
    let (first, second) = (&a.matches, &b.matches);
    a.not.is_none()
        && b.not.is_none()
        && same_fields(first, second)
        && meet(first, second)
        && !implied(first, second)
        && !implied(second, first)
}

fn same_fields(a: &Match, b: &Match) -> bool {
    let fields = |m: &Match| {
        [
            !m.src.is_empty(),
            !m.dst.is_empty(),
            !m.protocol.is_empty(),
            !m.src_port.is_empty(),
            !m.dst_port.is_empty(),
            !m.vlan.is_empty(),
            !m.icmp_type.is_empty(),
            !m.icmp_code.is_empty(),
            m.length.is_some(),
        ]
    };
    // What is not a list or range either is the same or has nothing in common.
    fields(a) == fields(b)
        && (&a.src_set, &a.dst_set, a.tcp_flags, a.fragment, a.ip_options, a.malformed)
            == (&b.src_set, &b.dst_set, b.tcp_flags, b.fragment, b.ip_options, b.malformed)
}

/// Whether a packet can meet both; both ask for the same fields.
fn meet(a: &Match, b: &Match) -> bool {
    fn any<T>(a: &[T], b: &[T], meet: impl Fn(&T, &T) -> bool) -> bool {
        a.is_empty() || a.iter().any(|a| b.iter().any(|b| meet(a, b)))
    }
    fn ranges<T: PartialOrd>(a: &RangeInclusive<T>, b: &RangeInclusive<T>) -> bool {
        a.start() <= b.end() && b.start() <= a.end()
    }
    let prefixes = |a: &Prefix, b: &Prefix| a.covers(*b) || b.covers(*a);
    any(&a.src, &b.src, prefixes)
        && any(&a.dst, &b.dst, prefixes)
        && any(&a.protocol, &b.protocol, |a, b| a == b)
        && any(&a.src_port, &b.src_port, ranges)
        && any(&a.dst_port, &b.dst_port, ranges)
        && any(&a.vlan, &b.vlan, ranges)
        && any(&a.icmp_type, &b.icmp_type, ranges)
        && any(&a.icmp_code, &b.icmp_code, ranges)
        && a.length.as_ref().zip(b.length.as_ref()).is_none_or(|(a, b)| ranges(a, b))
}
