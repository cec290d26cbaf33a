//! The form for lists of up to some thousand rules: a bit for each rule, by field.
//!
//! For each of five fields (both addresses, both ports, protocol) all numbers that the same rules allow share a vector with a bit for
//! each rule, in the order of the list. A packet's five vectors are joined by AND, 512 rules at a time, and the first bit that is left is
//! the first rule that matches, unless that asks for more than the five fields ([`Rest`]), which is then asked by itself.
//!
//! A lookup is five loads or searches of a length that is the same for all packets ([`Ranges`]), and the AND of one cache line a field
//! for 512 rules. Nothing in it depends on the packet but the last step, so a processor has nothing to guess.
//!
//! Source: Lakshman and Stiliadis, High-Speed Policy-based Packet Forwarding Using Efficient Multi-dimensional Range Matching
//! (SIGCOMM 1998).

mod intern;
mod sweep;

use super::super::{Action, Facts, Match, PrefixSet, Rule};
use super::ranges::Ranges;
use super::{Address, Packet, Rest};
use crate::hints::prefetch;
use intern::Intern;
use sweep::{Cuts, Field};

/// Words of a chunk: as many as a cache line has.
const WORDS: usize = 8;
/// Rules of a chunk.
const RULES: usize = WORDS * 64;

/// 512 bits, one a rule.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(align(64))]
struct Chunk([u64; WORDS]);

/// Number of a vector.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Vector(u16);

/// The vectors of a packet.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Row {
    src: Vector,
    dst: Vector,
    src_port: Vector,
    dst_port: Vector,
    protocol: Vector,
}

/// A list of rules in this form.
#[derive(Debug)]
pub(super) struct Vectors {
    src: Addresses,
    dst: Addresses,
    src_port: Numbers,
    dst_port: Numbers,
    protocol: Numbers,
    /// Chunks of a vector.
    chunks: usize,
    /// All vectors, one behind the other.
    vectors: Vec<Chunk>,
    /// By rule: what the vectors do not say.
    rest: Vec<Option<Box<Rest>>>,
}

impl Vectors {
    /// `None` if there are more different vectors than numbers for them.
    pub fn new(rules: &[Rule]) -> Option<Self> {
        let mut fields: [Field; 5] = Default::default();
        let mut rest = Vec::with_capacity(rules.len());
        for (index, rule) in rules.iter().enumerate() {
            if rule.action == Action::Continue {
                rest.push(None);
                continue;
            }
            let mut left = Rest { matches: rule.matches.clone(), not: rule.not.clone() };
            let Match { src, dst, src_set, dst_set, src_port, dst_port, protocol, .. } = &mut left.matches;
            let [of_src, of_dst, of_src_port, of_dst_port, of_protocol] = &mut fields;
            for (field, list, set) in [(of_src, src, src_set), (of_dst, dst, dst_set)] {
                if !list.is_empty() {
                    field.addresses(index, &PrefixSet::new("", std::mem::take(list)));
                } else if let Some(set) = set.take() {
                    field.set(index, &set);
                } else {
                    field.any(index);
                }
            }
            of_src_port.numbers(index, std::mem::take(src_port));
            of_dst_port.numbers(index, std::mem::take(dst_port));
            of_protocol.numbers(index, protocol.drain(..).map(|number| number..=number));
            let has_rest = left.not.is_some() || left.matches != Match::default();
            rest.push(has_rest.then(|| Box::new(left)));
        }
        let chunks = rules.len().div_ceil(RULES).max(1);
        let mut intern = Intern::new(chunks);
        let [src, dst, src_port, dst_port, protocol] = &fields;
        Some(Self {
            src: Addresses::new(src, &mut intern)?,
            dst: Addresses::new(dst, &mut intern)?,
            src_port: Numbers::new(src_port, u16::MAX.into(), &mut intern)?,
            dst_port: Numbers::new(dst_port, u16::MAX.into(), &mut intern)?,
            protocol: Numbers::new(protocol, u8::MAX.into(), &mut intern)?,
            chunks,
            vectors: intern.into_vectors(),
            rest,
        })
    }

    /// The vector of a destination.
    #[inline(always)]
    pub fn destination(&self, address: Address) -> Vector {
        self.dst.find(address)
    }

    /// The vectors of a packet; `dst` is that of its destination.
    #[inline(always)]
    pub fn row(&self, packet: &Packet, dst: Vector) -> Row {
        Row {
            src: self.src.find(packet.src),
            dst,
            src_port: self.src_port.find(packet.values.src_port),
            dst_port: self.dst_port.find(packet.values.dst_port),
            protocol: self.protocol.find(packet.values.protocol),
        }
    }

    /// Asks for the memory that differs most from packet to packet, before it is needed.
    #[inline(always)]
    pub fn prefetch(&self, row: &Row) {
        for chunk in self.chunks_of(row.src).iter().take(MOST_PREFETCHED) {
            prefetch(chunk);
        }
    }

    /// The first rule from `start` on that matches the packet with these vectors.
    #[inline(always)]
    pub fn search(&self, row: &Row, facts: &impl Fn() -> Facts, start: usize) -> Option<usize> {
        let [src, dst] = [row.src, row.dst].map(|vector| self.chunks_of(vector));
        let [src_port, dst_port] = [row.src_port, row.dst_port].map(|vector| self.chunks_of(vector));
        let protocol = self.chunks_of(row.protocol);
        for chunk in start / RULES..self.chunks {
            let mut left = Chunk(std::array::from_fn(|word| {
                src[chunk].0[word]
                    & dst[chunk].0[word]
                    & src_port[chunk].0[word]
                    & dst_port[chunk].0[word]
                    & protocol[chunk].0[word]
            }));
            if start > chunk * RULES {
                left.clear_below(start % RULES);
            }
            while let Some(bit) = left.first() {
                let rule = chunk * RULES + bit;
                match &self.rest[rule] {
                    Some(rest) if !rest_holds(rest, facts) => left.clear(bit),
                    _ => return Some(rule),
                }
            }
        }
        None
    }

    #[inline(always)]
    fn chunks_of(&self, Vector(number): Vector) -> &[Chunk] {
        &self.vectors[usize::from(number) * self.chunks..][..self.chunks]
    }

    pub fn vector_bytes(&self) -> usize {
        size_of_val(&self.vectors[..])
    }

    /// Whether many rules ask for what vectors do not hold and pairs are split by: such rules would be gone through one by one.
    pub fn leave_too_much(&self) -> bool {
        let asks = |rest: &&Rest| {
            let Match { vlan, icmp_type, length, fragment, .. } = &rest.matches;
            !vlan.is_empty() || !icmp_type.is_empty() || length.is_some() || fragment.is_some()
        };
        self.rest.iter().flatten().map(|rest| &**rest).filter(asks).count() > MOST_LEFT
    }

    pub fn memory_bytes(&self) -> usize {
        self.vector_bytes()
            + self.src.memory_bytes()
            + self.dst.memory_bytes()
            + [&self.src_port, &self.dst_port, &self.protocol]
                .map(|field| size_of_val(&field.vectors[..]))
                .iter()
                .sum::<usize>()
            + size_of_val(&self.rest[..])
            + self.rest.iter().flatten().count() * size_of::<Rest>()
    }
}

/// Chunks of a vector that are asked for ahead.
const MOST_PREFETCHED: usize = 4;
/// See [`Vectors::leave_too_much`].
const MOST_LEFT: usize = 64;

#[inline(never)]
fn rest_holds(rest: &Rest, facts: &impl Fn() -> Facts) -> bool {
    rest.holds(&facts())
}

impl Chunk {
    /// The first bit that is set.
    #[inline(always)]
    fn first(&self) -> Option<usize> {
        // A bit for each word that is not zero, instead of a search whose end nobody could predict.
        let words = (0..WORDS).fold(0, |words, word| words | u32::from(self.0[word] != 0) << word);
        if words == 0 {
            return None;
        }
        let word = words.trailing_zeros() as usize % WORDS;
        Some(word * 64 + self.0[word].trailing_zeros() as usize)
    }

    #[inline(always)]
    fn clear(&mut self, bit: usize) {
        self.0[bit / 64] &= !(1 << (bit % 64));
    }

    #[inline(never)]
    fn clear_below(&mut self, bit: usize) {
        self.0[..bit / 64].fill(0);
        self.0[bit / 64] &= u64::MAX << (bit % 64);
    }
}

/// From an address to its vector.
#[derive(Debug)]
struct Addresses {
    ipv4: Ranges<u32, Vector>,
    ipv6: Ranges<u128, Vector>,
    without_address: Vector,
}

impl Addresses {
    fn new(field: &Field, intern: &mut Intern) -> Option<Self> {
        let [ipv4, ipv6] =
            [(0, u32::MAX.into()), (1, u128::MAX)].map(|(family, most)| field.sweep(family, most, intern));
        let Cuts { starts, vectors } = ipv4?;
        let ipv4 = Ranges::new(starts.into_iter().map(|start| start as u32).collect(), vectors);
        let Cuts { starts, vectors } = ipv6?;
        Some(Self { ipv4, ipv6: Ranges::new(starts, vectors), without_address: field.without(intern)? })
    }

    #[inline(always)]
    fn find(&self, address: Address) -> Vector {
        match address {
            Address::V4(address) => self.ipv4.find(address),
            Address::V6(address) => self.ipv6.find(address),
            Address::None => self.without_address,
        }
    }

    fn memory_bytes(&self) -> usize {
        self.ipv4.memory_bytes() + self.ipv6.memory_bytes()
    }
}

/// From a small number to its vector.
#[derive(Debug)]
struct Numbers {
    /// By number; empty if no rule asks for it.
    vectors: Vec<Vector>,
    /// Of packets that have no such number.
    without: Vector,
}

impl Numbers {
    fn new(field: &Field, most: u32, intern: &mut Intern) -> Option<Self> {
        let without = field.without(intern)?;
        let Cuts { starts, vectors } = field.sweep(0, most.into(), intern)?;
        let mut table = Vec::new();
        if vectors.len() > 1 || vectors[0] != without {
            let ends = starts.iter().skip(1).copied().chain([u128::from(most) + 1]);
            for (vector, end) in vectors.into_iter().zip(ends) {
                table.resize(end as usize, vector);
            }
        }
        Some(Self { vectors: table, without })
    }

    /// [`Values::NONE`](super::Values::NONE) lies behind the table.
    #[inline(always)]
    fn find(&self, number: u32) -> Vector {
        self.vectors.get(number as usize).copied().unwrap_or(self.without)
    }
}
