//! `xfwd replay CONFIG in.pcap`: what the config would do with a capture, as numbers and as another capture.

use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use clap::Args;
use comfy_table::CellAlignment;

use super::output::{count, print, rate, say, say_error};
use super::summary::table;
use super::{WRONG_INPUT, check};
use crate::config::{Plan, Registry};
use crate::offline::{Capture, Offline, Options, PcapWriter, RunError, Summary};
use crate::packet::MacAddress;

/// Stands for standard input or output.
const STANDARD: &str = "-";

/// What is replayed.
#[derive(Args)]
pub(super) struct ReplayArgs {
    #[command(flatten)]
    input: Input,
    /// Write what would be sent to this pcap file, `-` for standard output (the summary then goes to standard error).
    #[arg(short = 'w', long = "write", value_name = "OUT")]
    output: Option<PathBuf>,
    /// Print the summary as JSON.
    #[arg(long)]
    json: bool,
}

/// Config, capture, and what neither tells.
#[derive(Args)]
pub(super) struct Input {
    /// The config.
    #[arg(value_name = "CONFIG")]
    config: PathBuf,
    /// A pcap or pcapng file of Ethernet frames, `-` for standard input.
    #[arg(value_name = "IN")]
    capture: PathBuf,
    /// Longest IP packet that the ways to the backends take, in bytes.
    #[arg(long, value_name = "BYTES", default_value_t = 1_500, value_parser = clap::value_parser!(u32).range(68..=65_535))]
    mtu: u32,
    /// MAC address of the interface.
    #[arg(long, value_name = "MAC", default_value_t = crate::offline::PORT_MAC)]
    mac: MacAddress,
    /// MAC address by which a backend is reached; again for each further one [default: made up from its address].
    #[arg(long = "neighbour", value_name = "ADDRESS=MAC", value_parser = neighbour)]
    neighbours: Vec<(IpAddr, MacAddress)>,
    /// Address of the host, whose packets `steer = "all"` leaves to it; again for each further one.
    #[arg(long = "host", value_name = "ADDRESS")]
    hosts: Vec<IpAddr>,
}

fn neighbour(text: &str) -> Result<(IpAddr, MacAddress), String> {
    let parts =
        text.split_once('=').and_then(|(address, mac)| Some((address.parse().ok()?, mac.parse().ok()?)));
    parts.ok_or_else(|| {
        "must be an address and a MAC address, such as `198.18.0.11=02:00:00:00:00:0b`".to_owned()
    })
}

/// Config and capture, opened.
pub(super) struct Opened {
    pub plan: Plan,
    pub options: Options,
    pub offline: Offline,
    pub capture: Capture<'static>,
}

impl Input {
    /// Opens everything, or says what is wrong.
    pub fn open(&self, registry: &Registry) -> Result<Opened, ExitCode> {
        let plan = registry.load(&self.config).map_err(|error| check::refuse(&error))?;
        for warning in &plan.warnings {
            say(warning);
        }
        let options = Options {
            mac: self.mac,
            mtu: self.mtu,
            neighbours: self.neighbours.iter().copied().collect(),
            host_addresses: self.hosts.clone(),
        };
        let offline = Offline::new(&plan, &options).map_err(|error| {
            say_error(&error);
            ExitCode::FAILURE
        })?;
        let capture = open(&self.capture).map_err(|error| {
            say(format!("error: {}: {error}", self.capture.display()));
            ExitCode::FAILURE
        })?;
        Ok(Opened { plan, options, offline, capture })
    }

    /// Says why a run has ended before its end, if that is an error.
    pub fn finish(&self, ended: Result<(), RunError>) -> ExitCode {
        match ended {
            Ok(()) => ExitCode::SUCCESS,
            // Who reads has seen enough.
            Err(RunError::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
            Err(RunError::Output(error)) => {
                say(format!("error: cannot write: {error}"));
                ExitCode::FAILURE
            }
            Err(error) => {
                say(format!("error: {}: {error}", self.capture.display()));
                ExitCode::FAILURE
            }
        }
    }
}

fn open(path: &Path) -> Result<Capture<'static>, Box<dyn std::error::Error>> {
    let input: Box<dyn Read> =
        if path == Path::new(STANDARD) { Box::new(io::stdin()) } else { Box::new(File::open(path)?) };
    Ok(Capture::open(input)?)
}

pub(super) fn replay(args: &ReplayArgs, registry: &Registry) -> ExitCode {
    let Opened { mut offline, mut capture, .. } = match args.input.open(registry) {
        Ok(opened) => opened,
        Err(status) => return status,
    };
    if args.output.as_deref().is_some_and(|output| is_same_file(output, &args.input.capture)) {
        say("error: what would be sent cannot be written to the file that is read");
        return ExitCode::from(WRONG_INPUT);
    }
    let to_stdout = args.output.as_deref() == Some(Path::new(STANDARD));
    let mut writer = match args.output.as_deref().map(writer).transpose() {
        Ok(writer) => writer,
        Err(error) => {
            let output = args.output.as_deref().unwrap_or(Path::new(STANDARD)).display();
            say(format!("error: cannot write {output}: {error}"));
            return ExitCode::FAILURE;
        }
    };
    let start = Instant::now();
    let mut ended = offline.run(&mut capture, |fate| match (&mut writer, fate.sent) {
        (Some(writer), Some(sent)) => writer.write(fate.time, sent.bytes, sent.len),
        _ => Ok(()),
    });
    // What was sent before an error is kept.
    if let Some(Err(error)) = writer.map(PcapWriter::finish)
        && ended.is_ok()
    {
        ended = Err(RunError::Output(error));
    }
    let seconds = start.elapsed().as_secs_f64();
    let summary = offline.summary();
    let text = if args.json {
        serde_json::to_string_pretty(&summary).unwrap_or_else(|error| format!("error: {error}"))
    } else {
        tables(&summary, seconds)
    };
    let printed = if to_stdout {
        say(text);
        ExitCode::SUCCESS
    } else {
        print(text)
    };
    let status = args.input.finish(ended);
    if status == ExitCode::SUCCESS { printed } else { status }
}

fn is_same_file(one: &Path, other: &Path) -> bool {
    let number =
        |path: &Path| std::fs::metadata(path).ok().map(|file| (file.is_file(), file.dev(), file.ino()));
    number(one).is_some_and(|one| one.0 && Some(one) == number(other))
}

fn writer(path: &Path) -> io::Result<PcapWriter<BufWriter<Box<dyn Write>>>> {
    let out: Box<dyn Write> =
        if path == Path::new(STANDARD) { Box::new(io::stdout()) } else { Box::new(File::create(path)?) };
    PcapWriter::new(BufWriter::with_capacity(1 << 18, out))
}

/// The summary for people.
fn tables(summary: &Summary, seconds: f64) -> String {
    let verdicts = &summary.verdicts;
    let mut parts = vec![format!(
        "{} packets, {} bytes of {:.3} s in {seconds:.3} s ({} packets/s); {} malformed, {} snapped\n\
         {} passed, {} dropped, {} bounced, {} forwarded",
        count(summary.packets),
        count(summary.bytes),
        summary.milliseconds as f64 / 1e3,
        rate(summary.packets as f64 / seconds.max(1e-9)),
        count(summary.malformed),
        count(summary.snapped),
        count(verdicts.pass),
        count(verdicts.drop),
        count(verdicts.bounce),
        count(verdicts.forward),
    )];
    let mut causes = table(&["where", "what", "packets"]);
    for (cause, packets) in &summary.causes {
        causes.add_row(["kernel".to_owned(), (*cause).to_owned(), count(*packets)]);
    }
    for (reason, packets) in &summary.dropped {
        causes.add_row(["worker".to_owned(), format!("dropped-{reason}"), count(*packets)]);
    }
    let mut rules = table(&["rule", "packets"]);
    for (rule, packets) in &summary.rules {
        rules.add_row([rule.clone(), count(*packets)]);
    }
    let mut backends = table(&["service", "backend", "packets"]);
    for (service, of_service) in &summary.backends {
        for (backend, packets) in of_service {
            backends.add_row([service.clone(), backend.to_string(), count(*packets)]);
        }
    }
    let mut counters = table(&["counter", "number"]);
    for (name, number) in &summary.counters {
        counters.add_row([name.clone(), count(*number)]);
    }
    for mut table in [causes, rules, backends, counters] {
        if table.row_count() > 0 {
            let last = table.column_iter_mut().last();
            last.into_iter().for_each(|column| column.set_cell_alignment(CellAlignment::Right));
            parts.push(table.to_string());
        }
    }
    parts.join("\n\n")
}
