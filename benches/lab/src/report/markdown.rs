//! The report as people read it.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::{CaseReport, Report, figure};
use crate::case::{Unit, grouped};
use crate::statistics::Spread;

/// The greatest of the rounds by the least: from here on the result is marked.
const UNSTEADY: f64 = 4.0 / 3.0;

/// A picture of the report: what it shows, and the file beside it.
pub struct Picture {
    /// What it shows.
    pub title: String,
    /// Name of the SVG file.
    pub file: String,
}

/// The whole document.
pub fn document(report: &Report, pictures: &[Picture]) -> String {
    let mut text = String::from("# Benchmarks of xfwd\n\n");
    head(&mut text, report);
    text.push_str("\n## Results\n\n");
    text.push_str(&table(report));
    percentiles(&mut text, report);
    missing(&mut text, report);
    notes(&mut text, report);
    limits(&mut text, report);
    if !pictures.is_empty() {
        text.push_str("\n## Plots\n");
        for picture in pictures {
            let _ = write!(text, "\n![{}]({})\n", picture.title, picture.file);
        }
    }
    text
}

/// What the figures were made on, in a line: machine, kernel, day, commit.
pub fn origin(report: &Report) -> String {
    let machine = &report.machine;
    let kind = if machine.virtual_machine { " of a virtual machine" } else { "" };
    // What a distribution adds behind the numbers says nothing to others.
    let kernel = machine.kernel.split(['-', '+']).next().unwrap_or_default();
    let commit = machine.commit.as_deref().map_or("unknown", |commit| commit.get(..12).unwrap_or(commit));
    format!(
        "{}, {} cores{kind}, Linux {kernel}, {}, commit `{commit}`",
        machine.cpu,
        machine.cores,
        day(report)
    )
}

/// The command, as code. Where the report went has no part in the figures.
pub fn command(report: &Report) -> String {
    let mut words = vec!["scripts/bench"];
    let mut arguments = report.command.iter().map(String::as_str);
    while let Some(argument) = arguments.next() {
        match argument.split_once('=').map_or(argument, |(name, _)| name) {
            "--output" if argument.contains('=') => {}
            "--output" => drop(arguments.next()),
            _ => words.push(argument),
        }
    }
    format!("`{}`", words.join(" "))
}

/// The day on which the run began, in UTC.
fn day(report: &Report) -> String {
    let seconds = i64::try_from(report.started_unix).ok();
    let time = seconds.and_then(|seconds| jiff::Timestamp::from_second(seconds).ok());
    time.map_or_else(|| "unknown".to_owned(), |time| time.strftime("%Y-%m-%d").to_string())
}

fn head(text: &mut String, report: &Report) {
    let machine = &report.machine;
    let cores: Vec<String> = machine.subject_cores.iter().map(ToString::to_string).collect();
    let versions: Vec<String> =
        machine.versions.iter().map(|(name, version)| format!("{name}: {version}")).collect();
    let kind = if machine.virtual_machine { ", a virtual machine" } else { "" };
    let lines = [
        ("command", command(report)),
        ("day", day(report)),
        (
            "machine",
            format!("{}, {} cores, {} MiB{kind}", machine.cpu, machine.cores, grouped(machine.memory_mib)),
        ),
        ("cores", format!("generator on {}, subject on {}", machine.generator_core, cores.join(", "))),
        ("kernel", machine.kernel.clone()),
        ("interfaces", format!("{}, AF_XDP in {} mode", machine.driver, machine.mode)),
        ("versions", versions.join("; ")),
        ("commit", machine.commit.clone().unwrap_or_else(|| "unknown".to_owned())),
        ("time", format!("{:.0} s in all, {} s a measurement", report.seconds, report.settings.seconds_each)),
    ];
    text.push_str("| | |\n|---|---|\n");
    for (name, value) in lines {
        let _ = writeln!(text, "| {name} | {value} |");
    }
    if !report.complete {
        text.push_str("\n**Interrupted**: this is what was measured until then.\n");
    }
}

/// A ratio, to three digits or so.
fn times(ratio: f64) -> String {
    match ratio {
        100.0.. => grouped(ratio.round() as u64),
        10.0.. => format!("{ratio:.1}"),
        0.1.. => format!("{ratio:.3}"),
        _ => format!("{ratio:.5}"),
    }
}

/// The table of results.
pub fn table(report: &Report) -> String {
    let mut text = String::from(
        "| case | subject | median | min | max | runs | xfwd to it | min | max | |\n|---|---|--:|--:|--:|--:|--:|--:|--:|---|\n",
    );
    for case in &report.cases {
        rows(&mut text, case);
    }
    text.push_str(
        "\ng: handled all that the generator offered, so it may be faster. c: works on the generator's core, so the figure has the costs of both. \
         u: unsteady, the rounds differ by more than a third: something else was at work, or the subject itself wavers.\n",
    );
    text
}

fn rows(text: &mut String, case: &CaseReport) {
    for result in &case.results {
        let spread = &result.spread;
        let ratio = case.ratios.iter().find(|ratio| ratio.to == result.subject);
        let ratio = ratio.map_or_else(
            || "| |".to_owned(),
            |ratio| [ratio.spread.median, ratio.spread.min, ratio.spread.max].map(times).join(" | "),
        );
        let mut marks = String::new();
        marks.push_str(if result.generator_bound { "g" } else { "" });
        marks.push_str(if result.shares_core { "c" } else { "" });
        marks.push_str(if spread.max > UNSTEADY * spread.min { "u" } else { "" });
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} | {} | {} | {ratio} | {marks} |",
            case.name,
            result.subject,
            figure(spread.median, case.unit),
            figure(spread.min, case.unit),
            figure(spread.max, case.unit),
            spread.runs.len(),
        );
    }
    for absent in &case.missing {
        let _ = writeln!(text, "| {} | {} | missing | | | 0 | | | | |", case.name, absent.subject);
    }
}

fn missing(text: &mut String, report: &Report) {
    let absent: Vec<_> =
        report.cases.iter().flat_map(|case| case.missing.iter().map(move |absent| (case, absent))).collect();
    text.push_str("\n## Missing\n\n");
    if absent.is_empty() {
        text.push_str("Nothing: every contestant of every case has figures.\n");
    }
    for (case, absent) in absent {
        let _ = writeln!(text, "- {}, {}: {}", case.name, absent.subject, one_line(&absent.reason));
    }
}

/// What a failed command has said can have many lines: the first says what was tried, the last why it did not work.
fn one_line(reason: &str) -> String {
    let mut lines = reason.lines().map(str::trim).filter(|line| !line.is_empty());
    let first = lines.next().unwrap_or_default().to_owned();
    lines.next_back().map_or(first.clone(), |last| format!("{first} … {last}"))
}

fn notes(text: &mut String, report: &Report) {
    let results = report.cases.iter().flat_map(|case| case.results.iter().map(move |result| (case, result)));
    let notes: Vec<String> = results
        .flat_map(|(case, result)| {
            result
                .notes
                .iter()
                .map(move |note| format!("- {}, {}: {}\n", case.name, result.subject, one_line(note)))
        })
        .collect();
    if !notes.is_empty() {
        let _ = write!(text, "\n## Notes\n\n{}", notes.concat());
    }
}

/// What a median does not say: the high percentiles, and what part of them is the generator's.
fn percentiles(text: &mut String, report: &Report) {
    let results = report.cases.iter().flat_map(|case| case.results.iter().map(move |result| (case, result)));
    let rows: Vec<_> = results.filter(|(_, result)| result.extra.contains_key("p99_us")).collect();
    if rows.is_empty() {
        return;
    }
    text.push_str(
        "\n## Latency\n\nMedians of the rounds. Where the generator's own lateness makes up much of a percentile, that is the machine's doing, not the \
         subject's.\n\n| case | subject | offered | median | 99 % | 99.9 % | generator late at 99 % | lost |\n|---|---|--:|--:|--:|--:|--:|--:|\n",
    );
    for (case, result) in rows {
        let extra = |name| result.extra.get(name).copied();
        let cell = |value: Option<f64>, unit| value.map_or_else(String::new, |value| figure(value, unit));
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} | {} | {} | {} | {} |",
            case.name,
            result.subject,
            cell(result.offered, Unit::PacketsPerSecond),
            figure(result.spread.median, case.unit),
            cell(extra("p99_us"), case.unit),
            cell(extra("p99.9_us"), case.unit),
            cell(extra("generator_late_p99_us"), case.unit),
            extra("lost_percent").map_or_else(String::new, |lost| format!("{lost:.3} %")),
        );
    }
}

fn limits(text: &mut String, report: &Report) {
    text.push_str("\n## What the generator can do\n\nInto an XDP program that drops everything, on the generator's core.\n\n");
    text.push_str(
        "| frame bytes with FCS | flows | queues | by way of | packets a second |\n|--:|--:|--:|---|--:|\n",
    );
    // Traffic that differs in addresses only stands here once.
    let mut limits: BTreeMap<_, Vec<f64>> = BTreeMap::new();
    for limit in &report.generator {
        let way = if limit.through_stack { "host stack" } else { "XDP" };
        let traffic = (limit.frame_bytes, limit.flows, limit.queues, way);
        limits.entry(traffic).or_default().push(limit.packets_per_second);
    }
    for ((frame_bytes, flows, queues, way), rates) in limits {
        let (flows, rates) = (grouped(flows.into()), Spread::of(rates));
        let rate = rates.map_or_else(String::new, |rates| {
            let [least, most] = [rates.min, rates.max].map(|rate| grouped(rate as u64));
            if least == most { most } else { format!("{least} to {most}") }
        });
        let _ = writeln!(text, "| {frame_bytes} | {flows} | {queues} | {way} | {rate} |");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::{case, report};

    #[test]
    fn a_report_says_where_its_figures_come_from() {
        let origin = origin(&report(Vec::new()));
        assert_eq!(
            origin,
            "A processor, 2 cores of a virtual machine, Linux 6.18.1, 2026-01-02, commit `0123456789ab`"
        );
    }

    #[test]
    fn the_command_is_told_but_for_where_the_report_went() {
        let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
        let with = |words| command(&Report { command: words, ..report(Vec::new()) });
        assert_eq!(
            with(words(&["--runs", "2", "--output", "/tmp/x", "--quick"])),
            "`scripts/bench --runs 2 --quick`"
        );
        assert_eq!(with(words(&["--output=/tmp/x"])), "`scripts/bench`");
    }

    #[test]
    fn latencies_have_a_table_with_the_generator_s_part() {
        let mut latency = case("latency-90", &["xfwd", "other"]);
        latency.results[0].extra =
            BTreeMap::from([("p99_us".to_owned(), 7.5), ("lost_percent".to_owned(), 0.25)]);
        latency.unit = Unit::Microseconds;
        let mut text = String::new();
        percentiles(&mut text, &report(vec![latency, case("bounce", &["xfwd"])]));
        assert!(
            text.contains("| latency-90 | xfwd | 2.000 Mpps | 1500000.0 µs | 7.5 µs |  |  | 0.250 % |"),
            "{text}"
        );
        assert!(!text.contains("other") && !text.contains("bounce"), "{text}");
    }

    #[test]
    fn a_ratio_has_about_three_digits_however_small_or_large_it_is() {
        assert_eq!(
            [0.00042, 0.5, 1.25, 12.34, 4430.6].map(times),
            ["0.00042", "0.500", "1.250", "12.3", "4,431"]
        );
    }

    #[test]
    fn rounds_that_differ_by_much_are_marked() {
        let mut unsteady = case("bounce", &["xfwd", "other"]);
        unsteady.results[1].spread.max *= 2.0;
        let table = table(&report(vec![unsteady]));
        assert!(table.lines().any(|line| line.contains("| xfwd |") && line.ends_with("|  |")), "{table}");
        assert!(table.lines().any(|line| line.contains("| other |") && line.ends_with("| u |")), "{table}");
    }
}
