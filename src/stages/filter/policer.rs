//! Token buckets, shared by all workers.
//!
//! A bucket is one number, the *theoretical arrival time* of the generic cell rate algorithm (ITU-T I.371, annex A): the
//! moment at which it will be full again. A packet conforms when that moment, moved on by the time the packet costs, is not
//! further away than the burst lasts. So a bucket fills without anyone filling it, fits an atomic, and workers
//! share it without a lock: the rate is that of all of them together, however packets are spread over queues.
//!
//! Buckets by source or flow lie in a table of fixed size, found by a keyed hash, so that nobody can choose
//! addresses that push out another's bucket. Where there is no room the bucket that is fullest makes way, which is the one
//! whose loss lets the least pass.

use std::hash::BuildHasher;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;

use foldhash::quality::RandomState;

use super::{Facts, Per, Rate, RateLimit};
use crate::packet::{FiveTuple, Headers};

/// Buckets of a rule that has one for each source or flow: 1 MiB.
const BUCKETS: usize = 65_536;
/// Places in which a bucket can lie: two cache lines.
const WAYS: usize = 8;
/// What a packet costs is rounded down to a tick, a hundredth of a percent at 7 Mpps; and 2^64 of them are 9 years.
const TICKS_PER_NANOSECOND: u64 = 64;
/// What a unit costs is kept in ticks with so many bits behind the point.
const POINT: u32 = 26;
const NANOSECONDS_PER_SECOND: u128 = 1_000_000_000;

/// A moment, counted from when the policers were made.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ticks(u64);

/// The policers of a list.
#[derive(Debug)]
pub(super) struct Policers {
    epoch: Instant,
    /// By rule; `None` where there is no rate.
    by_rule: Vec<Option<Policer>>,
}

impl Ticks {
    /// For lists without a policer.
    pub const NONE: Self = Self(0);
}

impl Policers {
    pub fn new<'r>(rates: impl Iterator<Item = Option<&'r Rate>>) -> Self {
        Self { epoch: Instant::now(), by_rule: rates.map(|rate| rate.map(Policer::new)).collect() }
    }

    pub fn are_there(&self) -> bool {
        self.by_rule.iter().any(Option::is_some)
    }

    /// Whether the rule has a rate.
    #[inline]
    pub fn is_there(&self, rule: usize) -> bool {
        self.by_rule[rule].is_some()
    }

    pub fn ticks(&self, now: Instant) -> Ticks {
        let nanoseconds = now.saturating_duration_since(self.epoch).as_nanos() as u64;
        // The first moment is behind 0, which stands for a bucket that was never used.
        Ticks((nanoseconds + 1).saturating_mul(TICKS_PER_NANOSECOND))
    }

    /// Whether the rule acts on the packet: it has no rate, or the packet is above it.
    #[inline]
    pub fn acts(&self, rule: usize, packet: &Seen<'_>, now: Ticks) -> bool {
        match &self.by_rule[rule] {
            None => true,
            Some(policer) => policer.exceeds(packet, now),
        }
    }
}

/// What policers look at.
pub(super) struct Seen<'p> {
    pub bytes: &'p [u8],
    /// Length of the whole packet.
    pub len: u64,
    pub headers: &'p Headers,
    pub facts: &'p Facts,
}

#[derive(Debug)]
struct Policer {
    per: Per,
    counts_bytes: bool,
    /// Ticks of a packet or byte, with [`POINT`] bits behind the point.
    cost: u64,
    /// Ticks that the burst lasts.
    burst: u64,
    hasher: RandomState,
    buckets: Box<[Bucket]>,
}

/// The tag says whose it is; two workers that give it away at once mix up two sources once, and nothing else.
#[derive(Debug, Default)]
struct Bucket {
    tag: AtomicU64,
    full_at: AtomicU64,
}

impl Policer {
    fn new(rate: &Rate) -> Self {
        // What is let pass in a second, in packets or bytes; bits are no whole bytes, so eight times the time.
        let (counts_bytes, per_second, factor) = match rate.limit {
            RateLimit::PacketsPerSecond(packets) => (false, packets, 1),
            RateLimit::BitsPerSecond(bits) => (true, bits, 8),
        };
        let second = (NANOSECONDS_PER_SECOND * u128::from(TICKS_PER_NANOSECOND)) << POINT;
        let cost = second * factor / u128::from(per_second.max(1));
        let cost = u64::try_from(cost).unwrap_or(u64::MAX);
        let burst = (u128::from(rate.burst.max(1)) * u128::from(cost)) >> POINT;
        let buckets = if rate.per == Per::Whole { 1 } else { BUCKETS };
        Self {
            per: rate.per,
            counts_bytes,
            cost,
            burst: u64::try_from(burst).unwrap_or(u64::MAX).min(u64::MAX / 4),
            hasher: RandomState::default(),
            buckets: (0..buckets).map(|_| Bucket::default()).collect(),
        }
    }

    #[inline]
    fn exceeds(&self, packet: &Seen<'_>, now: Ticks) -> bool {
        let amount = if self.counts_bytes { packet.len } else { 1 };
        let cost = ((u128::from(amount) * u128::from(self.cost)) >> POINT) as u64;
        let bucket = match self.per {
            Per::Whole => &self.buckets[0],
            Per::Src { ipv4, ipv6 } => {
                let bits = if packet.facts.ip_version == 4 { 96 + ipv4 } else { ipv6 };
                let kept = u128::MAX.checked_shl(128 - u32::from(bits)).unwrap_or(0);
                let source = u128::from_be_bytes(packet.facts.src) & kept;
                self.bucket(self.hasher.hash_one((packet.facts.ip_version, source)))
            }
            Per::Flow => self.bucket(self.hasher.hash_one(FiveTuple::of(packet.bytes, packet.headers))),
        };
        bucket.take(cost, self.burst, now)
    }

    fn bucket(&self, hash: u64) -> &Bucket {
        let tag = hash | 1;
        let set = (hash >> 32) as usize % (self.buckets.len() / WAYS) * WAYS;
        let ways = &self.buckets[set..set + WAYS];
        if let Some(known) = ways.iter().find(|bucket| bucket.tag.load(Relaxed) == tag) {
            return known;
        }
        let fullest = ways.iter().min_by_key(|bucket| bucket.full_at.load(Relaxed)).unwrap_or(&ways[0]);
        fullest.full_at.store(0, Relaxed);
        fullest.tag.store(tag, Relaxed);
        fullest
    }
}

impl Bucket {
    /// Takes what a packet costs, or answers `true` when there is not that much.
    fn take(&self, cost: u64, burst: u64, now: Ticks) -> bool {
        let taken = self.full_at.fetch_update(Relaxed, Relaxed, |full_at| {
            let full_at = full_at.max(now.0).saturating_add(cost);
            (full_at - now.0 <= burst).then_some(full_at)
        });
        taken.is_err()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::packet::parse;

    /// How many of `packets`, evenly spread over `seconds`, are let pass.
    fn passed(policers: &Policers, packets: &[Vec<u8>], count: u64, seconds: f64) -> u64 {
        let mut passed = 0;
        for index in 0..count {
            let bytes = &packets[index as usize % packets.len()];
            let headers = parse(bytes, bytes.len());
            let facts = Facts::of(bytes, &headers);
            let at = policers.epoch + Duration::from_secs_f64(seconds * index as f64 / count as f64);
            let seen = Seen { bytes, len: bytes.len() as u64, headers: &headers, facts: &facts };
            passed += u64::from(!policers.acts(0, &seen, policers.ticks(at)));
        }
        passed
    }

    fn policers(limit: RateLimit, burst: u64, per: Per) -> Policers {
        Policers::new([Some(&Rate { limit, burst, per })].into_iter())
    }

    /// A UDP packet of `len` bytes from this source.
    fn packet(source: [u8; 4], len: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        etherparse::PacketBuilder::ethernet2([2; 6], [2; 6])
            .ipv4(source, [198, 18, 10, 1], 64)
            .udp(1000, 53)
            .write(&mut bytes, &vec![0; len - 42])
            .unwrap();
        bytes
    }

    #[test]
    fn rate_and_burst_in_packets() {
        for (rate, time) in [(1u64, 1000.0), (3, 1000.0), (1000, 10.0), (7_000_000, 0.01)] {
            let policers = policers(RateLimit::PacketsPerSecond(rate), 10, Per::Whole);
            let in_rate = (rate as f64 * time) as u64;
            let passed = passed(&policers, &[packet([10, 0, 0, 1], 60)], in_rate * 10, time);
            let expected = in_rate + 10;
            assert!(passed.abs_diff(expected) <= 1 + expected / 10_000, "{rate}: {passed}, not {expected}");
        }
    }

    #[test]
    fn nothing_is_held_back_below_the_rate() {
        let policers = policers(RateLimit::PacketsPerSecond(1000), 1, Per::Whole);
        assert_eq!(passed(&policers, &[packet([10, 0, 0, 1], 60)], 9_000, 10.0), 9_000);
    }

    #[test]
    fn rate_and_burst_in_bits() {
        // 1,000 bytes each; 80 Mbit/s are 10,000 of them a second.
        let policers = policers(RateLimit::BitsPerSecond(80_000_000), 50_000, Per::Whole);
        let passed = passed(&policers, &[packet([10, 0, 0, 1], 1000)], 100_000, 1.0);
        assert!(passed.abs_diff(10_050) <= 1, "{passed}");
    }

    #[test]
    fn each_source_has_its_own_bucket() {
        let sources: Vec<_> = (0..100).map(|n| packet([10, 0, n, n], 60)).collect();
        let of = |per| {
            let policers = policers(RateLimit::PacketsPerSecond(10), 5, per);
            passed(&policers, &sources, 100_000, 1.0)
        };
        assert!(of(Per::Whole).abs_diff(15) <= 1);
        assert!(of(Per::Src { ipv4: 32, ipv6: 64 }).abs_diff(1500) <= 100);
        assert!(of(Per::Flow).abs_diff(1500) <= 100);
        assert!(of(Per::Src { ipv4: 16, ipv6: 64 }).abs_diff(15) <= 1);
    }

    #[test]
    fn a_flood_of_sources_does_not_free_one_that_is_held_back() {
        let heavy = packet([10, 0, 0, 1], 60);
        let policers = policers(RateLimit::PacketsPerSecond(10), 10, Per::Src { ipv4: 32, ipv6: 64 });
        let other = |n: u32| packet((0xc612_0000 + n).to_be_bytes(), 60);
        // 100,000 packets of the one source in 2 seconds, each between two that were never seen.
        let (mut passed, mut others) = (0, 0);
        for index in 0..200_000u32 {
            let bytes = if index % 2 == 0 { heavy.clone() } else { other(index) };
            let now = policers.ticks(policers.epoch + Duration::from_micros(10 * u64::from(index)));
            let headers = parse(&bytes, bytes.len());
            let facts = Facts::of(&bytes, &headers);
            let seen = Seen { bytes: &bytes, len: 60, headers: &headers, facts: &facts };
            let count = if index % 2 == 0 { &mut passed } else { &mut others };
            *count += u64::from(!policers.acts(0, &seen, now));
        }
        assert!(passed <= 40, "{passed} of the source that sends too much");
        assert!(others > 99_500, "{others} of the others");
    }

    #[test]
    fn all_workers_together_let_pass_what_the_rate_says() {
        let policers = policers(RateLimit::PacketsPerSecond(1000), 1000, Per::Whole);
        let bytes = packet([10, 0, 0, 1], 60);
        let passed: u64 = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4)
                .map(|_| scope.spawn(|| self::passed(&policers, std::slice::from_ref(&bytes), 20_000, 0.0)))
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!(passed, 1000);
    }
}
