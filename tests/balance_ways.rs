//! Every way to the backend, in both address families, with real clients: nothing fails in steady state, and what arrives at
//! the backends is well formed by an independent dissector, down to the outer headers.
#![allow(missing_docs, clippy::unwrap_used)]

#[path = "support/xfwd.rs"]
mod running;

use std::{
    any::Any,
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use running::{PATIENCE, Xfwd};
use xfwd_netns::{
    Capture, Captured, Namespace,
    clients::{
        curl, dns, h2, hold,
        iperf3::{self, Amount, Kind},
        requests::{self, Requests},
    },
    commands_or_skip,
    decap::Decap,
    dissect::{self, Dissected},
    lab_or_skip,
    topology::{
        self, BACKEND_INTERFACE, Bridged, INTERFACE, NAT_V4, NAT_V6, Routed, RoutedOptions, VIP_V4, VIP_V6,
        host_v4, host_v6,
    },
};

const BACKENDS: usize = 3;

const HTTP: u16 = 80;
const ECHO: u16 = 7;
const DNS: u16 = 53;
const IPERF3: u16 = 5201;
const HTTP2: u16 = 8080;

/// Bytes of a bulk transfer.
const BULK: u64 = 40_000_000;

/// Protocol, port and affinity of the services. All connections of an iperf3 test must meet at one server.
const SERVICES: [(&str, u16, &str); 7] = [
    ("tcp", HTTP, "5tuple"),
    ("tcp", ECHO, "5tuple"),
    ("udp", ECHO, "5tuple"),
    ("tcp", DNS, "5tuple"),
    ("udp", DNS, "5tuple"),
    ("tcp", HTTP2, "5tuple"),
    ("tcp", IPERF3, "src"),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Family {
    V4,
    V6,
}

use Family::{V4, V6};

impl Family {
    fn vip(self) -> IpAddr {
        match self {
            V4 => VIP_V4.into(),
            V6 => VIP_V6.into(),
        }
    }

    fn layer(self) -> &'static str {
        match self {
            V4 => "ip",
            V6 => "ipv6",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Dsr,
    Ipip,
    Gue,
    Nat,
}

impl Way {
    fn name(self) -> &'static str {
        match self {
            Way::Dsr => "dsr",
            Way::Ipip => "ipip",
            Way::Gue => "gue",
            Way::Nat => "nat",
        }
    }

    fn is_tunnel(self) -> bool {
        matches!(self, Way::Ipip | Way::Gue)
    }
}

/// A network with all servers running, whatever its topology.
struct Site {
    way: Way,
    /// Of the VIP.
    family: Family,
    /// Of the backends' addresses; another than `family` for tunnels only.
    outer: Family,
    client: Namespace,
    balancer: Namespace,
    interfaces: Vec<&'static str>,
    backends: Vec<Namespace>,
    addresses: Vec<IpAddr>,
    decaps: Vec<Decap>,
    servers: Vec<Box<dyn Any>>,
    _network: Box<dyn Any>,
}

impl Site {
    /// The usual network for this way.
    fn new(way: Way, family: Family, outer: Family) -> Self {
        if way.is_tunnel() {
            let network = topology::tunnel(2, BACKENDS).unwrap();
            return Self::routed(way, family, outer, network, vec![INTERFACE]);
        }
        let network = match way {
            Way::Dsr => topology::dsr(2, BACKENDS).unwrap(),
            _ => topology::nat(2, BACKENDS).unwrap(),
        };
        let address = |index| match outer {
            V4 => host_v4(Bridged::backend(index)).into(),
            V6 => host_v6(Bridged::backend(index)).into(),
        };
        let (client, balancer) = (network.client.clone(), network.balancer.clone());
        let backends = network.backends.clone();
        let site = Self {
            way,
            family,
            outer,
            client,
            balancer,
            interfaces: vec![INTERFACE],
            backends,
            addresses: (0..BACKENDS).map(address).collect(),
            decaps: Vec::new(),
            servers: Vec::new(),
            _network: Box::new(network),
        };
        site.with_servers()
    }

    fn routed(
        way: Way,
        family: Family,
        outer: Family,
        network: Routed,
        interfaces: Vec<&'static str>,
    ) -> Self {
        let address = |index| match outer {
            V4 => Routed::backend_v4(index).into(),
            V6 => Routed::backend_v6(index).into(),
        };
        let site = Self {
            way,
            family,
            outer,
            client: network.client.clone(),
            balancer: network.balancer.clone(),
            interfaces,
            backends: network.backends.clone(),
            addresses: (0..network.backends.len()).map(address).collect(),
            decaps: Vec::new(),
            servers: Vec::new(),
            _network: Box::new(network),
        };
        site.with_servers()
    }

    /// Servers listen on the VIP; for `nat` on the backend's own address.
    fn with_servers(mut self) -> Self {
        for (index, backend) in self.backends.iter().enumerate() {
            // What arrives is looked at, and GRO would merge it before.
            backend.set_gro(INTERFACE, false).unwrap();
            if self.way.is_tunnel() {
                self.decaps.push(Decap::start(backend, &[]).unwrap());
            }
            let (name, address) = (name(index), self.server_address(index));
            let at = |port| SocketAddr::new(address, port);
            let servers: [Box<dyn Any>; 6] = [
                Box::new(requests::serve_http(backend, &name, &[at(HTTP)]).unwrap()),
                Box::new(requests::serve_udp(backend, &name, &[at(ECHO)]).unwrap()),
                Box::new(hold::serve(backend, &name, &[at(ECHO)]).unwrap()),
                Box::new(dns::serve(backend, &name, at(DNS)).unwrap()),
                Box::new(h2::serve(backend, &name, at(HTTP2), 20_000).unwrap()),
                Box::new(iperf3::serve(backend, at(IPERF3)).unwrap()),
            ];
            self.servers.extend(servers);
        }
        self
    }

    fn server_address(&self, index: usize) -> IpAddr {
        if self.way == Way::Nat { self.addresses[index] } else { self.family.vip() }
    }

    fn config(&self) -> String {
        let (way, vip) = (self.way.name(), self.family.vip());
        let mut text = String::new();
        for (protocol, port, affinity) in SERVICES {
            text += &format!(
                "[[service]]\nname = \"{protocol}{port}\"\nvip = \"{vip}\"\nprotocol = \"{protocol}\"\nport = {port}\n\
                 forward = \"{way}\"\naffinity = \"{affinity}\"\n"
            );
            for address in &self.addresses {
                text += &format!("[[service.backend]]\naddress = \"{address}\"\n");
            }
        }
        if self.way == Way::Nat {
            text += &format!("[nat]\naddresses = [\"{NAT_V4}\", \"{NAT_V6}\"]\nports = \"32768-65535\"\n");
        }
        text
    }

    fn start(&self) -> Xfwd {
        let mut arguments = Vec::new();
        for interface in &self.interfaces {
            arguments.extend(["--iface", interface]);
        }
        arguments.extend(["--queues", "2"]);
        Xfwd::start(&self.balancer, &arguments, &self.config())
    }

    fn at(&self, port: u16) -> SocketAddr {
        SocketAddr::new(self.family.vip(), port)
    }

    /// Runs all clients once; nothing fails, and all backends answer.
    fn assert_served(&self, what: &str) {
        let client = &self.client;
        let all: BTreeSet<String> = (0..self.backends.len()).map(name).collect();
        let hold_options = hold::Options {
            connections: 60,
            size: 4_000,
            interval: Duration::from_millis(50),
            ..hold::Options::default()
        };
        let holding = hold::start(client, self.at(ECHO), &hold_options).unwrap();

        let many = Requests { count: 300, timeout: PATIENCE, ..Requests::default() };
        for (kind, answers) in [
            ("http", requests::http(client, self.at(HTTP), &many).unwrap()),
            ("udp", requests::udp(client, self.at(ECHO), &many).unwrap()),
        ] {
            assert_eq!((answers.succeeded, answers.failed), (300, 0), "{what} {kind}: {answers:?}");
            assert_eq!(answers.backends.into_keys().collect::<BTreeSet<_>>(), all, "{what} {kind}");
        }
        let page = curl::get(client, self.at(HTTP), "/", PATIENCE).unwrap();
        assert!(page.status == 200 && all.contains(page.server()), "{what}: {page:?}");
        for tcp in [false, true] {
            let server = dns::dig(client, self.at(DNS), tcp, PATIENCE).unwrap();
            assert!(all.contains(&server), "{what}: {server}");
        }
        let load = h2::load(client, self.at(HTTP2), 200, 10, PATIENCE).unwrap();
        assert_eq!((load.succeeded, load.failed), (200, 0), "{what}: {load:?}");

        let held = holding.stop().unwrap();
        assert_eq!((held.established, held.broken.len()), (60, 0), "{what}: {held:?}");
        assert_eq!(held.backends.into_keys().collect::<BTreeSet<_>>(), all, "{what}: held");
    }

    fn assert_bulk(&self, what: &str) {
        for reverse in [false, true] {
            // A size and not a time, so that a slow machine takes longer and a fast one does not go on.
            let kind = Kind::Tcp { connections: 2 };
            let options = iperf3::Options { kind, amount: Amount::Bytes(BULK), reverse };
            let result = iperf3::run(&self.client, self.at(IPERF3), &options).unwrap();
            println!("{what}, reverse={reverse}: {result:?}");
            // The rest may lie in the kernels' buffers when the sender is done.
            assert!(result.sent_bytes >= BULK && result.received_bytes > 10_000_000, "{what}: {result:?}");
        }
    }

    /// Every packet that came from the balancer has the headers of its way.
    fn assert_headers(&self, index: usize, dissected: &Dissected) {
        let what = format!("{:?} {:?} in {:?}, {}", self.way, self.family, self.outer, name(index));
        let address = self.addresses[index].to_string();
        let vip = self.family.vip().to_string();
        let inner = self.family.layer();
        let layers = match self.way {
            Way::Dsr | Way::Nat => format!("ethertype:{inner}:tcp"),
            Way::Ipip => format!("ethertype:{}:{inner}:tcp", self.outer.layer()),
            // Wireshark's dissector for IPv4 hands IPv6 on, and shows so.
            Way::Gue if self.family == V6 => format!("ethertype:{}:udp:ip:{inner}:tcp", self.outer.layer()),
            Way::Gue => format!("ethertype:{}:udp:{inner}:tcp", self.outer.layer()),
        };
        let mut gue_ports = BTreeSet::new();
        let mut count = 0;
        for packet in dissected.with_layers(&layers) {
            let destinations = match (self.way.is_tunnel(), self.family, self.outer) {
                (true, V4, V6) | (true, V6, V4) => {
                    let [outer, inner] =
                        [self.outer, self.family].map(|family| format!("{}.dst", family.layer()));
                    [packet.fields(&outer), packet.fields(&inner)].concat()
                }
                _ => packet.fields(&format!("{inner}.dst")),
            };
            let expected = match self.way {
                Way::Dsr => vec![&vip],
                Way::Nat => vec![&address],
                _ => vec![&address, &vip],
            };
            assert_eq!(destinations, expected, "{what}: {packet}");
            let field = if self.family == V4 { "ip.ttl" } else { "ipv6.hlim" };
            // Linux sends with 64; routers between balancer and backend see the outer header only.
            let ttl = if self.way == Way::Dsr { "64" } else { "63" };
            assert_eq!(packet.fields(field).last(), Some(&ttl), "{what}: {packet}");
            if self.way == Way::Gue {
                gue_ports.extend(packet.field("udp.srcport").map(str::to_owned));
            }
            count += 1;
        }
        assert!(count > 100, "{what}: {count} packets, {layers}");
        if self.way == Way::Gue {
            assert!(gue_ports.len() > 20, "{what}: flows have source ports of their own: {gue_ports:?}");
        }
    }
}

fn name(index: usize) -> String {
    format!("backend{}", index + 1)
}

fn steady_state(way: Way, family: Family, outer: Family) {
    commands_or_skip!("tshark", "curl", "iperf3", "h2load", "nghttpd", "dig", "dnsmasq");
    lab_or_skip!();
    serve_and_dissect(Site::new(way, family, outer));
}

fn serve_and_dissect(site: Site) {
    let what = format!("{:?} {:?} in {:?}", site.way, site.family, site.outer);
    let xfwd = site.start();
    let recordings: Vec<_> = site
        .backends
        .iter()
        .map(|backend| backend.run(|| Capture::open(INTERFACE)).unwrap().record())
        .collect();
    site.assert_served(&what);
    for (index, recording) in recordings.into_iter().enumerate() {
        let frames: Vec<Captured> = recording.stop().unwrap();
        let dissected = dissect::assert_frames_well_formed(&frames);
        println!("{what}, {}: {} packets well formed", name(index), dissected.packets.len());
        site.assert_headers(index, &dissected);
    }
    site.assert_bulk(&what);
    let summary = xfwd.stop().summary();
    // On two cores with a debug build, bulk transfer may fill a ring for a moment.
    let (lost, packets) = (summary.number("/totals/lost"), summary.number("/totals/packets"));
    assert!(lost * 20 < packets, "{what}: {lost} of {packets} packets lost");
    for decap in site.decaps {
        let counted = decap.stop().unwrap();
        assert!(counted.refused.is_empty() && counted.all() > 0, "{what}: {counted:?}");
    }
}

#[test]
fn dsr_serves_ipv4() {
    steady_state(Way::Dsr, V4, V4);
}

#[test]
fn dsr_serves_ipv6() {
    steady_state(Way::Dsr, V6, V6);
}

#[test]
fn ipip_serves_ipv4_in_ipv4() {
    steady_state(Way::Ipip, V4, V4);
}

#[test]
fn ipip_serves_ipv6_in_ipv4() {
    steady_state(Way::Ipip, V6, V4);
}

#[test]
fn ipip_serves_ipv4_in_ipv6() {
    steady_state(Way::Ipip, V4, V6);
}

#[test]
fn ipip_serves_ipv6_in_ipv6() {
    steady_state(Way::Ipip, V6, V6);
}

#[test]
fn gue_serves_ipv4_in_ipv4() {
    steady_state(Way::Gue, V4, V4);
}

#[test]
fn gue_serves_ipv6_in_ipv4() {
    steady_state(Way::Gue, V6, V4);
}

#[test]
fn gue_serves_ipv4_in_ipv6() {
    steady_state(Way::Gue, V4, V6);
}

#[test]
fn gue_serves_ipv6_in_ipv6() {
    steady_state(Way::Gue, V6, V6);
}

#[test]
fn nat_serves_ipv4() {
    steady_state(Way::Nat, V4, V4);
}

#[test]
fn nat_serves_ipv6() {
    steady_state(Way::Nat, V6, V6);
}

#[test]
fn every_way_works_with_the_backends_on_a_second_interface() {
    commands_or_skip!("tshark", "curl", "iperf3", "h2load", "nghttpd", "dig", "dnsmasq");
    lab_or_skip!();
    for (way, family, outer) in [
        (Way::Dsr, V4, V4),
        (Way::Dsr, V6, V6),
        (Way::Ipip, V4, V6),
        (Way::Ipip, V6, V4),
        (Way::Gue, V4, V4),
        (Way::Gue, V6, V6),
        (Way::Nat, V4, V4),
        (Way::Nat, V6, V6),
    ] {
        let network = topology::two_sided(2, BACKENDS).unwrap();
        serve_and_dissect(Site::routed(way, family, outer, network, vec![INTERFACE, BACKEND_INTERFACE]));
    }
}

/// Links of 1,500 bytes all the way: a full packet does not fit with an outer header, clients are told so, and go on with
/// smaller ones.
#[test]
fn clients_learn_that_a_tunnel_takes_less() {
    commands_or_skip!("curl", "iperf3", "h2load", "nghttpd", "dig", "dnsmasq");
    lab_or_skip!();
    for (way, family, outer) in
        [(Way::Ipip, V4, V4), (Way::Ipip, V6, V6), (Way::Gue, V4, V6), (Way::Gue, V6, V4)]
    {
        let options = RoutedOptions {
            queues: 2,
            backends: BACKENDS,
            balancer_mtu: 1_500,
            backend_mtu: 1_500,
            ..RoutedOptions::default()
        };
        let network = topology::tunnel_with(&options).unwrap();
        let site = Site::routed(way, family, outer, network, vec![INTERFACE]);
        let what = format!("{way:?} {family:?} in {outer:?}, MTU 1,500");
        let xfwd = site.start();
        site.assert_served(&what);
        site.assert_bulk(&what);
        xfwd.stop();
    }
}
