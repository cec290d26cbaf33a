//! What a port has received: frames, and which of them make a packet.

use arrayvec::ArrayVec;

use crate::pipeline::BATCH_SIZE;

/// Most frames of one packet: what the kernel itself allows (`MAX_SKB_FRAGS` + 1).
pub const MAX_FRAGMENTS: usize = 18;

/// Frames of one batch at most: single-frame packets and one packet of many fragments beyond.
const MAX_FRAMES: usize = BATCH_SIZE + MAX_FRAGMENTS;

/// Whole packets, in the order of their arrival; each is one or more frames.
pub struct Received<F> {
    /// At most [`MAX_FRAMES`], for which there is memory from the beginning: a `Vec` gives them on in fewer steps than an `ArrayVec`.
    frames: Vec<F>,
    packets: ArrayVec<Span, BATCH_SIZE>,
    limit: u8,
}

#[derive(Clone, Copy)]
struct Span {
    frames: u8,
    /// Bytes of all its frames.
    len: u32,
}

impl<F> Default for Received<F> {
    fn default() -> Self {
        Self::with_limit(BATCH_SIZE)
    }
}

impl<F> Received<F> {
    /// For so many packets, at most [`BATCH_SIZE`].
    pub fn with_limit(packets: usize) -> Self {
        Self {
            frames: Vec::with_capacity(MAX_FRAMES),
            packets: ArrayVec::new(),
            limit: packets.min(BATCH_SIZE) as u8,
        }
    }

    /// Sets for how many packets there is room in all, at most [`BATCH_SIZE`], and gives what it was before: for a port around another one
    /// that is to take fewer.
    pub fn set_limit(&mut self, packets: usize) -> usize {
        std::mem::replace(&mut self.limit, packets.min(BATCH_SIZE) as u8).into()
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

    /// How many frames fit before a packet could find no room. A port takes at most so many.
    #[inline]
    pub fn room(&self) -> usize {
        usize::from(self.limit).saturating_sub(self.packets.len()).min(MAX_FRAMES - self.frames.len())
    }

    /// Adds a packet of one frame, `len` bytes of which were received, room in front of the packet included.
    ///
    /// # Panics
    ///
    /// When there is no [`room`](Received::room).
    #[inline]
    pub fn push(&mut self, frame: F, len: u32) {
        assert!(self.frames.len() < MAX_FRAMES, "no room for a frame");
        self.frames.push(frame);
        self.packets.push(Span { frames: 1, len });
    }

    /// Adds packets of one frame each; `len_of` says how many bytes were received into a frame, as with [`push`](Received::push).
    ///
    /// # Panics
    ///
    /// When there is no [`room`](Received::room).
    #[inline]
    pub(crate) fn extend(&mut self, frames: impl ExactSizeIterator<Item = F>, len_of: impl Fn(&F) -> u32) {
        assert!(frames.len() <= self.room(), "no room for so many packets");
        let before = self.frames.len();
        self.frames.extend(frames);
        let added = &self.frames[before..];
        self.packets.extend(added.iter().map(|frame| Span { frames: 1, len: len_of(frame) }));
    }

    /// Adds a packet of several frames, at most [`MAX_FRAGMENTS`], which `len` bytes were received into, room in front of the
    /// packet included.
    ///
    /// # Panics
    ///
    /// When there is no room.
    #[inline]
    pub fn push_fragments(&mut self, frames: impl Iterator<Item = F>, len: u32) {
        let before = self.frames.len();
        // Never more than there is memory for, whatever a port does.
        self.frames.extend(frames.take(MAX_FRAMES + 1 - before));
        assert!(self.frames.len() <= MAX_FRAMES, "no room for so many frames");
        self.packets.push(Span { frames: (self.frames.len() - before) as u8, len });
    }

    /// The first frame of every packet, and the bytes received into all its frames: the packet's length, and the room in front
    /// of it, which [`Port::buffer`](super::Port::buffer) tells.
    #[inline]
    pub fn packets_mut(&mut self) -> impl Iterator<Item = (&mut F, u32)> {
        let mut frames = self.frames.iter_mut();
        self.packets.iter().map(move |span| {
            let first = frames.next().expect("every packet has a frame");
            for _ in 1..span.frames {
                frames.next();
            }
            (first, span.len)
        })
    }

    /// Takes the frames of all packets out, if every packet is one frame.
    #[inline]
    pub(crate) fn drain_single(&mut self) -> Option<impl ExactSizeIterator<Item = F>> {
        if self.frames.len() != self.packets.len() {
            return None;
        }
        self.packets.clear();
        Some(self.frames.drain(..))
    }

    /// Takes the frames of all packets out: calls `each` with the index of the packet, a frame and whether it is the
    /// last one of the packet.
    #[inline]
    pub fn drain(&mut self, mut each: impl FnMut(usize, F, bool)) {
        let mut frames = self.frames.drain(..);
        for (index, span) in self.packets.drain(..).enumerate() {
            for left in (0..span.frames).rev() {
                let frame = frames.next().expect("every packet has its frames");
                each(index, frame, left == 0);
            }
        }
    }

    /// Bytes received, room in front of packets included.
    #[inline]
    pub fn bytes(&self) -> u64 {
        self.packets.iter().map(|span| u64::from(span.len)).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fragments_stay_with_their_packet() {
        let mut received = Received::default();
        received.push('a', 60);
        received.push_fragments(['b', 'c', 'd'].into_iter(), 9000);
        received.push('e', 64);
        assert_eq!((received.len(), received.bytes()), (3, 9124));
        let firsts: Vec<_> = received.packets_mut().map(|(frame, len)| (*frame, len)).collect();
        assert_eq!(firsts, [('a', 60), ('b', 9000), ('e', 64)]);
        assert!(received.drain_single().is_none());
        let mut out = Vec::new();
        received.drain(|index, frame, last| out.push((index, frame, last)));
        assert_eq!(out, [(0, 'a', true), (1, 'b', false), (1, 'c', false), (1, 'd', true), (2, 'e', true)]);
        assert!(received.is_empty());
    }

    #[test]
    fn packets_of_one_frame_are_added_and_taken_at_once() {
        let mut received = Received::default();
        received.push('a', 60);
        received.extend(['b', 'c'].into_iter(), |frame| *frame as u32);
        let lengths: Vec<_> = received.packets_mut().map(|(_, len)| len).collect();
        assert_eq!(lengths, [60, 'b' as u32, 'c' as u32]);
        received.drain_single().unwrap().for_each(drop);
        ['a', 'b'].into_iter().for_each(|frame| received.push(frame, 60));
        assert_eq!(received.drain_single().unwrap().collect::<Vec<_>>(), ['a', 'b']);
        assert!(received.is_empty() && received.room() == BATCH_SIZE);
    }

    #[test]
    fn a_limit_is_for_packets_in_all() {
        let mut received = Received::with_limit(2);
        received.push(0, 60);
        assert_eq!((received.room(), received.set_limit(1), received.room()), (1, 2, 0));
        assert_eq!((received.set_limit(1_000), received.room()), (1, BATCH_SIZE - 1));
    }

    #[test]
    fn room_leaves_space_for_a_packet_of_many_fragments() {
        let mut received = Received::default();
        while received.room() > 1 {
            received.push(0, 60);
        }
        received.push_fragments(0..MAX_FRAGMENTS, 9000);
        assert_eq!(received.room(), 0);
    }
}
