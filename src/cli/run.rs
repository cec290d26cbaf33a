//! `xfwd --iface IF --queues N CONFIG`: run until told to stop.

use std::pin::pin;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use signal_hook::consts::{SIGHUP, TERM_SIGNALS};

use super::live::Live;
use super::output::{print, say, say_error};
use super::{RunArgs, WRONG_INPUT, check, summary};
use crate::config::Registry;
use crate::runtime::{Event, Runner, Running, Snapshot, StartError};

/// How often live rates are shown.
const LIVE_PERIOD: Duration = Duration::from_secs(1);
/// With nothing to show nobody has to look more often.
const QUIET_PERIOD: Duration = Duration::from_secs(60);

/// More services than these are only counted at the start; `xfwd check` lists them.
const MOST_SERVICES: usize = 32;

pub(super) fn run(args: &RunArgs, registry: &Registry) -> ExitCode {
    let plan = match registry.load(&args.config) {
        Ok(plan) => plan,
        Err(error) => return check::refuse(&error),
    };
    for warning in &plan.warnings {
        say(warning);
    }
    // Before anything is set up, so that no signal finds it half done.
    let signals = match signals() {
        Ok(signals) => signals,
        Err(error) => {
            say(format!("error: cannot listen to signals: {error}"));
            return ExitCode::FAILURE;
        }
    };
    let mut runner =
        Runner::with_plan(plan.clone()).interfaces(args.interfaces.iter().cloned()).queues(args.queues);
    if let Some(cores) = &args.cores {
        runner = runner.cores(cores.iter().copied());
    }
    let running = match runner.start() {
        Ok(running) => running,
        Err(error) => {
            say_error(&error);
            return match error {
                StartError::InterfaceTwice(_) | StartError::TooManyInterfaces(_) => {
                    ExitCode::from(WRONG_INPUT)
                }
                _ => ExitCode::FAILURE,
            };
        }
    };
    introduce(&running);
    check::describe(&plan, MOST_SERVICES).iter().for_each(say);

    watch(&running, args, &signals, registry);
    let (snapshot, errors) = running.stop();
    let status = finish(args, &snapshot);
    for error in &errors {
        say_error(error);
    }
    if errors.is_empty() { status } else { ExitCode::FAILURE }
}

/// Set when a signal has come.
struct Signals {
    /// SIGINT, SIGTERM, SIGQUIT; a second one ends the process at once, which the kernel cleans up after.
    stop: Arc<AtomicBool>,
    /// SIGHUP.
    reload: Arc<AtomicBool>,
}

fn signals() -> std::io::Result<Signals> {
    let signals = Signals { stop: Arc::default(), reload: Arc::default() };
    for signal in TERM_SIGNALS {
        signal_hook::flag::register_conditional_shutdown(*signal, 1, Arc::clone(&signals.stop))?;
        signal_hook::flag::register(*signal, Arc::clone(&signals.stop))?;
    }
    signal_hook::flag::register(SIGHUP, Arc::clone(&signals.reload))?;
    // Registered last and so told last: who is woken finds the signal above.
    let mut told = signal_hook::iterator::Signals::new(TERM_SIGNALS.iter().chain([&SIGHUP]))?;
    let waiting = thread::current();
    thread::Builder::new()
        .name("xfwd-signals".to_owned())
        .spawn(move || told.forever().for_each(|_| waiting.unpark()))?;
    Ok(signals)
}

/// Wakes a thread.
struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Waits for an event or a signal; for nothing longer than `timeout`.
fn wait(running: &Running, timeout: Duration) -> Option<Event> {
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut context = Context::from_waker(&waker);
    let mut next = pin!(running.next_event());
    if let Poll::Ready(event) = next.as_mut().poll(&mut context) {
        return Some(event);
    }
    thread::park_timeout(timeout);
    match next.as_mut().poll(&mut context) {
        Poll::Ready(event) => Some(event),
        Poll::Pending => None,
    }
}

/// What was set up, in a few lines.
fn introduce(running: &Running) {
    let snapshot = running.snapshot();
    for link in running.links() {
        let queues: Vec<String> = snapshot
            .queues
            .iter()
            .filter(|queue| queue.report.interface == link.name)
            .map(|queue| {
                let core = snapshot.workers[queue.worker].core;
                let core = core.map_or("any core".to_owned(), |core| format!("core {core}"));
                format!("queue {} {} on {core}", queue.report.queue, queue.report.mode)
            })
            .collect();
        say(format!(
            "{} ({}, mtu {}): {}",
            link.name,
            link.driver.as_deref().unwrap_or("unknown driver"),
            link.mtu,
            queues.join(", ")
        ));
    }
    for warning in running.warnings() {
        say(format!("warning: {warning}"));
    }
}

/// Shows live rates and does what signals ask for, until the run is over.
fn watch(running: &Running, args: &RunArgs, signals: &Signals, registry: &Registry) {
    let mut live = Live::new(running.snapshot());
    let start = Instant::now();
    let end = args.duration.map(|duration| start + duration);
    let period = if args.quiet { QUIET_PERIOD } else { LIVE_PERIOD };
    let mut next = start + period;
    while !signals.stop.load(Relaxed) {
        if signals.reload.swap(false, Relaxed) {
            live.interrupt();
            reload(running, args, registry);
        }
        let now = Instant::now();
        if end.is_some_and(|end| now >= end) {
            break;
        }
        if now >= next {
            // A reload may have taken longer.
            while next <= now {
                next += period;
            }
            if !args.quiet {
                live.show(running.snapshot());
            }
        }
        let wake = end.map_or(next, |end| end.min(next));
        let event = wait(running, wake.saturating_duration_since(Instant::now()));
        if let Some(event) = event {
            live.interrupt();
            announce(&event);
            if event.is_end() {
                break;
            }
        }
    }
    live.interrupt();
}

/// Reads the config again. What is wrong with it is said, and then the one before goes on.
fn reload(running: &Running, args: &RunArgs, registry: &Registry) {
    let start = Instant::now();
    let plan = match registry.load(&args.config) {
        Ok(plan) => plan,
        Err(error) => {
            check::refuse(&error);
            say("nothing has changed: the config that ran goes on");
            return;
        }
    };
    for warning in &plan.warnings {
        say(warning);
    }
    match running.reload(&plan) {
        Ok(warnings) => {
            warnings.iter().for_each(|warning| say(format!("warning: {warning}")));
            check::describe(&plan, MOST_SERVICES).iter().for_each(say);
            say(format!("reloaded {} in {} ms", args.config.display(), start.elapsed().as_millis()));
        }
        Err(error) => {
            say_error(&error);
            say("nothing has changed: the config that ran goes on");
        }
    }
}

fn announce(event: &Event) {
    match event {
        Event::Carrier { interface, up: false } => say(format!("{interface}: carrier lost")),
        Event::Carrier { interface, up: true } => say(format!("{interface}: carrier back")),
        Event::Neighbour { address, mac: Some(mac) } => say(format!("backend {address} is at {mac}")),
        Event::Neighbour { address, mac: None } => {
            say(format!("backend {address} no longer answers ARP or neighbour discovery"));
        }
        Event::Health { service, address, healthy, reason } => {
            let state = if *healthy { "healthy" } else { "not healthy: it gets no flows" };
            say(format!("service {service}: backend {address} is {state} ({reason})"));
        }
        // These two are told as errors at the end.
        Event::WorkerEnded(_) | Event::InterfaceRemoved(_) => {}
    }
}

fn finish(args: &RunArgs, snapshot: &Snapshot) -> ExitCode {
    if args.json {
        match serde_json::to_string_pretty(snapshot) {
            Ok(json) => print(json),
            Err(error) => {
                say(format!("error: the summary could not be written as JSON: {error}"));
                ExitCode::FAILURE
            }
        }
    } else {
        print(summary::tables(snapshot))
    }
}
