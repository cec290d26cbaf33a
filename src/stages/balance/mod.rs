//! Balance: spreads the connections to a service over its backends.
//!
//! A packet for a service (virtual address, protocol, port) goes to the backend that [`maglev`] chooses by the hash of
//! its five-tuple, so all packets of a connection go to one backend without any state here, and every balancer
//! with the same config chooses the same one. It gets there by L2 direct server return: the destination MAC address
//! becomes the backend's, the source MAC address our own, and nothing else changes; the backend has the virtual
//! address on a loopback interface and answers the client directly.
//!
//! Who knows the backends' MAC addresses is the kernel's neighbour table. What changes there reaches each worker's
//! stage through a bounded lock-free queue ([`BalanceControl`]), which it empties between batches.

#![forbid(unsafe_code)]

pub mod choose;
pub mod connections;
pub mod answer;
mod control;
pub mod fragments;
pub mod maglev;
mod services;
pub mod mss;
pub mod nat;
mod stage;
#[cfg(test)]
mod test_packets;
pub mod way;

pub use choose::Affinity;
pub use control::{BackendCounters, BalanceControl};
pub use services::{OfVip, Services};
pub use stage::{Balance, BalancePlan, BalancedService, Member};
