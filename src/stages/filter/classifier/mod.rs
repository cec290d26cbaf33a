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

use super::facts::VLAN_ID;
use super::linear::holds_with;
use super::{Action, Facts, Match, PrefixSet, Rule};
use crate::packet::protocol::{ICMP, ICMPV6, SCTP, TCP, UDP};
use crate::packet::{Fragment, Headers, Outcome};
use addresses::{Addresses, Label, LabelSource};
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
        let packet = Packet {
            values: Values::of(facts),
            src: Address::new(facts.ip_version, &facts.src),
            dst: Address::new(facts.ip_version, &facts.dst),
        };
        self.search(&packet, self.dst.labels(packet.dst), &|| *facts, start)
    }

    /// What [`next_match`](Self::next_match) finds for the packet of these bytes, by what most rules ask for. All [`Facts`] are
    /// gathered only if a rule that may match asks for more. `last` is what was found for packets before.
    #[inline(always)]
    pub(super) fn next_match_in<'c>(
        &'c self,
        bytes: &[u8],
        headers: &Headers,
        start: usize,
        last: &mut Destination<'c>,
    ) -> Option<usize> {
        let facts = || Facts::of(bytes, headers);
        let Some(packet) = Packet::of(bytes, headers) else {
            return self.next_match_of_facts(&facts(), start);
        };
        if packet.dst != last.address {
            *last = Destination { address: packet.dst, labels: self.dst.labels(packet.dst) };
        }
        self.search(&packet, last.labels, &facts, start)
    }

    #[cold]
    fn next_match_of_facts(&self, facts: &Facts, start: usize) -> Option<usize> {
        self.next_match(facts, start)
    }

    #[inline(always)]
    fn search(
        &self,
        packet: &Packet,
        dst: &[Label],
        facts: &impl Fn() -> Facts,
        start: usize,
    ) -> Option<usize> {
        let values = &packet.values;
        let mut search = Search { classifier: self, facts, values, start: start as u32, best: NO_MATCH };
        for a in self.src.labels(packet.src) {
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

/// An address as a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Address {
    None,
    V4(u32),
    V6(u128),
}

impl Address {
    /// Of an address as [`Facts`] has it.
    #[inline]
    fn new(ip_version: u8, address: &[u8; 16]) -> Self {
        let [.., a, b, c, d] = *address;
        match ip_version {
            4 => Self::V4(u32::from_be_bytes([a, b, c, d])),
            6 => Self::V6(u128::from_be_bytes(*address)),
            _ => Self::None,
        }
    }
}

/// The labels of the destination of the packet before: packets to the same address, such as that of a service, often come in a row.
pub(super) struct Destination<'c> {
    address: Address,
    labels: &'c [Label],
}

impl<'c> Destination<'c> {
    /// Of a classifier, before the first packet.
    pub fn of(classifier: &'c Classifier) -> Self {
        Self { address: Address::None, labels: classifier.dst.labels(Address::None) }
    }
}

/// What is looked up of a packet.
#[derive(Clone, Copy)]
struct Packet {
    values: Values,
    src: Address,
    dst: Address,
}

impl Packet {
    /// The same as by way of [`Facts`]; `None` for what is not well-formed IP.
    #[inline(always)]
    fn of(bytes: &[u8], headers: &Headers) -> Option<Self> {
        if headers.outcome != Outcome::Ip as u8 {
            return None;
        }
        let network = bytes.get(usize::from(headers.network_offset)..)?;
        let (src, dst) = if headers.ip_version == 4 {
            let (pair, _) = network.first_chunk::<20>()?[12..].as_chunks::<4>();
            (Address::V4(u32::from_be_bytes(pair[0])), Address::V4(u32::from_be_bytes(pair[1])))
        } else {
            let (pair, _) = network.first_chunk::<40>()?[8..].as_chunks::<16>();
            (Address::V6(u128::from_be_bytes(pair[0])), Address::V6(u128::from_be_bytes(pair[1])))
        };
        let has_transport = headers.transport_offset != 0;
        let has_ports = has_transport && matches!(headers.protocol, TCP | UDP | SCTP);
        let is_icmp = has_transport && matches!(headers.protocol, ICMP | ICMPV6);
        let or_none = |is_there: bool, value: u32| if is_there { value } else { Values::NONE };
        let values = Values {
            protocol: headers.protocol.into(),
            src_port: or_none(has_ports, headers.src_port.into()),
            dst_port: or_none(has_ports, headers.dst_port.into()),
            vlan: if headers.vlan_count > 0 { u32::from(headers.vlan_tci[0] & VLAN_ID) } else { 0 },
            icmp_type: or_none(is_icmp, headers.icmp_type.into()),
            length: headers.end - u32::from(headers.network_offset),
            fragment: u32::from(headers.fragment != Fragment::No as u8),
        };
        Some(Self { values, src, dst })
    }
}

/// Values of a packet in the form that buckets compare; [`Values::NONE`] for what it does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
struct Search<'c, F> {
    classifier: &'c Classifier,
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
            let Some(split) = self.classifier.buckets.split_of(node) else {
                self.leaf(node);
                return;
            };
            if let Some(part) = self.classifier.buckets.part(split, split.field.value(self.values)) {
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
        if self.classifier.buckets.split_of(node).is_some() {
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
        for entry in self.classifier.buckets.entries(node) {
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
        self.classifier.rest[rule as usize].as_ref().is_none_or(|rest| rest.holds(&facts))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::{packets, parse};

    #[test]
    fn the_short_way_sees_what_the_facts_say() {
        let mut seen = 0;
        for seed in 0..4_000 {
            let bytes = packets::packet(seed);
            let headers = parse(&bytes, bytes.len());
            let facts = Facts::of(&bytes, &headers);
            let Some(packet) = Packet::of(&bytes, &headers) else {
                assert_ne!(headers.outcome(), Outcome::Ip);
                continue;
            };
            assert_eq!(packet.values, Values::of(&facts), "seed {seed}");
            for (address, of_facts) in [(packet.src, facts.src), (packet.dst, facts.dst)] {
                assert_eq!(address, Address::new(facts.ip_version, &of_facts), "seed {seed}");
            }
            seen += 1;
        }
        assert!(seen > 1_000);
    }
}
