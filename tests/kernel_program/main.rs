//! The XDP program, loaded into the kernel: what its parser finds, what it steers, and how it is attached.
//!
//! Single packets run through it by `BPF_PROG_TEST_RUN`. Needs root; without, every test says that it was
//! skipped.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, in its helper functions too")]

mod agreement;
mod attachment;
mod deny;
mod filter;
mod loops;
mod offline;
mod packets;
mod parser;
mod services;
mod steering;
#[path = "../support/mod.rs"]
mod support;
