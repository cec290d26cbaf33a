//! Longest prefix first, as the kernel's LPM tries answer.

use std::collections::HashMap;

use foldhash::fast::FixedState;

/// Values by the first bits of a number: a look-up for each length that is in use.
pub(super) struct Lpm<V>(Vec<Length<V>>);

struct Length<V> {
    bits: u8,
    mask: u128,
    values: HashMap<u128, V, FixedState>,
}

impl<V> Lpm<V> {
    /// From prefixes and their lengths in bits, up to 128. Of two that are the same the last counts.
    pub fn new(prefixes: impl IntoIterator<Item = (u128, u8, V)>) -> Self {
        let mut lengths: Vec<Length<V>> = Vec::new();
        for (prefix, bits, value) in prefixes {
            let place = match lengths.binary_search_by(|length| bits.cmp(&length.bits)) {
                Ok(place) => place,
                Err(place) => {
                    let mask = u128::MAX.checked_shl(128 - u32::from(bits)).unwrap_or(0);
                    lengths.insert(place, Length { bits, mask, values: HashMap::default() });
                    place
                }
            };
            let length = &mut lengths[place];
            length.values.insert(prefix & length.mask, value);
        }
        Self(lengths)
    }

    /// The values of all prefixes that hold `key`, from the longest to the shortest.
    pub fn all(&self, key: u128) -> impl Iterator<Item = &V> {
        self.0.iter().filter_map(move |length| length.values.get(&(key & length.mask)))
    }

    /// The value of the longest of them.
    pub fn get(&self, key: u128) -> Option<&V> {
        self.all(key).next()
    }

    /// Whether there is no prefix.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_prefix_answers_first() {
        let top = |byte: u8| u128::from(byte) << 120;
        let lpm = Lpm::new([(0, 0, 'a'), (top(0x80), 1, 'b'), (top(0x80), 8, 'c'), (top(0x80), 128, 'd')]);
        let all = |key: u128| lpm.all(key).collect::<String>();
        assert_eq!([all(top(0x80)), all(top(0x80) | 1), all(top(0x81)), all(0)], ["dcba", "cba", "ba", "a"]);
        assert_eq!(lpm.get(top(0xff)), Some(&'b'));
        assert!(Lpm::<u8>::new([]).is_empty());
    }
}
