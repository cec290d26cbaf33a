//! Addresses to labels: which of the prefixes and sets that rules ask for hold an address.

use std::collections::HashMap;
use std::sync::Arc;

use super::super::super::{Prefix, PrefixSet};
use super::super::Address;
use super::super::ranges::{Bits, Ranges};
use super::NO_MATCH;

/// The label that holds for every address, and for packets without one.
const ANY: u32 = 0;

/// A label that holds for an address.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Label {
    pub id: u32,
    /// The first rule that has this label.
    pub first: u32,
    /// Of the labels of the other address that share a bucket with this one, one bit each.
    partners: u64,
}

impl Label {
    /// Whether there may be a bucket for this label and that one.
    #[inline(always)]
    pub fn may_meet(&self, other: u32) -> bool {
        self.partners & bit_of(other) != 0
    }
}

#[inline(always)]
fn bit_of(label: u32) -> u64 {
    1 << (label.wrapping_mul(0x9e37_79b1) >> 26)
}

/// The labels of one address, while the classifier is built.
#[derive(Default)]
pub(super) struct LabelSource {
    ids: HashMap<Vec<Prefix>, u32>,
    sets: HashMap<*const PrefixSet, u32>,
    /// By label, but for [`ANY`].
    prefixes: Vec<Vec<Prefix>>,
}

impl LabelSource {
    /// The labels of a condition, one of which holds when the condition does. What they stand for is taken out.
    pub fn of(&mut self, list: &mut Vec<Prefix>, set: &mut Option<Arc<PrefixSet>>, small: bool) -> Vec<u32> {
        if list.is_empty() {
            let Some(set) = set.take() else { return vec![ANY] };
            let next = self.prefixes.len() as u32 + 1;
            let id = *self.sets.entry(Arc::as_ptr(&set)).or_insert(next);
            if id == next {
                self.prefixes.push(set.prefixes().to_vec());
            }
            return vec![id];
        }
        let mut list = std::mem::take(list);
        list.sort_unstable();
        list.dedup();
        if small {
            // A prefix within another is not needed, and a rule is found once only.
            let outer = list.clone();
            list.retain(|inner| !outer.iter().any(|outer| outer != inner && outer.covers(*inner)));
            list.into_iter().map(|prefix| self.id(vec![prefix])).collect()
        } else {
            vec![self.id(list)]
        }
    }

    fn id(&mut self, prefixes: Vec<Prefix>) -> u32 {
        let next = self.prefixes.len() as u32 + 1;
        let id = *self.ids.entry(prefixes.clone()).or_insert(next);
        if id == next {
            self.prefixes.push(prefixes);
        }
        id
    }
}

/// From an address to its labels.
#[derive(Debug)]
pub(super) struct Addresses {
    ipv4: Ranges<u32, Slice>,
    ipv6: Ranges<u128, Slice>,
    /// The labels of each range, one behind the other; those of no address come first.
    labels: Vec<Label>,
    /// Number of labels of a packet without address: 1 or 0.
    without_address: usize,
}

impl Addresses {
    /// `pairs` are label, label of the other address and first rule of each bucket.
    pub fn build(source: &LabelSource, pairs: impl Iterator<Item = (u32, u32, u32)>) -> Self {
        let unused = |id| Label { id, first: NO_MATCH, partners: 0 };
        let mut known: Vec<Label> = (0..=source.prefixes.len() as u32).map(unused).collect();
        for (id, other, first) in pairs {
            let label = &mut known[id as usize];
            label.first = label.first.min(first);
            label.partners |= bit_of(other);
        }
        let any: Vec<Label> = known[..1].iter().copied().filter(|label| label.partners != 0).collect();
        let mut labels = any.clone();
        let (mut ipv4, mut ipv6) = (Vec::new(), Vec::new());
        for (index, prefixes) in source.prefixes.iter().enumerate() {
            // What lies within another prefix of the same label would give the label twice.
            let mut last: Option<Prefix> = None;
            let mut sorted = prefixes.clone();
            sorted.sort_unstable();
            for prefix in sorted {
                if last.is_some_and(|last| last.covers(prefix)) {
                    continue;
                }
                last = Some(prefix);
                let (first, end) = prefix.mapped_range();
                if prefix.ip_version() == 4 {
                    ipv4.push((first as u32, end as u32, known[index + 1]));
                } else {
                    ipv6.push((first, end, known[index + 1]));
                }
            }
        }
        Self {
            ipv4: Cuts::build(ipv4, &any, &mut labels),
            ipv6: Cuts::build(ipv6, &any, &mut labels),
            without_address: any.len(),
            labels,
        }
    }

    /// The labels that hold, from the widest prefix to the narrowest.
    #[inline(always)]
    pub fn labels(&self, address: Address) -> &[Label] {
        let place = match address {
            Address::V4(address) => self.ipv4.find(address),
            Address::V6(address) => self.ipv6.find(address),
            Address::None => Slice { start: 0, end: self.without_address as u32 },
        };
        self.labels.get(place.start as usize..place.end as usize).unwrap_or_default()
    }

    pub fn memory_bytes(&self) -> usize {
        size_of_val(&self.labels[..]) + self.ipv4.memory_bytes() + self.ipv6.memory_bytes()
    }
}

/// Part of a list of labels.
#[derive(Clone, Copy, Debug)]
struct Slice {
    start: u32,
    end: u32,
}

/// The addresses of a family, cut where the labels that hold change.
struct Cuts<T> {
    starts: Vec<T>,
    slices: Vec<Slice>,
}

impl<T: Bits> Cuts<T> {
    /// `prefixes` are first and last address and label; each lies within another or is apart from it.
    fn build(mut prefixes: Vec<(T, T, Label)>, any: &[Label], labels: &mut Vec<Label>) -> Ranges<T, Slice> {
        // The wider of two that start together comes first.
        prefixes.sort_unstable_by(|a, b| (a.0, b.1, a.2.id).cmp(&(b.0, a.1, b.2.id)));
        let outside = Slice { start: 0, end: any.len() as u32 };
        let mut cuts = Self { starts: vec![T::ZERO], slices: vec![outside] };
        // Last address and labels of the prefixes that hold the place where the sweep is.
        let mut open: Vec<(T, Slice)> = Vec::new();
        for (first, last, label) in prefixes {
            cuts.close(&mut open, outside, Some(first));
            let around = open.last().map_or(outside, |(_, slice)| *slice);
            let start = labels.len() as u32;
            labels.extend_from_within(around.start as usize..around.end as usize);
            labels.push(label);
            let slice = Slice { start, end: labels.len() as u32 };
            cuts.set(first, slice);
            open.push((last, slice));
        }
        cuts.close(&mut open, outside, None);
        Ranges::new(cuts.starts, cuts.slices)
    }

    /// Ends the prefixes that end before `until`.
    fn close(&mut self, open: &mut Vec<(T, Slice)>, outside: Slice, until: Option<T>) {
        while let Some((last, _)) = open.last().copied()
            && until.is_none_or(|until| last < until)
        {
            open.pop();
            if let Some(next) = last.next() {
                self.set(next, open.last().map_or(outside, |(_, slice)| *slice));
            }
        }
    }

    /// From `first` on these labels hold.
    fn set(&mut self, first: T, slice: Slice) {
        if self.starts.last() == Some(&first) {
            self.slices.pop();
        } else {
            self.starts.push(first);
        }
        self.slices.push(slice);
    }
}
