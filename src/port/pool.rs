//! The free frames of one worker.

/// Free frames, the last one back first: its memory is the likeliest to be in the cache still.
pub struct FramePool<F> {
    free: Vec<F>,
    total: usize,
}

impl<F> FramePool<F> {
    /// A pool that owns `frames`.
    pub fn new(frames: Vec<F>) -> Self {
        Self { total: frames.len(), free: frames }
    }

    /// Number of frames that the pool was made with, wherever they are now.
    pub fn total(&self) -> usize {
        self.total
    }

    /// Number of free frames.
    #[inline]
    pub fn len(&self) -> usize {
        self.free.len()
    }

    /// Whether no frame is free.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.free.is_empty()
    }

    /// Takes a frame.
    #[inline]
    pub fn take(&mut self) -> Option<F> {
        self.free.pop()
    }

    /// Takes so many frames, or as many as there are, in the order in which [`take`](Self::take) would give them.
    #[inline]
    pub(crate) fn take_many(&mut self, count: usize) -> impl ExactSizeIterator<Item = F> {
        let start = self.free.len().saturating_sub(count);
        self.free.drain(start..).rev()
    }

    /// Puts all of these frames back, in this order. Never allocates, as [`put`](Self::put).
    #[inline]
    pub(crate) fn put_all(&mut self, frames: &mut Vec<F>) {
        debug_assert!(
            self.free.len() + frames.len() <= self.total,
            "more frames came back than were given out"
        );
        self.free.append(frames);
    }

    /// Puts a frame back. Never allocates: the pool has room for all its frames.
    #[inline]
    pub fn put(&mut self, frame: F) {
        debug_assert!(self.free.len() < self.total, "more frames came back than were given out");
        self.free.push(frame);
    }

    /// Offers the last `count` frames, or as many as there are, to `take`, which says how many it kept, from the
    /// front; the others stay.
    #[inline]
    pub fn offer(&mut self, count: usize, take: impl FnOnce(&[F]) -> usize) -> usize {
        let start = self.free.len().saturating_sub(count);
        let taken = take(&self.free[start..]);
        self.free.drain(start..start + taken);
        taken
    }

    /// A pool of the last `count` free frames, or as many as there are, which takes back all that this one does.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn split_off(&mut self, count: usize) -> Self {
        Self { free: self.free.split_off(self.free.len().saturating_sub(count)), total: self.total }
    }

    /// The free frames.
    pub fn iter(&self) -> impl Iterator<Item = &F> {
        self.free.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_taken_stays() {
        let mut pool = FramePool::new(vec![1, 2, 3, 4]);
        let mut seen = Vec::new();
        let taken = pool.offer(3, |frames| {
            seen.extend_from_slice(frames);
            2
        });
        assert_eq!((taken, seen), (2, vec![2, 3, 4]));
        assert_eq!(pool.iter().copied().collect::<Vec<_>>(), [1, 4]);
        assert_eq!((pool.len(), pool.total()), (2, 4));
        assert_eq!(pool.offer(9, |frames| frames.len()), 2);
        assert!(pool.is_empty());
    }

    #[test]
    fn many_frames_are_taken_and_put_back_as_one_by_one() {
        let mut pool = FramePool::new(vec![1, 2, 3, 4]);
        assert_eq!(pool.take_many(3).collect::<Vec<_>>(), [4, 3, 2]);
        let mut back = vec![3, 4];
        pool.put_all(&mut back);
        assert_eq!((pool.len(), back.len(), pool.take()), (3, 0, Some(4)));
        assert_eq!(pool.take_many(9).collect::<Vec<_>>(), [3, 1]);
        assert!(pool.is_empty());
    }
}
