//! The rule that matches, without looking at every rule.
//!
//! # Two forms
//!
//! A list is compiled to one of two forms ([`Form`]), which find the same:
//!
//! * [`vectors`]: for each field one lookup gives a bit for each rule; the fields' bits are joined by AND. The work is the same for
//!   every packet and has hardly a branch that depends on it, but grows with the rules, and memory with their square.
//! * [`pairs`]: labels of both addresses, and a hash table of the pairs of labels. The work hardly grows with the rules, memory
//!   grows as they do, but which way a lookup goes nobody can predict.
//!
//! `benches/micro/filter.rs` compares both by size, and [`Classifier::memory_bytes`] tells their memory; what is known so far is in
//! `docs/performance.md`. The vectors' sizes are bounded by the constants below.

mod pairs;
mod ranges;
mod vectors;

use super::facts::VLAN_ID;
use super::linear::holds_with;
use super::{Facts, Match, PrefixSet, Rule};
use crate::packet::protocol::{ICMP, ICMPV6, SCTP, TCP, UDP};
use crate::packet::{Fragment, Headers, Outcome};
use crate::pipeline::Batch;
use pairs::Pairs;
use vectors::Vectors;

/// A list of more rules is compiled to pairs. Measured, one lookup at a time: vectors are faster by a quarter for 2,000 rules, pairs
/// by a sixth for 4,000.
const MOST_RULES_IN_VECTORS: usize = 3_072;
/// Vectors that would take more bytes than this are not used: they would not stay in the cache.
const MOST_BYTES_OF_VECTORS: usize = 4 << 20;

/// A list of rules, compiled.
#[derive(Debug)]
pub struct Classifier {
    compiled: Compiled,
}

#[derive(Debug)]
enum Compiled {
    Vectors(Vectors),
    Pairs(Pairs),
}

/// How a list is compiled. What is found is the same; time and memory differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Form {
    /// A bit for each rule, by field: for lists up to some thousand rules.
    Vectors,
    /// Pairs of what holds for source and destination, in a hash table: for long lists.
    Pairs,
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
    /// Compiles a list, to the form that suits it. Rules that are switched off ([`Action::Continue`](super::Action::Continue)) are left out.
    ///
    /// # Panics
    ///
    /// For 2^32 - 1 rules or more.
    pub fn new(rules: &[Rule]) -> Self {
        let vectors = (rules.len() <= MOST_RULES_IN_VECTORS)
            .then(|| Vectors::new(rules))
            .flatten()
            .filter(|vectors| vectors.vector_bytes() <= MOST_BYTES_OF_VECTORS && !vectors.leave_too_much());
        let compiled = match vectors {
            Some(vectors) => Compiled::Vectors(vectors),
            None => Compiled::Pairs(Pairs::new(rules)),
        };
        Self { compiled }
    }

    /// Compiles a list to a form, for tests and measurements. Vectors of which more than 65,536 differ do not exist: such a
    /// list is compiled to pairs all the same, as [`form`](Self::form) tells.
    ///
    /// # Panics
    ///
    /// Like [`new`](Self::new).
    pub fn with_form(rules: &[Rule], form: Form) -> Self {
        let vectors = if form == Form::Vectors { Vectors::new(rules) } else { None };
        let compiled = match vectors {
            Some(vectors) => Compiled::Vectors(vectors),
            None => Compiled::Pairs(Pairs::new(rules)),
        };
        Self { compiled }
    }

    /// To which form the list is compiled.
    pub fn form(&self) -> Form {
        match self.compiled {
            Compiled::Vectors(_) => Form::Vectors,
            Compiled::Pairs(_) => Form::Pairs,
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
        let packet = Packet::of_facts(facts);
        let of_facts = || *facts;
        match &self.compiled {
            Compiled::Vectors(vectors) => {
                let row = vectors.row(&packet, vectors.destination(packet.dst));
                vectors.search(&row, &of_facts, start)
            }
            Compiled::Pairs(pairs) => pairs.search(&packet, pairs.destination(packet.dst), &of_facts, start),
        }
    }

    /// Whether all that a rule asks for is looked up ahead for a batch ([`Lookups::first`]).
    pub(super) fn says_all_of(&self, rule: usize) -> bool {
        match &self.compiled {
            Compiled::Vectors(vectors) => vectors.say_all_of(rule),
            Compiled::Pairs(_) => false,
        }
    }

    /// Bytes of memory that a lookup may touch.
    pub fn memory_bytes(&self) -> usize {
        match &self.compiled {
            Compiled::Vectors(vectors) => vectors.memory_bytes(),
            Compiled::Pairs(pairs) => pairs.memory_bytes(),
        }
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

/// The lookups of a batch: what [`Classifier::next_match`] finds, by what most rules ask for. All [`Facts`] are gathered only
/// if a rule that may match asks for more.
pub(super) struct Lookups<'c> {
    compiled: &'c Compiled,
    last: Destination<'c>,
    short: vectors::Short,
}

impl<'c> Lookups<'c> {
    /// What can be looked up for all packets of a batch ahead: so their searches overlap in the processor, and what they wait for
    /// is not waited for once a packet.
    #[inline(always)]
    pub fn of(classifier: &'c Classifier, rules: usize, batch: &Batch<'_>) -> Self {
        let compiled = &classifier.compiled;
        let [no_rule, unknown] = [rules as u32, rules as u32 + 1];
        let mut lookups =
            Self { compiled, last: Destination::of(classifier), short: vectors::Short::none(unknown) };
        if let Compiled::Vectors(vectors) = compiled {
            lookups.short.look_up(vectors, batch, no_rule);
        }
        lookups
    }

    /// What was found ahead for the packet at `index`: the first rule by what the short way looks at, which is all that a rule asks for if the
    /// [classifier says so](Classifier::says_all_of). The number of rules stands for none of them, the one behind it for "ask
    /// [`next_match`](Self::next_match)".
    #[inline(always)]
    pub fn first(&self, index: usize) -> usize {
        self.short.first(index) as usize
    }

    /// The first rule from `start` on that matches the packet of these bytes.
    #[inline(always)]
    pub fn next_match(&mut self, bytes: &[u8], headers: &Headers, start: usize) -> Option<usize> {
        let facts = || Facts::of(bytes, headers);
        let packet = Packet::of(bytes, headers).unwrap_or_else(|| Packet::of_any(bytes, headers));
        match self.compiled {
            Compiled::Vectors(vectors) => {
                vectors.search(&vectors.row(&packet, vectors.destination(packet.dst)), &facts, start)
            }
            Compiled::Pairs(pairs) => {
                let last = &mut self.last;
                if packet.dst != last.address {
                    last.address = packet.dst;
                    last.labels = pairs.destination(packet.dst);
                }
                pairs.search(&packet, last.labels, &facts, start)
            }
        }
    }
}

/// What holds for the destination of the packet before, in the form of pairs: packets to the same address, such as that of a service, often
/// come in a row.
struct Destination<'c> {
    address: Address,
    labels: &'c [pairs::Label],
}

impl<'c> Destination<'c> {
    /// Of a classifier, before the first packet.
    fn of(classifier: &'c Classifier) -> Self {
        let address = Address::None;
        let labels: &[_] = match &classifier.compiled {
            Compiled::Vectors(_) => &[],
            Compiled::Pairs(pairs) => pairs.destination(address),
        };
        Self { address, labels }
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
    fn of_facts(facts: &Facts) -> Self {
        Self {
            values: Values::of(facts),
            src: Address::new(facts.ip_version, &facts.src),
            dst: Address::new(facts.ip_version, &facts.dst),
        }
    }

    /// By way of [`Facts`].
    #[cold]
    fn of_any(bytes: &[u8], headers: &Headers) -> Self {
        Self::of_facts(&Facts::of(bytes, headers))
    }

    /// The same; `None` for what is not well-formed IP.
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

/// Values of a packet in the form that lookups compare; [`Values::NONE`] for what it does not have.
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
