//! What a flow is in, what moves it on, and how long it stays.

use std::time::Duration;

use super::tick;
use crate::packet::protocol::TCP;
use crate::packet::{Fragment, Headers, Tcp};

/// What a packet says about its flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// TCP: SYN without ACK, FIN or RST.
    Syn,
    /// TCP: anything else, and every fragment.
    Data,
    /// TCP: FIN or RST.
    Fin,
    /// Any other protocol.
    Udp,
}

impl Event {
    /// The event of a packet. Fragments of TCP are [`Data`](Self::Data), as their flow has no ports and holds more than one connection.
    #[inline]
    pub fn of(headers: &Headers) -> Self {
        if headers.protocol != TCP {
            return Self::Udp;
        }
        let flags = headers.tcp_flags;
        if flags & (Tcp::FIN | Tcp::RST | Tcp::SYN) == 0 || headers.fragment() != Fragment::No {
            return Self::Data;
        }
        if flags & (Tcp::FIN | Tcp::RST) != 0 {
            Self::Fin
        } else if flags & (Tcp::SYN | Tcp::ACK) == Tcp::SYN {
            Self::Syn
        } else {
            Self::Data
        }
    }
}

/// What is known about a flow. The documentation of [this module](super) has the table of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum State {
    /// One packet or repeated SYNs were seen: in probation.
    New = 1,
    /// More than that was seen.
    Established = 2,
    /// FIN or RST was seen.
    Closing = 3,
    /// One datagram was seen: in probation.
    NewUdp = 4,
    /// More than one was seen.
    Udp = 5,
}

impl State {
    /// The state after a flow's first packet.
    #[inline(always)]
    pub(super) const fn first(event: Event) -> Self {
        match event {
            Event::Udp => Self::NewUdp,
            Event::Syn | Event::Data | Event::Fin => Self::New,
        }
    }

    /// The state after one more packet.
    #[inline(always)]
    pub(super) const fn after(self, event: Event) -> Self {
        match (self, event) {
            (Self::NewUdp | Self::Udp, _) => Self::Udp,
            (Self::New | Self::Closing, Event::Syn) => Self::New,
            (Self::New | Self::Established, Event::Fin) | (Self::Closing, _) => Self::Closing,
            (Self::New | Self::Established, _) => Self::Established,
        }
    }

    /// Whether an entry in this state may make way for another.
    #[inline(always)]
    pub const fn is_probation(self) -> bool {
        matches!(self, Self::New | Self::NewUdp)
    }
}

/// How long a flow is kept after its last packet, by its state; in steps of 1/64 s, at most [`MAX_TIMEOUT`](super::MAX_TIMEOUT).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// For [`State::New`].
    pub syn: Duration,
    /// For [`State::Established`].
    pub established: Duration,
    /// For [`State::Closing`].
    pub closing: Duration,
    /// For [`State::NewUdp`] and [`State::Udp`].
    pub udp: Duration,
}

impl Timeouts {
    /// The longest of them.
    pub fn longest(&self) -> Duration {
        self.syn.max(self.established).max(self.closing).max(self.udp)
    }
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            syn: Duration::from_secs(60),
            established: Duration::from_secs(15 * 60),
            closing: Duration::from_secs(2 * 60),
            udp: Duration::from_secs(2 * 60),
        }
    }
}

/// [`Timeouts`] in ticks, by the number of the state; eight, so that an index of three bits needs no check.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lifetimes(pub [u32; 8]);

impl From<Timeouts> for Lifetimes {
    fn from(timeouts: Timeouts) -> Self {
        let mut ticks = [0; 8];
        ticks[State::New as usize] = tick::ticks(timeouts.syn);
        ticks[State::Established as usize] = tick::ticks(timeouts.established);
        ticks[State::Closing as usize] = tick::ticks(timeouts.closing);
        ticks[State::NewUdp as usize] = tick::ticks(timeouts.udp);
        ticks[State::Udp as usize] = tick::ticks(timeouts.udp);
        Self(ticks)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_follows_from_protocol_flags_and_fragment() {
        let event = |protocol, tcp_flags, fragment| {
            Event::of(&Headers { protocol, tcp_flags, fragment: fragment as u8, ..Headers::default() })
        };
        for (flags, expected) in [
            (Tcp::SYN, Event::Syn),
            (Tcp::SYN | Tcp::ACK, Event::Data),
            (Tcp::ACK, Event::Data),
            (0, Event::Data),
            (Tcp::ACK | Tcp::FIN, Event::Fin),
            (Tcp::RST, Event::Fin),
            (Tcp::SYN | Tcp::FIN, Event::Fin),
        ] {
            assert_eq!(event(6, flags, Fragment::No), expected, "{flags:#x}");
            assert_eq!(event(6, flags, Fragment::First), Event::Data);
            assert_eq!(event(17, 0, Fragment::No), Event::Udp);
        }
    }

    #[test]
    fn the_way_of_a_connection() {
        use State::{Closing, Established, New, NewUdp, Udp};
        for (events, states) in [
            (
                &[Event::Syn, Event::Data, Event::Fin, Event::Data][..],
                &[New, Established, Closing, Closing][..],
            ),
            (&[Event::Syn, Event::Syn, Event::Data, Event::Syn], &[New, New, Established, Established]),
            (&[Event::Data, Event::Data], &[New, Established]),
            (&[Event::Fin, Event::Fin, Event::Syn], &[New, Closing, New]),
            (&[Event::Udp, Event::Udp, Event::Udp], &[NewUdp, Udp, Udp]),
        ] {
            let mut state = State::first(events[0]);
            let mut way = vec![state];
            for &event in &events[1..] {
                state = state.after(event);
                way.push(state);
            }
            assert_eq!(way, states, "{events:?}");
        }
    }
}
