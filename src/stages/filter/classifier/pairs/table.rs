//! Pairs of labels to buckets: a hash table that is built once.

use super::bucket::Node;

/// Open addressing with linear probing, at most half full.
#[derive(Debug)]
pub(super) struct Table {
    slots: Vec<Slot>,
    shift: u32,
}

#[derive(Clone, Copy, Debug)]
struct Slot {
    key: u64,
    node: Node,
}

const EMPTY: u64 = u64::MAX;

impl Table {
    pub fn build(pairs: &[(u32, u32, Node)]) -> Self {
        let size = (pairs.len() * 2).next_power_of_two().max(2);
        let mut table = Self {
            slots: vec![Slot { key: EMPTY, node: Node::default() }; size],
            shift: u64::BITS - size.trailing_zeros(),
        };
        for (src, dst, node) in pairs {
            let key = key(*src, *dst);
            let mut place = table.place(key);
            while table.slots[place].key != EMPTY {
                place = (place + 1) & (size - 1);
            }
            table.slots[place] = Slot { key, node: *node };
        }
        table
    }

    #[inline]
    pub fn get(&self, src: u32, dst: u32) -> Option<Node> {
        let key = key(src, dst);
        let mut place = self.place(key);
        loop {
            let slot = &self.slots[place];
            if slot.key == key {
                return Some(slot.node);
            }
            if slot.key == EMPTY {
                return None;
            }
            place = (place + 1) & (self.slots.len() - 1);
        }
    }

    #[inline(always)]
    fn place(&self, key: u64) -> usize {
        // The labels are numbered by the operator's file, not by who sends packets: no need for a secret.
        let mixed = (key ^ (key >> 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (mixed >> self.shift) as usize
    }

    pub fn memory_bytes(&self) -> usize {
        size_of_val(&self.slots[..])
    }
}

/// No label is `u32::MAX`, so no key is [`EMPTY`].
#[inline(always)]
fn key(src: u32, dst: u32) -> u64 {
    u64::from(src) << 32 | u64::from(dst)
}
