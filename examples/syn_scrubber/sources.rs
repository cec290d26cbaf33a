//! What a worker knows of those who send SYNs.

use std::hash::{BuildHasher, RandomState};

use xfwd::stages::filter::Prefix;

/// Places in the table, of 24 bytes each.
const PLACES: usize = 1 << 16;
/// SYNs in a second of a source that has not answered.
const MOST_OF_UNKNOWN: u32 = 32;
/// SYNs in a second of a source that has.
const MOST_OF_ADMITTED: u32 = 1_000;
/// How long a source is let in after its last SYN.
const ADMITTED_SECONDS: u32 = 60;

/// How a source stands when a SYN of it has come.
pub enum Standing {
    /// It has not answered, or long ago.
    Unknown,
    /// It has.
    Admitted,
    /// It sends too many; whether this is the first of these in this second.
    Excessive { first: bool },
}

/// A table of a fixed size: a source has one place in it, by a secret hash, so that nobody can aim at the place of another.
pub struct Sources {
    key: RandomState,
    places: Box<[Place]>,
}

/// All times are seconds since the start.
#[derive(Clone, Copy, Default)]
struct Place {
    id: u64,
    admitted_until: u32,
    /// The second in which SYNs are counted.
    second: u32,
    syns: u32,
}

impl Sources {
    pub fn new() -> Self {
        Self { key: RandomState::new(), places: vec![Place::default(); PLACES].into() }
    }

    fn place(&mut self, source: Prefix) -> (u64, &mut Place) {
        let id = self.key.hash_one(source);
        (id, &mut self.places[id as usize % PLACES])
    }

    /// Counts a SYN. One of a source that finds its place taken by an admitted one is not counted: a flood of made-up
    /// sources must not make the worker forget those who are there. Nor is one whose place is that of another which has sent
    /// in this second, or two that flood would have each other forgotten, and neither be denied: its turn is the next second.
    pub fn syn(&mut self, source: Prefix, now: u32) -> Standing {
        let (id, place) = self.place(source);
        let is_admitted = place.admitted_until > now;
        if place.id != id {
            if is_admitted || (place.syns > 0 && place.second == now) {
                return Standing::Unknown;
            }
            *place = Place { id, ..Place::default() };
        }
        place.syns = if place.second == now { place.syns.saturating_add(1) } else { 1 };
        place.second = now;
        let most = if is_admitted { MOST_OF_ADMITTED } else { MOST_OF_UNKNOWN };
        if place.syns > most {
            return Standing::Excessive { first: place.syns == most + 1 };
        }
        if !is_admitted {
            return Standing::Unknown;
        }
        place.admitted_until = now + ADMITTED_SECONDS;
        Standing::Admitted
    }

    /// Lets a source in that has answered.
    pub fn admit(&mut self, source: Prefix, now: u32) {
        let (id, place) = self.place(source);
        if place.id != id {
            *place = Place { id, ..Place::default() };
        }
        place.admitted_until = now + ADMITTED_SECONDS;
    }
}
