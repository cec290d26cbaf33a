//! What the stages that balance have counted, over all workers.

use serde::Serialize;

use crate::stages::balance::{BalanceControl, StageCounters};

/// What all workers have counted of balancing besides backends.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct BalanceSnapshot {
    /// Of the connection tables.
    pub connections: Connections,
    /// Of the fragment tables.
    pub fragments: Fragments,
    /// Of `nat`.
    pub nat: Nat,
    /// What was answered in place of backends.
    pub answers: Answers,
}

/// Declares a struct of numbers, and how to add up what one worker has counted.
macro_rules! sums {
    ($(#[$meta:meta])* $name:ident { $($(#[$doc:meta])* $field:ident,)* }) => {
        $(#[$meta])*
        #[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
        #[non_exhaustive]
        pub struct $name { $($(#[$doc])* pub $field: u64,)* }
    };
}

sums! {
    /// Connection tables.
    Connections {
        /// Entries there are.
        entries,
        /// Flows stored.
        inserted,
        /// Entries freed since their time was over.
        expired,
        /// Entries in probation that made way for a new flow.
        evicted,
        /// Flows not stored since there was no room: they go where the Maglev table says.
        refused,
        /// Flows out of probation.
        promoted,
    }
}

sums! {
    /// Fragment tables.
    Fragments {
        /// Datagrams stored.
        inserted,
        /// Of these, those that pushed out another before its time.
        evicted,
        /// Later fragments whose datagram was known.
        found,
        /// Later fragments whose datagram was not known.
        missed,
    }
}

sums! {
    /// Sessions of `nat`.
    Nat {
        /// Sessions that are open now.
        open,
        /// Sessions opened.
        opened,
        /// Sessions closed because nothing was seen of them.
        expired,
        /// Sessions closed to make room for another.
        evicted,
        /// Flows that got no session since no port was free.
        exhausted,
        /// Packets of backends translated back.
        replies,
    }
}

sums! {
    /// Answers in place of backends.
    Answers {
        /// Echo replies.
        echo_replies,
        /// Senders told that a packet was too big.
        too_big,
        /// Senders told that a packet had no hop left.
        time_exceeded,
        /// TCP resets and ICMP port unreachable, since there was no backend.
        refused,
        /// Answers that were not given as there had been too many.
        suppressed,
    }
}

impl BalanceSnapshot {
    pub(super) fn of(control: &BalanceControl) -> Self {
        let mut sums = Self::default();
        control.stage_counters().for_each(|counters| sums.add(counters));
        sums
    }

    fn add(&mut self, of: &StageCounters) {
        macro_rules! add {
            ($to:expr, $from:expr, $($field:ident)*) => { $($to.$field += $from.$field.get();)* };
        }
        if let Some(from) = of.connections.get() {
            add!(self.connections, from, entries inserted expired evicted refused promoted);
        }
        if let Some(from) = of.fragments.get() {
            add!(self.fragments, from, inserted evicted found missed);
        }
        if let Some(from) = of.nat.get().map(|counters| counters.snapshot()) {
            self.nat.open += from.open;
            self.nat.opened += from.opened;
            self.nat.expired += from.expired;
            self.nat.evicted += from.evicted;
            self.nat.exhausted += from.exhausted;
        }
        self.nat.replies += of.replies.get();
        add!(self.answers, of.answers, echo_replies too_big time_exceeded refused suppressed);
    }
}
