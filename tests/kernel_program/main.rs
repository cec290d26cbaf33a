//! The XDP program, loaded into the kernel: what its parser finds, what it steers, and how it is attached.
//!
//! Single packets run through it by `BPF_PROG_TEST_RUN`. Needs root; without, every test says that it was
//! skipped.

#![allow(
    clippy::unwrap_used,
    reason = "a test fails by panicking, in its helper functions too"
)]

mod agreement;
mod attachment;
mod deny;
mod filter;
mod packets;
mod parser;
mod steering;
#[path = "../support/mod.rs"]
mod support;

/// Whether this process may load programs; says so when a test is skipped.
fn is_root(test: &str) -> bool {
    // SAFETY: reads a number of this process.
    let root = unsafe { libc::geteuid() } == 0;
    if !root {
        eprintln!("SKIPPED: {test}: needs root");
    }
    root
}

/// Ends a test that needs root, visibly, when there is none.
macro_rules! needs_root {
    () => {
        if !crate::is_root(std::thread::current().name().unwrap_or("test")) {
            return;
        }
    };
}
use needs_root;
