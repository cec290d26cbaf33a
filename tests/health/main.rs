//! Health checks against real servers on the loopback interface, commands, and hosts in namespaces.
#![cfg(feature = "health")]
#![allow(missing_docs, clippy::unwrap_used)]

mod backends;
mod command;
mod hosts;
mod many;
#[path = "../support/netns.rs"]
mod netns;
mod reload;
#[path = "../support/tls_server.rs"]
mod tls_server;

use std::{
    io::{Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    sync::mpsc::{self, Receiver},
    thread,
    time::{Duration, Instant},
};

use xfwd::health::{Change, Condition, Health, HealthCheck, HealthKind, Status, Target};

const PATIENCE: Duration = Duration::from_secs(20);
const MS: Duration = Duration::from_millis(1);

/// A quick check of a kind, of a backend that does not matter.
fn target(kind: HealthKind, to: SocketAddr) -> Target {
    let check = HealthCheck { kind, interval: 50 * MS, timeout: 2000 * MS, fall: 2, ..Default::default() };
    Target { id: 1, service: "web".to_owned(), address: to.ip(), port: to.port(), check, path: None }
}

fn start(targets: Vec<Target>) -> (Health, Receiver<Change>) {
    let (sender, changes) = mpsc::channel();
    let health = Health::start(targets, move |all| {
        for change in all {
            // The test may have ended.
            let _ = sender.send(change.clone());
        }
    });
    (health.unwrap(), changes)
}

fn next(changes: &Receiver<Change>) -> (Condition, String) {
    let change = changes.recv_timeout(PATIENCE).unwrap();
    (change.to, change.reason)
}

/// What the first check of a target says.
fn first(target: Target) -> (Condition, String) {
    let (_health, changes) = start(vec![target]);
    next(&changes)
}

fn up(reason: &str) -> (Condition, String) {
    (Condition::Up, reason.to_owned())
}

fn down(reason: &str) -> (Condition, String) {
    (Condition::Down, reason.to_owned())
}

fn wait(what: &str, mut until: impl FnMut() -> bool) {
    let start = Instant::now();
    while !until() {
        assert!(start.elapsed() < PATIENCE, "waited in vain: {what}");
        thread::sleep(5 * MS);
    }
}

fn status_of(health: &Health, id: u64) -> Status {
    health.status().into_iter().find(|status| status.id == id).unwrap()
}

/// A server on `address` that hands every connection to a closure, on a thread that ends with the process.
fn server(address: &str, mut serve: impl FnMut(TcpStream) + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind((address.parse::<IpAddr>().unwrap(), 0)).unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || listener.incoming().for_each(|stream| serve(stream.unwrap())));
    address
}

/// Reads a request's head.
fn request(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    let mut buffer = [0; 1024];
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read(&mut buffer) {
            Ok(read @ 1..) => head.extend_from_slice(&buffer[..read]),
            _ => break,
        }
    }
    String::from_utf8(head).unwrap()
}

fn answer(stream: &mut TcpStream, text: &str) {
    // The other side may have gone.
    let _ = stream.write_all(text.as_bytes());
}
