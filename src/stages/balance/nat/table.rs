//! The sessions of all workers, in one flat array that every worker reads and each number's owner alone writes.
//!
//! # How a session is read while it is written
//!
//! By a sequence lock made of atomics only (Boehm, "Can seqlocks get along with programming language memory models?",
//! 2012): the owner makes the version odd, writes the fields, makes it even again; a reader reads the version, the
//! fields, the version once more, and throws away what it read unless both are the same and even. The fences order
//! the two:
//!
//! * the owner's release fence stands between the odd version and the fields. A reader that sees one of the new
//!   fields, and has its acquire fence behind that, sees the odd version or a later one;
//! * the even version is stored with release and loaded with acquire: who sees it sees the fields.
//!
//! A reader never waits. It meets a session that is being written only where that is just being opened or closed, and
//! then there is no packet of it to translate.
//!
//! # What any worker may write
//!
//! Time and state are outside of this. The state carries the generation it belongs to and is changed by compare and
//! exchange, so news of a flow that is over does not reach the next one of the same number. The time does not; a late
//! one makes a session live a moment longer.
//!
//! # Size
//!
//! One cache line a session, so that a packet costs one miss. All three addresses of an IPv6 session do not fit; the
//! virtual one has an array of its own.

use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicU32, AtomicU64, fence};

use xfwd_ebpf_types::map_ipv4;

use super::super::connections::Tick;
use super::layout::Layout;
use super::session::{Endpoint, Seen, Session, SessionId};
use super::state::State;
use crate::hints::{huge_array, prefetch};

const STATE_BITS: u32 = 8;
/// A number would have to be opened this often between a reader's look and its news for the news to be taken wrongly.
const GENERATIONS: u32 = 1 << (u32::BITS - STATE_BITS);

/// A quarter of a second: how exact a session's idle time is. The line is written at most this often for it.
const REFRESH_TICKS: u32 = 16;

/// A session but for its IPv6 virtual address.
#[derive(Debug, Default)]
#[repr(C, align(64))]
struct Line {
    /// Odd while the owner writes.
    version: AtomicU32,
    /// Generation in the high 24 bits, state in the low 8.
    state: AtomicU32,
    last_seen: AtomicU32,
    member: AtomicU32,
    client: Address,
    backend: Address,
    /// Of client, service, pool and backend, from the high bits to the low ones.
    ports: AtomicU64,
    /// IPv4 address of the service (32 bits), index of the pool's address (16 bits), protocol (8 bits).
    rest: AtomicU64,
}

const _: () = assert!(size_of::<Line>() == 64);

#[derive(Debug, Default)]
struct Address([AtomicU64; 2]);

impl Address {
    #[inline]
    fn load(&self) -> [u8; 16] {
        let [high, low] = [&self.0[0], &self.0[1]].map(|half| u128::from(half.load(Relaxed)));
        (high << 64 | low).to_be_bytes()
    }

    fn store(&self, address: [u8; 16]) {
        let bits = u128::from_be_bytes(address);
        self.0[0].store((bits >> 64) as u64, Relaxed);
        self.0[1].store(bits as u64, Relaxed);
    }
}

/// What is written when a session opens.
#[derive(Clone, Copy, Debug)]
pub(super) struct Opening {
    pub(super) protocol: u8,
    pub(super) client: Endpoint,
    pub(super) service: Endpoint,
    pub(super) backend: Endpoint,
    pub(super) member: u32,
    pub(super) state: State,
    pub(super) now: Tick,
}

/// The array.
#[derive(Debug)]
pub(super) struct Sessions {
    layout: Layout,
    lines: Box<[Line]>,
    /// Virtual addresses of IPv6 sessions; empty where the pool has no IPv6 address.
    services: Box<[Address]>,
}

impl Sessions {
    pub(super) fn new(layout: Layout) -> Self {
        let count = layout.sessions() as usize;
        let wide = if layout.has_ipv6() { count } else { 0 };
        Self { layout, lines: huge_array(count, Line::default), services: huge_array(wide, Address::default) }
    }

    #[inline]
    pub(super) fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Brings what a packet of this number reads near.
    #[inline(always)]
    pub(super) fn ask(&self, id: SessionId, is_ipv4: bool) {
        // For a hint a number that there is not does no harm.
        prefetch(self.lines.as_ptr().wrapping_add(id.0 as usize));
        if !is_ipv4 {
            prefetch(self.services.as_ptr().wrapping_add(id.0 as usize));
        }
    }

    /// Whether the number was open before. For its owner.
    pub(super) fn was_used(&self, id: SessionId) -> bool {
        self.lines[id.0 as usize].version.load(Relaxed) != 0
    }

    /// Opens a session. For its owner alone.
    pub(super) fn open(&self, id: SessionId, opening: &Opening) {
        let (nat, address) = self.layout.end(id.0);
        self.write(id, |line, generation| {
            line.member.store(opening.member, Relaxed);
            line.client.store(opening.client.address);
            line.backend.store(opening.backend.address);
            let ports = [opening.client.port, opening.service.port, nat.port, opening.backend.port];
            line.ports.store(ports.iter().fold(0, |all, port| all << 16 | u64::from(*port)), Relaxed);
            let service = opening.service.ipv4().map_or(0, |address| address.to_bits());
            let rest = u64::from(service) << 32 | u64::from(address) << 16 | u64::from(opening.protocol);
            line.rest.store(rest, Relaxed);
            if !opening.service.is_ipv4() {
                self.services[id.0 as usize].store(opening.service.address);
            }
            line.last_seen.store(opening.now.number(), Relaxed);
            line.state.store(state_word(generation, opening.state), Relaxed);
        });
    }

    /// Closes a session. For its owner alone.
    pub(super) fn close(&self, id: SessionId) {
        self.write(id, |line, generation| line.state.store(state_word(generation, State::CLOSED), Relaxed));
    }

    fn write(&self, id: SessionId, fields: impl FnOnce(&Line, u32)) {
        let line = &self.lines[id.0 as usize];
        let version = line.version.load(Relaxed);
        line.version.store(version.wrapping_add(1), Relaxed);
        fence(Release);
        let next = version.wrapping_add(2);
        fields(line, generation_of(next));
        line.version.store(next, Release);
    }

    /// A copy of an open session. `None` when it is closed, or is being opened or closed.
    #[inline]
    pub(super) fn read(&self, id: SessionId) -> Option<Session> {
        let line = self.lines.get(id.0 as usize)?;
        let version = line.version.load(Acquire);
        let state = line.state.load(Relaxed);
        if version % 2 == 1 || !state_of(state).is_open() {
            return None;
        }
        let last = Tick::from_number(line.last_seen.load(Relaxed));
        let member = line.member.load(Relaxed);
        let (client, backend) = (line.client.load(), line.backend.load());
        let (ports, rest) = (line.ports.load(Relaxed), line.rest.load(Relaxed));
        let service = match backend {
            [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, ..] => map_ipv4(((rest >> 32) as u32).to_be_bytes()),
            _ => self.services.get(id.0 as usize)?.load(),
        };
        fence(Acquire);
        if line.version.load(Relaxed) != version {
            return None;
        }
        let port = |index: u32| (ports >> (48 - 16 * index)) as u16;
        Some(Session {
            id,
            protocol: rest as u8,
            client: Endpoint { address: client, port: port(0) },
            service: Endpoint { address: service, port: port(1) },
            nat: Endpoint { address: self.layout.address((rest >> 16) as u16), port: port(2) },
            backend: Endpoint { address: backend, port: port(3) },
            member,
            seen: Seen { state: state_of(state), generation: state >> STATE_BITS, last },
        })
    }

    /// State and time of a session. For its owner.
    pub(super) fn seen(&self, id: SessionId) -> Seen {
        let line = &self.lines[id.0 as usize];
        let word = line.state.load(Relaxed);
        Seen {
            state: state_of(word),
            generation: word >> STATE_BITS,
            last: Tick::from_number(line.last_seen.load(Relaxed)),
        }
    }

    /// A packet of the session was seen, and this is what it does to the state. For any worker. Writes nothing where
    /// nothing changes, so that two workers do not take the line from each other with every packet.
    #[inline]
    pub(super) fn mark(&self, session: &Session, now: Tick, after: impl Fn(State) -> State) {
        let line = &self.lines[session.id.0 as usize];
        let seen = session.seen;
        if now.since(seen.last) >= REFRESH_TICKS {
            line.last_seen.store(now.number(), Relaxed);
        }
        if after(seen.state) != seen.state {
            // The result does not matter: an error says that there is nothing to change any more.
            let _ = line.state.fetch_update(Relaxed, Relaxed, |word| {
                let state = after(state_of(word));
                let is_news = word >> STATE_BITS == seen.generation && state != state_of(word);
                is_news.then(|| state_word(seen.generation, state))
            });
        }
    }
}

fn generation_of(version: u32) -> u32 {
    (version >> 1) % GENERATIONS
}

#[inline]
fn state_word(generation: u32, state: State) -> u32 {
    generation << STATE_BITS | u32::from(state.0)
}

#[inline]
fn state_of(word: u32) -> State {
    State(word as u8)
}

#[cfg(test)]
mod tests;
