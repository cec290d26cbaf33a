//! What a packet costs against lists of 10 to 100,000 rules in the manner of ClassBench: each form of the classifier beside going
//! through the list. Facts are taken from the parsed packet each time; parsing itself is `parse`.
//!
//! Numbers are a packet (throughput is in packets). Packets go round in a trace of 16,384, so caches are warm but not for one packet.

use std::cell::OnceCell;
use std::hint::black_box;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group};
use xfwd::packet::{Headers, parse};
use xfwd::stages::filter::{Classifier, Facts, Form, Rule, linear};

use crate::support::classbench;

const SIZES: [usize; 7] = [10, 100, 1_000, 2_000, 4_000, 10_000, 100_000];
const FORMS: [(&str, Form); 2] = [("vectors", Form::Vectors), ("pairs", Form::Pairs)];
/// Vectors of more rules would take too much memory to be of use.
const MOST_IN_VECTORS: usize = 10_000;
const TRACE: usize = 16_384;
/// Going through 100,000 rules takes a fraction of a millisecond a packet.
const LINEAR_TRACE: usize = 256;

fn parsed(rules: &[Rule], count: usize) -> Vec<(Vec<u8>, Headers)> {
    let packets = classbench::packets(rules, count, 7);
    packets.into_iter().map(|packet| (packet.clone(), parse(&packet, packet.len()))).collect()
}

fn forms(size: usize) -> impl Iterator<Item = (&'static str, Form)> {
    FORMS.into_iter().filter(move |(_, form)| *form != Form::Vectors || size <= MOST_IN_VECTORS)
}

/// A list in a form; says how large it is, and which form a list of this size is compiled to if nobody asks.
fn compiled(rules: &[Rule], form: Form, trace: &[(Vec<u8>, Headers)]) -> Classifier {
    let classifier = Classifier::with_form(rules, form);
    let matched =
        trace.iter().filter(|(bytes, headers)| classifier.first_match(&Facts::of(bytes, headers)).is_some());
    println!(
        "{} rules, {:?} (by itself {:?}): {} KiB, {} % of packets match",
        rules.len(),
        classifier.form(),
        Classifier::new(rules).form(),
        classifier.memory_bytes() / 1024,
        100 * matched.count() / trace.len()
    );
    classifier
}

fn lookup(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("filter");
    group.sample_size(20).warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2));
    for size in SIZES {
        let rules = classbench::rules(size, 42);
        let trace = parsed(&rules, TRACE);
        group.throughput(Throughput::Elements(TRACE as u64));
        for (name, form) in forms(size) {
            let classifier = OnceCell::new();
            group.bench_function(BenchmarkId::new(name, size), |bencher| {
                let classifier = classifier.get_or_init(|| compiled(&rules, form, &trace));
                bencher.iter(|| {
                    for (bytes, headers) in &trace {
                        black_box(classifier.first_match(&Facts::of(bytes, headers)));
                    }
                });
            });
        }
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
        for (name, form) in forms(size) {
            group.bench_function(BenchmarkId::new(name, size), |bencher| {
                bencher.iter(|| Classifier::with_form(black_box(&rules), form));
            });
        }
    }
    group.finish();
}

criterion_group!(benches, lookup, build);
