//! Which service a packet belongs to, by destination address, protocol and port.
//!
//! A service takes the packets to the addresses of a prefix and to a range of ports. Where the prefixes of several services
//! that take a packet lie within each other, the longest wins: as in a routing table, but only among those that
//! have the port. So one address can be taken out of a prefix for one port, and the rest of its ports stay with
//! the prefix.
//!
//! Most services have one address and one port: these are found by one look-up in a hash table. Only a packet that is
//! none of theirs is looked for among prefixes and ranges: one look-up for each prefix length in use, the longest first, and
//! a binary search in the ranges of the prefix that is found.

use std::collections::{BTreeMap, HashMap};
use std::ops::RangeInclusive;

use foldhash::fast::FixedState;

use crate::packet::address_words;
use crate::stages::filter::Prefix;

/// Services by what their packets are sent to. Immutable; finding one allocates nothing.
#[derive(Clone, Debug, Default)]
pub struct Services {
    /// Those of one address and one port.
    exact: Exact,
    /// The others by prefix length, the longest first.
    lengths: Box<[Length<Group>]>,
    /// The ranges of all groups; within a group in order.
    ranges: Box<[Range]>,
    /// Every service by prefix length, for packets without ports.
    vips: Box<[Length<OfVip>]>,
}

/// The services that a packet without ports, such as a later fragment, can belong to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OfVip {
    /// No service has the address and protocol.
    None,
    /// One has, by index.
    One(usize),
    /// Several have.
    Several,
}

impl OfVip {
    /// Both together.
    fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::None, any) | (any, Self::None) => any,
            _ => Self::Several,
        }
    }
}

/// With a fixed seed: the keys are the operator's, not the sender's.
type Map<V> = HashMap<Key, V, FixedState>;

/// An address, IPv4 as IPv4-mapped IPv6, and the rest in one number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Key {
    high: u64,
    low: u64,
    /// Protocol above the port; of a prefix the port is 0.
    rest: u32,
}

impl Key {
    #[inline(always)]
    fn new(address: u128, protocol: u8, port: u16) -> Self {
        let rest = u32::from(protocol) << 16 | u32::from(port);
        Self { high: (address >> 64) as u64, low: address as u64, rest }
    }
}

/// The services of one address and one port: open addressing with linear probing, at most half full, one load for nearly every packet.
#[derive(Clone, Debug, Default)]
struct Exact {
    /// A power of two of them, or none.
    slots: Box<[Slot]>,
    shift: u32,
}

#[derive(Clone, Copy, Debug)]
struct Slot {
    address: [u64; 2],
    /// [`rest`] of protocol and port; [`FREE`] in a free slot.
    rest: u32,
    service: u32,
}

/// No protocol and port.
const FREE: u32 = u32::MAX;

/// Protocol above the port.
#[inline(always)]
fn rest(protocol: u8, port: u16) -> u32 {
    u32::from(protocol) << 16 | u32::from(port)
}

/// The address, from the words that [`address_words`] makes.
fn address_of([high, low]: [u64; 2]) -> u128 {
    u128::from(high.swap_bytes()) << 64 | u128::from(low.swap_bytes())
}

impl Exact {
    fn new(services: &HashMap<([u64; 2], u32), u32>) -> Self {
        if services.is_empty() {
            return Self::default();
        }
        let size = (2 * services.len()).next_power_of_two();
        let mut slots = vec![Slot { address: [0; 2], rest: FREE, service: 0 }; size].into_boxed_slice();
        let shift = u64::BITS - size.trailing_zeros();
        for ((address, rest), service) in services {
            let mut place = Self::place(*address, *rest, shift);
            while slots[place].rest != FREE {
                place = (place + 1) & (size - 1);
            }
            slots[place] = Slot { address: *address, rest: *rest, service: *service };
        }
        Self { slots, shift }
    }

    #[inline(always)]
    fn get(&self, address: [u64; 2], rest: u32) -> Option<u32> {
        let mut place = Self::place(address, rest, self.shift);
        loop {
            // Without services there is no slot.
            let slot = self.slots.get(place)?;
            if slot.address == address && slot.rest == rest {
                return Some(slot.service);
            }
            if slot.rest == FREE {
                return None;
            }
            place = (place + 1) & (self.slots.len() - 1);
        }
    }

    /// The keys are the operator's, not the sender's: no need for a secret.
    #[inline(always)]
    fn place([high, low]: [u64; 2], rest: u32, shift: u32) -> usize {
        const MIX: u64 = 0x9e37_79b9_7f4a_7c15;
        let mixed = (low ^ high.rotate_left(29)).wrapping_mul(MIX) ^ u64::from(rest);
        ((mixed ^ mixed >> 32).wrapping_mul(MIX) >> (shift & 63)) as usize
    }
}

/// What is known of the prefixes of one length.
#[derive(Clone, Debug)]
struct Length<V> {
    /// The bits that count.
    mask: u128,
    prefixes: Map<V>,
}

impl<V> Length<V> {
    #[inline]
    fn get(&self, address: u128, protocol: u8) -> Option<&V> {
        self.prefixes.get(&Key::new(address & self.mask, protocol, 0))
    }
}

/// The part of `ranges` that belongs to a prefix and protocol.
#[derive(Clone, Copy, Debug, Default)]
struct Group {
    first: u32,
    count: u32,
}

#[derive(Clone, Copy, Debug)]
struct Range {
    start: u16,
    end: u16,
    service: u32,
}

impl Services {
    /// From what each service takes: prefix, IP protocol number, ports. The index of a service is its place.
    ///
    /// No two services of the same prefix and protocol have a port in common; the config sees to that. Where they do,
    /// either of them is found.
    pub fn new(services: impl IntoIterator<Item = (Prefix, u8, RangeInclusive<u16>)>) -> Self {
        let mut exact = HashMap::new();
        let mut vips: BTreeMap<u8, Map<OfVip>> = BTreeMap::new();
        let mut wide: BTreeMap<(u8, u128, u8), Vec<Range>> = BTreeMap::new();
        for (index, (prefix, protocol, ports)) in services.into_iter().enumerate() {
            let (address, length) = prefix.mapped();
            let address = u128::from_be_bytes(address);
            let (start, end) = ports.into_inner();
            let service = index as u32;
            if length == 128 && start == end {
                exact.insert((address_words(&address.to_be_bytes()), rest(protocol, start)), service);
            } else {
                wide.entry((length, address, protocol)).or_default().push(Range { start, end, service });
            }
            let of_vip =
                vips.entry(length).or_default().entry(Key::new(address, protocol, 0)).or_insert(OfVip::None);
            *of_vip = of_vip.and(OfVip::One(index));
        }

        let mut ranges = Vec::new();
        let mut groups: BTreeMap<u8, Map<Group>> = BTreeMap::new();
        for ((length, address, protocol), mut of_group) in wide {
            of_group.sort_unstable_by_key(|range| range.start);
            let group = Group { first: ranges.len() as u32, count: of_group.len() as u32 };
            ranges.extend(of_group);
            groups.entry(length).or_default().insert(Key::new(address, protocol, 0), group);
        }
        Self {
            exact: Exact::new(&exact),
            lengths: longest_first(groups),
            ranges: ranges.into(),
            vips: longest_first(vips),
        }
    }

    /// The service of a packet to this address (IPv4 as IPv4-mapped IPv6), protocol and port, by index.
    #[inline]
    pub fn find(&self, destination: &[u8; 16], protocol: u8, port: u16) -> Option<usize> {
        self.find_words(address_words(destination), protocol, port)
    }

    /// As [`find`](Self::find), with the address as words.
    #[inline(always)]
    pub(crate) fn find_words(&self, destination: [u64; 2], protocol: u8, port: u16) -> Option<usize> {
        match self.exact.get(destination, rest(protocol, port)) {
            Some(service) => Some(service as usize),
            None if self.lengths.is_empty() => None,
            None => self.find_wide(address_of(destination), protocol, port),
        }
    }

    /// Among the services of prefixes and ranges.
    #[inline(never)]
    fn find_wide(&self, address: u128, protocol: u8, port: u16) -> Option<usize> {
        self.lengths.iter().find_map(|length| {
            let group = length.get(address, protocol)?;
            let ranges = &self.ranges[group.first as usize..][..group.count as usize];
            let after = ranges.partition_point(|range| range.start <= port);
            let range = ranges[..after].last()?;
            (port <= range.end).then_some(range.service as usize)
        })
    }

    /// The services that a packet to this address (IPv4 as IPv4-mapped IPv6) and protocol can belong to whose port is not
    /// known.
    pub fn find_fragment(&self, destination: &[u8; 16], protocol: u8) -> OfVip {
        let address = u128::from_be_bytes(*destination);
        let found = self.vips.iter().filter_map(|length| length.get(address, protocol));
        found.fold(OfVip::None, |one, other| one.and(*other))
    }
}

fn longest_first<V>(lengths: BTreeMap<u8, Map<V>>) -> Box<[Length<V>]> {
    let mask = |length: u8| u128::MAX.checked_shl(128 - u32::from(length)).unwrap_or(0);
    lengths.into_iter().rev().map(|(length, prefixes)| Length { mask: mask(length), prefixes }).collect()
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use proptest::prelude::*;

    use super::*;
    use crate::packet::protocol::{TCP, UDP};

    type Endpoint = (Prefix, u8, RangeInclusive<u16>);

    fn endpoint(prefix: &str, protocol: u8, ports: RangeInclusive<u16>) -> Endpoint {
        (prefix.parse().unwrap(), protocol, ports)
    }

    fn mapped(address: &str) -> [u8; 16] {
        Prefix::new(address.parse::<IpAddr>().unwrap(), 128).mapped().0
    }

    fn services() -> Services {
        Services::new([
            endpoint("198.18.10.1", TCP, 80..=80),
            endpoint("198.18.10.1", TCP, 8000..=8100),
            endpoint("198.18.10.0/24", TCP, 1..=65_535),
            endpoint("198.18.0.0/16", TCP, 22..=22),
            endpoint("198.18.0.0/16", TCP, 20..=21),
            endpoint("2001:db8:10::/64", UDP, 53..=53),
        ])
    }

    #[test]
    fn the_longest_prefix_that_has_the_port_wins() {
        let services = services();
        let find = |address, port| services.find(&mapped(address), TCP, port);
        assert_eq!(find("198.18.10.1", 80), Some(0));
        assert_eq!([8000, 8050, 8100].map(|port| find("198.18.10.1", port)), [Some(1); 3]);
        assert_eq!([7999, 8101, 22, 443].map(|port| find("198.18.10.1", port)), [Some(2); 4]);
        assert_eq!(find("198.18.10.255", 80), Some(2));
        assert_eq!([20, 21, 22, 23].map(|port| find("198.18.11.1", port)), [Some(4), Some(4), Some(3), None]);
        assert_eq!(find("198.19.0.1", 22), None);
    }

    #[test]
    fn protocols_and_families_are_told_apart() {
        let services = services();
        assert_eq!(services.find(&mapped("198.18.10.1"), UDP, 80), None);
        assert_eq!(services.find(&mapped("2001:db8:10::ffff"), UDP, 53), Some(5));
        assert_eq!(services.find(&mapped("2001:db8:10::ffff"), TCP, 53), None);
        assert_eq!(services.find(&mapped("2001:db8:10:1::"), UDP, 53), None);
        assert_eq!(Services::default().find(&mapped("198.18.10.1"), TCP, 80), None);
    }

    #[test]
    fn a_packet_without_ports_belongs_to_a_service_when_only_one_has_its_vip() {
        let services = services();
        let find = |address, protocol| services.find_fragment(&mapped(address), protocol);
        assert_eq!(find("2001:db8:10::7", UDP), OfVip::One(5));
        assert_eq!(find("2001:db8:10::7", TCP), OfVip::None);
        assert_eq!(find("198.18.10.1", TCP), OfVip::Several, "of one address");
        assert_eq!(find("198.18.10.2", TCP), OfVip::Several, "of prefixes that lie within each other");
        let one =
            Services::new([endpoint("198.18.10.1", TCP, 80..=80), endpoint("198.18.10.1", UDP, 80..=80)]);
        assert_eq!(one.find_fragment(&mapped("198.18.10.1"), UDP), OfVip::One(1));
    }

    /// Addresses, prefixes and ports of a small world, so that they meet often.
    fn small_address() -> impl Strategy<Value = IpAddr> {
        prop_oneof![
            (0..4u8, 0..4u8).prop_map(|(high, low)| IpAddr::from([198, 18, high, low])),
            (0..4u16, 0..4u16).prop_map(|(high, low)| IpAddr::from([0x2001, 0xdb8, 0, high, 0, 0, 0, low])),
        ]
    }

    fn small_endpoint() -> impl Strategy<Value = Endpoint> {
        let length =
            prop_oneof![Just(128), Just(127), Just(64), Just(32), Just(31), Just(24), Just(22), Just(16)];
        let ports = prop_oneof![
            (1..12u16, 0..4u16).prop_map(|(start, more)| start..=start + more),
            (1..12u16).prop_map(|port| port..=port),
            Just(1..=u16::MAX),
        ];
        (small_address(), length, prop_oneof![Just(TCP), Just(UDP)], ports)
            .prop_map(|(address, length, protocol, ports)| (Prefix::new(address, length), protocol, ports))
    }

    /// What the config lets through: no port twice for a prefix.
    fn without_conflicts(all: Vec<Endpoint>) -> Vec<Endpoint> {
        let mut kept: Vec<Endpoint> = Vec::new();
        for (prefix, protocol, ports) in all {
            let meets = |other: &Endpoint| {
                (other.0, other.1) == (prefix, protocol)
                    && other.2.start() <= ports.end()
                    && ports.start() <= other.2.end()
            };
            if !kept.iter().any(meets) {
                kept.push((prefix, protocol, ports));
            }
        }
        kept
    }

    proptest! {
        #[test]
        fn finds_what_a_look_at_every_service_finds(
            all in proptest::collection::vec(small_endpoint(), 0..24),
            packets in proptest::collection::vec((small_address(), prop_oneof![Just(TCP), Just(UDP)], 0..18u16), 32),
        ) {
            let all = without_conflicts(all);
            let services = Services::new(all.iter().cloned());
            for (address, protocol, port) in packets {
                let of_vip = |(_, (prefix, of, _)): &(usize, &Endpoint)| *of == protocol && prefix.contains(address);
                let takes = all.iter().enumerate().filter(of_vip).filter(|(_, endpoint)| endpoint.2.contains(&port));
                let naive = takes.max_by_key(|(_, (prefix, ..))| prefix.length()).map(|(index, _)| index);
                let destination = Prefix::new(address, 128).mapped().0;
                prop_assert_eq!(services.find(&destination, protocol, port), naive);

                let of_vip: Vec<usize> = all.iter().enumerate().filter(of_vip).map(|(index, _)| index).collect();
                let expected = match of_vip[..] {
                    [] => OfVip::None,
                    [one] => OfVip::One(one),
                    _ => OfVip::Several,
                };
                prop_assert_eq!(services.find_fragment(&destination, protocol), expected);
            }
        }
    }
}
