//! What balancing costs a packet: by number of flows, and by the way to the backend.
//!
//! ```sh
//! cargo bench --bench balance
//! ```
//!
//! Numbers are a packet (throughput is in packets) and those of the stage alone, housekeeping included, with full batches of 64. Only its
//! calls are timed: packets are written and parsed in between, so they are in the cache as they are behind the parser, and what the stage did
//! to them is undone. The two readings of the clock for each batch are in the numbers, about half a nanosecond a packet.
//!
//! * `flows`: `dsr` and IPv4, flows in random order, all of them established; the connection table has room for twice as many. 10 million
//!   take 320 MB.
//! * `ways`: 10,000 flows; the VIP's IP version, that of the backend for tunnels, the length of the frame (64: as short as it can be; 1500: an IP packet
//!   of 1,500 bytes), and whether there is room in front for outer headers. Where there is none the packet is moved.

#![allow(clippy::unwrap_used, reason = "a bench may panic")]

use std::hint::black_box;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main};
use etherparse::PacketBuilder;
use xfwd::packet::{MacAddress, parse};
use xfwd::pipeline::{BATCH_SIZE, Batch, Span, Stage, Verdict};
use xfwd::stages::balance::nat::NatPool;
use xfwd::stages::balance::way::LinkHeader;
use xfwd::stages::balance::{Balance, BalanceControl, BalanceOptions, BalancedService, Egress, Forward};

#[path = "../tests/support/mod.rs"]
mod support;
use support::packets::Random;

const FLOWS: [usize; 4] = [1, 10_000, 1_000_000, 10_000_000];
const FLOWS_BY_WAY: usize = 10_000;
const BACKENDS: u16 = 100;
/// What a frame of the data path has.
const BUFFER: usize = 4_096;
/// What the XDP program makes for the longest outer headers.
const ROOM: usize = 64;
const VIPS: [&str; 2] = ["198.18.10.1", "2001:db8:10::1"];
const OURS: [&str; 2] = ["198.18.0.2", "2001:db8::2"];
const ACK: &[u8] = &[0; 6];

/// A service with a hundred backends, all of which can be reached.
fn control(is_ipv4: bool, forward: Forward, over_ipv4: bool, flows: usize) -> BalanceControl {
    let address = |index: u16| -> IpAddr {
        let text = if over_ipv4 { format!("198.18.1.{index}") } else { format!("2001:db8:1::{index:x}") };
        text.parse().unwrap()
    };
    let vip = VIPS[usize::from(!is_ipv4)].parse().unwrap();
    let service = BalancedService::new("web", vip, 6, 80, forward);
    let service = (0..BACKENDS).fold(service, |service, index| service.with(address(index), 1));
    let ours = OURS.map(|text| text.parse::<IpAddr>().unwrap());
    let options = BalanceOptions {
        connections: 2 * flows.max(1_024),
        nat: Some(NatPool::new(&ours, 1_024..=65_535, 1).unwrap()),
        ..BalanceOptions::new(1, vec![MacAddress([2; 6])])
    };
    let control = BalanceControl::new(options, vec![service]).unwrap();
    let link = LinkHeader { source: MacAddress([2; 6]), destination: MacAddress([4; 6]), vlan: None };
    let source = Some(ours[usize::from(!over_ipv4)]);
    let egress = Egress { port: 0, link, mtu: 9_000, is_direct: true, source };
    control.set_egress((0..BACKENDS).map(|index| (address(index), Some(egress))));
    control
}

/// A segment to the service, of which [`set_flow`] changes the client's address.
fn segment(is_ipv4: bool, payload: &[u8]) -> Vec<u8> {
    let link = PacketBuilder::ethernet2([6; 6], [2; 6]);
    let ip = match VIPS[usize::from(!is_ipv4)].parse().unwrap() {
        IpAddr::V4(vip) => link.ipv4([10, 0, 0, 0], vip.octets(), 64),
        IpAddr::V6(vip) => link.ipv6([0x20; 16], vip.octets(), 64),
    };
    let mut bytes = Vec::new();
    ip.tcp(40_000, 80, 1, 512).ack(1).write(&mut bytes, payload).unwrap();
    bytes
}

/// Checksums are not looked at by the stage.
fn set_flow(packet: &mut [u8], flow: usize) {
    let last = if packet[12] == 8 { 30 } else { 38 };
    packet[last - 3..last].copy_from_slice(&(flow as u32).to_be_bytes()[1..]);
}

/// A stage, and the buffers that its packets are in.
struct Bed {
    stage: Balance,
    buffers: Vec<Vec<u8>>,
    room: usize,
}

impl Bed {
    fn new(control: &BalanceControl, room: usize) -> Self {
        Self { stage: control.stage(0), buffers: vec![vec![0; BUFFER]; BATCH_SIZE], room }
    }

    /// Has a batch processed whose packets `fill` writes; it returns their length. The time that the stage took.
    fn batch(&mut self, mut fill: impl FnMut(&mut [u8]) -> usize) -> Duration {
        let mut batch = Batch::new(0);
        for buffer in &mut self.buffers {
            let len = fill(&mut buffer[self.room..]);
            batch.push_at(buffer, Span { start: self.room, end: self.room + len }, len as u32);
        }
        batch.parse();
        let start = Instant::now();
        self.stage.housekeeping();
        self.stage.process(&mut batch);
        let time = start.elapsed();
        let decided = black_box(batch.finish());
        assert_eq!(decided[0], Verdict::Bounce);
        time
    }

    /// Makes so many flows established.
    fn begin(&mut self, template: &[u8], flows: usize) {
        for round in 0..2 * flows.div_ceil(BATCH_SIZE) {
            let mut flow = round / 2 * BATCH_SIZE;
            self.batch(|buffer| {
                let len = copy(template, buffer);
                set_flow(&mut buffer[..len], flow % flows);
                flow += 1;
                len
            });
        }
    }

    fn measure(
        &mut self,
        group: &mut BenchmarkGroup<'_, WallTime>,
        name: String,
        mut fill: impl FnMut(&mut [u8]) -> usize,
    ) {
        group.bench_function(name, |bencher| {
            bencher.iter_custom(|batches| (0..batches).map(|_| self.batch(&mut fill)).sum());
        });
    }
}

fn copy(packet: &[u8], buffer: &mut [u8]) -> usize {
    buffer[..packet.len()].copy_from_slice(packet);
    packet.len()
}

fn group<'c>(criterion: &'c mut Criterion, name: &str) -> BenchmarkGroup<'c, WallTime> {
    let mut group = criterion.benchmark_group(name);
    group.sample_size(20).warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1));
    group.throughput(Throughput::Elements(BATCH_SIZE as u64));
    group
}

fn flows(criterion: &mut Criterion) {
    let mut group = group(criterion, "balance/flows");
    let template = segment(true, ACK);
    for flows in FLOWS {
        let mut bed = Bed::new(&control(true, Forward::Dsr, true, flows), 0);
        bed.begin(&template, flows);
        let mut random = Random::new(1);
        bed.measure(&mut group, flows.to_string(), |buffer| {
            let len = copy(&template, buffer);
            set_flow(&mut buffer[..len], random.below(flows));
            len
        });
    }
    group.finish();
}

fn ways(criterion: &mut Criterion) {
    let mut group = group(criterion, "balance/ways");
    for (forward, is_ipv4, over_ipv4) in [
        (Forward::Dsr, true, true),
        (Forward::Dsr, false, false),
        (Forward::Ipip, true, true),
        (Forward::Ipip, true, false),
        (Forward::Ipip, false, true),
        (Forward::Ipip, false, false),
        (Forward::Gue, true, true),
        (Forward::Gue, true, false),
        (Forward::Gue, false, true),
        (Forward::Gue, false, false),
        (Forward::Nat, true, true),
        (Forward::Nat, false, false),
    ] {
        let version = |is_ipv4| if is_ipv4 { 4 } else { 6 };
        let way = match forward.is_tunnel() {
            true => format!("{forward}/{}in{}", version(is_ipv4), version(over_ipv4)),
            false => format!("{forward}/ipv{}", version(is_ipv4)),
        };
        let rooms: &[usize] = if forward.is_tunnel() { &[ROOM, 0] } else { &[0] };
        for (size, payload) in [("64", 6), ("1500", if is_ipv4 { 1_460 } else { 1_440 })] {
            let template = segment(is_ipv4, &vec![0; payload]);
            for room in rooms {
                let mut bed = Bed::new(&control(is_ipv4, forward, over_ipv4, FLOWS_BY_WAY), *room);
                bed.begin(&template, FLOWS_BY_WAY);
                let mut random = Random::new(1);
                let room = match (forward.is_tunnel(), room) {
                    (false, _) => "",
                    (true, 0) => "/moved",
                    (true, _) => "/room",
                };
                bed.measure(&mut group, format!("{way}/{size}{room}"), |buffer| {
                    let len = copy(&template, buffer);
                    set_flow(&mut buffer[..len], random.below(FLOWS_BY_WAY));
                    len
                });
            }
        }
    }
    group.finish();
}

/// What backends send back to addresses of `nat`.
fn replies(criterion: &mut Criterion) {
    let mut group = group(criterion, "balance/replies");
    for is_ipv4 in [true, false] {
        let mut bed = Bed::new(&control(is_ipv4, Forward::Nat, is_ipv4, FLOWS_BY_WAY), 0);
        let template = segment(is_ipv4, ACK);
        bed.begin(&template, FLOWS_BY_WAY);
        let mut replies = Vec::new();
        for first in (0..FLOWS_BY_WAY).step_by(BATCH_SIZE) {
            let mut flow = first;
            bed.batch(|buffer| {
                let len = copy(&template, buffer);
                set_flow(&mut buffer[..len], flow % FLOWS_BY_WAY);
                flow += 1;
                len
            });
            replies.extend(bed.buffers.iter().map(|buffer| turned_around(&buffer[..template.len()])));
        }
        let mut random = Random::new(1);
        let version = if is_ipv4 { "nat/ipv4" } else { "nat/ipv6" };
        bed.measure(&mut group, version.to_owned(), |buffer| copy(random.of::<Vec<u8>>(&replies), buffer));
    }
    group.finish();
}

/// The packet from where it was sent to.
fn turned_around(packet: &[u8]) -> Vec<u8> {
    let mut bytes = packet.to_vec();
    let headers = parse(packet, packet.len());
    let (at, size) = if headers.ip_version == 4 { (26, 4) } else { (22, 16) };
    let (source, destination) = bytes[at..at + 2 * size].split_at_mut(size);
    source.swap_with_slice(destination);
    let at = usize::from(headers.transport_offset);
    let (source, destination) = bytes[at..at + 4].split_at_mut(2);
    source.swap_with_slice(destination);
    bytes
}

criterion_group!(benches, ways, replies, flows);
criterion_main!(benches);
