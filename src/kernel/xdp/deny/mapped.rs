//! An array map in memory: its elements are written without a call of the kernel.

use std::io;
use std::ops::Deref;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::NonNull;
use std::sync::atomic::AtomicU64;

/// The elements of a map that was made with `BPF_F_MMAPABLE`, as words of 64 bits, which the program reads whole.
pub(super) struct Mapped {
    words: NonNull<AtomicU64>,
    count: usize,
}

// SAFETY: the mapping belongs to this value alone, may be used from any thread, and is only reached by atomic words.
unsafe impl Send for Mapped {}

impl Mapped {
    /// Maps the `count` words that `map` has.
    ///
    /// # Errors
    ///
    /// The error of `mmap`.
    pub fn new(map: BorrowedFd<'_>, count: usize) -> io::Result<Self> {
        // SAFETY: a new mapping, which nothing else refers to.
        let words = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                count * size_of::<AtomicU64>(),
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                map.as_raw_fd(),
                0,
            )
        };
        if words == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let words = NonNull::new(words.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { words, count })
    }
}

impl Deref for Mapped {
    type Target = [AtomicU64];

    fn deref(&self) -> &[AtomicU64] {
        // SAFETY: `new` has mapped so many words, in pages and so aligned, for as long as this value lives. The program writes none of
        // them, and everyone else only by atomic stores.
        unsafe { std::slice::from_raw_parts(self.words.as_ptr(), self.count) }
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        // SAFETY: mapped in `new` with this length, and not used any more.
        unsafe { libc::munmap(self.words.as_ptr().cast(), self.count * size_of::<AtomicU64>()) };
    }
}
