//! What is said about addresses, by prefix, brought to words and trie entries.

use std::collections::BTreeMap;
use std::net::IpAddr;

use xfwd_ebpf_types::filter::{Class, MAX_CLASSES, Verdict, WordKind};

use crate::stages::filter::Prefix;

/// IPv6 prefixes with their words: address bytes, length, word.
pub type Prefixes = Vec<([u8; 16], u8, u32)>;

/// What is said about the addresses of one direction.
#[derive(Clone, Debug, Default)]
pub(super) struct Said {
    v4: Vec<(Span<u32>, Class)>,
    v6: Vec<(Span<u128>, Class)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Span<A> {
    first: A,
    last: A,
    length: u8,
}

/// Classes that words name, each once.
#[derive(Clone, Debug, Default)]
pub(super) struct Classes {
    numbers: BTreeMap<(u32, u32), u32>,
    pub list: Vec<Class>,
}

impl Classes {
    /// The word for what is known about an address. Class numbers beyond the capacity are given out as well: the
    /// caller compares [`overflow`](Self::overflow).
    fn word(&mut self, class: Class) -> u32 {
        if class.sets == 0 {
            return WordKind::VERDICT | class.verdict;
        }
        let number = *self.numbers.entry((class.verdict, class.sets)).or_insert_with(|| {
            self.list.push(class);
            self.list.len() as u32 - 1
        });
        WordKind::CLASS | number
    }

    pub fn overflow(&self) -> bool {
        self.list.len() > MAX_CLASSES as usize
    }
}

/// Both: the smaller rule, all the sets.
fn combine(a: Class, b: Class) -> Class {
    Class { verdict: a.verdict.min(b.verdict), sets: a.sets | b.sets }
}

impl Said {
    /// The rule is the one for the addresses of `prefixes`, unless there is an earlier one.
    pub fn rule(&mut self, prefixes: impl IntoIterator<Item = Prefix>, verdict: Verdict) {
        self.add(prefixes, Class { verdict: verdict.0, ..Class::NONE });
    }

    /// The addresses of `prefixes` are in the set with this number.
    pub fn set(&mut self, prefixes: impl IntoIterator<Item = Prefix>, set: u32) {
        self.add(prefixes, Class { sets: 1 << set, ..Class::NONE });
    }

    fn add(&mut self, prefixes: impl IntoIterator<Item = Prefix>, class: Class) {
        for prefix in prefixes {
            let length = prefix.length();
            match prefix.address() {
                IpAddr::V4(address) => {
                    let first = address.to_bits();
                    let last = first | u32::MAX.checked_shr(length.into()).unwrap_or(0);
                    self.v4.push((Span { first, last, length }, class));
                }
                IpAddr::V6(address) => {
                    let first = address.to_bits();
                    let last = first | u128::MAX.checked_shr(length.into()).unwrap_or(0);
                    self.v6.push((Span { first, last, length }, class));
                }
            }
        }
    }

    /// The IPv4 addresses in ranges: first address and word, sorted, the first range from 0 on. Empty when nothing
    /// is said.
    pub fn v4_ranges(&self, classes: &mut Classes) -> Vec<(u32, u32)> {
        if self.v4.is_empty() {
            return Vec::new();
        }
        let mut spans = self.v4.clone();
        spans.sort_unstable_by_key(|(span, _)| (span.first, span.length));
        let mut ranges: Vec<(u32, u32)> = Vec::with_capacity(2 * spans.len() + 1);
        let mut emit = |first: u32, class: Class| {
            let word = classes.word(class);
            // What starts at the same address was around this, and has no address before it.
            while ranges.last().is_some_and(|(start, _)| *start == first) {
                ranges.pop();
            }
            if ranges.last().is_none_or(|(_, before)| *before != word) {
                ranges.push((first, word));
            }
        };
        emit(0, Class::NONE);
        // The spans around the current address, outermost first.
        let mut around: Vec<(u32, Class)> = Vec::new();
        for (span, class) in spans {
            while let Some(&(last, _)) = around.last()
                && last < span.first
            {
                around.pop();
                emit(last + 1, inner(&around));
            }
            let class = combine(inner(&around), class);
            around.push((span.last, class));
            emit(span.first, class);
        }
        while let Some((last, _)) = around.pop() {
            if let Some(next) = last.checked_add(1) {
                emit(next, inner(&around));
            }
        }
        ranges
    }

    /// The IPv6 prefixes, each with what it and those around it say; those that add nothing are left out.
    pub fn v6_prefixes(&self, classes: &mut Classes) -> Prefixes {
        let mut spans = self.v6.clone();
        spans.sort_unstable_by_key(|(span, _)| (span.first, span.length));
        let mut found: Vec<(Span<u128>, Class)> = Vec::with_capacity(spans.len());
        let mut around: Vec<(u128, Class)> = Vec::new();
        for (span, class) in spans {
            while around.last().is_some_and(|(last, _)| *last < span.first) {
                around.pop();
            }
            let outer = inner(&around);
            let class = combine(outer, class);
            if class == outer {
                continue;
            }
            match found.last_mut() {
                Some((same, said)) if *same == span => *said = class,
                _ => found.push((span, class)),
            }
            around.push((span.last, class));
        }
        let word =
            |(span, class): (Span<u128>, Class)| (span.first.to_be_bytes(), span.length, classes.word(class));
        found.into_iter().map(word).collect()
    }
}

fn inner<A>(around: &[(A, Class)]) -> Class {
    around.last().map_or(Class::NONE, |(_, class)| *class)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(rules: &[(&str, u32)]) -> Said {
        let mut said = Said::default();
        for (prefix, rule) in rules {
            said.rule([prefix.parse().unwrap()], Verdict::new(*rule, true));
        }
        said
    }

    fn ranges(rules: &[(&str, u32)]) -> Vec<(String, u32)> {
        said(rules)
            .v4_ranges(&mut Classes::default())
            .into_iter()
            .map(|(first, word)| (std::net::Ipv4Addr::from_bits(first).to_string(), word >> 1))
            .collect()
    }

    #[test]
    fn the_smallest_rule_around_an_address_is_its_rule() {
        let none = Verdict::NONE.rule();
        let text = |list: &[(&str, u32)]| -> Vec<(String, u32)> {
            list.iter().map(|(address, rule)| ((*address).to_owned(), *rule)).collect()
        };
        assert_eq!(
            ranges(&[("10.0.0.0/8", 5), ("10.1.0.0/16", 3), ("10.1.1.0/24", 4), ("10.2.0.0/16", 7)]),
            text(&[("0.0.0.0", none), ("10.0.0.0", 5), ("10.1.0.0", 3), ("10.2.0.0", 5), ("11.0.0.0", none)])
        );
        assert_eq!(
            ranges(&[("0.0.0.0/0", 1), ("255.255.255.255", 0)]),
            text(&[("0.0.0.0", 1), ("255.255.255.255", 0)])
        );
        assert_eq!(ranges(&[("0.0.0.0", 2), ("0.0.0.0/1", 1)]), text(&[("0.0.0.0", 1), ("128.0.0.0", none)]));
        assert_eq!(ranges(&[]), []);
    }

    #[test]
    fn ipv6_prefixes_that_add_nothing_are_left_out() {
        let rules = [
            ("2001:db8::/32", 4),
            ("2001:db8:1::/48", 5),
            ("2001:db8:2::/48", 3),
            ("2001:db8::/32", 2),
            ("::/0", 9),
        ];
        let found = said(&rules).v6_prefixes(&mut Classes::default());
        let short: Vec<(u8, u32)> = found.iter().map(|(_, length, word)| (*length, word >> 1)).collect();
        assert_eq!(short, [(0, 9), (32, 2)]);
    }

    #[test]
    fn sets_add_up() {
        let mut said = said(&[("10.0.0.0/8", 5)]);
        said.set(["10.0.0.0/9".parse().unwrap()], 0);
        said.set(["10.0.0.0/10".parse().unwrap()], 3);
        let mut classes = Classes::default();
        let words: Vec<u32> = said.v4_ranges(&mut classes).into_iter().map(|(_, word)| word).collect();
        assert_eq!(words.len(), 5, "below, both sets, one set, none, above");
        let verdict = Verdict::new(5, true).0;
        assert_eq!(classes.list, [Class { verdict, sets: 1 }, Class { verdict, sets: 9 }]);
    }
}
