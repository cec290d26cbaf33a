//! The search for room: which entries have to move to their other bucket so that a flow fits.

use super::bucket::{Bucket, WAYS};
use super::state::Lifetimes;
use super::tick::Tick;

/// Buckets that are looked at: the two of the flow, their eight neighbours and theirs. A longer search would fill the table by
/// another few percent, and cost every flow that is refused.
const REACH: usize = 42;

/// A bucket that was reached, and how.
#[derive(Clone, Copy, Default)]
struct Node {
    bucket: usize,
    /// The node from which the entry `way` would move here. The first two nodes have none.
    from: u8,
    way: u8,
}

/// Moves of entries, each to its other bucket, that free one in a bucket of the flow.
pub(super) struct Path {
    nodes: [Node; REACH],
    /// The node whose bucket has room.
    last: usize,
    /// Where in it.
    way: usize,
}

/// A bucket and an entry in it.
pub(super) type Place = (usize, usize);

impl Path {
    /// Searches breadth-first, so for the fewest moves. `places` are the buckets of the flow, `other` is the bucket in which an entry
    /// could lie as well.
    #[inline(never)]
    pub fn search(
        buckets: &[Bucket],
        places: [usize; 2],
        other: impl Fn(u64, usize) -> usize,
        now: Tick,
        lifetimes: &Lifetimes,
    ) -> Option<Self> {
        let mut path = Self { nodes: [Node::default(); REACH], last: 0, way: 0 };
        path.nodes[0].bucket = places[0];
        path.nodes[1].bucket = places[1];
        let mut known = 2;
        let mut from = 0;
        while from < known && known < REACH {
            let bucket = path.nodes[from].bucket;
            let first = known;
            for way in 0..WAYS {
                let next = other(buckets[bucket].0[way].key, bucket);
                // A bucket that came twice could have to give away what has just moved there.
                if known < REACH && path.nodes[..known].iter().all(|node| node.bucket != next) {
                    crate::hints::prefetch(&buckets[next]);
                    path.nodes[known] = Node { bucket: next, from: from as u8, way: way as u8 };
                    known += 1;
                }
            }
            for node in first..known {
                if let Some(room) = buckets[path.nodes[node].bucket].room(now, lifetimes) {
                    (path.last, path.way) = (node, room.way);
                    return Some(path);
                }
            }
            from += 1;
        }
        None
    }

    /// Where there is room already.
    pub fn end(&self) -> Place {
        (self.nodes[self.last].bucket, self.way)
    }

    /// Makes the moves, last one first, and returns the place that is free then, and their number. What lay at [`end`](Self::end) is lost.
    pub fn clear(&self, buckets: &mut [Bucket]) -> (Place, u64) {
        let mut free = self.end();
        let (mut node, mut moves) = (self.last, 0);
        while node > 1 {
            let Node { from, way, .. } = self.nodes[node];
            let source = (self.nodes[usize::from(from)].bucket, usize::from(way));
            buckets[free.0].0[free.1] = buckets[source.0].0[source.1];
            free = source;
            node = usize::from(from);
            moves += 1;
        }
        (free, moves)
    }
}
