//! What is denied now, until when, and who wants it.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet};
use std::time::{Duration, Instant};

use serde::Serialize;
use xfwd_ebpf_types::deny::{MAX_DENIED_FLOWS, MAX_DENIED_HOSTS, MAX_DENIED_PREFIXES};

use super::file::Line;
use super::{DenyEntry, DenyTable};
use crate::kernel::xdp::XdpError;

/// Why an entry could not be added.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DenyError {
    /// The map for this kind of entry is full.
    #[error("{entry} is not denied: the list holds {capacity} {kind}, and all places are taken")]
    Full {
        /// The entry.
        entry: DenyEntry,
        /// Kind of entries.
        kind: &'static str,
        /// How many there can be.
        capacity: usize,
    },
    /// The kernel refused.
    #[error("{entry}: {source}")]
    Kernel {
        /// The entry.
        entry: DenyEntry,
        /// What it said.
        source: Box<XdpError>,
    },
}

/// Counters of the deny list.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct DenyCounts {
    /// Entries there are now.
    pub entries: u64,
    /// Entries that were put into the kernel.
    pub added: u64,
    /// Entries whose time was over.
    pub expired: u64,
    /// Entries that were taken back.
    pub removed: u64,
    /// Entries refused since a map was full.
    pub map_full: u64,
    /// Entries that the kernel refused.
    pub failed: u64,
    /// Entries that did not fit the queue between stages and kernel.
    pub queue_full: u64,
    /// Versions of the file that could not be used.
    pub bad_files: u64,
}

/// Kinds of entries, each with a map of its own.
const KINDS: [(&str, usize); 4] = [
    ("addresses", MAX_DENIED_HOSTS as usize),
    ("IPv4 prefixes", MAX_DENIED_PREFIXES as usize),
    ("IPv6 prefixes", MAX_DENIED_PREFIXES as usize),
    ("5-tuples", MAX_DENIED_FLOWS as usize),
];

/// Index in `KINDS`.
pub(crate) fn kind(entry: &DenyEntry) -> usize {
    match entry {
        DenyEntry::Source(prefix) => match (prefix.ip_version(), prefix.length()) {
            (4, 32) | (_, 128) => 0,
            (4, _) => 1,
            _ => 2,
        },
        DenyEntry::Flow { .. } => 3,
    }
}

/// What does not fit, if all these lines were denied at once: how many of which kind, and how many there can be.
pub(crate) fn too_many(lines: &[Line]) -> Option<String> {
    let distinct: HashSet<&DenyEntry> = lines.iter().map(|line| &line.entry).collect();
    let mut counts = [0; KINDS.len()];
    distinct.into_iter().for_each(|entry| counts[kind(entry)] += 1);
    let too_many = KINDS.iter().zip(counts).find(|((_, capacity), count)| count > capacity);
    too_many.map(|((name, capacity), count)| format!("{count} {name}; at most {capacity}"))
}

/// Until when somebody wants an entry.
#[derive(Clone, Copy, Debug, Default)]
struct Wanted {
    /// By [`add`](Held::add).
    until: Option<Instant>,
    by_file: Option<ByFile>,
}

#[derive(Clone, Copy, Debug)]
struct ByFile {
    ttl: Option<Duration>,
    /// Since when the line is in the file.
    since: Instant,
}

impl ByFile {
    /// `None`: for ever.
    fn end(&self) -> Option<Instant> {
        self.ttl.map(|ttl| self.since + ttl)
    }
}

/// What becomes of an entry at some time.
enum Fate {
    Over,
    Until(Instant),
    Stays,
}

impl Wanted {
    fn fate(&self, now: Instant) -> Fate {
        let file = self.by_file.as_ref().map(ByFile::end);
        if matches!(file, Some(None)) {
            return Fate::Stays;
        }
        let ends = [self.until, file.flatten()].into_iter().flatten();
        ends.filter(|end| *end > now).max().map_or(Fate::Over, Fate::Until)
    }
}

pub(super) struct Held {
    tables: Vec<Box<dyn DenyTable>>,
    entries: HashMap<DenyEntry, Wanted>,
    /// Lines of the file whose time is over, which are not to start again as long as they stand there.
    spent: HashMap<DenyEntry, ByFile>,
    /// One element an entry that may end, at or before its end.
    ends: BinaryHeap<Reverse<(Instant, DenyEntry)>>,
    by_kind: [usize; KINDS.len()],
    capacities: [usize; KINDS.len()],
    counts: DenyCounts,
}

impl Held {
    pub fn new(tables: Vec<Box<dyn DenyTable>>) -> Self {
        Self {
            tables,
            entries: HashMap::new(),
            spent: HashMap::new(),
            ends: BinaryHeap::new(),
            by_kind: [0; KINDS.len()],
            capacities: KINDS.map(|(_, capacity)| capacity),
            counts: DenyCounts::default(),
        }
    }

    pub fn counts(&self) -> DenyCounts {
        DenyCounts { entries: self.entries.len() as u64, ..self.counts.clone() }
    }

    pub fn bad_file(&mut self) {
        self.counts.bad_files += 1;
    }

    /// Denies until `until`, or longer if that was said before.
    pub fn add(&mut self, entry: DenyEntry, until: Instant) -> Result<(), DenyError> {
        let mut wanted = self.entries.get(&entry).copied().unwrap_or_default();
        wanted.until = Some(wanted.until.map_or(until, |before| before.max(until)));
        self.want(entry, wanted)
    }

    pub fn remove(&mut self, entry: &DenyEntry) -> Result<bool, DenyError> {
        let Some(wanted) = self.entries.get_mut(entry) else { return Ok(false) };
        if wanted.until.take().is_none() {
            return Ok(false);
        }
        if wanted.by_file.is_none() {
            self.take_out(entry)?;
            self.counts.removed += 1;
        }
        Ok(true)
    }

    /// Takes over what the file has now. Lines that cannot be added are told, the others are.
    pub fn replace_file(&mut self, lines: &[Line], now: Instant) -> Vec<DenyError> {
        let mut errors = Vec::new();
        let new: HashMap<DenyEntry, Option<Duration>> =
            lines.iter().map(|line| (line.entry, line.ttl)).collect();
        self.spent.retain(|entry, by_file| new.get(entry) == Some(&by_file.ttl));
        let gone: Vec<DenyEntry> = self
            .entries
            .iter()
            .filter(|(entry, wanted)| wanted.by_file.is_some() && !new.contains_key(entry))
            .map(|(entry, _)| *entry)
            .collect();
        for entry in gone {
            let Some(wanted) = self.entries.get_mut(&entry) else { continue };
            let was_for_ever = wanted.by_file.take().is_some_and(|by_file| by_file.ttl.is_none());
            if let Some(until) = wanted.until.filter(|until| *until > now) {
                if was_for_ever {
                    self.ends.push(Reverse((until, entry)));
                }
            } else {
                match self.take_out(&entry) {
                    Ok(()) => self.counts.removed += 1,
                    Err(error) => errors.push(error),
                }
            }
        }
        for (entry, ttl) in new {
            if self.spent.contains_key(&entry) {
                continue;
            }
            let mut wanted = self.entries.get(&entry).copied().unwrap_or_default();
            if wanted.by_file.is_some_and(|before| before.ttl == ttl) {
                continue;
            }
            wanted.by_file = Some(ByFile { ttl, since: now });
            errors.extend(self.want(entry, wanted).err());
        }
        errors
    }

    /// Puts an entry into the kernel, if it is not there.
    fn want(&mut self, entry: DenyEntry, wanted: Wanted) -> Result<(), DenyError> {
        let is_new = !self.entries.contains_key(&entry);
        if is_new {
            self.put_in(&entry)?;
        }
        let end = match wanted.fate(Instant::now()) {
            Fate::Until(end) => Some(end),
            // Not even for a moment: it goes with the next look at the clock.
            Fate::Over => wanted.until,
            Fate::Stays => None,
        };
        if let Some(end) = end {
            let had_an_end = !is_new
                && self
                    .entries
                    .get(&entry)
                    .is_some_and(|before| before.by_file.is_none_or(|by_file| by_file.ttl.is_some()));
            // An earlier element finds the later end when its time comes.
            if !had_an_end {
                self.ends.push(Reverse((end, entry)));
            }
        }
        self.entries.insert(entry, wanted);
        Ok(())
    }

    fn put_in(&mut self, entry: &DenyEntry) -> Result<(), DenyError> {
        let kind = kind(entry);
        if self.by_kind[kind] >= self.capacities[kind] {
            self.counts.map_full += 1;
            return Err(DenyError::Full {
                entry: *entry,
                kind: KINDS[kind].0,
                capacity: self.capacities[kind],
            });
        }
        for index in 0..self.tables.len() {
            if let Err(source) = self.tables[index].insert(entry) {
                for table in &mut self.tables[..index] {
                    let _ = table.remove(entry);
                }
                self.counts.failed += 1;
                return Err(DenyError::Kernel { entry: *entry, source: source.into() });
            }
        }
        self.by_kind[kind] += 1;
        self.counts.added += 1;
        Ok(())
    }

    fn take_out(&mut self, entry: &DenyEntry) -> Result<(), DenyError> {
        let mut result = Ok(());
        for table in &mut self.tables {
            if let Err(source) = table.remove(entry) {
                self.counts.failed += 1;
                result = Err(DenyError::Kernel { entry: *entry, source: source.into() });
            }
        }
        if result.is_ok() && self.entries.remove(entry).is_some() {
            self.by_kind[kind(entry)] -= 1;
        }
        result
    }

    /// Takes out what has come to its end, and says when the next one does.
    pub fn expire(&mut self, now: Instant) -> Vec<DenyError> {
        let mut errors = Vec::new();
        while let Some(&Reverse((end, entry))) = self.ends.peek()
            && end <= now
        {
            self.ends.pop();
            let Some(wanted) = self.entries.get(&entry).copied() else { continue };
            match wanted.fate(now) {
                Fate::Stays => {}
                Fate::Until(later) => self.ends.push(Reverse((later, entry))),
                Fate::Over => match self.take_out(&entry) {
                    Ok(()) => {
                        self.counts.expired += 1;
                        if let Some(by_file) = wanted.by_file {
                            self.spent.insert(entry, by_file);
                        }
                    }
                    Err(error) => {
                        // Tried again: what is over must not go on to be dropped.
                        self.ends.push(Reverse((now + Duration::from_secs(1), entry)));
                        errors.push(error);
                    }
                },
            }
        }
        errors
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Fake(Arc<Mutex<BTreeSet<DenyEntry>>>);

    impl DenyTable for Fake {
        fn insert(&mut self, entry: &DenyEntry) -> Result<(), XdpError> {
            self.0.lock().unwrap().insert(*entry);
            Ok(())
        }
        fn remove(&mut self, entry: &DenyEntry) -> Result<(), XdpError> {
            self.0.lock().unwrap().remove(entry);
            Ok(())
        }
    }

    fn held() -> (Held, Fake) {
        let fake = Fake::default();
        (Held::new(vec![Box::new(fake.clone())]), fake)
    }

    fn entry(text: &str) -> DenyEntry {
        text.parse().unwrap()
    }

    fn shown(fake: &Fake) -> Vec<String> {
        fake.0.lock().unwrap().iter().map(ToString::to_string).collect()
    }

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn an_entry_ends_with_the_later_of_its_ends() {
        let (mut held, fake) = held();
        let now = Instant::now();
        held.add(entry("192.0.2.1"), now + 10 * SECOND).unwrap();
        held.add(entry("192.0.2.1"), now + 20 * SECOND).unwrap();
        held.add(entry("192.0.2.1"), now + 5 * SECOND).unwrap();
        assert!(held.expire(now + 19 * SECOND).is_empty());
        assert_eq!(shown(&fake), ["192.0.2.1/32"]);
        held.expire(now + 20 * SECOND);
        assert!(shown(&fake).is_empty());
        let counts = held.counts();
        assert_eq!((counts.entries, counts.added, counts.expired), (0, 1, 1));
        assert!(held.ends.is_empty());
    }

    #[test]
    fn a_full_map_refuses_and_keeps_what_it_has() {
        let (mut held, fake) = held();
        held.capacities = [2; 4];
        let until = Instant::now() + 60 * SECOND;
        held.add(entry("192.0.2.1"), until).unwrap();
        held.add(entry("192.0.2.2"), until).unwrap();
        let error = held.add(entry("192.0.2.3"), until).unwrap_err();
        assert_eq!(
            error.to_string(),
            "192.0.2.3/32 is not denied: the list holds 2 addresses, and all places are taken"
        );
        // Another kind has places of its own, and what is there can be told a new end.
        held.add(entry("10.0.0.0/8"), until).unwrap();
        held.add(entry("192.0.2.1"), until + SECOND).unwrap();
        assert_eq!(held.counts().map_full, 1);
        assert_eq!(shown(&fake).len(), 3);
        assert!(held.remove(&entry("192.0.2.1")).unwrap());
        held.add(entry("192.0.2.3"), until).unwrap();
    }

    #[test]
    fn the_file_and_others_do_not_take_away_what_the_other_wants() {
        let (mut held, fake) = held();
        let now = Instant::now();
        let line = |text: &str, ttl| Line { entry: entry(text), ttl };
        held.add(entry("192.0.2.1"), now + 10 * SECOND).unwrap();
        assert!(held.replace_file(&[line("192.0.2.1", None), line("192.0.2.2", None)], now).is_empty());
        held.expire(now + 11 * SECOND);
        assert_eq!(shown(&fake), ["192.0.2.1/32", "192.0.2.2/32"]);
        assert!(held.remove(&entry("192.0.2.1")).unwrap());
        assert!(!held.remove(&entry("192.0.2.1")).unwrap());
        assert_eq!(shown(&fake).len(), 2);
        held.add(entry("192.0.2.2"), now + 100 * SECOND).unwrap();
        held.replace_file(&[], now);
        assert_eq!(shown(&fake), ["192.0.2.2/32"]);
        held.expire(now + 100 * SECOND);
        assert!(shown(&fake).is_empty(), "what was for ever by the file has an end again");
    }

    #[test]
    fn a_line_whose_time_is_over_starts_again_only_when_it_was_gone() {
        let (mut held, fake) = held();
        let now = Instant::now();
        let lines = [Line { entry: entry("192.0.2.1"), ttl: Some(5 * SECOND) }];
        held.replace_file(&lines, now);
        held.replace_file(&lines, now + 3 * SECOND);
        held.expire(now + 5 * SECOND);
        assert!(shown(&fake).is_empty());
        held.replace_file(&lines, now + 6 * SECOND);
        assert!(shown(&fake).is_empty());
        held.replace_file(&[], now + 7 * SECOND);
        held.replace_file(&lines, now + 8 * SECOND);
        assert_eq!(shown(&fake).len(), 1);
    }
}
