//! What a packet costs against lists of 10 to 100,000 rules in the manner of ClassBench: the classifier beside going
//! through the list. Facts are taken from the parsed packet each time; parsing itself is `parse`.
//!
//! Numbers are a packet (throughput is in packets). Packets go round in a trace of 16,384, so caches are warm but not for one packet.

use std::hint::black_box;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group};
use xfwd::packet::{Headers, parse};
use xfwd::stages::filter::{Classifier, Facts, Rule, linear};

use crate::support::classbench;

const SIZES: [usize; 5] = [10, 100, 1_000, 10_000, 100_000];
const TRACE: usize = 16_384;
/// Going through 100,000 rules takes a fraction of a millisecond a packet.
const LINEAR_TRACE: usize = 256;

fn parsed(rules: &[Rule], count: usize) -> Vec<(Vec<u8>, Headers)> {
    let packets = classbench::packets(rules, count, 7);
    packets.into_iter().map(|packet| (packet.clone(), parse(&packet, packet.len()))).collect()
}

fn lookup(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("filter");
    group.sample_size(20).warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2));
    for size in SIZES {
        let rules = classbench::rules(size, 42);
        let classifier = Classifier::new(&rules);
        let trace = parsed(&rules, TRACE);
        let matched = trace.iter().filter(|(bytes, headers)| {
            let facts = Facts::of(bytes, headers);
            classifier.first_match(&facts).is_some()
        });
        println!(
            "{size} rules: {} KiB, {} % of packets match",
            classifier.memory_bytes() / 1024,
            100 * matched.count() / TRACE
        );
        group.throughput(Throughput::Elements(TRACE as u64));
        group.bench_function(BenchmarkId::new("classifier", size), |bencher| {
            bencher.iter(|| {
                for (bytes, headers) in &trace {
                    black_box(classifier.first_match(&Facts::of(bytes, headers)));
                }
            });
        });
        let trace = &trace[..LINEAR_TRACE];
        group.throughput(Throughput::Elements(LINEAR_TRACE as u64));
        group.bench_function(BenchmarkId::new("linear", size), |bencher| {
            bencher.iter(|| {
                for (bytes, headers) in trace {
                    black_box(linear::first_match(&rules, &Facts::of(bytes, headers)));
                }
            });
        });
    }
    group.finish();
}

/// How long it takes to compile a list.
fn build(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("filter-build");
    group.sample_size(10).warm_up_time(Duration::from_millis(100)).measurement_time(Duration::from_secs(2));
    for size in SIZES {
        let rules = classbench::rules(size, 42);
        group.bench_function(BenchmarkId::from_parameter(size), |bencher| {
            bencher.iter(|| Classifier::new(black_box(&rules)));
        });
    }
    group.finish();
}

criterion_group!(benches, lookup, build);
