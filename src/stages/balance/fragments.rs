//! The fragment table: where the later fragments of a datagram go.
//!
//! Only the first fragment has ports. What was found out by them is kept here under what all fragments of a datagram have in common
//! ([`FragmentKey`]). A later fragment that comes before the first, or after [`LIFETIME`], finds nothing.
//!
//! The table is small, of fixed size, and gives way to what is new: fragments of a datagram follow each other within milliseconds, so an
//! entry that is pushed out by a flood has most likely done its service.

use std::sync::Arc;
use std::time::Duration;

use super::connections::{Tick, ticks};
use crate::packet::protocol::{AUTHENTICATION, DESTINATION_OPTIONS, FRAGMENT, HOP_BY_HOP, ROUTING};
use crate::packet::{FiveTuple, Fragment, Headers};
use crate::pipeline::Counter;

/// How long a datagram is known after its first fragment.
///
/// RFC 8200 (section 4.5) and RFC 1122 (section 3.3.2) let receivers wait for the rest for 60 seconds and more, Linux waits 30 for
/// IPv4. Longer than needed is worse than shorter: an IPv4 sender may come round with its 16 bits of identification
/// within seconds (RFC 4963), and then an old entry speaks for a new datagram whose first fragment is late.
pub const LIFETIME: Duration = Duration::from_secs(30);

/// Entries that are enough for any traffic in which fragments are not the rule.
pub const DEFAULT_CAPACITY: usize = 4_096;

/// Entries of a set: two cache lines.
const WAYS: usize = 8;

/// What the fragments of a datagram have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FragmentKey {
    /// Source address; IPv4 as IPv4-mapped IPv6 address.
    pub src: [u8; 16],
    /// Destination address; IPv4 as IPv4-mapped IPv6 address.
    pub dst: [u8; 16],
    /// IPv4: protocol number. IPv6: 44, that of the fragment header, since what that header says about the protocol may differ between
    /// fragments and is no part of a datagram's identity (RFC 8200, section 4.5).
    pub protocol: u8,
    /// Identification: 16 bits in IPv4, 32 in IPv6.
    pub identification: u32,
}

impl FragmentKey {
    /// The key of a fragment: `bytes` holds at least what was parsed, `headers` is what the parser found in it.
    ///
    /// `None` unless the packet is a well-formed fragment.
    #[inline]
    pub fn of(bytes: &[u8], headers: &Headers) -> Option<Self> {
        let identification = identification(bytes, headers)?;
        let tuple = FiveTuple::of(bytes, headers)?;
        let protocol = if headers.ip_version == 4 { tuple.protocol } else { FRAGMENT };
        Some(Self { src: tuple.src, dst: tuple.dst, protocol, identification })
    }

    /// A hash of the key for [`FragmentTable`], with a secret seed.
    #[inline]
    pub fn keyed_hash(&self, seed: u64) -> u64 {
        // The identification stands where a flow has its ports.
        let [a, b, c, d] = self.identification.to_be_bytes();
        let (src_port, dst_port) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
        let tuple = FiveTuple { src: self.src, dst: self.dst, src_port, dst_port, protocol: self.protocol };
        tuple.keyed_hash(seed)
    }
}

/// The identification of a fragment: from the IPv4 header, or from the first IPv6 fragment header that is not atomic (RFC 6946).
///
/// `None` if `headers` says that the packet is no fragment, or if `bytes` end before the field.
pub fn identification(bytes: &[u8], headers: &Headers) -> Option<u32> {
    if headers.fragment() == Fragment::No {
        return None;
    }
    let packet = bytes.get(usize::from(headers.network_offset)..)?;
    if headers.ip_version == 4 {
        let &[high, low] = packet.get(4..)?.first_chunk()?;
        return Some(u32::from(u16::from_be_bytes([high, low])));
    }
    let mut next = *packet.get(6)?;
    let mut rest = packet.get(40..)?;
    // The parser has followed the chain already. Here each turn uses up 8 bytes or more, so it ends on any bytes.
    loop {
        let &[following, length, offset_high, offset_low, a, b, c, d] = rest.first_chunk()?;
        let header_bytes = match next {
            FRAGMENT => {
                // Offset and M; the two bits between them are reserved.
                if u16::from_be_bytes([offset_high, offset_low]) & 0xfff9 != 0 {
                    return Some(u32::from_be_bytes([a, b, c, d]));
                }
                8
            }
            AUTHENTICATION => (usize::from(length) + 2) * 4,
            HOP_BY_HOP | ROUTING | DESTINATION_OPTIONS => (usize::from(length) + 1) * 8,
            _ => return None,
        };
        next = following;
        rest = rest.get(header_bytes..)?;
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Entry {
    key: u64,
    value: u32,
    /// The tick of the first fragment, with [`USED`]; 0 if the entry is free.
    seen: u32,
}

const USED: u32 = 1 << 31;

/// What a fragment table has done so far. Written by the worker that owns the table, readable by any thread.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct FragmentCounters {
    /// Datagrams stored.
    pub inserted: Counter,
    /// Of these, those that pushed out another before its time.
    pub evicted: Counter,
    /// Lookups that found a datagram.
    pub found: Counter,
    /// Lookups that found none.
    pub missed: Counter,
}

/// Datagrams and their values: one table a worker, allocated once.
///
/// A datagram is known by the 64 bits of its hash ([`FragmentKey::keyed_hash`]).
#[derive(Debug)]
pub struct FragmentTable {
    sets: Box<[[Entry; WAYS]]>,
    /// In ticks.
    lifetime: u32,
    counters: Arc<FragmentCounters>,
}

impl FragmentTable {
    /// A table for `capacity` datagrams, rounded up to a multiple of eight: 16 bytes each.
    pub fn new(capacity: usize) -> Self {
        let sets = vec![[Entry::default(); WAYS]; capacity.div_ceil(WAYS).max(1)];
        Self { sets: sets.into(), lifetime: ticks(LIFETIME), counters: Default::default() }
    }

    /// Stores what the first fragment of a datagram led to. If its set is full the oldest entry goes.
    #[inline]
    pub fn insert(&mut self, key: u64, value: u32, now: Tick) {
        let (lifetime, set) = (self.lifetime, self.set(key));
        let entries = &mut self.sets[set];
        // The one of this key, else the one with the least left to live: of free and expired ones that is nothing.
        let left = |entry: &Entry| match entry {
            entry if entry.key == key && entry.seen != 0 => None,
            entry => Some(entry.left(now, lifetime)),
        };
        let Some(entry) = entries.iter_mut().min_by_key(|entry| left(entry)) else { return };
        let evicts = left(entry).is_some_and(|left| left > 0);
        *entry = Entry { key, value, seen: now.number() | USED };
        self.counters.inserted.add(1);
        self.counters.evicted.add(u64::from(evicts));
    }

    /// The value of the datagram that a later fragment belongs to.
    #[inline]
    pub fn find(&self, key: u64, now: Tick) -> Option<u32> {
        let mut entries = self.sets[self.set(key)].iter();
        let entry = entries.find(|entry| entry.key == key && entry.left(now, self.lifetime) > 0);
        match entry {
            Some(_) => self.counters.found.add(1),
            None => self.counters.missed.add(1),
        }
        entry.map(|entry| entry.value)
    }

    /// Forgets all datagrams.
    pub fn clear(&mut self) {
        self.sets.fill([Entry::default(); WAYS]);
    }

    /// Datagrams there is room for.
    pub fn capacity(&self) -> usize {
        self.sets.len() * WAYS
    }

    /// The counters, to be read from any thread.
    pub fn counters(&self) -> &Arc<FragmentCounters> {
        &self.counters
    }

    #[inline(always)]
    fn set(&self, key: u64) -> usize {
        ((u128::from(key) * self.sets.len() as u128) >> 64) as usize
    }
}

impl Entry {
    /// Ticks this entry has left to live.
    #[inline(always)]
    fn left(&self, now: Tick, lifetime: u32) -> u32 {
        if self.seen == 0 {
            return 0;
        }
        lifetime.saturating_sub(now.since(Tick::from_number(self.seen)))
    }
}

#[cfg(test)]
mod tests {
    use etherparse::{
        IpFragOffset, IpHeaders, IpNumber, Ipv4Header, Ipv6Extensions, Ipv6Header, PacketBuilder,
    };

    use super::*;
    use crate::packet::{Outcome, packets, parse};

    const SEED: u64 = 7;

    fn ipv4(identification: u16, offset: u16, more: bool, options: bool) -> Vec<u8> {
        let mut header = Ipv4Header::new(64, 64, IpNumber::UDP, [198, 18, 0, 1], [198, 18, 10, 1]).unwrap();
        header.identification = identification;
        header.dont_fragment = false;
        header.fragment_offset = IpFragOffset::try_new(offset).unwrap();
        header.more_fragments = more;
        if options {
            header.options = [1, 1, 1, 0].into();
        }
        framed(IpHeaders::Ipv4(header, Default::default()))
    }

    /// With `options`, destination options before and behind the fragment header.
    fn ipv6(identification: u32, offset: u16, more: bool, options: bool) -> Vec<u8> {
        let (src, dst) = ([0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1], [0xfd; 16]);
        let header = Ipv6Header {
            traffic_class: 0,
            flow_label: Default::default(),
            payload_length: 0,
            next_header: IpNumber::UDP,
            hop_limit: 64,
            source: src,
            destination: dst,
        };
        let mut extensions = Ipv6Extensions::default();
        let offset = IpFragOffset::try_new(offset).unwrap();
        extensions.fragment =
            Some(etherparse::Ipv6FragmentHeader::new(IpNumber::UDP, offset, more, identification));
        if options {
            let header = etherparse::Ipv6RawExtHeader::new_raw(IpNumber::UDP, &[0; 14]).unwrap();
            extensions.destination_options = Some(header.clone());
            extensions.hop_by_hop_options = Some(header);
        }
        framed(IpHeaders::Ipv6(header, extensions))
    }

    fn framed(ip: IpHeaders) -> Vec<u8> {
        let mut bytes = Vec::new();
        let builder = PacketBuilder::ethernet2([2; 6], [4; 6]).single_vlan(9.try_into().unwrap());
        builder.ip(ip).udp(1_024, 53).write(&mut bytes, &[0; 64]).unwrap();
        bytes
    }

    fn key(bytes: &[u8]) -> Option<FragmentKey> {
        FragmentKey::of(bytes, &parse(bytes, bytes.len()))
    }

    #[test]
    fn all_fragments_of_a_datagram_have_one_key_and_others_another() {
        for options in [false, true] {
            let (first, later, last) = (
                ipv4(0xbeef, 0, true, options),
                ipv4(0xbeef, 9, true, options),
                ipv4(0xbeef, 18, false, options),
            );
            let known = key(&first).unwrap();
            assert_eq!((known.identification, known.protocol), (0xbeef, 17));
            assert_eq!((key(&later), key(&last)), (Some(known), Some(known)));
            assert_ne!(key(&ipv4(0xbeee, 0, true, options)), Some(known));
            assert_eq!(key(&ipv4(0xbeef, 0, false, options)), None, "no fragment");

            let (first, later, last) = (
                ipv6(0xdead_beef, 0, true, options),
                ipv6(0xdead_beef, 9, true, options),
                ipv6(0xdead_beef, 18, false, options),
            );
            let known = key(&first).unwrap();
            assert_eq!((known.identification, known.protocol), (0xdead_beef, 44));
            assert_eq!((key(&later), key(&last)), (Some(known), Some(known)));
            assert_ne!(key(&ipv6(0xdeac_beef, 0, true, options)), Some(known));
            assert_eq!(key(&ipv6(0xdead_beef, 0, false, options)), None, "atomic");
        }
    }

    #[test]
    fn every_part_of_the_key_counts_in_its_hash() {
        let key = key(&ipv6(0x0001_0002, 0, true, false)).unwrap();
        let hash = |change: fn(&mut FragmentKey)| {
            let mut other = key;
            change(&mut other);
            other.keyed_hash(SEED)
        };
        let hashes = [
            hash(|_| ()),
            hash(|key| key.src[15] ^= 1),
            hash(|key| key.dst[15] ^= 1),
            hash(|key| key.protocol = 17),
            hash(|key| key.identification = 0x0002_0001),
            hash(|key| key.identification += 1),
            key.keyed_hash(SEED + 1),
        ];
        let distinct: std::collections::HashSet<_> = hashes.into_iter().collect();
        assert_eq!(distinct.len(), hashes.len());
    }

    #[test]
    fn every_packet_that_the_parser_calls_a_fragment_has_an_identification_and_no_other() {
        let mut fragments = 0;
        for seed in 0..20_000 {
            for bytes in [packets::packet(seed), packets::well_formed(seed)] {
                let headers = parse(&bytes, bytes.len());
                let is_fragment = headers.outcome() == Outcome::Ip && headers.fragment() != Fragment::No;
                assert_eq!(key(&bytes).is_some(), is_fragment, "seed {seed}");
                fragments += u32::from(is_fragment);
            }
        }
        assert!(fragments > 2_000, "{fragments}");
    }

    #[test]
    fn headers_that_belong_to_other_bytes_do_no_harm() {
        let packet = ipv6(1, 9, true, true);
        let headers = parse(&packet, packet.len());
        for length in 0..packet.len() {
            identification(&packet[..length], &headers);
            identification(&vec![0; length], &headers);
        }
    }

    #[test]
    fn a_datagram_is_known_for_its_lifetime_after_the_first_fragment() {
        let mut table = FragmentTable::new(64);
        // Close to the wrap-around of ticks.
        let first = Tick::from_number((1 << 29) - 10);
        assert_eq!(table.find(0, first), None);
        table.insert(0, 7, first);
        for seconds in [0, 10, 29] {
            assert_eq!(table.find(0, first.after(seconds * 64)), Some(7));
        }
        assert_eq!(table.find(0, first.after(30 * 64)), None, "finding it has not made it younger");
        assert_eq!((table.counters().found.get(), table.counters().missed.get()), (3, 2));
    }

    #[test]
    fn a_second_first_fragment_replaces_the_value() {
        let mut table = FragmentTable::new(8);
        let now = Tick::from_number(0);
        table.insert(1, 7, now);
        table.insert(2, 8, now);
        table.insert(1, 9, now.after(64));
        assert_eq!((table.find(1, now), table.find(2, now)), (Some(9), Some(8)));
        assert_eq!(table.find(1, now.after(30 * 64)), Some(9), "with a lifetime of its own");
        assert_eq!(table.counters().evicted.get(), 0);
    }

    #[test]
    fn a_flood_pushes_out_the_oldest_and_what_has_expired_goes_first() {
        let mut table = FragmentTable::new(8);
        let at = |second: u32| Tick::from_number(second * 64);
        for key in 0..8 {
            table.insert(key, key as u32, at(key as u32));
        }
        table.insert(8, 8, at(8));
        assert_eq!(
            (table.find(0, at(8)), table.find(1, at(8)), table.find(8, at(8))),
            (None, Some(1), Some(8))
        );
        assert_eq!(table.counters().evicted.get(), 1);
        table.insert(9, 9, at(31));
        assert_eq!((table.find(2, at(31)), table.find(9, at(31))), (Some(2), Some(9)));
        assert_eq!(table.counters().evicted.get(), 1, "the time of 1 was over");
    }

    #[test]
    fn nothing_is_left_of_a_table_that_was_cleared() {
        let (mut table, now) = (FragmentTable::new(8), Tick::from_number(0));
        table.insert(1, 7, now);
        table.clear();
        assert_eq!(table.find(1, now), None);
    }

    #[test]
    fn half_full_a_table_keeps_almost_every_datagram() {
        let mut table = FragmentTable::new(DEFAULT_CAPACITY);
        let now = Tick::from_number(0);
        let key = |id: u32| {
            FragmentKey { src: [1; 16], dst: [2; 16], protocol: 17, identification: id }.keyed_hash(SEED)
        };
        for id in 0..DEFAULT_CAPACITY as u32 / 2 {
            table.insert(key(id), id, now);
        }
        let kept =
            (0..DEFAULT_CAPACITY as u32 / 2).filter(|&id| table.find(key(id), now) == Some(id)).count();
        assert!(kept * 100 > DEFAULT_CAPACITY / 2 * 97, "{kept}");
        assert_eq!(table.capacity(), DEFAULT_CAPACITY);
    }
}
