//! `xfwd-lab-http`: real servers and real clients for a lab.
//!
//! Servers answer with their name, clients count which name answered how often, and how long it took.

mod echo;
mod hold;
mod http;
mod report;
mod udp;

use std::{
    net::SocketAddr,
    process::ExitCode,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::Result;
use clap::{Args, Parser, Subcommand};

use report::Report;

#[derive(Parser)]
#[command(name = "xfwd-lab-http", version, about = "HTTP, TCP and UDP servers and clients for the xfwd lab")]
struct Cli {
    #[command(subcommand)]
    command: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Answer HTTP/1.1 requests with a body that starts with a line that names this server.
    Serve(http::Serve),
    /// Make HTTP requests, each on a new TCP connection; exit with 1 if any fails.
    Fetch(http::Fetch),
    /// Answer UDP datagrams with a line that names this server, and the datagram.
    UdpServe(udp::Serve),
    /// Make UDP requests, each from a new socket; exit with 1 if any fails.
    UdpFetch(udp::Fetch),
    /// Answer every line of a TCP connection with this server's name and the line.
    EchoServe(echo::Serve),
    /// Hold TCP connections to echo servers; exit with 1 if any breaks.
    Hold(hold::Hold),
}

/// What every server is told.
#[derive(Args)]
struct Server {
    /// Address and port; can be given several times.
    #[arg(long, value_name = "ADDRESS:PORT", required = true)]
    listen: Vec<SocketAddr>,
    /// First line of every answer.
    #[arg(long)]
    name: String,
}

/// What every client is told.
#[derive(Args)]
struct Client {
    /// Number of requests.
    #[arg(long, default_value_t = 1)]
    count: u64,
    /// Requests at a time.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    concurrency: u16,
    /// Milliseconds until a request has failed.
    #[arg(long, value_name = "MS", default_value_t = 1000)]
    timeout_ms: u64,
    /// Requests per second, of all together; without it as many as go.
    #[arg(long, value_name = "PER_SECOND", value_parser = clap::value_parser!(u64).range(1..))]
    rate: Option<u64>,
    /// Report as JSON.
    #[arg(long)]
    json: bool,
}

impl Client {
    /// Makes all requests. One request returns the first line of the answer, or why there was none.
    fn run(&self, request: impl Fn(u64, Duration) -> Result<String, String> + Sync) -> Result<ExitCode> {
        let timeout = Duration::from_millis(self.timeout_ms);
        let next = AtomicU64::new(0);
        let report = Mutex::new(Report::new()?);
        let start = Instant::now();
        thread::scope(|scope| {
            for _ in 0..self.concurrency {
                scope.spawn(|| {
                    loop {
                        let number = next.fetch_add(1, Ordering::Relaxed);
                        if number >= self.count {
                            return;
                        }
                        if let Some(rate) = self.rate {
                            let due = start + Duration::from_secs_f64(number as f64 / rate as f64);
                            thread::sleep(due.saturating_duration_since(Instant::now()));
                        }
                        let begun = Instant::now();
                        let answer = request(number, timeout);
                        let took = begun.elapsed();
                        report.lock().unwrap_or_else(PoisonError::into_inner).add(answer, took);
                    }
                });
            }
        });
        let report = report.into_inner().unwrap_or_else(PoisonError::into_inner);
        report.print(start.elapsed(), self.json);
        Ok(if report.has_failures() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
    }
}

fn main() -> Result<ExitCode> {
    match Cli::parse().command {
        Task::Serve(task) => task.run(),
        Task::Fetch(task) => task.run(),
        Task::UdpServe(task) => task.run(),
        Task::UdpFetch(task) => task.run(),
        Task::EchoServe(task) => task.run(),
        Task::Hold(task) => task.run(),
    }
}
