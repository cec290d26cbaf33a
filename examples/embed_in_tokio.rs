//! A network function inside of a tokio program: a UDP echo server for sources that are on a list, beside a small HTTP server that shows its
//! counters and changes the list while packets flow.
//!
//! Usage, as root: `embed_in_tokio INTERFACE ADDRESS:PORT HTTP_ADDRESS:PORT [QUEUES]`, such as `embed_in_tokio eth0 198.18.0.2:7
//! 127.0.0.1:8080 4`. Then `curl -X PUT http://127.0.0.1:8080/allowed/198.18.0.1` lets that host in, `-X DELETE` out again, and `curl
//! http://127.0.0.1:8080/counters` shows what was done. It ends by Ctrl-C or SIGTERM.
//!
//! Workers are threads of their own, pinned and never asleep while there is work: async code neither runs on them nor waits for
//! them. What the two have to say to each other:
//!
//! * Starting and stopping take time (sockets, maps, threads), so they run where blocking is allowed (`spawn_blocking`).
//! * Events are a future, `Running::next_event`.
//! * A snapshot is some system calls and no waiting: it may be taken anywhere.
//! * To the workers goes what they shall do differently, by one bounded lock-free queue for each. They look between two batches, each
//!   keeps a list of its own, and no packet waits for anybody.

use std::collections::HashSet;
use std::error::Error;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use crossbeam::queue::ArrayQueue;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::{JoinSet, spawn_blocking};
use xfwd::packet::FiveTuple;
use xfwd::prelude::*;

/// Changes that may wait for a worker, which looks ten times a second at least.
const WAITING: usize = 64;
const HOPS: u8 = 64;

/// Whether a source is let in from now on.
#[derive(Clone, Copy)]
struct Change(IpAddr, bool);

/// The way to each worker.
type Controls = Vec<Arc<ArrayQueue<Change>>>;

struct Echo {
    changes: Arc<ArrayQueue<Change>>,
    allowed: HashSet<IpAddr>,
    answered: StageCounter,
    refused: StageCounter,
}

impl Stage for Echo {
    fn name(&self) -> &str {
        "echo"
    }

    fn housekeeping(&mut self) {
        while let Some(Change(source, allowed)) = self.changes.pop() {
            if allowed {
                self.allowed.insert(source)
            } else {
                self.allowed.remove(&source)
            };
        }
    }

    fn process(&mut self, batch: &mut Batch<'_>) {
        batch.each_undecided(|packet| {
            let flow = FiveTuple::of(packet.bytes(), packet.headers());
            let allowed = flow.is_some_and(|flow| self.allowed.contains(&flow.source().ip()));
            if allowed && packet.turn_around().is_ok() && packet.set_hop_limit(HOPS).is_ok() {
                self.answered.add(1);
                Verdict::Bounce
            } else {
                self.refused.add(1);
                Verdict::Drop(DropReason::NotAnswered)
            }
        });
    }
}

/// Answers one request (RFC 9112), of which only the first line matters.
async fn answer(mut client: TcpStream, running: Arc<Running>, controls: Arc<Controls>) -> io::Result<()> {
    let (mut request, mut length) = ([0; 1_024], 0);
    while length < request.len() && !request[..length].windows(4).any(|end| end == b"\r\n\r\n") {
        match client.read(&mut request[length..]).await? {
            0 => break,
            count => length += count,
        }
    }
    let text = String::from_utf8_lossy(&request[..length]);
    let mut words = text.split(' ');
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let source = path.strip_prefix("/allowed/").and_then(|source| source.parse().ok());
    let (status, body) = match (method, path, source) {
        ("GET", "/counters", _) => {
            let counters = running.snapshot().counters;
            ("200 OK", counters.iter().map(|(name, count)| format!("{name} {count}\n")).collect())
        }
        ("PUT" | "DELETE", _, Some(source)) => {
            let change = Change(source, method == "PUT");
            let told = controls.iter().filter(|worker| worker.push(change).is_ok()).count();
            // Doing it once more does no harm to those that were told.
            let status = if told == controls.len() { "200 OK" } else { "503 Service Unavailable" };
            (status, String::new())
        }
        _ => ("404 Not Found", String::new()),
    };
    let length = body.len();
    let head = format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n");
    client.write_all((head + &body).as_bytes()).await
}

// One thread is enough: it only waits. With more threads the program would be the same.
#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [interface, address, http, queues @ ..] = &arguments[..] else {
        return Err("usage: embed_in_tokio INTERFACE ADDRESS:PORT HTTP_ADDRESS:PORT [QUEUES]".into());
    };
    let address: SocketAddr = address.parse()?;
    let queues: u32 = queues.first().map_or(Ok(1), |queues| queues.parse())?;
    let listener = TcpListener::bind(http).await?;
    let (mut interrupted, mut terminated) =
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);

    let controls: Arc<Controls> = Arc::new((0..queues).map(|_| Arc::new(ArrayQueue::new(WAITING))).collect());
    let of_workers = Arc::clone(&controls);
    let runner = Runner::new().interface(interface).queues(queues).steer(SteeredService::udp(address));
    let runner = runner.stage(move |worker| Echo {
        changes: Arc::clone(&of_workers[worker.worker()]),
        allowed: HashSet::new(),
        answered: worker.counter("answered"),
        refused: worker.counter("refused"),
    });
    let running = Arc::new(spawn_blocking(|| runner.start()).await??);
    running.warnings().iter().for_each(|warning| eprintln!("warning: {warning}"));
    eprintln!("echoing on {address}, listening on {}", listener.local_addr()?);

    let mut requests = JoinSet::new();
    let mut ended = false;
    while !ended {
        tokio::select! {
            _ = interrupted.recv() => break,
            _ = terminated.recv() => break,
            event = running.next_event() => {
                eprintln!("{event:?}");
                ended = event.is_end();
            }
            client = listener.accept() => {
                requests.spawn(answer(client?.0, Arc::clone(&running), Arc::clone(&controls)));
            }
            Some(_) = requests.join_next() => {}
        }
    }
    // Whatever requests were being answered let go of the run.
    requests.shutdown().await;
    let running = Arc::into_inner(running).ok_or("the run is in use")?;
    let (snapshot, errors) = spawn_blocking(|| running.stop()).await?;
    println!("{} answered, {} refused", snapshot.counters["answered"], snapshot.counters["refused"]);
    errors.into_iter().next().map_or(Ok(()), |error| Err(error.into()))
}
