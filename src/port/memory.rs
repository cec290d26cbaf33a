//! A port in memory: packets go in by [`MemoryPort::inject`] and come out by [`MemoryPort::take_sent`]. It has rings
//! of limited size as an AF_XDP socket has, so that what happens on full rings can be tested anywhere.

use std::collections::VecDeque;
use std::time::Duration;

use super::{FramePool, InFlight, Port, PortCounters, PortError, Received};
use crate::pipeline::Span;

/// A buffer of a [`MemoryPort`].
pub struct MemoryFrame {
    id: usize,
    buffer: Box<[u8]>,
    /// Where the packet was received to in the buffer.
    room: usize,
    /// What is sent is the buffer up to here, as with the descriptor of an AF_XDP socket: its start cannot be moved.
    len: usize,
}

impl MemoryFrame {
    /// Number of the frame in its pool, for tests that look for lost or doubled ones.
    pub fn id(&self) -> usize {
        self.id
    }
}

/// A port whose other side is this process.
pub struct MemoryPort {
    ring_size: usize,
    room: usize,
    arriving: VecDeque<Vec<u8>>,
    /// Emptied ones, for the next that arrive: receiving frees no memory, as with a real port.
    emptied: Vec<Vec<u8>>,
    fill: VecDeque<MemoryFrame>,
    tx: VecDeque<MemoryFrame>,
    sent: VecDeque<MemoryFrame>,
    output: Vec<Vec<u8>>,
    counters: PortCounters,
}

impl MemoryPort {
    /// A port whose tx ring and fill ring hold `ring_size` frames.
    pub fn new(ring_size: usize) -> Self {
        Self {
            ring_size,
            room: 0,
            arriving: VecDeque::new(),
            emptied: Vec::new(),
            fill: VecDeque::with_capacity(ring_size),
            tx: VecDeque::with_capacity(ring_size),
            sent: VecDeque::new(),
            output: Vec::new(),
            counters: PortCounters::default(),
        }
    }

    /// Puts what arrives from now on behind this much room, as an XDP program can.
    ///
    /// # Panics
    ///
    /// When a packet arrives, if the frames are smaller than the room.
    pub fn set_room(&mut self, room: usize) {
        self.room = room;
    }

    /// A pool of `count` frames of `size` bytes each.
    pub fn frames(count: usize, size: usize) -> FramePool<MemoryFrame> {
        FramePool::new(
            (0..count).map(|id| MemoryFrame { id, buffer: vec![0; size].into(), room: 0, len: 0 }).collect(),
        )
    }

    /// Lets a packet arrive.
    pub fn inject(&mut self, packet: &[u8]) {
        let mut arriving = self.emptied.pop().unwrap_or_default();
        arriving.clear();
        arriving.extend_from_slice(packet);
        self.arriving.push_back(arriving);
    }

    /// The packets sent so far, in order.
    pub fn take_sent(&mut self) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.output)
    }

    /// Sends at most `count` frames from the tx ring, as the kernel would in its own time.
    pub fn drain_tx(&mut self, count: usize) {
        for _ in 0..count.min(self.tx.len()) {
            let frame = self.tx.pop_front().expect("counted above");
            self.output.push(frame.buffer[..frame.len].to_vec());
            self.sent.push_back(frame);
        }
    }
}

impl Port for MemoryPort {
    type Frame = MemoryFrame;

    fn receive(&mut self, received: &mut Received<MemoryFrame>) {
        while received.room() > 0 && !self.arriving.is_empty() {
            let Some(mut frame) = self.fill.pop_front() else { break };
            let packet = self.arriving.pop_front().expect("checked above");
            frame.room = self.room;
            let len = packet.len().min(frame.buffer.len() - self.room);
            frame.len = self.room + len;
            frame.buffer[self.room..frame.len].copy_from_slice(&packet[..len]);
            let received_bytes = frame.len as u32;
            received.push(frame, received_bytes);
            // There are no more of them than have arrived at once, so this allocates next to never.
            self.emptied.push(packet);
        }
    }

    fn buffer<'a>(&'a self, frame: &'a mut MemoryFrame) -> (&'a mut [u8], Span) {
        (&mut frame.buffer, Span { start: frame.room, end: frame.len })
    }

    fn place(&self, frame: &mut MemoryFrame, Span { start, end }: Span) {
        frame.buffer.copy_within(start..end, 0);
        frame.len = end - start;
    }

    fn transmit(&mut self, backlog: &mut VecDeque<MemoryFrame>) -> Result<(), PortError> {
        let room = (self.ring_size - self.tx.len()).min(backlog.len());
        self.tx.extend(backlog.drain(..room));
        self.counters.tx_frames += room as u64;
        Ok(())
    }

    fn complete(&mut self, pool: &mut FramePool<MemoryFrame>) -> usize {
        let count = self.sent.len();
        self.sent.drain(..).for_each(|frame| pool.put(frame));
        self.counters.tx_completed += count as u64;
        count
    }

    fn refill(&mut self, pool: &mut FramePool<MemoryFrame>) {
        while self.fill.len() < self.ring_size {
            let Some(frame) = pool.take() else { break };
            self.fill.push_back(frame);
        }
    }

    fn in_flight(&self) -> InFlight {
        InFlight {
            to_fill: self.fill.len() as u64,
            to_send: (self.tx.len() + self.sent.len()) as u64,
            held: 0,
        }
    }

    fn counters(&self) -> PortCounters {
        self.counters
    }

    fn wait(ports: &mut [Self], _timeout: Duration) -> Result<(), PortError> {
        for port in ports {
            port.drain_tx(usize::MAX);
        }
        Ok(())
    }
}
