//! A run that is put together in code, without a config file: filter, stages, counters and deny list, against the sockets of
//! another host.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    reason = "a test fails by panicking, in its helper functions too"
)]

use std::net::{Ipv4Addr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use xfwd::prelude::*;
use xfwd::stages::bounce::{Bounce, Layer};
use xfwd_netns::lab_or_skip;
use xfwd_netns::topology::{self, INTERFACE, Pair, host_v4};

const PATIENCE: Duration = Duration::from_secs(30);
/// Long enough for an answer that would come, in a lab.
const NO_ANSWER: Duration = Duration::from_millis(300);
/// Of no host: with `steer_all` what is sent there leaves the kernel.
const ELSEWHERE: Ipv4Addr = host_v4(99);

/// Counts what is sent to the ports of the tests, and denies whoever says `deny me`. Decides about nothing.
struct Watch {
    seen: StageCounter,
    deny: xfwd::DenyList,
}

impl Watch {
    fn new(worker: &WorkerContext) -> Self {
        Self { seen: worker.counter("seen"), deny: worker.deny_list().clone() }
    }
}

impl Stage for Watch {
    fn name(&self) -> &str {
        "watch"
    }
    fn process(&mut self, batch: &mut Batch<'_>) {
        batch.each_undecided(|packet| {
            // The other host's stack has something to tell to multicast groups now and then.
            self.seen.add(u64::from((9..=11).contains(&packet.headers().dst_port)));
            if packet.bytes().windows(7).any(|bytes| bytes == b"deny me") {
                assert!(self.deny.deny(host_v4(Pair::GENERATOR).into(), PATIENCE));
            }
            Verdict::Continue
        });
    }
}

struct Net {
    pair: Pair,
    client: UdpSocket,
}

impl Net {
    fn new(queues: u32) -> Self {
        let pair = topology::pair(queues).unwrap();
        pair.generator.neighbour(INTERFACE, ELSEWHERE.into(), pair.subject.mac(INTERFACE).unwrap()).unwrap();
        let client = pair.generator.run(|| UdpSocket::bind((host_v4(Pair::GENERATOR), 0))).unwrap();
        Self { pair, client }
    }

    fn start(&self, runner: Runner) -> Running {
        self.pair.subject.run(|| runner.start()).unwrap()
    }

    /// Whether an answer comes.
    fn answers(&self, port: u16, text: &[u8], patience: Duration) -> bool {
        self.client.send_to(text, (ELSEWHERE, port)).unwrap();
        self.client.set_read_timeout(Some(patience)).unwrap();
        self.client.recv(&mut [0; 64]).is_ok()
    }
}

fn rules(text: &str) -> Vec<xfwd::Rule> {
    xfwd::config::parse("rules", text).unwrap().filter
}

#[test]
fn rules_stand_before_the_stages_in_the_kernel_and_in_the_worker() {
    lab_or_skip!();
    let net = Net::new(1);
    let rules = rules(
        "
        [[filter]]
        name = 'closed'
        protocol = 'udp'
        dst_port = 10
        action = 'drop'
        [[filter]]
        name = 'limit'
        protocol = 'udp'
        dst_port = 11
        rate = '1 pps'
        burst = 1
        per = 'src'
        action = 'drop'",
    );
    let runner = Runner::new().interface(INTERFACE).steer_all().filter(rules);
    let running = net.start(runner.stage(|worker| (Watch::new(worker), Bounce::new(Layer::L4))));
    assert!(net.answers(9, b"hello", PATIENCE));
    assert!(!net.answers(10, b"hello", NO_ANSWER), "dropped in the kernel");
    assert!(net.answers(11, b"hello", PATIENCE));
    assert!(!net.answers(11, b"hello", NO_ANSWER), "dropped in the worker");
    let (snapshot, errors) = running.stop();
    assert!(errors.is_empty(), "{errors:?}");
    let acted: Vec<_> = snapshot.rules.iter().map(|rule| (&rule.name[..], rule.packets)).collect();
    assert_eq!(acted, [("closed", 1), ("limit", 1)]);
    assert_eq!(snapshot.counters["seen"], 2);
}

#[test]
fn a_stage_denies_a_source_by_what_its_context_gives_it() {
    lab_or_skip!();
    let net = Net::new(1);
    let runner = Runner::new().interface(INTERFACE).steer_all();
    let running = net.start(runner.stage(|worker| (Watch::new(worker), Bounce::new(Layer::L4))));
    assert!(net.answers(9, b"deny me", PATIENCE), "from the next packet on");
    let deadline = Instant::now() + PATIENCE;
    while running.snapshot().deny.entries == 0 {
        assert!(Instant::now() < deadline);
        std::thread::yield_now();
    }
    assert!(!net.answers(9, b"hello", NO_ANSWER));
    let (snapshot, _) = running.stop();
    assert_eq!(snapshot.counters["seen"], 1);
    assert!(snapshot.interfaces[0].dropped >= 1);
}

#[test]
fn the_closure_is_called_once_for_each_worker() {
    lab_or_skip!();
    let net = Net::new(4);
    let made = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&made);
    let runner = Runner::new().interface(INTERFACE).queues(4).idle(Idle::Poll).steer_all();
    let running = net.start(runner.stage(move |worker| {
        assert_eq!(count.fetch_add(1, Relaxed), worker.worker());
        assert_eq!((worker.workers(), worker.port(INTERFACE), worker.port("eth9")), (4, Some(0), None));
        (Watch::new(worker), Bounce::new(Layer::L4))
    }));
    assert_eq!(made.load(Relaxed), 4);
    assert!(net.answers(9, b"hello", PATIENCE));
    let (snapshot, errors) = running.stop();
    assert!(errors.is_empty(), "{errors:?}");
    assert_eq!((snapshot.workers.len(), snapshot.counters["seen"]), (4, 1));
}

/// Counts packets that have so much room in front, and those that are ARP.
struct Look {
    room: usize,
    roomy: StageCounter,
    arp: StageCounter,
}

impl Look {
    fn new(room: usize) -> impl FnMut(&WorkerContext) -> (Self, Bounce) + Send {
        move |worker| {
            (
                Self { room, roomy: worker.counter("roomy"), arp: worker.counter("arp") },
                Bounce::new(Layer::L4),
            )
        }
    }
}

impl Stage for Look {
    fn name(&self) -> &str {
        "look"
    }
    fn process(&mut self, batch: &mut Batch<'_>) {
        batch.each_undecided(|packet| {
            let is_ours = packet.headers().dst_port == 9;
            self.roomy.add(u64::from(is_ours && packet.room() == self.room));
            self.arp.add(u64::from(packet.ethernet().is_some_and(|ethernet| ethernet.ethertype() == 0x0806)));
            Verdict::Continue
        });
    }
}

#[test]
fn an_interface_of_its_own_steering_gives_everything_with_room_in_front() {
    lab_or_skip!();
    let net = Net::new(1);
    let runner = Runner::new().interface_with(INTERFACE, Steer::Everything).room(50);
    let running = net.start(runner.stage(Look::new(50)));
    assert!(net.answers(9, b"hello", PATIENCE), "room or not, it comes back whole");
    // Nobody answers the question for this address any more.
    net.client.send_to(b"anybody?", (host_v4(Pair::SUBJECT), 9)).unwrap();
    let deadline = Instant::now() + PATIENCE;
    while running.snapshot().counters["arp"] == 0 {
        assert!(Instant::now() < deadline, "{:?}", running.snapshot().interfaces);
        std::thread::yield_now();
    }
    let (snapshot, errors) = running.stop();
    assert!(errors.is_empty(), "{errors:?}");
    assert_eq!(snapshot.counters["roomy"], 1);
    assert_eq!(snapshot.interfaces[0].passed + snapshot.interfaces[0].malformed, 0);
}

#[test]
fn a_service_of_an_embedder_gets_the_room_that_it_asks_for() {
    lab_or_skip!();
    let net = Net::new(1);
    let service = SteeredService::udp((ELSEWHERE, 9).into()).with_room(36);
    let runner = Runner::new().interface(INTERFACE).steer(service);
    let running = net.start(runner.stage(Look::new(36)));
    assert!(net.answers(9, b"hello", PATIENCE));
    let (snapshot, errors) = running.stop();
    assert!(errors.is_empty(), "{errors:?}");
    assert_eq!(snapshot.counters["roomy"], 1);
}
