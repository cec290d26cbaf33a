//! The demonstration: a client, a balancer with four queues and three backends, each in a namespace of its own. While the client
//! fetches pages, each on a new TCP connection, and holds long-lived ones, a backend is drained and another is killed. At the
//! end a table says who answered what, and whether what xfwd promises was kept. `scripts/demo` builds and runs it.

mod balancer;
mod client;
mod report;
mod site;

use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Parser;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use xfwd_netns::clients::hold;
use xfwd_netns::topology::VIP_V4;

use balancer::Balancer;
use client::Client;
use report::{Report, Times};
use site::{ECHO, Site, Way};

/// The backend that is drained.
const DRAINED: usize = 1;
/// The backend that dies.
const KILLED: usize = 2;
/// Connections that are held.
const HELD: u16 = 40;
/// How much longer than promised the death of a backend may go unnoticed, for what is the machine's fault: this runs a
/// client, servers and a balancer on few cores.
const SLACK: Duration = Duration::from_millis(500);
/// Exit status after SIGINT, as shells have it.
const INTERRUPTED_STATUS: u8 = 130;

/// Shows xfwd balancing real TCP connections while backends go, in namespaces that it makes and removes.
#[derive(Parser)]
struct Arguments {
    /// Way from the balancer to the backends.
    #[arg(long, value_enum, default_value = "dsr")]
    forward: Way,
    /// Pages to fetch a second.
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u64).range(1..=5_000))]
    rate: u64,
    /// Seconds of each of the three parts: all well, a backend drained, another dead.
    #[arg(long, default_value_t = 6, value_parser = clap::value_parser!(u64).range(3..))]
    seconds: u64,
    /// Queues of the balancer's interface.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..))]
    queues: u32,
}

/// Set by a signal: leave, and clean up on the way.
static INTERRUPTED: AtomicBool = AtomicBool::new(false);

extern "C" fn interrupt(_: nix::libc::c_int) {
    INTERRUPTED.store(true, Ordering::Relaxed);
}

fn check_interrupted() -> Result<()> {
    if INTERRUPTED.load(Ordering::Relaxed) {
        bail!("interrupted");
    }
    Ok(())
}

fn main() -> Result<ExitCode> {
    let arguments = Arguments::parse();
    let action = SigAction::new(SigHandler::Handler(interrupt), SaFlags::SA_RESTART, SigSet::empty());
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        // SAFETY: the handler only stores to an atomic.
        unsafe { sigaction(signal, &action) }.context("sigaction")?;
    }
    xfwd_netns::requirements().context("the demonstration makes network namespaces")?;
    match run(&arguments) {
        // What else went wrong then was the signal's work, too: it reaches every process of the terminal.
        Err(_) if INTERRUPTED.load(Ordering::Relaxed) => {
            println!("\ninterrupted: everything that was made is removed again");
            Ok(ExitCode::from(INTERRUPTED_STATUS))
        }
        result => result,
    }
}

fn run(arguments: &Arguments) -> Result<ExitCode> {
    let mut site = Site::new(arguments.forward, arguments.queues)?;
    println!("{}", site.picture(arguments.queues));
    check_interrupted()?;
    let mut balancer = Balancer::start(&site, arguments.queues)?;

    let echo = SocketAddr::new(VIP_V4.into(), ECHO);
    let holding = hold::start(
        &site.client,
        echo,
        &hold::Options { connections: HELD, timeout: Duration::from_secs(3), ..Default::default() },
    )?;
    println!(
        "\nThe client holds {HELD} connections and fetches {} pages a second, each on a new connection.",
        arguments.rate
    );
    let client = Client::start(&site.client, &format!("http://{VIP_V4}/"), arguments.rate);
    let mut show = Show { start: Instant::now(), seconds: 0, tries: 0 };
    let part = Duration::from_secs(arguments.seconds);
    show.pass(part, &client, &site, &mut balancer)?;

    let name = &site.backends[DRAINED].name;
    println!("\n{:5.1} s   {name} is drained: `state = \"drain\"` in lb.toml, then SIGHUP.", show.now());
    site.backends[DRAINED].is_drained = true;
    balancer.reload(&site)?;
    let drained = Instant::now();
    show.pass(part, &client, &site, &mut balancer)?;

    let (name, address) = (site.backends[KILLED].name.clone(), site.backends[KILLED].address);
    println!("\n{:5.1} s   {name} dies: its servers are killed.", show.now());
    let killed = Instant::now();
    site.kill(KILLED);
    // Both services have checks of their own; pages are what is counted.
    let patience = site::fall_time() + Duration::from_secs(5);
    show.pass_until(patience, &client, &site, &mut balancer, |said| said.has_found("pages", address))?;
    let found = Instant::now();
    println!(
        "{:5.1} s   The health check has found that, after {:.1} s ({:.1} s are promised): no new connection goes there now.",
        show.now(),
        (found - killed).as_secs_f64(),
        site::fall_time().as_secs_f64()
    );
    show.pass(part, &client, &site, &mut balancer)?;

    println!("\n{:5.1} s   The client is done, xfwd gets SIGINT.", show.now());
    let tries = client.stop();
    let held = holding.stop()?;
    let states = balancer.stop()?;
    check_interrupted()?;
    let report = Report::new(&site, &tries, &held, Times { drained, killed, found });
    println!("\n{}", report.table(&site, &states));
    let promises = report.promises(&site);
    promises.iter().for_each(|promise| println!("{promise}"));
    Ok(if promises.iter().all(|promise| promise.is_kept) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What is shown meanwhile: a line a second.
struct Show {
    start: Instant,
    /// Seconds that were shown.
    seconds: u64,
    /// Tries that were shown.
    tries: usize,
}

impl Show {
    fn now(&self) -> f64 {
        self.start.elapsed().as_secs_f64()
    }

    /// Lets time pass.
    fn pass(&mut self, time: Duration, client: &Client, site: &Site, balancer: &mut Balancer) -> Result<()> {
        self.pass_until(time, client, site, balancer, |_| false)
    }

    /// Lets time pass until something is so, `longest` at most.
    fn pass_until(
        &mut self,
        longest: Duration,
        client: &Client,
        site: &Site,
        balancer: &mut Balancer,
        is_so: impl Fn(&Balancer) -> bool,
    ) -> Result<()> {
        let end = Instant::now() + longest;
        while Instant::now() < end && !is_so(balancer) {
            check_interrupted()?;
            std::thread::sleep(Duration::from_millis(5));
            balancer.show();
            if self.start.elapsed().as_secs() > self.seconds {
                self.seconds = self.start.elapsed().as_secs();
                self.second(client, site);
            }
        }
        balancer.show();
        Ok(())
    }

    fn second(&mut self, client: &Client, site: &Site) {
        let tries = client.tries();
        let new = &tries[self.tries..];
        let by_backend = site.backends.iter().map(|backend| {
            let pages = new.iter().filter(|one| one.answer.as_ref() == Ok(&backend.name)).count();
            format!("{} {pages:>4}", backend.name)
        });
        let failed = match new.iter().filter(|one| one.answer.is_err()).count() {
            0 => String::new(),
            failed => format!("   failed and tried again: {failed}"),
        };
        println!("{:5.1} s   pages: {}{failed}", self.now(), by_backend.collect::<Vec<_>>().join("   "));
        self.tries = tries.len();
    }
}
