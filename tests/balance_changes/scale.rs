//! A thousand services with ten backends each.

use std::{fmt::Write as _, net::Ipv4Addr, time::Instant};

use xfwd_netns::lab_or_skip;

use crate::{
    ask,
    site::{ECHO, Family, Site, Way, nat_settings, reload, up},
    traffic::{Background, assert_unbroken, hold},
};

const SERVICES: u16 = 1_000;
const BACKENDS: u16 = 10;
/// With the release build it is to be a second; this is the one with all checks, on a machine that does other things.
const MOST_MILLISECONDS: u64 = 5_000;

/// Services on addresses of their own, whose backends are behind the router and do not exist.
fn generated(changed: Option<u16>) -> String {
    let mut text = String::new();
    for service in 0..SERVICES {
        let way = if service % 2 == 0 { "ipip" } else { "nat" };
        let vip = Ipv4Addr::from_bits(Ipv4Addr::new(198, 18, 64, 0).to_bits() + u32::from(service));
        writeln!(text, "[[service]]\nname = \"s{service}\"\nvip = \"{vip}\"\nprotocol = \"tcp\"\nport = 443")
            .unwrap();
        writeln!(text, "forward = \"{way}\"").unwrap();
        let weight = if changed == Some(service) { 5 } else { 1 };
        for backend in 0..BACKENDS {
            let number = u32::from(service * BACKENDS + backend);
            let address = Ipv4Addr::from_bits(Ipv4Addr::new(198, 19, 64, 0).to_bits() + number);
            let weight = if backend == 0 { weight } else { 1 };
            writeln!(text, "[[service.backend]]\naddress = \"{address}\"\nweight = {weight}").unwrap();
        }
    }
    text
}

#[test]
fn a_change_of_one_service_of_a_thousand_is_quick_and_disturbs_no_other() {
    lab_or_skip!();
    let site = Site::new(Way::Ipip, Family::V4, 2);
    let settings = nat_settings();
    let ours = site.config(&[up(0), up(1)], "");
    let begun = Instant::now();
    let xfwd = site.start(&format!("{ours}{}{settings}", generated(None)));
    println!("{SERVICES} services: started in {:?}", begun.elapsed());

    let held = hold(&site.client, site.at(ECHO), 20);
    let background = Background::start(&site);
    for service in [0, 1, 999] {
        let took = reload(&xfwd, &format!("{ours}{}{settings}", generated(Some(service))));
        println!("{SERVICES} services: reloaded in {took} ms");
        assert!(took < MOST_MILLISECONDS, "{took} ms");
        ask::many(&site.client, site.at(ECHO), 30).assert_shares(&[(0, 1), (1, 1)], "another service");
    }
    assert_unbroken(held, "held over reloads");
    println!("{} background requests answered", background.stop());
    let summary = xfwd.stop().summary();
    assert_eq!(summary.rows("backends").len(), usize::from(SERVICES * BACKENDS) + 6, "rows of backends");
}
