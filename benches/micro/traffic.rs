//! Services, rules and packets that benches measure with.

use std::net::IpAddr;

use etherparse::PacketBuilder;
use xfwd::packet::{MacAddress, parse};
use xfwd::stages::balance::nat::NatPool;
use xfwd::stages::balance::way::LinkHeader;
use xfwd::stages::balance::{BalanceControl, BalanceOptions, BalancedService, Egress, Forward};
use xfwd::stages::filter::{Action, Classifier, Facts, Rule};

use crate::support::classbench;
use crate::support::packets::Random;

pub const BACKENDS: u16 = 100;
const VIPS: [&str; 2] = ["198.18.10.1", "2001:db8:10::1"];
const OURS: [&str; 2] = ["198.18.0.2", "2001:db8::2"];
const PORT: u16 = 80;
/// Flows for each address of `nat`: a few less than it has ports.
const FLOWS_PER_ADDRESS: usize = 64_000;
/// As short as a frame can be.
pub const ACK: &[u8] = &[0; 6];

/// A service with a hundred backends, all of which can be reached. The connection table has room for twice the flows, and there are as many
/// addresses of `nat` as they need.
pub fn control(is_ipv4: bool, forward: Forward, over_ipv4: bool, flows: usize) -> BalanceControl {
    let address = |index: u16| -> IpAddr {
        let text = if over_ipv4 { format!("198.18.1.{index}") } else { format!("2001:db8:1::{index:x}") };
        text.parse().unwrap()
    };
    let vip = VIPS[usize::from(!is_ipv4)].parse().unwrap();
    let service = BalancedService::new("web", vip, 6, PORT, forward);
    let service = (0..BACKENDS).fold(service, |service, index| service.with(address(index), 1));
    let ours = OURS.map(|text| text.parse::<IpAddr>().unwrap());
    let more = (2..=flows.div_ceil(FLOWS_PER_ADDRESS)).filter(|_| forward == Forward::Nat && is_ipv4);
    let more = more.map(|number| IpAddr::from([198, 18, 2, u8::try_from(number).unwrap()]));
    let pool: Vec<IpAddr> = ours.into_iter().chain(more).collect();
    let options = BalanceOptions {
        connections: 2 * flows.max(1_024),
        nat: Some(NatPool::new(&pool, 1_024..=65_535, 1).unwrap()),
        ..BalanceOptions::new(1, vec![MacAddress([2; 6])])
    };
    let control = BalanceControl::new(options, vec![service]).unwrap();
    let link = LinkHeader { source: MacAddress([2; 6]), destination: MacAddress([4; 6]), vlan: None };
    let source = Some(ours[usize::from(!over_ipv4)]);
    let egress = Egress { port: 0, link, mtu: 9_000, is_direct: true, source };
    control.set_egress((0..BACKENDS).map(|index| (address(index), Some(egress))));
    control
}

/// A segment to the service, of which [`set_flow`] changes the client's address.
pub fn segment(is_ipv4: bool, payload: &[u8]) -> Vec<u8> {
    let link = PacketBuilder::ethernet2([6; 6], [2; 6]);
    let ip = match VIPS[usize::from(!is_ipv4)].parse().unwrap() {
        IpAddr::V4(vip) => link.ipv4([10, 0, 0, 0], vip.octets(), 64),
        IpAddr::V6(vip) => link.ipv6([0x20; 16], vip.octets(), 64),
    };
    let mut bytes = Vec::new();
    ip.tcp(40_000, PORT, 1, 512).ack(1).write(&mut bytes, payload).unwrap();
    bytes
}

/// Sets the client's address. Checksums are not looked at by the stages.
pub fn set_flow(packet: &mut [u8], flow: usize) {
    let last = if packet[12] == 8 { 30 } else { 38 };
    packet[last - 3..last].copy_from_slice(&(flow as u32).to_be_bytes()[1..]);
}

/// Copies a packet into a buffer; its length.
pub fn copy(packet: &[u8], buffer: &mut [u8]) -> usize {
    buffer[..packet.len()].copy_from_slice(packet);
    packet.len()
}

/// The packet from where it was sent to.
pub fn turned_around(packet: &[u8]) -> Vec<u8> {
    let mut bytes = packet.to_vec();
    let headers = parse(packet, packet.len());
    let (at, size) = if headers.ip_version == 4 { (26, 4) } else { (22, 16) };
    let (source, destination) = bytes[at..at + 2 * size].split_at_mut(size);
    source.swap_with_slice(destination);
    let at = usize::from(headers.transport_offset);
    let (source, destination) = bytes[at..at + 4].split_at_mut(2);
    source.swap_with_slice(destination);
    bytes
}

/// A list in front of the IPv4 service: such as ClassBench makes, and at its end one that accepts what is for the service.
pub fn rules(count: usize) -> Vec<Rule> {
    let mut rules = classbench::rules(count - 1, 42);
    let mut service = Rule::new("service", Action::Accept);
    service.matches.dst = vec![VIPS[0].parse().unwrap()];
    service.matches.protocol = vec![6];
    service.matches.dst_port = vec![PORT..=PORT];
    rules.push(service);
    rules
}

/// Clients of the IPv4 service, address and port, whom a list lets pass: every other one from a network that a rule names.
pub fn clients(rules: &[Rule], count: usize) -> Vec<(u32, u16)> {
    let classifier = Classifier::new(rules);
    let networks: Vec<(u32, u8)> = rules
        .iter()
        .flat_map(|rule| &rule.matches.src)
        .filter_map(|prefix| match prefix.address() {
            IpAddr::V4(address) => Some((address.to_bits(), prefix.length())),
            IpAddr::V6(_) => None,
        })
        .collect();
    let mut random = Random::new(9);
    let mut packet = segment(true, ACK);
    let mut clients = Vec::with_capacity(count);
    while clients.len() < count {
        let any = random.u64() as u32;
        let address = if clients.len() % 2 == 0 && !networks.is_empty() {
            let (network, length) = *random.of(&networks);
            network | any & u32::MAX.checked_shr(length.into()).unwrap_or(0)
        } else {
            any
        };
        let client = (address, 1_024 + random.u16() % 60_000);
        set_client(&mut packet, client);
        let found = classifier.first_match(&Facts::of(&packet, &parse(&packet, packet.len())));
        if found.is_none_or(|rule| rules[rule].action != Action::Drop) {
            clients.push(client);
        }
    }
    clients
}

/// Sets address and port of the client of an IPv4 packet.
pub fn set_client(packet: &mut [u8], (address, port): (u32, u16)) {
    packet[26..30].copy_from_slice(&address.to_be_bytes());
    packet[34..36].copy_from_slice(&port.to_be_bytes());
}
