//! AF_XDP sockets through `xsk-rs`: one socket a queue, one UMEM shared by all that are opened together.
//!
//! # Who owns a frame
//!
//! [`open`] creates the UMEM and cuts it into frames, dealt out to one pool a queue index. From then on an
//! [`XskFrame`] is the right to touch that frame's memory, and it is moved, never copied: onto the fill ring, back from
//! the rx ring, onto the tx ring, back from the completion ring. The rings hold addresses, so this is where the
//! right is given to the kernel and taken back; it is the only place that makes an `XskFrame` out of an address.
//!
//! All sockets of one call share its UMEM, so a frame that came in by one interface can go out by another without a
//! copy: it then comes back by the completion ring of the socket that sent it, into the same worker's pool.
//!
//! Ports and frames of two calls of [`open`] do not go together. A frame carries the mark of its UMEM (`brand.rs`); a port shows no byte
//! of another's frame, puts it on no ring, and comes to its end by [`PortError::ForeignFrame`](super::PortError::ForeignFrame).
//!
//! # What is handled here, by its known mistakes
//!
//! * The fill ring is twice the rx ring, primed before traffic, and refilled by what fits; a frame that does not fit
//!   stays in the pool ([`XskPort`], `refill`).
//! * Completions are drained on every turn, before a kick and when idle (`complete`).
//! * A kick's answer is classified once (`kick.rs`); retries are bounded by what is queued (`transmit`).
//! * need-wakeup: a kick only when the flag asks for it; the first kick always does, since the kernel sets the flag at
//!   bind time in copy mode and drivers set it until they have been woken.
//! * Zero-copy is what the kernel says it did ([`options::is_zero_copy`]), not what was asked ([`open`]).
//! * After a failed bind everything, the UMEM too, is built anew before the next try; a queue just closed answers `EBUSY`
//!   for a moment and is tried again ([`open`]).
//! * The kernel wants the mode flags on the first socket of a UMEM only: libxdp leaves them out for the later ones.
//! * A batch can end in the middle of a packet of several buffers: the port keeps the beginning until the rest
//!   arrives, and gives up a packet with too many (`fragments`).

mod bind;
mod brand;
mod fragments;
mod gate;
mod kick;
pub mod options;
mod port;

pub use bind::{
    BindError, BoundMode, MAX_SINGLE_BUFFER_MTU, Mode, OpenRequest, Opened, QueueReport, QueueRequest, open,
};
pub use gate::Gate;
pub use port::{MAX_PORTS, XskFrame, XskPort};
