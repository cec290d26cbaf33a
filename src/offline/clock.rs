//! The time of a capture, as workers see it.

use std::time::{Duration, Instant};

/// Most time between the packets of one batch. Live, a batch is what has arrived since the worker looked last.
pub const WINDOW: Duration = Duration::from_micros(100);

/// Maps the time of packets to a clock that starts now and never goes back.
#[derive(Debug)]
pub(super) struct Clock {
    base: Instant,
    first: Option<Duration>,
    elapsed: Duration,
}

impl Clock {
    /// A clock that shows no earlier time than now: stages were made before.
    pub fn new() -> Self {
        Self { base: Instant::now(), first: None, elapsed: Duration::ZERO }
    }

    /// Goes on to a packet that was captured at `time`. Returns the time since the first one.
    pub fn advance(&mut self, time: Duration) -> Duration {
        let first = *self.first.get_or_insert(time);
        self.elapsed = time.saturating_sub(first).max(self.elapsed);
        self.elapsed
    }

    /// Time from the first packet to the last.
    pub fn elapsed(&self) -> Duration {
        self.elapsed
    }

    /// What the clock shows.
    pub fn now(&self) -> Instant {
        self.base.checked_add(self.elapsed).unwrap_or(self.base)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_never_goes_back() {
        let mut clock = Clock::new();
        let seconds = Duration::from_secs;
        let start = clock.now();
        let shown: Vec<Duration> = [100, 103, 90, 102, 104].map(|time| clock.advance(seconds(time))).to_vec();
        assert_eq!(shown, [0, 3, 3, 3, 4].map(seconds));
        assert_eq!(clock.now() - start, seconds(4));
    }

    #[test]
    fn a_time_that_no_clock_can_show_is_no_panic() {
        let mut clock = Clock::new();
        clock.advance(Duration::ZERO);
        clock.advance(Duration::MAX);
        let _ = clock.now();
    }
}
