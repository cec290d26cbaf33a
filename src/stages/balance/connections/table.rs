//! The table itself.

use std::hint::black_box;
use std::sync::Arc;

use crossbeam::utils::CachePadded;

use super::ConnectionCounters;
use super::bucket::{Bucket, Entry, WAYS};
use super::room::{Path, Place};
use super::state::{Event, Lifetimes, State, Timeouts};
use super::tick::Tick;
use crate::hints::{gather, huge_pages, prefetch};

/// Buckets on a page of 4,096 bytes.
const BUCKETS_PER_PAGE: usize = 4_096 / size_of::<Bucket>();

/// A flow, and where it can lie in the table.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::stages::balance) struct Asked {
    /// As the table names it.
    key: u64,
    /// The buckets.
    places: [usize; 2],
}

impl Asked {
    /// The key of the flow.
    #[inline(always)]
    pub fn key(&self) -> u64 {
        self.key
    }
}

/// What [`ConnectionTable::find`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// The value of the flow.
    pub value: u32,
    /// A new connection uses the five-tuple of one that was closing: the caller may choose anew, and
    /// [`replace`](ConnectionTable::replace) the value.
    pub restarted: bool,
}

/// What became of a flow that was to be stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Insertion {
    /// It is stored. The entry with the value `freed`, if any, made way: it had expired or was in probation.
    Stored {
        /// Value of the entry that is no more.
        freed: Option<u32>,
    },
    /// It was there, and has the new value now.
    Updated {
        /// Its value before.
        old: u32,
    },
    /// There was no room.
    Refused,
}

/// Flows and their values. See [the module](super) for what it promises.
///
/// ```
/// use std::time::Instant;
///
/// use xfwd::stages::balance::connections::{Clock, ConnectionTable, Event, Timeouts};
///
/// let mut table = ConnectionTable::new(1_000_000, Timeouts::default());
/// let now = Clock::new(Instant::now()).tick(Instant::now());
/// let key = 0x1234_5678_9abc_def0; // FiveTuple::keyed_hash with a secret seed
/// assert!(table.find(key, now, Event::Syn).is_none());
/// table.insert(key, 7, now, Event::Syn);
/// assert_eq!(table.find(key, now, Event::Data).map(|found| found.value), Some(7));
/// ```
#[derive(Debug)]
pub struct ConnectionTable {
    buckets: Box<[Bucket]>,
    lifetimes: Lifetimes,
    /// The bucket with which the sweep goes on.
    cursor: usize,
    /// When the search for room last failed. It is not tried again in the same tick, so a full table does not cost each packet a search.
    searched: Option<Tick>,
    counters: Arc<CachePadded<ConnectionCounters>>,
}

impl ConnectionTable {
    /// A table for `capacity` flows, rounded up to a whole bucket (at least 8): 16 bytes each, allocated and touched here, on huge pages
    /// if the kernel gives them.
    ///
    /// It should be made by the thread that will use it, so that it lies in the memory next to that thread's core.
    ///
    /// # Panics
    ///
    /// When there is not that much memory.
    pub fn new(capacity: usize, timeouts: Timeouts) -> Self {
        let count = capacity.div_ceil(WAYS).max(2);
        let mut buckets = Vec::with_capacity(count);
        huge_pages(buckets.spare_capacity_mut());
        buckets.resize(count, Bucket::default());
        let mut buckets = buckets.into_boxed_slice();
        // A compiler may turn "allocate, then write zeros" into "allocate zeros", which are pages that exist only once they are written
        // to. That is to happen now and not while packets wait.
        let touched = Entry::new(0, 0, State::New, Tick::from_number(0));
        for fill in [touched, Entry::default()] {
            black_box(&mut buckets)
                .iter_mut()
                .step_by(BUCKETS_PER_PAGE)
                .for_each(|bucket| bucket.0[0] = fill);
        }
        gather(&mut buckets);
        Self { buckets, lifetimes: timeouts.into(), cursor: 0, searched: None, counters: Arc::default() }
    }

    /// Brings the two cache lines of a flow near.
    #[inline]
    pub fn prefetch(&self, key: u64) {
        self.ask(key);
    }

    /// As [`prefetch`](Self::prefetch), and keeps where the flow can lie, for [`find_asked`](Self::find_asked).
    #[inline(always)]
    pub(in crate::stages::balance) fn ask(&self, key: u64) -> Asked {
        let key = named(key);
        let places = self.places(key);
        for bucket in places {
            // Within the table, which for a hint does not have to be shown.
            prefetch(self.buckets.as_ptr().wrapping_add(bucket));
        }
        Asked { key, places }
    }

    /// Looks a flow up for one of its packets, which counts as seen: state and time move on.
    ///
    /// A flow whose time is over is not found. Its entry stays until it is swept, or used by the next [`insert`](Self::insert).
    #[inline(always)]
    pub fn find(&mut self, key: u64, now: Tick, event: Event) -> Option<Found> {
        let key = named(key);
        self.find_asked(Asked { key, places: self.places(key) }, now, event)
    }

    /// As [`find`](Self::find), for a flow that was [asked](Self::ask) for.
    #[inline(always)]
    pub(in crate::stages::balance) fn find_asked(
        &mut self,
        asked: Asked,
        now: Tick,
        event: Event,
    ) -> Option<Found> {
        let (bucket, way) = self.place_among(asked)?;
        let entry = &mut self.buckets[bucket].0[way];
        if !entry.is_live(now, &self.lifetimes) {
            return None;
        }
        // Nearly every packet leaves its flow in the state that it has.
        for (state, keeps) in [(State::Established, event == Event::Data), (State::Udp, true)] {
            if keeps && entry.is_in(state) {
                entry.touch(state, now);
                return Some(Found { value: entry.value, restarted: false });
            }
        }
        self.find_moving(asked.key, now, event)
    }

    /// As [`find`](Self::find), where the state may change.
    #[inline(never)]
    fn find_moving(&mut self, key: u64, now: Tick, event: Event) -> Option<Found> {
        let entry = self.live_entry(key, now)?;
        let before = entry.state()?;
        let after = before.after(event);
        entry.touch(after, now);
        let value = entry.value;
        if before.is_probation() && !after.is_probation() {
            self.counters.promoted.add(1);
        }
        Some(Found { value, restarted: before == State::Closing && after == State::New })
    }

    /// The value of a flow that was [asked](Self::ask) for, expired or not, without a packet of it: to bring near what it leads to.
    #[inline(always)]
    pub(in crate::stages::balance) fn glance(&self, asked: Asked) -> Option<u32> {
        let (bucket, way) = self.place_among(asked)?;
        Some(self.buckets[bucket].0[way].value)
    }

    /// Value and state of a flow, without a packet of it: nothing changes.
    pub fn peek(&self, key: u64, now: Tick) -> Option<(u32, State)> {
        let (bucket, way) = self.place_of(key)?;
        let entry = &self.buckets[bucket].0[way];
        let state = entry.state().filter(|_| entry.is_live(now, &self.lifetimes))?;
        Some((entry.value, state))
    }

    /// Stores a flow that [`find`](Self::find) has not found for this packet.
    ///
    /// If the flow is there all the same it gets the value; its state does not change.
    pub fn insert(&mut self, key: u64, value: u32, now: Tick, event: Event) -> Insertion {
        let key = named(key);
        let fresh = Entry::new(key, value, State::first(event), now);
        if let Some((bucket, way)) = self.place_of(key) {
            let entry = &mut self.buckets[bucket].0[way];
            if entry.is_live(now, &self.lifetimes) {
                return Insertion::Updated { old: std::mem::replace(&mut entry.value, value) };
            }
            return self.store((bucket, way), fresh, now);
        }
        match self.make_room(key, now) {
            Some(place) => self.store(place, fresh, now),
            None => {
                self.counters.refused.add(1);
                Insertion::Refused
            }
        }
    }

    /// Gives a flow another value and returns the one it had; `None` if there is no such flow. It is no packet: state and time stay.
    pub fn replace(&mut self, key: u64, value: u32, now: Tick) -> Option<u32> {
        let entry = self.live_entry(key, now)?;
        Some(std::mem::replace(&mut entry.value, value))
    }

    /// Frees the entry of a flow, also if its time is over, and returns its value.
    pub fn remove(&mut self, key: u64) -> Option<u32> {
        let (bucket, way) = self.place_of(key)?;
        let entry = std::mem::take(&mut self.buckets[bucket].0[way]);
        self.counters.removed.add(1);
        self.set_len(self.len() - 1);
        Some(entry.value)
    }

    /// Frees what has expired in the next `buckets` buckets, going round, and reports each value.
    ///
    /// The owner calls it between batches, with so many buckets that a round takes no longer than the shortest timeout: entries
    /// that have expired do no harm to others, but are counted as there.
    pub fn sweep(&mut self, now: Tick, buckets: usize, mut freed: impl FnMut(u32)) {
        let mut expired = 0;
        for _ in 0..buckets.min(self.buckets.len()) {
            for entry in &mut self.buckets[self.cursor].0 {
                if !entry.is_free() && !entry.is_live(now, &self.lifetimes) {
                    freed(entry.value);
                    *entry = Entry::default();
                    expired += 1;
                }
            }
            self.cursor += 1;
            if self.cursor == self.buckets.len() {
                self.cursor = 0;
            }
        }
        if expired > 0 {
            self.counters.expired.add(expired);
            self.set_len(self.len() - expired as usize);
        }
    }

    /// Sets other timeouts. They hold for the flows that are there, too.
    pub fn set_timeouts(&mut self, timeouts: Timeouts) {
        self.lifetimes = timeouts.into();
    }

    /// Entries there are, with those that have expired and were not swept yet.
    pub fn len(&self) -> usize {
        self.counters.entries.get() as usize
    }

    /// Whether there is no entry.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Entries there could be at most.
    pub fn capacity(&self) -> usize {
        self.buckets.len() * WAYS
    }

    /// Number of buckets: as many as [`sweep`](Self::sweep) has to visit for a whole round.
    pub fn buckets(&self) -> usize {
        self.buckets.len()
    }

    /// The counters, to be read from any thread.
    pub fn counters(&self) -> &Arc<CachePadded<ConnectionCounters>> {
        &self.counters
    }

    /// The two buckets in which a flow can lie.
    #[inline(always)]
    fn places(&self, key: u64) -> [usize; 2] {
        places(key, self.buckets.len())
    }

    /// Where the entry of a flow lies, live or expired.
    #[inline(always)]
    fn place_of(&self, key: u64) -> Option<Place> {
        let key = named(key);
        self.place_among(Asked { key, places: self.places(key) })
    }

    #[inline(always)]
    fn place_among(&self, Asked { key, places: [first, second] }: Asked) -> Option<Place> {
        let in_first = self.buckets[first].way_of(key);
        let in_second = self.buckets[second].way_of(key);
        let (bucket, way) = if in_first < WAYS { (first, in_first) } else { (second, in_second) };
        (way < WAYS).then_some((bucket, way))
    }

    #[inline(always)]
    fn live_entry(&mut self, key: u64, now: Tick) -> Option<&mut Entry> {
        let (bucket, way) = self.place_of(key)?;
        let entry = &mut self.buckets[bucket].0[way];
        entry.is_live(now, &self.lifetimes).then_some(entry)
    }

    /// A place for a flow that has none: free, expired, in probation, or `None`.
    fn make_room(&mut self, key: u64, now: Tick) -> Option<Place> {
        let places = self.places(key);
        let rooms = places.map(|bucket| self.buckets[bucket].room(now, &self.lifetimes));
        let roomiest = match rooms {
            [Some(first), Some(second)] if second.count > first.count => Some((places[1], second.way)),
            [Some(first), _] => Some((places[0], first.way)),
            [None, Some(second)] => Some((places[1], second.way)),
            [None, None] => None,
        };
        if roomiest.is_some() {
            return roomiest;
        }
        let oldest = places.map(|bucket| self.buckets[bucket].oldest_in_probation(now));
        match oldest {
            [Some(first), Some(second)] if second.0 > first.0 => Some((places[1], second.1)),
            [Some(first), _] => Some((places[0], first.1)),
            [None, Some(second)] => Some((places[1], second.1)),
            [None, None] => self.move_others(places, now),
        }
    }

    /// Moves entries to their other buckets so that one of these two has room.
    #[cold]
    fn move_others(&mut self, buckets: [usize; 2], now: Tick) -> Option<Place> {
        if self.searched == Some(now) {
            return None;
        }
        let count = self.buckets.len();
        let other = |key, bucket| {
            let [first, second] = places(key, count);
            if bucket == first { second } else { first }
        };
        let Some(path) = Path::search(&self.buckets, buckets, other, now, &self.lifetimes) else {
            self.searched = Some(now);
            return None;
        };
        // What has expired at the end of the path goes to its beginning, where `store` accounts for it.
        let end = path.end();
        let last = self.buckets[end.0].0[end.1];
        let (place, moves) = path.clear(&mut self.buckets);
        self.buckets[place.0].0[place.1] = last;
        self.counters.moved.add(moves);
        Some(place)
    }

    /// Puts an entry in a place that is free, has expired or is in probation, and counts.
    #[inline]
    fn store(&mut self, (bucket, way): Place, fresh: Entry, now: Tick) -> Insertion {
        let old = std::mem::replace(&mut self.buckets[bucket].0[way], fresh);
        self.counters.inserted.add(1);
        if old.is_free() {
            self.set_len(self.len() + 1);
            return Insertion::Stored { freed: None };
        }
        if old.is_live(now, &self.lifetimes) {
            self.counters.evicted.add(1);
        } else {
            self.counters.expired.add(1);
        }
        Insertion::Stored { freed: Some(old.value) }
    }

    fn set_len(&self, len: usize) {
        self.counters.entries.set(len as u64);
    }
}

/// The key that a flow has in the table: free entries have the key 0, so a flow that would have it is taken for that of 1, which is no
/// likelier than any other two having the same.
#[inline(always)]
fn named(key: u64) -> u64 {
    key.max(1)
}

/// A bucket and the one behind it.
#[cold]
fn beside(bucket: usize, buckets: usize) -> [usize; 2] {
    [bucket, if bucket + 1 < buckets { bucket + 1 } else { 0 }]
}

/// The buckets of a flow, from the high and from the low half of its key, by a multiplication instead of a division. They are never
/// the same.
#[inline(always)]
fn places(key: u64, buckets: usize) -> [usize; 2] {
    let of = |bits: u64| ((u128::from(bits) * buckets as u128) >> 64) as usize;
    let (first, second) = (of(key), of(key.rotate_left(32)));
    if first != second {
        return [first, second];
    }
    beside(first, buckets)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const TICKS: u32 = 64;
    const TIMEOUTS: Timeouts = Timeouts {
        syn: Duration::from_secs(10),
        established: Duration::from_secs(24 * 3_600),
        closing: Duration::from_secs(20),
        udp: Duration::from_secs(30),
    };

    fn at(second: u32) -> Tick {
        // Close to the end of the ticks, so that every test goes round.
        Tick::from_number((1 << 29) - 5 * TICKS).after(second * TICKS)
    }

    fn value(table: &mut ConnectionTable, key: u64, second: u32, event: Event) -> Option<u32> {
        table.find(key, at(second), event).map(|found| found.value)
    }

    #[test]
    fn a_flow_lives_as_long_as_its_state_allows_after_its_last_packet() {
        for (events, lifetime) in [
            (&[Event::Syn][..], 10),
            (&[Event::Data], 10),
            (&[Event::Syn, Event::Data], 24 * 3_600),
            (&[Event::Syn, Event::Data, Event::Fin], 20),
            (&[Event::Syn, Event::Data, Event::Fin, Event::Data], 20),
            (&[Event::Udp], 30),
            (&[Event::Udp, Event::Udp], 30),
        ] {
            for (wait, expected) in [(lifetime - 1, Some(7)), (lifetime, None)] {
                let mut table = ConnectionTable::new(64, TIMEOUTS);
                table.insert(1, 7, at(0), events[0]);
                for (&event, second) in events[1..].iter().zip(1..) {
                    assert_eq!(value(&mut table, 1, second, event), Some(7));
                }
                let last = events.len() as u32 - 1;
                assert_eq!(
                    value(&mut table, 1, last + wait, Event::Data),
                    expected,
                    "{events:?} and {wait} s"
                );
            }
        }
    }

    #[test]
    fn acknowledgements_after_the_fin_keep_a_connection() {
        let mut table = ConnectionTable::new(64, TIMEOUTS);
        table.insert(1, 7, at(0), Event::Syn);
        value(&mut table, 1, 1, Event::Fin);
        for second in 2..100 {
            assert_eq!(value(&mut table, 1, second * 10, Event::Data), Some(7));
        }
        assert_eq!(table.peek(1, at(990)), Some((7, State::Closing)));
    }

    #[test]
    fn a_syn_in_closing_tells_that_the_caller_may_choose_anew() {
        let mut table = ConnectionTable::new(64, TIMEOUTS);
        table.insert(1, 7, at(0), Event::Syn);
        for event in [Event::Data, Event::Syn, Event::Fin, Event::Data] {
            assert_eq!(table.find(1, at(1), event), Some(Found { value: 7, restarted: false }), "{event:?}");
        }
        assert_eq!(table.find(1, at(2), Event::Syn), Some(Found { value: 7, restarted: true }));
        assert_eq!(table.replace(1, 8, at(2)), Some(7));
        assert_eq!(table.peek(1, at(2)), Some((8, State::New)));
        assert_eq!(table.find(1, at(2), Event::Syn), Some(Found { value: 8, restarted: false }));
        assert_eq!(value(&mut table, 1, 12, Event::Syn), None, "with the time of a new connection");
    }

    #[test]
    fn what_is_stored_twice_gets_the_value_and_keeps_its_state() {
        let mut table = ConnectionTable::new(64, TIMEOUTS);
        assert_eq!(table.insert(1, 7, at(0), Event::Syn), Insertion::Stored { freed: None });
        assert_eq!(table.insert(1, 8, at(0), Event::Data), Insertion::Updated { old: 7 });
        assert_eq!(table.peek(1, at(0)), Some((8, State::New)));
        assert_eq!(table.insert(1, 9, at(10), Event::Syn), Insertion::Stored { freed: Some(8) }, "expired");
        assert_eq!(table.peek(1, at(10)), Some((9, State::New)));
        assert_eq!(table.len(), 1);
    }

    #[test]
    fn removed_is_gone_and_a_second_time_nothing() {
        let mut table = ConnectionTable::new(64, TIMEOUTS);
        table.insert(0, 7, at(0), Event::Udp);
        assert_eq!((table.remove(0), table.remove(0), table.len()), (Some(7), None, 0));
        assert_eq!(value(&mut table, 0, 0, Event::Udp), None);
        assert_eq!(table.replace(0, 1, at(0)), None);
    }

    #[test]
    fn the_sweep_frees_and_reports_what_has_expired_and_nothing_else() {
        let mut table = ConnectionTable::new(4_096, TIMEOUTS);
        let key = |index: u32| u64::from(index).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        for index in 0..1_000 {
            table.insert(key(index), index, at(0), Event::Syn);
            if index % 2 == 0 {
                table.find(key(index), at(0), Event::Data);
            }
        }
        let mut freed = Vec::new();
        table.sweep(at(9), usize::MAX, |value| freed.push(value));
        assert_eq!((freed.len(), table.len()), (0, 1_000));
        // In steps, as housekeeping does it.
        for _ in 0..table.buckets().div_ceil(100) {
            table.sweep(at(10), 100, |value| freed.push(value));
        }
        freed.sort_unstable();
        assert_eq!(freed, (0..1_000).filter(|index| index % 2 == 1).collect::<Vec<_>>());
        assert_eq!(
            (table.len(), table.counters().expired.get(), table.counters().promoted.get()),
            (500, 500, 500)
        );
        assert!((0..1_000).all(|index| table.peek(key(index), at(10)).is_some() == (index % 2 == 0)));
    }

    #[test]
    fn the_last_in_probation_to_come_is_the_last_to_go() {
        // Two buckets: every flow may lie in both.
        let mut table = ConnectionTable::new(8, TIMEOUTS);
        for index in 0..8u32 {
            let key = u64::from(index) << 61 | u64::from(index);
            assert_eq!(table.insert(key, index, at(index), Event::Syn), Insertion::Stored { freed: None });
        }
        assert!(table.find(0, at(8), Event::Data).is_some(), "the oldest is out of probation");
        for (index, gone) in (8..12).zip([1, 2, 3, 4]) {
            let insertion = table.insert(index, index as u32, at(8), Event::Syn);
            assert_eq!(insertion, Insertion::Stored { freed: Some(gone) });
        }
        assert_eq!(table.peek(0, at(8)), Some((0, State::Established)));
        assert_eq!((table.len(), table.counters().evicted.get()), (8, 4));
    }

    #[test]
    fn a_table_full_of_live_flows_refuses_and_an_expired_one_makes_way() {
        let mut table = ConnectionTable::new(8, TIMEOUTS);
        for key in 1..=8 {
            table.insert(key, key as u32, at(0), Event::Udp);
            table.find(key, at(key as u32 - 1), Event::Udp);
        }
        assert_eq!(table.insert(9, 8, at(29), Event::Syn), Insertion::Refused);
        assert_eq!(table.insert(9, 8, at(30), Event::Syn), Insertion::Stored { freed: Some(1) });
        assert_eq!(
            table.insert(10, 9, at(30), Event::Syn),
            Insertion::Stored { freed: Some(8) },
            "in probation"
        );
        assert_eq!((table.counters().refused.get(), table.len()), (1, 8));
    }

    #[test]
    fn a_flow_whose_key_is_zero_is_not_taken_for_a_free_entry() {
        let mut table = ConnectionTable::new(64, TIMEOUTS);
        assert_eq!(table.find(0, at(0), Event::Data), None);
        assert_eq!((table.peek(0, at(0)), table.remove(0)), (None, None));
        table.insert(0, 7, at(0), Event::Syn);
        assert_eq!(value(&mut table, 0, 1, Event::Data), Some(7));
        assert_eq!((table.remove(0), table.len()), (Some(7), 0));
    }

    #[test]
    fn other_timeouts_hold_for_flows_that_are_there() {
        let mut table = ConnectionTable::new(64, TIMEOUTS);
        table.insert(1, 7, at(0), Event::Udp);
        table.set_timeouts(Timeouts { udp: Duration::from_secs(5), ..TIMEOUTS });
        assert_eq!(value(&mut table, 1, 5, Event::Udp), None);
    }

    #[test]
    fn the_buckets_of_a_flow_are_two_for_every_size() {
        for buckets in [2, 3, 5, 1 << 24] {
            for key in [0, 1, u64::MAX, 1 << 63, 0x1234_5678_1234_5678] {
                let [first, second] = places(key, buckets);
                assert!(first != second && first < buckets && second < buckets, "{key:#x} of {buckets}");
            }
        }
        assert_eq!(ConnectionTable::new(0, TIMEOUTS).capacity(), 8);
        assert_eq!(ConnectionTable::new(1_000_001, TIMEOUTS).capacity(), 1_000_004);
    }
}
