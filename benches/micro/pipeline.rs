//! A worker's whole turn on a memory port: receive, parse, stages, send. The filter has 1,000 rules, the balancer established flows that come
//! in random order (`dsr`, a hundred backends); with both, the filter lets pass what is for the service.
//!
//! * `bounce`: the framework with next to nothing in it.
//! * `filter/RULES`, `balance/FLOWS`: each alone. Behind the filter packets are bounced.
//! * `filter-balance/RULES/FLOWS`: both, chained at compile time; `boxed`: as a config makes them.

use std::cell::OnceCell;
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group};
use xfwd::pipeline::{BATCH_SIZE, Pipeline, Stage};
use xfwd::stages::balance::{Balance, Forward};
use xfwd::stages::bounce::{Bounce, Layer};
use xfwd::stages::filter::{Filter, FilterControl, Rule};

use crate::bed::WorkerBed;
use crate::support::packets::Random;
use crate::traffic::{ACK, clients, control, copy, rules, segment, set_client};

const RULES: usize = 1_000;
const FLOWS: usize = 1_000_000;

/// What measurements share; made when the first of them is asked for.
struct Traffic {
    rules: Vec<Rule>,
    clients: Vec<(u32, u16)>,
}

impl Traffic {
    fn new() -> Self {
        let rules = rules(RULES);
        Self { clients: clients(&rules, FLOWS), rules }
    }

    fn filter(&self) -> Filter {
        FilterControl::new(self.rules.clone()).stage()
    }

    /// A worker for which so many clients have sent two packets.
    fn bed<S: Stage>(&self, stage: S, flows: usize) -> WorkerBed<S> {
        let mut bed = WorkerBed::new(stage);
        let template = segment(true, ACK);
        for _ in 0..2 {
            let mut all = self.clients[..flows].iter().cycle();
            for _ in 0..flows.div_ceil(BATCH_SIZE) {
                bed.turn(|buffer| write(&template, buffer, *all.next().unwrap()));
            }
        }
        bed
    }
}

fn write(template: &[u8], buffer: &mut [u8], client: (u32, u16)) -> usize {
    let len = copy(template, buffer);
    set_client(buffer, client);
    len
}

/// Measures turns with packets of so many clients in random order.
fn measure<S: Stage>(
    criterion: &mut Criterion,
    name: &str,
    traffic: &OnceCell<Traffic>,
    flows: usize,
    stage: impl Fn(&Traffic) -> S,
) {
    let mut bed = None;
    let mut random = Random::new(1);
    let template = segment(true, ACK);
    let mut group = criterion.benchmark_group("pipeline");
    group.sample_size(20).warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1));
    group.throughput(Throughput::Elements(BATCH_SIZE as u64));
    group.bench_function(name, |bencher| {
        let traffic = traffic.get_or_init(Traffic::new);
        let bed = bed.get_or_insert_with(|| traffic.bed(stage(traffic), flows));
        let clients = &traffic.clients[..flows];
        bencher.iter_custom(|turns| {
            (0..turns).map(|_| bed.turn(|buffer| write(&template, buffer, *random.of(clients)))).sum()
        });
    });
    group.finish();
}

fn balance(flows: usize) -> Balance {
    control(true, Forward::Dsr, true, flows).stage(0)
}

fn pipeline(criterion: &mut Criterion) {
    let traffic = OnceCell::new();
    let bounce = || Bounce::new(Layer::L2);
    measure(criterion, "bounce", &traffic, 1, |_| bounce());
    measure(criterion, "filter/1000", &traffic, FLOWS, |traffic| (traffic.filter(), bounce()));
    for (name, flows) in [("balance/1", 1), ("balance/10000", 10_000), ("balance/1000000", FLOWS)] {
        measure(criterion, name, &traffic, flows, |_| balance(flows));
    }
    for (name, flows) in [("filter-balance/1000/10000", 10_000), ("filter-balance/1000/1000000", FLOWS)] {
        measure(criterion, name, &traffic, flows, |traffic| (traffic.filter(), balance(flows)));
    }
    measure(criterion, "filter-balance/1000/1000000/boxed", &traffic, FLOWS, |traffic| {
        let mut boxed = Pipeline::new();
        boxed.push(Box::new(traffic.filter()));
        boxed.push(Box::new(balance(FLOWS)));
        boxed
    });
}

criterion_group!(benches, pipeline);
