//! Results of checks to conditions: rise and fall. Pure; the time is handed in.

use std::time::{Duration, Instant};

use super::{Condition, Status};

/// What a check said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Outcome {
    pub good: bool,
    /// One line.
    pub reason: String,
    pub duration: Duration,
}

/// Everything that is remembered of one backend.
#[derive(Clone, Debug)]
pub(super) struct History {
    condition: Condition,
    since: Instant,
    last: Option<Outcome>,
    consecutive: u32,
    checks: u64,
    failed: u64,
}

impl History {
    pub(super) fn new(now: Instant) -> Self {
        Self { condition: Condition::Unknown, since: now, last: None, consecutive: 0, checks: 0, failed: 0 }
    }

    /// The same backend, checked in another way from now on: the condition stays, what was counted does not.
    pub(super) fn restarted(&self) -> Self {
        Self { consecutive: 0, checks: 0, failed: 0, ..self.clone() }
    }

    /// Takes a result, and returns the condition before it if that has changed.
    pub(super) fn take(&mut self, outcome: Outcome, rise: u32, fall: u32, now: Instant) -> Option<Condition> {
        let good = outcome.good;
        let as_before = self.consecutive > 0 && self.last.as_ref().is_some_and(|last| last.good == good);
        self.consecutive = if as_before { self.consecutive.saturating_add(1) } else { 1 };
        self.checks += 1;
        self.failed += u64::from(!good);
        self.last = Some(outcome);
        let next = match (self.condition, good) {
            (Condition::Unknown, true) => Condition::Up,
            (Condition::Unknown, false) => Condition::Down,
            (Condition::Down, true) if self.consecutive >= rise => Condition::Up,
            (Condition::Up, false) if self.consecutive >= fall => Condition::Down,
            (same, _) => same,
        };
        if next == self.condition {
            return None;
        }
        self.since = now;
        Some(std::mem::replace(&mut self.condition, next))
    }

    pub(super) fn condition(&self) -> Condition {
        self.condition
    }

    pub(super) fn status(&self, id: u64) -> Status {
        let last = self.last.as_ref();
        Status {
            id,
            condition: self.condition,
            since: self.since,
            reason: last.map_or_else(String::new, |last| last.reason.clone()),
            last_good: last.map(|last| last.good),
            last_duration: last.map(|last| last.duration),
            consecutive: self.consecutive,
            checks: self.checks,
            failed: self.failed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(good: bool) -> Outcome {
        Outcome { good, reason: String::new(), duration: Duration::from_millis(1) }
    }

    /// Conditions after each of the results, `+` good and `-` bad.
    fn after(results: &str, rise: u32, fall: u32) -> Vec<Condition> {
        let now = Instant::now();
        let mut history = History::new(now);
        results
            .bytes()
            .map(|result| {
                history.take(outcome(result == b'+'), rise, fall, now);
                history.condition()
            })
            .collect()
    }

    use Condition::{Down, Up};

    #[test]
    fn first_result_decides_at_once() {
        assert_eq!(after("+", 5, 5), [Up]);
        assert_eq!(after("-", 5, 5), [Down]);
        assert!(Condition::Unknown.serves());
    }

    #[test]
    fn fall_failures_in_a_row_take_a_backend_down() {
        assert_eq!(after("+--", 2, 3), [Up; 3]);
        assert_eq!(after("+---", 2, 3), [Up, Up, Up, Down]);
        assert_eq!(after("+--+--", 2, 3), [Up; 6]);
    }

    #[test]
    fn rise_good_checks_in_a_row_bring_it_back() {
        assert_eq!(after("-+++", 3, 3), [Down, Down, Down, Up]);
        assert_eq!(after("-++-++", 3, 3), [Down; 6]);
    }

    #[test]
    fn condition_before_is_told_once_with_the_time_of_the_change() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut history = History::new(start);
        assert_eq!(history.take(outcome(true), 2, 2, at(1)), Some(Condition::Unknown));
        assert_eq!(history.take(outcome(true), 2, 2, at(2)), None);
        assert_eq!(history.take(outcome(false), 2, 2, at(3)), None);
        assert_eq!(history.status(7).since, at(1));
        assert_eq!(history.take(outcome(false), 2, 2, at(4)), Some(Up));
        let status = history.status(7);
        assert_eq!((status.id, status.condition, status.since), (7, Down, at(4)));
        assert_eq!((status.consecutive, status.checks, status.failed), (2, 4, 2));
        assert_eq!(status.last_good, Some(false));
    }

    #[test]
    fn restart_keeps_the_condition_and_not_the_count() {
        let now = Instant::now();
        let mut history = History::new(now);
        history.take(outcome(true), 2, 2, now);
        history.take(outcome(false), 2, 2, now);
        let mut history = history.restarted();
        assert_eq!(history.status(0).checks, 0);
        // The failure before the restart does not count any more.
        assert_eq!(history.take(outcome(false), 2, 2, now), None);
        assert_eq!(history.status(0).consecutive, 1);
        assert_eq!(history.take(outcome(false), 2, 2, now), Some(Up));
    }
}
