//! Any bytes: the parser keeps its promises, and so does what reads its result.

#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../../tests/support/promises.rs"]
mod promises;

fuzz_target!(|packet: &[u8]| promises::check(packet));
