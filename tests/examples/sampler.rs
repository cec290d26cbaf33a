//! `sampler`, whose datagrams are read by a collector and judged by Wireshark's dissector.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use etherparse::PacketBuilder;
use xfwd_netns::dissect::assert_frames_well_formed;
use xfwd_netns::topology::{self, INTERFACE, Pair, host_v4};
use xfwd_netns::trafficgen::{Amount, Counter, CounterOptions, CounterVerdict, Generator, Traffic};
use xfwd_netns::{Captured, commands_or_skip, lab_or_skip};

use crate::client;
use crate::example::Example;

const SFLOW: u16 = 6_343;
const ELSEWHERE: Ipv4Addr = host_v4(99);
/// Of the generated packets, without frame check sequence.
const FRAME_BYTES: usize = 300;

/// A run of `sampler` while packets are sent, and what the collector has got of it.
struct Run {
    datagrams: Vec<Vec<u8>>,
    sent: u64,
    returned: u64,
    seen: u64,
    sampled: u64,
    lost: u64,
}

fn run(rate: u32, packets: u64, pps: Option<u64>) -> Run {
    let pair = topology::pair(1).unwrap();
    for host in [&pair.generator, &pair.subject] {
        host.sysctl(&format!("net.ipv6.conf.{INTERFACE}.disable_ipv6"), "1").unwrap();
    }
    let collector = SocketAddr::new(host_v4(Pair::GENERATOR).into(), SFLOW);
    let socket = pair.generator.run(|| UdpSocket::bind(collector)).unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
    let (rate, to) = (rate.to_string(), collector.to_string());
    let sampler = Example::start(&pair.subject, "sampler", &[INTERFACE, &rate, "1", &to], "sampling");
    let traffic = Traffic {
        destination_mac: pair.subject.mac(INTERFACE).unwrap(),
        flows: 1_000,
        frame_length: FRAME_BYTES,
        rate_pps: pps,
        ..Traffic::udp("198.18.128.10".parse().unwrap(), ELSEWHERE.into(), 9)
    };
    let stopped = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let (mut datagrams, mut buffer) = (Vec::new(), [0; 2_048]);
            loop {
                match socket.recv(&mut buffer) {
                    Ok(length) => datagrams.push(buffer[..length].to_vec()),
                    // Whatever was sent is in the socket's buffer when the sampler has ended.
                    Err(_) if stopped.load(Relaxed) => return datagrams,
                    Err(_) => {}
                }
            }
        });
        let (sent, returned) = pair.generator.run(|| {
            let options = CounterOptions { verdict: CounterVerdict::Pass, ..CounterOptions::default() };
            let counter = Counter::attach(INTERFACE, &options).unwrap();
            let mut generator = Generator::new(INTERFACE, &traffic).unwrap();
            let sent = generator.run(Amount::Packets(packets)).unwrap();
            (sent.packets - sent.refused.unwrap(), counter)
        });
        let said = sampler.stop();
        stopped.store(true, Relaxed);
        let datagrams = reader.join().unwrap();
        let returned = returned.read().unwrap().total();
        let numbers: Vec<u64> = said.split(' ').filter_map(|word| word.parse().ok()).collect();
        let [seen, sampled, lost] = numbers[..] else { panic!("{said}") };
        Run { datagrams, sent, returned: returned.ours, seen, sampled, lost }
    })
}

impl Run {
    /// The datagrams as frames, for the dissector.
    fn frames(&self) -> Vec<Captured> {
        let frame = |datagram: &Vec<u8>| {
            let builder = PacketBuilder::ethernet2([2; 6], [4; 6]).ipv4([198, 18, 0, 2], [198, 18, 0, 1], 64);
            let mut bytes = Vec::new();
            builder.udp(40_000, SFLOW).write(&mut bytes, datagram).unwrap();
            Captured { bytes, partial_checksum: false }
        };
        self.datagrams.iter().map(frame).collect()
    }
}

#[test]
fn sampler_reports_one_packet_in_n_and_leaves_all_of_them_on_their_way() {
    const RATE: u32 = 50;
    const PACKETS: u64 = 40_000;
    lab_or_skip!();
    commands_or_skip!("tshark");
    let run = run(RATE, PACKETS, Some(20_000));
    assert_eq!((run.sent, run.seen, run.lost), (PACKETS, PACKETS, 0));
    assert_eq!(run.returned, PACKETS, "the bouncer behind it has got every packet");

    // The number of samples has a variance of n/3N: see the example. Six times the deviation is one failure in 10^9.
    let (expected, rate) = (PACKETS as f64 / f64::from(RATE), f64::from(RATE));
    let bound = 6.0 * (expected / 3.0).sqrt();
    assert!((run.sampled as f64 - expected).abs() < bound, "{} samples, not {expected}", run.sampled);

    let dissected = assert_frames_well_formed(&run.frames());
    let all = |name: &str| -> Vec<u64> {
        let fields = dissected.packets.iter().flat_map(|packet| packet.fields(name));
        fields.map(|number| number.parse().unwrap()).collect()
    };
    let datagrams = run.datagrams.len() as u64;
    assert_eq!(all("sflow_245.version"), vec![5; datagrams as usize]);
    assert_eq!(all("sflow_245.sequence_number"), (1..=datagrams).collect::<Vec<_>>());
    assert_eq!(all("sflow_245.numsamples").iter().sum::<u64>(), run.sampled);
    let samples = run.sampled as usize;
    assert_eq!(all("sflow.flow_sample.sampling_rate"), vec![u64::from(RATE); samples]);
    assert_eq!(all("sflow.flow_sample.dropped_packets"), vec![0; samples]);
    // The dissector shows the samples of a datagram in no order.
    let mut pools = all("sflow.flow_sample.sample_pool");
    pools.sort_unstable();
    pools.dedup();
    assert_eq!(pools.len(), samples, "each is about another packet");
    assert!(pools.last().is_some_and(|last| PACKETS - last < 2 * u64::from(RATE)), "{:?}", pools.last());
    // What a collector makes of it.
    let estimate = rate * samples as f64;
    assert!((estimate - PACKETS as f64).abs() < bound * rate, "{estimate}");

    // With the frame check sequence, of which nobody has sent anything here.
    assert_eq!(all("sflow_245.header.frame_length"), vec![FRAME_BYTES as u64 + 4; samples]);
    let inner = |packet: &&xfwd_netns::dissect::Packet| packet.fields("ip.dst").contains(&"198.18.0.99");
    assert_eq!(dissected.packets.iter().filter(inner).count(), run.datagrams.len());
}

#[test]
fn samples_that_find_no_room_are_counted_and_no_packet_waits_for_them() {
    lab_or_skip!();
    commands_or_skip!("tshark");
    // All of many packets, faster than anybody looks for samples.
    let run = run(1, 50_000, Some(200_000));
    assert_eq!(run.seen, run.sampled + run.lost);
    assert!(run.lost > 0 && run.sampled >= 1_024, "{} sampled, {} lost", run.sampled, run.lost);
    assert_eq!(run.returned, run.seen);
    let last = run.frames().pop().unwrap();
    let dissected = assert_frames_well_formed(&[last]);
    let last = &dissected.packets[0];
    let most =
        |name: &str| last.fields(name).iter().map(|number| number.parse::<u64>().unwrap()).max().unwrap();
    let (pool, drops) = (most("sflow.flow_sample.sample_pool"), most("sflow.flow_sample.dropped_packets"));
    assert!((1..=run.lost).contains(&drops) && pool <= run.seen, "{drops} drops of {pool}");
}

#[test]
fn without_a_collector_samples_are_printed() {
    lab_or_skip!();
    let pair = topology::pair(1).unwrap();
    pair.generator.neighbour(INTERFACE, ELSEWHERE.into(), pair.subject.mac(INTERFACE).unwrap()).unwrap();
    let sampler = Example::start(&pair.subject, "sampler", &[INTERFACE, "1"], "sampling one in 1");
    let client = client(&pair.generator, host_v4(Pair::GENERATOR));
    client.send_to(b"look", (ELSEWHERE, 9)).unwrap();
    let from = client.local_addr().unwrap();
    sampler.wait_for(&format!("{from} to 198.18.0.99:9, protocol 17, 46 bytes\n"));
    sampler.stop();
}
