//! The rule that matches, without looking at every rule.
//!
//! # How
//!
//! 1. **Addresses to labels.** Each different prefix (or set) that a rule asks for is a label. The source address
//!    gives, by one search in a sorted table, all labels that hold for it: nested prefixes, so a handful; the
//!    destination address likewise. "Any address" is a label of both.
//! 2. **Pairs to buckets.** Each rule lies in the bucket of its pair of labels, in one hash table. Of the pairs of a
//!    packet's labels few have a bucket: two bits, one kept with each label, rule out nearly all of the others
//!    without looking into the table.
//! 3. **Buckets to rules.** A bucket with more than a few rules is split by port, protocol, VLAN and so on, by what tells its
//!    rules apart best. What is left is compared rule by rule, in order.
//!
//! Every label, bucket and split knows the first rule in it, and is passed over when a rule before that is known to match.
//!
//! Against tuple space search this probes by how deep prefixes are nested (two to five, in real lists) and not by
//! how many combinations of prefix lengths there are (hundreds); against bit vectors and decision trees, memory
//! grows with the rules and nothing else. `benches/micro/filter.rs` measures it.

mod addresses;
mod bucket;
mod pairs;

use super::linear::holds_with;
use super::{Action, Facts, Match, PrefixSet, Rule};
use crate::packet::Fragment;
use addresses::{Addresses, LabelSource};
use bucket::{Buckets, Keys};
use pairs::Pairs;

/// A rule with lists of prefixes lies in a bucket for each pair of them, if these are no more; else the list is a
/// label by itself.
const MOST_PAIRS: usize = 64;
const NO_MATCH: u32 = u32::MAX;

/// A list of rules, compiled.
#[derive(Debug)]
pub struct Classifier {
    src: Addresses,
    dst: Addresses,
    pairs: Pairs,
    buckets: Buckets,
    /// By rule: what bucket and entry do not say yet. Few rules have any of it.
    rest: Vec<Option<Box<Rest>>>,
}

/// What is left to be checked of a rule.
#[derive(Clone, Debug, Default)]
struct Rest {
    matches: Match,
    not: Option<Match>,
}

impl Rest {
    #[inline]
    fn holds(&self, facts: &Facts) -> bool {
        holds_with(&self.matches, facts, PrefixSet::contains_mapped)
            && !self.not.as_ref().is_some_and(|not| holds_with(not, facts, PrefixSet::contains_mapped))
    }
}

impl Classifier {
    /// Compiles a list. Rules that are switched off ([`Action::Continue`]) are left out.
    ///
    /// # Panics
    ///
    /// For 2^32 - 1 rules or more.
    pub fn new(rules: &[Rule]) -> Self {
        assert!(rules.len() < NO_MATCH as usize);
        let mut places = Places::default();
        let mut rest = Vec::with_capacity(rules.len());
        for (index, rule) in rules.iter().enumerate() {
            if rule.action == Action::Continue {
                rest.push(None);
                continue;
            }
            let mut left = Rest { matches: rule.matches.clone(), not: rule.not.clone() };
            let (src, dst) = places.labels(&mut left.matches);
            let entry = bucket::Entry::of(index as u32, &mut left.matches, |matches| {
                left.not.is_some() || *matches != Match::default()
            });
            rest.push(entry.has_rest().then(|| Box::new(left)));
            for src in &src {
                for dst in &dst {
                    places.buckets.entry((*src, *dst)).or_default().push((entry, index));
                }
            }
        }
        let keys: Vec<Keys> = rules.iter().map(|rule| Keys::of(&rule.matches)).collect();
        let mut buckets = Buckets::default();
        let pairs: Vec<(u32, u32, bucket::Node)> = places
            .buckets
            .iter()
            .map(|((src, dst), entries)| (*src, *dst, buckets.build(entries, &keys)))
            .collect();
        Self {
            src: Addresses::build(&places.src, pairs.iter().map(|(src, dst, node)| (*src, *dst, node.first))),
            dst: Addresses::build(&places.dst, pairs.iter().map(|(src, dst, node)| (*dst, *src, node.first))),
            pairs: Pairs::build(&pairs),
            buckets,
            rest,
        }
    }

    /// Index of the first rule that matches.
    #[inline]
    pub fn first_match(&self, facts: &Facts) -> Option<usize> {
        self.next_match(facts, 0)
    }

    /// Index of the first rule from `start` on that matches: what [`linear::next_match`](super::linear::next_match)
    /// finds.
    #[inline]
    pub fn next_match(&self, facts: &Facts, start: usize) -> Option<usize> {
        let values = Values::of(facts);
        let mut search = Search { classifier: self, facts, values, start: start as u32, best: NO_MATCH };
        let dst = self.dst.labels(facts.ip_version, &facts.dst);
        for a in self.src.labels(facts.ip_version, &facts.src) {
            for b in dst {
                if a.first.max(b.first) < search.best
                    && a.may_meet(b.id)
                    && b.may_meet(a.id)
                    && let Some(node) = self.pairs.get(a.id, b.id)
                {
                    search.node(node);
                }
            }
        }
        (search.best != NO_MATCH).then_some(search.best as usize)
    }

    /// Bytes of memory that a lookup may touch.
    pub fn memory_bytes(&self) -> usize {
        self.src.memory_bytes()
            + self.dst.memory_bytes()
            + self.pairs.memory_bytes()
            + self.buckets.memory_bytes()
            + size_of_val(&self.rest[..])
            + self.rest.iter().flatten().count() * size_of::<Rest>()
    }
}

/// Where the rules lie, while the classifier is built.
#[derive(Default)]
struct Places {
    src: LabelSource,
    dst: LabelSource,
    buckets: std::collections::BTreeMap<(u32, u32), Vec<(bucket::Entry, usize)>>,
}

impl Places {
    /// The labels of a rule's addresses; conditions that they stand for are taken out of `matches`.
    fn labels(&mut self, matches: &mut Match) -> (Vec<u32>, Vec<u32>) {
        let small = matches.src.len().max(1) * matches.dst.len().max(1) <= MOST_PAIRS;
        let src = self.src.of(&mut matches.src, &mut matches.src_set, small);
        let dst = self.dst.of(&mut matches.dst, &mut matches.dst_set, small);
        (src, dst)
    }
}

/// Values of a packet in the form that buckets compare; [`Values::NONE`] for what it does not have.
#[derive(Clone, Copy)]
struct Values {
    protocol: u32,
    src_port: u32,
    dst_port: u32,
    vlan: u32,
    icmp_type: u32,
    length: u32,
    fragment: u32,
}

impl Values {
    const NONE: u32 = u32::MAX;

    #[inline]
    fn of(facts: &Facts) -> Self {
        let (src_port, dst_port) =
            facts.ports.map_or((Self::NONE, Self::NONE), |(src, dst)| (u32::from(src), u32::from(dst)));
        Self {
            protocol: facts.protocol.map_or(Self::NONE, u32::from),
            src_port,
            dst_port,
            vlan: facts.vlan.map_or(Self::NONE, u32::from),
            icmp_type: facts.icmp.map_or(Self::NONE, |(kind, _)| u32::from(kind)),
            length: facts.length.unwrap_or(Self::NONE),
            fragment: facts.fragment.map_or(Self::NONE, |fragment| u32::from(fragment != Fragment::No)),
        }
    }
}

/// One lookup.
struct Search<'c> {
    classifier: &'c Classifier,
    facts: &'c Facts,
    values: Values,
    start: u32,
    /// The first rule known to match so far.
    best: u32,
}

impl Search<'_> {
    #[inline]
    fn node(&mut self, node: bucket::Node) {
        if node.first >= self.best {
            return;
        }
        if let Some(split) = self.classifier.buckets.split_of(node) {
            self.split(split);
            return;
        }
        for entry in self.classifier.buckets.entries(node) {
            if entry.rule >= self.best {
                return;
            }
            if entry.rule >= self.start
                && entry.fits(&self.values)
                && (!entry.has_rest() || self.rest_holds(entry.rule))
            {
                self.best = entry.rule;
                return;
            }
        }
    }

    fn rest_holds(&self, rule: u32) -> bool {
        self.classifier.rest[rule as usize].as_ref().is_none_or(|rest| rest.holds(self.facts))
    }

    fn split(&mut self, split: bucket::Split) {
        if let Some(node) = self.classifier.buckets.part(split, split.field.value(&self.values)) {
            self.node(node);
        }
        self.node(split.others);
    }
}
