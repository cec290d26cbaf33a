//! The first steps of `docs/writing-a-stage.md`, which shows the parts between `ANCHOR` and `ANCHOR_END`.

// ANCHOR: stage
use std::io::{Cursor, Write};

use xfwd::packet::FiveTuple;
use xfwd::prelude::*;

/// Answers every UDP datagram with the address and port that it came from.
struct WhoAmI;

impl Stage for WhoAmI {
    fn name(&self) -> &str {
        "whoami"
    }

    fn process(&mut self, batch: &mut Batch<'_>) {
        batch.each_undecided(|packet| match answer(packet) {
            true => Verdict::Bounce,
            false => Verdict::Drop(DropReason::NotAnswered),
        });
    }
}

fn answer(packet: &mut Packet<'_>) -> bool {
    let Some(flow) = FiveTuple::of(packet.bytes(), packet.headers()) else {
        return false;
    };
    // On the stack: nothing allocates once a packet.
    let mut text = Cursor::new([0; 48]);
    if writeln!(text, "{}", flow.source()).is_err() {
        return false;
    }
    let length = text.position() as usize;
    packet.reply_udp(&text.get_ref()[..length]).is_ok()
}
// ANCHOR_END: stage

// ANCHOR: question
use etherparse::PacketBuilder;
use xfwd::testing::built;

/// A datagram from 198.18.0.1, port 40,000, to 198.18.0.2, port 9,999.
pub fn question(payload: &[u8]) -> Vec<u8> {
    let link = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);
    built!(link.ipv4([198, 18, 0, 1], [198, 18, 0, 2], 64).udp(40_000, 9_999), payload)
}
// ANCHOR_END: question

// ANCHOR: harness
use xfwd::testing::Harness;

#[test]
fn who_asks_is_told_address_and_port() {
    let mut harness = Harness::new(WhoAmI);
    let answer = harness.one(&question(b"who am I?"));
    assert_eq!(answer.verdict, Verdict::Bounce);
    assert_eq!(answer.payload(), Some(&b"198.18.0.1:40000\n"[..]));
    // It goes back: to the port that it came from.
    assert_eq!((answer.headers.src_port, answer.headers.dst_port), (9_999, 40_000));
}

#[test]
fn what_is_no_datagram_is_dropped() {
    let mut harness = Harness::new(WhoAmI);
    let dropped = Verdict::Drop(DropReason::NotAnswered);
    assert_eq!(harness.one(&[0; 60]).verdict, dropped);
    let mut cut = question(b"who am I?");
    cut.truncate(30);
    assert_eq!(harness.one(&cut).verdict, dropped);
}
// ANCHOR_END: harness

// ANCHOR: strategies
use proptest::prelude::*;

proptest! {
    #[test]
    fn no_packet_makes_it_panic_and_none_passes_undecided(packet in xfwd::testing::strategies::any_packet()) {
        let verdict = Harness::new(WhoAmI).one(&packet).verdict;
        prop_assert_ne!(verdict, Verdict::Continue);
    }
}
// ANCHOR_END: strategies

// ANCHOR: memory
use std::sync::Arc;

use xfwd::port::memory::MemoryPort;
use xfwd::worker::{Worker, WorkerCounters};

#[test]
fn a_worker_on_memory_sends_the_answers_and_loses_no_frame() {
    let counters = Arc::<WorkerCounters>::default();
    // Rings of 64 descriptors; 256 frames of 2,048 bytes.
    let (ports, frames) = (vec![MemoryPort::new(64)], MemoryPort::frames(256, 2_048));
    let mut worker = Worker::new(ports, frames, WhoAmI, Idle::Poll, Arc::clone(&counters));
    worker.turn().unwrap();
    for _ in 0..1_000 {
        worker.ports_mut()[0].inject(&question(b"who am I?"));
    }
    worker.ports_mut()[0].inject(&[0; 60]);
    while worker.turn().unwrap() > 0 {
        worker.ports_mut()[0].drain_tx(64);
        worker.check_frames().unwrap();
    }
    let counted = counters.snapshot();
    assert_eq!((counted.rx_packets, counted.bounced), (1_001, 1_000));
    assert_eq!(counted.dropped, [("not-answered", 1)]);
    assert_eq!(worker.ports_mut()[0].take_sent().len(), 1_000);
}
// ANCHOR_END: memory
