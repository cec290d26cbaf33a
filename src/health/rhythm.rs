//! When a target is checked: each has a phase of its own within the interval, so that checks of many targets are spread over it.
//!
//! The phase follows from the target's id alone. Two runs, or a run before and after a reload, check in the same order, and a target
//! that stays keeps its rhythm. Checks stand on a fixed grid (`epoch + phase + n · interval`); time that a check takes does not
//! add up, and grid points that pass during a long check are left out.
//!
//! So `fall` failed checks of a backend that dies end within `fall · interval + timeout`, as long as `timeout` is not longer than
//! `interval`.

use std::time::{Duration, Instant};

use foldhash::fast::FixedState;
use std::hash::BuildHasher as _;

/// First checks are spread over this time at most, however long the interval is, since a target is unknown until then.
const FIRST_ROUND: Duration = Duration::from_secs(2);

/// The grid of one target.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rhythm {
    epoch: Instant,
    /// Position within any period: numerator of a fraction of 2^32.
    fraction: u32,
    interval: Duration,
}

impl Rhythm {
    /// `epoch` is the same for all targets, and not in the future; `interval` is not zero.
    pub(super) fn new(epoch: Instant, id: u64, interval: Duration) -> Self {
        let fraction = (FixedState::default().hash_one(id) >> 32) as u32;
        Self { epoch, fraction, interval }
    }

    /// When the first check of a target that is new at `now` is due.
    pub(super) fn first(&self, now: Instant) -> Instant {
        now + self.part_of(self.interval.min(FIRST_ROUND))
    }

    /// The first point of the grid after `now`.
    pub(super) fn next(&self, now: Instant) -> Instant {
        let phase = self.part_of(self.interval);
        let since = now.saturating_duration_since(self.epoch);
        let Some(past) = since.checked_sub(phase) else {
            return self.epoch + phase;
        };
        let into = past.as_nanos() % self.interval.as_nanos().max(1);
        // Less than an interval, which is a Duration.
        let into = Duration::from_nanos(u64::try_from(into).unwrap_or(u64::MAX));
        now + (self.interval - into)
    }

    fn part_of(&self, period: Duration) -> Duration {
        let nanos = (period.as_nanos() * u128::from(self.fraction)) >> 32;
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::health::{
        Condition,
        history::{History, Outcome},
    };

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn ten_thousand_targets_are_spread_evenly() {
        let epoch = Instant::now();
        let mut buckets = [0_u32; 100];
        for id in 0..10_000 {
            let first = Rhythm::new(epoch, id, 2 * SECOND).first(epoch);
            let after = first.duration_since(epoch);
            buckets[usize::try_from(after.as_millis() / 20).unwrap()] += 1;
        }
        // 100 are expected in 20 ms each, with a standard deviation of 10.
        assert!(buckets.iter().all(|checks| (50..=150).contains(checks)), "{buckets:?}");
    }

    #[test]
    fn first_check_does_not_wait_for_a_long_interval() {
        let epoch = Instant::now();
        for id in 0..1000 {
            let rhythm = Rhythm::new(epoch, id, 3600 * SECOND);
            assert!(rhythm.first(epoch) < epoch + FIRST_ROUND);
            let next = rhythm.next(epoch + FIRST_ROUND);
            assert!(next <= epoch + FIRST_ROUND + 3600 * SECOND);
        }
    }

    #[test]
    fn checks_keep_their_grid_whatever_they_take() {
        let epoch = Instant::now();
        let rhythm = Rhythm::new(epoch, 42, SECOND);
        let first = rhythm.next(epoch);
        assert_eq!(rhythm.next(first), first + SECOND);
        assert_eq!(rhythm.next(first + SECOND / 3), first + SECOND);
        // One that takes longer than an interval leaves out what it has missed.
        assert_eq!(rhythm.next(first + SECOND * 5 / 2), first + 3 * SECOND);
    }

    #[test]
    fn killed_backend_is_down_within_fall_intervals_and_a_timeout() {
        let epoch = Instant::now();
        let (rise, fall) = (2, 3);
        let (interval, timeout) = (2 * SECOND, SECOND);
        for id in 0..50 {
            for killed_after in (0..40).map(|steps| 10 * SECOND + steps * interval / 40) {
                let killed = epoch + killed_after;
                let rhythm = Rhythm::new(epoch, id, interval);
                let mut history = History::new(epoch);
                let mut starts = rhythm.first(epoch);
                let down = loop {
                    let good = starts < killed;
                    let ends = starts + if good { Duration::from_millis(1) } else { timeout };
                    let outcome = Outcome { good, reason: String::new(), duration: ends - starts };
                    history.take(outcome, rise, fall, ends);
                    if history.condition() == Condition::Down {
                        break ends;
                    }
                    starts = rhythm.next(ends);
                };
                let took = down - killed;
                assert!(took <= interval * fall + timeout, "{took:?}");
                assert!(took >= interval * (fall - 1), "{took:?}");
            }
        }
    }
}
