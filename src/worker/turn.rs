//! One worker and one turn of its loop.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use super::counters::WorkerCounters;
use super::idle::{Idle, IdleState, Rest};
use crate::hints::prefetch;
use crate::pipeline::{BATCH_SIZE, Batch, Decided, DropReason, MAX_ORIGINATED, PortIndex, Stage, Verdict};
use crate::port::{FramePool, Port, PortError, Received};

/// How long a worker that was told to stop waits for the driver to give back what it is sending.
const DRAIN_PATIENCE: Duration = Duration::from_millis(300);
/// Turns after which an always busy worker publishes the counters of its ports.
const TURNS_PER_PUBLICATION: u32 = 64;

/// What of its share of the frames (those of the worker, divided by its ports) a port may keep waiting for its tx ring.
/// A share is four times a ring or more: with as much again on the tx ring, and twice as much on the fill ring, a port
/// that sends nothing any more has used up its own share, and the other ports have theirs.
const BACKLOG_PART: usize = 4;

/// A worker: ports, frames, a pipeline and counters, all its own.
pub struct Worker<P: Port, S> {
    ports: Vec<P>,
    pool: FramePool<P::Frame>,
    /// One a port: frames to be sent that did not fit on the tx ring yet.
    backlogs: Vec<VecDeque<P::Frame>>,
    /// Frames in a backlog from which on packets for that port are dropped.
    backlog_limit: usize,
    stage: S,
    reads_headers: bool,
    reads_packets: bool,
    /// Frames that stages can make packets in.
    spares: Vec<P::Frame>,
    /// How many of them there are to be.
    originates: usize,
    counters: Arc<WorkerCounters>,
    idle: IdleState,
    received: Received<P::Frame>,
    turns: u32,
}

/// Frames were lost or doubled: a bug, found when the books are closed.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "frames are not conserved: {total} in all, but {free} free + {backlog} waiting + {in_flight} with the kernel"
)]
pub struct FrameLeak {
    /// Frames that the worker was given.
    pub total: u64,
    /// In the pool, or at hand for packets that stages make.
    pub free: u64,
    /// Waiting for a tx ring.
    pub backlog: u64,
    /// With the kernel.
    pub in_flight: u64,
}

impl<P: Port, S: Stage> Worker<P, S> {
    /// A worker that runs packets from `ports` through `stage`. `pool` holds the frames of all its ports.
    pub fn new(
        ports: Vec<P>,
        pool: FramePool<P::Frame>,
        stage: S,
        idle: Idle,
        counters: Arc<WorkerCounters>,
    ) -> Self {
        let backlogs = ports.iter().map(|_| VecDeque::with_capacity(pool.total())).collect();
        let backlog_limit = match ports.len() {
            // There is nobody to starve: what cannot be sent holds back what is received, and the kernel counts that.
            0 | 1 => usize::MAX,
            ports => pool.total() / ports / BACKLOG_PART,
        };
        let originates = stage.originates().min(MAX_ORIGINATED);
        Self {
            reads_headers: stage.reads_headers(),
            reads_packets: stage.reads_headers() || stage.reads_packets(),
            spares: Vec::with_capacity(originates),
            originates,
            received: Received::with_limit(BATCH_SIZE - originates),
            backlog_limit,
            ports,
            pool,
            backlogs,
            stage,
            counters,
            idle: IdleState::new(idle),
            turns: 0,
        }
    }

    /// Runs until `stop` is set, then sends what it still has.
    ///
    /// # Errors
    ///
    /// [`PortError`] when a port has come to its end.
    pub fn run(&mut self, stop: &AtomicBool) -> Result<(), PortError> {
        while !stop.load(Relaxed) {
            if self.turn()? > 0 {
                self.idle.worked();
                continue;
            }
            self.publish();
            match self.idle.rest(self.sending()) {
                Rest::Spin => std::hint::spin_loop(),
                Rest::Yield => std::thread::yield_now(),
                Rest::Sleep(longest) => {
                    self.counters.inner().sleeps.add(1);
                    P::wait(&mut self.ports, longest)?;
                }
            }
        }
        self.drain()
    }

    /// One turn: everything that can be done now. Returns how many frames moved.
    ///
    /// # Errors
    ///
    /// [`PortError`] when a port has come to its end.
    pub fn turn(&mut self) -> Result<usize, PortError> {
        // First of all, so that what was told while the worker slept holds for the packets that woke it.
        self.stage.housekeeping();
        let mut moved = 0;
        for index in 0..self.ports.len() {
            moved += self.ports[index].complete(&mut self.pool);
            self.ports[index].receive(&mut self.received);
            if !self.received.is_empty() {
                moved += self.received.len();
                self.process(index);
            }
            self.ports[index].refill(&mut self.pool);
        }
        for (port, backlog) in self.ports.iter_mut().zip(&mut self.backlogs) {
            if !backlog.is_empty() || port.in_flight().to_send > 0 {
                port.transmit(backlog)?;
            }
        }
        self.turns = self.turns.wrapping_add(1);
        if self.turns.is_multiple_of(TURNS_PER_PUBLICATION) {
            self.publish();
        }
        Ok(moved)
    }

    /// Runs what was received through the pipeline, and moves every frame to where its verdict says.
    fn process(&mut self, port: usize) {
        let counters = self.counters.inner();
        counters.batches.add(1);
        counters.rx_packets.add(self.received.len() as u64);

        let mut batch = Batch::new(port as PortIndex);
        let mut bytes = 0;
        for (frame, received) in self.received.packets_mut() {
            let (buffer, span) = self.ports[port].buffer(frame);
            let len = received - span.start as u32;
            bytes += u64::from(len);
            if self.reads_packets {
                // Those of a whole batch are asked for before a stage looks at the first one, and another core has written them.
                prefetch(buffer.as_ptr());
            }
            batch.push_at(buffer, span, len);
        }
        counters.rx_bytes.add(bytes);
        if self.originates > 0 {
            while self.spares.len() < self.originates
                && let Some(frame) = self.pool.take()
            {
                self.spares.push(frame);
            }
            for frame in &mut self.spares {
                batch.lend(self.ports[port].buffer(frame).0);
            }
        }
        if self.reads_headers {
            batch.parse();
        }
        self.stage.process(&mut batch);
        let verdicts = batch.finish();
        let packets = self.received.len();
        let mut moved = verdicts.moved().peekable();
        if moved.peek().is_some() {
            for (index, (frame, _)) in self.received.packets_mut().enumerate() {
                if let Some((_, span)) = moved.next_if(|(packet, _)| *packet == index) {
                    self.ports[port].place(frame, span);
                }
            }
        }

        if !self.move_as_one(port, &verdicts[..packets]) {
            self.move_each(port, &verdicts);
        }
        if verdicts.originated() > 0 {
            self.send_originated(port, packets, &verdicts);
        }
    }

    /// Moves the frames of what was received to where its verdicts say, if that is one backlog with room for all, as for most batches.
    #[inline(always)]
    fn move_as_one(&mut self, port: usize, verdicts: &[Verdict]) -> bool {
        let Some((verdict, others)) = verdicts.split_first() else { return false };
        let Ok(to) = target_of(*verdict, port, &self.backlogs, self.backlog_limit) else { return false };
        let backlog = &mut self.backlogs[to];
        if self.backlog_limit - backlog.len() < verdicts.len() || others.iter().any(|other| other != verdict)
        {
            return false;
        }
        let Some(frames) = self.received.drain_single() else { return false };
        backlog.extend(frames);
        let counters = self.counters.inner();
        let count = if *verdict == Verdict::Bounce { &counters.bounced } else { &counters.forwarded };
        count.add(verdicts.len() as u64);
        true
    }

    /// Moves every frame to where its verdict says.
    #[inline(always)]
    fn move_each(&mut self, port: usize, verdicts: &Decided) {
        let counters = self.counters.inner();
        let (mut bounced, mut forwarded) = (0, 0);
        let (pool, backlogs, limit) = (&mut self.pool, &mut self.backlogs, self.backlog_limit);
        // The packet that frames are moved of, and where to: all frames of one packet go the same way.
        let (mut packet, mut target) = (usize::MAX, Err(DropReason::Undecided));
        self.received.drain(|index, frame, last| {
            if index != packet {
                packet = index;
                target = target_of(verdicts[index], port, backlogs, limit);
            }
            match target {
                Ok(to) => {
                    let count =
                        if verdicts[index] == Verdict::Bounce { &mut bounced } else { &mut forwarded };
                    *count += u64::from(last);
                    backlogs[to].push_back(frame);
                }
                Err(reason) => {
                    counters.dropped[reason as usize].add(u64::from(last));
                    pool.put(frame);
                }
            }
        });
        counters.bounced.add(bounced);
        counters.forwarded.add(forwarded);
    }

    /// Moves the frames of new packets, which stand behind the `received` ones, to where their verdicts say.
    #[inline(never)]
    fn send_originated(&mut self, port: usize, received: usize, decided: &Decided) {
        let counters = self.counters.inner();
        counters.originated.add(decided.originated() as u64);
        // All of them are among the moved ones, which are in order.
        for (index, span) in decided.moved().filter(|(index, _)| *index >= received) {
            // Fewer than there are such packets only if a stage has put buffers of its own into the batch: those are not sent.
            let Some(mut frame) = self.spares.pop() else { break };
            let verdict = decided[index];
            match target_of(verdict, port, &self.backlogs, self.backlog_limit) {
                Ok(to) => {
                    self.ports[port].place_new(&mut frame, span);
                    let count =
                        if verdict == Verdict::Bounce { &counters.bounced } else { &counters.forwarded };
                    count.add(1);
                    self.backlogs[to].push_back(frame);
                }
                Err(reason) => {
                    counters.dropped[reason as usize].add(1);
                    self.pool.put(frame);
                }
            }
        }
    }

    /// Whether frames wait to be sent or to come back.
    fn sending(&self) -> bool {
        self.backlogs.iter().any(|backlog| !backlog.is_empty())
            || self.ports.iter().any(|port| port.in_flight().to_send > 0)
    }

    /// Processes what has arrived already and waits, within bounds, until everything is sent.
    fn drain(&mut self) -> Result<(), PortError> {
        let deadline = Instant::now() + DRAIN_PATIENCE;
        while (self.turn()? > 0 || self.sending()) && Instant::now() < deadline {
            if self.sending() {
                P::wait(&mut self.ports, Duration::from_millis(1))?;
            }
        }
        self.publish();
        Ok(())
    }

    fn publish(&self) {
        self.counters.publish(self.ports.iter().map(Port::counters));
    }

    /// Closes the books: every frame is in exactly one place.
    ///
    /// # Errors
    ///
    /// [`FrameLeak`] when the sum is wrong.
    pub fn check_frames(&self) -> Result<(), FrameLeak> {
        let books = FrameLeak {
            total: self.pool.total() as u64,
            free: (self.pool.len() + self.spares.len()) as u64,
            backlog: self.backlogs.iter().map(|backlog| backlog.len() as u64).sum(),
            in_flight: self.ports.iter().map(|port| port.in_flight().total()).sum(),
        };
        if books.free + books.backlog + books.in_flight == books.total { Ok(()) } else { Err(books) }
    }

    /// The ports, for tests that play the other side.
    pub fn ports_mut(&mut self) -> &mut [P] {
        &mut self.ports
    }

    /// The pool, for tests that look at single frames.
    pub fn pool(&self) -> &FramePool<P::Frame> {
        &self.pool
    }
}

/// The port that a packet from `port` leaves by, or why it is dropped.
#[inline(always)]
fn target_of<F>(
    verdict: Verdict,
    port: usize,
    backlogs: &[VecDeque<F>],
    limit: usize,
) -> Result<usize, DropReason> {
    let to = match verdict {
        Verdict::Bounce => port,
        Verdict::Forward(to) if usize::from(to) < backlogs.len() => to.into(),
        Verdict::Forward(_) => return Err(DropReason::NoPort),
        Verdict::Continue => return Err(DropReason::Undecided),
        Verdict::Drop(reason) => return Err(reason),
    };
    if backlogs[to].len() >= limit { Err(DropReason::TxFull) } else { Ok(to) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::port::memory::MemoryPort;

    /// Decides by the first byte: 0 nothing, 1 drop, 2 bounce, 3 forward to the second port, 4 to one that is not there.
    struct ByFirstByte;

    impl Stage for ByFirstByte {
        fn name(&self) -> &str {
            "by-first-byte"
        }
        fn process(&mut self, batch: &mut Batch<'_>) {
            batch.each_undecided(|packet| match packet.bytes()[0] {
                1 => Verdict::Drop(DropReason::Rule),
                2 => Verdict::Bounce,
                3 => Verdict::Forward(1),
                4 => Verdict::Forward(9),
                _ => Verdict::Continue,
            });
        }
    }

    fn worker(ports: usize, ring: usize, frames: usize) -> Worker<MemoryPort, ByFirstByte> {
        Worker::new(
            (0..ports).map(|_| MemoryPort::new(ring)).collect(),
            MemoryPort::frames(frames, 2048),
            ByFirstByte,
            Idle::Poll,
            Arc::default(),
        )
    }

    #[test]
    fn every_verdict_ends_where_it_says_and_is_counted() {
        let mut worker = worker(2, 64, 512);
        worker.turn().unwrap();
        for first in [0, 1, 2, 2, 3, 4] {
            worker.ports_mut()[0].inject(&[first; 60]);
        }
        worker.turn().unwrap();
        worker.ports_mut().iter_mut().for_each(|port| port.drain_tx(64));
        let sent = |worker: &mut Worker<_, _>, port: usize| -> Vec<u8> {
            let ports: &mut [MemoryPort] = worker.ports_mut();
            ports[port].take_sent().iter().map(|packet| packet[0]).collect()
        };
        assert_eq!(sent(&mut worker, 0), [2, 2]);
        assert_eq!(sent(&mut worker, 1), [3]);
        worker.check_frames().unwrap();
        let counts = worker.counters.snapshot();
        assert_eq!((counts.rx_packets, counts.rx_bytes), (6, 360));
        assert_eq!((counts.bounced, counts.forwarded), (2, 1));
        assert_eq!(counts.dropped, [("undecided", 1), ("rule", 1), ("no-port", 1)]);
    }

    #[test]
    fn nothing_is_lost_when_the_tx_ring_is_full() {
        let mut worker = worker(1, 4, 128);
        for _ in 0..100 {
            worker.ports_mut()[0].inject(&[2; 60]);
        }
        let mut sent = 0;
        for _ in 0..200 {
            worker.turn().unwrap();
            worker.check_frames().unwrap();
            // The other side takes one packet in a while.
            worker.ports_mut()[0].drain_tx(1);
            sent += worker.ports_mut()[0].take_sent().len();
        }
        assert_eq!(sent, 100);
        worker.turn().unwrap();
        let mut ids: Vec<_> = worker.pool().iter().map(|frame| frame.id()).collect();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), 128 - 4, "no frame is doubled, all but the fill ring are free");
    }

    #[test]
    fn a_port_that_sends_nothing_does_not_take_the_frames_of_the_other() {
        let mut worker = worker(2, 16, 128);
        worker.turn().unwrap();
        let mut bounced = 0;
        for _ in 0..100 {
            // To the second port, which is stuck.
            for _ in 0..8 {
                worker.ports_mut()[0].inject(&[3; 60]);
            }
            worker.turn().unwrap();
            worker.ports_mut()[0].inject(&[2; 60]);
            worker.turn().unwrap();
            worker.ports_mut()[0].drain_tx(1);
            bounced += worker.ports_mut()[0].take_sent().len();
            worker.check_frames().unwrap();
        }
        assert_eq!(bounced, 100);
        let counts = worker.counters.snapshot();
        assert_eq!((counts.rx_packets, counts.bounced), (900, 100));
        // One tx ring, and a quarter of the port's share of the frames; it may go over by the last batch.
        assert!((32..40).contains(&counts.forwarded), "{}", counts.forwarded);
        assert_eq!(counts.dropped, [("tx-full", 800 - counts.forwarded)]);
    }

    #[test]
    #[cfg_attr(miri, ignore = "what a worker sends at its end is bounded by the clock, and Miri is slow")]
    fn a_worker_that_stops_sends_what_it_has() {
        let mut worker = worker(2, 64, 512);
        worker.turn().unwrap();
        for _ in 0..60 {
            worker.ports_mut()[0].inject(&[2; 60]);
        }
        worker.run(&AtomicBool::new(true)).unwrap();
        assert_eq!(worker.ports_mut()[0].take_sent().len(), 60);
        worker.check_frames().unwrap();
    }

    /// Puts four bytes in front of a packet and takes two off its end, by its first byte.
    struct Reshape;

    impl Stage for Reshape {
        fn name(&self) -> &str {
            "reshape"
        }
        fn process(&mut self, batch: &mut Batch<'_>) {
            batch.each_undecided(|packet| {
                if packet.bytes()[0] & 1 != 0 {
                    packet.push_front(4).unwrap();
                    packet.bytes_mut()[..4].fill(9);
                }
                if packet.bytes()[4] & 2 != 0 {
                    packet.resize(packet.len() - 2).unwrap();
                }
                Verdict::Bounce
            });
        }
    }

    #[test]
    fn a_packet_is_sent_as_its_stage_has_left_it() {
        for room in [0, 4, 20] {
            let pool = MemoryPort::frames(64, 128);
            let mut worker =
                Worker::new(vec![MemoryPort::new(16)], pool, Reshape, Idle::Poll, Arc::default());
            worker.turn().unwrap();
            worker.ports_mut()[0].set_room(room);
            for first in [0, 1, 2, 3] {
                worker.ports_mut()[0].inject(&[first; 60]);
            }
            worker.turn().unwrap();
            worker.ports_mut()[0].drain_tx(64);
            let sent = worker.ports_mut()[0].take_sent();
            let front = |byte: u8, len: usize| [vec![9; 4], vec![byte; len - 4]].concat();
            assert_eq!(sent, [vec![0; 60], front(1, 64), vec![2; 58], front(3, 62)], "room {room}");
        }
    }

    /// Bounces everything once it has been told to, drops everything before.
    struct Told {
        told: Arc<AtomicBool>,
        bounces: bool,
    }

    impl Stage for Told {
        fn name(&self) -> &str {
            "told"
        }
        fn process(&mut self, batch: &mut Batch<'_>) {
            let verdict = if self.bounces { Verdict::Bounce } else { Verdict::Drop(DropReason::NoNeighbour) };
            batch.each_undecided(|_| verdict);
        }
        fn housekeeping(&mut self) {
            self.bounces = self.told.load(Relaxed);
        }
    }

    #[test]
    fn what_a_stage_is_told_before_a_packet_arrives_holds_for_that_packet() {
        let told = Arc::new(AtomicBool::new(false));
        let stage = Told { told: Arc::clone(&told), bounces: false };
        let pool = MemoryPort::frames(64, 2048);
        let mut worker = Worker::new(vec![MemoryPort::new(16)], pool, stage, Idle::Poll, Arc::default());
        worker.turn().unwrap();
        told.store(true, Relaxed);
        worker.ports_mut()[0].inject(&[0; 60]);
        worker.turn().unwrap();
        assert_eq!(worker.counters.snapshot().bounced, 1);
    }

    /// Sends every packet back, with an answer of its own to its first byte: to the second port, or nowhere.
    struct Answering;

    impl Stage for Answering {
        fn name(&self) -> &str {
            "answering"
        }
        fn originates(&self) -> usize {
            8
        }
        fn process(&mut self, batch: &mut Batch<'_>) {
            for index in batch.undecided() {
                let first = batch.packet(index).bytes()[0];
                let verdict = match first {
                    0..100 => Verdict::Forward(1),
                    100..200 => Verdict::Forward(9),
                    _ => Verdict::Continue,
                };
                if let Some(new) = batch.allocate(20, verdict) {
                    assert_eq!(new.bytes(), [0; 20], "nothing of what the frame held before");
                    new.bytes_mut()[0] = first;
                }
                batch.decide(index, Verdict::Bounce);
            }
        }
    }

    #[test]
    fn new_packets_are_sent_in_order_and_counted_and_their_frames_come_back() {
        let pool = MemoryPort::frames(256, 128);
        let ports = vec![MemoryPort::new(64), MemoryPort::new(64)];
        let mut worker = Worker::new(ports, pool, Answering, Idle::Poll, Arc::default());
        worker.turn().unwrap();
        for round in 0..50u8 {
            for first in [round, 99, 100, 255, 0] {
                worker.ports_mut()[0].inject(&[first; 60]);
            }
            worker.turn().unwrap();
            worker.check_frames().unwrap();
            worker.ports_mut().iter_mut().for_each(|port| port.drain_tx(64));
            assert_eq!(worker.ports_mut()[0].take_sent().len(), 5);
            let firsts: Vec<_> =
                worker.ports_mut()[1].take_sent().iter().map(|new| (new[0], new.len())).collect();
            assert_eq!(firsts, [(round, 20), (99, 20), (0, 20)]);
        }
        let counts = worker.counters.snapshot();
        assert_eq!((counts.rx_packets, counts.originated), (250, 250));
        assert_eq!((counts.bounced, counts.forwarded), (250, 150));
        assert_eq!(counts.dropped, [("undecided", 50), ("no-port", 50)]);
    }

    #[test]
    fn no_more_new_packets_are_made_than_there_are_frames_and_places_for() {
        // Two ports of 16 frames on their fill rings leave 4 of the 8 spare frames asked for.
        let pool = MemoryPort::frames(36, 128);
        let ports = vec![MemoryPort::new(16), MemoryPort::new(16)];
        let mut worker = Worker::new(ports, pool, Answering, Idle::Poll, Arc::default());
        worker.turn().unwrap();
        for _ in 0..10 {
            worker.ports_mut()[0].inject(&[1; 60]);
        }
        worker.turn().unwrap();
        worker.check_frames().unwrap();
        assert_eq!((worker.counters.snapshot().rx_packets, worker.counters.snapshot().originated), (10, 4));

        let mut worker = Worker::new(
            vec![MemoryPort::new(128)],
            MemoryPort::frames(512, 128),
            Answering,
            Idle::Poll,
            Arc::default(),
        );
        worker.turn().unwrap();
        for _ in 0..100 {
            worker.ports_mut()[0].inject(&[1; 60]);
        }
        worker.turn().unwrap();
        let counts = worker.counters.snapshot();
        assert_eq!((counts.rx_packets, counts.originated), (BATCH_SIZE as u64 - 8, 8));
        worker.run(&AtomicBool::new(true)).unwrap();
        worker.check_frames().unwrap();
    }
}
