//! What a run has given: `report.json` for machines, `report.md` for people, and plots.

pub mod markdown;
mod plots;
pub mod readme;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use crate::bench::Settings;
use crate::case::{Unit, grouped};
use crate::machine::Machine;
use crate::offer::{FCS_BYTES, Traffic};
use crate::statistics::Spread;

/// Number of the format of `report.json`; a change that readers cannot ignore makes it another one.
pub const FORMAT: u32 = 1;
/// The file for machines.
const FILE: &str = "report.json";

/// A run.
#[derive(Clone, Debug, Serialize, Deserialize)]
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
#[derive(Clone, Debug, Serialize, Deserialize)]
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
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct GeneratorLimit {
    /// Bytes of a frame, with FCS.
    pub frame_bytes: usize,
    /// Flows.
    pub flows: u32,
    /// Queues of the interfaces.
    pub queues: u32,
    /// Whether packets go through the generator's host stack, as they must for several queues.
    #[serde(default)]
    pub through_stack: bool,
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
            through_stack: traffic.through_stack || traffic.shape.queues > 1,
            packets_per_second,
        }
    }
}

/// One case.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CaseReport {
    /// Its name.
    pub name: String,
    /// The family it belongs to.
    pub family: String,
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

/// Where a case stands in its family.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Point {
    /// What is counted: "rules", "flows", "frame bytes", "queues".
    pub axis: String,
    /// How many.
    pub at: f64,
}

/// One contestant's figures.
#[derive(Clone, Debug, Serialize, Deserialize)]
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
    pub extra: BTreeMap<String, f64>,
    /// A distribution of the round next to the median: percentile and value.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub curve: Vec<(f64, f64)>,
    /// Loss in percent at the rates that were offered in that round, packets a second.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub loss: Vec<(f64, f64)>,
    /// What a reader must know.
    pub notes: Vec<String>,
}

/// A ratio between contestants.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Ratio {
    /// The contestant that the first one is compared with.
    pub to: String,
    /// One value for each round that both have a figure of.
    #[serde(flatten)]
    pub spread: Spread,
}

/// A contestant without figures.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Absent {
    /// Who it is.
    pub subject: String,
    /// Why.
    pub reason: String,
}

/// Reads the report in a folder.
///
/// # Errors
///
/// If there is none, or its format is another.
pub fn read(folder: &Path) -> Result<Report> {
    let path = folder.join(FILE);
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let report: Report = serde_json::from_str(&text)
        .with_context(|| format!("{} is no report of this version", path.display()))?;
    ensure!(report.format == FORMAT, "{} has format {}, not {FORMAT}", path.display(), report.format);
    Ok(report)
}

/// Writes all files of the report.
pub fn write(report: &Report, folder: &Path) -> Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let write = |name: &str, content: &str| {
        let path = folder.join(name);
        fs::write(&path, content).with_context(|| format!("cannot write {}", path.display()))
    };
    write(FILE, &(serde_json::to_string_pretty(report)? + "\n"))?;
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

#[cfg(test)]
mod tests {
    use super::*;

    /// A run with these cases.
    pub fn report(cases: Vec<CaseReport>) -> Report {
        Report {
            format: FORMAT,
            complete: true,
            command: vec!["--runs".to_owned(), "2".to_owned()],
            started_unix: 1_767_312_000,
            seconds: 1.0,
            machine: Machine {
                cpu: "A processor".to_owned(),
                cores: 2,
                generator_core: 0,
                subject_cores: vec![1],
                memory_mib: 1_024,
                kernel: "6.18.1-of-somebody".to_owned(),
                virtual_machine: true,
                driver: "veth".to_owned(),
                mode: "copy".to_owned(),
                governor: None,
                commit: Some("0123456789abcdef".to_owned()),
                versions: BTreeMap::new(),
            },
            settings: SettingsReport { quick: false, runs: Some(2), seconds_each: 0.7, warm_up_seconds: 0.2 },
            generator: Vec::new(),
            cases,
        }
    }

    /// A case of packets a second with two rounds of each of these contestants.
    pub fn case(name: &str, subjects: &[&str]) -> CaseReport {
        let spread = |low, high| Spread { median: low, min: low, max: high, runs: vec![low, high] };
        let result = |subject: &&str| ContestantReport {
            subject: (*subject).to_owned(),
            spread: spread(1.5e6, 1.6e6),
            offered: Some(2e6),
            generator_limit: None,
            generator_bound: false,
            shares_core: false,
            extra: BTreeMap::new(),
            curve: Vec::new(),
            loss: Vec::new(),
            notes: Vec::new(),
        };
        let ratio = |subject: &&str| Ratio { to: (*subject).to_owned(), spread: spread(1.2, 1.3) };
        CaseReport {
            name: name.to_owned(),
            family: name.to_owned(),
            title: name.to_owned(),
            unit: Unit::PacketsPerSecond,
            more_is_better: true,
            point: None,
            results: subjects.iter().map(result).collect(),
            ratios: subjects.iter().skip(1).map(ratio).collect(),
            missing: Vec::new(),
        }
    }

    #[test]
    fn what_was_written_can_be_read_again() {
        let folder = std::env::temp_dir().join(format!("xfwd-bench-report-{}", std::process::id()));
        let mut one = case("loss-free", &["xfwd", "other"]);
        one.point = Some(Point { axis: "rules".to_owned(), at: 10.0 });
        one.results[0].loss = vec![(0.5e6, 0.0), (2e6, 25.0)];
        one.results[1].curve = vec![(50.0, 1.0), (99.0, 7.0)];
        let written = report(vec![one]);
        write(&written, &folder).unwrap();
        let read = read(&folder).unwrap();
        assert_eq!(serde_json::to_value(&read).unwrap(), serde_json::to_value(&written).unwrap());
        for picture in ["cost-rules", "loss-loss-free", "loss-free"] {
            for kind in ["svg", "png"] {
                assert!(folder.join(format!("{picture}.{kind}")).is_file(), "{picture}.{kind}");
            }
        }
        fs::remove_dir_all(folder).unwrap();
    }
}
