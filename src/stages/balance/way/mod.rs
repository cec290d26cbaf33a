//! The way from the balancer to a backend: what is written on a packet before it leaves.
//!
//! * [`write_link`]: a new Ethernet header, for a backend or gateway on a link of ours.
//! * [`Tunnel`]: the whole packet in another one, for a backend that is anywhere.
//! * [`pass_hop`]: the hop that routing a packet costs it.
//! * [`fit`]: whether the link at hand takes the packet, and what its sender is to be told if not.
//!
//! All of them work on a [`Packet`](crate::pipeline::Packet) in place, allocate nothing and keep every checksum right.
//! After those that write, [`Headers`](crate::packet::Headers) are those of the packet as it was; who goes on looking at
//! it calls [`reparse`](crate::pipeline::Packet::reparse).

mod identification;
mod inner_sum;
mod link;
mod mtu;
mod ttl;
mod tunnel;

pub use identification::Identification;
pub use link::{LinkHeader, write_link};
pub use mtu::{Fit, fit};
pub use ttl::{Hop, pass_hop};
pub use tunnel::{EncapsulateError, MixedFamilies, Tunnel, TunnelKind};
