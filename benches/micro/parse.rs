//! What parsing a packet costs, by kind of packet: ours, and etherparse beside it.
//!
//! Each kind goes round in a few hundred packets with different addresses, ports and lengths; numbers are a packet.

use std::hint::black_box;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group};
use etherparse::{PacketBuilder, SlicedPacket};
use xfwd::packet::parse;
use xfwd::stages::filter::Facts;

use crate::support::packets::{self, Random};

const PACKETS: usize = 512;

fn kinds() -> Vec<(&'static str, Vec<Vec<u8>>)> {
    let mut random = Random::new(1);
    let mut made = |make: &dyn Fn(&mut Random) -> Vec<u8>| (0..PACKETS).map(|_| make(&mut random)).collect();
    let payload = |random: &mut Random| vec![0; random.below(200)];
    macro_rules! built {
        ($random:ident, $step:expr) => {{
            let (step, payload, mut bytes) = ($step, payload($random), Vec::new());
            step.write(&mut bytes, &payload).unwrap();
            bytes
        }};
    }
    fn v4(random: &mut Random) -> etherparse::PacketBuilderStep<etherparse::IpHeaders> {
        let src = (random.u64() as u32).to_be_bytes();
        PacketBuilder::ethernet2([2; 6], [4; 6]).ipv4(src, [198, 18, 10, 1], 64)
    }
    vec![
        ("tcp-ipv4", made(&|random| built!(random, v4(random).tcp(random.u16(), 80, 1, 1024)))),
        ("udp-ipv4", made(&|random| built!(random, v4(random).udp(random.u16(), 53)))),
        (
            "udp-ipv6",
            made(&|random| {
                let ip = PacketBuilder::ethernet2([2; 6], [4; 6]).ipv6([random.byte(); 16], [1; 16], 64);
                built!(random, ip.udp(random.u16(), 53))
            }),
        ),
        (
            "tcp-vlan",
            made(&|random| {
                let vlan = random.u16() % 4095;
                let ethernet = PacketBuilder::ethernet2([2; 6], [4; 6]).single_vlan(vlan.try_into().unwrap());
                built!(
                    random,
                    ethernet.ipv4([10, 0, 0, 1], [198, 18, 10, 1], 64).tcp(random.u16(), 80, 1, 1024)
                )
            }),
        ),
        ("mixed", (0..PACKETS as u64).map(packets::well_formed).collect()),
        ("damaged", (0..PACKETS as u64).map(packets::packet).collect()),
    ]
}

fn parsing(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("parse");
    group.sample_size(30).warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1));
    group.throughput(Throughput::Elements(PACKETS as u64));
    for (kind, packets) in kinds() {
        group.bench_function(BenchmarkId::new("xfwd", kind), |bencher| {
            bencher.iter(|| {
                for packet in &packets {
                    black_box(parse(packet, packet.len()));
                }
            });
        });
        group.bench_function(BenchmarkId::new("xfwd-and-facts", kind), |bencher| {
            bencher.iter(|| {
                for packet in &packets {
                    black_box(Facts::of(packet, &parse(packet, packet.len())));
                }
            });
        });
        group.bench_function(BenchmarkId::new("etherparse", kind), |bencher| {
            bencher.iter(|| {
                for packet in &packets {
                    black_box(SlicedPacket::from_ethernet(packet).is_ok());
                }
            });
        });
    }
    group.finish();
}

criterion_group!(benches, parsing);
