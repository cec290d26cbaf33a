//! `syn_scrubber` between clients and a real web server, while somebody floods.

use std::net::{IpAddr, SocketAddr};
use std::process::Command;
use std::time::{Duration, Instant};

use etherparse::{NetSlice, PacketBuilder, SlicedPacket, TransportSlice};
use xfwd::stages::filter::Prefix;
use xfwd_netns::clients::curl;
use xfwd_netns::clients::requests::{self, Requests};
use xfwd_netns::topology::{INTERFACE, far_v4, far_v6, host_v4, host_v6};
use xfwd_netns::trafficgen::{Amount, Generator, Protocol, Traffic};
use xfwd_netns::{Capture, Child, Lab, Namespace, VethOptions, commands_or_skip, lab_or_skip};

use crate::example::{Example, PATIENCE};

#[path = "../../examples/syn_scrubber/sources.rs"]
#[allow(dead_code, reason = "the example uses all of it")]
mod sources;

const HTTP: u16 = 80;
const CLIENT: u8 = 1;
const SCRUBBER: u8 = 2;
const SERVER: u8 = 11;

/// A client and a server, each on a cable to the scrubber, which is the router between them.
struct Network {
    client: Namespace,
    scrubber: Namespace,
    server: Namespace,
    /// Its addresses.
    web: [SocketAddr; 2],
    _http: Child,
    _lab: Lab,
}

fn network(lab: Lab, queues: u32) -> Network {
    let [client, scrubber, server] =
        ["client", "scrubber", "server"].map(|name| lab.namespace(name).unwrap());
    let cable = VethOptions { queues, ..VethOptions::default() };
    lab.veth(&client, INTERFACE, &scrubber, "outside", &cable).unwrap();
    lab.veth(&server, INTERFACE, &scrubber, "inside", &cable).unwrap();
    for (host, interface, [v4, v6]) in [
        (&client, INTERFACE, [host_v4(CLIENT).to_string(), host_v6(CLIENT).to_string()]),
        (&scrubber, "outside", [host_v4(SCRUBBER).to_string(), host_v6(SCRUBBER).to_string()]),
        (&scrubber, "inside", [far_v4(SCRUBBER).to_string(), far_v6(SCRUBBER).to_string()]),
        (&server, INTERFACE, [far_v4(SERVER).to_string(), far_v6(SERVER).to_string()]),
    ] {
        host.address(interface, &format!("{v4}/16")).unwrap();
        host.address(interface, &format!("{v6}/48")).unwrap();
    }
    let gateways: [(&Namespace, [IpAddr; 2]); 2] = [
        (&client, [host_v4(SCRUBBER).into(), host_v6(SCRUBBER).into()]),
        (&server, [far_v4(SCRUBBER).into(), far_v6(SCRUBBER).into()]),
    ];
    for (host, gateways) in gateways {
        gateways.iter().for_each(|gateway| host.route(&format!("default via {gateway}")).unwrap());
    }
    scrubber.sysctl("net.ipv4.ip_forward", "1").unwrap();
    scrubber.sysctl("net.ipv6.conf.all.forwarding", "1").unwrap();
    let web =
        [IpAddr::from(far_v4(SERVER)), far_v6(SERVER).into()].map(|address| SocketAddr::new(address, HTTP));
    let http = requests::serve_http(&server, "web", &web).unwrap();
    Network { client, scrubber, server, web, _http: http, _lab: lab }
}

impl Network {
    fn start(&self, web: SocketAddr, queues: &str) -> Example {
        let arguments = ["outside", "inside", &web.to_string(), queues];
        Example::start(&self.scrubber, "syn_scrubber", &arguments, "scrubbing ")
    }

    /// SYNs to the server from `addresses` addresses, `source` and those behind it.
    fn flood(&self, source: IpAddr, web: SocketAddr, addresses: u32, rate_pps: u64) -> Traffic {
        Traffic {
            protocol: Protocol::TcpSyn,
            destination_mac: self.scrubber.mac("outside").unwrap(),
            flows: addresses.max(64),
            source_addresses: addresses,
            rate_pps: Some(rate_pps),
            ..Traffic::udp(source, web.ip(), web.port())
        }
    }

    /// Connections of which the server has a SYN and nothing more.
    fn half_open(&self) -> usize {
        let output = self.server.output(Command::new("ss").args(["-Htn", "state", "syn-recv"])).unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap().lines().count()
    }
}

fn count(summary: &str, name: &str) -> u64 {
    let line = summary.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
    line.unwrap_or_else(|| panic!("no {name}: {summary}")).parse().unwrap()
}

#[test]
fn syn_scrubber_lets_a_client_in_while_made_up_sources_are_dropped_in_the_kernel() {
    const SOURCES: u32 = 64;
    let network = network(lab_or_skip!("scrub"), 2);
    // In IPv6 all of them are of one network, and so one source.
    let floods: [(IpAddr, u64); 2] =
        [(host_v4(128).into(), SOURCES.into()), ("2001:db8:66::1".parse().unwrap(), 1)];
    for (web, (source, sources)) in network.web.into_iter().zip(floods) {
        let scrubber = network.start(web, "2");
        let traffic = network.flood(source, web, SOURCES, 50_000);
        let (sent, pages) = std::thread::scope(|scope| {
            let flood = scope.spawn(|| {
                let run = || Generator::new(INTERFACE, &traffic)?.run(Amount::For(Duration::from_secs(2)));
                network.client.run(run).unwrap()
            });
            let many = Requests { count: 50, rate: Some(100), ..Requests::default() };
            let mut pages = 0;
            while !flood.is_finished() {
                let answers = requests::http(&network.client, web, &many).unwrap();
                assert_eq!((answers.succeeded, answers.failed), (many.count, 0), "{:?}", answers.failures);
                pages += answers.succeeded;
            }
            (flood.join().unwrap(), pages)
        });
        assert_eq!(network.half_open(), 0, "no SYN of the flood has come to the server");
        let summary = scrubber.stop();
        println!("{pages} pages beside {} SYNs\n{summary}", sent.packets);
        assert!(count(&summary, "dropped by the XDP program") > sent.packets * 3 / 4, "{summary}");
        assert_eq!(count(&summary, "sources denied"), sources, "{summary}");
        // Once a worker, and once more for each of the client's connections that were begun before.
        assert!((1..=20).contains(&count(&summary, "admitted")), "{summary}");
        assert!(count(&summary, "forwarded") >= 4 * pages, "{summary}");
    }
}

#[test]
fn syn_scrubber_denies_a_known_client_that_floods_for_a_while() {
    lab_or_skip!();
    commands_or_skip!("curl");
    let network = network(Lab::new("flooder").unwrap(), 1);
    let web = network.web[0];
    let scrubber = network.start(web, "1");
    let page = |timeout| curl::get(&network.client, web, "/", timeout);
    let first = page(PATIENCE).unwrap();
    assert_eq!(first.server(), "web");

    let traffic = network.flood(host_v4(CLIENT).into(), web, 1, 20_000);
    let sent =
        network.client.run(|| Generator::new(INTERFACE, &traffic)?.run(Amount::Packets(10_000))).unwrap();
    page(Duration::from_secs(1)).expect_err("it is denied");
    let deadline = Instant::now() + PATIENCE;
    while let Err(error) = page(Duration::from_secs(2)) {
        assert!(Instant::now() < deadline, "it is not let in again: {error}");
    }

    let summary = scrubber.stop();
    println!("first page after {:?}, then {} SYNs\n{summary}", first.took, sent.packets);
    assert_eq!(count(&summary, "sources denied"), 1, "{summary}");
    assert!(count(&summary, "forwarded") >= 1_000 && count(&summary, "admitted") == 1, "{summary}");
    assert!(count(&summary, "dropped by the XDP program") > sent.packets / 2, "{summary}");
}

#[test]
fn syn_scrubber_admits_who_repeats_the_cookie_and_nobody_else() {
    const PORT: u16 = 40_000;
    let network = network(lab_or_skip!("cookie"), 1);
    let web = network.web[0];
    // A host that is no host: what is sent to it is seen by the capture alone.
    let somebody = host_v4(77);
    let [from, to] = [network.client.mac(INTERFACE).unwrap(), network.scrubber.mac("outside").unwrap()];
    network.scrubber.neighbour("outside", somebody.into(), from).unwrap();
    let scrubber = network.start(web, "1");
    let wire = network.client.run(|| Capture::open(INTERFACE)).unwrap();

    let send = |sequence: u32, is_reset: bool| {
        let packet = PacketBuilder::ethernet2(from.0, to.0)
            .ipv4(somebody.octets(), far_v4(SERVER).octets(), 64)
            .tcp(PORT, HTTP, sequence, 65_000);
        let packet = if is_reset { packet.rst() } else { packet.syn() };
        let mss = [etherparse::TcpOptionElement::MaximumSegmentSize(1_460)];
        let (mut frame, packet) = (Vec::new(), packet.options(&mss).unwrap());
        packet.write(&mut frame, &[]).unwrap();
        assert!(wire.send(&frame).unwrap());
    };
    // Acknowledgement number and header of the next SYN-ACK.
    let answer = || {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            let Some(captured) = wire.next(Duration::from_millis(100)).unwrap() else { continue };
            let packet = SlicedPacket::from_ethernet(&captured.bytes).unwrap();
            let (Some(NetSlice::Ipv4(ip)), Some(TransportSlice::Tcp(tcp))) = (packet.net, packet.transport)
            else {
                continue;
            };
            if tcp.destination_port() == PORT {
                let checksum =
                    tcp.calc_checksum_ipv4(ip.header().source(), ip.header().destination()).unwrap();
                assert!(tcp.syn() && tcp.ack() && tcp.checksum() == checksum, "{tcp:?}");
                return (tcp.acknowledgment_number(), tcp.header_slice().len());
            }
        }
        panic!("no answer");
    };

    send(1_000, false);
    let (cookie, header_bytes) = answer();
    assert_ne!(cookie, 1_001, "it would be a connection");
    assert_eq!(header_bytes, 20, "without options");
    send(cookie.wrapping_add(1), true);
    send(1_000, false);
    let (cookie, header_bytes) = answer();
    assert_eq!(header_bytes, 20, "asked again: the RST was not right");
    send(cookie, true);
    send(1_000, false);
    let (acknowledged, header_bytes) = answer();
    assert_eq!(acknowledged, 1_001, "by the server");
    assert!(header_bytes > 20, "with the options that it has chosen");

    let summary = scrubber.stop();
    let counts = ["challenged", "admitted", "refused", "sources denied"].map(|name| count(&summary, name));
    assert_eq!(counts, [2, 1, 0, 0], "{summary}");
}

#[test]
fn syn_scrubber_denies_sources_that_share_a_place_one_after_the_other() {
    use sources::{Sources, Standing};

    // So many that some hundred of them share a place with another, but hardly five one place.
    const SOURCES: u32 = 4_096;
    let mut table = Sources::new();
    let mut denied = std::collections::BTreeSet::new();
    for second in 1..=5 {
        for _ in 0..40 {
            for number in (0..SOURCES).filter(|number| !denied.contains(number)).collect::<Vec<_>>() {
                let source = Prefix::new(std::net::Ipv4Addr::from_bits(number).into(), 32);
                if let Standing::Excessive { .. } = table.syn(source, second) {
                    denied.insert(number);
                }
            }
        }
    }
    assert_eq!(denied.len(), SOURCES as usize);
}
