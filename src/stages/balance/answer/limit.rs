//! How many answers a second.

use std::time::{Duration, Instant};

/// A token bucket for one worker: `rate` answers a second, and a tenth of that at once.
///
/// It holds one number, the moment at which it is full again (the generic cell rate algorithm, ITU-T I.371), so nobody has to
/// fill it.
#[derive(Clone, Debug)]
pub struct RateLimit {
    /// What an answer costs.
    interval: Duration,
    /// How far ahead of now the bucket may be filled.
    burst: Duration,
    full_at: Option<Instant>,
    /// No answers at all.
    none: bool,
}

impl RateLimit {
    /// A full bucket for `rate` answers a second; with 0 there are none.
    pub fn new(rate: u32) -> Self {
        let interval = Duration::from_secs(1) / rate.max(1);
        let burst = interval * (rate / 10).max(1);
        Self { interval, burst, full_at: None, none: rate == 0 }
    }

    /// Takes an answer out of the bucket. `false` when there is none in it.
    #[inline]
    pub fn take(&mut self, now: Instant) -> bool {
        let full_at = self.full_at.map_or(now, |full_at| full_at.max(now)) + self.interval;
        let is_in = !self.none && full_at - now <= self.burst;
        if is_in {
            self.full_at = Some(full_at);
        }
        is_in
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many of `asked` questions, evenly spread over `seconds`, are answered.
    fn answered(rate: u32, asked: u32, seconds: f64) -> u32 {
        let (mut limit, start) = (RateLimit::new(rate), Instant::now());
        let at = |index| start + Duration::from_secs_f64(seconds * f64::from(index) / f64::from(asked));
        (0..asked).filter(|&index| limit.take(at(index))).count() as u32
    }

    #[test]
    fn so_many_a_second_and_a_tenth_at_once() {
        assert_eq!(answered(1_000, 5_000, 0.0), 100);
        assert!(answered(1_000, 50_000, 5.0).abs_diff(5_100) <= 1);
        assert!(answered(3, 50_000, 100.0).abs_diff(301) <= 1);
        assert!(answered(1_000_000, 3_000_000, 1.0).abs_diff(1_100_000) <= 10);
    }

    #[test]
    fn below_the_rate_every_question_is_answered() {
        assert_eq!(answered(1_000, 900, 1.0), 900);
        assert_eq!(answered(1, 10, 10.0), 10);
    }

    #[test]
    fn a_quiet_time_does_not_save_more_than_the_burst() {
        let (mut limit, start) = (RateLimit::new(1_000), Instant::now());
        assert!(limit.take(start));
        let later = start + Duration::from_secs(3_600);
        assert_eq!((0..1_000).filter(|_| limit.take(later)).count(), 100);
    }

    #[test]
    fn a_rate_of_zero_answers_nothing() {
        assert_eq!(answered(0, 100, 10.0), 0);
    }
}
