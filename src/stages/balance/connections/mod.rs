//! The connection table: which backend the packets of a known connection go to.
//!
//! Each worker has one of its own, so nothing in it is shared or locked. It is allocated once; a lookup touches two cache
//! lines, which [`ConnectionTable::prefetch`] brings near for a whole batch at once. Values are 32 bits that mean something to the
//! caller alone, such as a backend.
//!
//! # States
//!
//! | state | how a flow comes into it | lives for, after its last packet |
//! |---|---|---|
//! | [`New`](State::New) | its first packet, whatever that is | `syn` |
//! | [`Established`](State::Established) | the second packet, unless that is a SYN again | `established` |
//! | [`Closing`](State::Closing) | a FIN or RST after the first packet | `closing` |
//! | [`NewUdp`](State::NewUdp) | its first datagram | `udp` |
//! | [`Udp`](State::Udp) | the second datagram | `udp` |
//!
//! Only packets from the client are seen, since with direct return the backend's answers do not pass. So a connection is *not* known
//! to be over after the client's FIN: the client goes on with acknowledgements for as long as the backend sends.
//! `Closing` is therefore refreshed by every packet like any other state, and only the time after the last of them is shorter.
//! The same goes for RST, which has the advantage that a forged one takes nothing from a connection that goes on.
//! A SYN in `Closing` is a new connection that uses the five-tuple again: the state is `New`, and
//! [`Found::restarted`] tells the caller that it may choose a backend anew. A SYN in `Established` changes nothing: the backend
//! decides what to make of it (RFC 9293, section 3.10.7.4, and RFC 5961), and the client's RST will follow if it was meant.
//!
//! # Floods
//!
//! `New` and `NewUdp` are a probation. Where there is no room, a new flow takes the place of an expired entry, else of the oldest in
//! probation of its two buckets; never that of a live entry in another state. If there is none, it is not stored
//! ([`Insertion::Refused`]) and the caller goes on without, by Maglev. So a flood of SYNs, each of another
//! source, costs connections that were seen twice nothing, and one in its handshake at most its entry: its next packet goes by Maglev,
//! to the same backend as long as no backend changes, and is stored again.
//!
//! # Layout
//!
//! Entries of 16 bytes, four in a bucket of one cache line; a flow lies in one of two buckets (two-choice hashing: Azar et al.,
//! "Balanced Allocations", STOC 1994), the emptier when it was stored. When both are full of
//! live entries out of probation, entries are moved to their other bucket to make room (cuckoo hashing: Pagh and Rodler, 2001; found
//! by a breadth-first search of bounded length). That fills the table to about nine
//! tenths before the first flow is refused (a test prints it).
//!
//! A flow is known by the 64 bits of its hash ([`FiveTuple::keyed_hash`](crate::packet::FiveTuple::keyed_hash)), which has to have a
//! secret seed. That two of 10 million flows have the same hash, and so go to the same backend, happens in
//! one of 370,000 such sets.

mod bucket;
mod counters;
mod room;
mod state;
mod table;
mod tick;

#[cfg(test)]
mod flood_tests;
#[cfg(test)]
mod model_tests;

pub use counters::ConnectionCounters;
pub use state::{Event, State, Timeouts};
pub(in crate::stages::balance) use table::Asked;
pub use table::{ConnectionTable, Found, Insertion};
pub(super) use tick::ticks;
pub use tick::{Clock, MAX_TIMEOUT, Tick};
