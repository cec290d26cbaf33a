//! The hot path of balancing.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use crossbeam::queue::ArrayQueue;
use foldhash::fast::FixedState;
use xfwd_ebpf_types::ServiceKey;

use super::control::{MemberCounters, NeighbourUpdate};
use super::maglev::Table;
use crate::packet::{Ethernet, FiveTuple, Fragment, Headers, MacAddress, Tcp};
use crate::pipeline::{Batch, DropReason, Packet, PortIndex, Stage, Verdict};

/// The services to balance: what all workers share.
#[derive(Debug)]
pub struct BalancePlan {
    /// The services.
    pub services: Vec<BalancedService>,
}

/// A service and its backends.
#[derive(Debug)]
pub struct BalancedService {
    /// Name of the service, as counters show it.
    pub name: String,
    /// Which packets belong to it.
    pub key: ServiceKey,
    /// Which backend a hash belongs to: indices into `members`.
    pub table: Table,
    /// The backends.
    pub members: Vec<Member>,
}

/// A backend of a service.
#[derive(Clone, Debug)]
pub struct Member {
    /// Its address.
    pub address: IpAddr,
    /// Its weight.
    pub weight: u32,
    /// The port that leads to it.
    pub port: PortIndex,
    /// MAC address of that port.
    pub source: MacAddress,
}

/// The stage: one instance a worker.
pub struct Balance {
    /// Looked up with a fixed seed: the keys are the operator's, not the sender's.
    services: HashMap<ServiceKey, Target, FixedState>,
    plan: Arc<BalancePlan>,
    /// MAC address of every backend, over all services.
    macs: Vec<Option<MacAddress>>,
    counters: Arc<MemberCounters>,
    neighbours: Arc<ArrayQueue<NeighbourUpdate>>,
}

#[derive(Clone, Copy)]
struct Target {
    /// Index of the service in the plan.
    service: u32,
    /// Where its backends begin in `macs` and in the counters.
    first_member: u32,
}

impl Balance {
    pub(super) fn new(
        plan: Arc<BalancePlan>,
        counters: Arc<MemberCounters>,
        neighbours: Arc<ArrayQueue<NeighbourUpdate>>,
    ) -> Self {
        let mut services = HashMap::with_hasher(FixedState::default());
        let mut members = 0;
        for (index, service) in plan.services.iter().enumerate() {
            services.insert(service.key, Target { service: index as u32, first_member: members as u32 });
            members += service.members.len();
        }
        Self { services, plan, macs: vec![None; members], counters, neighbours }
    }

    #[inline]
    fn judge(&self, packet: &mut Packet<'_>, port: PortIndex) -> Verdict {
        let len = packet.len() as u64;
        let (headers, bytes) = packet.headers_and_bytes();
        // Fragments carry no ports, or will be followed by some that do not.
        if headers.fragment() != Fragment::No {
            return Verdict::Continue;
        }
        let Some(tuple) = FiveTuple::of(bytes, headers) else { return Verdict::Continue };
        let Some(target) = self.services.get(&key_of(&tuple)) else { return Verdict::Continue };
        let service = &self.plan.services[target.service as usize];
        let chosen = service.table.lookup(tuple.flow_hash()) as usize;
        let (member, index) = (&service.members[chosen], target.first_member as usize + chosen);
        let Some(mac) = self.macs[index] else { return Verdict::Drop(DropReason::NoNeighbour) };
        let starts_connection = is_syn(headers);
        let Ok(mut ethernet) = Ethernet::new_checked(bytes) else {
            return Verdict::Drop(DropReason::Malformed);
        };
        ethernet.set_destination(mac);
        ethernet.set_source(member.source);
        self.counters.count(index, len, starts_connection);
        if member.port == port { Verdict::Bounce } else { Verdict::Forward(member.port) }
    }
}

impl Stage for Balance {
    fn name(&self) -> &str {
        "balance"
    }

    fn process(&mut self, batch: &mut Batch<'_>) {
        let port = batch.port();
        batch.each_undecided(|packet| self.judge(packet, port));
    }

    fn housekeeping(&mut self) {
        while let Some(update) = self.neighbours.pop() {
            self.macs[update.member as usize] = update.mac;
        }
    }
}

#[inline(always)]
fn key_of(tuple: &FiveTuple) -> ServiceKey {
    ServiceKey { address: tuple.dst, port: tuple.dst_port.to_be_bytes(), protocol: tuple.protocol, scope: 0 }
}

#[inline(always)]
fn is_syn(headers: &Headers) -> bool {
    headers.tcp_flags & (Tcp::SYN | Tcp::ACK) == Tcp::SYN
}

#[cfg(test)]
mod tests {
    use etherparse::{IpFragOffset, IpNumber, Ipv4Header, PacketBuilder};

    use super::super::BalanceControl;
    use super::*;
    use crate::kernel::xdp::service_key;
    use crate::packet::parse;

    const CLIENT: [u8; 6] = [2, 0, 0, 0, 0, 1];
    const SELF: [u8; 6] = [2, 0, 0, 0, 0, 2];
    const CLIENT4: [u8; 4] = [198, 18, 0, 1];
    const VIP4: [u8; 4] = [198, 18, 10, 1];
    const CLIENT6: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
    const VIP6: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
    const TCP: u8 = 6;
    const BACKENDS: u8 = 5;

    macro_rules! built {
        ($step:expr $(,)?) => {{
            let (step, mut bytes) = ($step, Vec::new());
            step.write(&mut bytes, b"payload").unwrap();
            bytes
        }};
    }

    fn mac(backend: usize) -> MacAddress {
        MacAddress([2, 0, 0, 0, 1, backend as u8])
    }

    fn address(backend: usize) -> IpAddr {
        IpAddr::from([198, 18, 0, 11 + backend as u8])
    }

    fn table() -> Table {
        let keys: Vec<_> = (0..BACKENDS).map(|backend| ([backend], u32::from(backend) + 1)).collect();
        Table::build(&keys, 1_009).unwrap()
    }

    /// TCP port 80 of both VIPs, on the same backends. Those with an odd number are behind the second port.
    fn control() -> BalanceControl {
        let service = |name: &str, vip: IpAddr| BalancedService {
            name: name.to_owned(),
            key: service_key(vip, TCP, 80),
            table: table(),
            members: (0..usize::from(BACKENDS))
                .map(|backend| Member {
                    address: address(backend),
                    weight: backend as u32 + 1,
                    port: (backend % 2) as PortIndex,
                    source: MacAddress(SELF),
                })
                .collect(),
        };
        let services = vec![service("web4", VIP4.into()), service("web6", VIP6.into())];
        BalanceControl::new(BalancePlan { services })
    }

    /// A stage that knows all MAC addresses.
    fn ready() -> (BalanceControl, Balance) {
        let mut control = control();
        let mut stage = control.stage();
        for backend in 0..usize::from(BACKENDS) {
            assert!(control.set_neighbour(address(backend), Some(mac(backend))));
        }
        stage.housekeeping();
        (control, stage)
    }

    fn judged(stage: &mut Balance, packet: &mut [u8]) -> Verdict {
        let len = packet.len() as u32;
        let mut batch = Batch::new(0);
        batch.push(packet, len);
        batch.parse();
        stage.process(&mut batch);
        batch.finish()[0]
    }

    fn flow4(port: u16) -> Vec<u8> {
        built!(PacketBuilder::ethernet2(CLIENT, SELF).ipv4(CLIENT4, VIP4, 64).tcp(port, 80, 1, 1_024).ack(2))
    }

    fn flow6(port: u16) -> Vec<u8> {
        built!(PacketBuilder::ethernet2(CLIENT, SELF).ipv6(CLIENT6, VIP6, 64).tcp(port, 80, 1, 1_024).ack(2))
    }

    /// What the table says for a packet.
    fn chosen(packet: &[u8]) -> usize {
        let tuple = FiveTuple::of(packet, &parse(packet, packet.len())).unwrap();
        table().lookup(tuple.flow_hash()).into()
    }

    #[test]
    fn a_flow_goes_where_the_table_says_by_the_port_that_leads_there() {
        let (_control, mut stage) = ready();
        let mut seen = [false; BACKENDS as usize];
        for port in 1_024..1_224 {
            for mut packet in [flow4(port), flow6(port)] {
                let backend = chosen(&packet);
                let before = packet.clone();
                let verdict = judged(&mut stage, &mut packet);
                assert_eq!(
                    verdict,
                    if backend.is_multiple_of(2) { Verdict::Bounce } else { Verdict::Forward(1) }
                );
                assert_eq!(packet[..6], mac(backend).0);
                assert_eq!(packet[6..12], SELF);
                assert_eq!(packet[12..], before[12..], "nothing but the MAC addresses changes");
                seen[backend] = true;
            }
        }
        assert_eq!(seen, [true; BACKENDS as usize]);
    }

    #[test]
    fn what_is_for_no_service_is_left_alone() {
        let (control, mut stage) = ready();
        let link = || PacketBuilder::ethernet2(CLIENT, SELF);
        let mut fragment = Ipv4Header::new(20, 64, IpNumber::TCP, CLIENT4, VIP4).unwrap();
        fragment.more_fragments = true;
        let mut later = fragment.clone();
        later.fragment_offset = IpFragOffset::try_new(9).unwrap();
        let fragmented = |header: Ipv4Header| {
            built!(
                link().ip(etherparse::IpHeaders::Ipv4(header, Default::default())).tcp(1_024, 80, 1, 1_024)
            )
        };
        let mut not_ip = flow4(1_024);
        not_ip[12..14].copy_from_slice(&[0x88, 0xcc]);
        for (what, packet) in [
            ("another port", built!(link().ipv4(CLIENT4, VIP4, 64).tcp(1_024, 81, 1, 1_024))),
            ("another protocol", built!(link().ipv4(CLIENT4, VIP4, 64).udp(1_024, 80))),
            ("another address", built!(link().ipv4(CLIENT4, CLIENT4, 64).tcp(1_024, 80, 1, 1_024))),
            ("an answer from the service", built!(link().ipv4(VIP4, CLIENT4, 64).tcp(80, 1_024, 1, 1_024))),
            ("ICMP", built!(link().ipv4(CLIENT4, VIP4, 64).icmpv4_echo_request(1, 80))),
            ("a first fragment", fragmented(fragment)),
            ("a later fragment", fragmented(later)),
            ("not IP", not_ip),
            ("a broken header", flow4(1_024)[..50].to_vec()),
        ] {
            let mut judged_packet = packet.clone();
            assert_eq!(judged(&mut stage, &mut judged_packet), Verdict::Continue, "{what}");
            assert_eq!(judged_packet, packet, "{what}");
        }
        assert!(control.counters().iter().all(|row| row.packets == 0));
    }

    #[test]
    fn a_packet_for_a_backend_without_mac_address_is_dropped_and_not_counted_as_sent() {
        let (control, mut stage) = ready();
        let backend = chosen(&flow4(1_024));
        assert!(control.set_neighbour(address(backend), None));
        stage.housekeeping();
        let mut packet = flow4(1_024);
        assert_eq!(judged(&mut stage, &mut packet), Verdict::Drop(DropReason::NoNeighbour));
        assert_eq!(packet, flow4(1_024), "as it came");
        assert!(control.counters().iter().all(|row| row.packets == 0));
    }

    #[test]
    fn news_of_a_backend_hold_from_the_next_housekeeping_on_in_the_order_they_came() {
        let (control, mut stage) = ready();
        let backend = chosen(&flow6(1_024));
        let moved = MacAddress([2, 0, 0, 0, 9, 9]);
        assert!(control.set_neighbour(address(backend), None));
        assert!(control.set_neighbour(address(backend), Some(moved)));
        let destination = |stage: &mut Balance| {
            let mut packet = flow6(1_024);
            judged(stage, &mut packet);
            packet[..6].to_vec()
        };
        assert_eq!(destination(&mut stage), mac(backend).0);
        stage.housekeeping();
        assert_eq!(destination(&mut stage), moved.0);
    }

    #[test]
    fn packets_bytes_and_connections_are_counted_for_the_backend_of_the_service() {
        let (control, mut stage) = ready();
        let syn = || {
            built!(
                PacketBuilder::ethernet2(CLIENT, SELF).ipv4(CLIENT4, VIP4, 64).tcp(1_024, 80, 1, 1_024).syn()
            )
        };
        let syn_ack = || {
            built!(
                PacketBuilder::ethernet2(CLIENT, SELF)
                    .ipv4(CLIENT4, VIP4, 64)
                    .tcp(1_024, 80, 1, 1_024)
                    .syn()
                    .ack(1)
            )
        };
        let backend = chosen(&syn());
        let packets = [syn(), flow4(1_024), syn_ack(), flow4(1_024)];
        let bytes: u64 = packets.iter().map(|packet| packet.len() as u64).sum();
        for mut packet in packets {
            judged(&mut stage, &mut packet);
        }
        let rows = control.counters();
        let sent: Vec<_> = rows.iter().filter(|row| row.packets > 0).collect();
        assert_eq!(sent.len(), 1, "one flow, one backend of one service");
        assert_eq!((sent[0].service.as_str(), sent[0].address), ("web4", address(backend)));
        assert_eq!((sent[0].packets, sent[0].bytes, sent[0].connections), (4, bytes, 1));
    }
}
