//! `xfwd replay` and `xfwd trace`, and the library behind them: formats, damaged captures, time, words.
#![allow(missing_docs, clippy::unwrap_used)]

use std::fs;
use std::io::{self, Read, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;
use xfwd::testing::packets as generated;

use proptest::prelude::*;
use serde_json::Value;
use xfwd::config;
use xfwd::offline::{
    Capture, CaptureError, Frame, Offline, Options, PcapWriter, Place, RunError, Summary, Verdict,
};

/// A packet as a capture has it: time, bytes, length.
type Captured = (Duration, Vec<u8>, u32);

/// Reads to the end, or to the first error.
fn read(capture: &[u8]) -> (Vec<Captured>, Option<CaptureError>) {
    let mut packets = Vec::new();
    let mut capture = match Capture::open(capture) {
        Ok(capture) => capture,
        Err(error) => return (packets, Some(error)),
    };
    let mut frame = Frame::default();
    loop {
        match capture.read(&mut frame) {
            Ok(true) => packets.push((frame.time(), frame.bytes().to_vec(), frame.len())),
            Ok(false) => return (packets, None),
            Err(error) => return (packets, Some(error)),
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Order(bool);

impl Order {
    fn u16(self, number: u16) -> [u8; 2] {
        if self.0 { number.to_be_bytes() } else { number.to_le_bytes() }
    }

    fn u32(self, number: u32) -> [u8; 4] {
        if self.0 { number.to_be_bytes() } else { number.to_le_bytes() }
    }

    fn words(self, words: &[u32]) -> Vec<u8> {
        words.iter().flat_map(|word| self.u32(*word)).collect()
    }

    /// A pcap file; fractions of seconds as they are.
    fn pcap(self, magic: u32, link_type: u32, packets: &[(u32, u32, Vec<u8>, u32)]) -> Vec<u8> {
        let mut file = self.words(&[magic]);
        file.extend(self.u16(2));
        file.extend(self.u16(4));
        file.extend(self.words(&[0, 0, 65_535, link_type]));
        for (seconds, fraction, bytes, len) in packets {
            file.extend(self.words(&[*seconds, *fraction, bytes.len() as u32, *len]));
            file.extend(bytes);
        }
        file
    }

    /// A block of pcapng.
    fn block(self, kind: u32, content: &[u8]) -> Vec<u8> {
        let mut content = content.to_vec();
        content.resize(content.len().next_multiple_of(4), 0);
        let length = content.len() as u32 + 12;
        [self.words(&[kind, length]), content, self.words(&[length])].concat()
    }

    fn section(self) -> Vec<u8> {
        let mut content = self.words(&[0x1a2b_3c4d]);
        content.extend(self.u16(1));
        content.extend(self.u16(0));
        content.extend([0xff; 8]);
        self.block(0x0a0d_0d0a, &content)
    }

    /// With a time resolution, and an offset in seconds.
    fn interface(self, link_type: u16, resolution: u8, offset: i64) -> Vec<u8> {
        let mut content = [self.u16(link_type), self.u16(0)].concat();
        content.extend(self.u32(100));
        content.extend([self.u16(9), self.u16(1)].concat());
        content.extend([resolution, 0, 0, 0]);
        content.extend([self.u16(14), self.u16(8)].concat());
        content.extend(if self.0 { offset.to_be_bytes() } else { offset.to_le_bytes() });
        content.extend([0; 4]);
        self.block(1, &content)
    }

    fn enhanced(self, interface: u32, ticks: u64, bytes: &[u8], len: u32) -> Vec<u8> {
        let words = [interface, (ticks >> 32) as u32, ticks as u32, bytes.len() as u32, len];
        self.block(6, &[&self.words(&words), bytes].concat())
    }

    fn simple(self, bytes: &[u8], len: u32) -> Vec<u8> {
        self.block(3, &[&self.words(&[len]), bytes].concat())
    }
}

const ORDERS: [Order; 2] = [Order(false), Order(true)];
const MICROSECONDS: u32 = 0xa1b2_c3d4;
const NANOSECONDS: u32 = 0xa1b2_3c4d;

fn nanoseconds(seconds: u64, nanoseconds: u32) -> Duration {
    Duration::new(seconds, nanoseconds)
}

#[test]
fn pcap_is_read_in_both_byte_orders_and_resolutions() {
    for order in ORDERS {
        for (magic, fraction) in [(MICROSECONDS, 1_500_000), (NANOSECONDS, 1_500)] {
            let packets = [(7, 1_500, vec![1; 61], 61), (8, 0, vec![2; 40], 1_514), (9, 0, vec![], 60)];
            let (read, error) = read(&order.pcap(magic, 1, &packets));
            assert!(error.is_none(), "{error:?}");
            let expected = [
                (nanoseconds(7, fraction), vec![1; 61], 61),
                (nanoseconds(8, 0), vec![2; 40], 1_514),
                (nanoseconds(9, 0), vec![], 60),
            ];
            assert_eq!(read, expected);
        }
    }
}

#[test]
fn pcapng_is_read_in_both_byte_orders_with_sections_interfaces_and_resolutions() {
    for order in ORDERS {
        let other = Order(!order.0);
        let file = [
            order.section(),
            order.interface(1, 6, 0),
            order.interface(1, 9, 100),
            // 2 to the power of -10 seconds.
            order.interface(1, 0x8a, 0),
            order.block(0x0bad, b"something unknown"),
            order.enhanced(0, 7_000_001, &[1; 61], 61),
            order.enhanced(1, 7_000_000_001, &[2; 62], 1_514),
            order.enhanced(2, 1_024 + 512, &[3; 63], 63),
            order.simple(&[4; 61], 61),
            // More than the snapshot length of the first interface.
            order.simple(&[5; 100], 300),
            other.section(),
            other.interface(1, 6, 0),
            other.enhanced(0, 1, &[6; 60], 60),
        ]
        .concat();
        let (read, error) = read(&file);
        assert!(error.is_none(), "{error:?}");
        let last = nanoseconds(1, 500_000_000);
        let expected = [
            (nanoseconds(7, 1_000), vec![1; 61], 61),
            (nanoseconds(107, 1), vec![2; 62], 1_514),
            (last, vec![3; 63], 63),
            (last, vec![4; 61], 61),
            (last, vec![5; 100], 300),
            (nanoseconds(0, 1_000), vec![6; 60], 60),
        ];
        assert_eq!(read, expected);
    }
}

/// Hands out a byte at a time, as the slowest of pipes.
struct Drip<'b>(&'b [u8]);

impl Read for Drip<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.0.len().min(1).min(buffer.len());
        buffer[..count].copy_from_slice(&self.0[..count]);
        self.0 = &self.0[count..];
        Ok(count)
    }
}

#[test]
fn a_capture_that_comes_byte_by_byte_is_read() {
    let order = Order(false);
    let pcap = order.pcap(MICROSECONDS, 1, &[(1, 0, vec![1; 60], 60), (1, 0, vec![2; 60], 60)]);
    let ng = [order.section(), order.interface(1, 6, 0), order.enhanced(0, 1, &[1; 61], 61)].concat();
    for (file, packets) in [(pcap, 2), (ng, 1)] {
        let mut capture = Capture::open(Drip(&file)).unwrap();
        let mut frame = Frame::default();
        for _ in 0..packets {
            assert!(capture.read(&mut frame).unwrap());
        }
        assert!(!capture.read(&mut frame).unwrap());
    }
}

#[test]
fn what_cannot_be_read_is_told() {
    let order = Order(false);
    let message = |file: &[u8]| read(file).1.map(|error| error.to_string()).unwrap_or_default();
    assert!(message(b"").contains("empty"));
    assert!(message(b"GET / HTTP/1.1\r\n\r\nand more of it").contains("neither pcap nor pcapng"));
    assert!(message(&[0x1f, 0x8b, 8, 0, 0, 0, 0, 0]).contains("gzip"));
    let cooked = message(&order.pcap(MICROSECONDS, 113, &[]));
    assert!(cooked.contains("Linux cooked capture") && cooked.contains("`any`"), "{cooked}");
    // Above the 16 bits of the link type stands the length of frame check sequences.
    assert_eq!(message(&order.pcap(MICROSECONDS, 0x5400_0001, &[])), "");

    // An interface of another kind is no matter as long as no packet is from it.
    let start = [order.section(), order.interface(113, 6, 0), order.interface(1, 6, 0)].concat();
    let fine = [start.clone(), order.enhanced(1, 1, &[1; 60], 60)].concat();
    let (packets, error) = read(&[fine, order.enhanced(0, 1, &[1; 60], 60)].concat());
    assert_eq!((packets.len(), matches!(error, Some(CaptureError::LinkType { number: 113, .. }))), (1, true));
    assert!(message(&[start, order.enhanced(2, 1, &[1; 60], 60)].concat()).contains("not described"));

    let long = order.pcap(MICROSECONDS, 1, &[(1, 0, vec![1; 60], 60), (1, 0, vec![1; 60], u32::MAX)]);
    assert_eq!(message(&long), "the capture is damaged behind packet 1: a packet of more than 16 MiB");
}

#[test]
fn a_capture_that_is_cut_short_is_read_up_to_there() {
    let order = Order(false);
    let packets: Vec<_> = (0..3).map(|number| (number, 0, vec![number as u8; 60], 60)).collect();
    let pcap = order.pcap(MICROSECONDS, 1, &packets);
    let mut ng = [order.section(), order.interface(1, 6, 0)].concat();
    let start = ng.len();
    (0..3).for_each(|number| ng.extend(order.enhanced(0, number, &[1; 60], 60)));
    for (file, start, record) in [(pcap, 24, 76), (ng, start, 92)] {
        for length in 0..=file.len() {
            let (packets, error) = read(&file[..length]);
            let whole = length.saturating_sub(start) / record;
            assert_eq!(packets.len(), whole, "{length}");
            let ends_well = length >= start && (length - start).is_multiple_of(record);
            match error {
                None => assert!(ends_well || length == 28 || length == start, "{length}"),
                Some(CaptureError::CutShort { packets }) => assert_eq!(packets, whole as u64),
                Some(CaptureError::Empty | CaptureError::NotACapture) => assert!(length < 4),
                Some(error) => panic!("{length}: {error}"),
            }
        }
    }
}

const BALANCE: &str = r#"
[[filter]]
name = "bogons"
src = ["240.0.0.0/4"]
action = "drop"

[[filter]]
name = "friend"
src = ["10.9.0.0/16"]
action = "accept"

[[filter]]
name = "limit"
protocol = "udp"
dst_port = 53
rate = "10 pps"
burst = 3
action = "drop"

[balance]
connections = 4096

[[service]]
name = "web"
vip = "198.18.10.1"
protocol = "tcp"
port = 80
forward = "dsr"
[[service.backend]]
address = "198.18.0.11"
[[service.backend]]
address = "198.18.0.12"

[[service]]
name = "dns"
vip = "198.18.10.1"
protocol = "udp"
port = 53
forward = "ipip"
[[service.backend]]
address = "198.18.0.11"
[[service.backend]]
address = "198.18.0.13"
"#;

const ALL: &str = "[dataplane]\nsteer = \"all\"\n[[filter]]\nname = \"echo\"\nprotocol = \"udp\"\naction = \"bounce\"\n\
                   [[filter]]\nname = \"seen\"\naction = \"count\"\n[bounce]\nlayer = \"l4\"\n";

const NAT: &str = r#"
[balance]
connections = 4096
[nat]
addresses = ["198.18.0.2"]
ports = "2000-2063"
[[service]]
name = "web"
vip = "198.18.10.1"
protocol = "tcp"
port = 80
forward = "nat"
[[service.backend]]
address = "198.18.0.11"
port = 8080
"#;

const CONFIGS: [&str; 3] = [BALANCE, ALL, NAT];

fn pcap(packets: &[(Duration, Vec<u8>)]) -> Vec<u8> {
    let mut writer = PcapWriter::new(Vec::new()).unwrap();
    for (time, packet) in packets {
        writer.write(*time, packet, packet.len() as u32).unwrap();
    }
    writer.finish().unwrap()
}

/// What a test looks at.
#[derive(Clone, Debug, PartialEq)]
struct Seen {
    place: Place,
    verdict: Verdict,
    reason: Option<&'static str>,
    sent: Option<(Vec<u8>, u32)>,
    by: Option<String>,
    backend: Option<String>,
    rules: Vec<usize>,
}

fn run(config: &str, capture: &[u8], explained: bool) -> (Vec<Seen>, Result<(), RunError>, Summary) {
    let plan = config::parse("test.toml", config).unwrap_or_else(|error| panic!("{error}"));
    let options = Options::default();
    let mut offline = Offline::new(&plan, &options).unwrap();
    if explained {
        offline.explain(&plan, &options);
    }
    let mut seen = Vec::new();
    let result = match Capture::open(capture) {
        Err(error) => Err(error.into()),
        Ok(mut capture) => offline.run(&mut capture, |fate| {
            assert_eq!(fate.number, seen.len() as u64 + 1);
            seen.push(Seen {
                place: fate.place,
                verdict: fate.verdict,
                reason: fate.reason,
                sent: fate.sent.map(|sent| (sent.bytes.to_vec(), sent.len)),
                by: fate.by.map(str::to_owned),
                backend: fate.backend.map(|backend| backend.to_string()),
                rules: fate.rules.to_vec(),
            });
            Ok(())
        }),
    };
    let summary = offline.summary();
    let verdicts = &summary.verdicts;
    assert_eq!(verdicts.pass + verdicts.drop + verdicts.bounce + verdicts.forward, summary.packets);
    assert_eq!(summary.packets, seen.len() as u64);
    (seen, result, summary)
}

fn udp(source: [u8; 4], port: u16, payload: &[u8]) -> Vec<u8> {
    let mut packet = Vec::new();
    etherparse::PacketBuilder::ethernet2([2, 0, 0, 0, 0, 2], [2, 0, 0, 0, 0, 1])
        .ipv4(source, [198, 18, 10, 1], 64)
        .udp(4_000, port)
        .write(&mut packet, payload)
        .unwrap();
    packet
}

fn syn(source: [u8; 4], destination: [u8; 4], ports: (u16, u16)) -> Vec<u8> {
    let mut packet = Vec::new();
    etherparse::PacketBuilder::ethernet2([2, 0, 0, 0, 0, 2], [2, 0, 0, 0, 0, 1])
        .ipv4(source, destination, 64)
        .tcp(ports.0, ports.1, 1, 1_000)
        .syn()
        .write(&mut packet, b"")
        .unwrap();
    packet
}

#[test]
fn time_is_that_of_the_capture() {
    let packet = udp([10, 0, 0, 1], 53, b"x");
    // Five at once, then one each second: three are the burst, and a second is enough for ten.
    let times = [0, 0, 0, 0, 0, 1, 2, 3];
    let packets: Vec<_> =
        times.map(|seconds| (Duration::from_secs(1_000 + seconds), packet.clone())).to_vec();
    let (seen, result, summary) = run(BALANCE, &pcap(&packets), false);
    result.unwrap();
    let dropped: Vec<bool> = seen.iter().map(|seen| seen.verdict == Verdict::Drop).collect();
    assert_eq!(dropped, [false, false, false, true, true, false, false, false]);
    assert_eq!(summary.rules[2], ("limit".to_owned(), 2));
    assert_eq!(summary.milliseconds, 3_000);
}

#[test]
fn a_trace_says_who_decided() {
    let packets = [
        syn([10, 0, 0, 1], [198, 18, 10, 1], (4_000, 80)),
        syn([10, 0, 0, 1], [198, 18, 10, 1], (4_000, 81)),
        syn([240, 0, 0, 1], [198, 18, 10, 1], (4_000, 80)),
        syn([10, 9, 0, 1], [198, 18, 10, 2], (4_000, 80)),
        udp([10, 0, 0, 1], 53, b"x"),
        udp([10, 0, 0, 1], 53, b"x"),
        // Too long for the way: its sender is told.
        udp([10, 0, 0, 1], 53, &[0; 1_470]),
        udp([10, 0, 0, 1], 53, b"x"),
    ];
    let packets: Vec<_> = packets.into_iter().map(|packet| (Duration::from_secs(1), packet)).collect();
    let (seen, result, summary) = run(BALANCE, &pcap(&packets), true);
    result.unwrap();
    let words: Vec<_> = seen
        .iter()
        .map(|seen| {
            let by = seen.by.as_deref().unwrap_or("-");
            let reason = seen.reason.unwrap_or("-");
            format!("{} {} {by} {reason}", seen.place, seen.verdict)
        })
        .collect();
    let expected = [
        "worker bounce web -",
        "kernel pass - passed-no-service",
        "kernel drop bogons dropped-rule",
        "kernel pass friend passed-no-service",
        "worker bounce dns -",
        "worker bounce dns -",
        "worker bounce dns -",
        "worker drop limit rule",
    ];
    assert_eq!(words, expected);
    let to_backends: Vec<bool> = seen.iter().map(|seen| seen.backend.is_some()).collect();
    assert_eq!(to_backends, [true, false, false, false, true, true, false, false]);
    let sent: u64 =
        summary.backends.iter().flat_map(|(_, backends)| backends).map(|(_, packets)| packets).sum();
    assert_eq!(sent, 3);
    let web = &seen[0];
    let (bytes, _) = web.sent.as_ref().unwrap();
    let last = web.backend.as_deref().unwrap().rsplit('.').next().unwrap().parse().unwrap();
    assert_eq!(bytes[..6], [6, 0, 198, 18, 0, last], "the made-up MAC address shows the backend");
}

#[test]
fn replies_of_backends_are_told_by_their_service() {
    let mut packets = vec![syn([10, 0, 0, 1], [198, 18, 10, 1], (4_000, 80))];
    // Which port the session has is random: one of these is its.
    packets.extend((2_000..2_064).map(|port| syn([198, 18, 0, 11], [198, 18, 0, 2], (8_080, port))));
    packets.extend((2_000..2_064).map(|port| syn([198, 18, 0, 12], [198, 18, 0, 2], (8_080, port))));
    let packets: Vec<_> = packets.into_iter().map(|packet| (Duration::ZERO, packet)).collect();
    let (seen, ..) = run(NAT, &pcap(&packets), true);
    let of_web =
        |seen: &&Seen| seen.by.as_deref() == Some("web") && seen.backend.as_deref() == Some("198.18.0.11");
    assert_eq!(seen.iter().filter(of_web).count(), 2, "the request and the reply");
    assert!(of_web(&&seen[0]));
    let (reply, _) = seen[1..].iter().find_map(|seen| seen.sent.clone()).unwrap();
    assert_eq!(
        reply[26..38],
        [198, 18, 10, 1, 10, 0, 0, 1, 0, 80, 0x0f, 0xa0],
        "from the service to the client"
    );
    assert_eq!(reply[..6], [2, 0, 0, 0, 0, 2], "by where the client's packet came from");
    let strangers = seen[1..].iter().filter(|seen| seen.reason == Some("no-session"));
    assert_eq!(strangers.count(), 127);
}

#[test]
fn a_snapped_packet_is_sent_as_far_as_it_goes_and_says_its_length() {
    let packet = udp([10, 0, 0, 1], 53, &[7; 900]);
    let mut writer = PcapWriter::new(Vec::new()).unwrap();
    writer.write(Duration::ZERO, &packet[..64], packet.len() as u32).unwrap();
    writer.write(Duration::ZERO, &packet[..38], packet.len() as u32).unwrap();
    let (seen, result, summary) = run(BALANCE, &writer.finish().unwrap(), false);
    result.unwrap();
    let (bytes, len) = seen[0].sent.clone().unwrap();
    assert_eq!((bytes.len(), len as usize), (64 + 20, packet.len() + 20));
    assert_eq!(bytes[46..], packet[26..64], "behind the outer header, and the hop that was taken");
    assert_eq!((seen[1].verdict, seen[1].reason), (Verdict::Pass, Some("truncated-udp")));
    assert_eq!((summary.snapped, summary.malformed, summary.bytes), (2, 1, 2 * packet.len() as u64));
}

/// Half of the generated packets go to a service.
fn generated(seeds: impl IntoIterator<Item = u64>) -> Vec<(Duration, Vec<u8>)> {
    seeds
        .into_iter()
        .map(|seed| (Duration::from_micros(seed % 1_000 * 30), generated::packet(seed)))
        .collect()
}

#[test]
fn a_trace_has_the_verdicts_and_bytes_of_a_replay() {
    for config in CONFIGS {
        let capture = pcap(&generated(0..6_000));
        let (batches, ..) = run(config, &capture, false);
        let (alone, ..) = run(config, &capture, true);
        for (number, (in_batch, mut alone)) in batches.into_iter().zip(alone).enumerate() {
            (alone.by, alone.backend, alone.rules) = (None, None, Vec::new());
            // Ports of NAT are random.
            if config != NAT {
                assert_eq!(in_batch, alone, "packet {number}");
            } else {
                assert_eq!(
                    (in_batch.verdict, in_batch.reason),
                    (alone.verdict, alone.reason),
                    "packet {number}"
                );
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 250, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_behind_a_magic_number_are_no_panic(
        start in prop::sample::select(vec![
            vec![0xd4, 0xc3, 0xb2, 0xa1, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255, 0, 0, 1, 0, 0, 0],
            vec![0xa1, 0xb2, 0x3c, 0x4d, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255, 0, 0, 0, 1],
            Order(false).section(),
            [Order(false).section(), Order(false).interface(1, 6, 0)].concat(),
            [Order(true).section(), Order(true).interface(1, 0xff, i64::MIN)].concat(),
            [Order(false).section(), Order(false).interface(1, 200, i64::MAX), Order(false).enhanced(0, u64::MAX, &[1; 60], 60)].concat(),
            Vec::new(),
        ]),
        rest in prop::collection::vec(any::<u8>(), 0..400),
        config in prop::sample::select(CONFIGS.to_vec()),
    ) {
        let _ = run(config, &[start, rest].concat(), true);
    }

    #[test]
    fn a_damaged_capture_of_odd_packets_is_no_panic(
        seeds in prop::collection::vec(any::<u64>(), 1..30),
        big_endian: bool,
        ng: bool,
        snap in prop::option::of(0..200usize),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        config in prop::sample::select(CONFIGS.to_vec()),
    ) {
        let order = Order(big_endian);
        let packets = seeds.iter().map(|seed| {
            let packet = generated::packet(*seed);
            let kept = snap.map_or(packet.len(), |snap| snap.min(packet.len()));
            ((seed >> 40) as u32, (seed >> 8) as u32, packet[..kept].to_vec(), packet.len() as u32)
        });
        let mut file = if ng {
            let mut file = [order.section(), order.interface(1, 9, -1)].concat();
            packets.for_each(|(seconds, rest, bytes, len)| {
                file.extend(order.enhanced(0, u64::from(seconds) << 32 | u64::from(rest), &bytes, len));
            });
            file
        } else {
            order.pcap(MICROSECONDS, 1, &packets.collect::<Vec<_>>())
        };
        for (place, byte) in &damage {
            let place = place.index(file.len());
            file[place] = *byte;
        }
        let (seen, result, summary) = run(config, &file, false);
        if damage.is_empty() {
            prop_assert!(result.is_ok());
            prop_assert_eq!(seen.len(), seeds.len());
            let in_file = read(&file).0;
            let malformed = in_file.iter().filter(|(_, bytes, len)| {
                xfwd::packet::parse(bytes, *len as usize).outcome().is_malformed()
            });
            prop_assert_eq!(summary.malformed, malformed.count() as u64);
        }
    }
}

/// A file of this test alone.
fn file(name: &str, content: &[u8]) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("offline-{}-{name}", std::process::id()));
    fs::write(&path, content).unwrap();
    path
}

fn xfwd(arguments: &[&str], files: &[&Path], input: &[u8]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_xfwd"));
    command.args(arguments).args(files);
    let pipes = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = pipes.spawn().unwrap();
    // One that does not read on is no matter.
    let _ = child.stdin.take().unwrap().write_all(input);
    child.wait_with_output().unwrap()
}

#[test]
fn the_commands_write_what_they_promise() {
    let config = file("words.toml", BALANCE.as_bytes());
    let mut fragment = udp([10, 0, 0, 1], 53, b"x");
    fragment[20] |= 0x20;
    let mut tagged = syn([10, 0, 0, 1], [198, 18, 10, 1], (4_000, 80));
    tagged.splice(12..12, [0x81, 0x00, 0x20, 0x07]);
    let packets = [tagged, fragment, vec![0xff; 13], udp([240, 0, 0, 1], 53, b"x")];
    let capture = pcap(&packets.map(|packet| (Duration::from_secs(5), packet)));
    let input = file("words.pcap", &capture);

    let output = xfwd(&["replay", "--json"], &[&config, &input], b"");
    assert!(output.status.success());
    let summary: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(summary["packets"], 4);
    assert_eq!(summary["bytes"], (58 + 43 + 13 + 43));
    assert_eq!(summary["malformed"], 1);
    assert_eq!(summary["verdicts"], serde_json::json!({ "pass": 1, "drop": 1, "bounce": 2, "forward": 0 }));
    assert_eq!(summary["rules"], serde_json::json!({ "bogons": 1, "friend": 0, "limit": 0 }));
    let web = summary["backends"]["web"].as_object().unwrap();
    assert_eq!(web.values().map(|packets| packets.as_u64().unwrap()).sum::<u64>(), 1);

    // What is no terminal gets an object a line, from a pipe as from a file.
    let from_file = xfwd(&["trace"], &[&config, &input], b"");
    let from_pipe = xfwd(&["trace", "--json"], &[&config, Path::new("-")], &capture);
    assert_eq!(from_file.stdout, from_pipe.stdout);
    let text = String::from_utf8(from_file.stdout).unwrap();
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 4);
    let fields = [
        "n",
        "len",
        "vlan",
        "l3",
        "src",
        "dst",
        "proto",
        "src_port",
        "dst_port",
        "tcp_flags",
        "fragment",
        "malformed",
        "where",
        "verdict",
        "by",
        "backend",
    ];
    for line in &lines {
        fields.iter().for_each(|field| assert!(line.get(field).is_some(), "{field} in {line}"));
    }
    let [web, first, broken, bogon] = &lines[..] else { panic!("{lines:?}") };
    assert_eq!(
        (&web["n"], &web["vlan"], &web["tcp_flags"]),
        (&1.into(), &vec![7].into(), &vec!["syn"].into())
    );
    assert_eq!((&web["l3"], &web["proto"], &web["dst_port"]), (&"ipv4".into(), &"tcp".into(), &80.into()));
    assert_eq!((&web["src"], &web["dst"]), (&"10.0.0.1".into(), &"198.18.10.1".into()));
    assert_eq!(
        (&web["where"], &web["verdict"], &web["by"]),
        (&"worker".into(), &"bounce".into(), &"web".into())
    );
    assert_eq!((&first["fragment"], &first["by"]), (&"first".into(), &"dns".into()));
    assert_eq!((&broken["malformed"], &broken["l3"]), (&"truncated-ethernet".into(), &Value::Null));
    assert_eq!(
        (&bogon["where"], &bogon["verdict"], &bogon["by"]),
        (&"kernel".into(), &"drop".into(), &"bogons".into())
    );

    let readable = xfwd(&["trace", "--text"], &[&config, &input], b"");
    let readable = String::from_utf8(readable.stdout).unwrap();
    assert!(
        readable.contains(" vlan 7 tcp 10.0.0.1:4000 > 198.18.10.1:80 [syn] 58 bytes: bounce to 198.18.0.")
    );
    assert!(readable.contains("13 bytes: pass in the kernel"), "{readable}");

    let sent = xfwd(&["replay", "-w", "-"], &[&config, &input], b"");
    assert!(String::from_utf8_lossy(&sent.stderr).contains("2 bounced"));
    assert_eq!(read(&sent.stdout).0.len(), 2);
    [config, input].iter().for_each(|path| fs::remove_file(path).unwrap());
}

#[test]
fn a_capture_that_is_cut_short_is_counted_up_to_there_and_is_an_error() {
    let config = file("cut.toml", ALL.as_bytes());
    let capture =
        pcap(&[(Duration::ZERO, udp([10, 0, 0, 1], 7, b"x")), (Duration::ZERO, udp([10, 0, 0, 1], 7, b"x"))]);
    let output = xfwd(&["replay", "--json"], &[&config, Path::new("-")], &capture[..capture.len() - 1]);
    assert_eq!(output.status.code(), Some(1));
    let summary: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&summary["packets"], &summary["rules"]["echo"]), (&1.into(), &1.into()));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("error: -: the capture ends in the middle of a record, behind packet 1"), "{said}");

    let missing = xfwd(&["replay"], &[&config, Path::new("/nowhere.pcap")], b"");
    assert_eq!(missing.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&missing.stderr).contains("/nowhere.pcap: No such file"));
    let itself = file("itself.pcap", &capture);
    let itself = [config.as_path(), &itself, Path::new("-w"), &itself];
    assert_eq!(xfwd(&["replay"], &itself, b"").status.code(), Some(2), "the input is not overwritten");
    assert_eq!(fs::read(itself[1]).unwrap(), capture);
    [itself[0], itself[1]].iter().for_each(|path| fs::remove_file(path).unwrap());
}
