//! How a run begins and ends: by signals, by time, by what happens to its interfaces, and by a bug in a stage. However it
//! ends, the interface goes back to the host.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    reason = "a test fails by panicking, in its helper functions too"
)]

#[path = "support/xfwd.rs"]
mod running;

use std::{
    net::{Ipv4Addr, UdpSocket},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;
use running::{ConfigFile, PATIENCE, Xfwd};
use xfwd::{
    kernel::link::Link,
    pipeline::{Batch, Stage, Verdict},
    runtime::{Event, Runner},
};
use xfwd_netns::{
    ExitReport, Namespace, VethOptions, lab_or_skip,
    topology::{self, INTERFACE, Pair, host_v4},
    trafficgen::{Amount, Generator, Traffic},
};
use xsk_rs::{
    Socket, Umem,
    config::{BindFlags, LibxdpFlags, SocketConfig, UmemConfig},
};

const BOUNCE: &str = "[dataplane]\nsteer = \"all\"\nhuge_pages = false\n[bounce]\n";
const REMOVED: &str = "error: interface eth0 was removed, or moved to another network namespace\n";
/// An address of no host: with `steer = "all"` packets for it leave the kernel.
const ELSEWHERE: Ipv4Addr = host_v4(99);

fn start(namespace: &Namespace) -> Xfwd {
    Xfwd::start(namespace, &["--iface", INTERFACE], BOUNCE)
}

/// Gets a generator ready that sends from `eth0` of one host to the other.
fn generator(pair: &Pair, rate_pps: Option<u64>) -> Generator {
    let traffic = Traffic {
        destination_mac: pair.subject.mac(INTERFACE).unwrap(),
        flows: 64,
        rate_pps,
        ..Traffic::udp(host_v4(Pair::GENERATOR).into(), ELSEWHERE.into(), 9)
    };
    pair.generator.run(|| Generator::new(INTERFACE, &traffic)).unwrap()
}

/// Sends some packets, slowly enough for none to be lost; how many the interface took.
fn send(pair: &Pair, packets: u64) -> u64 {
    let mut generator = generator(pair, Some(20_000));
    let sent = pair.generator.run(|| generator.run(Amount::Packets(packets))).unwrap();
    sent.packets - sent.refused.unwrap()
}

/// Runs `inside` while packets arrive as fast as they go.
fn under_load<T>(pair: &Pair, inside: impl FnOnce() -> T) -> T {
    let mut generator = generator(pair, None);
    thread::scope(|scope| {
        let load = scope.spawn(|| pair.generator.run(|| generator.run(Amount::For(Duration::from_secs(2)))));
        thread::sleep(Duration::from_millis(500));
        let result = inside();
        load.join().unwrap().unwrap();
        result
    })
}

fn assert_clean(namespace: &Namespace, interface: &str) {
    let link = namespace.ip(["link", "show", "dev", interface]).unwrap();
    assert!(!link.contains("xdp"), "{link}");
}

/// The host of the subject answers.
fn assert_host_answers(pair: &Pair) {
    let host = (host_v4(Pair::SUBJECT), 4_000);
    let server = pair.subject.run(|| UdpSocket::bind(host)).unwrap();
    let client = pair.generator.run(|| UdpSocket::bind((host_v4(Pair::GENERATOR), 0))).unwrap();
    server.set_read_timeout(Some(PATIENCE)).unwrap();
    client.send_to(b"still there?", host).unwrap();
    let mut buffer = [0; 64];
    let (length, _) = server.recv_from(&mut buffer).unwrap();
    assert_eq!(&buffer[..length], b"still there?");
}

// ---------------------------------------------------------------------------------------------------------------------
// Signals and time.

#[test]
fn sigint_and_sigterm_end_it_within_a_second_and_the_interface_is_clean() {
    lab_or_skip!();
    let pair = topology::pair(1).unwrap();
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        // Other programs may hold up one run, and another one.
        let in_time = (0..5).any(|_| {
            let xfwd = start(&pair.subject);
            let begun = Instant::now();
            xfwd.signal(signal);
            let ended = xfwd.wait();
            let elapsed = begun.elapsed();
            ended.assert_success();
            assert_clean(&pair.subject, INTERFACE);
            elapsed < Duration::from_secs(1)
        });
        assert!(in_time, "{signal}");
    }
    assert_host_answers(&pair);
}

#[test]
fn a_signal_under_load_ends_it_and_the_books_close() {
    lab_or_skip!();
    let pair = topology::pair(1).unwrap();
    let xfwd = start(&pair.subject);
    let ended = under_load(&pair, || xfwd.stop());
    assert_clean(&pair.subject, INTERFACE);
    let summary = ended.summary();
    assert!(summary.packets() > 0);
    assert_eq!(summary.workers("bounced") + summary.number("/totals/verdicts/drop"), summary.packets());
}

#[test]
fn a_second_signal_ends_it_at_once() {
    lab_or_skip!();
    let pair = topology::pair(1).unwrap();
    // While the queue is busy the start takes its time, and the first signal has to wait for it.
    let _socket = pair.subject.run(|| {
        let (umem, _) = Umem::new(UmemConfig::default(), 64.try_into().unwrap(), false).unwrap();
        let config = SocketConfig::builder()
            .libxdp_flags(LibxdpFlags::XSK_LIBXDP_FLAGS_INHIBIT_PROG_LOAD)
            .bind_flags(BindFlags::XDP_COPY)
            .build();
        // SAFETY: the only socket of this UMEM, interface and queue.
        (unsafe { Socket::new(config, &umem, &INTERFACE.parse().unwrap(), 0) }.unwrap(), umem)
    });
    let xfwd = Xfwd::spawn(&pair.subject, &["--iface", INTERFACE], BOUNCE);
    let listens = || {
        let status = std::fs::read_to_string(format!("/proc/{}/status", xfwd.pid())).unwrap();
        let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap().trim();
        u64::from_str_radix(caught, 16).unwrap() & (1 << (Signal::SIGTERM as u32 - 1)) != 0
    };
    let deadline = Instant::now() + PATIENCE;
    while !listens() {
        assert!(Instant::now() < deadline);
        thread::sleep(Duration::from_millis(1));
    }
    xfwd.signal(Signal::SIGTERM);
    // Two pending signals of a kind are one: let it take the first.
    thread::sleep(Duration::from_millis(100));
    xfwd.signal(Signal::SIGTERM);
    let ended = xfwd.wait();
    assert_eq!((ended.report.status.code(), ended.report.stderr.as_str()), (Some(1), ""));
    assert_clean(&pair.subject, INTERFACE);
}

#[test]
fn killed_under_load_it_leaves_a_clean_interface_and_starts_again_at_once() {
    lab_or_skip!();
    let pair = topology::pair(2).unwrap();
    let start = || Xfwd::start(&pair.subject, &["--iface", INTERFACE, "--queues", "2"], BOUNCE);
    let first = start();
    let second = under_load(&pair, || {
        first.kill9();
        assert_clean(&pair.subject, INTERFACE);
        start()
    });
    let sent = send(&pair, 1_000);
    let ended = second.stop();
    assert!(ended.summary().workers("bounced") >= sent, "{}", ended.report.stdout);
    assert_clean(&pair.subject, INTERFACE);
    assert_host_answers(&pair);
}

#[test]
fn started_under_load_it_has_a_socket_and_a_frame_for_the_first_packet() {
    lab_or_skip!();
    let pair = topology::pair(1).unwrap();
    // So slowly that the fill ring lasts for most of a second, should the worker be kept from its core.
    let mut generator = generator(&pair, Some(5_000));
    let ended = thread::scope(|scope| {
        let load = scope.spawn(|| pair.generator.run(|| generator.run(Amount::Packets(10_000))));
        let ended = start(&pair.subject).stop();
        load.join().unwrap().unwrap();
        ended
    });
    let summary = ended.summary();
    assert_eq!(summary.cause("passed-no-socket"), 0, "{}", summary.0);
    assert_eq!(summary.statistic("rx_fill_ring_empty_descs"), 0, "{}", summary.0);
    assert_eq!(
        summary.kernel("steered"),
        summary.packets() + summary.number("/totals/lost"),
        "{}",
        summary.0
    );
}

#[test]
fn a_duration_ends_it() {
    lab_or_skip!();
    let pair = topology::pair(1).unwrap();
    let begun = Instant::now();
    let xfwd = Xfwd::start(&pair.subject, &["--iface", INTERFACE, "--duration", "1"], BOUNCE);
    let ended = xfwd.wait();
    assert!(begun.elapsed() >= Duration::from_secs(1));
    ended.assert_success();
    assert!(ended.summary().0["seconds"].as_f64().unwrap() >= 1.0);
    assert_clean(&pair.subject, INTERFACE);
}

// ---------------------------------------------------------------------------------------------------------------------
// What is written where.

#[test]
fn json_is_all_that_standard_output_has() {
    lab_or_skip!();
    let pair = topology::pair(1).unwrap();
    let ended = Xfwd::start(&pair.subject, &["--iface", INTERFACE, "--duration", "1.5"], BOUNCE).wait();
    let summary = ended.summary();
    assert_eq!(summary.0["queues"][0]["mode"], "copy", "{}", ended.report.stdout);
    let said = &ended.report.stderr;
    assert!(said.starts_with("eth0 (veth, mtu 1500): queue 0 copy on core "), "{said}");
    assert!(said.contains("   1 s  rx "), "{said}");
}

#[test]
fn without_json_the_summary_is_a_table_on_standard_output() {
    lab_or_skip!();
    let pair = topology::pair(1).unwrap();
    let file = ConfigFile::new(BOUNCE);
    let mut command = Command::new(env!("CARGO_BIN_EXE_xfwd"));
    command.args(["--iface", INTERFACE, "--duration", "0.1", "--quiet"]).arg(file.path());
    let ExitReport { status, stdout, stderr } =
        pair.subject.spawn(&mut command).unwrap().wait(PATIENCE).unwrap();
    assert!(status.success(), "{stderr}");
    assert!(stdout.contains(" bytes received\n") && stdout.contains(" eth0:0 "), "{stdout}");
    assert!(!stderr.contains("received") && !stderr.contains(" s  rx "), "{stderr}");
}

#[test]
fn readers_that_have_gone_away_are_no_reason_to_stop() {
    lab_or_skip!();
    let pair = topology::pair(1).unwrap();
    let file = ConfigFile::new(BOUNCE);
    // Of live rates, which come once a second, nobody reads the second one, nor the summary.
    for pipeline in [
        "{ \"$0\" \"$@\"; echo \"status $?\" >&2; } | true",
        "{ { \"$0\" \"$@\" 2>&1; echo \"status $?\" >&3; } | head -1; } 3>&2",
    ] {
        let mut command = Command::new("sh");
        command.args(["-c", pipeline, env!("CARGO_BIN_EXE_xfwd")]);
        command.args(["--iface", INTERFACE, "--duration", "2.5"]).arg(file.path());
        let report = pair.subject.spawn(&mut command).unwrap().wait(PATIENCE).unwrap();
        assert!(report.stderr.ends_with("status 0\n"), "{pipeline}: {}", report.stderr);
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// Interfaces that come and go.

#[test]
fn an_interface_that_is_removed_ends_it_with_its_name() {
    lab_or_skip!();
    let pair = topology::pair(2).unwrap();
    let xfwd = Xfwd::start(&pair.subject, &["--iface", INTERFACE, "--queues", "2"], BOUNCE);
    let begun = Instant::now();
    pair.subject.ip(["link", "del", "dev", INTERFACE]).unwrap();
    let ended = xfwd.wait();
    // Two seconds are what is meant; other programs run here, too.
    assert!(begun.elapsed() < Duration::from_secs(10));
    assert_eq!(ended.report.status.code(), Some(1), "{}", ended.report.stderr);
    assert!(ended.report.stderr.ends_with(REMOVED), "{}", ended.report.stderr);
    assert_eq!(ended.report.stderr.matches("error: ").count(), 1, "{}", ended.report.stderr);
    ended.summary();
}

#[test]
fn an_interface_that_is_removed_under_load_ends_it_with_its_name() {
    lab_or_skip!();
    let pair = topology::pair(1).unwrap();
    let xfwd = start(&pair.subject);
    let mut generator = generator(&pair, None);
    let ended = thread::scope(|scope| {
        // Ends with an error when its own end of the cable goes.
        scope.spawn(|| pair.generator.run(|| generator.run(Amount::For(Duration::from_secs(1)))));
        thread::sleep(Duration::from_millis(500));
        pair.subject.ip(["link", "del", "dev", INTERFACE]).unwrap();
        xfwd.wait()
    });
    assert_eq!(ended.report.status.code(), Some(1), "{}", ended.report.stderr);
    assert!(ended.report.stderr.ends_with(REMOVED), "{}", ended.report.stderr);
    assert_eq!(ended.report.stderr.matches("error: ").count(), 1, "{}", ended.report.stderr);
}

#[test]
fn an_interface_that_is_moved_away_ends_it_with_its_name() {
    lab_or_skip!();
    let pair = topology::pair(1).unwrap();
    let other = pair.lab.namespace("other").unwrap();
    let xfwd = start(&pair.subject);
    pair.subject.ip(["link", "set", "dev", INTERFACE, "netns", other.name()]).unwrap();
    let ended = xfwd.wait();
    assert_eq!(ended.report.status.code(), Some(1), "{}", ended.report.stderr);
    assert!(ended.report.stderr.ends_with(REMOVED), "{}", ended.report.stderr);
    assert_clean(&other, INTERFACE);
}

#[test]
fn one_of_two_interfaces_removed_ends_it_and_the_other_is_clean() {
    lab_or_skip!();
    let pair = topology::pair(1).unwrap();
    let peer = pair.lab.namespace("peer").unwrap();
    pair.lab.veth(&pair.subject, "eth1", &peer, INTERFACE, &VethOptions::default()).unwrap();
    let xfwd = Xfwd::start(&pair.subject, &["--iface", INTERFACE, "--iface", "eth1"], BOUNCE);
    pair.subject.ip(["link", "del", "dev", "eth1"]).unwrap();
    let ended = xfwd.wait();
    assert_eq!(ended.report.status.code(), Some(1), "{}", ended.report.stderr);
    let says = REMOVED.replace("eth0", "eth1");
    assert!(ended.report.stderr.ends_with(&says), "{}", ended.report.stderr);
    assert_eq!(ended.report.stderr.matches("error: ").count(), 1, "{}", ended.report.stderr);
    assert_clean(&pair.subject, INTERFACE);
    assert_host_answers(&pair);
}

#[test]
fn an_interface_set_down_and_up_is_told_and_traffic_goes_on() {
    lab_or_skip!();
    let pair = topology::pair(1).unwrap();
    let xfwd = start(&pair.subject);
    let mut sent = send(&pair, 1_000);
    for host in [&pair.subject, &pair.generator] {
        let said = xfwd.said();
        host.ip(["link", "set", "dev", INTERFACE, "down"]).unwrap();
        // Of a cable both ends lose the carrier.
        wait_until(|| xfwd.said()[said.len()..].contains("eth0: carrier lost\n"));
        host.up(INTERFACE).unwrap();
        wait_until(|| xfwd.said()[said.len()..].contains("eth0: carrier back\n"));
        // A veth that goes up has its GRO, and so its NAPI, as the other end was at that moment.
        host.set_gro(INTERFACE, true).unwrap();
        sent += send(&pair, 1_000);
    }
    let ended = xfwd.stop();
    assert!(sent > 2_000, "{sent}");
    assert!(ended.summary().workers("bounced") >= sent, "{sent}: {}", ended.report.stdout);
    assert_clean(&pair.subject, INTERFACE);
}

fn wait_until(condition: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline);
        thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn two_of_them_run_at_once_on_two_interfaces() {
    lab_or_skip!();
    let pair = topology::pair(1).unwrap();
    let peer = pair.lab.namespace("peer").unwrap();
    pair.lab.veth(&pair.subject, "eth1", &peer, INTERFACE, &VethOptions::default()).unwrap();
    let first = start(&pair.subject);
    let second = Xfwd::start(&pair.subject, &["--iface", "eth1"], BOUNCE);
    let sent = send(&pair, 1_000);
    second.stop();
    assert_clean(&pair.subject, "eth1");
    let sent = sent + send(&pair, 1_000);
    assert!(first.stop().summary().workers("bounced") >= sent);
    assert_clean(&pair.subject, INTERFACE);
}

// ---------------------------------------------------------------------------------------------------------------------
// A bug in a stage.

/// Panics on a packet that has `boom` in it.
struct Faulty;

impl Stage for Faulty {
    fn name(&self) -> &str {
        "faulty"
    }
    fn process(&mut self, batch: &mut Batch<'_>) {
        batch.each_undecided(|packet| {
            assert!(!packet.bytes().windows(4).any(|bytes| bytes == b"boom"), "a bug in a stage");
            Verdict::Bounce
        });
    }
}

#[test]
fn a_panic_in_a_stage_ends_the_run_with_its_message_and_the_host_has_its_interface_again() {
    lab_or_skip!();
    let pair = topology::pair(2).unwrap();
    let runner = Runner::new().interface(INTERFACE).queues(2).steer_all().stage(|_| Faulty);
    let running = pair.subject.run(|| runner.start()).unwrap();

    let mac = pair.subject.mac(INTERFACE).unwrap();
    pair.generator.neighbour(INTERFACE, ELSEWHERE.into(), mac).unwrap();
    let client = pair.generator.run(|| UdpSocket::bind((host_v4(Pair::GENERATOR), 0))).unwrap();
    client.send_to(b"all is well", (ELSEWHERE, 9)).unwrap();
    wait_until(|| running.snapshot().totals.verdicts.bounce > 0);
    client.send_to(b"boom", (ELSEWHERE, 9)).unwrap();
    let ended = loop {
        match running.wait(PATIENCE).unwrap() {
            Event::WorkerEnded(worker) => break worker,
            _ => continue,
        }
    };
    let (snapshot, errors) = running.stop();
    let errors: Vec<_> = errors.iter().map(ToString::to_string).collect();
    assert_eq!(errors, [format!("worker {ended} panicked: a bug in a stage")]);
    assert!(snapshot.totals.packets >= 2);
    assert!(pair.subject.run(|| Link::find(INTERFACE)).unwrap().xdp.is_none());
    assert_host_answers(&pair);
    // The queues are free again, too.
    start(&pair.subject).stop();
}

/// What nobody waits for ends when it is dropped.
#[test]
fn a_run_that_is_dropped_leaves_a_clean_interface() {
    lab_or_skip!();
    let pair = topology::pair(1).unwrap();
    let plan = xfwd::config::parse("bounce", BOUNCE).unwrap();
    let running = pair.subject.run(|| Runner::with_plan(plan).interface(INTERFACE).start()).unwrap();
    assert!(pair.subject.run(|| Link::find(INTERFACE)).unwrap().xdp.is_some());
    drop(running);
    wait_until(|| pair.subject.run(|| Link::find(INTERFACE)).unwrap().xdp.is_none());
    assert_host_answers(&pair);
}

/// The signal that ends a process that does not listen to it is no error of the lab.
#[test]
fn sigquit_ends_it_as_well_and_sighup_makes_it_read_the_config_again() {
    lab_or_skip!();
    let pair = topology::pair(1).unwrap();
    let xfwd = start(&pair.subject);
    xfwd.signal(Signal::SIGHUP);
    xfwd.wait_for("reloaded ");
    xfwd.signal(Signal::SIGQUIT);
    xfwd.wait().assert_success();
    assert_clean(&pair.subject, INTERFACE);
}
