//! How workers wait: each way forwards, those that may sleep cost little when there is nothing to do, and wake for the
//! first packet.
#![allow(missing_docs, clippy::unwrap_used)]

#[path = "support/xfwd.rs"]
mod running;

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, UdpSocket},
    thread,
    time::{Duration, Instant},
};

use running::{PATIENCE, Summary, Xfwd};
use xfwd_netns::{
    lab_or_skip,
    topology::{self, INTERFACE, Pair},
};

/// An address that no host has.
const NOBODY: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 19, 0, 1));
const PACKETS: u64 = 200;
/// How long an idle worker is watched.
const WATCHED: Duration = Duration::from_secs(2);

/// What the workers' threads did while nothing arrived.
#[derive(Debug)]
struct Rest {
    /// Share of the time in which they ran.
    ran: f64,
    /// Share of the time in which they ran or would have, had there been a core for them.
    wanted_to_run: f64,
}

/// Time that the workers' threads ran, and waited for a core (`sched-stats.rst`).
fn scheduled(xfwd: &Xfwd) -> (Duration, Duration) {
    let tasks = fs::read_dir(format!("/proc/{}/task", xfwd.pid())).unwrap();
    let (mut ran, mut waited) = (0, 0);
    for task in tasks {
        let task = task.unwrap().path();
        if fs::read_to_string(task.join("comm")).unwrap().starts_with("xfwd-worker-") {
            let text = fs::read_to_string(task.join("schedstat")).unwrap();
            let mut numbers = text.split_whitespace().map(|number| number.parse::<u64>().unwrap());
            ran += numbers.next().unwrap();
            waited += numbers.next().unwrap();
        }
    }
    (Duration::from_nanos(ran), Duration::from_nanos(waited))
}

fn rest(xfwd: &Xfwd) -> Rest {
    let (start, (ran_before, waited_before)) = (Instant::now(), scheduled(xfwd));
    // Nothing is waited for: this is the time that is measured.
    thread::sleep(WATCHED);
    let (ran, waited) = scheduled(xfwd);
    let elapsed = start.elapsed().as_secs_f64();
    let (ran, waited) = (ran - ran_before, waited - waited_before);
    Rest { ran: ran.as_secs_f64() / elapsed, wanted_to_run: (ran + waited).as_secs_f64() / elapsed }
}

/// Sends a datagram that xfwd turns around, and waits for it.
fn exchange(socket: &UdpSocket, number: u64) {
    socket.send(&number.to_be_bytes()).unwrap();
    let mut buffer = [0; 16];
    let length = socket.recv(&mut buffer).unwrap();
    assert_eq!(buffer[..length], number.to_be_bytes());
}

/// Forwards, rests, answers the first packet after the rest, rests again.
fn forward_and_rest(idle: &str) -> (Rest, Summary) {
    let pair: Pair = topology::pair(1).unwrap();
    pair.generator.neighbour(INTERFACE, NOBODY, pair.subject.mac(INTERFACE).unwrap()).unwrap();
    let config = format!("[dataplane]\nidle = \"{idle}\"\nsteer = \"all\"\n\n[bounce]\nlayer = \"l4\"\n");
    let xfwd = Xfwd::start(&pair.subject, &["--iface", INTERFACE], &config);
    let socket = pair.generator.run(|| UdpSocket::bind("0.0.0.0:0")).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.connect((NOBODY, 4_000)).unwrap();
    (0..PACKETS).for_each(|number| exchange(&socket, number));
    let rest = rest(&xfwd);
    let first = Instant::now();
    exchange(&socket, PACKETS);
    println!("{idle}: {rest:.3?}, the first packet after it came back after {:?}", first.elapsed());
    let summary = xfwd.stop().summary();
    assert_eq!(summary.workers("bounced"), PACKETS + 1);
    (rest, summary)
}

#[test]
fn an_adaptive_worker_forwards_and_sleeps_when_idle() {
    lab_or_skip!();
    let (rest, summary) = forward_and_rest("adaptive");
    assert!(rest.ran < 0.2, "{rest:?}");
    assert!(summary.workers("sleeps") > 0);
}

#[test]
fn a_polling_worker_forwards_and_sleeps_when_idle() {
    lab_or_skip!();
    let (rest, summary) = forward_and_rest("poll");
    assert!(rest.ran < 0.2, "{rest:?}");
    assert!(summary.workers("sleeps") > 0);
}

#[test]
fn a_busy_worker_forwards_and_never_sleeps() {
    lab_or_skip!();
    let (rest, summary) = forward_and_rest("busy");
    // On a machine that others use it may have to wait for its core, but it never gives it away.
    assert!(rest.wanted_to_run > 0.8, "{rest:?}");
    assert_eq!(summary.workers("sleeps"), 0);
}
