//! What balancing costs a packet: by number of flows, and by the way to the backend. The stage alone, housekeeping included, with full
//! batches of 64 ([`StageBed`]).
//!
//! * `flows`: `dsr` and IPv4, flows in random order, all of them established; the connection table has room for twice as many. 10 million
//!   take 320 MB.
//! * `nat-flows`: the same with `nat`.
//! * `ways`: 10,000 flows; the VIP's IP version, that of the backend for tunnels, the length of the frame (64: as short as it can be; 1500: an IP packet
//!   of 1,500 bytes), and whether there is room in front for outer headers. Where there is none the packet is moved.

use std::cell::RefCell;
use std::time::Duration;

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, Throughput, criterion_group};
use xfwd::pipeline::BATCH_SIZE;
use xfwd::stages::balance::{Balance, BalanceControl, Forward};

use crate::bed::StageBed;
use crate::support::packets::Random;
use crate::traffic::{ACK, control, copy, segment, set_flow, turned_around};

const FLOWS: [usize; 4] = [1, 10_000, 1_000_000, 10_000_000];
const NAT_FLOWS: [usize; 3] = [1, 10_000, 1_000_000];
const FLOWS_BY_WAY: usize = 10_000;
/// What the XDP program makes for the longest outer headers.
const ROOM: usize = 64;

/// A stage that has so many flows established.
fn bed(template: &[u8], control: &BalanceControl, room: usize, flows: usize) -> StageBed<Balance> {
    let mut bed = StageBed::new(control.stage(0), room);
    for round in 0..2 * flows.div_ceil(BATCH_SIZE) {
        let mut flow = round / 2 * BATCH_SIZE;
        bed.batch(|buffer| {
            let len = copy(template, buffer);
            set_flow(&mut buffer[..len], flow % flows);
            flow += 1;
            len
        });
    }
    bed
}

fn measure(
    group: &mut BenchmarkGroup<'_, WallTime>,
    name: String,
    make: impl Fn() -> StageBed<Balance>,
    mut fill: impl FnMut(&mut [u8]) -> usize,
) {
    // Made only if it is measured.
    let mut bed = None;
    group.bench_function(name, |bencher| {
        let bed = bed.get_or_insert_with(&make);
        bencher.iter_custom(|batches| (0..batches).map(|_| bed.batch(&mut fill)).sum());
    });
}

fn group<'c>(criterion: &'c mut Criterion, name: &str) -> BenchmarkGroup<'c, WallTime> {
    let mut group = criterion.benchmark_group(name);
    group.sample_size(20).warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1));
    group.throughput(Throughput::Elements(BATCH_SIZE as u64));
    group
}

fn flows(criterion: &mut Criterion) {
    established(criterion, "balance/flows", Forward::Dsr, &FLOWS);
    established(criterion, "balance/nat-flows", Forward::Nat, &NAT_FLOWS);
}

fn established(criterion: &mut Criterion, name: &str, forward: Forward, counts: &[usize]) {
    let mut group = group(criterion, name);
    let template = segment(true, ACK);
    for &flows in counts {
        let make = || bed(&template, &control(true, forward, true, flows), 0, flows);
        let mut random = Random::new(1);
        measure(&mut group, flows.to_string(), make, |buffer| {
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
                let make = || {
                    let control = control(is_ipv4, forward, over_ipv4, FLOWS_BY_WAY);
                    bed(&template, &control, *room, FLOWS_BY_WAY)
                };
                let mut random = Random::new(1);
                let room = match (forward.is_tunnel(), room) {
                    (false, _) => "",
                    (true, 0) => "/moved",
                    (true, _) => "/room",
                };
                measure(&mut group, format!("{way}/{size}{room}"), make, |buffer| {
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
        let template = segment(is_ipv4, ACK);
        let replies = RefCell::new(Vec::new());
        let make = || {
            let control = control(is_ipv4, Forward::Nat, is_ipv4, FLOWS_BY_WAY);
            let mut bed = bed(&template, &control, 0, FLOWS_BY_WAY);
            for first in (0..FLOWS_BY_WAY).step_by(BATCH_SIZE) {
                let mut flow = first;
                bed.batch(|buffer| {
                    let len = copy(&template, buffer);
                    set_flow(&mut buffer[..len], flow % FLOWS_BY_WAY);
                    flow += 1;
                    len
                });
                let sent = bed.buffers.iter().map(|buffer| turned_around(&buffer[..template.len()]));
                replies.borrow_mut().extend(sent);
            }
            bed
        };
        let mut random = Random::new(1);
        let version = if is_ipv4 { "nat/ipv4" } else { "nat/ipv6" };
        measure(&mut group, version.to_owned(), make, |buffer| {
            copy(random.of::<Vec<u8>>(&replies.borrow()), buffer)
        });
    }
    group.finish();
}

criterion_group!(benches, ways, replies, flows);
