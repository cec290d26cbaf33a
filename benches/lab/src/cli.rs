//! The command line.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use clap::{Parser, Subcommand};

use crate::bench::{Bench, Cores, Settings};
use crate::case::{self, Case};
use crate::interrupt;
use crate::report::{self, Report};
use crate::run;
use crate::subject::bare::Bare;
use crate::subject::library;

/// Length of one measurement, in seconds.
const FULL_SECONDS: f64 = 0.7;
const QUICK_SECONDS: f64 = 0.4;
/// Exit status after a signal, as shells have it.
const INTERRUPTED: u8 = 130;

/// Measures xfwd and its peers in turn, in networks of namespaces that it makes and removes, and writes report.json, report.md
/// and plots. docs/benchmarks.md says what the figures mean.
#[derive(Parser)]
#[command(name = "scripts/bench", version, subcommand_negates_reqs = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    /// A few minutes instead of twenty: fewer points of each curve, fewer rounds, shorter measurements.
    #[arg(long)]
    quick: bool,
    /// Only this case or family of cases; may be given again, or with commas.
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    only: Vec<String>,
    /// Rounds of every case [default: 7, or 3 for points of a curve; with --quick 2 and 1].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    runs: Option<u16>,
    /// Length of one measurement [default: 0.7, with --quick 0.4].
    #[arg(long, value_name = "SECONDS")]
    seconds: Option<f64>,
    /// Folder of the report.
    #[arg(long, value_name = "FOLDER", default_value = "target/bench")]
    output: PathBuf,
    /// Measure nothing: put table and plot of the report in that folder into README.md and docs/images of the repository here.
    #[arg(long, conflicts_with_all = ["quick", "only", "runs", "seconds", "list"])]
    readme: bool,
    /// Print the names of all cases, and end.
    #[arg(long)]
    list: bool,
}

#[derive(Subcommand)]
enum Command {
    /// A bare loop on an interface, pinned to a core: a peer of xfwd, started by the lab itself.
    #[command(hide = true)]
    Bare {
        /// Which loop.
        which: Bare,
        /// Interface.
        interface: String,
        /// Core.
        core: usize,
    },
    /// A receiver on xfwd's library, its worker pinned to a core: the peer of the bare loop that receives.
    #[command(hide = true)]
    Library {
        /// Interface.
        interface: String,
        /// Core.
        core: usize,
    },
}

/// Parses the command line and does what it says.
pub fn run() -> Result<ExitCode> {
    let cli = Cli::parse();
    if let Some(command) = &cli.command {
        match command {
            Command::Bare { which, interface, core } => which.run(interface, *core)?,
            Command::Library { interface, core } => library::receive(interface, *core)?,
        }
        return Ok(ExitCode::SUCCESS);
    }
    if cli.readme {
        report::readme::write(&report::read(&cli.output)?, &cli.output, Path::new("."))?;
        return Ok(ExitCode::SUCCESS);
    }
    let cases = case::select(case::all(cli.quick), &cli.only)?;
    if cli.list {
        list(&cases);
        return Ok(ExitCode::SUCCESS);
    }
    let seconds = cli.seconds.unwrap_or(if cli.quick { QUICK_SECONDS } else { FULL_SECONDS });
    ensure!((0.05..=60.0).contains(&seconds), "--seconds: {seconds} is not from 0.05 to 60");
    let settings = Settings {
        quick: cli.quick,
        runs: cli.runs.map(usize::from),
        time: Duration::from_secs_f64(seconds),
    };
    if let Err(missing) = xfwd_netns::requirements() {
        bail!("the lab cannot be set up here: {missing}");
    }
    interrupt::listen().context("cannot listen to signals")?;
    let bench = Bench::new(settings, Cores::choose()?)?;
    let report = run::run(&bench, &cases)?;
    report::write(&report, &cli.output)?;
    finish(&report, &cli.output);
    Ok(if report.complete { ExitCode::SUCCESS } else { ExitCode::from(INTERRUPTED) })
}

fn list(cases: &[Case]) {
    for case in cases {
        println!("{:<28} {}", case.name, case.title);
    }
}

fn finish(report: &Report, folder: &Path) {
    print!("{}", report::markdown::table(report));
    println!("\nreport.json, report.md and plots are in {}", folder.display());
    if !report.complete {
        println!("interrupted: this is what was measured until then");
    }
}
