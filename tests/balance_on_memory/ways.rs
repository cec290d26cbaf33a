//! Every way to a backend, through a worker: which backend, by which port, and every byte.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use etherparse::{IpNumber, Ipv4Header, Ipv6Header, UdpHeader};
use xfwd::port::memory::MemoryPort;
use xfwd::stages::balance::{BalanceControl, BalancedService, Forward};
use xfwd::worker::{Idle, Worker, WorkerCounters};

use crate::packets::{FAMILIES, Family, Packet, Transport, UDP, from_client, relinked};
use crate::rig::{chosen, egress, mac, nat_options, service, with};

const FLOWS: u16 = 40;

/// What is sent by each port.
fn run(services: Vec<BalancedService>, family: Family, room: usize, packets: &[Packet]) -> [Vec<Vec<u8>>; 2] {
    let control = BalanceControl::new(nat_options(1), services).unwrap();
    control.set_egress((0..5).map(|index| (family.backend(index), Some(egress(family, index)))));
    let counters = Arc::<WorkerCounters>::default();
    let ports = vec![MemoryPort::new(256), MemoryPort::new(256)];
    let mut worker = Worker::new(
        ports,
        MemoryPort::frames(1_024, 2_048),
        control.stage(0),
        Idle::Poll,
        Arc::clone(&counters),
    );
    worker.turn().unwrap();
    worker.ports_mut()[0].set_room(room);
    packets.iter().for_each(|packet| worker.ports_mut()[0].inject(&packet.bytes()));
    while worker.turn().unwrap() > 0 {
        worker.ports_mut().iter_mut().for_each(|port| port.drain_tx(64));
        worker.check_frames().unwrap();
    }
    assert_eq!(counters.snapshot().dropped_total(), 0, "{:?}", counters.snapshot().dropped);
    let mut sent = worker.ports_mut().iter_mut().map(MemoryPort::take_sent);
    [sent.next().unwrap(), sent.next().unwrap()]
}

/// The packet as it has to arrive at a backend; what nobody can know, since it is chosen by a secret, is taken from `sent`.
fn expected(packet: &Packet, forward: Forward, family: Family, backend: usize, sent: &[u8]) -> Vec<u8> {
    let link = egress(family, backend).link;
    let routed = Packet { hops: packet.hops - 1, ..packet.clone() };
    let ip_at = if link.vlan.is_some() { 18 } else { 14 };
    let sent = &sent[ip_at..];
    let ip = match forward {
        Forward::Dsr => packet.ip(),
        Forward::Ipip => {
            outer(family, backend, if packet.from.is_ipv4() { 4 } else { 41 }, sent, &routed.ip())
        }
        Forward::Gue => {
            let at = family.ip_bytes();
            let source = u16::from_be_bytes([sent[at], sent[at + 1]]);
            assert!(source >= 49_152, "a dynamic port");
            let inner = routed.ip();
            let udp = match (family.ours(), family.backend(backend)) {
                (IpAddr::V6(from), IpAddr::V6(to)) => {
                    let header = outer6(from.octets(), to.octets(), UDP, sent, 8 + inner.len());
                    UdpHeader::with_ipv6_checksum(source, 6_080, &header, &inner).unwrap()
                }
                _ => UdpHeader::without_ipv4_checksum(source, 6_080, inner.len()).unwrap(),
            };
            let datagram = [&udp.to_bytes()[..], &inner].concat();
            outer(family, backend, UDP, sent, &datagram)
        }
        _ => {
            let port = u16::from_be_bytes([sent[family.ip_bytes()], sent[family.ip_bytes() + 1]]);
            assert!((32_768..33_792).contains(&port), "a port of the pool");
            let to = SocketAddr::new(family.backend(backend), packet.to.port());
            Packet { from: SocketAddr::new(family.ours(), port), to, ..routed }.ip()
        }
    };
    relinked(&ip, link.source.0, mac(backend), link.vlan)
}

fn outer6(source: [u8; 16], destination: [u8; 16], protocol: u8, sent: &[u8], payload: usize) -> Ipv6Header {
    Ipv6Header {
        flow_label: Ipv6Header::from_slice(sent).unwrap().0.flow_label,
        payload_length: payload as u16,
        next_header: IpNumber(protocol),
        hop_limit: 64,
        source,
        destination,
        ..Ipv6Header::default()
    }
}

fn outer(family: Family, backend: usize, protocol: u8, sent: &[u8], payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    match (family.ours(), family.backend(backend)) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let length = payload.len() as u16;
            let mut header =
                Ipv4Header::new(length, 64, IpNumber(protocol), from.octets(), to.octets()).unwrap();
            header.header_checksum = header.calc_header_checksum();
            header.write(&mut bytes).unwrap();
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            outer6(from.octets(), to.octets(), protocol, sent, payload.len()).write(&mut bytes).unwrap();
        }
        _ => panic!("two families"),
    }
    [bytes, payload.to_vec()].concat()
}

#[test]
fn every_flow_arrives_at_the_backend_that_the_table_chooses_byte_for_byte() {
    for forward in [Forward::Dsr, Forward::Ipip, Forward::Gue, Forward::Nat] {
        for (client, backends) in
            FAMILIES.iter().flat_map(|client| FAMILIES.map(|backend| (*client, backend)))
        {
            if forward.keeps_family() && client.is_ipv4 != backends.is_ipv4 {
                continue;
            }
            for room in [0, 16, 64] {
                every_flow_arrives(forward, client, backends, room);
            }
        }
    }
}

fn every_flow_arrives(forward: Forward, client: Family, backends: Family, room: usize) {
    let what = format!("{forward:?} {client:?} {backends:?} room {room}");
    let services = [(6, 80), (17, 53)]
        .map(|(protocol, port)| with(service(client.vip(), protocol, port, forward), backends, 0..5));
    let tcp = ["S", "A", "FA"].map(|flags| Transport::Tcp(flags, None));
    let mut packets = Vec::new();
    for port in 40_000..40_000 + FLOWS {
        packets.extend(tcp.iter().map(|transport| from_client(client, port, 80, transport.clone())));
        packets.push(from_client(client, port, 53, Transport::Udp));
        // Tagged as it comes, and of an odd length.
        let tagged = from_client(client, port, 53, Transport::Udp);
        packets.push(Packet { vlan: Some(77), payload: b"odd".to_vec(), ..tagged });
    }
    let sent = run(services.to_vec(), backends, room, &packets);
    let mut sent = sent.map(|packets| packets.into_iter());
    let mut seen = [0; 5];
    for packet in &packets {
        let service = &services[usize::from(packet.to.port() == 53)];
        let backend = chosen(service, backends, &packet.tuple());
        seen[backend] += 1;
        let sent = sent[backend % 2].next().expect("sent by the port of its backend");
        assert_eq!(sent, expected(packet, forward, backends, backend, &sent), "{what}: {packet:?}");
    }
    assert!(sent.iter_mut().all(|rest| rest.next().is_none()), "{what}");
    assert!(seen.iter().all(|packets| *packets > 0), "{what}: {seen:?}");
}
