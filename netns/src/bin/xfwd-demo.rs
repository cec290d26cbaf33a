//! The demonstration: a client, a balancer with four queues and three HTTP backends, each in a namespace of its own. The
//! client fetches pages over real TCP connections that `xfwd` spreads over the backends; at the end a table says what each
//! backend got, beside its weight. `scripts/demo` builds and runs it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{Command, ExitCode, ExitStatus};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::Parser;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use serde::Deserialize;
use xfwd_netns::topology::{self, Dsr, INTERFACE, VIP_V4, host_v4};
use xfwd_netns::{Child, Namespace, tool};

/// How far a share may be off its weight: this many standard deviations of a fair draw. One run in ten million is
/// further off by chance.
const TOLERANCE_SIGMA: f64 = 5.5;
const START_PATIENCE: Duration = Duration::from_secs(20);
const STOP_PATIENCE: Duration = Duration::from_secs(10);

/// Shows xfwd balancing real TCP connections, in namespaces that it makes and removes.
#[derive(Parser)]
struct Arguments {
    /// The config that xfwd runs; its first service is asked.
    #[arg(value_name = "CONFIG", default_value = "examples/lb.toml")]
    config: PathBuf,
    /// Pages to fetch, each on a new connection.
    #[arg(long, default_value_t = 6_000)]
    requests: u64,
    /// Pages to fetch a second.
    #[arg(long, default_value_t = 1_000)]
    rate: u64,
    /// Queues of the balancer's interface.
    #[arg(long, default_value_t = 4)]
    queues: u32,
}

/// Set by a signal: leave, and clean up on the way.
static INTERRUPTED: AtomicBool = AtomicBool::new(false);

extern "C" fn interrupt(_: nix::libc::c_int) {
    INTERRUPTED.store(true, Ordering::Relaxed);
}

fn main() -> Result<ExitCode> {
    let arguments = Arguments::parse();
    let action = SigAction::new(SigHandler::Handler(interrupt), SaFlags::SA_RESTART, SigSet::empty());
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        // SAFETY: the handler only stores to an atomic.
        unsafe { sigaction(signal, &action) }.context("sigaction")?;
    }
    xfwd_netns::requirements().context("the demonstration makes network namespaces")?;
    run(&arguments)
}

fn run(arguments: &Arguments) -> Result<ExitCode> {
    println!("client ── bridge ── balancer ({} queues, VIP {VIP_V4})", arguments.queues);
    println!("             └───── backend1, backend2, backend3: real HTTP servers\n");
    let lab = topology::dsr(arguments.queues, 3)?;
    let servers = lab
        .backends
        .iter()
        .enumerate()
        .map(|(index, backend)| serve(backend, index))
        .collect::<Result<Vec<_>>>()?;

    let xfwd = start_xfwd(&lab.balancer, arguments)?;
    let mut shown = Shown::default();
    shown.show(&xfwd);
    let answers = fetch(&lab, arguments, || shown.show(&xfwd))?;
    let (status, summary) = stop(xfwd, &mut shown)?;
    drop(servers);
    ensure!(status.success(), "xfwd ended with {status}");
    report(&answers, &summary)
}

fn serve(namespace: &Namespace, index: usize) -> Result<Child> {
    let name = host_v4(Dsr::backend(index)).to_string();
    let server = namespace.spawn(
        Command::new(tool("xfwd-lab-http")?)
            .args(["serve", "--name", &name, "--listen", &format!("{VIP_V4}:80")]),
    )?;
    server.wait_for("listening", START_PATIENCE)?;
    Ok(server)
}

fn start_xfwd(namespace: &Namespace, arguments: &Arguments) -> Result<Child> {
    let mut command = Command::new(tool("xfwd")?);
    command.args(["--iface", INTERFACE, "--queues", &arguments.queues.to_string(), "--json"]);
    command.arg(&arguments.config);
    println!("$ xfwd --iface {INTERFACE} --queues {} {}", arguments.queues, arguments.config.display());
    let xfwd = namespace.spawn(&mut command)?;
    xfwd.wait_for("leaves the kernel", START_PATIENCE)?;
    Ok(xfwd)
}

/// Shows what a process writes to its standard error, once.
#[derive(Default)]
struct Shown(usize);

impl Shown {
    fn show(&mut self, process: &Child) {
        let text = process.stderr();
        if let Some(new) = text.get(self.0..) {
            print!("{new}");
            self.0 = text.len();
        }
    }
}

/// What the client has seen, as `xfwd-lab-http fetch --json` says it.
#[derive(Deserialize)]
struct Answers {
    succeeded: u64,
    failed: u64,
    per_second: f64,
    backends: BTreeMap<String, u64>,
    failures: BTreeMap<String, u64>,
    latency_us: BTreeMap<String, u64>,
}

fn fetch(lab: &Dsr, arguments: &Arguments, mut meanwhile: impl FnMut()) -> Result<Answers> {
    let mut client = lab.client.spawn(Command::new(tool("xfwd-lab-http")?).args([
        "fetch",
        "--url",
        &format!("http://{VIP_V4}/"),
        "--count",
        &arguments.requests.to_string(),
        "--rate",
        &arguments.rate.to_string(),
        "--concurrency",
        "8",
        "--timeout-ms",
        "5000",
        "--json",
    ]))?;
    let patience = Duration::from_secs(60 + arguments.requests / arguments.rate.max(1));
    let start = Instant::now();
    loop {
        meanwhile();
        if INTERRUPTED.load(Ordering::Relaxed) {
            bail!("interrupted");
        }
        if let Ok(end) = client.wait(Duration::from_millis(200)) {
            return serde_json::from_str(&end.stdout)
                .with_context(|| format!("the client said no JSON:\n{}{}", end.stdout, end.stderr));
        }
        ensure!(start.elapsed() < patience, "the client is not done after {patience:?}");
    }
}

/// What xfwd says at its end.
#[derive(Deserialize)]
struct Summary {
    backends: Vec<Backend>,
    workers: Vec<Worker>,
}

#[derive(Deserialize)]
struct Backend {
    service: String,
    address: String,
    weight: u32,
    connections: u64,
}

#[derive(Deserialize)]
struct Worker {
    worker: usize,
    rx_packets: u64,
}

fn stop(mut xfwd: Child, shown: &mut Shown) -> Result<(ExitStatus, Summary)> {
    xfwd.signal(Signal::SIGINT)?;
    let end = xfwd.wait(STOP_PATIENCE)?;
    shown.show(&xfwd);
    let summary = serde_json::from_str(&end.stdout).context("xfwd's summary")?;
    Ok((end.status, summary))
}

/// Prints the table; fails when a request failed or a share is off its weight.
fn report(answers: &Answers, summary: &Summary) -> Result<ExitCode> {
    let service = &summary.backends.first().context("the config has no service")?.service;
    let backends: Vec<&Backend> =
        summary.backends.iter().filter(|backend| backend.service == *service).collect();
    let weights: u32 = backends.iter().map(|backend| backend.weight).sum();
    let total = answers.succeeded + answers.failed;

    println!("\n{total} requests, {} failed, {:.0} a second", answers.failed, answers.per_second);
    for (reason, count) in &answers.failures {
        println!("  failed: {reason}: {count}");
    }
    let milliseconds = |name: &str| answers.latency_us.get(name).copied().unwrap_or(0) as f64 / 1e3;
    println!(
        "time a page: median {:.1} ms, 99 % within {:.1} ms, slowest {:.1} ms",
        milliseconds("p50"),
        milliseconds("p99"),
        milliseconds("max")
    );
    for worker in &summary.workers {
        println!("worker {}: {} packets", worker.worker, worker.rx_packets);
    }
    println!(
        "\n{:<15} {:>6} {:>9} {:>12} {:>7} {:>9}  ",
        "backend", "weight", "requests", "connections", "share", "by weight"
    );
    let mut good = answers.failed == 0 && answers.succeeded > 0;
    for backend in backends {
        let requests = answers.backends.get(&backend.address).copied().unwrap_or(0);
        let expected = f64::from(backend.weight) / f64::from(weights);
        let share = requests as f64 / answers.succeeded.max(1) as f64;
        let sigma = (expected * (1.0 - expected) / answers.succeeded.max(1) as f64).sqrt();
        let fits = (share - expected).abs() <= TOLERANCE_SIGMA * sigma;
        good &= fits;
        println!(
            "{:<15} {:>6} {requests:>9} {:>12} {:>6.1}% {:>8.1}%  {}",
            backend.address,
            backend.weight,
            backend.connections,
            100.0 * share,
            100.0 * expected,
            if fits { "" } else { "off its weight" }
        );
    }
    println!();
    if good {
        println!("every request was answered, every backend has its share");
        Ok(ExitCode::SUCCESS)
    } else {
        println!("FAILED: a request failed or a share is off its weight");
        Ok(ExitCode::FAILURE)
    }
}
