//! The recorded counts: compared, or written.

use std::collections::BTreeMap;
use std::process::{Command, ExitCode};

use crate::cases::CASES;
use crate::valgrind;

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/instructions.toml");
/// What a count may differ from the recorded one, either way.
const TOLERANCE: f64 = 0.03;
/// For what cannot be found out here, as in `scripts/test`.
const SKIPPED: u8 = 77;

const HEAD: &str = "\
# Instructions a packet, by callgrind, of the crate compiled as scripts/instructions does. That script compares, with a
# tolerance of 3 % either way; after a change that is meant, `scripts/instructions --update` writes this file.
";

/// What compiled this program.
fn compiler() -> String {
    let output = Command::new(std::env::var("RUSTC").as_deref().unwrap_or("rustc")).arg("--version").output();
    output.map_or_else(|_| String::new(), |output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn count() -> BTreeMap<String, f64> {
    let one = |case: &crate::cases::Case| {
        let each = valgrind::count(case.name) as f64 / case.packets as f64;
        eprintln!("{:<28} {each:>8.1}", case.name);
        (case.name.to_owned(), (each * 10.0).round() / 10.0)
    };
    CASES.iter().map(one).collect()
}

fn skipped(why: &str) -> ExitCode {
    eprintln!("instruction counts: {why}");
    SKIPPED.into()
}

/// Prints the counts of this build.
pub fn show() -> ExitCode {
    if !valgrind::is_there() {
        return skipped("valgrind is not installed");
    }
    eprintln!("instructions a packet, of this build; `scripts/instructions` compares");
    count();
    ExitCode::SUCCESS
}

/// Counts and records.
pub fn update() -> ExitCode {
    if !valgrind::is_there() {
        return skipped("valgrind is not installed");
    }
    let mut text = format!("{HEAD}rustc = \"{}\"\n\n[instructions]\n", compiler());
    for (name, count) in count() {
        text += &format!("\"{name}\" = {count:.1}\n");
    }
    std::fs::write(FILE, text).unwrap();
    ExitCode::SUCCESS
}

/// Counts and compares with what is recorded.
pub fn check() -> ExitCode {
    if !cfg!(target_arch = "x86_64") {
        return skipped("recorded for x86_64 only");
    }
    if !valgrind::is_there() {
        return skipped("valgrind is not installed");
    }
    let recorded: toml::Table = std::fs::read_to_string(FILE).unwrap().parse().unwrap();
    let (by, here) = (recorded["rustc"].as_str().unwrap(), compiler());
    if by != here {
        return skipped(&format!("recorded with {by}, this is {here}"));
    }
    let recorded = recorded["instructions"].as_table().unwrap();
    let counted = count();
    let mut differing = Vec::new();
    for name in recorded.keys().chain(counted.keys().filter(|name| !recorded.contains_key(*name))) {
        let before = recorded.get(name).and_then(toml::Value::as_float);
        match (before, counted.get(name)) {
            (Some(before), Some(now)) if (now / before - 1.0).abs() <= TOLERANCE => {}
            (Some(before), Some(now)) => {
                let percent = 100.0 * (now / before - 1.0);
                differing.push(format!(
                    "{name}: {now} instructions a packet, recorded {before} ({percent:+.1} %)"
                ));
            }
            (_, None) => differing.push(format!("{name}: recorded, and not counted any more")),
            (None, Some(now)) => differing.push(format!("{name}: {now} instructions a packet, not recorded")),
        }
    }
    if differing.is_empty() {
        eprintln!("all within {} % of what is recorded", TOLERANCE * 100.0);
        return ExitCode::SUCCESS;
    }
    for line in differing {
        eprintln!("{line}");
    }
    eprintln!("if this is meant: scripts/instructions --update, and say in the commit why");
    ExitCode::FAILURE
}
