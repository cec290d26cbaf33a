//! IPv4 addresses to vectors, by tables of which each is indexed by some bits.
//!
//! An entry for all of whose addresses the same holds leads to a place that it shares with others, not to a table of its own; what is done
//! is the same, so there is no branch to be predicted. Four loads and some thirty instructions, where a binary search takes nine a step;
//! but more memory, so it is for lists that divide addresses finely. The first table is small: it is all that most addresses need
//! that no rule names, and a flood of those comes from everywhere.
//!
//! Source: Gupta, Lin and McKeown, Routing Lookups in Hardware at Memory Access Speeds (INFOCOM 1998), with more levels.

use foldhash::{HashMap, HashMapExt};

use super::Vector;

/// Tables that would take more bytes are not made: they are to stay in a core's second cache, beside other things.
const MOST_BYTES: usize = 1 << 20;
/// Last bits of an address that an entry of each table leaves to the tables behind it; 12, 6, 6 and 8 bits are looked at.
const LEFT: [u32; LEVELS] = [20, 14, 8];
/// Tables of entries; behind them is that of vectors.
const LEVELS: usize = 3;

/// The tables.
#[derive(Debug)]
pub(super) struct Levels {
    first: Vec<Entry>,
    second: Vec<Entry>,
    third: Vec<Entry>,
    vectors: Vec<Vector>,
}

/// Where the next table begins, above eight bits that say which of the next bits of the address count there: none if it has one entry.
#[derive(Clone, Copy, Debug, Default)]
struct Entry(u32);

impl Entry {
    /// `None` if the place is too far.
    fn new(place: usize, mask: u32) -> Option<Self> {
        let place = u32::try_from(place).ok().filter(|place| *place < 1 << 24)?;
        Some(Self(place << 8 | mask))
    }

    #[inline(always)]
    fn place(self, bits: u32) -> usize {
        ((self.0 >> 8) + (bits & self.0 & 0xff)) as usize
    }
}

impl Levels {
    /// From the first address of each range, from 0 on and in order, and the vectors of the ranges. `None` if that would take too much memory.
    pub fn new(starts: &[u32], vectors: &[Vector]) -> Option<Self> {
        let mut making = Making {
            starts,
            vectors,
            at: 0,
            shared: HashMap::new(),
            entries: [vec![], vec![]],
            last: vec![],
        };
        let first: Option<Vec<Entry>> =
            (0..1 << (u32::BITS - LEFT[0])).map(|bits: u32| making.entry(0, bits << LEFT[0])).collect();
        let Making { entries: [second, third], last: vectors, .. } = making;
        Some(Self { first: first?, second, third, vectors })
    }

    #[inline(always)]
    pub fn find(&self, address: u32) -> Vector {
        let entry = self.first[(address >> LEFT[0]) as usize];
        let entry = self.second[entry.place(address >> LEFT[1])];
        let entry = self.third[entry.place(address >> LEFT[2])];
        self.vectors[entry.place(address)]
    }

    pub fn memory_bytes(&self) -> usize {
        let entries = self.first.len() + self.second.len() + self.third.len();
        entries * size_of::<Entry>() + size_of_val(&self.vectors[..])
    }
}

/// Tables that are being made, in the order of addresses.
struct Making<'a> {
    starts: &'a [u32],
    vectors: &'a [Vector],
    /// The range that was reached.
    at: usize,
    /// By vector: the places in the tables behind the first one that lead to it whatever the address is.
    shared: HashMap<Vector, [usize; LEVELS]>,
    /// The second and the third table.
    entries: [Vec<Entry>; LEVELS - 1],
    last: Vec<Vector>,
}

impl Making<'_> {
    /// The vector of an address, and whether it is that of all up to `last`.
    fn here(&mut self, address: u32, last: u32) -> (Vector, bool) {
        while self.starts.get(self.at + 1).is_some_and(|start| *start <= address) {
            self.at += 1;
        }
        (self.vectors[self.at], self.starts.get(self.at + 1).is_none_or(|start| *start > last))
    }

    /// The entry of the table of this level for addresses from this one on. `None` if there is no more room.
    fn entry(&mut self, level: usize, address: u32) -> Option<Entry> {
        if self.bytes() > MOST_BYTES {
            return None;
        }
        let (vector, is_one) = self.here(address, address | ((1 << LEFT[level]) - 1));
        if is_one {
            return Entry::new(self.shared(vector)?[level], 0);
        }
        let Some(next) = LEFT.get(level + 1) else {
            let place = self.last.len();
            for address in address..=address | 0xff {
                let (vector, _) = self.here(address, address);
                self.last.push(vector);
            }
            return Entry::new(place, 0xff);
        };
        let mask = (1 << (LEFT[level] - next)) - 1;
        let entries: Option<Vec<Entry>> =
            (0..=mask).map(|bits| self.entry(level + 1, address | bits << next)).collect();
        let place = self.entries[level].len();
        self.entries[level].extend(entries?);
        Entry::new(place, mask)
    }

    fn shared(&mut self, vector: Vector) -> Option<[usize; LEVELS]> {
        if let Some(places) = self.shared.get(&vector) {
            return Some(*places);
        }
        let places = [self.entries[0].len(), self.entries[1].len(), self.last.len()];
        self.entries[0].push(Entry::new(places[1], 0)?);
        self.entries[1].push(Entry::new(places[2], 0)?);
        self.last.push(vector);
        self.shared.insert(vector, places);
        Some(places)
    }

    fn bytes(&self) -> usize {
        let entries = self.entries[0].len() + self.entries[1].len();
        entries * size_of::<Entry>() + size_of_val(&self.last[..])
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Many ranges side by side, and some far away.
    fn start() -> impl Strategy<Value = u32> {
        prop_oneof![any::<u32>(), 0u32..300, 0x0a00_0000u32..0x0a03_0000, 0xffff_ff00..=u32::MAX]
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

        #[test]
        fn every_address_is_found_in_its_range(
            starts in proptest::collection::btree_set(start(), 0..200),
            probes in proptest::collection::vec(start(), 50),
        ) {
            let starts: Vec<u32> = std::iter::once(0).chain(starts.into_iter().filter(|start| *start > 0)).collect();
            // Some of them the same.
            let vectors: Vec<Vector> = (0..starts.len()).map(|at| Vector(at as u16 % 50)).collect();
            let levels = Levels::new(&starts, &vectors).unwrap();
            let edges = starts.iter().flat_map(|start| [start.wrapping_sub(1), *start, start.wrapping_add(1)]);
            for probe in probes.into_iter().chain(edges).chain([0, u32::MAX]) {
                let at = starts.partition_point(|start| *start <= probe) - 1;
                prop_assert_eq!(levels.find(probe), vectors[at]);
            }
        }
    }

    #[test]
    fn tables_that_would_be_too_large_are_not_made() {
        let starts: Vec<u32> =
            (0..=u16::MAX.into()).map(|high: u32| high << 16 | u32::from(high > 0)).collect();
        assert!(Levels::new(&starts, &vec![Vector(1); starts.len()]).is_none());
    }
}
