//! The lab as a user runs it, on two cheap cases with measurements of no length to speak of: not what the figures are, but that they
//! are all there.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking, in its helper functions too")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use xfwd_netns::lab_or_skip;

/// How long anything may take that should take seconds.
const PATIENCE: Duration = Duration::from_secs(60);
/// Exit status after SIGINT.
const INTERRUPTED: i32 = 130;

fn bench() -> Command {
    Command::new(env!("CARGO_BIN_EXE_xfwd-bench"))
}

fn folder(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("bench-{name}-{}", std::process::id()));
    let _ = fs::remove_dir_all(&folder);
    folder
}

fn report(folder: &Path) -> Value {
    serde_json::from_str(&fs::read_to_string(folder.join("report.json")).unwrap()).unwrap()
}

fn text(output: &Output) -> String {
    format!("{}\n{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// No namespace of that process is left.
fn assert_cleaned_up(process: u32) {
    let left = fs::read_dir("/run/netns").into_iter().flatten().flatten();
    let left: Vec<_> = left
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(&format!("xfwd-{process}-")))
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn a_run_reports_every_contestant_with_figures_or_with_a_reason() {
    lab_or_skip!();
    let folder = folder("run");
    let child = bench()
        .args(["--only", "drop-100000,bounce", "--runs", "1", "--seconds", "0.1", "--output"])
        .arg(&folder)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let process = child.id();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
    assert_cleaned_up(process);

    let report = report(&folder);
    assert_eq!((&report["format"], &report["complete"]), (&1.into(), &true.into()));
    for pointer in
        ["/machine/cpu", "/machine/kernel", "/machine/driver", "/machine/mode", "/machine/versions/xfwd"]
    {
        assert!(report.pointer(pointer).unwrap().is_string(), "{pointer}: {report}");
    }
    assert!(report["generator"][0]["packets_per_second"].as_f64().unwrap() > 0.0, "{report}");
    let cases = report["cases"].as_array().unwrap();
    let names: Vec<&str> = cases.iter().map(|case| case["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["bounce", "drop-100000"]);
    for (case, contestants) in cases.iter().zip([4, 5]) {
        let (results, missing) = (case["results"].as_array().unwrap(), case["missing"].as_array().unwrap());
        assert_eq!(results.len() + missing.len(), contestants, "{case}");
        for result in results {
            let [least, median, most] = ["min", "median", "max"].map(|name| result[name].as_f64().unwrap());
            assert!(0.0 < least && least <= median && median <= most, "{result}");
            assert_eq!(result["runs"].as_array().unwrap().len(), 1, "{result}");
            assert!(result["generator_bound"].is_boolean(), "{result}");
        }
        // xfwd is never missing, and is compared with all others.
        assert!(results[0]["subject"].as_str().unwrap().starts_with("xfwd"), "{case}");
        assert_eq!(case["ratios"].as_array().unwrap().len(), results.len() - 1, "{case}");
        assert_eq!(case["unit"], "packets/s");
    }
    let filter =
        cases[1]["missing"].as_array().unwrap().iter().find(|absent| absent["subject"] == "xdp-filter");
    assert_eq!(filter.unwrap()["reason"], "its map of addresses holds 10,000");

    let markdown = fs::read_to_string(folder.join("report.md")).unwrap();
    assert!(markdown.contains("| drop-100000 | xdp-filter | missing |"), "{markdown}");
    assert!(markdown.contains("- drop-100000, xdp-filter: its map of addresses holds 10,000"), "{markdown}");
    assert!(
        markdown.contains("![Packets a second: median, minimum and maximum](throughput.svg)"),
        "{markdown}"
    );
    assert_picture(&folder.join("throughput"));
    fs::remove_dir_all(folder).unwrap();
}

/// Both files can be read, the PNG is twice as large, and neither is an empty sheet.
fn assert_picture(path: &Path) {
    let vector = fs::read_to_string(path.with_extension("svg")).unwrap();
    assert!(vector.starts_with("<svg ") && vector.trim_end().ends_with("</svg>"), "{vector}");
    assert!(vector.contains("testpmd macswap") || vector.contains("XDP_DROP"), "{vector}");
    let width: u32 = vector.split_once("width=\"").unwrap().1.split('"').next().unwrap().parse().unwrap();
    let pixels = image::open(path.with_extension("png")).unwrap().into_rgb8();
    assert_eq!(pixels.width(), 2 * width);
    let inked = pixels.pixels().filter(|pixel| pixel.0 != [255; 3]).count();
    assert!(inked > 1_000, "{inked} pixels are not white");
}

#[test]
fn the_search_for_a_rate_without_loss_leaves_a_curve_and_its_picture() {
    lab_or_skip!();
    let folder = folder("loss");
    let output = bench()
        .args(["--only", "loss-free", "--runs", "1", "--seconds", "0.05", "--output"])
        .arg(&folder)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", text(&output));
    let report = report(&folder);
    let results = report["cases"][0]["results"].as_array().unwrap();
    assert!(results.iter().any(|result| result["subject"] == "xfwd"), "{report}");
    for result in results {
        let points = result["loss"].as_array().unwrap();
        let rates: Vec<f64> = points.iter().map(|point| point[0].as_f64().unwrap()).collect();
        // A flood and what is beyond the search; a rate that the generator did not reach is no point.
        assert!(rates.len() >= 4 && rates.is_sorted(), "{result}");
        assert!(points.iter().all(|point| (0.0..=100.0).contains(&point[1].as_f64().unwrap())), "{result}");
        // What passed is on the curve.
        let (found, free) =
            (result["median"].as_f64().unwrap(), |point: &Value| point[1].as_f64() < Some(0.01));
        let passed = points.iter().any(|point| free(point) && point[0].as_f64() == Some(found));
        assert!(found == 0.0 || passed, "{result}");
    }
    assert_picture(&folder.join("loss-loss-free"));
    fs::remove_dir_all(folder).unwrap();
}

#[test]
fn a_wrong_name_is_answered_with_the_right_ones() {
    let output = bench().args(["--only", "bonuce"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("there is no case `bonuce`") && said.contains("bounce, "), "{said}");
}

#[test]
fn every_case_has_a_name_of_its_own() {
    for arguments in [&["--list"][..], &["--list", "--quick"]] {
        let output = bench().args(arguments).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let mut names: Vec<&str> = said.lines().filter_map(|line| line.split_whitespace().next()).collect();
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert!(count > 20 && names.len() == count, "{said}");
    }
}

#[test]
fn an_interrupted_run_reports_what_was_measured_until_then() {
    lab_or_skip!();
    let folder = folder("interrupted");
    let mut child = bench()
        .args(["--only", "drop-empty", "--runs", "50", "--seconds", "0.1", "--output"])
        .arg(&folder)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    wait_for_a_figure(&mut child);
    kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGINT).unwrap();
    let deadline = Instant::now() + PATIENCE;
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        assert!(Instant::now() < deadline, "it does not end");
        std::thread::sleep(Duration::from_millis(20));
    };
    assert_eq!(status.code(), Some(INTERRUPTED));
    assert_cleaned_up(child.id());
    let report = report(&folder);
    assert_eq!(report["complete"], false);
    let first = &report["cases"][0]["results"][0];
    let runs = first["runs"].as_array().unwrap().len();
    assert!((1..50).contains(&runs), "{first}");
    assert!(fs::read_to_string(folder.join("report.md")).unwrap().contains("**Interrupted**"));
    fs::remove_dir_all(folder).unwrap();
}

/// Reads what it says up to the first figure; what comes after is not read, and fits the pipe.
fn wait_for_a_figure(child: &mut Child) {
    use std::io::{BufRead, BufReader};
    let lines = BufReader::new(child.stderr.as_mut().unwrap()).lines();
    let mut said = Vec::new();
    for line in lines {
        let line = line.unwrap();
        if line.ends_with("pps") {
            return;
        }
        said.push(line);
    }
    panic!("it ended before a figure: {said:#?}");
}
