//! Four entries in a cache line.

use super::state::{Lifetimes, State};
use super::tick::Tick;

/// Entries in a bucket.
pub(super) const WAYS: usize = 4;
const STATE_BITS: u32 = 3;
const STATE_MASK: u32 = (1 << STATE_BITS) - 1;

/// A flow, or nothing: then all of it is 0. No flow has the key 0.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub(super) struct Entry {
    pub key: u64,
    pub value: u32,
    /// The state in the low three bits, above them the tick of the last packet.
    meta: u32,
}

/// Entries in no order, with gaps.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C, align(64))]
pub(super) struct Bucket(pub [Entry; WAYS]);

/// How much room a bucket has.
#[derive(Clone, Copy, Debug)]
pub(super) struct Room {
    /// Entries that are free or have expired.
    pub count: usize,
    /// One of them: a free one if there is one.
    pub way: usize,
}

impl Entry {
    #[inline(always)]
    pub fn new(key: u64, value: u32, state: State, seen: Tick) -> Self {
        Self { key, value, meta: seen.number() << STATE_BITS | state as u32 }
    }

    #[inline(always)]
    pub fn is_free(&self) -> bool {
        self.meta == 0
    }

    #[inline(always)]
    pub fn is_in(&self, state: State) -> bool {
        self.meta & STATE_MASK == state as u32
    }

    /// `None` if the entry is free.
    #[inline(always)]
    pub fn state(&self) -> Option<State> {
        Some(match self.meta & STATE_MASK {
            1 => State::New,
            2 => State::Established,
            3 => State::Closing,
            4 => State::NewUdp,
            5 => State::Udp,
            _ => return None,
        })
    }

    /// Ticks since the last packet.
    #[inline(always)]
    pub fn age(&self, now: Tick) -> u32 {
        now.since(Tick::from_number(self.meta >> STATE_BITS))
    }

    /// Whether the entry is neither free nor expired.
    #[inline(always)]
    pub fn is_live(&self, now: Tick, lifetimes: &Lifetimes) -> bool {
        // A free entry has the lifetime 0.
        self.age(now) < lifetimes.0[(self.meta & STATE_MASK) as usize]
    }

    /// Sets state and time of the last packet. Written only if something changes, which spares most lines from being written back.
    #[inline(always)]
    pub fn touch(&mut self, state: State, now: Tick) {
        let meta = now.number() << STATE_BITS | state as u32;
        if self.meta != meta {
            self.meta = meta;
        }
    }
}

impl Bucket {
    /// Where the entry of this key, which is not 0, lies, live or expired; [`WAYS`] for nowhere. Without branches, since nobody could
    /// predict them.
    #[inline(always)]
    pub fn way_of(&self, key: u64) -> usize {
        let ways = self.0.iter().enumerate();
        ways.fold(WAYS, |found, (way, entry)| if entry.key == key { way } else { found })
    }

    #[inline(always)]
    pub fn room(&self, now: Tick, lifetimes: &Lifetimes) -> Option<Room> {
        let mut room: Option<Room> = None;
        for (way, entry) in self.0.iter().enumerate() {
            if entry.is_live(now, lifetimes) {
                continue;
            }
            let known = room.get_or_insert(Room { count: 0, way });
            known.count += 1;
            if entry.is_free() {
                known.way = way;
            }
        }
        room
    }

    /// The entry in probation that was not seen for the longest time, and for how many ticks.
    #[inline]
    pub fn oldest_in_probation(&self, now: Tick) -> Option<(u32, usize)> {
        let ways = self.0.iter().enumerate();
        let in_probation = ways.filter(|(_, entry)| entry.state().is_some_and(State::is_probation));
        in_probation.map(|(way, entry)| (entry.age(now), way)).max_by_key(|&(age, _)| age)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_is_a_cache_line() {
        assert_eq!((size_of::<Entry>(), size_of::<Bucket>(), align_of::<Bucket>()), (16, 64, 64));
    }

    #[test]
    fn an_entry_keeps_state_and_time_of_its_last_packet() {
        for state in [State::New, State::Established, State::Closing, State::NewUdp, State::Udp] {
            for number in [0, 1, (1 << 29) - 1] {
                let seen = Tick::from_number(number);
                let entry = Entry::new(7, 9, state, seen);
                assert_eq!((entry.state(), entry.age(seen.after(5))), (Some(state), 5));
                assert!(!entry.is_free());
            }
        }
        assert_eq!(Entry::default().state(), None);
        assert!(Entry::default().is_free());
    }
}
