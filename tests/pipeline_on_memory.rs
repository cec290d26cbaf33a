//! The pipeline that the command runs, on memory in place of sockets: whole packets in, whole packets out, built by
//! `etherparse`. Statically chained and boxed, it gives the same.
#![allow(missing_docs, clippy::unwrap_used)]

use std::{net::IpAddr, sync::Arc};

use etherparse::{
    EtherType, Ethernet2Header, IpFragOffset, IpNumber, Ipv4Header, Ipv6FragmentHeader, Ipv6Header,
    PacketBuilder,
};
use xfwd::{
    packet::MacAddress,
    pipeline::{Pipeline, Stage},
    port::memory::MemoryPort,
    stages::{
        balance::{
            BackendCounters, BalanceControl, BalanceOptions, BalancedService, Egress, Forward,
            way::LinkHeader,
        },
        bounce::{Bounce, Layer},
    },
    testing::built,
    worker::{Idle, Worker, WorkerCounters, WorkerSnapshot},
};

const TCP: u8 = 6;
const UDP: u8 = 17;
const CLIENT: [u8; 6] = [2, 0, 0, 0, 0, 1];
/// The balancer's interface towards clients, and the one towards some of the backends.
const FRONT: [u8; 6] = [2, 0, 0, 0, 0, 2];
const BACK: [u8; 6] = [2, 0, 0, 0, 0, 3];
const BACKEND_A: [u8; 6] = [2, 0, 0, 0, 1, 1];
const BACKEND_B: [u8; 6] = [2, 0, 0, 0, 1, 2];

const CLIENT_4: [u8; 4] = [198, 18, 0, 1];
const VIP_4: [u8; 4] = [198, 18, 10, 1];
/// Of no service.
const OTHER_4: [u8; 4] = [198, 18, 10, 99];
/// A service whose one backend is behind the second port.
const FAR_VIP_4: [u8; 4] = [198, 18, 10, 2];
/// A service whose one backend has no MAC address.
const LOST_VIP_4: [u8; 4] = [198, 18, 10, 3];
/// A service whose one backend is in VLAN 9 of the first port.
const VLAN_VIP_4: [u8; 4] = [198, 18, 10, 4];
const CLIENT_6: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
const VIP_6: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];

fn service(name: &str, vip: impl Into<IpAddr>, protocol: u8, port: u16, backend: &str) -> BalancedService {
    BalancedService::new(name, vip.into(), protocol, port, Forward::Dsr).with(backend.parse().unwrap(), 1)
}

/// Each service has a single backend, so that it is known where a packet goes.
fn balance() -> BalanceControl {
    let services = vec![
        service("web", VIP_4, TCP, 80, "198.18.0.11"),
        service("dns", VIP_4, UDP, 53, "198.18.0.11"),
        service("web6", VIP_6, TCP, 80, "2001:db8::11"),
        service("dns6", VIP_6, UDP, 53, "2001:db8::11"),
        service("far", FAR_VIP_4, UDP, 53, "198.18.0.12"),
        service("lost", LOST_VIP_4, UDP, 53, "198.18.0.13"),
        service("vlan", VLAN_VIP_4, UDP, 53, "198.18.0.14"),
    ];
    let options = BalanceOptions {
        connections: 1_024,
        ..BalanceOptions::new(1, vec![MacAddress(FRONT), MacAddress(BACK)])
    };
    BalanceControl::new(options, services).unwrap()
}

fn teach(control: &BalanceControl) {
    let known = [
        ("198.18.0.11", 0, FRONT, BACKEND_A, None),
        ("2001:db8::11", 0, FRONT, BACKEND_A, None),
        ("198.18.0.12", 1, BACK, BACKEND_B, None),
        ("198.18.0.14", 0, FRONT, BACKEND_A, Some(9)),
    ];
    control.set_egress(known.map(|(address, port, source, destination, vlan)| {
        let link = LinkHeader { source: MacAddress(source), destination: MacAddress(destination), vlan };
        (address.parse().unwrap(), Some(Egress { port, link, mtu: 1_500, is_direct: true, source: None }))
    }));
}

/// What has to become of a packet that arrives at the first port.
enum Expect {
    /// Out of the first port.
    Bounced(Vec<u8>),
    /// Out of the second port.
    Forwarded(Vec<u8>),
    Dropped(&'static str),
}

/// What became of some packets.
#[derive(Debug, PartialEq)]
struct Outcome {
    sent: [Vec<Vec<u8>>; 2],
    counters: WorkerSnapshot,
}

fn run(stage: impl Stage, packets: &[Vec<u8>]) -> Outcome {
    let counters = Arc::<WorkerCounters>::default();
    let ports = vec![MemoryPort::new(256), MemoryPort::new(256)];
    let mut worker =
        Worker::new(ports, MemoryPort::frames(1024, 2048), stage, Idle::Poll, Arc::clone(&counters));
    worker.turn().unwrap();
    for packet in packets {
        worker.ports_mut()[0].inject(packet);
    }
    while worker.turn().unwrap() > 0 {
        worker.ports_mut().iter_mut().for_each(|port| port.drain_tx(64));
        worker.check_frames().unwrap();
    }
    let mut sent = worker.ports_mut().iter_mut().map(MemoryPort::take_sent);
    let sent = [sent.next().unwrap(), sent.next().unwrap()];
    Outcome { sent, counters: counters.snapshot() }
}

/// Balance, then bounce what is for no service.
fn balance_then_bounce(packets: &[Vec<u8>]) -> (Outcome, Vec<BackendCounters>) {
    let control = balance();
    let chain = (control.stage(0), Bounce::new(Layer::L4));
    teach(&control);
    let fixed = run(chain, packets);
    let counters = control.counters();

    let control = balance();
    let mut pipeline = Pipeline::new();
    pipeline.push(Box::new(control.stage(0)));
    pipeline.push(Box::new(Bounce::new(Layer::L4)));
    teach(&control);
    let boxed = run(pipeline, packets);
    assert_sent(&fixed.sent[0], &boxed.sent[0], "static and boxed chains give the same");
    assert!(fixed == boxed, "static and boxed chains count the same");
    assert_eq!(counters, control.counters());
    (fixed, counters)
}

/// Packets with what has to become of them.
fn table() -> Vec<(&'static str, Vec<u8>, Expect)> {
    let ethernet = |source, destination| PacketBuilder::ethernet2(source, destination);
    let vlan = |id: u16| id.try_into().unwrap();
    let syn = |source, destination| {
        let step = ethernet(source, destination).ipv4(CLIENT_4, VIP_4, 63).tcp(40_000, 80, 7, 1_024).syn();
        built!(step, b"")
    };
    let page = |source, destination| {
        let step = ethernet(source, destination).ipv4(CLIENT_4, VIP_4, 63).tcp(40_000, 80, 8, 1_024).ack(9);
        built!(step, b"GET / HTTP/1.1\r\n\r\n")
    };
    let dns = |source, destination, vip| {
        built!(ethernet(source, destination).ipv4(CLIENT_4, vip, 64).udp(40_000, 53), b"query")
    };
    let web6 = |source, destination| {
        let step = ethernet(source, destination).ipv6(CLIENT_6, VIP_6, 64).tcp(40_000, 80, 7, 1_024).syn();
        built!(step, b"")
    };
    let tagged = |source, destination, tag, vip| {
        let step = ethernet(source, destination).single_vlan(vlan(tag)).ipv4(CLIENT_4, vip, 64);
        built!(step.udp(40_000, 53), b"query")
    };
    let twice_tagged = |source, destination| {
        let step = ethernet(source, destination).double_vlan(vlan(7), vlan(8)).ipv6(CLIENT_6, VIP_6, 64);
        built!(step.tcp(40_000, 80, 7, 1_024).syn(), b"")
    };
    let zero_checksum = |source, destination| {
        let mut bytes = dns(source, destination, VIP_4);
        bytes[40..42].fill(0);
        bytes
    };
    let other_port = |from: ([u8; 6], [u8; 4], u16), to: ([u8; 6], [u8; 4], u16)| {
        built!(ethernet(from.0, to.0).ipv4(from.1, to.1, 64).udp(from.2, to.2), b"not a service")
    };
    let echo = |source, destination, from, to, reply| {
        let step = ethernet(source, destination).ipv4(from, to, 64);
        if reply {
            built!(step.icmpv4_echo_reply(7, 9), b"ping")
        } else {
            built!(step.icmpv4_echo_request(7, 9), b"ping")
        }
    };
    let arp = |source, destination| {
        let mut bytes = Vec::new();
        Ethernet2Header { source, destination, ether_type: EtherType::ARP }.write(&mut bytes).unwrap();
        bytes.extend([0; 46]);
        bytes
    };
    let cut = |mut bytes: Vec<u8>, length| {
        bytes.truncate(length);
        bytes
    };
    use Expect::{Bounced, Dropped, Forwarded};
    vec![
        (
            "a SYN goes to the backend, its IP header untouched",
            syn(CLIENT, FRONT),
            Bounced(syn(FRONT, BACKEND_A)),
        ),
        ("so does a packet of the connection", page(CLIENT, FRONT), Bounced(page(FRONT, BACKEND_A))),
        ("UDP as well", dns(CLIENT, FRONT, VIP_4), Bounced(dns(FRONT, BACKEND_A, VIP_4))),
        (
            "UDP without checksum stays without",
            zero_checksum(CLIENT, FRONT),
            Bounced(zero_checksum(FRONT, BACKEND_A)),
        ),
        ("IPv6", web6(CLIENT, FRONT), Bounced(web6(FRONT, BACKEND_A))),
        (
            "a VLAN tag is that of the way to the backend, which is in none",
            tagged(CLIENT, FRONT, 7, VIP_4),
            Bounced(dns(FRONT, BACKEND_A, VIP_4)),
        ),
        ("two tags are none then, too", twice_tagged(CLIENT, FRONT), Bounced(web6(FRONT, BACKEND_A))),
        (
            "a backend in a VLAN: the packet gets its tag",
            dns(CLIENT, FRONT, VLAN_VIP_4),
            Bounced(tagged(FRONT, BACKEND_A, 9, VLAN_VIP_4)),
        ),
        (
            "a backend in another VLAN",
            tagged(CLIENT, FRONT, 7, VLAN_VIP_4),
            Bounced(tagged(FRONT, BACKEND_A, 9, VLAN_VIP_4)),
        ),
        (
            "a backend behind the other port: from that port's address",
            dns(CLIENT, FRONT, FAR_VIP_4),
            Forwarded(dns(BACK, BACKEND_B, FAR_VIP_4)),
        ),
        ("a backend without MAC address", dns(CLIENT, FRONT, LOST_VIP_4), Dropped("no-neighbour")),
        (
            "another port of the VIP is no service: the next stage bounces it",
            other_port((CLIENT, CLIENT_4, 40_000), (FRONT, VIP_4, 54)),
            Bounced(other_port((FRONT, VIP_4, 54), (CLIENT, CLIENT_4, 40_000))),
        ),
        (
            "UDP to the port of a TCP service is none either",
            other_port((CLIENT, CLIENT_4, 40_000), (FRONT, VIP_4, 80)),
            Bounced(other_port((FRONT, VIP_4, 80), (CLIENT, CLIENT_4, 40_000))),
        ),
        (
            "a ping of the VIP is answered",
            echo(CLIENT, FRONT, CLIENT_4, VIP_4, false),
            Bounced(echo(FRONT, CLIENT, VIP_4, CLIENT_4, true)),
        ),
        (
            "a ping of another address is answered by the bouncer",
            echo(CLIENT, FRONT, CLIENT_4, OTHER_4, false),
            Bounced(echo(FRONT, CLIENT, OTHER_4, CLIENT_4, true)),
        ),
        (
            "the first fragment goes to the backend",
            fragment4(CLIENT, FRONT, VIP_4, 0),
            Bounced(fragment4(FRONT, BACKEND_A, VIP_4, 0)),
        ),
        (
            "a later fragment has no port, but the address has one service of its protocol",
            fragment4(CLIENT, FRONT, VIP_4, 64),
            Bounced(fragment4(FRONT, BACKEND_A, VIP_4, 64)),
        ),
        (
            "a first fragment of IPv6",
            fragment6(CLIENT, FRONT, VIP_6, 0),
            Bounced(fragment6(FRONT, BACKEND_A, VIP_6, 0)),
        ),
        (
            "a later fragment of IPv6",
            fragment6(CLIENT, FRONT, VIP_6, 64),
            Bounced(fragment6(FRONT, BACKEND_A, VIP_6, 64)),
        ),
        (
            "a fragment for another address is left to the next stage",
            fragment4(CLIENT, FRONT, OTHER_4, 64),
            Bounced(swapped_fragment4(FRONT, CLIENT, OTHER_4, 64)),
        ),
        ("what is not IP is bounced by its MAC addresses", arp(CLIENT, FRONT), Bounced(arp(FRONT, CLIENT))),
        ("what is sent to everybody is not answered", arp(CLIENT, [0xff; 6]), Dropped("not-answered")),
        ("a broken TCP header", cut(syn(CLIENT, FRONT), 50), Dropped("malformed")),
        ("a broken Ethernet header", cut(syn(CLIENT, FRONT), 13), Dropped("malformed")),
    ]
}

/// A fragment, with this offset in bytes, of a datagram to port 53.
fn fragment4(source_mac: [u8; 6], destination_mac: [u8; 6], vip: [u8; 4], offset: u16) -> Vec<u8> {
    fragment4_between(source_mac, destination_mac, CLIENT_4, vip, offset)
}

/// The same with its addresses swapped.
fn swapped_fragment4(source_mac: [u8; 6], destination_mac: [u8; 6], vip: [u8; 4], offset: u16) -> Vec<u8> {
    fragment4_between(source_mac, destination_mac, vip, CLIENT_4, offset)
}

fn fragment4_between(
    source_mac: [u8; 6],
    destination_mac: [u8; 6],
    source: [u8; 4],
    destination: [u8; 4],
    offset: u16,
) -> Vec<u8> {
    let body = fragment_body(offset);
    let mut header = Ipv4Header::new(body.len() as u16, 64, IpNumber::UDP, source, destination).unwrap();
    header.identification = 77;
    header.more_fragments = offset == 0;
    header.fragment_offset = IpFragOffset::try_new(offset / 8).unwrap();
    header.header_checksum = header.calc_header_checksum();
    let mut bytes = Vec::new();
    let link =
        Ethernet2Header { source: source_mac, destination: destination_mac, ether_type: EtherType::IPV4 };
    link.write(&mut bytes).unwrap();
    header.write(&mut bytes).unwrap();
    [bytes, body].concat()
}

fn fragment6(source_mac: [u8; 6], destination_mac: [u8; 6], vip: [u8; 16], offset: u16) -> Vec<u8> {
    let body = fragment_body(offset);
    let header = Ipv6Header {
        payload_length: 8 + body.len() as u16,
        next_header: IpNumber::IPV6_FRAGMENTATION_HEADER,
        hop_limit: 64,
        source: CLIENT_6,
        destination: vip,
        ..Ipv6Header::default()
    };
    let place = IpFragOffset::try_new(offset / 8).unwrap();
    let fragment = Ipv6FragmentHeader::new(IpNumber::UDP, place, offset == 0, 77);
    let mut bytes = Vec::new();
    let link =
        Ethernet2Header { source: source_mac, destination: destination_mac, ether_type: EtherType::IPV6 };
    link.write(&mut bytes).unwrap();
    header.write(&mut bytes).unwrap();
    fragment.write(&mut bytes).unwrap();
    [bytes, body].concat()
}

/// The first fragment starts with a UDP header, whose length and checksum are of the whole datagram.
fn fragment_body(offset: u16) -> Vec<u8> {
    let mut body = vec![0xab; 64];
    if offset == 0 {
        body[..2].copy_from_slice(&40_000u16.to_be_bytes());
        body[2..4].copy_from_slice(&53u16.to_be_bytes());
        body[4..6].copy_from_slice(&128u16.to_be_bytes());
        body[6..8].copy_from_slice(&[0x12, 0x34]);
    }
    body
}

/// Packet by packet, so that a failure shows the one that differs.
fn assert_sent(sent: &[Vec<u8>], expected: &[Vec<u8>], what: &str) {
    for (index, (sent, expected)) in sent.iter().zip(expected).enumerate() {
        assert_eq!(sent, expected, "{what}: packet {index}");
    }
    assert_eq!(sent.len(), expected.len(), "{what}");
}

#[test]
fn every_packet_of_the_table_becomes_what_it_should() {
    for (what, packet, expect) in table() {
        let length = packet.len() as u64;
        let (outcome, _) = balance_then_bounce(&[packet]);
        let counters = &outcome.counters;
        assert_eq!((counters.rx_packets, counters.rx_bytes), (1, length), "{what}");
        let verdicts = (counters.bounced, counters.forwarded, counters.dropped_total());
        match expect {
            Expect::Bounced(bytes) => {
                assert_sent(&outcome.sent[0], &[bytes], what);
                assert_eq!(verdicts, (1, 0, 0), "{what}");
            }
            Expect::Forwarded(bytes) => {
                assert_sent(&outcome.sent[1], &[bytes], what);
                assert_eq!(verdicts, (0, 1, 0), "{what}");
            }
            Expect::Dropped(reason) => {
                assert!(outcome.sent.iter().all(Vec::is_empty), "{what}");
                assert_eq!(verdicts, (0, 0, 1), "{what}");
                assert_eq!(counters.dropped, [(reason, 1)], "{what}");
            }
        }
    }
}

#[test]
fn packets_in_one_batch_do_not_disturb_each_other() {
    // The whole table several times over, so that it fills more than a batch.
    let rows: Vec<_> = (0..5).flat_map(|_| table()).collect();
    let packets: Vec<Vec<u8>> = rows.iter().map(|(_, packet, _)| packet.clone()).collect();
    let (outcome, backends) = balance_then_bounce(&packets);
    let (mut sent, mut dropped) = ([vec![], vec![]], 0);
    for (_, _, expect) in rows {
        match expect {
            Expect::Bounced(bytes) => sent[0].push(bytes),
            Expect::Forwarded(bytes) => sent[1].push(bytes),
            Expect::Dropped(_) => dropped += 1,
        }
    }
    assert_sent(&outcome.sent[0], &sent[0], "first port, in the order of arrival");
    assert_sent(&outcome.sent[1], &sent[1], "second port, in the order of arrival");
    assert_eq!(outcome.counters.dropped_total(), dropped);
    assert!(outcome.counters.batches > 1);
    let of = |service: &str| backends.iter().find(|row| row.service == service).unwrap();
    assert_eq!((of("web").packets, of("web").connections), (10, 1), "a repeated SYN is no new connection");
    assert_eq!((of("web6").packets, of("web6").connections), (10, 1));
    assert_eq!((of("dns").packets, of("dns").connections), (25, 2), "fragments are a flow of their own");
    assert_eq!((of("dns6").packets, of("dns6").connections), (10, 1));
    assert_eq!((of("far").packets, of("lost").packets), (5, 0), "what is dropped is not counted as sent");
}

#[test]
fn behind_balance_alone_what_is_for_no_service_is_dropped_as_undecided() {
    let control = balance();
    let stage = control.stage(0);
    teach(&control);
    let packets: Vec<Vec<u8>> = table().into_iter().map(|(_, packet, _)| packet).collect();
    let outcome = run(stage, &packets);
    let counters = &outcome.counters;
    assert_eq!((counters.bounced, counters.forwarded), (14, 1));
    assert_eq!(counters.dropped, [("undecided", 8), ("no-neighbour", 1)]);
}
