//! Balancing as a whole, on memory: packets that etherparse has built go in, and what comes out is held against packets that it has
//! built, byte for byte. Needs neither root nor a lab.
#![allow(missing_docs, clippy::unwrap_used)]

mod answers;
mod changes;
mod errors;
mod fragments;
mod nat;
mod packets;
mod reload;
mod rig;
mod services;
mod ways;
