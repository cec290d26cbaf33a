//! Numbers of a field, such as addresses, cut into ranges: from a number to what holds for its range.

use std::hint::select_unpredictable;

/// Leading bits that the first table is indexed by, at most: larger tables would not stay in the cache.
const MOST_INDEX_BITS: u32 = 16;

/// An address of one family as number.
pub(super) trait Bits: Copy + Ord {
    const ZERO: Self;
    const BITS: u32;
    /// The number without its last bits.
    fn index(self, shift: u32) -> usize;
    /// The number behind this one.
    fn next(self) -> Option<Self>;
    /// Whether any of the last bits is set.
    fn has_last(self, bits: u32) -> bool;
}

macro_rules! bits {
    ($($number:ty),*) => {$(
        impl Bits for $number {
            const ZERO: Self = 0;
            const BITS: u32 = <$number>::BITS;
            #[inline(always)]
            fn index(self, shift: u32) -> usize {
                (self >> shift) as usize
            }
            fn next(self) -> Option<Self> {
                self.checked_add(1)
            }
            fn has_last(self, bits: u32) -> bool {
                self.trailing_zeros() < bits
            }
        }
    )*};
}
bits!(u32, u128);

/// A table by the leading bits, and behind it a binary search that takes the same number of steps for every number,
/// without branches that depend on it: nobody can predict where the numbers of a flood lie.
#[derive(Debug)]
pub(super) struct Ranges<T, V> {
    /// First number of each range, in order, from 0 on.
    starts: Vec<T>,
    /// By range.
    values: Vec<V>,
    /// By leading bits: the range of the first number with these bits.
    index: Vec<u32>,
    /// Bits that are not leading.
    shift: u32,
    /// A power of two, or 0 if no search is needed.
    first_step: usize,
}

impl<T: Bits, V: Copy> Ranges<T, V> {
    /// `starts` begins with 0 and grows; for each a value.
    pub fn new(starts: Vec<T>, values: Vec<V>) -> Self {
        // The fewest bits with which the search is not longer than with the most by more than a step: a small table stays
        // in the nearest cache, which is worth a step.
        let fewest = first_step(&starts, T::BITS - MOST_INDEX_BITS) * 2;
        let index_bits = (1..MOST_INDEX_BITS)
            .find(|bits| first_step(&starts, T::BITS - bits) <= fewest)
            .unwrap_or(MOST_INDEX_BITS);
        let shift = T::BITS - index_bits;
        let mut index = Vec::with_capacity(1 << index_bits);
        let mut at = 0;
        for bits in 0..1 << index_bits {
            let is_before = |start: &T| {
                start.index(shift) < bits || (start.index(shift) == bits && !start.has_last(shift))
            };
            while starts.get(at + 1).is_some_and(is_before) {
                at += 1;
            }
            index.push(at as u32);
        }
        Self { first_step: first_step(&starts, shift), starts, values, index, shift }
    }

    #[inline(always)]
    pub fn find(&self, number: T) -> V {
        let starts = &self.starts[..];
        let mut at = self.index[number.index(self.shift)] as usize;
        let mut step = self.first_step;
        while step > 0 {
            if let Some(start) = starts.get(at + step) {
                at = select_unpredictable(*start <= number, at + step, at);
            }
            step /= 2;
        }
        self.values[at]
    }

    /// Steps of a search.
    pub fn steps(&self) -> u32 {
        usize::BITS - self.first_step.leading_zeros()
    }

    pub fn memory_bytes(&self) -> usize {
        size_of_val(&self.starts[..]) + size_of_val(&self.values[..]) + size_of_val(&self.index[..])
    }
}

/// With which step a search has to begin if this many bits are left to it.
fn first_step<T: Bits>(starts: &[T], shift: u32) -> usize {
    let inside = starts.iter().filter(|start| start.has_last(shift));
    let (mut longest, mut run, mut last) = (0, 0, None);
    for start in inside {
        let bits = Some(start.index(shift));
        run = if bits == last { run + 1 } else { 1 };
        last = bits;
        longest = longest.max(run);
    }
    if longest == 0 { 0usize } else { 1 << usize::ilog2(longest) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_number_is_found_in_its_range(
            starts in proptest::collection::btree_set(prop_oneof![any::<u32>(), 0u32..300, 0xffff_ff00..=u32::MAX], 0..200),
            probes in proptest::collection::vec(any::<u32>(), 50),
        ) {
            let starts: Vec<u32> = std::iter::once(0).chain(starts.into_iter().filter(|start| *start > 0)).collect();
            let ranges = Ranges::new(starts.clone(), starts.clone());
            let wide: Vec<u128> = starts.iter().map(|start| u128::from(*start) << 96).collect();
            let wide = Ranges::new(wide, starts.clone());
            let edges = starts.iter().flat_map(|start| [start.wrapping_sub(1), *start, start.wrapping_add(1)]);
            for probe in probes.into_iter().chain(edges).chain([0, u32::MAX]) {
                let expected = *starts.iter().rfind(|start| **start <= probe).unwrap();
                prop_assert_eq!(ranges.find(probe), expected);
                prop_assert_eq!(wide.find(u128::from(probe) << 96 | 5), expected);
            }
        }
    }
}
