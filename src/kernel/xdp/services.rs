//! From services to what the maps `SERVICES`, `NETWORKS` and `PORTS` hold.
//!
//! A service of one address and one port is an entry of a hash map, and most packets need no other question. For all others
//! the longest prefix that holds the address has a number, which a trie knows, or the hash map if the prefix is one address; a
//! second trie finds the port among those of that number. So that one question to each is enough, the ports of a prefix are
//! joined by those of every shorter prefix that holds it, where it has no service of its own.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::{IpAddr, Ipv6Addr};

use xfwd_ebpf_types::{MAX_ROOM, MIN_ROOM, NetworkKey, PortKey, ServiceKey, Settings, map_ipv4};

use super::steering::{SteeredKind, SteeredService, Steering, address_key};
use crate::stages::filter::Prefix;

const ICMP: u8 = 1;
const ICMPV6: u8 = 58;

/// Ports that share their first bits, of a network that has no number yet, and the room of their service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::kernel) struct Ports {
    /// Bits of the whole key, see [`PortKey::length`].
    pub length: u32,
    pub protocol: u8,
    pub scope: u8,
    /// In host byte order.
    pub port: u16,
    pub room: u32,
}

/// What the maps are to hold.
#[derive(Debug, Default, PartialEq, Eq)]
pub(in crate::kernel) struct Compiled {
    /// `SERVICES`, with the room.
    pub services: HashMap<ServiceKey, u32>,
    /// `NETWORKS` and `PORTS`.
    pub networks: BTreeMap<Prefix, Vec<Ports>>,
    /// There is an IPv6 prefix that holds the IPv4-mapped addresses, which are IPv4's own here.
    pub hides_mapped: bool,
}

/// What is asked without a port: the most room by protocol, and whether echo requests are answered.
#[derive(Default)]
struct AnyPort {
    rooms: BTreeMap<u8, u32>,
    echo: bool,
}

impl AnyPort {
    fn add(&mut self, service: &SteeredService) {
        let most = self.rooms.entry(service.protocol).or_default();
        *most = room(service.room).max(*most);
        self.echo |= service.kind == SteeredKind::Vip;
    }

    /// Protocols and rooms.
    fn entries(self, ip_version: u8) -> impl Iterator<Item = (u8, u32)> {
        let echo = self.echo.then_some((if ip_version == 4 { ICMP } else { ICMPV6 }, 0));
        self.rooms.into_iter().chain(echo)
    }
}

/// The room that can be made, for what was asked.
fn room(bytes: u8) -> u32 {
    match bytes {
        0 => 0,
        room => room.clamp(MIN_ROOM, MAX_ROOM).into(),
    }
}

/// Whether the prefix is one address.
fn is_address(prefix: Prefix) -> bool {
    prefix.length() == if prefix.ip_version() == 4 { 32 } else { 128 }
}

/// Services by their network.
#[derive(Default)]
struct Networks<'a> {
    by_prefix: BTreeMap<Prefix, Vec<&'a SteeredService>>,
    /// Lengths that there are, by family.
    lengths: BTreeSet<(u8, u8)>,
}

impl<'a> Networks<'a> {
    fn add(&mut self, service: &'a SteeredService) {
        self.lengths.insert((service.network.ip_version(), service.network.length()));
        self.by_prefix.entry(service.network).or_default().push(service);
    }

    /// Services of the networks that hold `prefix`, from the longest network to the shortest.
    fn holding(&self, prefix: Prefix) -> impl Iterator<Item = &'a SteeredService> {
        let version = prefix.ip_version();
        let lengths = self.lengths.range((version, 0)..=(version, prefix.length())).rev();
        lengths
            .filter_map(move |&(_, length)| self.by_prefix.get(&Prefix::new(prefix.address(), length)))
            .flatten()
            .copied()
    }
}

/// What the maps are to hold for `services`.
pub(in crate::kernel) fn compile(services: &[SteeredService]) -> Compiled {
    let mut compiled = Compiled::default();
    let mut networks = Networks::default();
    let mut addresses: HashMap<IpAddr, AnyPort> = HashMap::new();
    for service in services {
        let (first, last) = (*service.ports.start(), *service.ports.end());
        if first > last {
            continue;
        }
        if first != last || !is_address(service.network) {
            networks.add(service);
            continue;
        }
        let address = service.network.address();
        let key = super::service_key(address, service.protocol, first);
        compiled.services.entry(key).or_insert(room(service.room));
        addresses.entry(address).or_default().add(service);
    }
    for (address, mut any) in addresses {
        let prefix = Prefix::new(address, u8::MAX);
        networks.holding(prefix).for_each(|service| any.add(service));
        for (protocol, room) in any.entries(prefix.ip_version()) {
            let address = address_key(address);
            let key = ServiceKey { address, port: [0; 2], protocol, scope: ServiceKey::ANY_PORT };
            compiled.services.insert(key, room);
        }
    }
    for &prefix in networks.by_prefix.keys() {
        compiled.networks.insert(prefix, ports_of(prefix, &networks));
    }
    let mapped = Prefix::new(Ipv6Addr::from([0, 0, 0, 0, 0, 0xffff, 0, 0]).into(), 96);
    compiled.hides_mapped = networks.holding(mapped).next().is_some();
    compiled
}

/// The ports of a network, its own before those of shorter ones.
fn ports_of(prefix: Prefix, networks: &Networks<'_>) -> Vec<Ports> {
    let mut by_protocol: BTreeMap<u8, Ranges> = BTreeMap::new();
    let mut any = AnyPort::default();
    for service in networks.holding(prefix) {
        any.add(service);
        let ranges = by_protocol.entry(service.protocol).or_default();
        ranges.add(*service.ports.start(), *service.ports.end(), room(service.room));
    }
    let mut ports = Vec::new();
    for (protocol, ranges) in by_protocol {
        for (first, last, room) in ranges.joined() {
            blocks(first, last, |port, bits| {
                ports.push(Ports { length: PortKey::ALL_PORTS + bits, protocol, scope: 0, port, room });
            });
        }
    }
    for (protocol, room) in any.entries(prefix.ip_version()) {
        ports.push(Ports { length: PortKey::FULL, protocol, scope: ServiceKey::ANY_PORT, port: 0, room });
    }
    ports
}

/// Ranges of ports that do not overlap, with their rooms: last port and room by the first port.
#[derive(Default)]
struct Ranges(BTreeMap<u16, (u16, u32)>);

impl Ranges {
    /// Adds of a range what is not there.
    fn add(&mut self, first: u16, last: u16, room: u32) {
        let before = self.0.range(..first).next_back().map(|(start, (end, _))| (*start, *end));
        let inside = self.0.range(first..=last).map(|(start, (end, _))| (*start, *end));
        let taken: Vec<(u16, u16)> = before.into_iter().chain(inside).collect();
        // Wider than a port, since there may be nothing behind the last one.
        let mut next = u32::from(first);
        for (start, end) in taken {
            self.put(next, u32::from(start), room);
            next = next.max(u32::from(end) + 1);
        }
        self.put(next, u32::from(last) + 1, room);
    }

    fn put(&mut self, first: u32, behind: u32, room: u32) {
        if first < behind {
            self.0.insert(first as u16, ((behind - 1) as u16, room));
        }
    }

    /// The ranges, neighbours of the same room as one.
    fn joined(self) -> Vec<(u16, u16, u32)> {
        let mut joined: Vec<(u16, u16, u32)> = Vec::new();
        for (first, (last, room)) in self.0 {
            match joined.last_mut() {
                Some(before) if before.2 == room && before.1 + 1 == first => before.1 = last,
                _ => joined.push((first, last, room)),
            }
        }
        joined
    }
}

/// Calls `each` with the fewest blocks that make up a range of ports: the first port, and how many bits its ports share.
fn blocks(first: u16, last: u16, mut each: impl FnMut(u16, u32)) {
    let (mut first, behind) = (u32::from(first), u32::from(last) + 1);
    while first < behind {
        // As large as the first port's zeros allow, and as what is left.
        let size = first.trailing_zeros().min((behind - first).ilog2()).min(u16::BITS);
        each(first as u16, u16::BITS - size);
        first += 1 << size;
    }
}

/// Content of the maps, with numbers for the networks.
#[derive(Default)]
pub(in crate::kernel) struct Wanted {
    pub services: HashMap<ServiceKey, u32>,
    pub networks: HashMap<NetworkKey, u32>,
    pub ports: HashMap<PortKey, u32>,
}

impl Wanted {
    /// What the program is told besides.
    pub fn settings(&self, steering: &Steering) -> Settings {
        let has_addresses = self.services.keys().any(|key| key.scope == ServiceKey::NETWORK);
        Settings {
            steer: match (steering.everything, steering.all) {
                (true, _) => Settings::EVERYTHING,
                (false, true) => Settings::ALL,
                (false, false) => 0,
            },
            room: room(steering.room),
            networks: if has_addresses { Settings::ADDRESSES } else { 0 }
                | if self.networks.is_empty() { 0 } else { Settings::PREFIXES },
            services: u32::from(!self.services.is_empty() || !self.networks.is_empty()),
        }
    }
}

/// The numbers of networks.
pub(in crate::kernel) struct Numbers {
    by_network: HashMap<Prefix, u32>,
    last: u32,
}

impl Default for Numbers {
    fn default() -> Self {
        Self { by_network: HashMap::new(), last: NetworkKey::NOTHING }
    }
}

impl Numbers {
    /// Gives every network its number. One that was used before is not used again: a packet may just be looking for it.
    pub fn number(&mut self, compiled: Compiled) -> Wanted {
        let mut wanted = Wanted { services: compiled.services, ..Wanted::default() };
        if compiled.hides_mapped {
            // 0.0.0.0/0, if there is one, overwrites it.
            let mapped = NetworkKey { length: 96, address: map_ipv4([0; 4]) };
            wanted.networks.insert(mapped, NetworkKey::NOTHING);
        }
        for (prefix, of_network) in compiled.networks {
            let number = *self.by_network.entry(prefix).or_insert_with(|| {
                self.last += 1;
                self.last
            });
            let (address, length) = prefix.mapped();
            if is_address(prefix) {
                let key = ServiceKey { address, port: [0; 2], protocol: 0, scope: ServiceKey::NETWORK };
                wanted.services.insert(key, number);
            } else {
                wanted.networks.insert(NetworkKey { length: length.into(), address }, number);
            }
            wanted.ports.extend(of_network.iter().map(|entry| {
                let key = PortKey {
                    length: entry.length,
                    network: number,
                    protocol: entry.protocol,
                    scope: entry.scope,
                    port: entry.port.to_be_bytes(),
                };
                (key, entry.room)
            }));
        }
        wanted
    }

    /// Forgets the networks of all other numbers.
    pub fn keep_only(&mut self, used: &HashSet<u32>) {
        self.by_network.retain(|_, number| used.contains(number));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn service(network: &str, ports: std::ops::RangeInclusive<u16>, room: u8) -> SteeredService {
        SteeredService { network: network.parse().unwrap(), protocol: 6, ports, room, kind: SteeredKind::Vip }
    }

    /// As the kernel asks: the hash map, then the longest prefix, then the longest run of bits.
    fn ask(compiled: &Compiled, address: IpAddr, protocol: u8, scope: u8, port: u16) -> Option<u32> {
        let key = ServiceKey { scope, ..super::super::service_key(address, protocol, port) };
        if let Some(room) = compiled.services.get(&key) {
            return Some(*room);
        }
        let networks = compiled.networks.iter().filter(|(prefix, _)| prefix.contains(address));
        let (_, ports) = networks.max_by_key(|(prefix, _)| prefix.length())?;
        let matching = ports.iter().filter(|ports| {
            let shared = u32::from(ports.port ^ port).leading_zeros() - 16;
            (ports.protocol, ports.scope) == (protocol, scope) && PortKey::ALL_PORTS + shared >= ports.length
        });
        matching.max_by_key(|ports| ports.length).map(|ports| ports.room)
    }

    /// What `SteeredService` promises, one service after the other.
    fn scan(services: &[SteeredService], address: IpAddr, protocol: u8, port: u16) -> Option<u32> {
        let mut best: Option<(bool, u8, &SteeredService)> = None;
        for service in services {
            if service.protocol == protocol
                && service.network.contains(address)
                && service.ports.contains(&port)
            {
                let exact = is_address(service.network) && service.ports.start() == service.ports.end();
                let rank = (exact, service.network.length());
                if best.is_none_or(|(exact, length, _)| rank > (exact, length)) {
                    best = Some((rank.0, rank.1, service));
                }
            }
        }
        best.map(|(.., service)| room(service.room))
    }

    fn scan_any_port(services: &[SteeredService], address: IpAddr, protocol: u8) -> Option<u32> {
        let of_address = services.iter().filter(|service| service.network.contains(address));
        of_address.filter(|service| service.protocol == protocol).map(|service| room(service.room)).max()
    }

    #[test]
    fn a_range_is_cut_into_the_fewest_blocks() {
        let cut = |first, last| {
            let mut found = Vec::new();
            blocks(first, last, |port, bits| found.push((port, bits)));
            found
        };
        assert_eq!(cut(0, 65_535), [(0, 0)]);
        assert_eq!(cut(80, 80), [(80, 16)]);
        assert_eq!(cut(8_000, 8_009), [(8_000, 13), (8_008, 15)]);
        assert_eq!(cut(65_534, 65_535), [(65_534, 15)]);
        assert_eq!(cut(1, 65_534).len(), 30, "the most that a range can take");
    }

    #[test]
    fn a_single_port_of_an_address_takes_no_trie() {
        let compiled = compile(&[service("192.0.2.1", 80..=80, 0)]);
        assert!(compiled.networks.is_empty());
        // The port, fragments and echo requests.
        assert_eq!(compiled.services.len(), 3);
    }

    #[test]
    fn a_shorter_prefix_serves_the_ports_that_the_longer_one_does_not() {
        let services = [
            service("192.0.2.0/24", 0..=u16::MAX, 20),
            service("192.0.2.128/25", 8_000..=8_099, 36),
            service("192.0.2.200", 8_050..=8_050, 8),
        ];
        let compiled = compile(&services);
        let ask = |address: &str, port| ask(&compiled, address.parse().unwrap(), 6, 0, port);
        assert_eq!([ask("192.0.2.1", 8_050), ask("192.0.2.129", 8_050)], [Some(20), Some(36)]);
        assert_eq!([ask("192.0.2.129", 8_100), ask("192.0.2.129", 7_999)], [Some(20), Some(20)]);
        assert_eq!([ask("192.0.2.200", 8_050), ask("192.0.2.200", 8_051)], [Some(8), Some(36)]);
        assert_eq!([ask("192.0.2.200", 1), ask("192.0.3.1", 8_050)], [Some(20), None]);
        // All but 100 ports are of one room, and those of another.
        assert!(compiled.networks[&"192.0.2.0/24".parse().unwrap()].len() == 3);
    }

    #[test]
    fn ipv6_prefixes_hold_no_ipv4_address() {
        let compiled = compile(&[service("::/0", 0..=u16::MAX, 0)]);
        assert!(compiled.hides_mapped);
        assert_eq!(ask(&compiled, IpAddr::from([192, 0, 2, 1]), 6, 0, 80), None);
        assert!(!compile(&[service("2001:db8::/32", 0..=u16::MAX, 0)]).hides_mapped);
    }

    fn services() -> impl Strategy<Value = Vec<SteeredService>> {
        let port = prop_oneof![0..40u16, 65_500..=65_535u16];
        let network = (0..4u8, 20..=32u8, any::<bool>()).prop_map(|(last, length, v6)| {
            if v6 {
                let address = Ipv6Addr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, last.into()]);
                Prefix::new(address.into(), length + 96)
            } else {
                Prefix::new([192, 0, 2, last].into(), length)
            }
        });
        let kind = prop_oneof![Just(SteeredKind::Vip), Just(SteeredKind::Host)];
        let service = (network, any::<bool>(), port.clone(), port, any::<bool>(), 0..60u8, kind).prop_map(
            |(network, tcp, a, b, single, room, kind)| SteeredService {
                network,
                protocol: if tcp { 6 } else { 17 },
                ports: if single { a..=a } else { a.min(b)..=a.max(b) },
                room,
                kind,
            },
        );
        proptest::collection::vec(service, 0..12)
    }

    proptest! {
        #[test]
        fn the_maps_answer_as_a_scan_of_the_services(services in services()) {
            let compiled = compile(&services);
            for last in 0..6u8 {
                let v6 = Ipv6Addr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, last.into()]);
                for address in [IpAddr::from([192, 0, 2, last]), v6.into()] {
                    for protocol in [6, 17] {
                        for port in (0..42u16).chain(65_490..=65_535) {
                            prop_assert_eq!(
                                ask(&compiled, address, protocol, 0, port),
                                scan(&services, address, protocol, port)
                            );
                        }
                        prop_assert_eq!(
                            ask(&compiled, address, protocol, ServiceKey::ANY_PORT, 0),
                            scan_any_port(&services, address, protocol)
                        );
                    }
                    let vips: Vec<_> =
                        services.iter().filter(|service| service.kind == SteeredKind::Vip).collect();
                    let echo = vips.iter().any(|service| service.network.contains(address));
                    let protocol = if address.is_ipv4() { ICMP } else { ICMPV6 };
                    prop_assert_eq!(
                        ask(&compiled, address, protocol, ServiceKey::ANY_PORT, 0),
                        echo.then_some(0)
                    );
                }
            }
        }
    }
}
