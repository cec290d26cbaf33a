//! The form for long lists: labels of addresses, pairs of them, and buckets of the rules that share a pair.
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
//! how many combinations of prefix lengths there are (hundreds); memory grows with the rules and nothing else.

mod addresses;
mod bucket;
mod table;

use super::super::{Action, Facts, Match, Rule};
use super::{Address, Packet, Rest, Values};
pub(super) use addresses::Label;
use addresses::{Addresses, LabelSource};
use bucket::{Buckets, Keys};
use table::Table;

/// A rule with lists of prefixes lies in a bucket for each pair of them, if these are no more; else the list is a
/// label by itself.
const MOST_PAIRS: usize = 64;
const NO_MATCH: u32 = u32::MAX;

/// A list of rules in this form.
#[derive(Debug)]
pub(super) struct Pairs {
    src: Addresses,
    dst: Addresses,
    table: Table,
    buckets: Buckets,
    /// By rule: what bucket and entry do not say yet. Few rules have any of it.
    rest: Vec<Option<Box<Rest>>>,
}

impl Pairs {
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
            table: Table::build(&pairs),
            buckets,
            rest,
        }
    }

    /// The labels that hold for a destination.
    #[inline(always)]
    pub fn destination(&self, address: Address) -> &[Label] {
        self.dst.labels(address)
    }

    /// The first rule from `start` on that matches; `dst` are the labels of the packet's destination.
    #[inline(always)]
    pub fn search(
        &self,
        packet: &Packet,
        dst: &[Label],
        facts: &impl Fn() -> Facts,
        start: usize,
    ) -> Option<usize> {
        let values = &packet.values;
        let mut search = Search { pairs: self, facts, values, start: start as u32, best: NO_MATCH };
        for a in self.src.labels(packet.src) {
            for b in dst {
                if a.first.max(b.first) < search.best
                    && a.may_meet(b.id)
                    && b.may_meet(a.id)
                    && let Some(node) = self.table.get(a.id, b.id)
                {
                    search.node(node);
                }
            }
        }
        (search.best != NO_MATCH).then_some(search.best as usize)
    }

    pub fn memory_bytes(&self) -> usize {
        self.src.memory_bytes()
            + self.dst.memory_bytes()
            + self.table.memory_bytes()
            + self.buckets.memory_bytes()
            + size_of_val(&self.rest[..])
            + self.rest.iter().flatten().count() * size_of::<Rest>()
    }
}

/// Where the rules lie, while the list is compiled.
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

/// One lookup.
struct Search<'c, F> {
    pairs: &'c Pairs,
    /// Gathers the facts that [`Values`] leave out.
    facts: &'c F,
    values: &'c Values,
    start: u32,
    /// The first rule known to match so far.
    best: u32,
}

impl<F: Fn() -> Facts> Search<'_, F> {
    /// Looks into a bucket or a part of one, as deep as it is split.
    #[inline(always)]
    fn node(&mut self, mut node: bucket::Node) {
        while node.first < self.best {
            let Some(split) = self.pairs.buckets.split_of(node) else {
                self.leaf(node);
                return;
            };
            if let Some(part) = self.pairs.buckets.part(split, split.field.value(self.values)) {
                self.inner(part);
            }
            node = split.others;
        }
    }

    /// A part of a split, which may be split again.
    #[inline(always)]
    fn inner(&mut self, node: bucket::Node) {
        if node.first >= self.best {
            return;
        }
        if self.pairs.buckets.split_of(node).is_some() {
            self.deeper(node);
        } else {
            self.leaf(node);
        }
    }

    #[inline(never)]
    fn deeper(&mut self, node: bucket::Node) {
        self.node(node);
    }

    #[inline(always)]
    fn leaf(&mut self, node: bucket::Node) {
        for entry in self.pairs.buckets.entries(node) {
            if entry.rule >= self.best {
                return;
            }
            if entry.rule >= self.start
                && entry.fits(self.values)
                && (!entry.has_rest() || self.rest_holds(entry.rule))
            {
                self.best = entry.rule;
                return;
            }
        }
    }

    #[inline(never)]
    fn rest_holds(&self, rule: u32) -> bool {
        let facts = (self.facts)();
        self.pairs.rest[rule as usize].as_ref().is_none_or(|rest| rest.holds(&facts))
    }
}
