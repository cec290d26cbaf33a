//! The part of a filter that runs in the XDP program, as its maps hold it.
//!
//! A packet is looked up in several structures, each of which answers with the smallest [`Verdict`] that it knows:
//! rules that ask for nothing but addresses, or protocol and port, are found at once, however many there are. What
//! then remains is a short list, the [table](Entry), looked at in order up to the verdict found so far.
//!
//! # Words
//!
//! Everything that is looked up by a number lies in one array of [`Line`]s, `FILTER_LINES`; a line is what a CPU
//! loads at once. Its elements are words with a [kind](WordKind): a verdict, a [`Class`], or, on the way through
//! the addresses, what to look at next. Line 0 is not used: in [`FilterSettings`] it stands for "there is none".
//!
//! # IPv4 addresses
//!
//! The upper 16 bits of an address are the index of a word. It ends there, or leads to
//! * [`WordKind::RANGES`]: one line, with up to 9 sorted bounds within the lower 16 bits, and a word for what is
//!   below the first and from each of them on. That is enough for most of the 65,536 parts even of a large list, and
//!   keeps a lookup to two loads, of which one misses the caches when the list is large. All bounds are compared at once
//!   ([`Line::range_of`]): which is the first that is too large cannot be guessed for the addresses of a flood.
//! * [`WordKind::DENSE`]: 16 lines, a word for each value of the next 8 bits.
//!
//! Words are final: what a prefix says is in all words of the addresses that it covers, combined with what the
//! prefixes around it say. IPv6 addresses are in LPM tries, whose values are combined in the same way.

use crate::{Fragment, Headers, Outcome};

/// Most lines: 128 MiB, enough for a million scattered addresses.
pub const MAX_LINES: u32 = 1 << 21;
/// Most IPv6 prefixes a direction.
pub const MAX_FILTER_PREFIXES: u32 = 1 << 20;
/// Most entries of the table: each costs some nanoseconds for a packet that gets there.
pub const MAX_ENTRIES: u32 = 64;
/// Most classes: combinations of prefix lists that one address is on.
pub const MAX_CLASSES: u32 = 1 << 20;
/// Most prefix lists that the table looks at.
pub const MAX_SETS: u32 = 32;
/// Most exact endpoints (destination address, protocol, port).
pub const MAX_ENDPOINTS: u32 = 65_536;
/// Most exact 5-tuples.
pub const MAX_FLOWS: u32 = 65_536;
/// Most rules: their numbers have to fit a [`Verdict`].
pub const MAX_RULES: u32 = 1 << 28;

/// Sixteen words.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Line {
    /// The words.
    pub words: [u32; 16],
}

/// Words of a line.
pub const LINE_WORDS: usize = 16;
/// Bounds of a line of ranges.
pub const RANGE_BOUNDS: usize = 9;
/// Bounds side by side in a number of 64 bits, which is two words.
const LANES: usize = 3;
/// Words of a line of ranges that hold bounds.
const BOUND_WORDS: usize = RANGE_BOUNDS / LANES * 2;
/// Bits of a lane: those of a bound, one more that says how a comparison went, and room for a sum of these.
const LANE_BITS: u32 = 21;
/// 1 in each lane.
const ONES: u64 = 1 | 1 << LANE_BITS | 1 << (2 * LANE_BITS);
/// The bit above the bound in each lane.
const ABOVE: u64 = ONES << 16;

const _: () = assert!(BOUND_WORDS + RANGE_BOUNDS + 1 == LINE_WORDS);

impl Line {
    /// A line of ranges: `words` has what is below the first bound, and what is from each bound on. Bounds are sorted.
    pub fn of_ranges(bounds: [u16; RANGE_BOUNDS], words: [u32; RANGE_BOUNDS + 1]) -> Self {
        let mut line = Self::default();
        let (pairs, rest) = line.words.split_at_mut(BOUND_WORDS);
        for (pair, bounds) in pairs.chunks_mut(2).zip(bounds.chunks(LANES)) {
            let lanes = bounds.iter().rev().fold(0, |lanes, bound| lanes << LANE_BITS | u64::from(*bound));
            pair.copy_from_slice(&[lanes as u32, (lanes >> 32) as u32]);
        }
        rest.copy_from_slice(&words);
        line
    }

    /// The word of a line of ranges for the lower half of an address.
    #[inline(always)]
    pub fn range_of(&self, low: u32) -> u32 {
        // The bit above each lane of a difference stays only if nothing is borrowed from it: the bound is not above `low`.
        let value = u64::from(low) * ONES + ABOVE;
        let lanes = |at: usize| u64::from(self.words[at]) | u64::from(self.words[at + 1]) << 32;
        let reached = |at: usize| value.wrapping_sub(lanes(at)) & ABOVE;
        let sums = (reached(0) + reached(2) + reached(4)) >> 16;
        let place = (sums.wrapping_mul(ONES) >> (2 * LANE_BITS)) as usize + BOUND_WORDS;
        // At most 15 in any case; this is how the verifier knows.
        self.words[place % LINE_WORDS]
    }
}

/// A rule and whether it drops; sorts by rule.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Verdict(pub u32);

impl Verdict {
    /// No rule.
    pub const NONE: Self = Self(WordKind::NUMBER);

    /// Rule number `rule` drops or accepts.
    pub const fn new(rule: u32, drop: bool) -> Self {
        Self(rule << 1 | drop as u32)
    }

    /// The number of the rule; for [`NONE`](Self::NONE) a number above all rules.
    #[inline(always)]
    pub const fn rule(self) -> u32 {
        self.0 >> 1
    }

    /// Whether the packet is dropped.
    #[inline(always)]
    pub const fn is_drop(self) -> bool {
        self.0 & 1 == 1 && self.0 != Self::NONE.0
    }
}

/// What the upper two bits of a word say about the others.
pub struct WordKind;

impl WordKind {
    /// The bits of a word that are its number.
    pub const NUMBER: u32 = 0x3fff_ffff;
    /// The bits of a word that are its kind.
    pub const KIND: u32 = !Self::NUMBER;
    /// The number is a [`Verdict`], and the address is on no list.
    pub const VERDICT: u32 = 0;
    /// The number is that of a [`Class`].
    pub const CLASS: u32 = 0x4000_0000;
    /// The number is that of the first of 16 lines, which are indexed by the next 8 bits.
    pub const DENSE: u32 = 0x8000_0000;
    /// The number is that of a line of ranges.
    pub const RANGES: u32 = 0xc000_0000;
}

/// What is known about an address that is on prefix lists which the table looks at.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Class {
    /// The first rule that asks for nothing but this address.
    pub verdict: u32,
    /// A bit for each list.
    pub sets: u32,
}

impl Class {
    /// On no list, no rule.
    pub const NONE: Self = Self { verdict: Verdict::NONE.0, sets: 0 };
}

/// The one element of `FILTER`: where things are. Line 0 and a length of 0 stand for nothing.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FilterSettings {
    /// 1: there is a filter.
    pub active: u32,
    /// First of 4,096 lines for the upper half of IPv4 source addresses. They are also the variable `FILTER_SOURCES`, from where
    /// every packet of a flood is answered.
    pub src_v4: u32,
    /// The same for destination addresses.
    pub dst_v4: u32,
    /// Number of prefixes in `FILTER_SRC_V6`.
    pub src_v6: u32,
    /// Number of prefixes in `FILTER_DST_V6`.
    pub dst_v6: u32,
    /// First of 16 lines, by IP protocol number.
    pub protocols: u32,
    /// First of 4,096 lines for the destination ports of TCP.
    pub tcp_ports: u32,
    /// The same of UDP.
    pub udp_ports: u32,
    /// The same of SCTP.
    pub sctp_ports: u32,
    /// Number of entries in `FILTER_ENDPOINTS`.
    pub endpoints: u32,
    /// Number of entries in `FILTER_FLOWS`.
    pub flows: u32,
    /// Number of entries in `FILTER_TABLE`.
    pub entries: u32,
    /// Rules below this number ask for nothing but IPv4 source addresses, if they run in the XDP program at all: what they
    /// say about an address is final, and a packet that they drop is not parsed further.
    pub src_rules: u32,
}

/// Key of `FILTER_ENDPOINTS`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EndpointKey {
    /// Destination address, as [`map_ipv4`](crate::map_ipv4) writes it.
    pub address: [u8; 16],
    /// Destination port in network byte order.
    pub port: [u8; 2],
    /// IP protocol number.
    pub protocol: u8,
    /// 4 or 6.
    pub ip_version: u8,
}

/// Key of `FILTER_FLOWS` and `DENY_FLOWS`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FlowKey {
    /// Source address, as [`map_ipv4`](crate::map_ipv4) writes it.
    pub src: [u8; 16],
    /// Destination address.
    pub dst: [u8; 16],
    /// Source port in network byte order.
    pub src_port: [u8; 2],
    /// Destination port in network byte order.
    pub dst_port: [u8; 2],
    /// IP protocol number.
    pub protocol: u8,
    /// 4 or 6.
    pub ip_version: u8,
    /// Always 0.
    pub zero: [u8; 2],
}

/// What a rule did.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RuleCounter {
    /// Packets.
    pub packets: u64,
    /// Bytes of their frames, without frame check sequence.
    pub bytes: u64,
}

/// What a packet has, a bit each: a condition that needs what is not had does not hold.
pub struct Has;

#[allow(missing_docs, reason = "each is named by what it says")]
impl Has {
    pub const IPV4: u32 = 1;
    pub const IPV6: u32 = 1 << 1;
    pub const PROTOCOL: u32 = 1 << 2;
    pub const PORTS: u32 = 1 << 3;
    pub const TCP_FLAGS: u32 = 1 << 4;
    pub const ICMP: u32 = 1 << 5;
    pub const VLAN: u32 = 1 << 6;
    pub const LENGTH: u32 = 1 << 7;
    pub const NO_FRAGMENT: u32 = 1 << 8;
    pub const FRAGMENT: u32 = 1 << 9;
    pub const FIRST_FRAGMENT: u32 = 1 << 10;
    pub const LATER_FRAGMENT: u32 = 1 << 11;
    pub const OPTIONS: u32 = 1 << 12;
    pub const NO_OPTIONS: u32 = 1 << 13;
    pub const MALFORMED: u32 = 1 << 14;
    pub const WELL_FORMED: u32 = 1 << 15;
}

/// What the table looks at, in the form that its entries compare. Where something is not had, its number is 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PacketFacts {
    /// Bits of [`Has`].
    pub has: u32,
    /// Source address, as [`map_ipv4`](crate::map_ipv4) writes it, in two words of native byte order.
    pub src: [u64; 2],
    /// Destination address.
    pub dst: [u64; 2],
    /// Lists that the source address is on.
    pub src_sets: u32,
    /// Lists that the destination address is on.
    pub dst_sets: u32,
    /// IP protocol number.
    pub protocol: u32,
    /// Source port.
    pub src_port: u32,
    /// Destination port.
    pub dst_port: u32,
    /// VLAN id.
    pub vlan: u32,
    /// Bytes of the IP packet.
    pub length: u32,
    /// TCP flags.
    pub tcp_flags: u32,
    /// ICMP type.
    pub icmp_type: u32,
    /// ICMP code.
    pub icmp_code: u32,
}

const TCP: u8 = 6;
const UDP: u8 = 17;
const SCTP: u8 = 132;
const ICMP: u8 = 1;
const ICMPV6: u8 = 58;

impl PacketFacts {
    /// What [`Headers`] say; addresses and lists are filled in by the caller.
    #[inline(always)]
    pub fn of(headers: &Headers) -> Self {
        let has = has(headers);
        Self {
            has,
            protocol: u32::from(headers.protocol),
            src_port: u32::from(headers.src_port),
            dst_port: u32::from(headers.dst_port),
            // Without a tag its control information is 0, as the condition wants it.
            vlan: u32::from(headers.vlan_tci[0] & 0x0fff),
            length: headers.end.wrapping_sub(u32::from(headers.network_offset)),
            tcp_flags: u32::from(headers.tcp_flags),
            icmp_type: u32::from(headers.icmp_type),
            icmp_code: u32::from(headers.icmp_code),
            ..Self::default()
        }
    }
}

/// The bits of [`Has`] for a packet.
#[inline(always)]
pub fn has(headers: &Headers) -> u32 {
    let outcome = headers.outcome;
    let is = |other: Outcome| outcome == other as u8;
    let mut has = match headers.ip_version {
        4 => Has::IPV4,
        6 => Has::IPV6,
        _ => 0,
    };
    let chain_is_known =
        headers.end != 0 && !is(Outcome::TruncatedExtension) && !is(Outcome::TooManyExtensions);
    if headers.end != 0 {
        has |= Has::LENGTH;
    }
    if chain_is_known {
        has |= Has::PROTOCOL;
    }
    if headers.transport_offset != 0 {
        has |= match headers.protocol {
            TCP => Has::PORTS | Has::TCP_FLAGS,
            UDP | SCTP => Has::PORTS,
            ICMP | ICMPV6 => Has::ICMP,
            _ => 0,
        };
    }
    if headers.vlan_count > 0 || !(is(Outcome::TruncatedEthernet) || is(Outcome::TruncatedVlan)) {
        has |= Has::VLAN;
    }
    if headers.fragment == Fragment::First as u8 {
        has |= Has::FRAGMENT | Has::FIRST_FRAGMENT;
    } else if headers.fragment == Fragment::Later as u8 {
        has |= Has::FRAGMENT | Has::LATER_FRAGMENT;
    } else if chain_is_known {
        has |= Has::NO_FRAGMENT;
    }
    if headers.ip_options != 0 {
        has |= Has::OPTIONS;
    } else if chain_is_known {
        has |= Has::NO_OPTIONS;
    }
    has |= if outcome >= Outcome::TruncatedEthernet as u8 { Has::MALFORMED } else { Has::WELL_FORMED };
    has
}

/// An entry of `FILTER_TABLE`. The table is a small program: an entry that holds acts and goes on with the entry
/// `next`, one that does not hold is followed by the one behind it. So a rule with `not` is an entry of
/// [`SKIP`](Self::SKIP) in front of those of the rule itself, and leads behind them.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Bits of a source address, of those in `src_mask`.
    pub src: [u64; 2],
    /// Which bits of a source address are compared.
    pub src_mask: [u64; 2],
    /// Bits of a destination address.
    pub dst: [u64; 2],
    /// Which bits of a destination address are compared.
    pub dst_mask: [u64; 2],
    /// A bit for each protocol that fits.
    pub protocols: [u64; 4],
    /// Bits of [`Has`] that must be there, all of them.
    pub needs: u32,
    /// Lists that must have the source address, all of them.
    pub src_sets: u32,
    /// Lists that must have the destination address.
    pub dst_sets: u32,
    /// Smallest length.
    pub length_min: u32,
    /// Largest length.
    pub length_max: u32,
    /// [`Verdict`] of the rule, also for an entry that does not decide: its rule is what matters then.
    pub verdict: u32,
    /// What the entry does.
    pub effect: u32,
    /// The entry to go on with if this one holds.
    pub next: u32,
    /// Smallest and largest source port.
    pub src_port: [u16; 2],
    /// Smallest and largest destination port.
    pub dst_port: [u16; 2],
    /// Smallest and largest VLAN id.
    pub vlan: [u16; 2],
    /// Smallest and largest ICMP type.
    pub icmp_type: [u8; 2],
    /// Smallest and largest ICMP code.
    pub icmp_code: [u8; 2],
    /// TCP flags that are compared.
    pub flags_mask: u16,
    /// What they must be.
    pub flags: u16,
    /// Always 0.
    pub zero: u32,
}

impl Entry {
    /// Goes on with `next`, nothing else.
    pub const SKIP: u32 = 0;
    /// Counts the packet for the rule and goes on with `next`.
    pub const COUNT: u32 = 1;
    /// Ends the list by `verdict`.
    pub const DECIDE: u32 = 2;

    /// An entry that always holds.
    pub const ANY: Self = Self {
        src: [0; 2],
        src_mask: [0; 2],
        dst: [0; 2],
        dst_mask: [0; 2],
        protocols: [u64::MAX; 4],
        needs: 0,
        src_sets: 0,
        dst_sets: 0,
        length_min: 0,
        length_max: u32::MAX,
        verdict: Verdict::NONE.0,
        effect: Self::SKIP,
        next: 0,
        src_port: [0, u16::MAX],
        dst_port: [0, u16::MAX],
        vlan: [0, u16::MAX],
        icmp_type: [0, u8::MAX],
        icmp_code: [0, u8::MAX],
        flags_mask: 0,
        flags: 0,
        zero: 0,
    };

    /// Whether the entry holds for a packet.
    #[inline(always)]
    pub fn holds(&self, facts: &PacketFacts) -> bool {
        // First what most entries differ in.
        if facts.has & self.needs != self.needs
            || facts.src_sets & self.src_sets != self.src_sets
            || facts.dst_sets & self.dst_sets != self.dst_sets
        {
            return false;
        }
        let protocols = self.protocols[(facts.protocol as usize >> 6) & 3];
        if protocols >> (facts.protocol & 63) & 1 == 0
            || outside(facts.dst_port, self.dst_port)
            || outside(facts.src_port, self.src_port)
        {
            return false;
        }
        let differs = |address: &[u64; 2], wanted: &[u64; 2], mask: &[u64; 2]| {
            (address[0] ^ wanted[0]) & mask[0] | (address[1] ^ wanted[1]) & mask[1] != 0
        };
        if differs(&facts.src, &self.src, &self.src_mask) || differs(&facts.dst, &self.dst, &self.dst_mask) {
            return false;
        }
        !(outside(facts.vlan, self.vlan)
            || facts.length < self.length_min
            || facts.length > self.length_max
            || facts.tcp_flags & u32::from(self.flags_mask) != u32::from(self.flags)
            || outside_small(facts.icmp_type, self.icmp_type)
            || outside_small(facts.icmp_code, self.icmp_code))
    }
}

#[inline(always)]
fn outside(value: u32, [min, max]: [u16; 2]) -> bool {
    value < u32::from(min) || value > u32::from(max)
}

#[inline(always)]
fn outside_small(value: u32, [min, max]: [u8; 2]) -> bool {
    value < u32::from(min) || value > u32::from(max)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_ranges_says_the_word_behind_the_last_bound_that_is_reached() {
        let words: [u32; RANGE_BOUNDS + 1] = core::array::from_fn(|index| 100 + index as u32);
        for bounds in [
            [1, 2, 3, 4, 5, 6, 7, 8, 9],
            [1, 2, 0x7fff, 0x8000, 0x8001, 0xfffe, 0xffff, 0xffff, 0xffff],
            [256, 512, 0x1000, 0x2000, 0x4000, 0x8000, 0xc000, 0xf000, 0xff00],
            [0xffff; RANGE_BOUNDS],
        ] {
            let line = Line::of_ranges(bounds, words);
            for low in 0..=u16::MAX {
                let reached = bounds.iter().filter(|bound| low >= **bound).count();
                assert_eq!(line.range_of(low.into()), words[reached], "{low} in {bounds:?}");
            }
        }
    }
}
