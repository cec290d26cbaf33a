//! Balance: spreads the connections to a service over its backends.
//!
//! The way of a packet: [`services`](Services) says which service it is for, the [`connections`] table which backend its flow has,
//! or else [`maglev`] by the flow's hash ([`choose`]); then it is sent the service's [`way`]: with another MAC address, in a tunnel,
//! or translated ([`nat`]). What is for the balancer itself, or cannot be sent, it [answers](answer).
//!
//! ```text
//! stage ─ look ─┬─ flow ────── connections ▸ choose ─┬─ deliver: dsr, ipip, gue
//!               ├─ fragment ── fragments ────────────┤
//!               ├─ icmp ─────── echo, errors ────────┴─ session: nat, there and back
//!               └─ reply (from a backend to an address of nat)
//! ```
//!
//! All that a worker goes by is one immutable state, made anew by [`BalanceControl`] when a backend comes, goes, fails or moves, and
//! handed over by a queue of length one. Flows stay with their backends meanwhile: what the tables of a worker hold are slots
//! of backends, which outlive states.

#![forbid(unsafe_code)]

pub mod answer;
mod answers;
pub mod choose;
pub mod connections;
mod control;
mod deliver;
mod fragmented;
pub mod fragments;
mod icmp;
mod last_hop;
mod look;
pub mod maglev;
mod members;
pub mod mss;
pub mod nat;
mod service;
mod services;
mod session;
mod stage;
mod state;
mod tables;
#[cfg(test)]
mod test_packets;
pub mod way;

pub use answers::AnswerCounters;
pub use choose::Affinity;
pub use control::{BackendCounters, BalanceControl, BalanceOptions, ServiceError};
pub use service::{BackendState, BalancedBackend, BalancedService, Egress, Forward, GUE_PORT, NoBackend};
pub use services::{OfVip, Services};
pub use stage::{Balance, StageCounters};
