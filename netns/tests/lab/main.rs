//! Labs come and go cleanly, their networks carry packets, and the traffic generator sends what it says.

mod latency;
mod mixes;
mod replay;

use std::{
    collections::{BTreeSet, HashMap},
    net::IpAddr,
    panic,
    path::Path,
    process::Command,
    time::Duration,
};

use etherparse::{LinkExtSlice, NetSlice, SlicedPacket, TransportSlice};
use xfwd_netns::{
    Capture, Captured, Lab, Namespace, VethOptions, lab_or_skip,
    topology::{self, Dsr, INTERFACE, Pair, VIP_V4, VIP_V6, host_v4, host_v6},
    trafficgen::{
        Amount, Class, Counter, CounterOptions, CounterVerdict, Generator, MARKER, Protocol, Sent, Traffic,
    },
};

type TestResult = Result<(), Box<dyn std::error::Error>>;

const WAIT: Duration = Duration::from_secs(10);

fn exists(name: &str) -> bool {
    Path::new("/run/netns").join(name).exists()
}

#[test]
fn namespaces_are_gone_after_drop() -> TestResult {
    let lab = lab_or_skip!("drop");
    let namespace = lab.namespace("one")?;
    assert!(exists(namespace.name()));
    let mut sleeper = namespace.spawn(Command::new("sleep").arg("60"))?;
    drop(lab);
    assert!(!exists(namespace.name()));
    // What ran inside has been ended.
    assert!(!sleeper.wait(WAIT)?.status.success());
    Ok(())
}

#[test]
fn namespaces_are_gone_after_a_panic() -> TestResult {
    lab_or_skip!();
    let name = std::sync::Mutex::new(String::new());
    let result = panic::catch_unwind(|| {
        let lab = Lab::new("panic").unwrap();
        let namespace = lab.namespace("one").unwrap();
        assert!(exists(namespace.name()));
        name.lock().unwrap().push_str(namespace.name());
        drop(name.lock().unwrap());
        panic!("on purpose");
    });
    assert!(result.is_err());
    let name = name.lock().unwrap();
    assert!(name.contains("panic"));
    assert!(!exists(&name));
    Ok(())
}

#[test]
fn labs_of_dead_processes_are_removed() -> TestResult {
    lab_or_skip!();
    // No process has this number: it is above the highest the kernel gives.
    let orphan = "xfwd-4194999-0-orphan-one";
    let added = Command::new("ip").args(["netns", "add", orphan]).status()?;
    assert!(added.success());
    let _lab = Lab::new("sweeper")?;
    assert!(!exists(orphan));
    Ok(())
}

#[test]
fn two_labs_of_one_name_exist_at_once() -> TestResult {
    let first = lab_or_skip!("twin");
    let second = Lab::new("twin")?;
    let (one, other) = (first.namespace("host")?, second.namespace("host")?);
    assert_ne!(one.name(), other.name());
    drop(first);
    assert!(!exists(one.name()));
    assert!(exists(other.name()));
    Ok(())
}

#[test]
fn a_closure_runs_inside_and_a_missing_interface_is_an_error_that_names_it() -> TestResult {
    let lab = lab_or_skip!("inside");
    let namespace = lab.namespace("one")?;
    let interfaces = namespace.run(interfaces_here);
    assert_eq!(interfaces, BTreeSet::from(["lo".to_owned()]));
    let error = namespace.address("nope0", "198.18.0.1/15").unwrap_err();
    assert!(error.to_string().contains("nope0"), "{error}");
    assert!(namespace.mac("nope0").unwrap_err().to_string().contains("nope0"));
    Ok(())
}

fn interfaces_here() -> BTreeSet<String> {
    let listing = std::fs::read_to_string("/proc/thread-self/net/dev").expect("proc is mounted");
    listing.lines().skip(2).filter_map(|line| Some(line.split_once(':')?.0.trim().to_owned())).collect()
}

/// Exchanges a datagram: the address answers if both directions work, ARP or neighbour discovery included.
fn echo(client: &Namespace, server: &Namespace, address: IpAddr) -> std::io::Result<()> {
    let listener = server.run(|| std::net::UdpSocket::bind((address, 7)))?;
    let socket = client.run(|| {
        let any: IpAddr = if address.is_ipv4() { [0; 4].into() } else { [0u16; 8].into() };
        std::net::UdpSocket::bind((any, 0))
    })?;
    listener.set_read_timeout(Some(WAIT))?;
    socket.set_read_timeout(Some(WAIT))?;
    socket.send_to(b"ping", (address, 7))?;
    let mut buffer = [0; 16];
    let (length, from) = listener.recv_from(&mut buffer)?;
    listener.send_to(&buffer[..length], from)?;
    let (length, _) = socket.recv_from(&mut buffer)?;
    assert_eq!(&buffer[..length], b"ping");
    Ok(())
}

#[test]
fn the_hosts_of_a_pair_reach_each_other() -> TestResult {
    lab_or_skip!();
    let pair = topology::pair(4)?;
    echo(&pair.generator, &pair.subject, host_v4(Pair::SUBJECT).into())?;
    echo(&pair.generator, &pair.subject, host_v6(Pair::SUBJECT).into())?;
    let statistics = pair.subject.statistics(INTERFACE)?;
    assert!(statistics.contains_key("rx_queue_3_xdp_packets"), "four queues: {statistics:?}");
    Ok(())
}

#[test]
fn http_and_udp_cross_the_bridge_of_a_dsr_network_in_both_families() -> TestResult {
    lab_or_skip!();
    let dsr = topology::dsr(2, 2)?;
    let tool = xfwd_netns::tool("xfwd-lab-http")?;
    let addresses: [IpAddr; 4] =
        [host_v4(Dsr::backend(0)).into(), host_v6(Dsr::backend(0)).into(), VIP_V4.into(), VIP_V6.into()];
    let [v4, v6, ..] = addresses.map(|address| std::net::SocketAddr::new(address, 80));
    let mut http = dsr.backends[0].spawn(Command::new(&tool).args([
        "serve",
        "--name",
        "backend1",
        "--listen",
        &v4.to_string(),
        "--listen",
        &v6.to_string(),
    ]))?;
    let udp = dsr.backends[0].spawn(Command::new(&tool).args([
        "udp-serve",
        "--name",
        "backend1",
        "--listen",
        &v4.to_string(),
        "--listen",
        &v6.to_string(),
    ]))?;
    http.wait_for(&format!("listening on {v6}"), WAIT)?;
    udp.wait_for(&format!("listening on {v6}"), WAIT)?;
    for address in [v4, v6] {
        for (command, option, target) in
            [("fetch", "--url", format!("http://{address}/")), ("udp-fetch", "--to", address.to_string())]
        {
            let output = dsr
                .client
                .output(Command::new(&tool).args([command, option, &target, "--count", "20", "--json"]))?;
            let text = String::from_utf8_lossy(&output.stdout);
            assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
            let report: serde_json::Value = serde_json::from_str(&text)?;
            assert_eq!(report["succeeded"], 20, "{report}");
            assert_eq!(report["backends"]["backend1"], 20, "{report}");
        }
    }
    // A request that nobody answers is a failure with a reason, and shows in the exit status.
    let nobody = format!("http://{}:81/", host_v4(Dsr::backend(1)));
    let output =
        dsr.client.output(Command::new(&tool).args(["fetch", "--url", &nobody, "--count", "3", "--json"]))?;
    assert_eq!(output.status.code(), Some(1));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    assert_eq!((&report["failed"], &report["succeeded"]), (&3.into(), &0.into()), "{report}");
    let report = http.stop(WAIT);
    assert!(report.is_ok(), "{report:?}");
    Ok(())
}

#[test]
fn only_the_balancer_answers_for_the_vips_of_a_dsr_network() -> TestResult {
    lab_or_skip!();
    let dsr = topology::dsr(1, 2)?;
    echo(&dsr.client, &dsr.balancer, VIP_V4.into())?;
    echo(&dsr.client, &dsr.balancer, VIP_V6.into())?;
    let balancer = dsr.balancer.mac(INTERFACE)?.to_string();
    for vip in [IpAddr::from(VIP_V4), VIP_V6.into()] {
        let entry = dsr.client.ip(["neigh", "show", &vip.to_string()])?;
        assert!(entry.contains(&balancer), "{vip}: {entry}, balancer {balancer}");
    }
    Ok(())
}

/// From the generator of `pair` to its subject.
fn traffic(pair: &Pair, protocol: Protocol, ipv6: bool) -> TestResultOf<Traffic> {
    let (source, destination): (IpAddr, IpAddr) = if ipv6 {
        ("2001:db8::1:0:10".parse()?, host_v6(Pair::SUBJECT).into())
    } else {
        ("198.18.128.10".parse()?, host_v4(Pair::SUBJECT).into())
    };
    Ok(Traffic {
        protocol,
        destination_mac: pair.subject.mac(INTERFACE)?,
        ..Traffic::udp(source, destination, 4_000)
    })
}

type TestResultOf<T> = Result<T, Box<dyn std::error::Error>>;

fn send(pair: &Pair, traffic: &Traffic, amount: Amount) -> xfwd_netns::Result<Sent> {
    pair.generator.run(|| Generator::new(INTERFACE, traffic)?.run(amount))
}

#[test]
fn a_million_packets_sent_are_a_million_packets_counted() -> TestResult {
    lab_or_skip!();
    let pair = topology::pair(2)?;
    let options = CounterOptions::default();
    let counter = pair.subject.run(|| Counter::attach(INTERFACE, &options))?;
    let traffic = Traffic { flows: 1_000, ..traffic(&pair, Protocol::Udp, false)? };
    let sent = send(&pair, &traffic, Amount::Packets(1_000_000))?;
    let counted = counter.read()?;
    println!("{sent:?}, {:.0} pps", sent.pps());
    assert_eq!((sent.packets, sent.refused), (1_000_000, Some(0)));
    assert_eq!(counted.class(Class::Ipv4Udp).ours, 1_000_000);
    assert_eq!(counted.class(Class::Ipv4Udp).bytes, 60_000_000);
    Ok(())
}

#[test]
fn two_cores_share_the_packets_and_reach_two_queues() -> TestResult {
    lab_or_skip!();
    if std::thread::available_parallelism()?.get() < 2 {
        println!("one core: nothing to share");
        return Ok(());
    }
    let pair = topology::pair(2)?;
    let counter = pair.subject.run(|| Counter::attach(INTERFACE, &CounterOptions::default()))?;
    let traffic = Traffic { cores: vec![0, 1], ..traffic(&pair, Protocol::Udp, false)? };
    let sent = send(&pair, &traffic, Amount::Packets(100_001))?;
    assert_eq!((sent.packets, counter.read()?.class(Class::Ipv4Udp).ours), (100_001, 100_001));
    let statistics = pair.subject.statistics(INTERFACE)?;
    for queue in ["rx_queue_0_xdp_packets", "rx_queue_1_xdp_packets"] {
        assert!(statistics[queue] >= 50_000, "{statistics:?}");
    }
    Ok(())
}

#[test]
fn what_comes_back_is_counted_with_right_checksums() -> TestResult {
    lab_or_skip!();
    let pair = topology::pair(1)?;
    let reflect = CounterOptions { verdict: CounterVerdict::Reflect, ..CounterOptions::default() };
    let there = pair.subject.run(|| Counter::attach(INTERFACE, &reflect))?;
    let options = CounterOptions { validate: true, tcp_port: Some(4_000), ..CounterOptions::default() };
    let here = pair.generator.run(|| Counter::attach(INTERFACE, &options))?;
    for (class, protocol, ipv6) in [
        (Class::Ipv4Udp, Protocol::Udp, false),
        (Class::Ipv4Tcp, Protocol::TcpSyn, false),
        (Class::Ipv4Icmp, Protocol::IcmpEcho, false),
        (Class::Ipv6Udp, Protocol::Udp, true),
        (Class::Ipv6Tcp, Protocol::TcpSyn, true),
        (Class::Ipv6Icmp, Protocol::IcmpEcho, true),
    ] {
        let traffic = Traffic { flows: 77_777, frame_length: 101, ..traffic(&pair, protocol, ipv6)? };
        let sent = send(&pair, &traffic, Amount::Packets(200_000))?;
        assert_eq!((sent.packets, sent.refused), (200_000, Some(0)), "{class:?}");
        assert_eq!(there.read()?.class(class).ours, 200_000, "{class:?}");
        let back = here.read()?.class(class);
        assert_eq!((back.packets, back.ours, back.bad_checksum), (200_000, 200_000, 0), "{class:?}");
    }
    Ok(())
}

#[test]
fn frames_sent_by_an_xdp_program_cross_the_bridge() -> TestResult {
    lab_or_skip!();
    let dsr = topology::dsr(2, 1)?;
    let reflect = CounterOptions { verdict: CounterVerdict::Reflect, ..CounterOptions::default() };
    let balancer = dsr.balancer.run(|| Counter::attach(INTERFACE, &reflect))?;
    let client = dsr.client.run(|| Counter::attach(INTERFACE, &CounterOptions::default()))?;
    let traffic = Traffic {
        destination_mac: dsr.balancer.mac(INTERFACE)?,
        rate_pps: Some(50_000),
        flows: 100,
        ..Traffic::udp(host_v4(Dsr::CLIENT).into(), VIP_V4.into(), 80)
    };
    let sent = dsr.client.run(|| Generator::new(INTERFACE, &traffic)?.run(Amount::Packets(10_000)))?;
    assert_eq!(sent.refused, Some(0));
    assert_eq!(balancer.read()?.class(Class::Ipv4Udp).ours, 10_000);
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(dsr.balancer_port.read()?.class(Class::Ipv4Udp).ours, 10_000);
    assert_eq!(client.read()?.class(Class::Ipv4Udp).ours, 10_000);
    Ok(())
}

#[test]
fn a_jumbo_packet_is_counted_whole() -> TestResult {
    lab_or_skip!();
    let pair = topology::pair_with(&VethOptions { mtu: 9_000, ..VethOptions::default() })?;
    let counter = pair.subject.run(|| Counter::attach(INTERFACE, &CounterOptions::default()))?;
    let socket = pair.generator.run(|| std::net::UdpSocket::bind("0.0.0.0:0"))?;
    let payload = [&MARKER[..], &[7; 8_000]].concat();
    socket.send_to(&payload, (host_v4(Pair::SUBJECT), 9))?;
    std::thread::sleep(Duration::from_millis(100));
    let counted = counter.read()?.class(Class::Ipv4Udp);
    assert_eq!((counted.packets, counted.ours, counted.bytes), (1, 1, 14 + 20 + 8 + 8_004));
    Ok(())
}

#[test]
fn a_rate_is_kept() -> TestResult {
    lab_or_skip!();
    let pair = topology::pair(1)?;
    let counter = pair.subject.run(|| Counter::attach(INTERFACE, &CounterOptions::default()))?;
    let traffic = Traffic { rate_pps: Some(50_000), ..traffic(&pair, Protocol::Udp, false)? };
    let sent = send(&pair, &traffic, Amount::Packets(50_000))?;
    assert_eq!((sent.packets, counter.read()?.class(Class::Ipv4Udp).ours), (50_000, 50_000));
    // Never faster; slower only by what else this machine does.
    let elapsed = sent.elapsed;
    assert!(elapsed >= Duration::from_millis(990) && elapsed < Duration::from_secs(10), "{elapsed:?}");
    Ok(())
}

#[test]
fn what_nobody_receives_is_reported_as_refused() -> TestResult {
    lab_or_skip!();
    let pair = topology::pair_with(&VethOptions { right_gro: false, ..VethOptions::default() })?;
    let sent = send(&pair, &traffic(&pair, Protocol::Udp, false)?, Amount::Packets(1_000))?;
    assert_eq!((sent.packets, sent.refused), (1_000, Some(1_000)));
    Ok(())
}

/// Sends and captures; the subject has no XDP program, so its stack sees the packets.
fn sample(pair: &Pair, traffic: &Traffic, count: usize) -> TestResultOf<Vec<Captured>> {
    let capture = pair.subject.run(|| Capture::open(INTERFACE))?;
    // Slow enough for a socket that copies.
    let traffic = Traffic { rate_pps: Some(100_000), ..traffic.clone() };
    send(pair, &traffic, Amount::Packets(count as u64))?;
    let mut captured = Vec::new();
    while captured.len() < count {
        let Some(frame) = capture.next(Duration::from_secs(1))? else {
            break;
        };
        // The subject's own kernel, and the generator's, talk as well.
        if frame.bytes[..6] == traffic.destination_mac.0 && is_test_packet(&frame.bytes, &traffic) {
            captured.push(frame);
        }
    }
    Ok(captured)
}

fn is_test_packet(bytes: &[u8], traffic: &Traffic) -> bool {
    bytes.windows(4).any(|window| window == MARKER)
        || (traffic.protocol == Protocol::TcpSyn
            && matches!(parse(bytes).transport, Some(TransportSlice::Tcp(_))))
}

fn parse(bytes: &[u8]) -> SlicedPacket<'_> {
    SlicedPacket::from_ethernet(bytes).expect("a well-formed packet")
}

/// Checks every checksum, and returns the flow (source address and port, or ICMP identifier).
fn verify(packet: &SlicedPacket<'_>, traffic: &Traffic) -> (IpAddr, u16) {
    let transport = packet.transport.as_ref().expect("a transport header");
    match packet.net.as_ref().expect("an IP header") {
        NetSlice::Ipv4(ip) => {
            let header = ip.header();
            assert_eq!(header.header_checksum(), header.to_header().calc_header_checksum());
            assert_eq!(IpAddr::from(header.destination_addr()), traffic.destination);
            let (source, destination) = (header.source(), header.destination());
            let port = match transport {
                TransportSlice::Udp(udp) => {
                    let computed = udp.to_header().calc_checksum_ipv4_raw(source, destination, udp.payload());
                    assert_eq!(udp.checksum(), computed.expect("a datagram that fits"));
                    assert_eq!(udp.destination_port(), traffic.destination_port);
                    udp.source_port()
                }
                TransportSlice::Tcp(tcp) => {
                    assert_eq!(
                        tcp.checksum(),
                        tcp.calc_checksum_ipv4(source, destination).expect("a segment that fits")
                    );
                    assert!(tcp.syn() && !tcp.ack() && !tcp.fin() && !tcp.rst());
                    assert_eq!(tcp.destination_port(), traffic.destination_port);
                    tcp.source_port()
                }
                TransportSlice::Icmpv4(icmp) => {
                    assert_eq!(icmp.checksum(), icmp.icmp_type().calc_checksum(icmp.payload()));
                    assert_eq!((icmp.type_u8(), icmp.code_u8()), (8, 0));
                    u16::from_be_bytes([icmp.bytes5to8()[0], icmp.bytes5to8()[1]])
                }
                other => panic!("{other:?}"),
            };
            (header.source_addr().into(), port)
        }
        NetSlice::Ipv6(ip) => {
            let header = ip.header();
            assert_eq!(IpAddr::from(header.destination_addr()), traffic.destination);
            let (source, destination) = (header.source(), header.destination());
            let port = match transport {
                TransportSlice::Udp(udp) => {
                    let computed = udp.to_header().calc_checksum_ipv6_raw(source, destination, udp.payload());
                    assert_eq!(udp.checksum(), computed.expect("a datagram that fits"));
                    udp.source_port()
                }
                TransportSlice::Tcp(tcp) => {
                    assert_eq!(
                        tcp.checksum(),
                        tcp.calc_checksum_ipv6(source, destination).expect("a segment that fits")
                    );
                    tcp.source_port()
                }
                TransportSlice::Icmpv6(icmp) => {
                    assert!(icmp.is_checksum_valid(source, destination));
                    assert_eq!((icmp.type_u8(), icmp.code_u8()), (128, 0));
                    u16::from_be_bytes([icmp.bytes5to8()[0], icmp.bytes5to8()[1]])
                }
                other => panic!("{other:?}"),
            };
            (header.source_addr().into(), port)
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn generated_packets_are_right_in_every_protocol_family_length_and_tagging() -> TestResult {
    const FLOWS: u32 = 300;
    const COUNT: usize = 900;
    lab_or_skip!();
    let pair = topology::pair_with(&VethOptions { mtu: 3_300, ..VethOptions::default() })?;
    for protocol in [Protocol::Udp, Protocol::TcpSyn, Protocol::IcmpEcho] {
        for ipv6 in [false, true] {
            for (vlans, length) in [
                (vec![], 60),
                (vec![7], 61),
                (vec![100, 4095], 82),
                (vec![], 97),
                (vec![], 1_514),
                (vec![], 3_314),
            ] {
                let what = format!("{protocol:?} ipv6={ipv6} {vlans:?} {length}");
                let traffic = Traffic {
                    flows: FLOWS,
                    source_addresses: 7,
                    vlans: vlans.clone(),
                    frame_length: length,
                    ..traffic(&pair, protocol, ipv6)?
                };
                let captured = sample(&pair, &traffic, COUNT)?;
                assert_eq!(captured.len(), COUNT, "{what}");
                let mut flows: HashMap<(IpAddr, u16), usize> = HashMap::new();
                for frame in &captured {
                    assert!(!frame.partial_checksum, "{what}");
                    assert!(frame.bytes.len() >= length && frame.bytes.len() < length.max(83) + 4, "{what}");
                    let packet = parse(&frame.bytes);
                    let tags: Vec<u16> = packet
                        .link_exts
                        .iter()
                        .map(|tag| match tag {
                            LinkExtSlice::Vlan(vlan) => vlan.vlan_identifier().value(),
                            other => panic!("{other:?}"),
                        })
                        .collect();
                    assert_eq!(tags, vlans, "{what}");
                    *flows.entry(verify(&packet, &traffic)).or_default() += 1;
                }
                assert_eq!(flows.len(), FLOWS as usize, "{what}");
                assert!(
                    flows.values().all(|packets| *packets == COUNT / FLOWS as usize),
                    "{what}: {flows:?}"
                );
                let addresses: BTreeSet<IpAddr> = flows.keys().map(|(address, _)| *address).collect();
                assert_eq!(addresses.len(), 7, "{what}");
            }
        }
    }
    Ok(())
}

#[test]
fn the_command_reports_what_it_sent_and_what_came_back() -> TestResult {
    lab_or_skip!();
    let pair = topology::pair(1)?;
    let reflect = CounterOptions { verdict: CounterVerdict::Reflect, ..CounterOptions::default() };
    let _reflector = pair.subject.run(|| Counter::attach(INTERFACE, &reflect))?;
    let mut command = Command::new(xfwd_netns::tool("xfwd-trafficgen")?);
    command.args(["--interface", INTERFACE, "--to", "198.18.0.2:4000", "--flows", "1000"]);
    command.args(["--count", "100000", "--core", "0", "--json"]);
    let output = pair.generator.output(&mut command)?;
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    let report: serde_json::Value = serde_json::from_str(&text)?;
    assert_eq!(report["sent"]["packets"], 100_000, "{report}");
    assert_eq!(report["received"]["ours"], 100_000, "{report}");
    assert_eq!(report["received"]["classes"]["ipv4-udp"]["ours"], 100_000, "{report}");
    Ok(())
}
