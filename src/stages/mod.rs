//! The stages that ship.

pub mod balance;
pub mod bounce;
pub mod filter;
