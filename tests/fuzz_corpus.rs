//! The fuzz target's promises on its seed corpus, and on packets made of it: what can be run without nightly Rust.
//!
//! After a change of the packet generator the seeds can be written anew: `XFWD_WRITE_CORPUS=1 cargo test --test fuzz_corpus`.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use support::packets::{self, Random};
use support::promises;
use xfwd::packet::{Outcome, parse};

const CORPUS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/corpus/parse");
/// Damaged copies of each seed.
const COPIES: usize = 2_000;

fn corpus() -> Vec<(String, Vec<u8>)> {
    let mut seeds: Vec<_> = fs::read_dir(CORPUS)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.file_name().unwrap().to_string_lossy().into_owned(), fs::read(&path).unwrap()))
        .collect();
    seeds.sort();
    seeds
}

/// The shortest generated packet of each kind: outcome, IP version, protocol, fragment.
fn write_corpus() {
    let mut shortest: BTreeMap<_, Vec<u8>> = BTreeMap::new();
    for seed in 0..200_000 {
        let packet = packets::packet(seed);
        let headers = parse(&packet, packet.len());
        let outcome = headers.outcome();
        let protocol =
            if outcome == Outcome::Ip && headers.transport_offset != 0 { headers.protocol } else { 0 };
        let kind = (outcome as u8, headers.ip_version, protocol, headers.fragment);
        let known = shortest.entry(kind).or_insert_with(|| packet.clone());
        if packet.len() < known.len() {
            *known = packet;
        }
    }
    fs::create_dir_all(Path::new(CORPUS)).unwrap();
    for ((outcome, version, protocol, fragment), packet) in shortest {
        let outcome = Outcome::from_number(outcome).name();
        let name = format!("seed-{outcome}-v{version}-p{protocol}-f{fragment}");
        fs::write(Path::new(CORPUS).join(name), packet).unwrap();
    }
}

#[test]
fn every_seed_and_what_is_made_of_it_keeps_the_promises() {
    if std::env::var_os("XFWD_WRITE_CORPUS").is_some() {
        write_corpus();
    }
    let seeds = corpus();
    let mut random = Random::new(4);
    for (name, seed) in &seeds {
        promises::check(seed);
        for _ in 0..COPIES {
            let packet = damaged(&mut random, seed, &seeds);
            if let Err(panic) = std::panic::catch_unwind(|| promises::check(&packet)) {
                eprintln!("made of {name}: {packet:02x?}");
                std::panic::resume_unwind(panic);
            }
        }
    }
}

#[test]
fn the_corpus_has_every_outcome() {
    let seeds = corpus();
    for outcome in Outcome::ALL {
        let has = |(_, packet): &(String, Vec<u8>)| parse(packet, packet.len()).outcome() == *outcome;
        assert!(seeds.iter().any(has), "no seed is {}", outcome.name());
    }
}

/// What libFuzzer does: change bytes, cut, and splice with another seed.
fn damaged(random: &mut Random, seed: &[u8], seeds: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut packet = seed.to_vec();
    for _ in 0..random.between(1, 5) {
        let length = packet.len();
        match random.below(6) {
            _ if length == 0 => {}
            0 => packet[random.below(length)] = random.byte(),
            1 => packet[random.below(length)] ^= 1 << random.below(8),
            2 => {
                packet[random.below(length)] =
                    *random.of(&[0, 1, 4, 5, 6, 17, 44, 51, 0x45, 0x60, 0x7f, 0xff])
            }
            3 => packet.truncate(random.below(length + 1)),
            4 => {
                let (_, other) = random.of(seeds);
                let at = random.below(length);
                packet.truncate(at);
                packet.extend(&other[at.min(other.len())..]);
            }
            _ => {
                let (at, count) = (random.below(length), random.below(20));
                let bytes: Vec<u8> = random.bytes(count).collect();
                packet.splice(at..at, bytes);
            }
        }
    }
    packet
}
