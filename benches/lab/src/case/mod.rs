//! What is measured, as data: a case has contestants that take turns, the first of them xfwd. One file a family of cases.

mod balance;
mod bounce;
mod drop;
mod filter;
mod forward;
mod idle;
mod latency;
mod loss;
mod memory;
mod receive;
mod sizes;
mod times;
mod workers;

use std::collections::BTreeMap;

use anyhow::{Result, bail};
use serde::{Deserialize, Serialize};

use crate::bench::{Bench, Settings};
use crate::offer::{Counted, Traffic, throughput};
use crate::subject::{Failure, Outcome, Subject};

/// What a figure is counted in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Unit {
    /// Packets a second.
    #[serde(rename = "packets/s")]
    PacketsPerSecond,
    /// Milliseconds.
    #[serde(rename = "ms")]
    Milliseconds,
    /// Microseconds.
    #[serde(rename = "us")]
    Microseconds,
    /// 2^20 bytes.
    #[serde(rename = "MiB")]
    Mebibytes,
    /// Hundredths of one core.
    #[serde(rename = "% of a core")]
    PercentOfCore,
}

impl Unit {
    /// Whether more is better.
    pub fn more_is_better(self) -> bool {
        self == Self::PacketsPerSecond
    }
}

/// The axis on which the cases of a family stand in a plot.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    /// What the axis shows: "rules", "flows", "frame bytes", "queues".
    pub axis: &'static str,
    /// Where this case stands.
    pub at: f64,
}

/// One figure of one contestant, in one round.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Reading {
    /// In the case's unit.
    pub value: f64,
    /// Packets a second that were offered.
    pub offered: Option<f64>,
    /// What the generator can do at most with this traffic, packets a second.
    pub generator_limit: Option<f64>,
    /// The subject handled all that was offered: the figure is the generator's.
    pub generator_bound: bool,
    /// The subject works on the generator's core, so the figure has the costs of both.
    pub shares_core: bool,
    /// Further figures, by name.
    pub extra: BTreeMap<&'static str, f64>,
    /// A distribution: percentile (0 to 100) and value in the case's unit, ascending.
    pub curve: Vec<(f64, f64)>,
    /// What part of what was offered was lost: packets a second and percent, ascending by rate.
    pub loss: Vec<(f64, f64)>,
    /// What a reader must know.
    pub notes: Vec<String>,
}

impl Reading {
    /// A figure and nothing else.
    pub fn new(value: f64) -> Self {
        Self { value, ..Self::default() }
    }
}

/// How a contestant is measured, once.
pub type Measure = Box<dyn Fn(&Bench) -> Outcome<Reading>>;

/// One that takes part in a case.
pub struct Contestant {
    /// What the report calls it; unique within the case.
    pub name: String,
    /// How it is measured, once.
    pub measure: Measure,
}

impl Contestant {
    /// One that is measured by this.
    pub fn new(name: impl Into<String>, measure: impl Fn(&Bench) -> Outcome<Reading> + 'static) -> Self {
        Self { name: name.into(), measure: Box::new(measure) }
    }

    /// One that cannot take part, and why.
    pub fn missing(name: impl Into<String>, reason: impl Into<String>) -> Self {
        let reason = reason.into();
        Self::new(name, move |_| Err(Failure::Missing(reason.clone())))
    }

    /// One whose packets a second are counted.
    pub fn throughput(subject: impl Subject + 'static, traffic: &Traffic, counted: Counted) -> Self {
        let traffic = traffic.clone();
        Self::new(subject.name(), move |bench| throughput(bench, &subject, &traffic, counted))
    }
}

/// What is measured with several contestants in turn.
pub struct Case {
    /// Unique, such as `filter-kernel-1000`.
    pub name: String,
    /// What it belongs to, such as `filter-kernel`; the plots show a family.
    pub family: &'static str,
    /// One line for the report.
    pub title: String,
    /// What its figures are counted in.
    pub unit: Unit,
    /// Where it stands in its family.
    pub point: Option<Point>,
    /// Rounds in a full run.
    pub rounds: usize,
    /// Who takes part; ratios are of the first to each of the others.
    pub contestants: Vec<Contestant>,
}

/// What may be lost at a rate that counts as one without loss, as a part of all: 0.01 %.
pub const TOLERATED_LOSS: f64 = 1e-4;

/// Rounds of cases whose figures are quoted.
pub const HEADLINE_ROUNDS: usize = 7;
/// Rounds of cases that are points of a curve.
pub const CURVE_ROUNDS: usize = 3;
/// A quick run has one of so many of them.
const QUICK_DIVIDES: usize = 3;

impl Case {
    /// How many rounds it gets.
    pub fn rounds(&self, settings: &Settings) -> usize {
        let quick = (self.rounds / QUICK_DIVIDES).max(1);
        settings.runs.unwrap_or(if settings.quick { quick } else { self.rounds })
    }
}

/// All cases, in the order of the report. A quick run has fewer points of each curve.
pub fn all(quick: bool) -> Vec<Case> {
    let mut cases = Vec::new();
    cases.extend(receive::cases());
    cases.extend(bounce::cases());
    cases.extend(drop::cases());
    cases.extend(forward::cases());
    cases.extend(sizes::cases(quick));
    cases.extend(workers::cases(quick));
    cases.extend(filter::cases(quick));
    cases.extend(balance::cases(quick));
    cases.extend(latency::cases());
    cases.extend(loss::cases());
    cases.extend(idle::cases());
    cases.extend(times::cases(quick));
    cases.extend(memory::cases());
    cases
}

/// Those of `cases` that `wanted` names, by name or by family; all if it names none.
///
/// # Errors
///
/// A name that is neither, with those that there are.
pub fn select(cases: Vec<Case>, wanted: &[String]) -> Result<Vec<Case>> {
    let is_of = |case: &Case, name: &str| case.name == name || case.family == name;
    if let Some(name) = wanted.iter().find(|name| !cases.iter().any(|case| is_of(case, name))) {
        let mut families: Vec<&str> = cases.iter().map(|case| case.family).collect();
        families.dedup();
        let names: Vec<&str> = cases.iter().map(|case| case.name.as_str()).collect();
        bail!("there is no case `{name}`\nfamilies: {}\ncases: {}", families.join(", "), names.join(", "));
    }
    Ok(cases
        .into_iter()
        .filter(|case| wanted.is_empty() || wanted.iter().any(|name| is_of(case, name)))
        .collect())
}

/// A whole number with commas between thousands.
pub fn grouped(number: u64) -> String {
    indicatif::HumanCount(number).to_string()
}
