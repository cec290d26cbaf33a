//! Buckets: the rules that share source and destination, split by what else tells them apart.

use std::ops::RangeInclusive;

use super::super::super::{FragmentKind, Match};
use super::super::Values;
use super::NO_MATCH;

/// A bucket with so many entries is compared one by one: that takes about as long as splitting it would save.
const LEAF_ENTRIES: usize = 8;
/// An entry lies in at most so many parts of a split; one that would lie in more lies in `others`.
const MOST_PARTS: usize = 3;
/// A split that leaves more than this share of the entries to be looked at is not worth it.
const WORTH: f64 = 0.7;

/// A rule in a bucket, with what is asked for most often. 16 bytes, so four lie in a cache line.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    pub rule: u32,
    src_port: (u16, u16),
    dst_port: (u16, u16),
    protocol: u8,
    asks: u8,
}

const SRC_PORT: u8 = 1;
const DST_PORT: u8 = 2;
const PROTOCOL: u8 = 4;
const REST: u8 = 8;

impl Entry {
    /// Takes the conditions that an entry can hold out of `matches`; `has_rest` says whether any are left.
    pub fn of(rule: u32, matches: &mut Match, has_rest: impl Fn(&Match) -> bool) -> Self {
        let mut entry = Self { rule, src_port: (0, 0), dst_port: (0, 0), protocol: 0, asks: 0 };
        if let [protocol] = matches.protocol[..] {
            entry.protocol = protocol;
            entry.asks |= PROTOCOL;
            matches.protocol.clear();
        }
        // Of several ranges the whole they lie in is a first check.
        let mut whole = |ranges: &mut Vec<RangeInclusive<u16>>, bit| {
            let low = ranges.iter().map(|range| *range.start()).min()?;
            let high = ranges.iter().map(|range| *range.end()).max()?;
            entry.asks |= bit;
            if ranges.len() == 1 {
                ranges.clear();
            }
            Some((low, high))
        };
        let src_port = whole(&mut matches.src_port, SRC_PORT);
        let dst_port = whole(&mut matches.dst_port, DST_PORT);
        entry.src_port = src_port.unwrap_or_default();
        entry.dst_port = dst_port.unwrap_or_default();
        if has_rest(matches) {
            entry.asks |= REST;
        }
        entry
    }

    /// Whether the packet meets what the entry holds.
    #[inline(always)]
    pub fn fits(&self, values: &Values) -> bool {
        let within = |(low, high): (u16, u16), value| (u32::from(low)..=u32::from(high)).contains(&value);
        (self.asks & PROTOCOL == 0 || u32::from(self.protocol) == values.protocol)
            && (self.asks & DST_PORT == 0 || within(self.dst_port, values.dst_port))
            && (self.asks & SRC_PORT == 0 || within(self.src_port, values.src_port))
    }

    /// Whether there are conditions that the entry does not hold.
    #[inline(always)]
    pub fn has_rest(&self) -> bool {
        self.asks & REST != 0
    }
}

/// What buckets can be split by, in the order of [`FIELDS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Field {
    DstPort,
    SrcPort,
    Protocol,
    IcmpType,
    Vlan,
    Length,
    Fragment,
}

const FIELDS: [Field; 7] = [
    Field::DstPort,
    Field::SrcPort,
    Field::Protocol,
    Field::IcmpType,
    Field::Vlan,
    Field::Length,
    Field::Fragment,
];

impl Field {
    #[inline]
    pub fn value(self, values: &Values) -> u32 {
        match self {
            Self::DstPort => values.dst_port,
            Self::SrcPort => values.src_port,
            Self::Protocol => values.protocol,
            Self::IcmpType => values.icmp_type,
            Self::Vlan => values.vlan,
            Self::Length => values.length,
            Self::Fragment => values.fragment,
        }
    }
}

/// The values a rule allows in each of the fields; an empty list allows all, and packets that have none.
pub(super) struct Keys([Vec<(u32, u32)>; FIELDS.len()]);

impl Keys {
    pub fn of(matches: &Match) -> Self {
        fn wide<T: Copy + Into<u32>>(ranges: &[RangeInclusive<T>]) -> Vec<(u32, u32)> {
            ranges.iter().map(|range| ((*range.start()).into(), (*range.end()).into())).collect()
        }
        Self(FIELDS.map(|field| match field {
            Field::DstPort => wide(&matches.dst_port),
            Field::SrcPort => wide(&matches.src_port),
            Field::Protocol => matches.protocol.iter().map(|&one| (one.into(), one.into())).collect(),
            Field::IcmpType => wide(&matches.icmp_type),
            Field::Vlan => wide(&matches.vlan),
            Field::Length => matches.length.iter().map(|range| (*range.start(), *range.end())).collect(),
            Field::Fragment => {
                let kind = |kind| if kind == FragmentKind::No { (0, 0) } else { (1, 1) };
                matches.fragment.into_iter().map(kind).collect()
            }
        }))
    }
}

/// A bucket or a part of one: entries one behind the other, or a split.
#[derive(Clone, Copy, Debug)]
pub(super) struct Node {
    /// The first rule in it.
    pub first: u32,
    start: u32,
    /// Number of entries; [`SPLIT`] when `start` is the number of a split.
    len: u32,
}

const SPLIT: u32 = u32::MAX;

impl Default for Node {
    fn default() -> Self {
        Self { first: NO_MATCH, start: 0, len: 0 }
    }
}

/// A bucket cut into parts by the value of a field.
#[derive(Clone, Copy, Debug)]
pub(super) struct Split {
    pub field: Field,
    start: u32,
    end: u32,
    /// Entries that ask for none or for many of the values.
    pub others: Node,
}

/// All buckets.
#[derive(Debug, Default)]
pub(super) struct Buckets {
    entries: Vec<Entry>,
    splits: Vec<Split>,
    /// First value of each part of a split, in order; a part ends where the next begins.
    bounds: Vec<u32>,
    parts: Vec<Node>,
}

impl Buckets {
    #[inline(always)]
    pub fn entries(&self, node: Node) -> &[Entry] {
        &self.entries[node.start as usize..][..node.len as usize]
    }

    #[inline(always)]
    pub fn split_of(&self, node: Node) -> Option<Split> {
        (node.len == SPLIT).then(|| self.splits[node.start as usize])
    }

    /// The part in which `value` lies; none when the packet has no value.
    #[inline]
    pub fn part(&self, split: Split, value: u32) -> Option<Node> {
        if value == Values::NONE {
            return None;
        }
        let bounds = &self.bounds[split.start as usize..split.end as usize];
        let behind = bounds.partition_point(|bound| *bound <= value);
        (behind > 0).then(|| self.parts[split.start as usize + behind - 1])
    }

    /// `entries` with the number of their rule, in order.
    pub fn build(&mut self, entries: &[(Entry, usize)], keys: &[Keys]) -> Node {
        self.build_with(entries, keys, &FIELDS)
    }

    /// In a part of a split all entries allow all of its values: only the other `fields` can split it again.
    fn build_with(&mut self, entries: &[(Entry, usize)], keys: &[Keys], fields: &[Field]) -> Node {
        let Some((first, _)) = entries.first() else { return Node::default() };
        let first = first.rule;
        if entries.len() > LEAF_ENTRIES
            && let Some(plan) = Plan::best(entries, keys, fields)
        {
            let others = self.build_with(&plan.others, keys, fields);
            let left: Vec<Field> = fields.iter().copied().filter(|field| *field != plan.field).collect();
            let parts: Vec<Node> = plan.parts.iter().map(|part| self.build_with(part, keys, &left)).collect();
            let start = self.bounds.len() as u32;
            self.bounds.extend(plan.bounds);
            self.parts.extend(parts);
            let end = self.bounds.len() as u32;
            self.splits.push(Split { field: plan.field, start, end, others });
            return Node { first, start: self.splits.len() as u32 - 1, len: SPLIT };
        }
        let start = self.entries.len() as u32;
        self.entries.extend(entries.iter().map(|(entry, _)| *entry));
        Node { first, start, len: entries.len() as u32 }
    }

    pub fn memory_bytes(&self) -> usize {
        size_of_val(&self.entries[..])
            + size_of_val(&self.splits[..])
            + size_of_val(&self.bounds[..])
            + size_of_val(&self.parts[..])
    }
}

/// A way to cut a bucket.
struct Plan {
    field: Field,
    bounds: Vec<u32>,
    parts: Vec<Vec<(Entry, usize)>>,
    others: Vec<(Entry, usize)>,
}

impl Plan {
    /// The cut after which the fewest entries are looked at, if it is worth it.
    fn best(entries: &[(Entry, usize)], keys: &[Keys], fields: &[Field]) -> Option<Self> {
        let plans = fields.iter().filter_map(|field| {
            let plan = Self::by(*field, entries, |rule| &keys[rule].0[*field as usize]);
            let left = plan.others.len() as f64 + plan.average_part();
            (left < entries.len() as f64 * WORTH).then_some((left, plan))
        });
        plans.min_by(|(left, _), (right, _)| left.total_cmp(right)).map(|(_, plan)| plan)
    }

    /// Entries looked at for a packet that meets one of the entries at random.
    fn average_part(&self) -> f64 {
        let sizes = || self.parts.iter().map(|part| part.len() as f64);
        let sum: f64 = sizes().sum();
        if sum == 0.0 { 0.0 } else { sizes().map(|size| size * size).sum::<f64>() / sum }
    }

    fn by<'k>(
        field: Field,
        entries: &[(Entry, usize)],
        allowed: impl Fn(usize) -> &'k Vec<(u32, u32)>,
    ) -> Self {
        // First with every bound, to see who asks for many values; then without the bounds of those.
        let all = bounds(entries.iter().flat_map(|(_, rule)| allowed(*rule)));
        let parts_of = |bounds: &[u32], (low, high): (u32, u32)| {
            let first = bounds.partition_point(|bound| *bound <= low) - 1;
            first..bounds.partition_point(|bound| *bound <= high)
        };
        let is_narrow = |rule: usize| {
            let ranges = allowed(rule);
            !ranges.is_empty()
                && ranges.iter().map(|range| parts_of(&all, *range).len()).sum::<usize>() <= MOST_PARTS
        };
        let (narrow, others): (Vec<_>, Vec<_>) =
            entries.iter().copied().partition(|(_, rule)| is_narrow(*rule));
        let bounds = bounds(narrow.iter().flat_map(|(_, rule)| allowed(*rule)));
        let mut parts = vec![Vec::new(); bounds.len()];
        for (entry, rule) in narrow {
            for range in allowed(rule) {
                for part in parts_of(&bounds, *range) {
                    parts[part].push((entry, rule));
                }
            }
        }
        Self { field, bounds, parts, others }
    }
}

/// Where ranges begin and where they have ended.
fn bounds<'r>(ranges: impl Iterator<Item = &'r (u32, u32)>) -> Vec<u32> {
    let mut bounds: Vec<u32> = ranges.flat_map(|(low, high)| [*low, high.saturating_add(1)]).collect();
    bounds.sort_unstable();
    bounds.dedup();
    bounds
}
