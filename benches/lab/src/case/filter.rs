//! The filter with ten to a hundred thousand rules, of which the last decides: in the XDP program, and in the worker. nftables has the
//! same rules at ingress, as sets, which is the fastest it can do with them.

use std::fmt::Write;
use std::net::Ipv4Addr;

use super::{CURVE_ROUNDS, Case, Contestant, Point, Unit, grouped};
use crate::offer::{Counted, Traffic};
use crate::subject::nftables::{DROP, Nftables, Set};
use crate::subject::xfwd::Xfwd;

/// Rules are about addresses of this network, which the traffic has none of.
const ELSEWHERE: u32 = 0x0a00_0000;

pub(super) fn cases(quick: bool) -> Vec<Case> {
    let counts: &[usize] = if quick { &[10, 1_000, 100_000] } else { &[10, 100, 1_000, 10_000, 100_000] };
    let traffic = Traffic::default();
    let kernel = counts.iter().map(|count| {
        let title = format!("{} rules in the XDP program, the last drops", grouped(*count as u64));
        let xfwd = Xfwd::new(kernel_rules(*count));
        case(
            "filter-kernel",
            title,
            *count,
            vec![
                Contestant::throughput(xfwd, &traffic, Counted::Taken),
                Contestant::throughput(kernel_peer(*count, &traffic), &traffic, Counted::Taken),
            ],
        )
    });
    let worker = counts.iter().map(|count| {
        let title = format!("{} rules in the worker, the last drops", grouped(*count as u64));
        let xfwd = Xfwd::new(worker_rules(*count));
        case(
            "filter-worker",
            title,
            *count,
            vec![
                Contestant::throughput(xfwd, &traffic, Counted::Delivered),
                Contestant::throughput(worker_peer(*count, &traffic), &traffic, Counted::Taken),
            ],
        )
    });
    kernel.chain(worker).collect()
}

fn case(family: &'static str, title: String, rules: usize, contestants: Vec<Contestant>) -> Case {
    Case {
        name: format!("{family}-{rules}"),
        family,
        title,
        unit: Unit::PacketsPerSecond,
        point: Some(Point { axis: "rules", at: rules as f64 }),
        rounds: CURVE_ROUNDS,
        contestants,
    }
}

fn address(index: usize) -> Ipv4Addr {
    Ipv4Addr::from_bits(ELSEWHERE + u32::try_from(index).unwrap_or(u32::MAX >> 8))
}

/// Rules that run in the XDP program, in turn by source, by endpoint and by 5-tuple; the last is met by all traffic.
pub fn kernel_rules(count: usize) -> String {
    let mut text = String::new();
    for index in 0..count - 1 {
        let address = address(index);
        let conditions = match index % 3 {
            0 => format!("src = \"{address}\""),
            1 => format!("dst = \"{address}\"\nprotocol = \"udp\"\ndst_port = 53"),
            _ => format!(
                "src = \"{address}\"\ndst = \"198.18.0.2\"\nprotocol = \"tcp\"\nsrc_port = 4000\ndst_port = 80"
            ),
        };
        let _ = write!(text, "[[filter]]\nname = \"rule-{index}\"\n{conditions}\naction = \"drop\"\n\n");
    }
    let Traffic { destination, port, .. } = Traffic::default();
    let _ = write!(
        text,
        "[[filter]]\nname = \"last\"\ndst = \"{destination}\"\nprotocol = \"udp\"\ndst_port = {port}\naction = \"drop\"\n"
    );
    text
}

fn kernel_peer(count: usize, traffic: &Traffic) -> Nftables {
    let those = |kind: usize| (0..count - 1).filter(move |index| index % 3 == kind).map(address);
    let mut endpoints: Vec<String> = those(1).map(|address| format!("{address} . udp . 53")).collect();
    endpoints.push(format!("{} . udp . {}", traffic.destination, traffic.port));
    let flows = those(2).map(|address| format!("{address} . 198.18.0.2 . tcp . 4000 . 80"));
    let endpoint = "type ipv4_addr . inet_proto . inet_service";
    let flow = "type ipv4_addr . ipv4_addr . inet_proto . inet_service . inet_service";
    let sets = [
        Set {
            name: "sources",
            kind: "type ipv4_addr",
            elements: those(0).map(|it| it.to_string()).collect(),
        },
        Set { name: "endpoints", kind: endpoint, elements: endpoints },
        Set { name: "flows", kind: flow, elements: flows.collect() },
    ];
    let rules = [
        format!("ip saddr @sources {DROP}"),
        format!("ip saddr . ip daddr . meta l4proto . th sport . th dport @flows {DROP}"),
        format!("ip daddr . meta l4proto . th dport @endpoints {DROP}"),
    ];
    Nftables::at_ingress(&sets, &rules)
}

/// Destination and ports of rule `index` of those in the worker.
fn service(index: usize) -> (Ipv4Addr, u16, u16) {
    let first = 1_000 + u16::try_from(index % 50_000).unwrap_or_default();
    (address(index), first, first + 5)
}

/// Rules that run in the worker, since the first is one that only a worker can carry out, and the others may match the same packets.
fn worker_rules(count: usize) -> String {
    let mut text = String::from("[dataplane]\nsteer = \"all\"\n\n");
    text += "[[filter]]\nname = \"for-the-worker\"\nsrc = \"192.0.2.0/24\"\naction = \"bounce\"\n\n";
    for index in 0..count - 2 {
        let (address, first, last) = service(index);
        let _ = write!(
            text,
            "[[filter]]\nname = \"rule-{index}\"\ndst = \"{address}\"\nprotocol = \"udp\"\ndst_port = \"{first}-{last}\"\n\
             action = \"drop\"\n\n"
        );
    }
    text + "[[filter]]\nname = \"last\"\nprotocol = \"udp\"\naction = \"drop\"\n"
}

fn worker_peer(count: usize, traffic: &Traffic) -> Nftables {
    let element = |index| {
        let (address, first, last) = service(index);
        format!("{address} . {first}-{last}")
    };
    let mut elements: Vec<String> = (0..count - 2).map(element).collect();
    elements.push(format!("{} . {}", traffic.destination, traffic.port));
    let set = Set { name: "denied", kind: "type ipv4_addr . inet_service; flags interval", elements };
    Nftables::at_ingress(&[set], &[format!("ip daddr . udp dport @denied {DROP}")])
}
