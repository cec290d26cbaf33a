//! Which service: addresses, prefixes and ranges of ports.

use std::net::SocketAddr;

use xfwd::pipeline::Verdict;
use xfwd::stages::balance::{BalancedService, Forward};

use crate::packets::{FAMILIES, Family, Packet, TCP, syn};
use crate::rig::{Rig, service, with};

#[test]
fn the_longest_prefix_that_has_the_port_wins() {
    for family in FAMILIES {
        let net = |text4: &str, text6: &str| if family.is_ipv4 { text4 } else { text6 }.parse().unwrap();
        let of = |name: &str, network, ports, backend| BalancedService {
            name: name.to_owned(),
            network,
            ports,
            ..with(service(family.vip(), TCP, 1, Forward::Dsr), family, [backend])
        };
        let mut rig = Rig::new([
            of("all", net("198.18.0.0/16", "2001:db8:10::/48"), 1..=65_535, 0),
            of("net", net("198.18.10.0/24", "2001:db8:10::/64"), 8_000..=8_100, 1),
            of("one", net("198.18.10.1", "2001:db8:10::1"), 8_050..=8_050, 2),
        ]);
        let other = if family.is_ipv4 { "198.18.10.77" } else { "2001:db8:10::77" };
        let far = if family.is_ipv4 { "198.18.99.1" } else { "2001:db8:10:99::1" };
        for (to, port, expected) in [
            (family.vip().to_string(), 8_050, Some(2)),
            (family.vip().to_string(), 8_051, Some(1)),
            (family.vip().to_string(), 80, Some(0)),
            (other.to_owned(), 8_000, Some(1)),
            (other.to_owned(), 8_100, Some(1)),
            (other.to_owned(), 8_101, Some(0)),
            (far.to_owned(), 8_050, Some(0)),
            (family.router().to_string(), 80, None),
        ] {
            let packet = Packet { to: SocketAddr::new(to.parse().unwrap(), port), ..syn(family, 40_000) };
            let out = rig.pass(&packet.bytes());
            match expected {
                Some(backend) => assert_eq!(out.backend(), backend, "{to} {port}"),
                None => assert_eq!(out.verdict, Verdict::Continue, "{to} {port}"),
            }
        }
    }
}

#[test]
fn what_is_counted_is_what_was_sent() {
    let family: Family = FAMILIES[1];
    let web = with(service(family.vip(), TCP, 80, Forward::Gue), family, [3]);
    let mut rig = Rig::new([web.clone()]);
    let packets: Vec<Vec<u8>> = (40_000..40_010).map(|port| syn(family, port).bytes()).collect();
    packets.iter().chain(&packets).for_each(|packet| _ = rig.pass(packet).backend());
    let row = rig.counters(&web, family.backend(3));
    let bytes: usize = 2 * packets.iter().map(Vec::len).sum::<usize>();
    assert_eq!((row.packets, row.connections, row.bytes), (20, 10, bytes as u64));
}
