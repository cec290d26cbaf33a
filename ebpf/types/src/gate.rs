//! The gate of a queue: how a worker that does not keep up tells the XDP program to shed load.
//!
//! A packet for a full rx ring is lost in any case, but late: the kernel has taken a frame and copied the packet before it finds
//! the ring full, gives the frame back and counts the loss in the socket. At some millions of them a second these writes
//! go to cache lines that the worker's transmit needs for every packet it sends, on another core. The program drops them before
//! any of that is touched. It cannot see how full the ring is; the worker can, and says so.

/// The element of the map `GATES` that belongs to a queue. Each half has a cache line of its own: one is written by the worker and
/// read by the program for every packet, the other one only by the program.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Gate {
    /// Not 0: packets for the queue's socket are dropped.
    pub closed: u32,
    /// Fills the cache line.
    pub fill: [u32; 15],
    /// Packets dropped so far.
    pub shed: u64,
    /// Fills the cache line.
    pub rest: [u64; 7],
}

impl Gate {
    /// Bytes of an element.
    pub const BYTES: usize = size_of::<Self>();
}

const _: () = assert!(Gate::BYTES == 2 * 64);
