//! How long it takes to build a Maglev table of 1,000 backends, in the two sizes of the paper's section 5.3, and what a lookup costs.

use std::hint::black_box;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group};
use xfwd::stages::balance::maglev::Table;

use crate::support::packets::Random;

const BACKENDS: u16 = 1_000;
const SIZES: [u32; 2] = [65_537, 655_373];
const LOOKUPS: usize = 16_384;

/// Addresses with weight 1, or with weights from 1 to 100.
fn backends(weighted: bool) -> Vec<([u8; 4], u32)> {
    let mut random = Random::new(1);
    let mut weight = || if weighted { random.between(1, 100) as u32 } else { 1 };
    (0..BACKENDS).map(|index| ([198, 18, (index >> 8) as u8, index as u8], weight())).collect()
}

fn build(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("maglev-build");
    group.sample_size(20).warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(2));
    for (kind, weighted) in [("equal", false), ("weighted", true)] {
        let backends = backends(weighted);
        for size in SIZES {
            group.bench_function(BenchmarkId::new(kind, size), |bencher| {
                bencher.iter(|| Table::build(black_box(&backends), size).unwrap());
            });
        }
    }
    group.finish();
}

fn lookup(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("maglev-lookup");
    group.sample_size(20).warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1));
    group.throughput(Throughput::Elements(LOOKUPS as u64));
    let mut random = Random::new(2);
    let hashes: Vec<u64> = (0..LOOKUPS).map(|_| random.u64()).collect();
    for size in SIZES {
        let table = Table::build(&backends(false), size).unwrap();
        group.bench_function(BenchmarkId::from_parameter(size), |bencher| {
            bencher.iter(|| hashes.iter().fold(0, |sum, &hash| sum + u64::from(table.lookup(hash))));
        });
    }
    group.finish();
}

criterion_group!(benches, build, lookup);
