//! `table_size`: slots of the Maglev table.

use std::ops::RangeInclusive;

use super::{Draft, maglev};
use crate::config::reader::{Reader, Section};

/// From a table for two backends to one for 65,535, a hundred slots each.
const SIZES: RangeInclusive<u32> = 251..=6_553_577;
/// With fewer, weights are met poorly (Maglev paper, section 3.4: a table of more than a hundred times the backends
/// makes shares differ by at most one percent).
const SLOTS_PER_BACKEND: u32 = 100;

/// The size; the default when it is absent or wrong, which is reported.
pub(super) fn read(section: &Section<'_>, reader: &mut Reader<'_>, draft: &Draft) -> u32 {
    let backends = u32::try_from(draft.backends.len()).unwrap_or(u32::MAX);
    let wanted = backends.saturating_mul(SLOTS_PER_BACKEND);
    let (place, size) = match section.value("table_size") {
        None => (draft.place.clone(), maglev::DEFAULT_SIZE),
        Some(_) => {
            let Some(size) = section.integer(reader, "table_size", SIZES) else {
                return maglev::DEFAULT_SIZE;
            };
            (size.span(), size.into_inner())
        }
    };
    if !maglev::is_prime(size) {
        reader
            .error(place, format!("`table_size` of service {} is not a prime number", draft.title))
            .label(format!("the next is {}", next_prime(size)));
        return maglev::DEFAULT_SIZE;
    }
    if size < wanted && size < *SIZES.end() {
        reader
            .warning(place, format!("the table of service {} is small for {backends} backends", draft.title))
            .label(format!("{size} slots: shares are uneven"))
            .help(format!("`table_size = {}` has {SLOTS_PER_BACKEND} for each", next_prime(wanted)));
    }
    size
}

/// The least prime from `number` on, or the largest size.
fn next_prime(number: u32) -> u32 {
    (number..=*SIZES.end()).find(|number| maglev::is_prime(*number)).unwrap_or(*SIZES.end())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bounds_are_prime_so_that_there_is_always_a_next_one() {
        assert!(maglev::is_prime(*SIZES.start()) && maglev::is_prime(*SIZES.end()));
        assert_eq!(next_prime(65_536), 65_537);
        assert_eq!(next_prime(655_360), 655_373);
        assert_eq!(next_prime(6_553_500), next_prime(6_553_500));
        assert_eq!(next_prime(u32::MAX), 6_553_577);
    }
}
