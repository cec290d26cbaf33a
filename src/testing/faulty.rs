//! A port that misbehaves, around one that does not.

use std::collections::VecDeque;
use std::time::Duration;

use super::packets::Random;
use crate::pipeline::Span;
use crate::port::{FramePool, InFlight, Port, PortCounters, PortError, Received};

/// Which faults a [`FaultyPort`] injects, how often, and in which order: the same for the same seed.
///
/// ```
/// use xfwd::testing::Faults;
///
/// // Every fourth time that frames are put on a ring, it takes only some.
/// let faults = Faults::none(7).full_rings(4);
/// ```
pub struct Faults {
    random: Random,
    full_rings: usize,
    short_batches: usize,
    lost_wakeups: usize,
    reordered_completions: usize,
}

impl Faults {
    /// No fault.
    pub fn none(seed: u64) -> Self {
        Self {
            random: Random::new(seed),
            full_rings: 0,
            short_batches: 0,
            lost_wakeups: 0,
            reordered_completions: 0,
        }
    }

    /// All faults, each every second time.
    pub fn all(seed: u64) -> Self {
        Self::none(seed).full_rings(2).short_batches(2).lost_wakeups(2).reordered_completions(2)
    }

    /// Once in `one_in` times the tx ring or the fill ring takes fewer frames than are there to be put on it, or none. 0: never.
    #[must_use]
    pub fn full_rings(mut self, one_in: usize) -> Self {
        self.full_rings = one_in;
        self
    }

    /// Once in `one_in` times fewer packets are received than have arrived, or none. 0: never.
    #[must_use]
    pub fn short_batches(mut self, one_in: usize) -> Self {
        self.short_batches = one_in;
        self
    }

    /// Once in `one_in` times nobody hears that frames are to be sent, and waiting ends at once and for nothing. 0: never.
    #[must_use]
    pub fn lost_wakeups(mut self, one_in: usize) -> Self {
        self.lost_wakeups = one_in;
        self
    }

    /// Once in `one_in` times frames that were sent come back in another order, some of them later. 0: never.
    #[must_use]
    pub fn reordered_completions(mut self, one_in: usize) -> Self {
        self.reordered_completions = one_in;
        self
    }

    fn happens(&mut self, one_in: usize) -> bool {
        one_in > 0 && self.random.one_in(one_in)
    }
}

/// How many faults were injected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct FaultCounts {
    /// Times a ring took fewer frames than it was offered.
    pub full_rings: u64,
    /// Times fewer packets were asked for than there was room.
    pub short_batches: u64,
    /// Kicks and waits that did nothing.
    pub lost_wakeups: u64,
    /// Times completions were shuffled or held back.
    pub reordered_completions: u64,
}

/// A port around another one that injects [`Faults`]: each of them is something that a kernel or driver may do, so a worker has to lose
/// and double nothing.
///
/// ```
/// use xfwd::port::memory::MemoryPort;
/// use xfwd::stages::bounce::{Bounce, Layer};
/// use xfwd::testing::{Faults, FaultyPort};
/// use xfwd::worker::{Idle, Worker};
///
/// let port = FaultyPort::new(MemoryPort::new(16), Faults::all(1));
/// let stage = Bounce::new(Layer::L2);
/// let mut worker = Worker::new(vec![port], MemoryPort::frames(64, 2048), stage, Idle::Poll, Default::default());
/// worker.ports_mut()[0].inner().inject(&[2; 60]);
/// while worker.ports_mut()[0].inner().take_sent().is_empty() {
///     worker.turn()?;
///     worker.ports_mut()[0].inner().drain_tx(1);
///     worker.check_frames()?;
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct FaultyPort<P: Port> {
    inner: P,
    faults: Faults,
    counts: FaultCounts,
    /// Sent, and not given back yet.
    returning: Vec<P::Frame>,
}

impl<P: Port> FaultyPort<P> {
    /// `inner` with faults.
    pub fn new(inner: P, faults: Faults) -> Self {
        Self { inner, faults, counts: FaultCounts::default(), returning: Vec::new() }
    }

    /// The port inside.
    pub fn inner(&mut self) -> &mut P {
        &mut self.inner
    }

    /// The faults so far.
    pub fn injected(&self) -> FaultCounts {
        self.counts
    }

    /// Injects other faults from now on.
    pub fn set_faults(&mut self, faults: Faults) {
        self.faults = faults;
    }

    /// Of `count` frames, those that the ring takes.
    fn taken(&mut self, count: usize) -> usize {
        if count > 0 && self.faults.happens(self.faults.full_rings) {
            self.counts.full_rings += 1;
            self.faults.random.below(count)
        } else {
            count
        }
    }
}

impl<P: Port> Port for FaultyPort<P> {
    type Frame = P::Frame;

    fn receive(&mut self, received: &mut Received<P::Frame>) {
        if !self.faults.happens(self.faults.short_batches) {
            return self.inner.receive(received);
        }
        self.counts.short_batches += 1;
        let fewer = received.len() + self.faults.random.below(received.room());
        let limit = received.set_limit(fewer);
        self.inner.receive(received);
        received.set_limit(limit);
    }

    fn buffer<'a>(&'a self, frame: &'a mut P::Frame) -> (&'a mut [u8], Span) {
        self.inner.buffer(frame)
    }

    fn place(&self, frame: &mut P::Frame, span: Span) {
        self.inner.place(frame, span);
    }

    fn place_new(&self, frame: &mut P::Frame, span: Span) {
        self.inner.place_new(frame, span);
    }

    fn transmit(&mut self, backlog: &mut VecDeque<P::Frame>) -> Result<(), PortError> {
        if self.faults.happens(self.faults.lost_wakeups) {
            self.counts.lost_wakeups += 1;
            return Ok(());
        }
        let count = self.taken(backlog.len());
        let mut offered: VecDeque<_> = backlog.drain(..count).collect();
        let result = self.inner.transmit(&mut offered);
        for frame in offered.into_iter().rev() {
            backlog.push_front(frame);
        }
        result
    }

    fn complete(&mut self, pool: &mut FramePool<P::Frame>) -> usize {
        let mut sent = pool.split_off(0);
        self.inner.complete(&mut sent);
        while let Some(frame) = sent.take() {
            self.returning.push(frame);
        }
        let mut count = self.returning.len();
        if count > 0 && self.faults.happens(self.faults.reordered_completions) {
            self.counts.reordered_completions += 1;
            for index in (1..count).rev() {
                self.returning.swap(index, self.faults.random.below(index + 1));
            }
            count = self.faults.random.below(count + 1);
        }
        self.returning.drain(..count).for_each(|frame| pool.put(frame));
        count
    }

    fn refill(&mut self, pool: &mut FramePool<P::Frame>) {
        let count = self.taken(pool.len());
        let mut offered = pool.split_off(count);
        self.inner.refill(&mut offered);
        while let Some(frame) = offered.take() {
            pool.put(frame);
        }
    }

    fn in_flight(&self) -> InFlight {
        let inner = self.inner.in_flight();
        InFlight { to_send: inner.to_send + self.returning.len() as u64, ..inner }
    }

    fn counters(&self) -> PortCounters {
        self.inner.counters()
    }

    /// Waits for one port after the other, each for its part of the time.
    fn wait(ports: &mut [Self], timeout: Duration) -> Result<(), PortError> {
        let share = timeout / ports.len().max(1) as u32;
        for port in ports {
            if port.faults.happens(port.faults.lost_wakeups) {
                port.counts.lost_wakeups += 1;
            } else {
                P::wait(std::slice::from_mut(&mut port.inner), share)?;
            }
        }
        Ok(())
    }
}
