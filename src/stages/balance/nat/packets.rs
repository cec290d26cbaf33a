//! Packets for the tests of this room, and an independent look at their checksums.

use std::net::{IpAddr, SocketAddr};

use etherparse::{IcmpEchoHeader, PacketBuilder, PacketBuilderStep};

use super::super::connections::{Tick, Timeouts};
use super::session::{destination, source};
use super::*;
use crate::packet::protocol::{ICMP, ICMPV6, TCP, UDP};
use crate::packet::{FiveTuple, parse};
use crate::pipeline::{Batch, Packet, Verdict};

pub(super) const NETWORK: usize = 14;
pub(super) const FAMILIES: [bool; 2] = [true, false];
pub(super) const PROTOCOLS: [u8; 2] = [TCP, UDP];

pub(super) fn socket(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// Client, service, backend and a router, of one family.
pub(super) struct World {
    pub(super) client: SocketAddr,
    pub(super) service: SocketAddr,
    pub(super) backend: SocketAddr,
    pub(super) router: IpAddr,
}

pub(super) fn world(is_ipv4: bool) -> World {
    let of = |ipv4: &str, ipv6: &str| socket(if is_ipv4 { ipv4 } else { ipv6 });
    World {
        client: of("203.0.113.7:40000", "[2001:db8:c::7]:40000"),
        service: of("198.18.10.1:80", "[2001:db8:10::1]:80"),
        backend: of("198.18.0.11:8080", "[2001:db8::11]:8080"),
        router: of("192.0.2.1:0", "[2001:db8:f::1]:0").ip(),
    }
}

pub(super) const TIMEOUTS: Timeouts = Timeouts {
    syn: std::time::Duration::from_secs(60),
    established: std::time::Duration::from_secs(900),
    closing: std::time::Duration::from_secs(120),
    udp: std::time::Duration::from_secs(30),
};

/// The moment so many seconds after a start.
pub(super) fn at(seconds: u32) -> Tick {
    Tick::from_number(1_000).after(64 * seconds)
}

/// Workers with one address of each family.
pub(super) fn workers(ports: std::ops::RangeInclusive<u16>, count: usize) -> Vec<NatWorker> {
    let addresses = [IpAddr::from([198, 18, 0, 2]), "2001:db8::2".parse().unwrap()];
    NatPool::new(&addresses, ports, count).unwrap().workers(TIMEOUTS)
}

pub(super) fn flow(protocol: u8, from: SocketAddr, to: SocketAddr) -> FiveTuple {
    let (from, to) = (Endpoint::from(from), Endpoint::from(to));
    FiveTuple { src: from.address, dst: to.address, src_port: from.port, dst_port: to.port, protocol }
}

/// An open session of the one flow of a [`World`].
pub(super) fn session(protocol: u8, is_ipv4: bool) -> Session {
    let world = world(is_ipv4);
    let mut worker = workers(1_024..=2_047, 1).remove(0);
    let flow = flow(protocol, world.client, world.service);
    let id = worker.open(at(0), &flow, world.backend.into(), 3).unwrap();
    worker.flow(id, &flow).unwrap()
}

fn ip(from: IpAddr, to: IpAddr) -> PacketBuilderStep<etherparse::IpHeaders> {
    let link = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);
    match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => link.ipv4(from.octets(), to.octets(), 64),
        (IpAddr::V6(from), IpAddr::V6(to)) => link.ipv6(from.octets(), to.octets(), 64),
        _ => panic!("of two families"),
    }
}

/// A TCP segment or UDP datagram in an Ethernet frame.
pub(super) fn packet(protocol: u8, from: SocketAddr, to: SocketAddr, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let step = ip(from.ip(), to.ip());
    if protocol == TCP {
        let step = step.tcp(from.port(), to.port(), 0x1234_5678, 4_096).ack(9);
        step.options_raw(&[1, 1, 1, 1]).unwrap().write(&mut bytes, payload).unwrap();
    } else {
        step.udp(from.port(), to.port()).write(&mut bytes, payload).unwrap();
    }
    bytes
}

/// An ICMP error "packet too big" that quotes `quoted`, an IP packet.
pub(super) fn error(from: IpAddr, to: IpAddr, quoted: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    if from.is_ipv4() {
        ip(from, to).icmpv4_raw(3, 4, [0, 0, 5, 0]).write(&mut bytes, quoted).unwrap();
    } else {
        ip(from, to).icmpv6_raw(2, 0, [0, 0, 5, 0]).write(&mut bytes, quoted).unwrap();
    }
    bytes
}

/// An echo request.
pub(super) fn echo(from: IpAddr, to: IpAddr) -> Vec<u8> {
    let (mut bytes, echo) = (Vec::new(), IcmpEchoHeader { id: 1, seq: 2 });
    match from {
        IpAddr::V4(_) => ip(from, to).icmpv4_echo_request(echo.id, echo.seq).write(&mut bytes, b"x").unwrap(),
        IpAddr::V6(_) => ip(from, to).icmpv6_echo_request(echo.id, echo.seq).write(&mut bytes, b"x").unwrap(),
    }
    bytes
}

/// Does something with bytes as a packet of the pipeline.
pub(super) fn on<R>(bytes: &mut [u8], mut act: impl FnMut(&mut Packet<'_>) -> R) -> R {
    let (mut result, len) = (None, bytes.len() as u32);
    let mut batch = Batch::new(0);
    batch.push(bytes, len);
    batch.parse();
    batch.each_undecided(|packet| {
        result = Some(act(packet));
        Verdict::Continue
    });
    batch.finish();
    result.unwrap()
}

/// The ends of a TCP or UDP packet, as text.
pub(super) fn ends(bytes: &[u8]) -> String {
    let tuple = tuple_with_ports(bytes, &parse(bytes, bytes.len())).unwrap();
    ends_of(&tuple)
}

pub(super) fn ends_of(tuple: &FiveTuple) -> String {
    let end = |end: Endpoint| SocketAddr::from(end).to_string();
    format!("{} > {}", end(source(tuple)), end(destination(tuple)))
}

/// Sum of 16-bit words with end-around carry, one after the other.
fn ones_sum(parts: &[&[u8]]) -> u16 {
    let mut sum = 0u32;
    for part in parts {
        for pair in part.chunks(2) {
            sum += u32::from(pair[0]) * 256 + u32::from(*pair.get(1).unwrap_or(&0));
            sum = (sum & 0xffff) + (sum >> 16);
        }
    }
    sum as u16
}

/// Whether all checksums of an IP packet are right: that of an IPv4 header, and that of TCP, UDP or ICMP.
pub(super) fn is_right(network: &[u8]) -> bool {
    let (protocol, addresses, payload) = if network[0] >> 4 == 4 {
        let header_bytes = usize::from(network[0] & 15) * 4;
        if ones_sum(&[&network[..header_bytes]]) != 0xffff {
            return false;
        }
        (network[9], &network[12..20], &network[header_bytes..])
    } else {
        (network[6], &network[8..40], &network[40..])
    };
    let pseudo = [&[0, protocol], &(payload.len() as u16).to_be_bytes()[..]].concat();
    match protocol {
        ICMP => ones_sum(&[payload]) == 0xffff,
        TCP | UDP | ICMPV6 => {
            let field = if protocol == UDP { payload[6..8] == [0, 0] } else { false };
            !field && ones_sum(&[addresses, &pseudo, payload]) == 0xffff
        }
        _ => panic!("protocol {protocol}"),
    }
}
