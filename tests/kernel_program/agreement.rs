//! The parser of the XDP program and the one in user space find the same, in whole and in broken packets.

use xfwd::kernel::xdp::{Steering, XdpProgram};
use xfwd::packet::parse;
use xfwd_netns::lab_or_skip;

use crate::support::packets as generated;

/// The kernel runs no packet that is shorter than an Ethernet header.
const SHORTEST: usize = 14;

#[test]
fn both_parsers_find_the_same() {
    lab_or_skip!();
    let mut program = XdpProgram::load(&Steering::default()).unwrap();
    let mut compared = 0;
    for seed in 0..105_000 {
        let packet = generated::packet(seed);
        if packet.len() < SHORTEST {
            continue;
        }
        let in_kernel = program.parse(&packet).unwrap();
        assert_eq!(parse(&packet, packet.len()), in_kernel, "seed {seed}: {packet:02x?}");
        compared += 1;
    }
    assert!(compared >= 100_000, "{compared}");
}
