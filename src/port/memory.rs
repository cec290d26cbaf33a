//! A port in memory: packets go in by [`MemoryPort::inject`] and come out by [`MemoryPort::take_sent`]. It has rings
//! of limited size as an AF_XDP socket has, so that what happens on full rings can be tested anywhere.

use std::collections::VecDeque;
use std::time::Duration;

use super::{FramePool, InFlight, Port, PortCounters, PortError, Received};
use crate::pipeline::Span;

/// A buffer of a [`MemoryPort`].
///
/// Small, since frames are moved from ring to ring.
pub struct MemoryFrame {
    buffer: Box<[u8]>,
    id: u32,
    /// Where the packet was received to in the buffer.
    room: u32,
    /// What is sent is the buffer up to here, as with the descriptor of an AF_XDP socket: its start cannot be moved.
    len: u32,
}

impl MemoryFrame {
    /// Number of the frame in its pool, for tests that look for lost or doubled ones.
    pub fn id(&self) -> usize {
        self.id as usize
    }

    /// Puts a packet into the buffer, behind `room`; what does not fit is cut off.
    fn fill(&mut self, packet: &[u8], room: usize) {
        let len = packet.len().min(self.buffer.len() - room);
        self.buffer[room..room + len].copy_from_slice(&packet[..len]);
        (self.room, self.len) = (room as u32, (room + len) as u32);
    }
}

/// A port whose other side is this process.
pub struct MemoryPort {
    ring_size: usize,
    room: usize,
    /// What arrived when no frame was there for it.
    waiting: VecDeque<Vec<u8>>,
    fill: VecDeque<MemoryFrame>,
    /// Emptied at once nearly always, for which a `Vec` takes fewer steps than a ring.
    rx: Vec<MemoryFrame>,
    tx: VecDeque<MemoryFrame>,
    sent: Vec<MemoryFrame>,
    output: Vec<Vec<u8>>,
    counters: PortCounters,
}

impl MemoryPort {
    /// A port whose tx ring and fill ring hold `ring_size` frames.
    pub fn new(ring_size: usize) -> Self {
        Self {
            ring_size,
            room: 0,
            waiting: VecDeque::new(),
            fill: VecDeque::with_capacity(ring_size),
            rx: Vec::with_capacity(ring_size),
            tx: VecDeque::with_capacity(ring_size),
            sent: Vec::new(),
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
            (0..count as u32)
                .map(|id| MemoryFrame { buffer: vec![0; size].into(), id, room: 0, len: 0 })
                .collect(),
        )
    }

    /// Lets a packet arrive: it is copied into a frame of the fill ring, and waits for one if there is none.
    pub fn inject(&mut self, packet: &[u8]) {
        if self.waiting.is_empty()
            && let Some(mut frame) = self.fill.pop_front()
        {
            frame.fill(packet, self.room);
            self.rx.push(frame);
        } else {
            self.waiting.push_back(packet.to_vec());
        }
    }

    /// Gives frames of the fill ring to packets that wait for them.
    #[cold]
    fn catch_up(&mut self) {
        while !self.waiting.is_empty()
            && let Some(mut frame) = self.fill.pop_front()
            && let Some(packet) = self.waiting.pop_front()
        {
            frame.fill(&packet, self.room);
            self.rx.push(frame);
        }
    }

    /// The packets sent so far, in order.
    pub fn take_sent(&mut self) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.output)
    }

    /// Sends at most `count` frames from the tx ring, as the kernel would in its own time.
    pub fn drain_tx(&mut self, count: usize) {
        for _ in 0..count.min(self.tx.len()) {
            let frame = self.tx.pop_front().expect("counted above");
            self.output.push(frame.buffer[..frame.len as usize].to_vec());
            self.sent.push(frame);
        }
    }
}

impl Port for MemoryPort {
    type Frame = MemoryFrame;

    fn receive(&mut self, received: &mut Received<MemoryFrame>) {
        if !self.waiting.is_empty() {
            self.catch_up();
        }
        let count = received.room().min(self.rx.len());
        received.extend(self.rx.drain(..count), |frame| frame.len);
    }

    fn buffer<'a>(&'a self, frame: &'a mut MemoryFrame) -> (&'a mut [u8], Span) {
        (&mut frame.buffer, Span { start: frame.room as usize, end: frame.len as usize })
    }

    fn place(&self, frame: &mut MemoryFrame, Span { start, end }: Span) {
        if start < end && end <= frame.buffer.len() {
            frame.buffer.copy_within(start..end, 0);
            frame.len = (end - start) as u32;
        }
    }

    fn transmit(&mut self, backlog: &mut VecDeque<MemoryFrame>) -> Result<(), PortError> {
        let room = (self.ring_size - self.tx.len()).min(backlog.len());
        if room == backlog.len() {
            // A copy of memory, not frame by frame.
            self.tx.append(backlog);
        } else {
            self.tx.extend(backlog.drain(..room));
        }
        self.counters.tx_frames += room as u64;
        Ok(())
    }

    fn complete(&mut self, pool: &mut FramePool<MemoryFrame>) -> usize {
        let count = self.sent.len();
        pool.put_all(&mut self.sent);
        self.counters.tx_completed += count as u64;
        count
    }

    fn refill(&mut self, pool: &mut FramePool<MemoryFrame>) {
        let room = self.ring_size.saturating_sub(self.fill.len() + self.rx.len());
        self.fill.extend(pool.take_many(room));
    }

    fn in_flight(&self) -> InFlight {
        InFlight {
            to_fill: (self.fill.len() + self.rx.len()) as u64,
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
