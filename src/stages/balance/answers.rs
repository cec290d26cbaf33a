//! The answers of one worker: limited in number, and counted.

use std::time::Instant;

use super::answer::{IcmpError, NotAnswered, RateLimit, echo_reply, icmp_error, may_be_answered, refuse};
use crate::pipeline::{Counter, DropReason, Packet, Verdict};

/// What a worker has answered.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct AnswerCounters {
    /// Echo replies.
    pub echo_replies: Counter,
    /// Senders told that a packet was too big.
    pub too_big: Counter,
    /// Senders told that a packet had no hop left.
    pub time_exceeded: Counter,
    /// TCP resets and ICMP port unreachable, since there was no backend.
    pub refused: Counter,
    /// Answers that were not given as there had been too many.
    pub suppressed: Counter,
}

/// An answer in place of a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    EchoReply,
    TooBig { mtu: u16 },
    TimeExceeded,
    Refuse,
}

/// Gives answers as long as there are not too many.
pub(super) struct Answerer {
    limit: RateLimit,
}

impl Answerer {
    pub fn new(per_second: u32) -> Self {
        Self { limit: RateLimit::new(per_second) }
    }

    /// Turns a packet into the answer to it. What gets none is dropped by `reason`.
    #[cold]
    pub fn give(
        &mut self,
        packet: &mut Packet<'_>,
        answer: Answer,
        reason: DropReason,
        now: Instant,
        counters: &AnswerCounters,
    ) -> Verdict {
        // What must not be answered does not use up the answers of others.
        if !may_be_answered(packet) {
            return Verdict::Drop(reason);
        }
        if !self.limit.take(now) {
            counters.suppressed.add(1);
            return Verdict::Drop(reason);
        }
        let (given, counter): (Result<(), NotAnswered>, _) = match answer {
            Answer::EchoReply => (echo_reply(packet), &counters.echo_replies),
            Answer::TooBig { mtu } => (icmp_error(packet, IcmpError::TooBig { mtu }), &counters.too_big),
            Answer::TimeExceeded => (icmp_error(packet, IcmpError::TimeExceeded), &counters.time_exceeded),
            Answer::Refuse => (refuse(packet), &counters.refused),
        };
        match given {
            Ok(()) => {
                counter.add(1);
                Verdict::Bounce
            }
            Err(NotAnswered) => Verdict::Drop(reason),
        }
    }
}
