//! The session numbers that a worker has free.

use std::collections::VecDeque;
use std::ops::Range;

/// Free numbers, in the order in which they are given out: at the start a random one, which a sender cannot guess
/// (RFC 6056, section 3.1), afterwards first in, first out, so that a port rests as long as possible before another flow
/// gets it.
#[derive(Debug)]
pub(super) struct FreeNumbers(VecDeque<u32>);

impl FreeNumbers {
    /// All of `numbers`, in an order that follows from `seed`.
    pub(super) fn new(numbers: Range<u32>, seed: u64) -> Self {
        let mut order: Vec<u32> = numbers.collect();
        let mut random = SplitMix(seed);
        for last in (1..order.len()).rev() {
            order.swap(last, random.below(last + 1));
        }
        Self(order.into())
    }

    #[inline]
    pub(super) fn take(&mut self) -> Option<u32> {
        self.0.pop_front()
    }

    /// The number that will be taken after `ahead` others, as far as is known now.
    #[inline]
    pub(super) fn peek(&self, ahead: usize) -> Option<u32> {
        self.0.get(ahead).copied()
    }

    /// Gives a number back that was taken, so there is room.
    #[inline]
    pub(super) fn put(&mut self, number: u32) {
        self.0.push_back(number);
    }
}

/// The generator of `java.util.SplittableRandom` (Steele, Lea and Flood, 2014).
struct SplitMix(u64);

impl SplitMix {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, limit: usize) -> usize {
        ((u128::from(self.next()) * limit as u128) >> 64) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_is_given_out_once_in_an_order_of_the_seed() {
        let order = |seed| {
            let mut free = FreeNumbers::new(100..1_100, seed);
            std::iter::from_fn(|| free.take()).collect::<Vec<_>>()
        };
        let (one, other) = (order(1), order(2));
        assert_ne!(one, other);
        for mut order in [one, other] {
            let in_place = order.iter().zip(100..).filter(|(number, place)| **number == *place).count();
            assert!(in_place < 20, "{in_place} of 1000 stayed in place");
            order.sort_unstable();
            assert!(order.into_iter().eq(100..1_100));
        }
    }

    #[test]
    fn what_is_peeked_at_is_taken_after_as_many_others() {
        let mut free = FreeNumbers::new(0..4, 1);
        let peeked = free.peek(2);
        assert_eq!((free.take().is_some(), free.take().is_some(), free.take()), (true, true, peeked));
        assert_eq!(free.peek(1), None);
    }

    #[test]
    fn what_is_given_back_comes_last() {
        let mut free = FreeNumbers::new(0..3, 1);
        let first = free.take().unwrap();
        free.put(first);
        assert_ne!(free.take(), Some(first));
        assert_ne!(free.take(), Some(first));
        assert_eq!((free.take(), free.take()), (Some(first), None));
    }
}
