//! Taking turns: A B C, A B C, … so that what else happens on the machine meets all contestants alike, and a ratio is between
//! neighbours in time.

use std::collections::BTreeMap;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use anyhow::Result;

use crate::bench::Bench;
use crate::case::{Case, Contestant, Reading};
use crate::interrupt::interrupted;
use crate::machine::Machine;
use crate::progress::Progress;
use crate::report::{
    Absent, CaseReport, ContestantReport, GeneratorLimit, Point, Ratio, Report, SettingsReport,
};
use crate::statistics::Spread;
use crate::subject::Failure;

/// Measures all cases, until it is interrupted.
pub fn run(bench: &Bench, cases: &[Case]) -> Result<Report> {
    let (started, clock) = (SystemTime::now(), Instant::now());
    let turns = cases.iter().map(|case| case.rounds(&bench.settings) * case.contestants.len()).sum();
    let progress = Progress::new(turns);
    let mut reports = Vec::new();
    for case in cases {
        if interrupted() {
            break;
        }
        reports.push(measure(bench, case, &progress));
    }
    progress.finish();
    let limits = bench.limits.borrow();
    let generator = limits.iter().map(|(traffic, limit)| GeneratorLimit::new(traffic, *limit)).collect();
    Ok(Report {
        format: crate::report::FORMAT,
        complete: !interrupted(),
        command: std::env::args().skip(1).collect(),
        started_unix: started.duration_since(UNIX_EPOCH)?.as_secs(),
        seconds: clock.elapsed().as_secs_f64(),
        machine: Machine::look(&bench.cores),
        settings: SettingsReport::new(&bench.settings),
        generator,
        cases: reports,
    })
}

/// What has come of one contestant so far: a reading for each round, if there is one.
struct Record<'a> {
    contestant: &'a Contestant,
    readings: Vec<Option<Reading>>,
    /// Why there is none, of the last time.
    reason: Option<String>,
    missing: bool,
}

fn measure(bench: &Bench, case: &Case, progress: &Progress) -> CaseReport {
    let new = |contestant| Record { contestant, readings: Vec::new(), reason: None, missing: false };
    let mut records: Vec<Record> = case.contestants.iter().map(new).collect();
    for round in 1..=case.rounds(&bench.settings) {
        for record in &mut records {
            if interrupted() {
                return summary(case, records);
            }
            progress.begin(&case.name, &record.contestant.name, round);
            let outcome = if record.missing { None } else { Some((record.contestant.measure)(bench)) };
            // What a signal has disturbed is no reading: it reaches every process of the terminal.
            if interrupted() {
                return summary(case, records);
            }
            let reading = match outcome {
                None => None,
                Some(Ok(reading)) => Some(reading),
                Some(Err(Failure::Missing(reason))) => {
                    progress.say(&format!("{}: {} is missing: {reason}", case.name, record.contestant.name));
                    (record.missing, record.reason) = (true, Some(reason));
                    None
                }
                Some(Err(Failure::Failed(error))) => {
                    progress.say(&format!("{}: {} failed: {error:#}", case.name, record.contestant.name));
                    record.reason = Some(format!("failed: {error:#}"));
                    None
                }
            };
            progress.done(reading.as_ref().map(|reading| (reading.value, case.unit)));
            record.readings.push(reading);
        }
    }
    summary(case, records)
}

fn summary(case: &Case, records: Vec<Record>) -> CaseReport {
    let ratios = match records.split_first() {
        Some((first, others)) => others.iter().filter_map(|other| ratio(first, other)).collect(),
        None => Vec::new(),
    };
    let mut report = CaseReport {
        name: case.name.clone(),
        family: case.family.to_owned(),
        title: case.title.clone(),
        unit: case.unit,
        more_is_better: case.unit.more_is_better(),
        point: case.point.map(|point| Point { axis: point.axis.to_owned(), at: point.at }),
        results: Vec::new(),
        ratios,
        missing: Vec::new(),
    };
    for record in records {
        let subject = record.contestant.name.clone();
        let readings: Vec<Reading> = record.readings.into_iter().flatten().collect();
        match Spread::of(readings.iter().map(|reading| reading.value).collect()) {
            Some(spread) => {
                let mut result = result(subject, spread, readings);
                result.notes.extend(record.reason.map(|reason| format!("not in every round: {reason}")));
                report.results.push(result);
            }
            None => {
                let reason = record.reason.unwrap_or_else(|| "interrupted before its turn".to_owned());
                report.missing.push(Absent { subject, reason });
            }
        }
    }
    report
}

/// Round by round, where both have a reading.
fn ratio(first: &Record, other: &Record) -> Option<Ratio> {
    let pairs = first.readings.iter().zip(&other.readings);
    let ratios = pairs.filter_map(|(first, other)| {
        let (first, other) = (first.as_ref()?.value, other.as_ref()?.value);
        (other > 0.0).then(|| first / other)
    });
    Some(Ratio { to: other.contestant.name.clone(), spread: Spread::of(ratios.collect())? })
}

fn result(subject: String, spread: Spread, readings: Vec<Reading>) -> ContestantReport {
    let median = |values: Vec<f64>| Spread::of(values).map(|spread| spread.median);
    let mut extra: BTreeMap<&'static str, Vec<f64>> = BTreeMap::new();
    let mut notes = Vec::new();
    for reading in &readings {
        for (name, value) in &reading.extra {
            extra.entry(name).or_default().push(*value);
        }
        notes.extend(reading.notes.iter().cloned());
    }
    notes.dedup();
    // The curve of the round whose figure is nearest to the median.
    let distance = |reading: &&Reading| (reading.value - spread.median).abs();
    let nearest = readings.iter().min_by(|left, right| distance(left).total_cmp(&distance(right)));
    ContestantReport {
        subject,
        curve: nearest.map(|reading| reading.curve.clone()).unwrap_or_default(),
        loss: nearest.map(|reading| reading.loss.clone()).unwrap_or_default(),
        offered: median(readings.iter().filter_map(|reading| reading.offered).collect()),
        generator_limit: readings.iter().find_map(|reading| reading.generator_limit),
        generator_bound: readings.iter().any(|reading| reading.generator_bound),
        shares_core: readings.iter().any(|reading| reading.shares_core),
        extra: extra
            .into_iter()
            .filter_map(|(name, values)| Some((name.to_owned(), median(values)?)))
            .collect(),
        notes,
        spread,
    }
}
