//! The report as people read it.

use std::fmt::Write;

use super::{CaseReport, Report, figure};
use crate::case::grouped;

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

fn head(text: &mut String, report: &Report) {
    let machine = &report.machine;
    let cores: Vec<String> = machine.subject_cores.iter().map(ToString::to_string).collect();
    let versions: Vec<String> =
        machine.versions.iter().map(|(name, version)| format!("{name}: {version}")).collect();
    let kind = if machine.virtual_machine { ", a virtual machine" } else { "" };
    let lines = [
        ("command", format!("`scripts/bench {}`", report.command.join(" ")).replace(" `", "`")),
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

/// The table of results.
pub fn table(report: &Report) -> String {
    let mut text = String::from(
        "| case | subject | median | min | max | runs | xfwd to it | min | max | |\n|---|---|--:|--:|--:|--:|--:|--:|--:|---|\n",
    );
    for case in &report.cases {
        rows(&mut text, case);
    }
    text.push_str(
        "\ng: handled all that the generator offered, so it may be faster. c: works on the generator's core, so the figure has the costs of both.\n",
    );
    text
}

fn rows(text: &mut String, case: &CaseReport) {
    for result in &case.results {
        let spread = &result.spread;
        let ratio = case.ratios.iter().find(|ratio| ratio.to == result.subject);
        let ratio = ratio.map_or_else(
            || "| |".to_owned(),
            |ratio| format!("{:.3} | {:.3} | {:.3}", ratio.spread.median, ratio.spread.min, ratio.spread.max),
        );
        let mut marks = String::new();
        marks.push_str(if result.generator_bound { "g" } else { "" });
        marks.push_str(if result.shares_core { "c" } else { "" });
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

fn limits(text: &mut String, report: &Report) {
    text.push_str("\n## What the generator can do\n\nInto an XDP program that drops everything, on the generator's core.\n\n");
    text.push_str("| frame bytes with FCS | flows | queues | packets a second |\n|--:|--:|--:|--:|\n");
    for limit in &report.generator {
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} |",
            limit.frame_bytes,
            grouped(limit.flows.into()),
            limit.queues,
            grouped(limit.packets_per_second as u64)
        );
    }
}
