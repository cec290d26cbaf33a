//! A capture through the lab and through `xfwd replay`: what is sent is the same to the byte, and so is everything that was
//! counted.
#![allow(missing_docs, clippy::unwrap_used)]

#[path = "support/xfwd.rs"]
mod running;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::BufWriter;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};
use xfwd::testing::packets as generated;

use running::{ConfigFile, PATIENCE, Summary, Xfwd};
use serde_json::Value;
use xfwd::offline::{Capture as Reader, Frame, PcapWriter, backend_mac};
use xfwd_netns::{
    Capture, Captured, lab_or_skip,
    topology::{self, INTERFACE, Pair},
};

const PACKETS: u64 = 6_000;
/// Fewer than the ring of a veth holds.
const BURST: usize = 100;
const BACKENDS: [&str; 3] = ["198.18.0.21", "198.18.0.22", "198.18.0.23"];

/// Two hosts that keep silent: without IPv6 none announces itself, and the backends' MAC addresses, which are nobody's, are
/// known to the subject: those that a replay makes up.
fn site() -> Pair {
    let pair = topology::pair(1).unwrap();
    for host in [&pair.generator, &pair.subject] {
        host.sysctl(&format!("net.ipv6.conf.{INTERFACE}.disable_ipv6"), "1").unwrap();
    }
    for backend in BACKENDS {
        let mac = backend_mac(backend.parse().unwrap()).to_string();
        pair.subject
            .ip(["neigh", "add", backend, "lladdr", &mac, "dev", INTERFACE, "nud", "permanent"])
            .unwrap();
    }
    pair
}

/// Packets that the driver has handed to the XDP program.
fn arrived(pair: &Pair) -> u64 {
    let statistics = pair.subject.statistics(INTERFACE).unwrap();
    let of_queues = statistics.iter().filter(|(name, _)| name.starts_with("rx_queue_"));
    of_queues.filter(|(name, _)| name.ends_with("_xdp_packets")).map(|(_, packets)| packets).sum()
}

fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        std::thread::sleep(Duration::from_micros(200));
    }
}

/// What a socket can send: not less than an Ethernet header, not more than the MTU.
fn packets() -> Vec<Vec<u8>> {
    let generated = (0..PACKETS).map(generated::packet);
    generated.filter(|packet| (14..=1_514).contains(&packet.len())).collect()
}

/// Rings that hold all packets: none is lost, however slow the worker is.
const ROOM: &str = "[dataplane]\nring_size = 8192\nframes_per_queue = 32768\n";

/// What came of sending packets through a running xfwd.
struct Live {
    /// The capture of what was sent, with the times at which it was.
    capture: PathBuf,
    returned: Vec<Captured>,
    summary: Summary,
}

fn live(pair: &Pair, name: &str, config: &str, packets: &[Vec<u8>]) -> Live {
    let capture =
        Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("offline-{}-{name}.pcap", std::process::id()));
    let mut writer = PcapWriter::new(BufWriter::new(File::create(&capture).unwrap())).unwrap();
    let recording = pair.generator.run(|| Capture::open(INTERFACE)).unwrap().record();
    let socket = pair.generator.run(|| Capture::open(INTERFACE)).unwrap();
    let before = arrived(pair);
    let xfwd = Xfwd::start(&pair.subject, &["--iface", INTERFACE], config);
    let start = Instant::now();
    let mut sent = 0;
    for burst in packets.chunks(BURST) {
        for packet in burst {
            writer.write(start.elapsed(), packet, packet.len() as u32).unwrap();
            wait_until("the packet is taken", || socket.send(packet).unwrap());
            sent += 1;
        }
        wait_until("the driver has handed over what was sent", || arrived(pair) - before >= sent);
    }
    writer.finish().unwrap();
    let summary = xfwd.stop().summary();
    assert_eq!(arrived(pair) - before, sent, "nobody else sends");
    assert_eq!(summary.number("/totals/lost"), 0);
    Live { capture, returned: recording.stop().unwrap(), summary }
}

/// What `xfwd replay` makes of the same capture: what it would send, and its summary.
fn replay(pair: &Pair, config: &str, capture: &Path) -> (Vec<Vec<u8>>, Value) {
    let config = ConfigFile::new(config);
    let sent = capture.with_extension("out.pcap");
    let mac = pair.subject.mac(INTERFACE).unwrap().to_string();
    let arguments =
        ["--json", "--mac", &mac, "--host", "198.18.0.2", "--host", "127.0.0.1", "--host", "::1", "-w"];
    let xfwd = || Command::new(env!("CARGO_BIN_EXE_xfwd"));
    let output =
        xfwd().arg("replay").args(arguments).arg(&sent).arg(config.path()).arg(capture).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let summary: Value = serde_json::from_slice(&output.stdout).unwrap();

    // A trace gives the same verdicts, packet by packet.
    let output =
        xfwd().arg("trace").arg("--host=198.18.0.2").arg(config.path()).arg(capture).output().unwrap();
    let mut verdicts = BTreeMap::<String, u64>::new();
    for line in String::from_utf8(output.stdout).unwrap().lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        *verdicts.entry(line["verdict"].as_str().unwrap().to_owned()).or_default() += 1;
    }
    for (verdict, packets) in summary["verdicts"].as_object().unwrap() {
        assert_eq!(verdicts.get(verdict).copied().unwrap_or(0), packets.as_u64().unwrap(), "{verdict}");
    }

    let mut reader = Reader::open(File::open(&sent).unwrap()).unwrap();
    let (mut frame, mut frames) = (Frame::default(), Vec::new());
    while reader.read(&mut frame).unwrap() {
        frames.push(frame.bytes().to_vec());
    }
    fs::remove_file(sent).unwrap();
    (frames, summary)
}

/// Sums of a list of pairs of name and number, over rows of a live summary.
fn pairs(rows: &[Value], list: &str) -> BTreeMap<String, u64> {
    let mut sums = BTreeMap::new();
    for pair in rows.iter().flat_map(|row| row[list].as_array().unwrap()) {
        *sums.entry(pair[0].as_str().unwrap().to_owned()).or_default() += pair[1].as_u64().unwrap();
    }
    sums
}

fn object(value: &Value) -> BTreeMap<String, u64> {
    let members = value.as_object().unwrap().iter();
    members.map(|(name, number)| (name.clone(), number.as_u64().unwrap())).collect()
}

/// Runs packets both ways and compares. Returns what the replay sent and counted.
fn compare(name: &str, config: &str, packets: &[Vec<u8>]) -> (Vec<Vec<u8>>, Value) {
    let pair = site();
    let Live { capture, returned, summary } = live(&pair, name, config, packets);
    let (sent, replayed) = replay(&pair, config, &capture);

    let number = |pointer: &str| replayed.pointer(pointer).and_then(Value::as_u64).unwrap();
    assert_eq!(number("/packets"), packets.len() as u64);
    let causes = pairs(summary.rows("interfaces"), "causes");
    println!("{name}: {causes:?}, worker {:?}", pairs(summary.rows("workers"), "dropped"));
    assert_eq!(object(&replayed["causes"]), causes, "causes of the XDP program");
    assert_eq!(
        object(&replayed["dropped"]),
        pairs(summary.rows("workers"), "dropped"),
        "reasons of the worker"
    );
    let bounced = summary.number("/totals/verdicts/bounce");
    let dropped = summary.number("/totals/verdicts/drop") + summary.kernel("dropped");
    let passed = summary.kernel("passed") + summary.kernel("malformed");
    let verdicts =
        ["bounce", "forward", "drop", "pass"].map(|verdict| number(&format!("/verdicts/{verdict}")));
    assert_eq!(verdicts, [bounced, 0, dropped, passed], "verdicts");
    let rules = summary.rows("rules").iter();
    let rules: BTreeMap<String, u64> = rules
        .map(|rule| (rule["name"].as_str().unwrap().to_owned(), rule["packets"].as_u64().unwrap()))
        .collect();
    assert_eq!(object(&replayed["rules"]), rules, "rules");
    for (service, backends) in replayed["backends"].as_object().unwrap() {
        let live: BTreeMap<String, u64> = summary.backends(service, "packets").into_iter().collect();
        assert_eq!(object(backends), live, "backends of {service}");
    }

    for (index, (sent, returned)) in sent.iter().zip(&returned).enumerate() {
        assert_eq!(*sent, returned.bytes, "packet {index} of what was sent");
    }
    assert_eq!(sent.len(), returned.len(), "as many are sent");
    fs::remove_file(capture).unwrap();
    (sent, replayed)
}

fn assert_at_least(summary: &Value, pointer: &str, least: u64) {
    let number = summary.pointer(pointer).and_then(Value::as_u64).unwrap_or(0);
    assert!(number >= least, "{number} {pointer}: the packets miss what is compared");
}

#[test]
fn a_filter_does_the_same_with_a_capture() {
    lab_or_skip!();
    let rules = r#"steer = "all"

[[filter]]
name = "seen"
protocol = "udp"
action = "count"

[[filter]]
name = "friend"
src = "198.18.10.1"
action = "accept"

[[filter]]
name = "web"
protocol = "tcp"
dst_port = [80, 443]
action = "drop"

[[filter]]
name = "fragments"
fragment = true
action = "drop"

[[filter]]
name = "echo"
protocol = "udp"
dst_port = 53
action = "bounce"

[[filter]]
name = "behind"
dst = ["198.18.10.2", "2001:db8:10::/48"]
action = "drop"
"#;
    let (_, summary) = compare("filter", &format!("{ROOM}{rules}"), &packets());
    for rule in ["seen", "friend", "web", "fragments", "echo", "behind"] {
        assert_at_least(&summary, &format!("/rules/{rule}"), 10);
    }
    assert_at_least(&summary, "/verdicts/bounce", 10);
    assert_at_least(&summary, "/malformed", 500);
}

#[test]
fn a_bouncer_does_the_same_with_a_capture() {
    lab_or_skip!();
    for layer in ["l2", "l4"] {
        let config = format!("{ROOM}steer = \"all\"\n\n[bounce]\nlayer = \"{layer}\"\n");
        let (sent, summary) = compare(&format!("bounce-{layer}"), &config, &packets());
        assert!(sent.len() > 1_000, "{}", sent.len());
        assert_at_least(&summary, "/dropped/not-answered", 10);
    }
}

fn balance(forward: &str) -> String {
    let backends: String =
        BACKENDS.iter().map(|backend| format!("[[service.backend]]\naddress = \"{backend}\"\n")).collect();
    let service = |name: &str, vip: &str, protocol: &str, ports: &str, forward: &str| {
        format!(
            "[[service]]\nname = \"{name}\"\nvip = \"{vip}\"\nprotocol = \"{protocol}\"\nport = {ports}\n\
             forward = \"{forward}\"\n{backends}\n"
        )
    };
    let mut config = format!("{ROOM}\n[balance]\ntunnel_sources = [\"198.18.0.2\"]\n\n");
    config += "[[filter]]\nname = \"dns\"\nprotocol = \"udp\"\nsrc_port = 53\naction = \"drop\"\n\n";
    config += &service("web4", "198.18.10.1", "tcp", "80", forward);
    config += &service("wide4", "198.18.10.0/30", "udp", "\"all\"", forward);
    config += &service("other4", "198.18.10.2", "tcp", "\"400-450\"", forward);
    if forward != "dsr" {
        config += &service("web6", "2001:db8:10::/64", "tcp", "\"all\"", forward);
    }
    config
}

/// Generated packets, half of them sent to a virtual address.
fn to_services() -> Vec<Vec<u8>> {
    let mut packets = packets();
    for (index, packet) in packets.iter_mut().enumerate() {
        let headers = xfwd::packet::parse(packet, packet.len());
        let network = usize::from(headers.network_offset);
        // Most are to a station.
        if !index.is_multiple_of(5) {
            packet[0] = 0x02;
        }
        match headers.ip_version {
            4 if index % 2 == 0 => {
                packet[network + 16..network + 20].copy_from_slice(&[198, 18, 10, 1 + (index / 2 % 2) as u8]);
            }
            6 if index % 2 == 0 => packet[network + 24..network + 40].copy_from_slice(&generated::IPV6[0]),
            _ => {}
        }
    }
    packets
}

#[test]
fn a_balancer_by_dsr_does_the_same_with_a_capture() {
    lab_or_skip!();
    let (_, summary) = compare("dsr", &balance("dsr"), &to_services());
    for pointer in ["/backends/web4/198.18.0.21", "/backends/wide4/198.18.0.22", "/causes/steered-fragment"] {
        assert_at_least(&summary, pointer, 10);
    }
}

#[test]
fn a_balancer_by_ipip_does_the_same_with_a_capture() {
    lab_or_skip!();
    let (_, summary) = compare("ipip", &balance("ipip"), &to_services());
    for pointer in ["/backends/web4/198.18.0.21", "/backends/web6/198.18.0.23", "/causes/steered-icmp"] {
        assert_at_least(&summary, pointer, 5);
    }
}
