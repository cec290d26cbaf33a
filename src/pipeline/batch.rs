//! The packets of one turn of a worker.

use std::ops::Deref;
use std::time::Instant;

use arrayvec::ArrayVec;

use super::{Packet, PortIndex, Span, Verdict};

/// Most packets a batch holds: what the bits of one machine word can mark.
pub const BATCH_SIZE: usize = 64;

/// Up to [`BATCH_SIZE`] packets from one port, their verdicts, and which of them are still undecided.
pub struct Batch<'a> {
    packets: ArrayVec<Packet<'a>, BATCH_SIZE>,
    verdicts: [Verdict; BATCH_SIZE],
    undecided: u64,
    port: PortIndex,
    now: Option<Instant>,
}

/// The verdicts of a batch that has run through its pipeline, in the order of the packets.
pub type Verdicts = [Verdict; BATCH_SIZE];

/// What has become of a batch. Reads as its verdicts.
#[derive(Debug)]
pub struct Decided {
    verdicts: Verdicts,
    moved: ArrayVec<(u8, Span), BATCH_SIZE>,
}

impl Decided {
    /// The packets that lie elsewhere in their buffers than from the beginning to where they ended when they were
    /// received: their indices, in order, and where they lie now.
    #[inline]
    pub fn moved(&self) -> impl Iterator<Item = (usize, Span)> {
        self.moved.iter().map(|(index, span)| (usize::from(*index), *span))
    }
}

impl Deref for Decided {
    type Target = Verdicts;

    #[inline]
    fn deref(&self) -> &Verdicts {
        &self.verdicts
    }
}

impl<'a> Batch<'a> {
    /// An empty batch of packets that came in by `port`.
    #[inline]
    pub fn new(port: PortIndex) -> Self {
        let verdicts = [Verdict::Continue; BATCH_SIZE];
        Self { packets: ArrayVec::new(), verdicts, undecided: 0, port, now: None }
    }

    /// Adds a packet: the bytes of its first buffer, and the length of the whole packet.
    ///
    /// # Panics
    ///
    /// When the batch already holds [`BATCH_SIZE`] packets.
    #[inline]
    pub fn push(&mut self, bytes: &'a mut [u8], len: u32) {
        let span = Span { start: 0, end: bytes.len() };
        self.push_at(bytes, span, len);
    }

    /// Adds a packet that lies at `span` in its first buffer, which has room before or behind it.
    ///
    /// # Panics
    ///
    /// When the batch already holds [`BATCH_SIZE`] packets, or the span is not within the buffer.
    #[inline]
    pub fn push_at(&mut self, buffer: &'a mut [u8], span: Span, len: u32) {
        self.undecided |= 1 << self.packets.len();
        self.packets.push(Packet::new(buffer, span, len));
    }

    /// Parses the headers of every packet.
    #[inline]
    pub fn parse(&mut self) {
        for packet in &mut self.packets {
            packet.reparse();
        }
    }

    /// Number of packets.
    #[inline]
    pub fn len(&self) -> usize {
        self.packets.len()
    }

    /// Whether there is no packet.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.packets.is_empty()
    }

    /// The port by which these packets came in.
    #[inline]
    pub fn port(&self) -> PortIndex {
        self.port
    }

    /// The time at which these packets are processed: the same for all of them and for all stages. The clock is read when
    /// a stage asks for the first time, so a pipeline that does not ask does not pay for it.
    #[inline]
    pub fn now(&mut self) -> Instant {
        *self.now.get_or_insert_with(Instant::now)
    }

    /// Sets what [`now`](Self::now) answers: for tests, and for packets that were captured before.
    pub fn set_now(&mut self, now: Instant) {
        self.now = Some(now);
    }

    /// The packet at `index`.
    ///
    /// # Panics
    ///
    /// When there is no such packet.
    #[inline]
    pub fn packet(&self, index: usize) -> &Packet<'a> {
        &self.packets[index]
    }

    /// The packet at `index`, to be changed.
    ///
    /// # Panics
    ///
    /// When there is no such packet.
    #[inline]
    pub fn packet_mut(&mut self, index: usize) -> &mut Packet<'a> {
        &mut self.packets[index]
    }

    /// The indices of the packets that no stage has decided yet, in order.
    #[inline]
    pub fn undecided(&self) -> Undecided {
        Undecided(self.undecided)
    }

    /// Sets the verdict of one packet. [`Verdict::Continue`] leaves it as it is.
    ///
    /// # Panics
    ///
    /// When `index` is [`BATCH_SIZE`] or more.
    #[inline]
    pub fn decide(&mut self, index: usize, verdict: Verdict) {
        if verdict != Verdict::Continue {
            self.verdicts[index] = verdict;
            self.undecided &= !(1 << index);
        }
    }

    /// Calls `judge` for every undecided packet and sets the verdict that it returns.
    #[inline]
    pub fn each_undecided(&mut self, mut judge: impl FnMut(&mut Packet<'a>) -> Verdict) {
        for index in self.undecided() {
            let verdict = judge(&mut self.packets[index]);
            self.decide(index, verdict);
        }
    }

    /// Gives the packets back and keeps the verdicts, and where the packets lie now.
    #[inline]
    pub fn finish(self) -> Decided {
        let mut moved = ArrayVec::new();
        for (index, packet) in self.packets.iter().enumerate() {
            if let Some(span) = packet.moved() {
                moved.push((index as u8, span));
            }
        }
        Decided { verdicts: self.verdicts, moved }
    }
}

/// Iterator over the indices of undecided packets, as they were when it was made.
#[derive(Clone, Copy, Debug)]
pub struct Undecided(u64);

impl Iterator for Undecided {
    type Item = usize;

    #[inline]
    fn next(&mut self) -> Option<usize> {
        if self.0 == 0 {
            return None;
        }
        let index = self.0.trailing_zeros() as usize;
        self.0 &= self.0 - 1;
        Some(index)
    }

    #[inline]
    fn size_hint(&self) -> (usize, Option<usize>) {
        let count = self.0.count_ones() as usize;
        (count, Some(count))
    }
}

impl ExactSizeIterator for Undecided {}

#[cfg(test)]
mod tests {
    use super::super::DropReason;
    use super::*;

    #[test]
    fn a_decided_packet_is_not_shown_again() {
        let mut frames = [[0u8; 60]; 3];
        let mut batch = Batch::new(0);
        for frame in &mut frames {
            batch.push(frame, 60);
        }
        batch.decide(1, Verdict::Bounce);
        assert_eq!(batch.undecided().collect::<Vec<_>>(), [0, 2]);
        batch.decide(0, Verdict::Continue);
        assert_eq!(batch.undecided().len(), 2);
        batch.each_undecided(|_| Verdict::Drop(DropReason::Rule));
        assert_eq!(batch.undecided().len(), 0);
        let verdicts = batch.finish();
        assert_eq!(
            verdicts[..3],
            [Verdict::Drop(DropReason::Rule), Verdict::Bounce, Verdict::Drop(DropReason::Rule)]
        );
    }

    #[test]
    fn a_full_batch_marks_all_its_packets() {
        let mut frames = vec![[0u8; 60]; BATCH_SIZE];
        let mut batch = Batch::new(0);
        for frame in &mut frames {
            batch.push(frame, 60);
        }
        assert_eq!(batch.undecided().len(), BATCH_SIZE);
        assert_eq!(batch.undecided().last(), Some(BATCH_SIZE - 1));
    }
}
