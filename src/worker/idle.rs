//! What a worker does when there is nothing to do.

use std::time::Duration;

use crate::words::choices;

/// Turns without work after which an adaptive worker gives way to other threads: about 20 µs.
const SPINS: u32 = 256;
/// Turns that it then gives way before it sleeps.
const YIELDS: u32 = 32;
/// Longest sleep: how late a stop request or a stage's housekeeping can be noticed.
pub(super) const LONGEST_SLEEP: Duration = Duration::from_millis(100);
/// Longest sleep while frames are with the driver to be sent, which complete without waking anybody.
const SLEEP_WHILE_SENDING: Duration = Duration::from_millis(1);

choices! {
    /// How a worker waits for packets.
    #[derive(Default)]
    pub enum Idle {
        /// Spins a little, then gives way, then sleeps until a packet arrives: fast under load, idle without.
        #[default]
        Adaptive = "adaptive",
        /// Never sleeps: lowest latency, one core at 100 %.
        Busy = "busy",
        /// Sleeps at once: least CPU, highest latency.
        Poll = "poll",
    }
}

/// What to do now.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Rest {
    Spin,
    Yield,
    Sleep(Duration),
}

/// Counts turns without work.
#[derive(Default)]
pub(super) struct IdleState {
    idle: Idle,
    empty_turns: u32,
}

impl IdleState {
    pub(super) fn new(idle: Idle) -> Self {
        Self { idle, empty_turns: 0 }
    }

    #[inline]
    pub(super) fn worked(&mut self) {
        self.empty_turns = 0;
    }

    /// After a turn without work; `sending` when frames are still to be sent.
    pub(super) fn rest(&mut self, sending: bool) -> Rest {
        self.empty_turns = self.empty_turns.saturating_add(1);
        let sleep = Rest::Sleep(if sending { SLEEP_WHILE_SENDING } else { LONGEST_SLEEP });
        match self.idle {
            Idle::Busy => Rest::Spin,
            Idle::Poll => sleep,
            Idle::Adaptive if self.empty_turns <= SPINS => Rest::Spin,
            Idle::Adaptive if self.empty_turns <= SPINS + YIELDS => Rest::Yield,
            Idle::Adaptive => sleep,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn adaptive_spins_then_yields_then_sleeps() {
        let mut state = IdleState::new(Idle::Adaptive);
        let rests: Vec<_> = (0..SPINS + YIELDS + 1).map(|_| state.rest(false)).collect();
        assert_eq!(rests[0], Rest::Spin);
        assert_eq!(rests[SPINS as usize], Rest::Yield);
        assert_eq!(rests[(SPINS + YIELDS) as usize], Rest::Sleep(LONGEST_SLEEP));
        state.worked();
        assert_eq!(state.rest(false), Rest::Spin);
    }

    #[test]
    fn busy_never_sleeps_and_poll_always_does() {
        let mut busy = IdleState::new(Idle::Busy);
        assert!((0..10_000).all(|_| busy.rest(true) == Rest::Spin));
        assert_eq!(IdleState::new(Idle::Poll).rest(true), Rest::Sleep(SLEEP_WHILE_SENDING));
    }
}
