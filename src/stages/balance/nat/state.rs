//! What a session has seen, and how long it may be idle.
//!
//! A flow that is known to work lives long, one that may be a forged SYN or is over lives short: the distinction of
//! RFC 5382, section 5, for TCP, and of RFC 4787, section 4.3, for UDP.

use super::super::connections::{Timeouts, ticks};
use crate::packet::Tcp;

/// [`Timeouts`] in ticks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    syn: u32,
    established: u32,
    closing: u32,
    udp: u32,
}

impl From<Timeouts> for Limits {
    fn from(timeouts: Timeouts) -> Self {
        Self {
            syn: ticks(timeouts.syn),
            established: ticks(timeouts.established),
            closing: ticks(timeouts.closing),
            udp: ticks(timeouts.udp),
        }
    }
}

/// What a session has seen: a set of bits that any worker may add to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct State(pub(super) u8);

impl State {
    /// Nobody's.
    pub(super) const CLOSED: Self = Self(0);
    const OPEN: u8 = 1;
    const TCP: u8 = 1 << 1;
    /// The backend has sent something.
    const ANSWERED: u8 = 1 << 2;
    /// The client has sent something that is no SYN since.
    const CONFIRMED: u8 = 1 << 3;
    const FIN_OF_CLIENT: u8 = 1 << 4;
    const FIN_OF_BACKEND: u8 = 1 << 5;
    const RESET: u8 = 1 << 6;

    /// Of a new session.
    pub(super) fn opened(is_tcp: bool) -> Self {
        Self(if is_tcp { Self::OPEN | Self::TCP } else { Self::OPEN })
    }

    #[inline]
    fn has(self, bits: u8) -> bool {
        self.0 & bits == bits
    }

    #[inline]
    pub(super) fn is_open(self) -> bool {
        self.has(Self::OPEN)
    }

    fn is_closing(self) -> bool {
        self.has(Self::RESET) || self.has(Self::FIN_OF_CLIENT | Self::FIN_OF_BACKEND)
    }

    /// Whether a packet of the client with these flags begins a new connection in place of one that is over (RFC 9293,
    /// section 3.6.1).
    #[inline]
    pub(super) fn is_restarted_by(self, flags: u8) -> bool {
        self.has(Self::TCP) && self.is_closing() && flags & (Tcp::SYN | Tcp::ACK) == Tcp::SYN
    }

    /// After a packet of the client with these TCP flags (0 for UDP).
    #[inline]
    pub(super) fn after_client(self, flags: u8) -> Self {
        if !self.has(Self::TCP) {
            return self;
        }
        if self.is_restarted_by(flags) {
            return Self::opened(true);
        }
        if flags & (Tcp::SYN | Tcp::ACK) == Tcp::SYN {
            return self;
        }
        let confirmed = if self.has(Self::ANSWERED) { Self::CONFIRMED } else { 0 };
        Self(self.0 | confirmed | closing_bits(flags, Self::FIN_OF_CLIENT))
    }

    /// After a packet of the backend with these TCP flags (0 for UDP).
    #[inline]
    pub(super) fn after_backend(self, flags: u8) -> Self {
        Self(self.0 | Self::ANSWERED | closing_bits(flags, Self::FIN_OF_BACKEND))
    }

    /// How long a session in this state may be idle, in ticks.
    #[inline]
    pub(super) fn limit(self, limits: &Limits) -> u32 {
        if !self.has(Self::TCP) {
            limits.udp
        } else if self.is_closing() {
            limits.closing
        } else if self.has(Self::ANSWERED | Self::CONFIRMED) {
            limits.established
        } else {
            limits.syn
        }
    }

    /// Whether both sides have shown that they use the session, and it is not over.
    pub(super) fn is_in_use(self) -> bool {
        let needed = if self.has(Self::TCP) { Self::ANSWERED | Self::CONFIRMED } else { Self::ANSWERED };
        self.has(needed) && !self.is_closing()
    }
}

#[inline]
fn closing_bits(flags: u8, fin: u8) -> u8 {
    let fin = if flags & Tcp::FIN != 0 { fin } else { 0 };
    let reset = if flags & Tcp::RST != 0 { State::RESET } else { 0 };
    fin | reset
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn limits() -> Limits {
        Timeouts {
            syn: Duration::from_secs(1),
            established: Duration::from_secs(2),
            closing: Duration::from_secs(3),
            udp: Duration::from_secs(4),
        }
        .into()
    }

    fn limit(state: State) -> &'static str {
        match state.limit(&limits()) {
            64 => "syn",
            128 => "established",
            192 => "closing",
            256 => "udp",
            _ => "?",
        }
    }

    #[test]
    fn a_connection_is_established_when_the_client_has_confirmed_the_answer() {
        let mut state = State::opened(true).after_client(Tcp::SYN);
        assert_eq!(limit(state), "syn");
        state = state.after_client(Tcp::ACK);
        assert_eq!((limit(state), state.is_in_use()), ("syn", false), "nobody has answered");
        state = state.after_backend(Tcp::SYN | Tcp::ACK).after_client(Tcp::SYN);
        assert_eq!(limit(state), "syn", "a repeated SYN confirms nothing");
        state = state.after_client(Tcp::ACK);
        assert_eq!((limit(state), state.is_in_use()), ("established", true));
    }

    #[test]
    fn a_connection_is_closing_after_two_fins_or_one_rst() {
        let state = State::opened(true).after_backend(Tcp::SYN | Tcp::ACK).after_client(Tcp::ACK);
        let half_closed = state.after_client(Tcp::FIN | Tcp::ACK);
        assert_eq!(limit(half_closed), "established", "the other half may go on for long");
        assert_eq!(limit(half_closed.after_backend(Tcp::FIN | Tcp::ACK)), "closing");
        assert_eq!(limit(state.after_backend(Tcp::FIN).after_client(Tcp::FIN)), "closing");
        assert_eq!(limit(state.after_backend(Tcp::RST)), "closing");
        assert_eq!(limit(state.after_client(Tcp::RST)), "closing");
    }

    #[test]
    fn a_syn_begins_anew_only_what_is_closing() {
        let state = State::opened(true).after_backend(Tcp::SYN | Tcp::ACK).after_client(Tcp::ACK);
        assert_eq!(state.after_client(Tcp::SYN), state);
        assert_eq!(state.after_backend(Tcp::RST).after_client(Tcp::SYN), State::opened(true));
    }

    #[test]
    fn udp_knows_only_whether_it_was_answered() {
        let state = State::opened(false).after_client(0);
        assert_eq!((limit(state), state.is_in_use()), ("udp", false));
        let state = state.after_backend(0);
        assert_eq!((limit(state), state.is_in_use()), ("udp", true));
    }
}
