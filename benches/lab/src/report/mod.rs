//! What a run has given: `report.json` for machines, `report.md` for people, and plots.

pub mod markdown;
mod plots;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde::Serialize;

use crate::bench::Settings;
use crate::case::{Point, Unit, grouped};
use crate::machine::Machine;
use crate::offer::{FCS_BYTES, Traffic};
use crate::statistics::Spread;

/// Number of the format of `report.json`; a change that readers cannot ignore makes it another one.
pub const FORMAT: u32 = 1;

/// A run.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// [`FORMAT`].
    pub format: u32,
    /// Whether all that was asked for was measured; not so after Ctrl-C.
    pub complete: bool,
    /// The arguments.
    pub command: Vec<String>,
    /// When it began, in seconds since 1970.
    pub started_unix: u64,
    /// How long it took.
    pub seconds: f64,
    /// What it was made on.
    pub machine: Machine,
    /// How thorough it was.
    pub settings: SettingsReport,
    /// What the generator could do at most, by traffic.
    pub generator: Vec<GeneratorLimit>,
    /// What was measured.
    pub cases: Vec<CaseReport>,
}

/// How thorough a run was.
#[derive(Clone, Debug, Serialize)]
pub struct SettingsReport {
    /// Fewer points of each curve.
    pub quick: bool,
    /// Rounds that were asked for, for all cases.
    pub runs: Option<usize>,
    /// Length of one measurement.
    pub seconds_each: f64,
    /// How long packets were sent before anything was counted.
    pub warm_up_seconds: f64,
}

impl SettingsReport {
    /// Of these settings.
    pub fn new(settings: &Settings) -> Self {
        Self {
            quick: settings.quick,
            runs: settings.runs,
            seconds_each: settings.time.as_secs_f64(),
            warm_up_seconds: settings.warm_up().as_secs_f64(),
        }
    }
}

/// What the generator could do at most with one kind of traffic, into an XDP program that drops everything.
#[derive(Clone, Debug, Serialize)]
pub struct GeneratorLimit {
    /// Bytes of a frame, with FCS.
    pub frame_bytes: usize,
    /// Flows.
    pub flows: u32,
    /// Queues of the interfaces.
    pub queues: u32,
    /// Packets a second.
    pub packets_per_second: f64,
}

impl GeneratorLimit {
    /// Of this traffic.
    pub fn new(traffic: &Traffic, packets_per_second: f64) -> Self {
        Self {
            frame_bytes: traffic.frame_length + FCS_BYTES,
            flows: traffic.flows,
            queues: traffic.shape.queues,
            packets_per_second,
        }
    }
}

/// One case.
#[derive(Clone, Debug, Serialize)]
pub struct CaseReport {
    /// Its name.
    pub name: String,
    /// The family it belongs to.
    pub family: &'static str,
    /// What it is about.
    pub title: String,
    /// What its figures are counted in.
    pub unit: Unit,
    /// Whether more is better.
    pub more_is_better: bool,
    /// Where it stands in its family.
    pub point: Option<Point>,
    /// Those that have figures, in the order of the case: xfwd first, if it has one.
    pub results: Vec<ContestantReport>,
    /// The first contestant's figure over another's of the same round.
    pub ratios: Vec<Ratio>,
    /// Those that have none.
    pub missing: Vec<Absent>,
}

/// One contestant's figures.
#[derive(Clone, Debug, Serialize)]
pub struct ContestantReport {
    /// Who it is.
    pub subject: String,
    /// The figures.
    #[serde(flatten)]
    pub spread: Spread,
    /// Packets a second that were offered, median.
    pub offered: Option<f64>,
    /// What the generator can do at most with this traffic.
    pub generator_limit: Option<f64>,
    /// In at least one round all that was offered was handled: the subject may be faster than the figure.
    pub generator_bound: bool,
    /// It works on the generator's core: the figure has the costs of both.
    pub shares_core: bool,
    /// Further figures, medians.
    pub extra: BTreeMap<&'static str, f64>,
    /// A distribution of the round next to the median: percentile and value.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub curve: Vec<(f64, f64)>,
    /// Loss in percent at the rates that were offered in that round, packets a second.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub loss: Vec<(f64, f64)>,
    /// What a reader must know.
    pub notes: Vec<String>,
}

/// A ratio between contestants.
#[derive(Clone, Debug, Serialize)]
pub struct Ratio {
    /// The contestant that the first one is compared with.
    pub to: String,
    /// One value for each round that both have a figure of.
    #[serde(flatten)]
    pub spread: Spread,
}

/// A contestant without figures.
#[derive(Clone, Debug, Serialize)]
pub struct Absent {
    /// Who it is.
    pub subject: String,
    /// Why.
    pub reason: String,
}

/// Writes all files of the report.
pub fn write(report: &Report, folder: &Path) -> Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let write = |name: &str, content: &str| {
        let path = folder.join(name);
        fs::write(&path, content).with_context(|| format!("cannot write {}", path.display()))
    };
    write("report.json", &(serde_json::to_string_pretty(report)? + "\n"))?;
    let pictures = plots::write(report, folder)?;
    write("report.md", &markdown::document(report, &pictures))
}

/// A figure with its unit, as people read it.
pub fn figure(value: f64, unit: Unit) -> String {
    match unit {
        Unit::PacketsPerSecond if value >= 1e6 => format!("{:.3} Mpps", value / 1e6),
        Unit::PacketsPerSecond if value >= 1e4 => format!("{:.1} kpps", value / 1e3),
        Unit::PacketsPerSecond => format!("{} pps", grouped(value as u64)),
        Unit::Milliseconds => format!("{value:.1} ms"),
        Unit::Microseconds => format!("{value:.1} µs"),
        Unit::Mebibytes => format!("{value:.1} MiB"),
        Unit::PercentOfCore => format!("{value:.2} %"),
    }
}
