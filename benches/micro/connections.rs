//! What a lookup in the connection table costs with 1 to 10 million flows, that are asked for in random order: one after
//! the other, and as a stage does it, a batch of 64 of which all are prefetched before the first is looked up. Beside it, what a new flow
//! costs in a table that a SYN flood has filled.
//!
//! Numbers are a packet (throughput is in packets). The table has room for twice the flows; 10 million take 320 MB.

use std::hint::black_box;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group};
use xfwd::pipeline::BATCH_SIZE;
use xfwd::stages::balance::connections::{ConnectionTable, Event, Insertion, Tick, Timeouts};

use crate::support::packets::Random;

const FLOWS: [u64; 4] = [1, 10_000, 1_000_000, 10_000_000];
/// Packets of a round: of so many flows that their buckets do not stay in the cache. They are read in order, which costs little.
const PACKETS: usize = 1 << 20;

/// The key of a flow: as evenly spread as a hash.
fn key(flow: u64) -> u64 {
    Random::new(flow).u64()
}

fn now() -> Tick {
    Tick::from_number(1)
}

/// A table with this many established flows.
fn table(flows: u64) -> ConnectionTable {
    let mut table = ConnectionTable::new(2 * flows as usize, Timeouts::default());
    for flow in 0..flows {
        assert!(matches!(table.insert(key(flow), flow as u32, now(), Event::Syn), Insertion::Stored { .. }));
        assert!(table.find(key(flow), now(), Event::Data).is_some());
    }
    table
}

fn lookup(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("connections");
    group.sample_size(20).warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(2));
    group.throughput(Throughput::Elements(PACKETS as u64));
    for flows in FLOWS {
        let mut table = table(flows);
        let mut random = Random::new(3);
        let packets: Vec<u64> = (0..PACKETS).map(|_| key(random.below(flows as usize) as u64)).collect();
        group.bench_function(BenchmarkId::new("single", flows), |bencher| {
            bencher.iter(|| {
                // Each lookup waits for the one before, as if there were work on the packet in between.
                packets.iter().fold(0, |last, &key| {
                    let found = table.find(key ^ (black_box(last) >> 32), now(), Event::Data);
                    found.map_or(0, |found| u64::from(found.value))
                })
            });
        });
        group.bench_function(BenchmarkId::new("batch", flows), |bencher| {
            bencher.iter(|| {
                for batch in packets.chunks(BATCH_SIZE) {
                    batch.iter().for_each(|&key| table.prefetch(key));
                    for &key in batch {
                        black_box(table.find(key, now(), Event::Data));
                    }
                }
            });
        });
        // A flow that is not there: both buckets are read.
        group.bench_function(BenchmarkId::new("batch-missing", flows), |bencher| {
            bencher.iter(|| {
                for batch in packets.chunks(BATCH_SIZE) {
                    batch.iter().for_each(|&key| table.prefetch(!key));
                    for &key in batch {
                        black_box(table.find(!key, now(), Event::Data));
                    }
                }
            });
        });
    }
    group.finish();
}

/// A packet of a SYN flood: not found, and stored in the place of another.
fn flood(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("connections-flood");
    group.sample_size(20).warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(2));
    group.throughput(Throughput::Elements(PACKETS as u64));
    for flows in [10_000, 1_000_000] {
        let mut table = table(flows);
        let mut random = Random::new(5);
        for _ in 0..10 * flows {
            table.insert(random.u64(), 0, now(), Event::Syn);
        }
        group.bench_function(BenchmarkId::new("batch", flows), |bencher| {
            bencher.iter(|| {
                let mut batch = [0; BATCH_SIZE];
                for _ in 0..PACKETS / BATCH_SIZE {
                    batch.fill_with(|| random.u64());
                    batch.iter().for_each(|&key| table.prefetch(key));
                    for key in batch {
                        if table.find(key, now(), Event::Syn).is_none() {
                            black_box(table.insert(key, 0, now(), Event::Syn));
                        }
                    }
                }
            });
        });
    }
    group.finish();
}

criterion_group!(benches, lookup, flood);
