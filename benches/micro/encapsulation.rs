//! Putting a packet into a tunnel, with room in front for the outer headers: the packet is not moved. Over IPv6 GUE needs the sum over the
//! inner packet, which its headers tell (`way/inner_sum.rs`).

use std::hint::black_box;
use std::net::IpAddr;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group};
use xfwd::packet::MacAddress;
use xfwd::pipeline::{BATCH_SIZE, Batch, Span, Verdict};
use xfwd::stages::balance::way::{Identification, LinkHeader, Tunnel, TunnelKind};

use crate::traffic::segment;

const ROOM: usize = 64;
const BUFFER: usize = 4_096;

fn encapsulation(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("encapsulation");
    group.sample_size(20).warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1));
    group.throughput(Throughput::Elements(BATCH_SIZE as u64));
    let link = LinkHeader { source: MacAddress([2; 6]), destination: MacAddress([4; 6]), vlan: None };
    let ends = [["198.18.0.2", "198.18.1.1"], ["2001:db8::2", "2001:db8:1::1"]];
    for (kind, name) in [(TunnelKind::Ipip, "ipip"), (TunnelKind::Gue { port: 6_080 }, "gue")] {
        for (ends, version) in ends.iter().zip([4, 6]) {
            let [from, to] = ends.map(|end| end.parse::<IpAddr>().unwrap());
            let tunnel = Tunnel::new(kind, from, to).unwrap();
            for payload in [6, 1_400] {
                let packet = segment(true, &vec![0; payload]);
                let mut buffers = vec![vec![0; BUFFER]; BATCH_SIZE];
                buffers.iter_mut().for_each(|buffer| buffer[ROOM..][..packet.len()].copy_from_slice(&packet));
                let mut identification = Identification::new(0, 1);
                group.bench_function(
                    BenchmarkId::new(format!("{name}/4in{version}"), packet.len()),
                    |bencher| {
                        bencher.iter_custom(|batches| {
                            let mut time = Duration::ZERO;
                            for _ in 0..batches {
                                let mut batch = Batch::new(0);
                                for buffer in &mut buffers {
                                    let span = Span { start: ROOM, end: ROOM + packet.len() };
                                    batch.push_at(buffer, span, packet.len() as u32);
                                }
                                batch.parse();
                                let start = std::time::Instant::now();
                                batch.each_undecided(|packet| {
                                    let hash = black_box(7);
                                    let done = tunnel.encapsulate(packet, &link, hash, &mut identification);
                                    if done.is_ok() { Verdict::Bounce } else { Verdict::Continue }
                                });
                                time += start.elapsed();
                                assert_eq!(batch.undecided().len(), 0);
                            }
                            time
                        });
                    },
                );
            }
        }
    }
    group.finish();
}

criterion_group!(benches, encapsulation);
