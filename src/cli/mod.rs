//! The `xfwd` command: one file a subcommand.
//!
//! What is asked for goes to standard output (the summary, the answer of `check`); everything else goes to standard
//! error, so that `xfwd … --json | jq` works. Exit status: 0 when all went well, 1 when it could not start or ended by itself, 2 when the
//! command line or the config is wrong.

#![forbid(unsafe_code)]

mod check;
mod features;
mod live;
mod output;
mod replay;
mod run;
mod services;
mod summary;
mod trace;
mod which;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use tracing_subscriber::EnvFilter;

use crate::config::Registry;

/// Exit status when the command line or the config is wrong; clap uses the same.
const WRONG_INPUT: u8 = 2;

/// AF_XDP packet processing: L4 load balancer, packet filter, bouncer.
#[derive(Parser)]
#[command(version, args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    run: Option<RunArgs>,
}

#[derive(Subcommand)]
enum Command {
    /// Check a config and say what it would do, without touching anything.
    Check {
        /// Say what every key of a filter rule means, for fragments, tunnels and malformed packets too.
        #[arg(long)]
        explain_fields: bool,
        /// The config.
        #[arg(value_name = "CONFIG", required_unless_present = "explain_fields")]
        config: Option<PathBuf>,
    },
    /// Which backend a flow gets, and why; or what share each backend has.
    ///
    /// Exit status: 0 when there is a backend, 1 when the flow is of no service. The filter is not asked.
    Which(which::WhichArgs),
    /// Run a config over a capture, without root or interface: count, and write what would be sent.
    ///
    /// The time is that of the capture. Backends count as healthy and on the link, with MAC addresses that are made up from
    /// theirs. Exit status: 1 also when the capture is damaged; what was before the damage is counted and written.
    Replay(replay::ReplayArgs),
    /// Explain packet by packet what a config would do with a capture, and who decides: as text on a terminal, else one JSON
    /// object a line.
    Trace(trace::TraceArgs),
    /// What this kernel, and the driver of an interface, can do, and what that means.
    Features {
        /// Interface to ask about.
        #[arg(long = "iface", value_name = "IF")]
        interface: Option<String>,
        /// Print it as JSON.
        #[arg(long)]
        json: bool,
    },
}

/// Run a config on interfaces, until SIGINT or SIGTERM.
#[derive(Args)]
struct RunArgs {
    /// Interface to run on; give it again for each further port.
    #[arg(long = "iface", value_name = "IF", required = true)]
    interfaces: Vec<String>,
    /// Queues of each interface, from queue 0: one worker a queue.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    queues: u32,
    /// Cores for the workers, in order [default: all but the first, if there are enough].
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    cores: Option<Vec<usize>>,
    /// Stop by itself after so many seconds.
    #[arg(long, value_name = "SECONDS", value_parser = seconds, allow_negative_numbers = true)]
    duration: Option<Duration>,
    /// Print the summary as JSON.
    #[arg(long)]
    json: bool,
    /// No live rates.
    #[arg(long, short)]
    quiet: bool,
    /// The config.
    #[arg(value_name = "CONFIG", required = true)]
    config: PathBuf,
}

/// Longest `--duration`: more than a lifetime, and far from where adding it to the clock could overflow.
const LONGEST: Duration = Duration::from_secs(100 * 366 * 24 * 60 * 60);

/// A number of seconds, such as `10` or `0.5`.
fn seconds(text: &str) -> Result<Duration, String> {
    let number: f64 =
        text.parse().map_err(|_| "not a number of seconds, such as `10` or `0.5`".to_owned())?;
    match Duration::try_from_secs_f64(number) {
        Ok(duration) if duration <= LONGEST => Ok(duration),
        _ => Err(format!("must be from 0 to {} seconds", LONGEST.as_secs())),
    }
}

/// Parses the command line and does what it says.
pub fn main() -> ExitCode {
    main_with(&Registry::new())
}

/// As [`main`], for a command of one's own that has stages of one's own: the whole `xfwd` command, whose config files may
/// name those of `registry` beside those that ship.
///
/// ```no_run
/// # fn registry() -> xfwd::config::Registry { xfwd::config::Registry::new() }
/// fn main() -> std::process::ExitCode {
///     xfwd::cli::main_with(&registry())
/// }
/// ```
///
/// The example `custom_stage` is complete.
pub fn main_with(registry: &Registry) -> ExitCode {
    let filter = EnvFilter::try_from_env("XFWD_LOG").unwrap_or_else(|_| EnvFilter::new("warn"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).without_time().init();
    match Cli::parse() {
        Cli { command: Some(Command::Check { explain_fields, config }), .. } => {
            check::check(explain_fields, config.as_deref(), registry)
        }
        Cli { command: Some(Command::Which(args)), .. } => which::which(&args, registry),
        Cli { command: Some(Command::Replay(args)), .. } => replay::replay(&args, registry),
        Cli { command: Some(Command::Trace(args)), .. } => trace::trace(&args, registry),
        Cli { command: Some(Command::Features { interface, json }), .. } => {
            features::features(interface.as_deref(), json)
        }
        Cli { run: Some(args), .. } => run::run(&args, registry),
        // clap has asked for `--iface` and CONFIG before it comes to this.
        Cli { command: None, run: None } => ExitCode::from(WRONG_INPUT),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_duration_is_a_number_of_seconds_that_a_clock_can_take() {
        assert_eq!(seconds("0.5"), Ok(Duration::from_millis(500)));
        assert_eq!(seconds("0"), Ok(Duration::ZERO));
        for wrong in ["", "ten", "nan", "inf", "-1", "1e300", "5s"] {
            assert!(seconds(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_run_and_a_check_are_told_apart() {
        let run = Cli::parse_from([
            "xfwd", "--iface", "a", "--iface", "b", "--queues", "4", "--cores", "1,2", "lb.toml",
        ]);
        let args = run.run.unwrap();
        assert_eq!((args.interfaces.len(), args.queues, args.cores), (2, 4, Some(vec![1, 2])));
        let features = Cli::parse_from(["xfwd", "features", "--iface", "a", "--json"]);
        assert!(matches!(features.command, Some(Command::Features { interface: Some(_), json: true })));
        let check = Cli::parse_from(["xfwd", "check", "lb.toml"]);
        assert!(matches!(check.command, Some(Command::Check { .. })));
        assert!(Cli::try_parse_from(["xfwd", "lb.toml"]).is_err(), "an interface is needed");
        assert!(Cli::try_parse_from(["xfwd", "check"]).is_err(), "a config is needed");
        assert!(Cli::try_parse_from(["xfwd", "check", "--explain-fields"]).is_ok());
    }
}
