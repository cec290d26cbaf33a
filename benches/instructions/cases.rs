//! What is counted.

use std::hint::black_box;
use std::time::Instant;

use xfwd::packet::checksum::Sum;
use xfwd::packet::parse;
use xfwd::pipeline::{BATCH_SIZE, Batch, Stage};
use xfwd::stages::balance::Forward;
use xfwd::stages::bounce::{Bounce, Layer};
use xfwd::stages::filter::FilterControl;

use crate::bed::{StageBed, WorkerBed};
use crate::support::packets;
use crate::traffic::{ACK, clients, control, copy, rules, segment, set_client, set_flow};

/// Batches that are counted: enough for what happens now and then, such as publishing counters, to be in it.
const BATCHES: usize = 128;
const FLOWS: usize = 2_048;
const ROOM: usize = 64;

/// A case, and the packets (for `checksum`: the calls) that its instructions are divided by.
pub struct Case {
    pub name: &'static str,
    pub packets: usize,
    run: fn(),
}

const PACKETS: usize = BATCHES * BATCH_SIZE;

/// All cases.
pub const CASES: &[Case] = &[
    Case { name: "parse/tcp-ipv4", packets: PACKETS, run: || parsing(&[segment(true, ACK)]) },
    Case { name: "parse/mixed", packets: PACKETS, run: || parsing(&mixed()) },
    Case { name: "checksum/1500", packets: BATCHES, run: checksum },
    Case { name: "balance/dsr/ipv4", packets: PACKETS, run: || balance(true, Forward::Dsr) },
    Case { name: "balance/dsr/ipv6", packets: PACKETS, run: || balance(false, Forward::Dsr) },
    Case { name: "balance/ipip/4in4", packets: PACKETS, run: || balance(true, Forward::Ipip) },
    Case { name: "balance/gue/6in6", packets: PACKETS, run: || balance(false, Forward::Gue) },
    Case { name: "balance/nat/ipv4", packets: PACKETS, run: || balance(true, Forward::Nat) },
    Case { name: "balance/new-flows", packets: PACKETS, run: new_flows },
    Case { name: "pipeline/bounce", packets: PACKETS, run: || pipeline(false, false) },
    Case { name: "pipeline/filter", packets: PACKETS, run: || pipeline(true, false) },
    Case { name: "pipeline/balance", packets: PACKETS, run: || pipeline(false, true) },
    Case { name: "pipeline/filter-balance", packets: PACKETS, run: || pipeline(true, true) },
];

/// Runs the case of this name.
pub fn run_case(name: &str) {
    let case = CASES.iter().find(|case| case.name == name).expect("the name of a case");
    (case.run)();
}

/// A stage for which time stands still: what it does by the clock, such as sweeping its tables, would depend on how fast callgrind is here.
struct Still<S> {
    stage: S,
    now: Instant,
}

impl<S> Still<S> {
    fn new(stage: S) -> Self {
        Self { stage, now: Instant::now() }
    }
}

impl<S: Stage> Stage for Still<S> {
    fn name(&self) -> &str {
        self.stage.name()
    }
    fn process(&mut self, batch: &mut Batch<'_>) {
        batch.set_now(self.now);
        self.stage.process(batch);
    }
    fn reads_headers(&self) -> bool {
        self.stage.reads_headers()
    }
    fn housekeeping(&mut self) {
        self.stage.housekeeping();
    }
}

fn mixed() -> Vec<Vec<u8>> {
    (0..64).map(packets::well_formed).collect()
}

/// What is called so is counted.
#[inline(never)]
fn run(counted: impl FnOnce()) {
    counted();
}

fn parsing(packets: &[Vec<u8>]) {
    run(|| {
        for packet in packets.iter().cycle().take(PACKETS) {
            black_box(parse(packet, packet.len()));
        }
    });
}

fn checksum() {
    let data = [7; 1_500];
    run(|| {
        for _ in 0..BATCHES {
            black_box(Sum::new().bytes(black_box(&data)).checksum());
        }
    });
}

/// Established flows.
fn balance(is_ipv4: bool, forward: Forward) {
    let template = segment(is_ipv4, ACK);
    let room = if forward.is_tunnel() { ROOM } else { 0 };
    let mut bed = StageBed::new(Still::new(control(is_ipv4, forward, is_ipv4, FLOWS).stage(0)), room);
    let mut flow = 0;
    let mut next = |buffer: &mut [u8]| {
        let len = copy(&template, buffer);
        set_flow(&mut buffer[..len], flow % FLOWS);
        flow += 1;
        len
    };
    for _ in 0..2 * FLOWS / BATCH_SIZE {
        bed.prepare(&mut next);
    }
    for _ in 0..BATCHES {
        bed.batch(&mut next);
    }
}

/// Each packet begins a flow.
fn new_flows() {
    let template = segment(true, ACK);
    let mut bed = StageBed::new(Still::new(control(true, Forward::Dsr, true, 2 * PACKETS).stage(0)), 0);
    let mut flow = 0;
    for _ in 0..BATCHES {
        bed.batch(|buffer| {
            let len = copy(&template, buffer);
            set_flow(&mut buffer[..len], flow);
            flow += 1;
            len
        });
    }
}

/// A worker's turns, with established flows.
fn pipeline(with_filter: bool, with_balance: bool) {
    let rules = rules(1_000);
    let clients = clients(&rules, FLOWS);
    let filter = || FilterControl::new(rules.clone()).stage();
    let bounce = || Bounce::new(Layer::L2);
    let balance = || control(true, Forward::Dsr, true, FLOWS).stage(0);
    match (with_filter, with_balance) {
        (false, false) => turns(bounce(), &clients),
        (true, false) => turns((filter(), bounce()), &clients),
        (false, true) => turns(balance(), &clients),
        (true, true) => turns((filter(), balance()), &clients),
    }
}

fn turns(stage: impl Stage, clients: &[(u32, u16)]) {
    let mut bed = WorkerBed::new(Still::new(stage));
    let template = segment(true, ACK);
    let mut all = clients.iter().cycle();
    let mut next = |buffer: &mut [u8]| {
        let len = copy(&template, buffer);
        set_client(buffer, *all.next().unwrap());
        len
    };
    for _ in 0..2 * FLOWS / BATCH_SIZE {
        bed.prepare(&mut next);
    }
    for _ in 0..BATCHES {
        bed.turn(&mut next);
    }
}
