//! Where packets come from and go to.
//!
//! A [`Port`] is one end of a worker: an AF_XDP socket on one queue of an interface ([`xsk`]), or memory
//! ([`memory`], for tests and benches). A port never owns frames for itself: it borrows them from the worker's
//! [`FramePool`] to be filled, hands them over as [`Received`] packets, takes them to be sent, and gives them
//! back when they are sent.
//!
//! # Where a frame is
//!
//! At every moment a frame is in exactly one place, and the sum of all places is constant:
//!
//! ```text
//!            refill               kernel               receive
//!   pool ───────────▶ fill ring ─────────▶ rx ring ───────────▶ batch ──▶ drop: pool
//!    ▲                                                            │
//!    │   complete                 kernel               transmit   ▼
//!    └─────────────── completion ring ◀───────── tx ring ◀───── tx backlog
//! ```
//!
//! What is between `refill` and `receive`, and between `transmit` and `complete`, is with the kernel; a port
//! counts it ([`InFlight`]). What does not fit on a ring stays where it was: nothing is dropped for lack of
//! room on a ring.

pub mod memory;
mod pool;
mod received;
pub mod xsk;

use std::collections::VecDeque;
use std::time::Duration;

use thiserror::Error;

use crate::pipeline::Span;

pub use pool::FramePool;
pub use received::{MAX_FRAGMENTS, Received};

/// One end of a worker, by which packets come and go.
pub trait Port {
    /// One buffer. Owning it is the right to use its memory.
    type Frame;

    /// Takes whole packets that have arrived into `received`, as far as there is room.
    fn receive(&mut self, received: &mut Received<Self::Frame>);

    /// The buffer of a received frame, and where in it the packet lies: from the end of the room in front of it to the end of
    /// what was received into this frame.
    fn buffer<'a>(&'a self, frame: &'a mut Self::Frame) -> (&'a mut [u8], Span);

    /// Makes a frame send what lies at `span` in its buffer, instead of all from the buffer's beginning to where the packet
    /// was received to. Costs a copy of the packet if it does not lie at the beginning. A span that is empty or not within the
    /// buffer changes nothing.
    fn place(&self, frame: &mut Self::Frame, span: Span);

    /// Makes a frame of the pool send the packet that was written to `span` in its [`buffer`](Port::buffer): one frame, whatever the frame
    /// was used for before.
    fn place_new(&self, frame: &mut Self::Frame, span: Span) {
        self.place(frame, span);
    }

    /// Moves as many frames as fit from the front of `backlog` to the tx ring, and tells the other side when it has
    /// to be told.
    ///
    /// # Errors
    ///
    /// [`PortError`] when the port will not send any more. Everything that passes is counted and tried again.
    fn transmit(&mut self, backlog: &mut VecDeque<Self::Frame>) -> Result<(), PortError>;

    /// Takes back the frames that have been sent. Returns how many.
    fn complete(&mut self, pool: &mut FramePool<Self::Frame>) -> usize;

    /// Gives frames from the pool to be filled, as many as there is room for.
    fn refill(&mut self, pool: &mut FramePool<Self::Frame>);

    /// Frames that are with the other side now.
    fn in_flight(&self) -> InFlight;

    /// What happened on this port so far.
    fn counters(&self) -> PortCounters;

    /// Sleeps until one of `ports` has something to do, at most for `timeout`; zero only looks.
    ///
    /// # Errors
    ///
    /// [`PortError`] when waiting fails for another reason than a signal.
    fn wait(ports: &mut [Self], timeout: Duration) -> Result<(), PortError>
    where
        Self: Sized;
}

/// Frames of a port that are with the other side.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InFlight {
    /// Between [`Port::refill`] and [`Port::receive`].
    pub to_fill: u64,
    /// Between [`Port::transmit`] and [`Port::complete`].
    pub to_send: u64,
    /// Inside the port: the fragments of a packet whose last one has not arrived.
    pub held: u64,
}

impl InFlight {
    /// All of them.
    pub fn total(self) -> u64 {
        self.to_fill + self.to_send + self.held
    }
}

/// What happened on a port, since it was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PortCounters {
    /// Frames put on the tx ring.
    pub tx_frames: u64,
    /// Frames that came back as sent.
    pub tx_completed: u64,
    /// System calls made to send.
    pub tx_kicks: u64,
    /// Kicks that left something queued for the next (`EAGAIN`).
    pub tx_again: u64,
    /// Kicks in which the kernel dropped a packet that the driver would not take (`EBUSY`).
    pub tx_dropped_busy: u64,
    /// Kicks that failed for want of memory (`ENOBUFS`, `ENOMEM`).
    pub tx_no_memory: u64,
    /// Kicks that met a link that was down (`ENETDOWN`).
    pub tx_link_down: u64,
    /// Packets given up because they had more than [`MAX_FRAGMENTS`] fragments.
    pub rx_too_many_fragments: u64,
}

/// A port that has come to its end.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum PortError {
    /// The interface behind the socket is gone.
    #[error(
        "interface {interface} queue {queue}: the socket is no longer bound (was the interface removed?)"
    )]
    Unbound {
        /// Name of the interface.
        interface: String,
        /// Queue of the interface.
        queue: u32,
    },
    /// It was given a frame that is not of its memory.
    #[error(
        "interface {interface} queue {queue}: it was given a frame of another UMEM; ports and frames of two calls of \
         `open` cannot be in one worker"
    )]
    ForeignFrame {
        /// Name of the interface.
        interface: String,
        /// Queue of the interface.
        queue: u32,
    },
    /// A system call failed in a way that nothing here can mend.
    #[error("interface {interface} queue {queue}: {call} failed: {source}")]
    System {
        /// Name of the interface.
        interface: String,
        /// Queue of the interface.
        queue: u32,
        /// The system call.
        call: &'static str,
        /// What it answered.
        source: std::io::Error,
    },
}
