//! What several integration tests need.
#![allow(dead_code, reason = "each test uses a part of it")]

pub mod classbench;
pub mod kernel_rules;
pub mod promises;
pub mod reference;
pub mod rules;

pub use xfwd::testing::packets;
