//! NAT: the backend sees the balancer instead of the client, and the client the service instead of the backend.
//!
//! A packet from a client to the service (a virtual address and port) goes on from an address and port of the pool to the
//! backend; what the backend sends back to there goes on from the service to the client. For backends that can
//! neither hold the virtual address nor undo a tunnel; the price is that both directions come through here, and that
//! the backend does not learn the client's address.
//!
//! # Who gets the reply
//!
//! The NIC spreads replies over its queues by a hash of their own addresses and ports, so a reply comes to any worker, and
//! AF_XDP cannot hand it to another. So sessions lie in one array ([`NatPool`]) that all workers read without a lock:
//! a port of the pool is a place in the array. A place is written by one worker only, that which owns the port: each
//! worker has an equal share of the ports of every address, and opens sessions on these.
//!
//! A port is one session's at a time, whatever its backend: 64,512 sessions at most for each address and protocol (ports
//! 1024 to 65535), shared by the workers. More addresses give more.
//!
//! # The way of a packet
//!
//! * From a client: the connection table gives a [`SessionId`], and [`NatWorker::flow`] verifies it. Or else
//!   [`NatWorker::find_flow`] looks whether another worker has the flow (asking each costs a cache miss; a SYN need not).
//!   Or else [`NatWorker::open`] begins a session. Then [`NatWorker::seen_from_client`] and [`translate_to_backend`].
//! * To an address of the pool: [`NatWorker::find_reply`], [`NatWorker::seen_from_backend`], [`translate_reply`].
//! * ICMP errors: [`NatWorker::find_error_from_client`] and [`translate_error_to_backend`], or
//!   [`NatWorker::find_error_from_backend`] and [`translate_error_reply`].
//! * Later fragments have no ports: a fragment table knows the session that [`tuple_with_ports`] of the first led to.
//!
//! # Limits
//!
//! * After a restart sessions are gone, and with them the connections.
//! * Who can send from many forged addresses can fill the pool with half-open connections, which then live for the SYN
//!   timeout. When it is full, new flows take the places of such that were idle for two seconds.
//! * A source route (IPv4 option, IPv6 routing header) is not translated.

#![forbid(unsafe_code)]

mod counters;
mod errors;
mod free;
mod index;
mod layout;
mod pool;
mod rewrite;
mod session;
mod state;
mod table;
mod translate;
mod worker;

pub use counters::{NatCounters, NatSnapshot};
pub use errors::{translate_error_reply, translate_error_to_backend};
pub use layout::PoolError;
pub use pool::NatPool;
pub use session::{Endpoint, Session, SessionId, tuple_with_ports};
pub use translate::{NotOfSession, translate_reply, translate_to_backend};
pub use worker::NatWorker;

#[cfg(test)]
mod packets;
