//! Which UMEM a frame belongs to.
//!
//! A process may call [`open`](super::open) several times, and each time makes a UMEM of its own. Nothing in the types keeps a frame of one
//! away from a port of another, and there its address would mean other memory, which somebody else has the right to. So a frame says
//! whose it is: by a number in those bits of its descriptor's options that the kernel has no use for (`include/uapi/linux/if_xdp.h`
//! knows the lowest two). They are written when a frame comes from a ring, looked at before its memory is touched or it is put on a ring,
//! and taken off before the kernel sees them. All of this is done to a descriptor that is being read or written anyway.

#![forbid(unsafe_code)]

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// Options that are the kernel's.
const KERNEL_BITS: u32 = 8;
const KERNEL_OPTIONS: u32 = (1 << KERNEL_BITS) - 1;
/// Above the last number that fits.
const NUMBERS: u32 = 1 << (u32::BITS - KERNEL_BITS);

/// The mark of one UMEM; no two of a process have the same. Zero is nobody's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Brand(u32);

impl Brand {
    /// One that was never used. `None` when all 2^24 - 1 of the process are used up.
    pub(super) fn new() -> Option<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        Self::next(&NEXT)
    }

    fn next(next: &AtomicU32) -> Option<Self> {
        // Never reused: frames may live longer than their UMEM.
        let number = next.fetch_update(Relaxed, Relaxed, |next| (next < NUMBERS).then(|| next + 1)).ok()?;
        Some(Self(number << KERNEL_BITS))
    }

    /// These options of the kernel's, marked.
    #[inline(always)]
    pub(super) fn put_on(self, options: u32) -> u32 {
        options & KERNEL_OPTIONS | self.0
    }

    /// Whether these options have this mark.
    #[inline(always)]
    pub(super) fn is_on(self, options: u32) -> bool {
        options & !KERNEL_OPTIONS == self.0
    }

    /// What of these options is the kernel's.
    #[inline(always)]
    pub(super) fn take_off(options: u32) -> u32 {
        options & KERNEL_OPTIONS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_known_again_and_leaves_the_options_of_the_kernel_alone() {
        let (one, other) = (Brand::new().unwrap(), Brand::new().unwrap());
        for options in [0, 1, 2, 3] {
            let marked = one.put_on(options);
            assert!(one.is_on(marked) && !other.is_on(marked) && !one.is_on(options));
            assert_eq!(Brand::take_off(marked), options);
            assert!(other.is_on(other.put_on(marked)), "the last one counts");
        }
    }

    #[test]
    fn numbers_are_not_used_twice_even_when_they_run_out() {
        let next = AtomicU32::new(NUMBERS - 2);
        let (last_but_one, last) = (Brand::next(&next).unwrap(), Brand::next(&next).unwrap());
        assert!(last_but_one != last && last.is_on(last.put_on(3)));
        assert_eq!((Brand::next(&next), Brand::next(&next)), (None, None));
    }
}
