//! A worker on ports that do all that a kernel may do: rings that take a part, batches that are short, wakeups that are lost, frames that
//! come back late and in another order. No frame is lost or doubled, and everything is sent in the end.
#![allow(missing_docs, clippy::unwrap_used)]

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use xfwd::pipeline::{Batch, DropReason, Span, Stage, Verdict};
use xfwd::port::memory::{MemoryFrame, MemoryPort};
use xfwd::port::{FramePool, InFlight, Port, PortCounters, PortError, Received};
use xfwd::testing::packets::Random;
use xfwd::testing::{Faults, FaultyPort};
use xfwd::worker::{Idle, Worker, WorkerCounters};

const FRAMES: usize = 512;
const RING: usize = 16;
/// Packets on their way at the same time: fewer than those from which on a worker of two ports drops.
const WINDOW: u64 = 32;
const PACKETS: u32 = if cfg!(miri) { 60 } else { 600 };
/// More than any run has needed; the faults let every second try through.
const TURNS: usize = 20_000;

/// By the number that a packet carries: drops it, bounces it, forwards it to the other port, or bounces it and sends its number on a packet
/// of its own to the other port.
struct ByNumber;

impl Stage for ByNumber {
    fn name(&self) -> &str {
        "by-number"
    }
    fn reads_headers(&self) -> bool {
        false
    }
    fn originates(&self) -> usize {
        24
    }
    fn process(&mut self, batch: &mut Batch<'_>) {
        let other = 1 - batch.port();
        for index in batch.undecided() {
            let number = number(batch.packet(index).bytes());
            let verdict = match number % 4 {
                0 => Verdict::Drop(DropReason::Rule),
                1 => Verdict::Forward(other),
                _ => Verdict::Bounce,
            };
            if number % 4 == 3
                && let Some(new) = batch.allocate(17, Verdict::Forward(other))
            {
                new.bytes_mut()[..4].copy_from_slice(&(number | NEW).to_be_bytes());
            }
            batch.decide(index, verdict);
        }
    }
}

/// Stands in the number of a packet that the stage has made.
const NEW: u32 = 1 << 31;

fn number(bytes: &[u8]) -> u32 {
    u32::from_be_bytes(bytes[..4].try_into().unwrap())
}

fn packet(number: u32) -> Vec<u8> {
    let mut packet = vec![0; 60 + number as usize % 7];
    packet[..4].copy_from_slice(&number.to_be_bytes());
    packet
}

/// What has been sent by each port. Odd packets come in by the second port.
fn run(seed: u64) -> [Vec<u32>; 2] {
    let counters = Arc::<WorkerCounters>::default();
    let ports =
        (0..2).map(|port| FaultyPort::new(MemoryPort::new(RING), Faults::all(seed * 2 + port))).collect();
    let pool = MemoryPort::frames(FRAMES, 128);
    let mut worker = Worker::new(ports, pool, ByNumber, Idle::Poll, Arc::clone(&counters));
    let mut random = Random::new(seed);
    let (mut injected, mut sent) = (0, [Vec::new(), Vec::new()]);
    for _ in 0..TURNS {
        worker.turn().unwrap();
        worker.check_frames().unwrap();
        let counts = counters.snapshot();
        let under_way = u64::from(injected) + counts.originated
            - counts.dropped_total()
            - (sent[0].len() + sent[1].len()) as u64;
        if injected < PACKETS && under_way < WINDOW {
            for _ in 0..random.between(1, 9) {
                worker.ports_mut()[(injected / 4) as usize % 2].inner().inject(&packet(injected));
                injected += 1;
            }
        }
        for (port, sent) in worker.ports_mut().iter_mut().zip(&mut sent) {
            port.inner().drain_tx(random.below(RING));
            sent.extend(port.inner().take_sent().iter().map(|packet| number(packet)));
        }
        if injected >= PACKETS && counts.rx_packets == u64::from(injected) && under_way == 0 {
            break;
        }
    }
    // Nothing is left to be sent; frames that come back late come back.
    worker.run(&AtomicBool::new(true)).unwrap();
    worker.check_frames().unwrap();
    let counts = counters.snapshot();
    assert_eq!(counts.dropped.iter().map(|(reason, _)| *reason).collect::<Vec<_>>(), ["rule"]);
    assert_eq!(
        counts.rx_packets + counts.originated,
        counts.bounced + counts.forwarded + counts.dropped_total()
    );
    for port in worker.ports_mut() {
        let injected = port.injected();
        assert!(injected.full_rings > 0 && injected.short_batches > 0, "{injected:?}");
        assert!(injected.lost_wakeups > 0 && injected.reordered_completions > 0, "{injected:?}");
    }
    let in_rings: u64 = worker.ports_mut().iter().map(|port| port.in_flight().total()).sum();
    let ids: HashSet<_> = worker.pool().iter().map(MemoryFrame::id).collect();
    assert_eq!(ids.len(), worker.pool().len(), "no frame is doubled");
    assert!(in_rings <= 2 * RING as u64, "all frames that were sent are back");
    sent
}

#[test]
fn under_all_faults_everything_is_sent_once_and_in_order() {
    for seed in 0..if cfg!(miri) { 2 } else { 100 } {
        let sent = run(seed);
        let all = PACKETS.max(sent.iter().flatten().map(|number| (number & !NEW) + 1).max().unwrap());
        for (port, sent) in sent.iter().enumerate() {
            let (new, passed): (Vec<u32>, Vec<u32>) = sent.iter().partition(|number| *number & NEW != 0);
            let arrived = |number: u32| (number / 4) as usize % 2;
            // Of those that came in by one port, in the order in which they came.
            for from in 0..2 {
                let expected: Vec<u32> = (0..all)
                    .filter(|number| arrived(*number) == from)
                    .filter(|number| match number % 4 {
                        0 => false,
                        1 => from != port,
                        _ => from == port,
                    })
                    .collect();
                let passed: Vec<u32> =
                    passed.iter().copied().filter(|number| arrived(*number) == from).collect();
                assert_eq!(passed, expected, "seed {seed}: from {from} to {port}");
            }
            let expected: Vec<u32> =
                (0..all).filter(|number| number % 4 == 3 && arrived(*number) != port).collect();
            let new: Vec<u32> = new.iter().map(|number| number & !NEW).collect();
            assert_eq!(new, expected, "seed {seed}: new packets to {port}");
        }
    }
}

/// Keeps one of the frames that were sent.
struct Thief {
    inner: MemoryPort,
    stolen: Option<MemoryFrame>,
}

impl Port for Thief {
    type Frame = MemoryFrame;

    fn receive(&mut self, received: &mut Received<MemoryFrame>) {
        self.inner.receive(received);
    }
    fn buffer<'a>(&'a self, frame: &'a mut MemoryFrame) -> (&'a mut [u8], Span) {
        self.inner.buffer(frame)
    }
    fn place(&self, frame: &mut MemoryFrame, span: Span) {
        self.inner.place(frame, span);
    }
    fn transmit(&mut self, backlog: &mut VecDeque<MemoryFrame>) -> Result<(), PortError> {
        self.inner.transmit(backlog)
    }
    fn complete(&mut self, pool: &mut FramePool<MemoryFrame>) -> usize {
        let count = self.inner.complete(pool);
        if count > 0 && self.stolen.is_none() {
            self.stolen = pool.take();
        }
        count
    }
    fn refill(&mut self, pool: &mut FramePool<MemoryFrame>) {
        self.inner.refill(pool);
    }
    fn in_flight(&self) -> InFlight {
        self.inner.in_flight()
    }
    fn counters(&self) -> PortCounters {
        self.inner.counters()
    }
    fn wait(ports: &mut [Self], _timeout: Duration) -> Result<(), PortError> {
        ports.iter_mut().for_each(|port| port.inner.drain_tx(usize::MAX));
        Ok(())
    }
}

#[test]
fn a_port_that_keeps_a_frame_is_found_out() {
    let port = Thief { inner: MemoryPort::new(RING), stolen: None };
    let mut worker =
        Worker::new(vec![port], MemoryPort::frames(FRAMES, 128), ByNumber, Idle::Poll, Arc::default());
    worker.turn().unwrap();
    worker.ports_mut()[0].inner.inject(&packet(2));
    worker.turn().unwrap();
    worker.check_frames().unwrap();
    worker.ports_mut()[0].inner.drain_tx(1);
    worker.turn().unwrap();
    let leak = worker.check_frames().unwrap_err();
    assert_eq!(leak.free + leak.backlog + leak.in_flight + 1, leak.total);
}
