//! Dropping in the kernel: a flood that an XDP program drops, with nothing on the deny list and with a hundred thousand addresses.

use std::net::Ipv4Addr;

use super::{Case, Contestant, HEADLINE_ROUNDS, Unit, grouped};
use crate::offer::{Counted, Traffic};
use crate::subject::nftables::{DROP, Nftables, Set};
use crate::subject::two_lines::TwoLines;
use crate::subject::xdp_filter::XdpFilter;
use crate::subject::xfwd::Xfwd;

const FLOOD: u32 = 0x0a00_0000;
const ADDRESSES: u32 = 100_000;
const PORT: u16 = 9;
const DENY_ALONE: &str = "[deny]\nfile = \"deny.txt\"\n";
const RULE: &str = "\n[[filter]]\nname = \"flood\"\nsrc = \"10.0.0.0/8\"\naction = \"drop\"\n";
/// A list that is read once, as a part of the filter.
const STATIC: &str = "[[filter]]\nname = \"deny\"\nsrc_set = \"deny.txt\"\naction = \"drop\"\n";

pub(super) fn cases() -> Vec<Case> {
    let flood = Traffic {
        source: Ipv4Addr::from_bits(FLOOD),
        flows: ADDRESSES,
        source_addresses: ADDRESSES,
        port: PORT,
        ..Traffic::default()
    };
    let addresses: Vec<String> =
        (0..ADDRESSES).map(|index| Ipv4Addr::from_bits(FLOOD + index).to_string()).collect();
    let xfwd = |config: String, deny: String| Xfwd { files: vec![("deny.txt", deny)], ..Xfwd::new(config) };

    let by_port = Nftables::at_ingress(&[], &[format!("udp dport {PORT} {DROP}")]);
    let empty = vec![
        Contestant::throughput(xfwd(format!("{DENY_ALONE}{RULE}"), String::new()), &flood, Counted::Taken),
        Contestant::throughput(TwoLines::Drop, &flood, Counted::Taken),
        Contestant::throughput(XdpFilter { port: PORT }, &flood, Counted::Taken),
        Contestant::throughput(by_port, &flood, Counted::Taken),
    ];
    let set = Set { name: "denied", kind: "type ipv4_addr", elements: addresses.clone() };
    let by_list = Nftables::at_ingress(&[set], &[format!("ip saddr @denied {DROP}")]);
    // Both kinds of list that xfwd has: one of the filter's, and the dynamic one.
    let list = addresses.join("\n");
    let of_filter = Xfwd { name: Some("xfwd src_set".to_owned()), ..xfwd(STATIC.to_owned(), list.clone()) };
    let dynamic = Xfwd { name: Some("xfwd [deny]".to_owned()), ..xfwd(DENY_ALONE.to_owned(), list) };
    let full = vec![
        Contestant::throughput(of_filter, &flood, Counted::Taken),
        Contestant::throughput(dynamic, &flood, Counted::Taken),
        Contestant::throughput(TwoLines::Drop, &flood, Counted::Taken),
        Contestant::throughput(by_list, &flood, Counted::Taken),
        Contestant::missing("xdp-filter", "its map of addresses holds 10,000"),
    ];
    let count = grouped(ADDRESSES.into());
    vec![
        case("drop-empty", "Drop in the kernel by one rule, the deny list is empty".to_owned(), empty),
        case(
            "drop-100000",
            format!("Drop in the kernel by a deny list of {count} addresses, a packet from each in turn"),
            full,
        ),
    ]
}

fn case(name: &str, title: String, contestants: Vec<Contestant>) -> Case {
    Case {
        name: name.to_owned(),
        family: "drop",
        title,
        unit: Unit::PacketsPerSecond,
        point: None,
        rounds: HEADLINE_ROUNDS,
        contestants,
    }
}
