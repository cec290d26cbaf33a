//! The packets of one turn of a worker.

use std::ops::Deref;
use std::time::Instant;

use arrayvec::ArrayVec;

use super::{DropReason, Packet, PortIndex, Span, Verdict};
use crate::packet::Ethernet;

/// Most packets a batch holds: what the bits of one machine word can mark.
pub const BATCH_SIZE: usize = 64;

/// Most packets that the stages of a pipeline can make of their own for one batch ([`Batch::allocate`]).
pub const MAX_ORIGINATED: usize = 32;

/// Least bytes of a packet that is sent after stages have changed its length: an Ethernet header.
const MIN_SENT: usize = Ethernet::<&[u8]>::HEADER_BYTES;

/// Up to [`BATCH_SIZE`] packets from one port, their verdicts, and which of them are still undecided.
pub struct Batch<'a> {
    packets: ArrayVec<Packet<'a>, BATCH_SIZE>,
    /// Buffers for new packets.
    spares: ArrayVec<&'a mut [u8], MAX_ORIGINATED>,
    originated: u8,
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
    originated: u8,
    moved: ArrayVec<(u8, Span), BATCH_SIZE>,
}

impl Decided {
    /// How many packets were made by stages: the last ones of the batch. The first of them lies in the buffer that was
    /// [lent](Batch::lend) last, the next one in that before, and so on.
    #[inline]
    pub fn originated(&self) -> usize {
        self.originated.into()
    }

    /// The packets that lie elsewhere in their buffers than from the beginning to where they ended when they were
    /// received, and all that stages have made: their indices, in order, and where they lie now.
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
        Self {
            packets: ArrayVec::new(),
            spares: ArrayVec::new(),
            originated: 0,
            verdicts,
            undecided: 0,
            port,
            now: None,
        }
    }

    /// Adds a packet: the bytes of its first buffer, and the length of the whole packet, which is at least theirs.
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

    /// Lends the batch a buffer that [`allocate`](Batch::allocate) can make a packet in: for whoever runs batches, as a worker does.
    ///
    /// # Panics
    ///
    /// When the batch was lent [`MAX_ORIGINATED`] buffers already.
    #[inline]
    pub fn lend(&mut self, buffer: &'a mut [u8]) {
        self.spares.push(buffer);
    }

    /// Makes a new packet of `len` zero bytes behind the others, with this verdict. With [`Verdict::Continue`] it is for the stages
    /// behind this one to decide, and what nobody decides is dropped like any other packet.
    ///
    /// The packet comes from nowhere: [`Verdict::Bounce`] sends it out of the port by which the others of the batch came in. It leaves
    /// behind them, and new packets leave in the order in which they were made. Who wants later stages to see its headers calls
    /// [`reparse`](Packet::reparse) when they are written.
    ///
    /// `None` when no buffer is at hand: the stage has made as many as it [announced](super::Stage::originates), or all frames of the
    /// worker are in use. Also when `len` is 0 or more than a buffer holds.
    ///
    /// ```
    /// use xfwd::pipeline::{Batch, Stage, Verdict};
    ///
    /// /// Sends a copy of the first 64 bytes of every packet to a second port.
    /// struct Mirror;
    ///
    /// impl Stage for Mirror {
    ///     fn name(&self) -> &str { "mirror" }
    ///     fn originates(&self) -> usize { 16 }
    ///     fn process(&mut self, batch: &mut Batch<'_>) {
    ///         for index in batch.undecided() {
    ///             let (mut head, packet) = ([0; 64], batch.packet(index).bytes());
    ///             let length = packet.len().min(head.len());
    ///             head[..length].copy_from_slice(&packet[..length]);
    ///             if let Some(copy) = batch.allocate(length, Verdict::Forward(1)) {
    ///                 copy.bytes_mut().copy_from_slice(&head[..length]);
    ///             }
    ///         }
    ///     }
    /// }
    /// ```
    pub fn allocate(&mut self, len: usize, verdict: Verdict) -> Option<&mut Packet<'a>> {
        if self.packets.is_full() || len == 0 || len > self.spares.last()?.len() {
            return None;
        }
        let packet = Packet::make(self.spares.pop()?, len)?;
        let index = self.packets.len();
        self.packets.push(packet);
        self.originated += 1;
        // Whatever was decided about the place before there was a packet.
        self.verdicts[index] = Verdict::Continue;
        self.undecided |= 1 << index;
        self.decide(index, verdict);
        self.packets.last_mut()
    }

    /// Parses the headers of every packet.
    #[inline]
    pub fn parse(&mut self) {
        for packet in &mut self.packets {
            packet.reparse();
        }
    }

    /// Number of packets, those that stages have made included.
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

    /// Gives the packets back and keeps the verdicts, and where the packets lie now. What stages have made shorter than an Ethernet header
    /// and would send is [dropped](DropReason::TooShort).
    #[inline]
    pub fn finish(self) -> Decided {
        let (mut moved, mut verdicts) = (ArrayVec::new(), self.verdicts);
        for (index, packet) in self.packets.iter().enumerate() {
            if let Some(span) = packet.moved() {
                moved.push((index as u8, span));
                if span.end - span.start < MIN_SENT
                    && matches!(verdicts[index], Verdict::Bounce | Verdict::Forward(_))
                {
                    verdicts[index] = Verdict::Drop(DropReason::TooShort);
                }
            }
        }
        Decided { verdicts, originated: self.originated, moved }
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
    fn a_new_packet_is_zero_and_stands_behind_the_others() {
        let (mut frame, mut spares) = ([1u8; 60], [[2u8; 100]; 2]);
        let mut batch = Batch::new(0);
        batch.push(&mut frame, 60);
        spares.iter_mut().for_each(|spare| batch.lend(spare));
        assert!(
            batch.allocate(0, Verdict::Bounce).is_none() && batch.allocate(101, Verdict::Bounce).is_none()
        );
        batch.each_undecided(|_| Verdict::Drop(DropReason::Rule));
        assert_eq!(batch.allocate(64, Verdict::Continue).unwrap().bytes(), [0; 64]);
        batch.allocate(14, Verdict::Forward(1)).unwrap().bytes_mut()[0] = 9;
        assert!(batch.allocate(1, Verdict::Bounce).is_none(), "no buffer is left");
        assert_eq!(batch.undecided().collect::<Vec<_>>(), [1], "a later stage decides");
        batch.each_undecided(|packet| {
            packet.push_front(4).unwrap();
            Verdict::Bounce
        });
        assert_eq!((batch.len(), batch.packet(2).bytes()[..2].to_vec()), (3, vec![9, 0]));
        let decided = batch.finish();
        assert_eq!(decided[..3], [Verdict::Drop(DropReason::Rule), Verdict::Bounce, Verdict::Forward(1)]);
        assert_eq!(decided.originated(), 2);
        let moved: Vec<_> = decided.moved().collect();
        assert_eq!(moved, [(1, Span { start: 0, end: 68 }), (2, Span { start: 0, end: 14 })]);
        assert_eq!((spares[1][4], spares[0][0]), (0, 9), "the buffer that was lent last is taken first");
    }

    #[test]
    fn a_full_batch_has_no_place_for_a_new_packet() {
        let (mut frames, mut spare) = (vec![[0u8; 60]; BATCH_SIZE], [0; 60]);
        let mut batch = Batch::new(0);
        frames.iter_mut().for_each(|frame| batch.push(frame, 60));
        batch.lend(&mut spare);
        assert!(batch.allocate(60, Verdict::Bounce).is_none());
    }

    #[test]
    fn what_is_left_of_a_packet_is_sent_only_if_it_has_an_ethernet_header() {
        let (mut frames, mut spare) = ([[0u8; 60]; 5], [0; 60]);
        let mut batch = Batch::new(0);
        frames.iter_mut().for_each(|frame| batch.push(frame, 60));
        batch.lend(&mut spare);
        batch.allocate(13, Verdict::Bounce).unwrap();
        for (index, cut) in [60, 47, 46, 0, 60].into_iter().enumerate() {
            batch.packet_mut(index).pull_front(cut).unwrap();
            batch.decide(index, Verdict::Forward(1));
        }
        batch.decide(4, Verdict::Drop(DropReason::Rule));
        let decided = batch.finish();
        let (short, sent) = (Verdict::Drop(DropReason::TooShort), Verdict::Forward(1));
        assert_eq!(decided[..6], [short, short, sent, sent, Verdict::Drop(DropReason::Rule), short]);
    }

    #[test]
    fn what_was_decided_about_no_packet_does_not_count_for_one_made_later() {
        let mut spare = [0; 60];
        let mut batch = Batch::new(0);
        batch.lend(&mut spare);
        batch.decide(0, Verdict::Bounce);
        batch.allocate(60, Verdict::Continue).unwrap();
        assert_eq!((batch.undecided().len(), batch.finish()[0]), (1, Verdict::Continue));
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
