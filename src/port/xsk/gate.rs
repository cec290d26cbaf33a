//! The gate of a port's queue in the XDP program: closed while the worker does not keep up.
//!
//! A full rx ring means that packets are being lost. The kernel finds that out late, for each of them: after it has taken a frame,
//! copied the packet and given the frame back; and it writes that down in cache lines that the worker's transmit needs for every packet, on
//! another core (Linux 6.18: `rx_queue_full` beside `tx` in `struct xdp_sock`, `free_list_cnt` beside `cq` in `struct xsk_buff_pool`). So a port that finds its rx ring full has the
//! program drop what comes until a part of the ring is free again. A worker that keeps up never closes its gate, and a burst that
//! fits the ring is taken whole. `cargo bench --bench bounce` shows what it is worth: a third more packets under a flood.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use xfwd_ebpf_types::{Gate as Element, MAX_QUEUES};

/// All elements of the map: whole pages, whatever their size is.
const MAP_BYTES: usize = MAX_QUEUES as usize * Element::BYTES;

/// A closed gate opens when so much of the ring, 1 / `OPEN_PART`, is free again: of the default ring 512 packets, eight batches. Half
/// as much lets in more disturbance, twice as much is no faster and makes longer holes in the traffic.
const OPEN_PART: u32 = 4;

/// Closes and opens the gate of one queue.
pub struct Gate {
    /// The whole map.
    elements: NonNull<Element>,
    queue: u32,
    closed: bool,
    /// Packets on the rx ring from which on it is closed, and down to which it stays so.
    full: u32,
    open_at: u32,
}

// SAFETY: the mapping belongs to this value alone and may be used from any thread.
unsafe impl Send for Gate {}

impl Gate {
    /// The gate of a queue, by the program's map `GATES`; open.
    ///
    /// # Errors
    ///
    /// The error of `mmap`; `EINVAL` for a queue from [`MAX_QUEUES`] on.
    pub fn new(map: BorrowedFd<'_>, queue: u32) -> io::Result<Self> {
        if queue >= MAX_QUEUES {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }
        // SAFETY: a new mapping, which nothing else refers to.
        let elements = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                MAP_BYTES,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                map.as_raw_fd(),
                0,
            )
        };
        if elements == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let elements = NonNull::new(elements.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { elements, queue, closed: false, full: u32::MAX, open_at: 0 })
    }

    /// For an rx ring of so many packets.
    pub(super) fn set_ring(&mut self, size: u32) {
        self.full = size;
        self.open_at = size - size / OPEN_PART;
    }

    /// What is on the rx ring now, in packets.
    #[inline]
    pub(super) fn watch(&mut self, waiting: u32) {
        if self.closed {
            if waiting <= self.open_at {
                self.set(false);
            }
        } else if waiting >= self.full {
            self.set(true);
        }
    }

    /// Closes or opens it, until the port's next look at its ring.
    #[cold]
    pub fn set(&mut self, closed: bool) {
        self.closed = closed;
        // SAFETY: the queue's element lies within the map, by the check in `new`, and the map is mapped for as long as this value
        // lives. The field is written by nothing but this value, and by atomic stores; the program reads it.
        let field = unsafe {
            AtomicU32::from_ptr(&raw mut (*self.elements.as_ptr().add(self.queue as usize)).closed)
        };
        field.store(closed.into(), Relaxed);
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        if self.closed {
            self.set(false);
        }
        // SAFETY: mapped in `new` with this length, and not used any more.
        unsafe { libc::munmap(self.elements.as_ptr().cast(), MAP_BYTES) };
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::fd::{AsFd, FromRawFd};
    use std::os::unix::fs::FileExt;

    use super::*;

    /// Memory in place of the map.
    fn memory() -> File {
        // SAFETY: the name is a C string; the descriptor is new and owned by nobody else.
        let file = unsafe { File::from_raw_fd(libc::memfd_create(c"gates".as_ptr(), libc::MFD_CLOEXEC)) };
        file.set_len(MAP_BYTES as u64).unwrap();
        file
    }

    fn is_closed(map: &File, queue: u64) -> bool {
        let mut word = [0; 4];
        map.read_exact_at(&mut word, queue * Element::BYTES as u64).unwrap();
        word != [0; 4]
    }

    #[test]
    fn a_gate_closes_when_the_ring_is_full_and_opens_when_a_quarter_is_free() {
        let map = memory();
        let mut gate = Gate::new(map.as_fd(), 40).unwrap();
        gate.set_ring(64);
        let states = [0, 63, 64, 64, 49, 48, 63, 64, 0].map(|waiting| {
            gate.watch(waiting);
            is_closed(&map, 40)
        });
        assert_eq!(states, [false, false, true, true, true, false, false, true, false]);
        gate.watch(64);
        let closed: Vec<u64> = (0..MAX_QUEUES.into()).filter(|queue| is_closed(&map, *queue)).collect();
        assert_eq!(closed, [40], "a queue's gate is its own");
    }

    #[test]
    fn a_port_that_ends_leaves_its_gate_open() {
        let map = memory();
        let mut gate = Gate::new(map.as_fd(), 0).unwrap();
        gate.set_ring(64);
        gate.watch(64);
        assert!(is_closed(&map, 0));
        drop(gate);
        assert!(!is_closed(&map, 0));
    }

    #[test]
    fn a_queue_beyond_the_map_has_no_gate() {
        assert!(Gate::new(memory().as_fd(), MAX_QUEUES).is_err());
    }
}
