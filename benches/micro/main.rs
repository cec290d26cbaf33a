//! What the parts of the data path cost, and all of them together, in ns a packet and packets a second of one core. Needs neither root nor
//! an interface.
//!
//! ```sh
//! cargo bench --bench micro                        # all of it, some minutes
//! cargo bench --bench micro -- pipeline            # what begins with, or contains, this
//! ```
//!
//! Throughput is in packets, so the time of a packet is its inverse; pin it to a core for steady numbers (`taskset -c 1`). What does not depend
//! on the machine's load is counted by `benches/instructions`.

#![allow(clippy::unwrap_used, missing_docs, reason = "a bench may panic, and has no reader of its API")]

mod balance;
#[allow(dead_code, reason = "some of it is for `benches/instructions`")]
mod bed;
mod checksum;
mod connections;
mod encapsulation;
mod filter;
mod maglev;
mod parse;
mod pipeline;
mod traffic;

#[path = "../../tests/support/mod.rs"]
mod support;

criterion::criterion_main!(
    parse::benches,
    checksum::benches,
    encapsulation::benches,
    filter::benches,
    connections::benches,
    maglev::benches,
    balance::benches,
    pipeline::benches
);
