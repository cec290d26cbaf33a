//! IPv4 prefixes of 24 bits or less: a bit for each /24.

use std::collections::BTreeSet;
use std::ops::Deref;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use xfwd_ebpf_types::deny::network_bit;

use super::{end_of, mask};

/// The bits, and the prefixes that they are of.
pub(super) struct Networks<W> {
    words: W,
    /// Address and length.
    prefixes: BTreeSet<(u32, u8)>,
}

impl<W: Deref<Target = [AtomicU64]>> Networks<W> {
    /// With words that are all 0.
    pub fn new(words: W) -> Self {
        Self { words, prefixes: BTreeSet::new() }
    }

    pub fn is_empty(&self) -> bool {
        self.prefixes.is_empty()
    }

    pub fn insert(&mut self, address: u32, length: u8) {
        if self.prefixes.insert((address, length)) {
            self.write(address, length);
        }
    }

    pub fn remove(&mut self, address: u32, length: u8) {
        if self.prefixes.remove(&(address, length)) {
            self.write(address, length);
        }
    }

    /// Writes the bits within a prefix, each word once: what stays denied is so at every moment.
    fn write(&self, address: u32, length: u8) {
        let covered = (0..=length).any(|shorter| self.prefixes.contains(&(address & mask(shorter), shorter)));
        let last = address | !mask(length);
        let (first_word, last_word) = (network_bit(address).0, network_bit(last).0);
        let mut bits = vec![0_u64; (last_word - first_word) as usize + 1];
        let mut set = |from: u32, to: u32| {
            let ((from_word, from_bit), (to_word, to_bit)) = (network_bit(from), network_bit(to));
            for word in from_word..=to_word {
                let low = if word == from_word { from_bit } else { 0 };
                let high = if word == to_word { to_bit } else { 63 };
                bits[(word - first_word) as usize] |= span(low, high);
            }
        };
        if covered {
            set(address, last);
        } else {
            self.prefixes
                .range((address, length)..=(last, u8::MAX))
                .for_each(|&(inner, length)| set(inner, end_of(inner, length)));
        }
        for (word, bits) in (first_word..).zip(bits) {
            let low = if word == first_word { network_bit(address).1 } else { 0 };
            let high = if word == last_word { network_bit(last).1 } else { 63 };
            let within = span(low, high);
            let word = &self.words[word as usize];
            word.store(word.load(Relaxed) & !within | bits, Relaxed);
        }
    }
}

/// The bits from `low` to `high`, both of them included.
fn span(low: u32, high: u32) -> u64 {
    u64::MAX << low & u64::MAX >> (63 - high)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use xfwd_ebpf_types::deny::{MAX_NETWORK_LENGTH, NETWORK_WORDS};

    use super::*;

    fn empty() -> Networks<Vec<AtomicU64>> {
        Networks::new((0..NETWORK_WORDS).map(|_| AtomicU64::new(0)).collect())
    }

    fn holds(networks: &Networks<Vec<AtomicU64>>, address: u32) -> bool {
        let (word, bit) = network_bit(address);
        networks.words[word as usize].load(Relaxed) >> bit & 1 != 0
    }

    #[test]
    fn everything_is_denied_and_taken_back() {
        let mut networks = empty();
        networks.insert(0x0a00_0000, 24);
        networks.insert(0, 0);
        assert!(networks.words.iter().all(|word| word.load(Relaxed) == u64::MAX));
        networks.remove(0, 0);
        assert!(holds(&networks, 0x0a00_00ff) && !holds(&networks, 0x0a00_0100));
        networks.remove(0x0a00_0000, 24);
        assert!(networks.is_empty() && networks.words.iter().all(|word| word.load(Relaxed) == 0));
    }

    proptest! {
        #[test]
        fn a_network_is_denied_while_a_prefix_around_it_is(
            steps in prop::collection::vec((0..64_u32, 10..=MAX_NETWORK_LENGTH, prop::bool::weighted(0.6)), 1..40),
        ) {
            let (mut networks, mut held) = (empty(), BTreeSet::new());
            for (network, length, insert) in steps {
                // Neighbours, and some that are far from each other.
                let address = (0x0a00_0000 | (network & 7) << 8 | (network >> 3) << 16) & mask(length);
                if insert {
                    networks.insert(address, length);
                    held.insert((address, length));
                } else {
                    networks.remove(address, length);
                    held.remove(&(address, length));
                }
                for probe in (0x0a00_0000_u32..0x0a0a_0000).step_by(1 << 8) {
                    let expected = held.iter().any(|&(address, length)| probe & mask(length) == address);
                    prop_assert_eq!(holds(&networks, probe), expected, "{:x}", probe);
                }
            }
        }
    }
}
