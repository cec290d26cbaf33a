//! Packets of several buffers (`XDP_USE_SG`): a batch may end in the middle of one, and one may have more fragments than
//! anybody can send.

#![forbid(unsafe_code)]

use arrayvec::ArrayVec;

use crate::pipeline::BATCH_SIZE;
use crate::port::{FramePool, MAX_FRAGMENTS, Received};

/// The packet whose last fragment has not arrived, and the frames of those that were given up.
pub(super) struct Fragments<F> {
    /// The beginning of a packet.
    partial: ArrayVec<F, MAX_FRAGMENTS>,
    partial_bytes: u32,
    /// A packet with too many fragments is being received: what arrives up to its end goes back to the pool.
    giving_up: bool,
    /// Frames to go back to the pool.
    spoiled: Vec<F>,
    given_up: u64,
}

impl<F> Fragments<F> {
    pub(super) fn new() -> Self {
        Self {
            partial: ArrayVec::new(),
            partial_bytes: 0,
            giving_up: false,
            spoiled: Vec::with_capacity(MAX_FRAGMENTS + BATCH_SIZE),
            given_up: 0,
        }
    }

    /// Whether the next frame belongs to a packet that has begun.
    #[inline]
    pub(super) fn is_in_packet(&self) -> bool {
        !self.partial.is_empty() || self.giving_up
    }

    /// Takes the next frame of a packet of several, with its length in bytes and whether more of them follow. The last
    /// one completes the packet.
    pub(super) fn add(&mut self, frame: F, bytes: u32, more: bool, received: &mut Received<F>) {
        if self.giving_up {
            self.spoiled.push(frame);
            self.giving_up = more;
        } else if more && self.partial.len() + 1 == MAX_FRAGMENTS {
            self.given_up += 1;
            self.spoiled.extend(self.partial.drain(..));
            self.spoiled.push(frame);
            self.giving_up = true;
        } else {
            if self.partial.is_empty() {
                self.partial_bytes = 0;
            }
            self.partial.push(frame);
            self.partial_bytes += bytes;
            if !more {
                received.push_fragments(self.partial.drain(..), self.partial_bytes);
            }
        }
    }

    /// Frames that are held here.
    #[inline]
    pub(super) fn held(&self) -> u64 {
        (self.partial.len() + self.spoiled.len()) as u64
    }

    /// Packets given up since they had too many fragments.
    pub(super) fn given_up(&self) -> u64 {
        self.given_up
    }

    /// Puts the frames of packets that were given up back into the pool.
    #[inline]
    pub(super) fn reclaim(&mut self, pool: &mut FramePool<F>) {
        self.spoiled.drain(..).for_each(|frame| pool.put(frame));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Adds a packet of some fragments of 100 bytes, from frame `first` on, without the last `missing` ones.
    fn add(
        fragments: &mut Fragments<usize>,
        first: usize,
        count: usize,
        missing: usize,
        to: &mut Received<usize>,
    ) {
        for index in 0..count - missing {
            fragments.add(first + index, 100, index + 1 < count, to);
        }
    }

    fn frames(received: &mut Received<usize>) -> Vec<(usize, usize)> {
        let mut out = Vec::new();
        received.drain(|packet, frame, _| out.push((packet, frame)));
        out
    }

    #[test]
    fn a_packet_may_begin_in_one_batch_and_end_in_the_next() {
        let (mut fragments, mut received) = (Fragments::new(), Received::default());
        add(&mut fragments, 0, 3, 1, &mut received);
        assert!(received.is_empty() && fragments.is_in_packet());
        assert_eq!(fragments.held(), 2);
        fragments.add(2, 50, false, &mut received);
        assert!(!fragments.is_in_packet());
        assert_eq!((received.len(), received.bytes(), fragments.held()), (1, 250, 0));
        assert_eq!(frames(&mut received), [(0, 0), (0, 1), (0, 2)]);
        // The next one starts afresh.
        add(&mut fragments, 3, 2, 0, &mut received);
        assert_eq!((received.len(), received.bytes()), (1, 200));
    }

    #[test]
    fn a_packet_of_too_many_fragments_is_given_up_and_the_next_one_is_whole() {
        let (mut fragments, mut received) = (Fragments::new(), Received::default());
        add(&mut fragments, 0, MAX_FRAGMENTS, 0, &mut received);
        assert_eq!(received.len(), 1);
        frames(&mut received);

        let mut pool = FramePool::new((0..100).collect());
        let mut taken: Vec<usize> = std::iter::from_fn(|| pool.take()).take(MAX_FRAGMENTS + 12).collect();
        let next = taken.split_off(MAX_FRAGMENTS + 10);
        for (index, frame) in taken.iter().enumerate() {
            fragments.add(*frame, 100, index + 1 < taken.len(), &mut received);
        }
        assert!(received.is_empty() && !fragments.is_in_packet());
        assert_eq!((fragments.given_up(), fragments.held()), (1, taken.len() as u64));
        fragments.add(next[0], 100, true, &mut received);
        fragments.add(next[1], 100, false, &mut received);
        assert_eq!(frames(&mut received), [(0, next[0]), (0, next[1])]);
        fragments.reclaim(&mut pool);
        assert_eq!((fragments.held(), pool.len()), (0, 100 - next.len()));
    }
}
