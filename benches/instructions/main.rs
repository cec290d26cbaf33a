//! Instructions a packet, counted by valgrind's callgrind: numbers that neighbours on the machine do not change. `scripts/instructions` compares them
//! with those in `benches/instructions.toml`, within a tolerance, or writes new ones there.
//!
//! Each case is a run of this program under callgrind by itself, which collects only inside of the functions in
//! `benches/micro/bed.rs` (and [`run`] here); what is made ready before does not count. Not all instructions cost the same,
//! and a cache miss costs a hundred of them: what a packet takes is measured by `cargo bench --bench micro`.

#![allow(
    clippy::unwrap_used,
    dead_code,
    missing_docs,
    reason = "a bench may panic, and uses a part of what it shares"
)]

#[path = "../micro/bed.rs"]
mod bed;
mod cases;
mod record;
#[path = "../../tests/support/mod.rs"]
mod support;
#[path = "../micro/traffic.rs"]
mod traffic;
mod valgrind;

use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        // What callgrind runs.
        ["--case", name] => {
            cases::run_case(name);
            ExitCode::SUCCESS
        }
        ["--check"] => record::check(),
        ["--update"] => record::update(),
        // `cargo bench` runs every bench, optimised otherwise than what the recorded counts are of.
        _ => record::show(),
    }
}
