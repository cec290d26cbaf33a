//! What came of it: the table, and whether the promises were kept.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::time::{Duration, Instant};

use xfwd_netns::clients::hold::Held;

use crate::client::{MOST_TRIES, Try};
use crate::site::{Site, fall_time};
use crate::{DRAINED, KILLED, SLACK};

/// How far a share may be off its weight: this many standard deviations of a fair draw. One run in ten million is
/// further off by chance.
const TOLERANCE_SIGMA: f64 = 5.5;

/// When something was so for xfwd.
pub struct Times {
    pub drained: Instant,
    pub killed: Instant,
    pub found: Instant,
}

/// Parts of the run. A try belongs to the one that it was begun in.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Well,
    Drained,
    /// A backend is dead, and nobody knows.
    Unnoticed,
    Found,
}

use Part::{Drained, Found, Unnoticed, Well};

const PARTS: [(Part, &str); 4] =
    [(Well, "all well"), (Drained, "a drain"), (Unnoticed, "a death"), (Found, "all known")];

impl Times {
    fn part(&self, one: &Try) -> Part {
        let spans_the_death = one.begun < self.killed && self.killed <= one.ended;
        match one.begun {
            // What broke with the backend.
            _ if one.answer.is_err() && spans_the_death => Unnoticed,
            begun if begun >= self.found => Found,
            begun if begun >= self.killed => Unnoticed,
            begun if begun >= self.drained => Drained,
            _ => Well,
        }
    }
}

pub struct Report {
    /// Pages by part and backend.
    answered: [Vec<u64>; 4],
    /// Tries that failed, by part.
    failed: [u64; 4],
    reasons: BTreeMap<String, u64>,
    /// Pages by how many connections they took; those that were given up are not in it.
    by_tries: BTreeMap<usize, u64>,
    given_up: u64,
    /// Connections held by backend, and how many of them broke.
    held: Vec<(u64, u64)>,
    /// Connections that never were.
    never: u64,
    unnoticed: Duration,
}

/// Something that xfwd promises, in words, and whether it was so.
pub struct Promise {
    pub is_kept: bool,
    text: String,
}

impl fmt::Display for Promise {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", if self.is_kept { "kept  " } else { "BROKEN" }, self.text)
    }
}

impl Report {
    pub fn new(site: &Site, tries: &[Try], held: &Held, times: Times) -> Self {
        let count = site.backends.len();
        let mut report = Self {
            answered: std::array::from_fn(|_| vec![0; count]),
            failed: [0; 4],
            reasons: BTreeMap::new(),
            by_tries: BTreeMap::new(),
            given_up: 0,
            held: vec![(0, 0); count],
            never: held.connections - held.established,
            unnoticed: times.found - times.killed,
        };
        let mut needed: HashMap<u64, usize> = HashMap::new();
        let mut done = BTreeSet::new();
        for one in tries {
            let part = times.part(one) as usize;
            *needed.entry(one.page).or_default() += 1;
            match &one.answer {
                Ok(name) => {
                    done.insert(one.page);
                    if let Some(index) = site.index_of(name) {
                        report.answered[part][index] += 1;
                    }
                }
                Err(reason) => {
                    report.failed[part] += 1;
                    *report.reasons.entry(reason.clone()).or_default() += 1;
                }
            }
        }
        for (page, tries) in needed {
            if done.contains(&page) {
                *report.by_tries.entry(tries).or_default() += 1;
            } else {
                report.given_up += 1;
            }
        }
        for (name, connections) in &held.backends {
            if let Some(index) = site.index_of(name) {
                report.held[index].0 = *connections;
            }
        }
        for broken in &held.broken {
            if let Some(index) = broken.server.as_deref().and_then(|name| site.index_of(name)) {
                report.held[index].1 += 1;
            }
        }
        report
    }

    pub fn table(&self, site: &Site, states: &BTreeMap<String, String>) -> String {
        let heads: String = PARTS.iter().map(|(_, name)| format!("{name:>10}")).collect();
        let mut text = format!(
            "{:<9} {:<13} {:>6}  {:<10}{:^40}  {:^16}\n",
            "", "", "", "", "pages answered while", "connections held"
        );
        text += &format!(
            "{:<9} {:<13} {:>6}  {:<10}{heads}  {:>8}{:>8}\n",
            "backend", "address", "weight", "state", "opened", "broken"
        );
        for (index, backend) in site.backends.iter().enumerate() {
            let pages: String = self.answered.iter().map(|part| format!("{:>10}", part[index])).collect();
            let address = backend.address.to_string();
            let (held, broken) = self.held[index];
            text += &format!(
                "{:<9} {address:<13} {:>6}  {:<10}{pages}  {held:>8}{broken:>8}\n",
                backend.name,
                backend.weight,
                states.get(&address).map_or("?", String::as_str)
            );
        }
        let failed: String = self.failed.iter().map(|failed| format!("{failed:>10}")).collect();
        text += &format!("{:<42}{failed}\n", "connections that failed");
        if !self.reasons.is_empty() {
            let reasons: Vec<String> =
                self.reasons.iter().map(|(reason, count)| format!("{reason}: {count}")).collect();
            text += &format!("\nWhy connections failed: {}.\n", reasons.join(", "));
            let more: Vec<String> =
                self.by_tries.iter().map(|(tries, pages)| format!("{pages} at try {tries}")).collect();
            text += &format!("Pages answered, each try a connection of its own: {}.\n", more.join(", "));
        }
        if self.given_up > 0 {
            text += &format!("Pages given up after {MOST_TRIES} tries: {}.\n", self.given_up);
        }
        text
    }

    /// What was to be shown.
    pub fn promises(&self, site: &Site) -> Vec<Promise> {
        let promise = |is_kept, text: String| Promise { is_kept, text };
        let (drained, killed) = (&site.backends[DRAINED].name, &site.backends[KILLED].name);
        let failed = |part: Part| self.failed[part as usize];
        let answered = |part: Part| &self.answered[part as usize];
        let is_busy = |part: Part| answered(part).iter().sum::<u64>() > 0;
        let after_drain: u64 = [Drained, Unnoticed, Found].iter().map(|part| answered(*part)[DRAINED]).sum();
        let living_broken: u64 =
            self.held.iter().enumerate().filter(|(index, _)| *index != KILLED).map(|(_, held)| held.1).sum();
        let living: u64 = self.held.iter().map(|held| held.0).sum::<u64>() - self.held[KILLED].0;
        vec![
            promise(
                self.shares_fit(site),
                "every backend has its share of the pages while all is well".to_owned(),
            ),
            promise(
                failed(Well) + failed(Drained) == 0 && is_busy(Well) && is_busy(Drained),
                format!(
                    "{} connections failed before {killed} died, reload and drain included",
                    failed(Well) + failed(Drained)
                ),
            ),
            promise(
                after_drain == 0,
                format!("{after_drain} new connections went to {drained} once it was drained"),
            ),
            promise(
                living_broken + self.never == 0 && living > 0 && self.held[DRAINED].0 > 0,
                format!(
                    "{living_broken} of {living} connections held to backends that live, drained or not, broke"
                ),
            ),
            promise(
                self.unnoticed <= fall_time() + SLACK,
                format!(
                    "the death of {killed} was found after {:.1} s (interval x fall + timeout: {:.1} s); {} connections \
                     failed meanwhile",
                    self.unnoticed.as_secs_f64(),
                    fall_time().as_secs_f64(),
                    failed(Unnoticed)
                ),
            ),
            promise(
                failed(Found) + answered(Found)[KILLED] == 0 && is_busy(Found),
                format!(
                    "after that {} connections went to {killed}, and {} failed",
                    answered(Found)[KILLED],
                    failed(Found)
                ),
            ),
        ]
    }

    fn shares_fit(&self, site: &Site) -> bool {
        let answered = &self.answered[Well as usize];
        let total = answered.iter().sum::<u64>().max(1) as f64;
        let weights: u32 = site.backends.iter().map(|backend| backend.weight).sum();
        site.backends.iter().zip(answered).all(|(backend, pages)| {
            let expected = f64::from(backend.weight) / f64::from(weights);
            let sigma = (expected * (1.0 - expected) / total).sqrt();
            (*pages as f64 / total - expected).abs() <= TOLERANCE_SIGMA * sigma
        })
    }
}
