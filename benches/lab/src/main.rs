//! `xfwd-bench`, the benchmark lab: every case several times in turn with its peers, in networks of namespaces that it makes and
//! removes, with a report and plots at the end. `scripts/bench` builds and runs it; `docs/benchmarks.md` says what it measures and
//! what a figure means.
//!
//! * [`case`] says what is measured, as data where possible: one file a family.
//! * [`subject`] is what can be measured: `xfwd` and its peers, one file each.
//! * [`site`] is the network of one measurement, [`offer`] the traffic in it and what is counted.
//! * [`run`] takes turns; [`report`] writes what came of it.

mod bench;
mod case;
mod cli;
mod interrupt;
mod machine;
mod offer;
mod paced;
mod progress;
mod report;
mod run;
mod site;
mod statistics;
mod subject;

use std::process::ExitCode;

fn main() -> ExitCode {
    match cli::run() {
        Ok(status) => status,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
