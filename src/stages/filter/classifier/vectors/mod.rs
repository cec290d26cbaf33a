//! The form for lists of up to some thousand rules: a bit for each rule, by field.
//!
//! For each of five fields (both addresses, both ports, protocol) all numbers that the same rules allow share a vector with a bit for
//! each rule, in the order of the list. A packet's five vectors are joined by AND, 512 rules at a time, and the first bit that is left is
//! the first rule that matches, unless that asks for more than the five fields ([`Rest`]), which is then asked by itself.
//!
//! A lookup is five loads or searches of a length that is the same for all packets ([`Ranges`]), and the AND of one cache line a field
//! for 512 rules. Nothing in it depends on the packet but the last step, so a processor has nothing to guess. Nearly all packets are TCP or
//! UDP, for which source port and protocol are one lookup, and a batch is looked up as a whole ([`short`]).
//!
//! Source: Lakshman and Stiliadis, High-Speed Policy-based Packet Forwarding Using Efficient Multi-dimensional Range Matching
//! (SIGCOMM 1998).

mod chunk;
mod intern;
mod levels;
mod short;
mod sweep;

use foldhash::{HashMap, HashMapExt};

use super::super::{Action, Facts, Match, PrefixSet, Rule};
use super::ranges::Ranges;
use super::{Address, Packet, Rest};
use crate::lanes::{self, Lanes};
use crate::packet::protocol::{TCP, UDP};
use chunk::{Chunk, RULES, WORDS};
use intern::Intern;
use levels::Levels;
pub(super) use short::Short;
use sweep::{Cuts, Field};

/// Number of a vector.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
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
    /// Of TCP and of UDP: from the source port to what it and the protocol have in common.
    carried: [Numbers; 2],
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
        let src_port = Numbers::new(src_port, u16::MAX.into(), &mut intern)?;
        let protocol = Numbers::new(protocol, u8::MAX.into(), &mut intern)?;
        let [tcp, udp] = [TCP, UDP].map(|number| src_port.joined(protocol.find(number.into()), &mut intern));
        Some(Self {
            src: Addresses::new(src, &mut intern)?,
            dst: Addresses::new(dst, &mut intern)?,
            src_port,
            dst_port: Numbers::new(dst_port, u16::MAX.into(), &mut intern)?,
            protocol,
            carried: [tcp?, udp?],
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

    /// The first rule from `start` on that matches the packet with these vectors.
    #[inline(always)]
    pub fn search(&self, row: &Row, facts: &impl Fn() -> Facts, start: usize) -> Option<usize> {
        let Row { src, dst, src_port, dst_port, protocol } = *row;
        let fields = [src, dst, src_port, dst_port, protocol].map(|vector| self.chunks_of(vector));
        let mut found = None;
        lanes::with_widest(Search { fields, rest: &self.rest, facts, start, found: &mut found });
        found
    }

    /// Whether the vectors say all that a rule asks for.
    pub fn say_all_of(&self, rule: usize) -> bool {
        self.rest[rule].is_none()
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
            + [&self.src_port, &self.dst_port, &self.protocol, &self.carried[0], &self.carried[1]]
                .map(Numbers::memory_bytes)
                .iter()
                .sum::<usize>()
            + size_of_val(&self.rest[..])
            + self.rest.iter().flatten().count() * size_of::<Rest>()
    }
}

/// A search for a rule.
struct Search<'a, F> {
    fields: [&'a [Chunk]; 5],
    rest: &'a [Option<Box<Rest>>],
    facts: &'a F,
    start: usize,
    found: &'a mut Option<usize>,
}

impl<F: Fn() -> Facts> lanes::Work for Search<'_, F> {
    #[inline(always)]
    fn run<L: Lanes>(self, lanes: L) {
        for chunk in self.start / RULES..self.fields[0].len() {
            let mut left = Chunk::joined(self.fields.map(|field| &field[chunk]));
            if self.start > chunk * RULES {
                left.clear_below(self.start % RULES);
            }
            while let Some(bit) = left.first(lanes) {
                let rule = chunk * RULES + bit;
                match &self.rest[rule] {
                    Some(rest) if !rest_holds(rest, self.facts) => left.clear(bit),
                    _ => {
                        *self.found = Some(rule);
                        return;
                    }
                }
            }
        }
    }
}

/// See [`Vectors::leave_too_much`].
const MOST_LEFT: usize = 64;

#[inline(never)]
fn rest_holds(rest: &Rest, facts: &impl Fn() -> Facts) -> bool {
    rest.holds(&facts())
}

/// From an address to its vector.
#[derive(Debug)]
struct Addresses {
    ipv4: Ipv4Addresses,
    ipv6: Ranges<u128, Vector>,
    without_address: Vector,
}

impl Addresses {
    fn new(field: &Field, intern: &mut Intern) -> Option<Self> {
        let [ipv4, ipv6] =
            [(0, u32::MAX.into()), (1, u128::MAX)].map(|(family, most)| field.sweep(family, most, intern));
        let Cuts { starts, vectors } = ipv4?;
        let ipv4 = Ipv4Addresses::new(starts.into_iter().map(|start| start as u32).collect(), vectors);
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

/// From an IPv4 address to its vector.
#[derive(Debug)]
enum Ipv4Addresses {
    /// Where a search is short.
    Ranges(Ranges<u32, Vector>),
    Levels(Levels),
}

/// Steps of a search from which on tables take its place.
const MOST_STEPS: u32 = 3;

impl Ipv4Addresses {
    fn new(starts: Vec<u32>, vectors: Vec<Vector>) -> Self {
        let levels = Levels::new(&starts, &vectors);
        let ranges = Ranges::new(starts, vectors);
        match levels {
            Some(levels) if ranges.steps() > MOST_STEPS => Self::Levels(levels),
            _ => Self::Ranges(ranges),
        }
    }

    #[inline(always)]
    fn find(&self, address: u32) -> Vector {
        match self {
            Self::Ranges(ranges) => ranges.find(address),
            Self::Levels(levels) => levels.find(address),
        }
    }

    fn memory_bytes(&self) -> usize {
        match self {
            Self::Ranges(ranges) => ranges.memory_bytes(),
            Self::Levels(levels) => levels.memory_bytes(),
        }
    }
}

/// Numbers of a block.
const BLOCK: usize = 64;

/// From a small number to its vector, by way of blocks of numbers that are kept once if they are the same: most are, so what is looked at
/// stays in the nearest cache, where a table by all ports would not.
#[derive(Debug)]
struct Numbers {
    /// By number without its last bits: which block. Empty if no rule asks for it.
    blocks: Vec<u16>,
    vectors: Vec<[Vector; BLOCK]>,
    /// Of packets that have no such number.
    without: Vector,
}

impl Numbers {
    fn new(field: &Field, most: u32, intern: &mut Intern) -> Option<Self> {
        let without = field.without(intern)?;
        let Cuts { starts, vectors } = field.sweep(0, most.into(), intern)?;
        let mut numbers = Self { blocks: Vec::new(), vectors: Vec::new(), without };
        if vectors.len() > 1 || vectors[0] != without {
            let ends = starts.iter().skip(1).copied().chain([u128::from(most) + 1]);
            let mut table = Vec::new();
            for (vector, end) in vectors.into_iter().zip(ends) {
                table.resize(end as usize, vector);
            }
            let mut known = HashMap::new();
            for block in table.as_chunks::<BLOCK>().0 {
                let next = numbers.vectors.len() as u16;
                let number = *known.entry(*block).or_insert(next);
                if number == next {
                    numbers.vectors.push(*block);
                }
                numbers.blocks.push(number);
            }
        }
        Some(numbers)
    }

    /// For packets that belong to the vector `with`, too.
    fn joined(&self, with: Vector, intern: &mut Intern) -> Option<Self> {
        let mut joined = Self {
            blocks: self.blocks.clone(),
            vectors: self.vectors.clone(),
            without: intern.join(self.without, with)?,
        };
        // Neighbours mostly have the same vector.
        let mut last = (self.without, joined.without);
        for vector in joined.vectors.as_flattened_mut() {
            if *vector != last.0 {
                last = (*vector, intern.join(*vector, with)?);
            }
            *vector = last.1;
        }
        Some(joined)
    }

    /// [`Values::NONE`](super::Values::NONE) lies behind the blocks.
    #[inline(always)]
    fn find(&self, number: u32) -> Vector {
        match self.blocks.get(number as usize / BLOCK) {
            Some(block) => self.vectors[usize::from(*block)][number as usize % BLOCK],
            None => self.without,
        }
    }

    fn memory_bytes(&self) -> usize {
        size_of_val(&self.blocks[..]) + size_of_val(&self.vectors[..])
    }
}
