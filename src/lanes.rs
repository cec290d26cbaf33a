//! Vector instructions, where a compiler does not find them by itself, and those of newer processors if there is one.
//!
//! There is one question: which of eight words, each the AND of some, is not zero. What asks it many times is a [`Work`], which is compiled for
//! each kind of processor; [`with_widest`] runs it for the one at hand.

/// Instructions of a kind of processor. A value of the type is the proof that they are there.
pub(crate) trait Lanes: Copy {
    /// A bit for each of eight words, the first one lowest, that is not zero when all these fields are joined by AND.
    fn set_words<const FIELDS: usize>(self, fields: [&[u64; 8]; FIELDS]) -> u8;
}

/// What is to be done with the best instructions.
pub(crate) trait Work {
    /// Does it. To be inlined, or it is not compiled for the processor.
    fn run<L: Lanes>(self, lanes: L);
}

/// Does some work with the best instructions that the processor has.
#[inline]
pub(crate) fn with_widest(work: impl Work) {
    #[cfg(target_arch = "x86_64")]
    if let Some(avx2) = x86::Avx2::detect() {
        avx2.run(work);
        return;
    }
    work.run(Any);
}

/// What every processor has.
#[derive(Clone, Copy)]
pub(crate) struct Any;

impl Lanes for Any {
    #[inline(always)]
    fn set_words<const FIELDS: usize>(self, fields: [&[u64; 8]; FIELDS]) -> u8 {
        (0..8).fold(0, |set, word| {
            let joined = fields.iter().fold(u64::MAX, |joined, field| joined & field[word]);
            set | u8::from(joined != 0) << word
        })
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::{
        __m256i, _mm256_and_si256, _mm256_castsi256_pd, _mm256_cmpeq_epi64, _mm256_loadu_si256,
        _mm256_movemask_pd, _mm256_set1_epi64x, _mm256_setzero_si256,
    };

    use super::{Lanes, Work};

    /// AVX2, of processors since 2013 (Intel) and 2015 (AMD): four words at a time. There is one only where they are.
    #[derive(Clone, Copy)]
    pub(super) struct Avx2(());

    impl Avx2 {
        #[inline]
        pub fn detect() -> Option<Self> {
            (is_x86_feature_detected!("avx2") && is_x86_feature_detected!("bmi1")).then_some(Self(()))
        }

        #[inline(always)]
        pub fn run(self, work: impl Work) {
            // SAFETY: `self` was made by `detect`, so the processor has these instructions.
            unsafe { run(self, work) }
        }
    }

    /// Everything in here is compiled for such a processor.
    #[target_feature(enable = "avx2,bmi1")]
    fn run(lanes: Avx2, work: impl Work) {
        work.run(lanes);
    }

    impl Lanes for Avx2 {
        #[inline(always)]
        fn set_words<const FIELDS: usize>(self, fields: [&[u64; 8]; FIELDS]) -> u8 {
            // SAFETY: as in `run`.
            unsafe { set_words(fields) }
        }
    }

    #[target_feature(enable = "avx2,bmi1")]
    #[inline]
    fn set_words<const FIELDS: usize>(fields: [&[u64; 8]; FIELDS]) -> u8 {
        let mut halves = [_mm256_set1_epi64x(-1); 2];
        for field in fields {
            for (half, words) in halves.iter_mut().zip(field.as_chunks::<4>().0) {
                *half = _mm256_and_si256(*half, load(words));
            }
        }
        let [low, high] = [empty_words(halves[0]), empty_words(halves[1])];
        !(low | high << 4)
    }

    #[target_feature(enable = "avx2,bmi1")]
    #[inline]
    fn load(words: &[u64; 4]) -> __m256i {
        // SAFETY: it reads 32 bytes, of any alignment, and so many are there.
        unsafe { _mm256_loadu_si256(words.as_ptr().cast()) }
    }

    /// A bit for each word that is zero.
    #[target_feature(enable = "avx2,bmi1")]
    #[inline]
    fn empty_words(half: __m256i) -> u8 {
        let empty = _mm256_cmpeq_epi64(half, _mm256_setzero_si256());
        _mm256_movemask_pd(_mm256_castsi256_pd(empty)) as u8
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Asks for some fields.
    struct Asked<'a> {
        fields: [&'a [u64; 8]; 2],
        found: &'a mut u8,
    }

    impl Work for Asked<'_> {
        #[inline(always)]
        fn run<L: Lanes>(self, lanes: L) {
            *self.found = lanes.set_words(self.fields);
        }
    }

    fn by_widest(fields: [&[u64; 8]; 2]) -> u8 {
        let mut found = 0;
        with_widest(Asked { fields, found: &mut found });
        found
    }

    proptest! {
        #[test]
        fn all_processors_find_the_same(words: [[Option<u64>; 8]; 2]) {
            let [one, other] = words.map(|field| field.map(Option::unwrap_or_default));
            let fields = [&one, &other];
            let expected = Any.set_words(fields);
            prop_assert_eq!(by_widest(fields), expected);
            for (word, (one, other)) in one.iter().zip(&other).enumerate() {
                prop_assert_eq!(expected >> word & 1 == 1, one & other != 0);
            }
        }
    }

    #[test]
    fn every_single_bit_is_seen() {
        for bit in 0..512 {
            let one = std::array::from_fn(|word| if word == bit / 64 { 1 << (bit % 64) } else { 0 });
            assert_eq!(by_widest([&one, &[u64::MAX; 8]]), 1 << (bit / 64), "bit {bit}");
            assert_eq!(by_widest([&one, &[0; 8]]), 0, "bit {bit}");
        }
    }
}
