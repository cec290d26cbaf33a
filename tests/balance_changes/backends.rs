//! Backends are added, drained, reweighed and removed while connections are held and new ones are made.

use xfwd_netns::{lab_or_skip, topology::INTERFACE};

use crate::{
    ask,
    running::PATIENCE,
    site::{ECHO, Family, Line, Site, Way, name, reload, up},
    traffic::{Background, assert_unbroken, hold},
};

fn backends_come_and_go(way: Way, family: Family) {
    lab_or_skip!();
    let site = Site::new(way, family, 4);
    let xfwd = site.start(&site.config(&[up(0), up(1), up(2)], ""));
    let background = Background::start(&site);
    let first = hold(&site.client, site.at(ECHO), 40);
    let change = |what: &str, lines: &[Line]| {
        let took = reload(&xfwd, &site.config(lines, ""));
        println!("{way:?} {family:?}: {what}: reloaded in {took} ms");
        assert!(took < 1_000, "{what}: {took} ms");
        let flows = lines.iter().filter(|line| line.state == "up" && line.weight > 0);
        let weights: Vec<_> = flows.map(|line| (line.index, line.weight)).collect();
        ask::many(&site.client, site.at(ECHO), 100).assert_shares(&weights, what);
    };
    let drained = |index| Line { state: "drain", ..up(index) };
    let heavy = |index| Line { weight: 4, ..up(index) };

    ask::many(&site.client, site.at(ECHO), 100).assert_shares(&[(0, 1), (1, 1), (2, 1)], "at first");
    change("4 is added", &[up(0), up(1), up(2), up(3)]);
    let second = hold(&site.client, site.at(ECHO), 40);
    change("1 is drained", &[drained(0), up(1), up(2), up(3)]);
    change("3 is reweighed", &[drained(0), up(1), heavy(2), up(3)]);
    change("2 is removed", &[drained(0), heavy(2), up(3)]);
    change("4 gets the weight 0, 2 is back", &[drained(0), up(1), heavy(2), Line { weight: 0, ..up(3) }]);
    change("1 is up, 3 is removed", &[up(0), up(1), up(3)]);

    let held = [assert_unbroken(first, "held from the start"), assert_unbroken(second, "held since then")];
    // Connections were on the backends that had to go.
    for index in 0..3 {
        assert!(held[0].backends.contains_key(&name(index)), "{held:?}");
    }
    assert!(held[1].backends.contains_key(&name(3)), "{held:?}");
    println!("{way:?} {family:?}: {} background requests answered", background.stop());
    let summary = xfwd.stop().summary();
    assert_eq!(summary.number("/totals/lost"), 0, "{}", summary.0);
    let gone = summary.rows("backends").iter().filter(|row| row["state"] == "removed");
    let gone: Vec<_> = gone.map(|row| row["address"].as_str().unwrap().to_owned()).collect();
    assert_eq!(gone, vec![site.addresses[2].to_string(); 3], "one of each service");
}

#[test]
fn backends_come_and_go_by_dsr() {
    backends_come_and_go(Way::Dsr, Family::V4);
}

#[test]
fn backends_come_and_go_by_dsr_over_ipv6() {
    backends_come_and_go(Way::Dsr, Family::V6);
}

#[test]
fn backends_come_and_go_by_ipip() {
    backends_come_and_go(Way::Ipip, Family::V4);
}

#[test]
fn backends_come_and_go_by_nat() {
    backends_come_and_go(Way::Nat, Family::V4);
}

/// What the kernel says of backends that are no longer in the config matters to the flows that they have.
#[test]
fn flows_of_a_removed_backend_follow_it_to_another_mac_address() {
    lab_or_skip!();
    let site = Site::new(Way::Dsr, Family::V4, 2);
    let removed = &site.backends[1];
    removed.sysctl(&format!("net.ipv4.conf.{INTERFACE}.arp_notify"), "1").unwrap();
    let xfwd = site.start(&site.config(&[up(0), up(1)], ""));
    let connect = |_| ask::connect(&site.client, ask::fresh_port(), site.at(ECHO), PATIENCE).unwrap();
    let mut streams: Vec<_> = (0..30).map(connect).collect();
    let before: Vec<String> = streams.iter_mut().map(|stream| ask::on(stream, PATIENCE).unwrap()).collect();
    assert!(before.contains(&name(1)), "{before:?}");

    reload(&xfwd, &site.config(&[up(0)], ""));
    let mac = "02:00:5e:10:00:77";
    removed.ip(["link", "set", "dev", INTERFACE, "address", mac]).unwrap();
    xfwd.wait_for(&format!("backend {} is at {mac}", site.addresses[1]));
    for (stream, before) in streams.iter_mut().zip(before) {
        assert_eq!(ask::on(stream, PATIENCE).unwrap(), before);
    }
    xfwd.stop();
}

/// One host that does not answer is no reason to keep all others waiting.
#[test]
fn a_backend_that_is_known_to_be_gone_does_not_delay_a_reload() {
    lab_or_skip!();
    let site = Site::new(Way::Dsr, Family::V4, 3);
    site.backends[2].ip(["link", "set", "dev", INTERFACE, "down"]).unwrap();
    let xfwd = site.start(&site.config(&[up(0), up(1), up(2)], ""));
    let took = reload(&xfwd, &site.config(&[Line { weight: 2, ..up(0) }, up(1), up(2)], ""));
    println!("with a backend that does not answer: reloaded in {took} ms");
    assert!(took < 700, "{took} ms");
    assert!(xfwd.said().contains(&format!("backend {} does not answer", site.addresses[2])));
    xfwd.stop();
}
