//! 512 bits of a vector.

use crate::lanes::Lanes;

/// Words of a chunk: as many as a cache line has.
pub(super) const WORDS: usize = 8;
/// Rules of a chunk.
pub(super) const RULES: usize = WORDS * 64;

/// A bit for each of 512 rules.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(align(64))]
pub(super) struct Chunk(pub [u64; WORDS]);

impl Chunk {
    /// What is set in all of these.
    #[inline(always)]
    pub fn joined<const FIELDS: usize>(fields: [&Self; FIELDS]) -> Self {
        Self(std::array::from_fn(|word| Self::joined_word(fields, word)))
    }

    /// One word of [`joined`](Self::joined).
    #[inline(always)]
    pub fn joined_word<const FIELDS: usize>(fields: [&Self; FIELDS], word: usize) -> u64 {
        fields.iter().fold(u64::MAX, |joined, field| joined & field.0[word])
    }

    /// The first bit that is set.
    #[inline(always)]
    pub fn first(&self, lanes: impl Lanes) -> Option<usize> {
        // A bit for each word that is not zero, instead of a search whose end nobody could predict.
        let words = lanes.set_words([&self.0]);
        if words == 0 {
            return None;
        }
        let word = words.trailing_zeros() as usize;
        Some(word * 64 + self.0[word].trailing_zeros() as usize)
    }

    #[inline(always)]
    pub fn clear(&mut self, bit: usize) {
        self.0[bit / 64] &= !(1 << (bit % 64));
    }

    /// Clears all bits before this one.
    #[inline(never)]
    pub fn clear_below(&mut self, bit: usize) {
        self.0[..bit / 64].fill(0);
        self.0[bit / 64] &= u64::MAX << (bit % 64);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::lanes::Any;

    proptest! {
        #[test]
        fn the_first_bit_is_found(bits in proptest::collection::btree_set(0..RULES, 0..6)) {
            let mut chunk = Chunk::default();
            for bit in &bits {
                chunk.0[bit / 64] |= 1 << (bit % 64);
            }
            prop_assert_eq!(chunk.first(Any), bits.first().copied());
        }
    }
}
