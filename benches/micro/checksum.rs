//! The internet checksum: over whole packets, and updated when an address and a port change.

use std::hint::black_box;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group};
use xfwd::packet::checksum::{Delta, Sum};

fn checksum(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("checksum");
    group.sample_size(20).warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1));
    group.throughput(Throughput::Elements(1));
    for bytes in [20, 64, 512, 1_500, 9_000] {
        let data: Vec<u8> = (0..bytes).map(|index| index as u8).collect();
        group.bench_function(BenchmarkId::new("full", bytes), |bencher| {
            bencher.iter(|| Sum::new().bytes(black_box(&data)).checksum());
        });
    }
    group.bench_function("update", |bencher| {
        bencher.iter(|| {
            let (old, new) = black_box((0x0a00_0001, 0xc612_0001));
            Delta::new().u32(old, new).u16(black_box(80), black_box(8080)).apply(black_box(0x1234))
        });
    });
    group.finish();
}

criterion_group!(benches, checksum);
