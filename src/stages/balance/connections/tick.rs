//! Coarse time, as entries of a table keep it.
//!
//! A tick is 1/64 of a second, and an entry keeps 29 bits of it: they come round after 97 days. An entry that was not seen for half
//! of that would look fresh again, so the longest timeout is a quarter ([`MAX_TIMEOUT`], 24 days), and the
//! sweep, which takes seconds or minutes, has as many days to find what has expired.

use std::time::{Duration, Instant};

const TICKS_PER_SECOND: u32 = 64;
const NANOSECONDS_PER_TICK: u32 = 1_000_000_000 / TICKS_PER_SECOND;
/// Bits that an entry keeps of a tick.
const BITS: u32 = 29;
const MASK: u32 = (1 << BITS) - 1;
const MAX_TICKS: u32 = 1 << (BITS - 2);

/// The longest timeout, 24 days; a longer one is taken as this.
pub const MAX_TIMEOUT: Duration = Duration::from_secs((MAX_TICKS / TICKS_PER_SECOND) as u64);

/// A moment, in 64ths of a second since a [`Clock`] was made, modulo 2^29.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tick(u32);

/// Turns [`Batch::now`](crate::pipeline::Batch::now) into [`Tick`]s.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    epoch: Instant,
}

impl Clock {
    /// A clock that shows 0 at `epoch` and, by saturation, before it.
    pub fn new(epoch: Instant) -> Self {
        Self { epoch }
    }

    /// The tick at `now`. No system call, no division.
    #[inline]
    pub fn tick(&self, now: Instant) -> Tick {
        let elapsed = now.saturating_duration_since(self.epoch);
        let whole = (elapsed.as_secs() as u32).wrapping_mul(TICKS_PER_SECOND);
        Tick::from_number(whole.wrapping_add(elapsed.subsec_nanos() / NANOSECONDS_PER_TICK))
    }
}

impl Tick {
    /// The tick with this number, of which the low 29 bits count.
    #[inline]
    pub const fn from_number(number: u32) -> Self {
        Self(number & MASK)
    }

    /// The number, below 2^29.
    #[inline]
    pub const fn number(self) -> u32 {
        self.0
    }

    /// Ticks from `earlier` to this one; 0 if it was not earlier.
    #[inline(always)]
    pub const fn since(self, earlier: Self) -> u32 {
        let age = self.0.wrapping_sub(earlier.0) & MASK;
        if age >> (BITS - 1) == 0 { age } else { 0 }
    }

    /// The tick that comes `ticks` later.
    #[inline]
    pub const fn after(self, ticks: u32) -> Self {
        Self::from_number(self.0.wrapping_add(ticks))
    }
}

/// A timeout in whole ticks, rounded up, so that it is never shorter than asked for.
pub(in crate::stages::balance) fn ticks(timeout: Duration) -> u32 {
    let ticks = timeout.as_nanos().div_ceil(u128::from(NANOSECONDS_PER_TICK));
    ticks.min(u128::from(MAX_TICKS)) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tick_is_a_64th_of_a_second() {
        let epoch = Instant::now();
        let clock = Clock::new(epoch);
        let at = |millis| clock.tick(epoch + Duration::from_millis(millis)).number();
        assert_eq!([at(0), at(15), at(16), at(999), at(1_000), at(86_400_000)], [0, 0, 1, 63, 64, 5_529_600]);
        assert_eq!(clock.tick(epoch - Duration::from_secs(1)).number(), 0, "before its epoch");
    }

    #[test]
    fn ages_survive_the_wrap_around() {
        let epoch = Instant::now();
        let clock = Clock::new(epoch);
        let wrap = Duration::from_secs(1 << (BITS - 6));
        let before = clock.tick(epoch + wrap - Duration::from_secs(3_600));
        for hours in [0, 1, 2, 24, 24 * 24] {
            let now =
                clock.tick(epoch + wrap + Duration::from_secs((hours - i64::from(hours > 0)) as u64 * 3_600));
            let expected = if hours == 0 { 1 } else { hours };
            assert_eq!(i64::from(now.since(before)), expected * 3_600 * 64, "{hours} hours");
        }
        let (early, late) = (Tick::from_number(u32::MAX), Tick::from_number(u32::MAX).after(5));
        assert_eq!((late.number(), late.since(early), early.since(late)), (4, 5, 0));
    }

    #[test]
    fn timeouts_are_rounded_up_and_end_at_24_days() {
        assert_eq!(ticks(Duration::ZERO), 0);
        assert_eq!(ticks(Duration::from_millis(1)), 1);
        assert_eq!(ticks(Duration::from_secs(60)), 3_840);
        assert_eq!(ticks(Duration::from_secs(24 * 3_600)), 5_529_600);
        assert_eq!(ticks(Duration::MAX), ticks(MAX_TIMEOUT));
        assert!(MAX_TIMEOUT > Duration::from_secs(24 * 86_400));
    }
}
