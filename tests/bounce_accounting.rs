//! Every generated packet is accounted for: generator, kernel, socket, worker, wire and the way back say numbers that add
//! up exactly, and every packet that did not come back has a counter that says where it went.
#![allow(missing_docs, clippy::unwrap_used)]

#[path = "support/expected.rs"]
mod expected;
#[path = "support/xfwd.rs"]
mod running;

use std::{
    collections::HashMap,
    net::IpAddr,
    time::{Duration, Instant},
};

use running::{PATIENCE, Summary, Xfwd};
use xfwd_netns::{
    Capture, lab_or_skip,
    topology::{self, INTERFACE, Pair},
    trafficgen::{Amount, Class, Counter, CounterOptions, Generator, Protocol, Sent, Traffic},
};

const TCP_PORT: u16 = 4_000;

/// Two hosts that keep silent, so that there is no packet but the generated ones: without IPv6 no host announces itself,
/// and generated packets need no address of a host.
fn silent_pair(queues: u32) -> Pair {
    let pair = topology::pair(queues).unwrap();
    for host in [&pair.generator, &pair.subject] {
        host.sysctl(&format!("net.ipv6.conf.{INTERFACE}.disable_ipv6"), "1").unwrap();
    }
    pair
}

/// From addresses that are nobody's to an address that is nobody's, so that the host keeps out of it.
fn traffic(pair: &Pair, protocol: Protocol, ipv6: bool) -> Traffic {
    let (source, destination): (IpAddr, IpAddr) = if ipv6 {
        ("2001:db8::1:0:10".parse().unwrap(), "2001:db8::2:0:1".parse().unwrap())
    } else {
        ("198.18.128.10".parse().unwrap(), "198.19.0.1".parse().unwrap())
    };
    Traffic {
        protocol,
        destination_mac: pair.subject.mac(INTERFACE).unwrap(),
        flows: 10_000,
        cores: vec![0],
        ..Traffic::udp(source, destination, TCP_PORT)
    }
}

fn config(layer: &str) -> String {
    format!("[dataplane]\nsteer = \"all\"\n\n[bounce]\nlayer = \"{layer}\"\n")
}

/// What everybody counted.
struct Books {
    sent: Sent,
    /// Packets that the subject's driver handed to the XDP program.
    arrived: u64,
    summary: Summary,
    returned: u64,
    returned_of_class: u64,
    bad_checksums: u64,
    /// Packets that the subject's interface could not send, by its statistics.
    link_tx_dropped: u64,
}

/// Sends packets, as fast as the generator can, through an `xfwd` that bounces them, to the end of the last one.
fn flood(pair: &Pair, queues: u32, layer: &str, traffic: &Traffic, packets: u64, class: Class) -> Books {
    run(pair, queues, &config(layer), class, |_| {
        let mut generator = Generator::new(INTERFACE, traffic).unwrap();
        generator.run(Amount::Packets(packets)).unwrap()
    })
}

/// Runs an `xfwd` with this config for as long as `send` takes, which runs in the generator's namespace beside a counter of
/// what comes back.
fn run(
    pair: &Pair,
    queues: u32,
    config: &str,
    class: Class,
    send: impl FnOnce(&Counter) -> Sent + Send,
) -> Books {
    let options = CounterOptions { validate: true, tcp_port: Some(TCP_PORT), ..CounterOptions::default() };
    let counter = pair.generator.run(|| Counter::attach(INTERFACE, &options)).unwrap();
    let dropped_before = link_tx_dropped(pair);
    let arrived_before = arrived(pair);
    let arguments = ["--iface", INTERFACE, "--queues", &queues.to_string()];
    let xfwd = Xfwd::start(&pair.subject, &arguments, config);
    let sent = pair.generator.run(|| send(&counter));
    let accepted = sent.packets - sent.refused.unwrap();
    // A packet that still lies in the ring of the veth when the program is taken off would go to the host.
    wait_until("the driver has handed over all packets", || arrived(pair) - arrived_before >= accepted);
    let summary = xfwd.stop().summary();
    let expected = summary.workers("tx_completed") - summary.workers("tx_dropped_busy");
    wait_until("the generator's side has received what was sent", || {
        counter.read().unwrap().total().packets >= expected
    });
    let counts = counter.read().unwrap();
    Books {
        sent,
        arrived: arrived(pair) - arrived_before,
        summary,
        returned: counts.total().packets,
        returned_of_class: counts.class(class).ours,
        bad_checksums: counts.total().bad_checksum,
        link_tx_dropped: link_tx_dropped(pair) - dropped_before,
    }
}

/// Waits for an event that has no other sign than a counter, and returns whether it came. Who called asserts on the
/// counters themselves, so that a failure shows them all.
fn wait_until(what: &str, mut done: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + PATIENCE;
    while !done() {
        if Instant::now() > deadline {
            println!("waited in vain: {what}");
            return false;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    true
}

/// Packets that the subject's driver has handed to the XDP program, since the interface was made.
fn arrived(pair: &Pair) -> u64 {
    let statistics = pair.subject.statistics(INTERFACE).unwrap();
    let of_queues = statistics.iter().filter(|(name, _)| name.starts_with("rx_queue_"));
    of_queues.filter(|(name, _)| name.ends_with("_xdp_packets")).map(|(_, packets)| packets).sum()
}

/// Packets that the subject's interface would have sent, had there been room in the ring of the other end.
fn link_tx_dropped(pair: &Pair) -> u64 {
    let text = pair.subject.run(|| std::fs::read_to_string("/proc/thread-self/net/dev")).unwrap();
    let mut lines = text.lines().filter_map(|line| line.trim().split_once(':'));
    let (_, numbers) = lines.find(|(name, _)| *name == INTERFACE).unwrap();
    // Eight numbers of what was received, then bytes, packets, errors and drops of what was sent.
    numbers.split_whitespace().nth(8 + 3).unwrap().parse().unwrap()
}

impl Books {
    fn print(&self, what: &str) {
        let summary = &self.summary;
        println!("{what}: {:.2} Mpps generated", self.sent.pps() / 1e6);
        for (who, name, packets) in [
            ("generator", "sent", self.sent.packets),
            ("veth", "refused: ring full", self.sent.refused.unwrap()),
            ("driver", "handed to XDP", self.arrived),
            ("XDP program", "steered", summary.kernel("steered")),
            ("XDP program", "lost: queue full", summary.kernel("lost")),
            ("XDP program", "passed", summary.kernel("passed")),
            ("XDP program", "malformed", summary.kernel("malformed")),
            ("socket", "rx ring full", summary.statistic("rx_ring_full")),
            ("socket", "dropped (no frame)", summary.statistic("rx_dropped")),
            ("worker", "received", summary.packets()),
            ("worker", "bounced", summary.workers("bounced")),
            ("worker", "dropped", summary.number("/totals/verdicts/drop")),
            ("worker", "put on the tx ring", summary.workers("tx_frames")),
            ("kernel", "completed", summary.workers("tx_completed")),
            ("kernel", "of them dropped (EBUSY)", summary.workers("tx_dropped_busy")),
            ("interface", "tx dropped", self.link_tx_dropped),
            ("generator", "returned", self.returned),
        ] {
            println!("  {who:<12} {name:<26} {packets:>12}");
        }
    }

    fn assert_closed(&self, what: &str, packets: u64) {
        self.print(what);
        let summary = &self.summary;
        assert_eq!(self.sent.packets, packets, "{what}: generated");
        let accepted = packets - self.sent.refused.unwrap();
        assert_eq!(self.arrived, accepted, "{what}: on the wire");
        assert_eq!(summary.kernel("steered") + summary.kernel("lost"), accepted, "{what}: steered or shed");
        assert_eq!(
            summary.cause("lost-queue-full"),
            summary.kernel("lost"),
            "{what}: the cause's own counter"
        );
        assert_eq!(
            summary.queues("shed"),
            summary.kernel("lost"),
            "{what}: each shed packet belongs to a queue"
        );
        assert_eq!((summary.kernel("passed"), summary.kernel("malformed")), (0, 0), "{what}: not steered");
        let lost =
            summary.kernel("lost") + summary.statistic("rx_ring_full") + summary.statistic("rx_dropped");
        assert_eq!(summary.packets() + lost, accepted, "{what}: received");
        assert_eq!(summary.number("/totals/lost"), lost, "{what}: the summary's own sum");
        assert_eq!(summary.statistic("rx_invalid_descs"), 0, "{what}");
        assert_eq!(summary.statistic("tx_invalid_descs"), 0, "{what}");
        assert_eq!(summary.workers("bounced"), summary.packets(), "{what}: bounced");
        assert_eq!(summary.workers("tx_frames"), summary.packets(), "{what}: put on the tx ring");
        assert_eq!(summary.workers("tx_completed"), summary.packets(), "{what}: completed");
        let dropped = summary.workers("tx_dropped_busy");
        assert_eq!(self.link_tx_dropped, dropped, "{what}: dropped by the interface");
        assert_eq!(self.returned, summary.packets() - dropped, "{what}: returned");
        assert_eq!(self.returned_of_class, self.returned, "{what}: returned as what they were");
        assert_eq!(self.bad_checksums, 0, "{what}: checksums");
        assert!(self.returned > 0, "{what}");
    }
}

/// Packets of one burst in the test below, all of which fit the rx ring: none is lost, however slow the worker is.
const BURST: u64 = 16_384;

#[test]
fn ten_million_packets_are_bounced_and_come_back() {
    const PACKETS: u64 = 10_000_000;
    lab_or_skip!();
    let pair = silent_pair(1);
    let traffic = Traffic { frame_length: 64, ..traffic(&pair, Protocol::Udp, false) };
    let config = format!(
        "[dataplane]\nsteer = \"all\"\nring_size = {BURST}\nframes_per_queue = {}\n\n[bounce]\nlayer = \"l2\"\n",
        4 * BURST
    );
    let dropped_before = link_tx_dropped(&pair);
    let books = run(&pair, 1, &config, Class::Ipv4Udp, |counter| {
        let mut generator = Generator::new(INTERFACE, &traffic).unwrap();
        let (mut sent, mut refused, mut elapsed) = (0, 0, Duration::ZERO);
        while sent < PACKETS {
            let burst = generator.run(Amount::Packets(BURST.min(PACKETS - sent))).unwrap();
            sent += burst.packets;
            refused += burst.refused.unwrap();
            elapsed += burst.elapsed;
            let back = || counter.read().unwrap().total().packets + link_tx_dropped(&pair) - dropped_before;
            if !wait_until("the burst has come back", || back() >= sent - refused) {
                break;
            }
        }
        Sent { packets: sent, refused: Some(refused), elapsed }
    });
    books.assert_closed("10 million packets of 64 bytes in bursts, l2", PACKETS);
    assert_eq!(books.summary.number("/totals/lost"), 0, "a burst fits the rx ring");
    assert_eq!(books.summary.number("/totals/bytes"), books.summary.packets() * 64);
}

#[test]
fn of_ten_million_packets_too_fast_for_the_worker_each_has_a_counter() {
    const PACKETS: u64 = 10_000_000;
    lab_or_skip!();
    let pair = silent_pair(1);
    let traffic = Traffic { frame_length: 64, ..traffic(&pair, Protocol::Udp, false) };
    let books = flood(&pair, 1, "l2", &traffic, PACKETS, Class::Ipv4Udp);
    books.assert_closed("10 million packets of 64 bytes at once, l2", PACKETS);
    assert!(
        books.summary.kernel("lost") > 0,
        "a worker that runs and finds its ring full has the program shed"
    );
    assert_eq!(books.summary.number("/totals/bytes"), books.summary.packets() * 64);
}

#[test]
fn the_smallest_rings_lose_most_and_count_it_all() {
    const PACKETS: u64 = 1_000_000;
    lab_or_skip!();
    let pair = silent_pair(1);
    let traffic = traffic(&pair, Protocol::Udp, true);
    for idle in ["adaptive", "busy", "poll"] {
        let config = format!(
            "[dataplane]\nsteer = \"all\"\nidle = \"{idle}\"\nring_size = 64\nframes_per_queue = 1024\n\n\
             [bounce]\nlayer = \"l4\"\n"
        );
        let books = run(&pair, 1, &config, Class::Ipv6Udp, |_| {
            let mut generator = Generator::new(INTERFACE, &traffic).unwrap();
            generator.run(Amount::Packets(PACKETS)).unwrap()
        });
        books.assert_closed(&format!("rings of 64, {idle}"), PACKETS);
    }
}

#[test]
fn packets_of_two_generators_on_four_queues_are_all_accounted_for() {
    const PACKETS: u64 = 2_000_000;
    lab_or_skip!();
    let pair = silent_pair(4);
    let all_cores = std::thread::available_parallelism().unwrap().get();
    // What a core generates arrives on the queue of its number.
    let cores: Vec<usize> = (0..all_cores.min(4)).collect();
    let traffic = Traffic { cores: cores.clone(), ..traffic(&pair, Protocol::Udp, true) };
    let books = flood(&pair, 4, "l4", &traffic, PACKETS, Class::Ipv6Udp);
    books.assert_closed("2 million packets of several cores on four queues, l4", PACKETS);
    let by_worker = books.summary.each_worker("rx_packets");
    println!("received by worker: {by_worker:?}");
    assert_eq!(by_worker.iter().filter(|packets| **packets > 0).count(), cores.len());
    // Each queue closes its own books, too.
    assert_eq!(by_worker, books.summary.each_worker("bounced"));
    assert_eq!(by_worker, books.summary.each_worker("tx_completed"));
}

#[test]
fn every_layer_protocol_tagging_and_size_is_accounted_for() {
    const PACKETS: u64 = 1_000_000;
    lab_or_skip!();
    let pair = silent_pair(1);
    let udp4 = traffic(&pair, Protocol::Udp, false);
    let udp6 = traffic(&pair, Protocol::Udp, true);
    let syn4 = traffic(&pair, Protocol::TcpSyn, false);
    let syn6 = traffic(&pair, Protocol::TcpSyn, true);
    let echo4 = traffic(&pair, Protocol::IcmpEcho, false);
    let echo6 = traffic(&pair, Protocol::IcmpEcho, true);
    let tagged = |traffic: &Traffic, vlans: &[u16]| Traffic { vlans: vlans.to_vec(), ..traffic.clone() };
    let sized = |frame_length| Traffic { frame_length, ..udp4.clone() };
    for (what, layer, traffic, class) in [
        ("UDP", "l3", udp4.clone(), Class::Ipv4Udp),
        ("UDP", "l4", udp4.clone(), Class::Ipv4Udp),
        ("UDP of 512 bytes", "l4", sized(512), Class::Ipv4Udp),
        ("UDP of 1,514 bytes", "l4", sized(1_514), Class::Ipv4Udp),
        ("UDP over IPv6", "l2", udp6.clone(), Class::Ipv6Udp),
        ("UDP over IPv6", "l4", udp6.clone(), Class::Ipv6Udp),
        ("TCP SYN", "l4", syn4, Class::Ipv4Tcp),
        ("TCP SYN over IPv6", "l4", syn6, Class::Ipv6Tcp),
        ("ICMP echo", "l4", echo4, Class::Ipv4Icmp),
        ("ICMPv6 echo", "l4", echo6, Class::Ipv6Icmp),
        ("UDP, one VLAN tag", "l4", tagged(&udp4, &[7]), Class::Ipv4Udp),
        ("UDP over IPv6, two VLAN tags", "l4", tagged(&udp6, &[100, 4_095]), Class::Ipv6Udp),
    ] {
        let what = format!("{what}, {layer}");
        flood(&pair, 1, layer, &traffic, PACKETS, class).assert_closed(&what, PACKETS);
    }
}

/// Sends some packets slowly and compares each that comes back, byte by byte, with what it has to be.
fn assert_bounced_to_the_byte(pair: &Pair, layer: &str, traffic: &Traffic) {
    const PACKETS: u64 = 600;
    let what = format!("{layer} {traffic:?}");
    let xfwd = Xfwd::start(&pair.subject, &["--iface", INTERFACE], &config(layer));
    let capture = pair.generator.run(|| Capture::open(INTERFACE)).unwrap();
    let traffic = Traffic { rate_pps: Some(20_000), flows: 200, source_addresses: 7, ..traffic.clone() };
    let source_mac = pair.generator.mac(INTERFACE).unwrap();
    let sent =
        pair.generator.run(|| Generator::new(INTERFACE, &traffic).unwrap().run(Amount::Packets(PACKETS)));
    assert_eq!(sent.unwrap().packets, PACKETS, "{what}");
    let mut outstanding: HashMap<Vec<u8>, u64> = (0..PACKETS)
        .map(|number| (expected::bounced(&expected::Flow::of(&traffic, source_mac, number), layer), number))
        .collect();
    assert_eq!(outstanding.len() as u64, PACKETS, "{what}: packets differ");
    while !outstanding.is_empty() {
        let frame = capture
            .next(PATIENCE)
            .unwrap()
            .unwrap_or_else(|| panic!("{what}: {} did not come back", outstanding.len()));
        assert!(!frame.partial_checksum, "{what}");
        let number = outstanding.remove(&frame.bytes);
        assert!(number.is_some(), "{what}: unexpected {:02x?}", frame.bytes);
    }
    let summary = xfwd.stop().summary();
    assert_eq!((summary.packets(), summary.workers("bounced")), (PACKETS, PACKETS), "{what}");
}

#[test]
fn what_comes_back_is_the_packet_turned_around_to_the_byte() {
    lab_or_skip!();
    let pair = silent_pair(1);
    // The generator's own stack would answer what it does not know.
    pair.generator.sysctl("net.ipv4.icmp_ratelimit", "0").unwrap();
    for layer in ["l2", "l3", "l4"] {
        for protocol in [Protocol::Udp, Protocol::TcpSyn, Protocol::IcmpEcho] {
            for ipv6 in [false, true] {
                assert_bounced_to_the_byte(&pair, layer, &traffic(&pair, protocol, ipv6));
            }
        }
    }
    for (vlans, frame_length) in [(vec![7], 60), (vec![100, 4_095], 512), (vec![], 1_514)] {
        for ipv6 in [false, true] {
            let udp = traffic(&pair, Protocol::Udp, ipv6);
            let traffic = Traffic { vlans: vlans.clone(), frame_length, ..udp };
            assert_bounced_to_the_byte(&pair, "l4", &traffic);
        }
    }
}
