//! From what rules ask of a field to the ranges of its numbers that the same rules allow.

use std::ops::RangeInclusive;
use std::sync::Arc;

use super::super::super::PrefixSet;
use super::super::super::set::merged;
use super::intern::Intern;
use super::{Chunk, Vector, WORDS};

/// First address of the IPv4-mapped IPv6 addresses.
const MAPPED: u128 = 0xffff << 32;

/// What rules ask of one field, while the list is compiled.
#[derive(Default)]
pub(super) struct Field {
    /// Rules that allow every number, and packets without one.
    any: Rules,
    conditions: Vec<Condition>,
    /// The conditions that are sets, which rules share.
    sets: Vec<(*const PrefixSet, usize)>,
}

/// What some rules ask of a field.
struct Condition {
    rules: Rules,
    /// First and last number, in order, none touching another. Addresses: those of IPv4 and of IPv6; else the first.
    ranges: [Vec<(u128, u128)>; 2],
}

/// Where the rules that allow a number change.
pub(super) struct Cuts {
    /// First number of each range, from 0 on.
    pub starts: Vec<u128>,
    pub vectors: Vec<Vector>,
}

impl Field {
    /// A rule asks for nothing.
    pub fn any(&mut self, rule: usize) {
        self.any.push(rule);
    }

    /// A rule asks for one of these addresses.
    pub fn addresses(&mut self, rule: usize, set: &PrefixSet) {
        let [ipv4, ipv6] = set.ranges();
        let ipv4 = ipv4.iter().map(|(first, last)| (first - MAPPED, last - MAPPED)).collect();
        self.conditions.push(Condition { rules: Rules::of(rule), ranges: [ipv4, ipv6.clone()] });
    }

    /// A rule asks for an address of a set, as others may do.
    pub fn set(&mut self, rule: usize, set: &Arc<PrefixSet>) {
        if let Some((_, known)) = self.sets.iter().find(|(known, _)| *known == Arc::as_ptr(set)) {
            self.conditions[*known].rules.push(rule);
        } else {
            self.sets.push((Arc::as_ptr(set), self.conditions.len()));
            self.addresses(rule, set);
        }
    }

    /// A rule asks for one of these numbers, or for nothing if there are none.
    pub fn numbers<T: Into<u128>>(
        &mut self,
        rule: usize,
        ranges: impl IntoIterator<Item = RangeInclusive<T>>,
    ) {
        let mut ranges: Vec<(u128, u128)> = ranges
            .into_iter()
            .map(|range| {
                let (first, last) = range.into_inner();
                (first.into(), last.into())
            })
            .collect();
        if ranges.is_empty() {
            return self.any(rule);
        }
        ranges.retain(|(first, last)| first <= last);
        ranges.sort_unstable();
        let ranges = [merged(ranges.into_iter()), Vec::new()];
        self.conditions.push(Condition { rules: Rules::of(rule), ranges });
    }

    /// The vector of packets that do not have the field.
    pub fn without(&self, intern: &mut Intern) -> Option<Vector> {
        intern.number(&self.unconditional(intern))
    }

    fn unconditional(&self, intern: &Intern) -> Vec<Chunk> {
        let mut vector = vec![Chunk::default(); intern.chunks()];
        self.any.toggle(&mut vector);
        vector
    }

    /// Goes through the numbers from 0 to `most`, the largest of the field. `family` says which of a condition's ranges count.
    pub fn sweep(&self, family: usize, most: u128, intern: &mut Intern) -> Option<Cuts> {
        // Ranges of a condition neither meet nor touch, so where one begins or has ended its rules change sides.
        let mut turns: Vec<(u128, usize)> = Vec::new();
        for (number, condition) in self.conditions.iter().enumerate() {
            for (first, last) in &condition.ranges[family] {
                turns.push((*first, number));
                if *last < most {
                    turns.push((last + 1, number));
                }
            }
        }
        turns.sort_unstable();
        let mut vector = self.unconditional(intern);
        let mut cuts = Cuts { starts: Vec::new(), vectors: Vec::new() };
        if turns.first().is_none_or(|(number, _)| *number > 0) {
            cuts.add(0, intern.number(&vector)?);
        }
        for here in turns.chunk_by(|a, b| a.0 == b.0) {
            for (_, condition) in here {
                self.conditions[*condition].rules.toggle(&mut vector);
            }
            cuts.add(here[0].0, intern.number(&vector)?);
        }
        Some(cuts)
    }
}

impl Cuts {
    fn add(&mut self, start: u128, vector: Vector) {
        if self.vectors.last() != Some(&vector) {
            self.starts.push(start);
            self.vectors.push(vector);
        }
    }
}

/// Rules, in order: the words of a vector that have any of them, and which bits.
#[derive(Default)]
struct Rules(Vec<(usize, u64)>);

impl Rules {
    fn of(rule: usize) -> Self {
        let mut rules = Self::default();
        rules.push(rule);
        rules
    }

    fn push(&mut self, rule: usize) {
        let (word, bit) = (rule / 64, 1 << (rule % 64));
        match self.0.last_mut() {
            Some((last, bits)) if *last == word => *bits |= bit,
            _ => self.0.push((word, bit)),
        }
    }

    /// Turns their bits over.
    fn toggle(&self, vector: &mut [Chunk]) {
        for (word, bits) in &self.0 {
            vector[word / WORDS].0[word % WORDS] ^= bits;
        }
    }
}
