//! A backend that claims slots, in its own order of them.
//!
//! Nearly all of the time that a table takes is spent looking for the next free slot: of the last slots, when all others are taken, each is
//! found after thousands of looks. Whether a look finds one is a matter of chance, which a processor cannot predict; so a claimant looks
//! at the next [`AHEAD`] slots of its order at once, without a branch, and claims one after the other of those that are free. In the
//! meantime others may have claimed some, but only a few, as the slots are many more.

/// Marks a slot nobody has claimed yet; no backend has this index.
pub(super) const FREE: u16 = u16::MAX;

/// Slots that a claimant looks at at once: bits of a word. More would be taken by others before it gets there, if there are many.
const AHEAD: usize = u32::BITS as usize;
/// Slots that are computed independently of one another, so that none waits for the one before.
const STRANDS: usize = 4;

/// A backend while slots are claimed.
#[derive(Debug)]
pub(super) struct Claimant {
    /// Its index in the caller's slice.
    pub backend: u16,
    weight: u64,
    /// Weight saved up for the next turn.
    credit: u64,
    /// Which of the slots at hand were free when it looked, and were not claimed by itself.
    free: u32,
    /// The slots at hand, in its order.
    at_hand: [u32; AHEAD],
    /// The slot behind them in its order.
    next: u32,
    /// Distance between two slots in its order.
    skip: u32,
}

impl Claimant {
    /// One whose order begins at the slot `offset`, each further one `skip` slots behind the one before; both are below the number of slots.
    pub fn new(backend: u16, weight: u32, offset: u32, skip: u32) -> Self {
        Self { backend, weight: weight.into(), credit: 0, free: 0, at_hand: [0; AHEAD], next: offset, skip }
    }

    pub fn weight(&self) -> u64 {
        self.weight
    }

    /// Whether it may claim a slot in this round, in which the `heaviest` may.
    #[inline]
    pub fn has_turn(&mut self, heaviest: u64) -> bool {
        self.credit += self.weight;
        let has_turn = self.credit >= heaviest;
        if has_turn {
            self.credit -= heaviest;
        }
        has_turn
    }

    /// The next free slot in its order. There must be one: since the number of slots is prime, the order
    /// reaches each of them.
    #[inline]
    pub fn next_free(&mut self, slots: &[u16]) -> usize {
        loop {
            while self.free != 0 {
                let slot = self.at_hand[self.free.trailing_zeros() as usize % AHEAD] as usize;
                self.free &= self.free - 1;
                // Another one may have claimed it.
                if slots[slot] == FREE {
                    return slot;
                }
            }
            self.look_ahead(slots);
        }
    }

    /// Takes the next slots of the order at hand.
    #[inline(never)]
    fn look_ahead(&mut self, slots: &[u16]) {
        let size = slots.len() as u32;
        // Both are below it, so their sum is by one size too large at most.
        let add = |one: u32, other: u32| (one + other).min((one + other).wrapping_sub(size));
        let mut strands = [self.next; STRANDS];
        for strand in 1..STRANDS {
            strands[strand] = add(strands[strand - 1], self.skip);
        }
        let stride = add(add(self.skip, self.skip), add(self.skip, self.skip));
        self.free = 0;
        for first in (0..AHEAD).step_by(STRANDS) {
            for (strand, slot) in strands.iter_mut().enumerate() {
                self.at_hand[first + strand] = *slot;
                self.free |= u32::from(slots[*slot as usize] == FREE) << (first + strand);
                *slot = add(*slot, stride);
            }
        }
        self.next = strands[0];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All slots of a claimant that nobody disturbs.
    fn order(size: usize, offset: u32, skip: u32) -> Vec<usize> {
        let mut claimant = Claimant::new(0, 1, offset, skip);
        let mut slots = vec![FREE; size];
        let claim = |_| {
            let slot = claimant.next_free(&slots);
            slots[slot] = 0;
            slot
        };
        (0..size).map(claim).collect()
    }

    #[test]
    fn a_claimant_gets_the_slots_in_its_order() {
        for size in [2, 3, 31, 37, 251, 5_003] {
            for (offset, skip) in
                [(0, 1), (size as u32 - 1, size as u32 - 1), (size as u32 / 2, size as u32 / 3 + 1)]
            {
                let skip = skip.min(size as u32 - 1);
                let expected = (0..size).map(|turn| (offset as usize + turn * skip as usize) % size);
                assert!(order(size, offset, skip).into_iter().eq(expected), "{size} {offset} {skip}");
            }
        }
    }

    #[test]
    fn a_slot_at_hand_that_another_one_has_claimed_is_left_out() {
        let mut claimant = Claimant::new(0, 1, 0, 1);
        let mut slots = vec![FREE; 251];
        assert_eq!(claimant.next_free(&slots), 0);
        slots[..3].fill(1);
        slots[3..40].fill(2);
        assert_eq!(claimant.next_free(&slots), 40, "behind all that were at hand");
    }

    #[test]
    fn half_the_weight_has_a_turn_every_other_round() {
        let mut claimant = Claimant::new(0, 5, 0, 1);
        assert_eq!([(); 4].map(|()| claimant.has_turn(10)), [false, true, false, true]);
    }
}
