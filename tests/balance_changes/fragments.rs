//! Datagrams that do not fit into a packet.

use xfwd_netns::{
    lab_or_skip,
    topology::{Routed, far_v4, far_v6},
};

use crate::{
    ask,
    running::PATIENCE,
    site::{ECHO, Family, Site, Way, up},
};

const DATAGRAMS: usize = 32;

fn large_datagrams_are_answered(way: Way, family: Family) {
    lab_or_skip!();
    let site = Site::new(way, family, 3);
    if way == Way::Ipip {
        // Backends answer in packets that fit the client's cable: routers do not fragment IPv6.
        for backend in &site.backends {
            backend
                .ip([
                    "route",
                    "replace",
                    "default",
                    "via",
                    &far_v4(Routed::FAR_ROUTER).to_string(),
                    "mtu",
                    "1500",
                ])
                .unwrap();
            backend
                .ip([
                    "-6",
                    "route",
                    "replace",
                    "default",
                    "via",
                    &far_v6(Routed::FAR_ROUTER).to_string(),
                    "mtu",
                    "1500",
                ])
                .unwrap();
        }
    }
    let xfwd = site.start(&site.config(&[up(0), up(1), up(2)], ""));
    let mut names = Vec::new();
    for number in 0..DATAGRAMS {
        let bytes = [1_473, 2_000, 4_000, 9_000][number % 4];
        let answered = ask::udp(&site.client, site.at(ECHO), bytes, PATIENCE);
        names.push(
            answered.unwrap_or_else(|error| panic!("{way:?} {family:?} {number}, {bytes} bytes: {error}")),
        );
    }
    names.dedup();
    println!("{way:?} {family:?}: answered by {names:?}");
    if way != Way::Nat {
        assert_eq!(names.len(), 1, "fragments of a client are of one backend: {names:?}");
    }
    let summary = xfwd.stop().summary();
    assert_eq!(summary.dropped("unknown-fragment"), 0, "{}", summary.0);
}

#[test]
fn large_datagrams_are_answered_by_dsr() {
    large_datagrams_are_answered(Way::Dsr, Family::V4);
}

#[test]
fn large_datagrams_are_answered_by_dsr_over_ipv6() {
    large_datagrams_are_answered(Way::Dsr, Family::V6);
}

#[test]
fn large_datagrams_are_answered_by_ipip() {
    large_datagrams_are_answered(Way::Ipip, Family::V4);
}

#[test]
fn large_datagrams_are_answered_by_ipip_over_ipv6() {
    large_datagrams_are_answered(Way::Ipip, Family::V6);
}

#[test]
fn large_datagrams_are_answered_by_nat() {
    large_datagrams_are_answered(Way::Nat, Family::V4);
}

#[test]
fn large_datagrams_are_answered_by_nat_over_ipv6() {
    large_datagrams_are_answered(Way::Nat, Family::V6);
}
