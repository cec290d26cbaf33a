//! What batches are measured in: a stage alone, and a whole worker on a memory port.
//!
//! Only the calls that process packets are timed: packets are written in between, so they are in the cache, and what was done to them is
//! undone. The two readings of the clock for each batch are in the numbers, about half a nanosecond a packet.

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use xfwd::pipeline::{BATCH_SIZE, Batch, Span, Stage, Verdict};
use xfwd::port::memory::MemoryPort;
use xfwd::worker::{Idle, Worker};

/// What a frame of the data path has.
const BUFFER: usize = 4_096;
/// Frames that the port's rings hold: a worker then never waits for one.
const RING: usize = 4 * BATCH_SIZE;

/// A stage, and the buffers that its packets are in. Packets are parsed before the stage is timed.
pub struct StageBed<S> {
    pub stage: S,
    pub buffers: Vec<Vec<u8>>,
    room: usize,
}

impl<S: Stage> StageBed<S> {
    /// Packets have `room` bytes in front.
    pub fn new(stage: S, room: usize) -> Self {
        Self { stage, buffers: vec![vec![0; BUFFER]; BATCH_SIZE], room }
    }

    /// As [`batch`](Self::batch), not counted by `benches/instructions`.
    pub fn prepare(&mut self, fill: impl FnMut(&mut [u8]) -> usize) {
        self.with(fill, |stage, batch| {
            stage.housekeeping();
            stage.process(batch);
        });
    }

    /// Has a batch processed whose packets `fill` writes; it returns their length. The time that the stage took.
    pub fn batch(&mut self, fill: impl FnMut(&mut [u8]) -> usize) -> Duration {
        self.with(fill, run_stage)
    }

    fn with(
        &mut self,
        mut fill: impl FnMut(&mut [u8]) -> usize,
        run: impl FnOnce(&mut S, &mut Batch<'_>),
    ) -> Duration {
        let mut batch = Batch::new(0);
        for buffer in &mut self.buffers {
            let len = fill(&mut buffer[self.room..]);
            batch.push_at(buffer, Span { start: self.room, end: self.room + len }, len as u32);
        }
        batch.parse();
        let start = Instant::now();
        run(&mut self.stage, &mut batch);
        let time = start.elapsed();
        let decided = black_box(batch.finish());
        assert_eq!(decided[0], Verdict::Bounce);
        time
    }
}

/// Housekeeping and one batch. A function by itself, which `benches/instructions` counts by its name.
#[inline(never)]
fn run_stage<S: Stage>(stage: &mut S, batch: &mut Batch<'_>) {
    stage.housekeeping();
    stage.process(batch);
}

/// A worker with one memory port.
pub struct WorkerBed<S> {
    worker: Worker<MemoryPort, S>,
    packet: Vec<u8>,
}

impl<S: Stage> WorkerBed<S> {
    pub fn new(stage: S) -> Self {
        let frames = MemoryPort::frames(4 * RING, BUFFER);
        let ports = vec![MemoryPort::new(RING)];
        let mut worker = Worker::new(ports, frames, stage, Idle::Busy, Arc::default());
        // Fills the fill ring.
        worker.turn().unwrap();
        Self { worker, packet: vec![0; BUFFER] }
    }

    /// As [`turn`](Self::turn), not counted by `benches/instructions`.
    pub fn prepare(&mut self, fill: impl FnMut(&mut [u8]) -> usize) {
        self.with(fill, |worker| _ = worker.turn().unwrap());
    }

    /// A turn with a full batch of packets that `fill` writes; it returns their length. The time of the turn: receiving, that is a copy
    /// into the frame, parsing, all stages, sending, and taking back what was sent.
    pub fn turn(&mut self, fill: impl FnMut(&mut [u8]) -> usize) -> Duration {
        self.with(fill, run_turn)
    }

    fn with(
        &mut self,
        mut fill: impl FnMut(&mut [u8]) -> usize,
        run: impl FnOnce(&mut Worker<MemoryPort, S>),
    ) -> Duration {
        for _ in 0..BATCH_SIZE {
            let len = fill(&mut self.packet);
            self.worker.ports_mut()[0].inject(&self.packet[..len]);
        }
        let start = Instant::now();
        run(&mut self.worker);
        let time = start.elapsed();
        let port = &mut self.worker.ports_mut()[0];
        port.drain_tx(BATCH_SIZE);
        assert_eq!(port.take_sent().len(), BATCH_SIZE, "all packets are sent");
        time
    }
}

/// As [`run_stage`].
#[inline(never)]
fn run_turn<S: Stage>(worker: &mut Worker<MemoryPort, S>) {
    worker.turn().unwrap();
}
