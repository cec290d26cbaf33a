//! The load balancer: each way to the backends, with one to a million flows.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};

use xfwd_netns::topology::{INTERFACE, VIP_V4, host_v4};

use super::{CURVE_ROUNDS, Case, Contestant, Point, Unit, grouped};
use crate::bench::Bench;
use crate::offer::{Counted, Traffic};
use crate::site::Site;
use crate::subject::nftables::Nftables;
use crate::subject::xfwd::Xfwd;
use crate::subject::{Outcome, Running, Subject};

const WAYS: [&str; 4] = ["dsr", "ipip", "gue", "nat"];
const PORT: u16 = 80;
const BACKENDS: u8 = 3;
const FIRST_BACKEND: u8 = 11;
/// Entries of the connection table: room for a million flows.
const CONNECTIONS: u32 = 2_097_152;
/// Each translates to the ports from 1,024 on: room for a million flows.
const NAT_ADDRESSES: u8 = 20;
const CONNTRACK_MAX: &str = "/proc/sys/net/netfilter/nf_conntrack_max";

pub(super) fn cases(quick: bool) -> Vec<Case> {
    let counts: &[u32] = if quick { &[1, 1_000_000] } else { &[1, 1_000, 1_000_000] };
    let families =
        [("dsr", "balance-dsr"), ("ipip", "balance-ipip"), ("gue", "balance-gue"), ("nat", "balance-nat")];
    debug_assert!(families.iter().map(|family| family.0).eq(WAYS));
    let of = |(way, family)| counts.iter().map(move |flows| case(way, family, *flows));
    families.into_iter().flat_map(of).collect()
}

fn case(way: &'static str, family: &'static str, flows: u32) -> Case {
    let traffic = Traffic {
        source: Ipv4Addr::new(10, 0, 0, 1),
        source_addresses: flows.div_ceil(1_000).max(256),
        destination: VIP_V4,
        port: PORT,
        flows,
        ..Traffic::default()
    };
    let mut contestants = vec![Contestant::throughput(Balancer { way }, &traffic, Counted::Returned)];
    if way == "nat" {
        contestants.push(dnat(&traffic));
    }
    Case {
        name: format!("{family}-{flows}"),
        family,
        title: format!("Balance by {way}, {} flows, {BACKENDS} backends", grouped(flows.into())),
        unit: Unit::PacketsPerSecond,
        point: Some(Point { axis: "flows", at: flows.into() }),
        rounds: CURVE_ROUNDS,
        contestants,
    }
}

fn backends() -> impl Iterator<Item = Ipv4Addr> {
    (FIRST_BACKEND..FIRST_BACKEND + BACKENDS).map(host_v4)
}

fn nat_addresses() -> impl Iterator<Item = Ipv4Addr> {
    (1..=NAT_ADDRESSES).map(|number| Ipv4Addr::new(198, 18, 2, number))
}

/// The backends are where the generator is, which counts what comes to them.
fn add_backends(site: &Site) -> Outcome<()> {
    let mac = site.generator.mac(INTERFACE)?;
    for backend in backends() {
        site.subject.neighbour(INTERFACE, IpAddr::V4(backend), mac)?;
    }
    Ok(())
}

/// xfwd with a service.
struct Balancer {
    way: &'static str,
}

impl Balancer {
    fn config(&self) -> String {
        let mut text = format!("[balance]\nconnections = {CONNECTIONS}\n\n");
        if self.way == "nat" {
            let addresses: Vec<String> = nat_addresses().map(|address| format!("\"{address}\"")).collect();
            text += &format!("[nat]\naddresses = [{}]\nports = \"1024-65535\"\n\n", addresses.join(", "));
        }
        text + &service("web", VIP_V4, PORT, self.way, backends())
    }
}

impl Subject for Balancer {
    fn name(&self) -> String {
        "xfwd".to_owned()
    }

    fn start(&self, bench: &Bench, site: &Site) -> Outcome<Box<dyn Running>> {
        add_backends(site)?;
        if self.way == "nat" {
            for address in nat_addresses() {
                site.subject.address(INTERFACE, &format!("{address}/32"))?;
            }
            // What xfwd translates to is not for the host's own connections.
            site.subject.sysctl("net.ipv4.ip_local_reserved_ports", "1024-65535")?;
        }
        Xfwd::new(self.config()).start(bench, site)
    }
}

/// A service as a config has it.
pub fn service(
    name: &str,
    vip: Ipv4Addr,
    port: u16,
    way: &str,
    backends: impl Iterator<Item = Ipv4Addr>,
) -> String {
    let mut text = format!(
        "[[service]]\nname = \"{name}\"\nvip = \"{vip}\"\nprotocol = \"udp\"\nport = {port}\nforward = \"{way}\"\n"
    );
    for backend in backends {
        text += &format!("[[service.backend]]\naddress = \"{backend}\"\n");
    }
    text
}

/// nftables, which chooses a backend for each connection in turn and has conntrack translate.
fn dnat(traffic: &Traffic) -> Contestant {
    let most = fs::read_to_string(CONNTRACK_MAX).ok().and_then(|text| text.trim().parse::<u64>().ok());
    if let Some(most) = most.filter(|most| *most < u64::from(traffic.flows)) {
        let reason =
            format!("conntrack of this machine holds {} connections (nf_conntrack_max)", grouped(most));
        return Contestant::missing("nftables", reason);
    }
    let map: Vec<String> =
        backends().enumerate().map(|(index, backend)| format!("{index} : {backend}")).collect();
    let ruleset = format!(
        "table ip lab {{\n chain in {{ type nat hook prerouting priority dstnat; policy accept;\n  ip daddr {VIP_V4} udp dport {PORT} \
         dnat to numgen inc mod {BACKENDS} map {{ {} }}\n }}\n}}\n",
        map.join(", ")
    );
    Contestant::throughput(Dnat(Nftables { ruleset, routes: true }), traffic, Counted::Returned)
}

struct Dnat(Nftables);

impl Subject for Dnat {
    fn name(&self) -> String {
        self.0.name()
    }

    fn start(&self, bench: &Bench, site: &Site) -> Outcome<Box<dyn Running>> {
        add_backends(site)?;
        self.0.start(bench, site)
    }
}
