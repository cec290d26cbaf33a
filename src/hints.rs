//! Hints about memory: to the processor what is about to be read, to the kernel what deserves large pages.

use std::mem::MaybeUninit;

/// Brings the cache line of a place in memory near, without waiting for it.
#[inline(always)]
pub(crate) fn prefetch<T>(place: *const T) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a hint; it neither reads nor writes memory and cannot fault.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(place.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = place;
}

/// Asks the kernel for huge pages behind memory that was allocated and not written to yet, where it gives them for the asking
/// (`/sys/kernel/mm/transparent_hugepage/enabled` is `madvise` or `always`). Nothing but speed depends on it, so a refusal is no error.
pub(crate) fn huge_pages<T>(memory: &mut [MaybeUninit<T>]) {
    advise(memory, libc::MADV_HUGEPAGE);
}

/// An array of `count` elements, on huge pages where the kernel gives them: for places that are looked up in no order. All its pages are
/// touched here.
pub(crate) fn huge_array<T>(count: usize, element: impl Fn() -> T) -> Box<[T]> {
    let mut array = Vec::with_capacity(count);
    huge_pages(array.spare_capacity_mut());
    array.extend(std::iter::repeat_with(element).take(count));
    let mut array = array.into_boxed_slice();
    gather(&mut array);
    array
}

/// Asks the kernel to bring memory that has been written to together on huge pages, now (`MADV_COLLAPSE`, since Linux 6.1). What an
/// allocator gives out for the second time has small pages, and [`huge_pages`] is about pages to come. Not done where the operator wants
/// none (`never`), which this advice would override. No error either.
pub(crate) fn gather<T>(memory: &mut [T]) {
    /// The smallest huge page.
    const HUGE_BYTES: usize = 2 << 20;
    let setting = "/sys/kernel/mm/transparent_hugepage/enabled";
    if std::mem::size_of_val(memory) < HUGE_BYTES
        || std::fs::read_to_string(setting).is_ok_and(|setting| setting.contains("[never]"))
    {
        return;
    }
    advise(memory, libc::MADV_COLLAPSE);
}

/// For advice that changes neither what memory holds nor what may be done with it.
fn advise<T>(memory: &mut [T], advice: libc::c_int) {
    /// Of the smallest page there is; only whole ones can be spoken of.
    const PAGE_BYTES: usize = 4_096;
    let bytes = std::mem::size_of_val(memory);
    let start = memory.as_mut_ptr().cast::<u8>();
    let before = start.align_offset(PAGE_BYTES);
    if before >= bytes {
        return;
    }
    let length = (bytes - before) / PAGE_BYTES * PAGE_BYTES;
    // SAFETY: the range lies within `memory`, which is borrowed here, and this advice changes neither its content nor what may be done with it.
    unsafe { libc::madvise(start.add(before).cast(), length, advice) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_of_any_size_can_be_spoken_of() {
        for bytes in [0, 1, 4_095, 4_097, 100_000, 5 << 20] {
            let mut memory = Vec::<u8>::with_capacity(bytes);
            huge_pages(memory.spare_capacity_mut());
            memory.resize(bytes, 7);
            prefetch(&memory);
            gather(&mut memory);
            assert!(memory.iter().all(|&byte| byte == 7));
        }
    }
}
