//! TCP connections that live long, and notice when one breaks.

use std::{
    collections::BTreeMap,
    io::{self, BufRead as _, BufReader, Write as _},
    net::{SocketAddr, TcpStream},
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::Result;
use clap::Args;
use nix::sys::signal::{SigSet, Signal};
use serde::Serialize;

#[derive(Args)]
pub struct Hold {
    /// Address and port of an echo server.
    #[arg(long, value_name = "ADDRESS:PORT")]
    to: SocketAddr,
    /// Connections at a time.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u16).range(1..))]
    connections: u16,
    /// How long to hold them; less if SIGINT or SIGTERM comes before.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Milliseconds between the exchanges of a connection.
    #[arg(long, value_name = "MS", default_value_t = 100)]
    interval_ms: u64,
    /// Milliseconds until a connection without an answer is broken.
    #[arg(long, value_name = "MS", default_value_t = 5000)]
    timeout_ms: u64,
    /// Bytes of a question, at least; the number is followed by dots.
    #[arg(long, value_name = "BYTES", default_value_t = 0)]
    size: usize,
    /// Report as JSON.
    #[arg(long)]
    json: bool,
}

/// What all connections share.
struct Shared {
    start: Instant,
    deadline: Instant,
    stop: AtomicBool,
    /// Connections that have had their first answer, or never will.
    settled: AtomicU64,
}

/// How a connection went.
struct Held {
    /// The name of the server, by its first answer.
    server: Option<String>,
    exchanges: u64,
    broken: Option<Broken>,
}

#[derive(Serialize)]
struct Broken {
    local: Option<SocketAddr>,
    server: Option<String>,
    exchanges: u64,
    after_ms: u128,
    reason: String,
}

#[derive(Serialize)]
struct Report {
    connections: usize,
    /// Those that had an answer.
    established: usize,
    exchanges: u64,
    /// Connections by the server that answered.
    backends: BTreeMap<String, u64>,
    /// Those that never had an answer, too.
    broken: Vec<Broken>,
    seconds: f64,
}

impl Hold {
    pub fn run(&self) -> Result<ExitCode> {
        let start = Instant::now();
        let shared = Arc::new(Shared {
            start,
            deadline: start + Duration::from_secs(self.seconds),
            stop: AtomicBool::new(false),
            settled: AtomicU64::new(0),
        });
        stop_by_signal(Arc::clone(&shared))?;
        let held: Vec<Held> = thread::scope(|scope| {
            let hold = || {
                let held = self.hold(&shared);
                if held.exchanges == 0 {
                    self.settle(&shared);
                }
                held
            };
            let threads: Vec<_> = (0..self.connections).map(|_| scope.spawn(hold)).collect();
            threads.into_iter().flat_map(|thread| thread.join()).collect()
        });
        let report = Report::new(held, start.elapsed());
        report.print(self.json)?;
        Ok(if report.broken.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }

    fn hold(&self, shared: &Shared) -> Held {
        let mut held = Held { server: None, exchanges: 0, broken: None };
        let mut local = None;
        if let Err(reason) = self.exchange_until_end(shared, &mut held, &mut local) {
            held.broken = Some(Broken {
                local,
                server: held.server.clone(),
                exchanges: held.exchanges,
                after_ms: shared.start.elapsed().as_millis(),
                reason,
            });
        }
        held
    }

    fn exchange_until_end(
        &self,
        shared: &Shared,
        held: &mut Held,
        local: &mut Option<SocketAddr>,
    ) -> Result<(), String> {
        let timeout = Duration::from_millis(self.timeout_ms);
        let stream = TcpStream::connect_timeout(&self.to, timeout).map_err(|error| reason(&error))?;
        *local = stream.local_addr().ok();
        let options = stream.set_nodelay(true).and_then(|()| stream.set_read_timeout(Some(timeout)));
        options.and_then(|()| stream.set_write_timeout(Some(timeout))).map_err(|error| reason(&error))?;
        let mut reader = BufReader::new(&stream);
        let mut writer = &stream;
        let mut answer = String::new();
        loop {
            let mut question = format!("{} ", held.exchanges);
            question.extend(std::iter::repeat_n('.', self.size.saturating_sub(question.len() + 1)));
            question.push('\n');
            answer.clear();
            writer.write_all(question.as_bytes()).map_err(|error| reason(&error))?;
            if reader.read_line(&mut answer).map_err(|error| reason(&error))? == 0 {
                return Err("closed by the server".to_owned());
            }
            let (name, echo) = answer.split_once(' ').unwrap_or_default();
            if echo != question {
                return Err("answered wrong".to_owned());
            }
            match &held.server {
                None => held.server = Some(name.to_owned()),
                Some(server) if server != name => return Err(format!("answered by {name}")),
                Some(_) => {}
            }
            held.exchanges += 1;
            if held.exchanges == 1 {
                self.settle(shared);
            }
            if !shared.pause(Duration::from_millis(self.interval_ms)) {
                return Ok(());
            }
        }
    }

    /// The last connection to settle says so, for those who wait.
    fn settle(&self, shared: &Shared) {
        if shared.settled.fetch_add(1, Ordering::Relaxed) + 1 == u64::from(self.connections) {
            eprintln!("all {} connections have been tried", self.connections);
        }
    }
}

impl Shared {
    /// Waits for the next exchange; `false`: it is time to end.
    fn pause(&self, interval: Duration) -> bool {
        const SLICE: Duration = Duration::from_millis(20);
        let next = Instant::now() + interval;
        loop {
            let now = Instant::now();
            if self.stop.load(Ordering::Relaxed) || now >= self.deadline {
                return false;
            }
            if now >= next {
                return true;
            }
            thread::sleep(SLICE.min(next - now));
        }
    }
}

/// Ends all at SIGINT or SIGTERM. To be called before any other thread is started.
fn stop_by_signal(shared: Arc<Shared>) -> Result<()> {
    let signals = SigSet::from_iter([Signal::SIGINT, Signal::SIGTERM]);
    signals.thread_block()?;
    thread::spawn(move || {
        let _ = signals.wait();
        shared.stop.store(true, Ordering::Relaxed);
    });
    Ok(())
}

/// A short reason, the same for the same cause.
fn reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::WouldBlock => io::ErrorKind::TimedOut.to_string(),
        other => other.to_string(),
    }
}

impl Report {
    fn new(all: Vec<Held>, elapsed: Duration) -> Self {
        let mut report = Self {
            connections: all.len(),
            established: 0,
            exchanges: 0,
            backends: BTreeMap::new(),
            broken: Vec::new(),
            seconds: elapsed.as_secs_f64(),
        };
        for held in all {
            report.exchanges += held.exchanges;
            if let Some(server) = held.server {
                report.established += 1;
                *report.backends.entry(server).or_default() += 1;
            }
            report.broken.extend(held.broken);
        }
        report
    }

    fn print(&self, as_json: bool) -> Result<()> {
        if as_json {
            println!("{}", serde_json::to_string(self)?);
            return Ok(());
        }
        println!(
            "{} of {} connections answered, {} exchanges in {:.2} s, {} broken",
            self.established,
            self.connections,
            self.exchanges,
            self.seconds,
            self.broken.len()
        );
        for (name, count) in &self.backends {
            println!("  {name:<24} {count:>8}");
        }
        for broken in &self.broken {
            let server = broken.server.as_deref().unwrap_or("nobody");
            println!("  broken: {server} after {} ms: {}", broken.after_ms, broken.reason);
        }
        Ok(())
    }
}
