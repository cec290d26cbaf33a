//! IPv4 addresses and prefixes of more than 24 bits: blocks of 32 addresses in a cuckoo hash table (Pagh and Rodler 2004) with
//! two buckets of four places for a block (Dietzfelbinger and Weidling 2007).
//!
//! A block is one word, which the program reads whole. An entry that has to make room for another is written to its new place before its
//! old one is used again, so the program finds it, unless it looked at the new place just before and looks at the old one just after. That is
//! one packet at most a core, and only in a table more than half full, which takes more than the most addresses there can be.

use std::collections::BTreeSet;
use std::ops::Deref;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use xfwd_ebpf_types::deny::{BLOCK_BITS, BUCKET_BLOCKS, MAX_NETWORK_LENGTH, buckets_of};

use super::{end_of, mask};

/// Buckets that are looked at for a free place: at the most blocks there can be, fewer than a hundred are needed.
const MAX_LOOKED_AT: usize = 4_096;

/// The table, and the prefixes that its bits are of.
pub(super) struct Blocks<W> {
    words: W,
    multiplier: u64,
    /// Address and length, from 25 bits on.
    prefixes: BTreeSet<(u32, u8)>,
}

/// No place is left for a block.
#[derive(Debug)]
pub(super) struct NoPlace;

/// A bucket on the way to a free place: where the block comes from that would move there.
struct Step {
    bucket: u32,
    /// Index of the step before, and the place in its bucket; `None` at the start.
    from: Option<(usize, usize)>,
}

impl<W: Deref<Target = [AtomicU64]>> Blocks<W> {
    /// With words that are all 0. The program has the same multiplier.
    pub fn new(words: W, multiplier: u64) -> Self {
        Self { words, multiplier, prefixes: BTreeSet::new() }
    }

    pub fn is_empty(&self) -> bool {
        self.prefixes.is_empty()
    }

    /// # Errors
    ///
    /// [`NoPlace`]; nothing has changed then.
    pub fn insert(&mut self, address: u32, length: u8) -> Result<(), NoPlace> {
        if !self.prefixes.insert((address, length)) {
            return Ok(());
        }
        let result = blocks(address, length).try_for_each(|block| self.write(block));
        if result.is_err() {
            self.remove(address, length);
        }
        result
    }

    pub fn remove(&mut self, address: u32, length: u8) {
        if self.prefixes.remove(&(address, length)) {
            for block in blocks(address, length) {
                // Fewer bits than before need no place.
                let _ = self.write(block);
            }
        }
    }

    /// Addresses of a block that are denied.
    fn bits(&self, block: u32) -> u32 {
        let first = block << BLOCK_BITS;
        let around = MAX_NETWORK_LENGTH + 1..32 - BLOCK_BITS as u8;
        if around.into_iter().any(|length| self.prefixes.contains(&(first & mask(length), length))) {
            return u32::MAX;
        }
        let last = first | ((1 << BLOCK_BITS) - 1);
        self.prefixes.range((first, 0)..=(last, u8::MAX)).fold(0, |bits, &(address, length)| {
            let (low, high) = (address - first, end_of(address, length) - first);
            bits | u32::MAX << low & u32::MAX >> (31 - high)
        })
    }

    fn write(&self, block: u32) -> Result<(), NoPlace> {
        let bits = self.bits(block);
        let word = if bits == 0 { 0 } else { u64::from(block) << 32 | u64::from(bits) };
        match self.find(block) {
            Some(place) => place.store(word, Relaxed),
            None if bits == 0 => {}
            None => self.free_place(block)?.store(word, Relaxed),
        }
        Ok(())
    }

    fn buckets(&self, block: u32) -> [u32; 2] {
        buckets_of(block, self.multiplier).into()
    }

    fn bucket(&self, number: u32) -> &[AtomicU64] {
        &self.words[number as usize * BUCKET_BLOCKS..][..BUCKET_BLOCKS]
    }

    fn find(&self, block: u32) -> Option<&AtomicU64> {
        let is_it = |place: &&AtomicU64| {
            let word = place.load(Relaxed);
            word != 0 && word >> 32 == u64::from(block)
        };
        self.buckets(block).into_iter().find_map(|bucket| self.bucket(bucket).iter().find(is_it))
    }

    /// A free place for a block, in the emptier of its buckets; or, when both are full, one that others have been moved for.
    fn free_place(&self, block: u32) -> Result<&AtomicU64, NoPlace> {
        let buckets = self.buckets(block);
        let is_free = |place: &AtomicU64| place.load(Relaxed) == 0;
        let free = |bucket: u32| self.bucket(bucket).iter().filter(|place| is_free(place)).count();
        let emptier = if free(buckets[1]) > free(buckets[0]) { buckets[1] } else { buckets[0] };
        if let Some(place) = self.bucket(emptier).iter().find(|place| is_free(place)) {
            return Ok(place);
        }
        // Breadth first: the shortest way moves the fewest.
        let mut steps: Vec<Step> = buckets.into_iter().map(|bucket| Step { bucket, from: None }).collect();
        let mut at = 0;
        while at < steps.len() && steps.len() < MAX_LOOKED_AT {
            for (place, word) in self.bucket(steps[at].bucket).iter().enumerate() {
                let [a, b] = self.buckets((word.load(Relaxed) >> 32) as u32);
                let other = if a == steps[at].bucket { b } else { a };
                if let Some(free) = self.bucket(other).iter().find(|place| is_free(place)) {
                    return Ok(self.move_along(&steps, at, place, free));
                }
                if steps.iter().all(|step| step.bucket != other) {
                    steps.push(Step { bucket: other, from: Some((at, place)) });
                }
            }
            at += 1;
        }
        Err(NoPlace)
    }

    /// Moves the block at `place` of the bucket of step `at` to `free`, then the one that leads there to its place, and so on;
    /// the place that is free in the end.
    fn move_along<'a>(
        &'a self,
        steps: &[Step],
        mut at: usize,
        mut place: usize,
        mut free: &'a AtomicU64,
    ) -> &'a AtomicU64 {
        loop {
            let moved = &self.bucket(steps[at].bucket)[place];
            free.store(moved.load(Relaxed), Relaxed);
            free = moved;
            let Some(before) = steps[at].from else { break };
            (at, place) = before;
        }
        // Not left with what is elsewhere now, if nothing comes here.
        free.store(0, Relaxed);
        free
    }
}

/// The blocks that a prefix has addresses in.
fn blocks(address: u32, length: u8) -> std::ops::RangeInclusive<u32> {
    address >> BLOCK_BITS..=end_of(address, length) >> BLOCK_BITS
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use xfwd_ebpf_types::deny::{BUCKETS, MAX_DENIED_HOSTS, MAX_DENIED_PREFIXES};

    use super::*;

    const MULTIPLIER: u64 = 0x9e37_79b9_7f4a_7c15;

    fn empty() -> Blocks<Vec<AtomicU64>> {
        let words = (0..BUCKETS as usize * BUCKET_BLOCKS).map(|_| AtomicU64::new(0)).collect();
        Blocks::new(words, MULTIPLIER)
    }

    fn holds(blocks: &Blocks<Vec<AtomicU64>>, address: u32) -> bool {
        let place = blocks.find(address >> BLOCK_BITS);
        place.is_some_and(|place| place.load(Relaxed) >> (address & 31) & 1 != 0)
    }

    #[test]
    fn the_most_entries_there_can_be_fit_and_leave_nothing() {
        // In a row, with gaps that are powers of two, and scattered.
        let spreads: [fn(u32) -> u32; 3] =
            [|index| index << 7, |index| index.rotate_left(13), |index| index.wrapping_mul(0x9e37_79b1)];
        for spread in spreads {
            let mut blocks = empty();
            let prefixes: Vec<u32> = (0..MAX_DENIED_PREFIXES).map(|index| spread(index) & mask(25)).collect();
            let hosts: Vec<u32> = (0..MAX_DENIED_HOSTS).map(|index| !spread(index)).collect();
            prefixes.iter().for_each(|address| blocks.insert(*address, 25).unwrap());
            hosts.iter().for_each(|address| blocks.insert(*address, 32).unwrap());
            assert!(prefixes.iter().all(|address| holds(&blocks, *address) && holds(&blocks, address | 127)));
            assert!(hosts.iter().all(|address| holds(&blocks, *address)));
            prefixes.iter().for_each(|address| blocks.remove(*address, 25));
            assert!(hosts.iter().all(|address| holds(&blocks, *address)));
            hosts.iter().for_each(|address| blocks.remove(*address, 32));
            assert!(blocks.is_empty() && blocks.words.iter().all(|word| word.load(Relaxed) == 0));
        }
    }

    #[test]
    fn what_finds_no_place_changes_nothing() {
        let words = (0..BUCKETS as usize * BUCKET_BLOCKS).map(|_| AtomicU64::new(0)).collect();
        // All blocks have the same two buckets.
        let mut blocks: Blocks<Vec<AtomicU64>> = Blocks::new(words, 0);
        let mut hosts = (1_u32..).map(|block| block << BLOCK_BITS);
        let fit: Vec<u32> = hosts.by_ref().take(2).collect();
        fit.iter().for_each(|address| blocks.insert(*address, 32).unwrap());
        assert!(blocks.insert(0x0a00_0000, 25).is_err(), "four blocks, two places");
        assert!(fit.iter().all(|address| holds(&blocks, *address)) && !holds(&blocks, 0x0a00_0000));
        assert_eq!(blocks.words.iter().filter(|word| word.load(Relaxed) != 0).count(), 2);
    }

    proptest! {
        #[test]
        fn an_address_is_denied_while_an_entry_around_it_is(
            steps in prop::collection::vec((0..512_u32, 25..=32_u8, prop::bool::weighted(0.6)), 1..60),
        ) {
            let (mut blocks, mut held) = (empty(), BTreeSet::new());
            for (low, length, insert) in steps {
                let address = (0x0a00_0000 | low) & mask(length);
                if insert {
                    blocks.insert(address, length).unwrap();
                    held.insert((address, length));
                } else {
                    blocks.remove(address, length);
                    held.remove(&(address, length));
                }
                for probe in 0x0a00_0000_u32..0x0a00_0200 {
                    let expected = held.iter().any(|&(address, length)| probe & mask(length) == address);
                    prop_assert_eq!(holds(&blocks, probe), expected, "{:x}", probe);
                }
            }
        }
    }
}
