//! Safe code that does with packets and batches whatever it can: nothing outside of a packet is reached, no worker panics, no frame
//! is lost.

use std::sync::Arc;

use super::{Batch, DropReason, Packet, Stage, Verdict};
use crate::packet::{packets, parse};
use crate::pipeline::Span;
use crate::port::memory::MemoryPort;
use crate::testing::packets::Random;
use crate::worker::{Idle, Worker, WorkerCounters};

/// One call of a packet's methods, with arguments that may make no sense.
fn edit(packet: &mut Packet<'_>, random: &mut Random) {
    let number = *random.of(&[0, 1, 2, 4, 8, 13, 14, 20, 42, 60, 100, 1_500, 65_535, 1 << 32, usize::MAX]);
    let (byte, word) = (random.byte(), random.u16());
    match random.below(22) {
        0 => _ = packet.push_front(number),
        1 => _ = packet.pull_front(number),
        2 => _ = packet.push_back(&[byte; 60][..number.min(60)]),
        3 => _ = packet.pull_back(number),
        4 => _ = packet.resize(number),
        5 => _ = packet.resize_payload(number),
        6 => _ = packet.set_payload(&[byte; 60][..number.min(60)]),
        7 => _ = packet.fill_checksums(),
        8 => _ = packet.reply_udp(&[byte; 60][..number.min(60)]),
        9 => _ = packet.turn_around(),
        10 => _ = packet.push_vlan(word),
        11 => _ = packet.pop_vlan(),
        12 => _ = packet.set_source([byte; 4].into()),
        13 => _ = packet.set_destination([byte; 16].into()),
        14 => _ = packet.set_source_port(word),
        15 => _ = packet.set_destination_port(word),
        16 => _ = packet.set_hop_limit(byte),
        17 => _ = packet.set_traffic_class(byte),
        18 => packet.reparse(),
        // Headers are out of date from here on.
        19 => {
            let at = random.below(packet.bytes().len());
            packet
                .bytes_mut()
                .get_mut(at..)
                .and_then(<[u8]>::first_mut)
                .into_iter()
                .for_each(|at| *at = byte);
        }
        20 => {
            packet.udp_mut().into_iter().for_each(|mut udp| udp.set_length_bytes(word));
            packet.ipv4_mut().into_iter().for_each(|mut ip| ip.set_total_bytes(word));
            packet.ipv6_mut().into_iter().for_each(|mut ip| ip.set_payload_bytes(word));
        }
        _ => packet.payload_mut().into_iter().for_each(|payload| payload.fill(byte)),
    }
}

#[test]
fn any_edits_in_any_order_stay_within_the_packets_buffer() {
    const AROUND: usize = 40;
    for seed in packets::seeds(20_000) {
        let mut random = Random::new(seed ^ 0x5eed);
        let bytes = packets::packet(seed);
        let mut memory = [vec![0xa5; AROUND], bytes.clone(), vec![0xa5; AROUND]].concat();
        let end = memory.len() - AROUND / 2;
        let buffer = &mut memory[AROUND / 2..end];
        let mut batch = Batch::new(0);
        let span = Span { start: AROUND / 2, end: AROUND / 2 + bytes.len() };
        // Some are the beginning of a longer packet.
        let len = bytes.len() + if random.one_in(5) { 3_000 } else { 0 };
        batch.push_at(buffer, span, len as u32);
        batch.parse();
        let packet = batch.packet_mut(0);
        for _ in 0..12 {
            edit(packet, &mut random);
            assert!(packet.len() >= packet.bytes().len(), "seed {seed}");
            let _ =
                (packet.ethernet(), packet.ipv4(), packet.ipv6(), packet.tcp(), packet.udp(), packet.icmp());
            let _ = parse(packet.bytes(), packet.len());
        }
        batch.decide(0, Verdict::Bounce);
        let (decided, room) = (batch.finish(), AROUND + bytes.len());
        assert!(decided.moved().all(|(_, span)| span.start <= span.end && span.end <= room), "seed {seed}");
        assert!(memory[..AROUND / 2].iter().chain(&memory[end..]).all(|byte| *byte == 0xa5), "seed {seed}");
    }
}

/// Does one thing that the borrow checker lets it do.
struct Hostile(u8);

/// A packet that is not of this worker, in memory that is.
fn foreign<'a>(bytes: usize) -> Batch<'a> {
    let mut batch = Batch::new(9);
    batch.push(Box::leak(vec![7; bytes].into()), 1);
    batch
}

impl Stage for Hostile {
    fn name(&self) -> &str {
        "hostile"
    }

    fn originates(&self) -> usize {
        2
    }

    fn process(&mut self, batch: &mut Batch<'_>) {
        let mut other = foreign(100_000);
        match self.0 {
            0 => *batch = other,
            1 => *batch = Batch::new(0),
            2 => std::mem::swap(batch.packet_mut(0), other.packet_mut(0)),
            // Where this one lies is nowhere in a frame.
            3 => {
                let _ = other.packet_mut(0).pull_front(50_000);
                std::mem::swap(batch.packet_mut(0), other.packet_mut(0));
            }
            4 => {
                batch.push(Box::leak(vec![7; 200].into()), 200);
                let _ = batch.packet_mut(1).pull_front(100);
                let _ = batch.allocate(60, Verdict::Bounce);
            }
            // More new packets than the worker has lent buffers.
            5 => {
                for _ in 0..20 {
                    batch.lend(Box::leak(vec![7; 2_000].into()));
                }
                while batch.allocate(60, Verdict::Forward(0)).is_some() {}
            }
            6 => (0..64).for_each(|index| batch.decide(index, Verdict::Forward(200))),
            7 => _ = batch.packet_mut(0).pull_front(60),
            8 => batch.decide(0, Verdict::Drop(DropReason::NoSession)),
            _ => _ = batch.packet_mut(0).push_back(&[0; 1_000]),
        }
        (0..batch.len()).for_each(|index| batch.decide(index, Verdict::Bounce));
    }
}

#[test]
#[cfg_attr(miri, ignore = "what these stages leave behind is a leak")]
fn a_stage_can_send_nonsense_but_not_take_a_frame_or_the_worker_down() {
    for way in 0..10 {
        let counters: Arc<WorkerCounters> = Arc::default();
        let pool = MemoryPort::frames(128, 2_048);
        let ports = vec![MemoryPort::new(16)];
        let mut worker = Worker::new(ports, pool, Hostile(way), Idle::Poll, Arc::clone(&counters));
        worker.turn().unwrap();
        for _ in 0..20 {
            worker.ports_mut()[0].inject(&[3; 60]);
            worker.turn().unwrap();
            worker.ports_mut()[0].drain_tx(16);
            worker.turn().unwrap();
            worker.check_frames().unwrap();
        }
        let counts = counters.snapshot();
        assert_eq!(counts.rx_packets, 20, "way {way}");
        assert!(worker.ports_mut()[0].take_sent().iter().all(|sent| (14..=2_048).contains(&sent.len())));
    }
}
