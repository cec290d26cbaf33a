//! No backend is left.

use std::{
    io::ErrorKind,
    time::{Duration, Instant},
};

use xfwd_netns::lab_or_skip;

use crate::{
    ask,
    health::wait_told,
    site::{ECHO, Family, Site, Way, up},
};

/// Services that keep silent.
const SILENT: u16 = 9;

const CHECK: &str =
    "[service.health]\ntype = \"tcp\"\nport = 7\ninterval = \"200ms\"\ntimeout = \"200ms\"\nfall = 1";

fn nobody_is_left(way: Way, family: Family) {
    lab_or_skip!();
    let mut site = Site::without_servers(way, family, 2);
    let lines = [up(0), up(1)];
    let mut config = site.config(&lines, &format!("no_backend = \"reject\"\n{CHECK}"));
    for protocol in ["tcp", "udp"] {
        config += &site.service(&format!("silent-{protocol}"), protocol, SILENT, &lines, CHECK);
    }
    let xfwd = site.start(&config);
    let services = ["tcp80", "tcp7", "udp7", "silent-tcp", "silent-udp"];
    for address in &site.addresses {
        let state = "not healthy: it gets no flows";
        wait_told(&xfwd, 0, &services, *address, state, &["connection refused"]);
    }

    let patience = Duration::from_secs(10);
    let begun = Instant::now();
    for _ in 0..20 {
        let refused = ask::tcp(&site.client, site.at(ECHO), patience).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused, "{refused}");
        let refused = ask::udp(&site.client, site.at(ECHO), 64, patience).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused, "{refused}");
    }
    // At once: a SYN that is sent again is so after a second.
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());

    let short = Duration::from_millis(600);
    let silence = ask::tcp(&site.client, site.at(SILENT), short).unwrap_err();
    assert_eq!(silence.kind(), ErrorKind::TimedOut, "{silence}");
    let silence = ask::udp(&site.client, site.at(SILENT), 64, short).unwrap_err();
    assert_eq!(silence.kind(), ErrorKind::WouldBlock, "{silence}");

    let mark = xfwd.said().len();
    (0..2).for_each(|index| site.serve(index));
    for address in &site.addresses {
        wait_told(&xfwd, mark, &services, *address, "healthy", &["connected"]);
    }
    ask::many(&site.client, site.at(ECHO), 40).assert_shares(&[(0, 1), (1, 1)], "backends are back");
    let summary = xfwd.stop().summary();
    assert!(summary.dropped("no-backend") >= 2, "{}", summary.0);
}

#[test]
fn clients_are_refused_or_hear_nothing_by_dsr() {
    nobody_is_left(Way::Dsr, Family::V4);
}

#[test]
fn clients_are_refused_or_hear_nothing_by_ipip_over_ipv6() {
    nobody_is_left(Way::Ipip, Family::V6);
}

#[test]
fn clients_are_refused_or_hear_nothing_by_nat() {
    nobody_is_left(Way::Nat, Family::V4);
}
