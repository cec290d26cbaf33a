//! The stages that ship.

pub mod balance;
