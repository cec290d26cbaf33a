//! `bounce`, and the bare loop that stands beside it.

use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use xfwd_netns::lab_or_skip;
use xfwd_netns::topology::{self, INTERFACE, Pair, host_v4};
use xfwd_netns::trafficgen::{Amount, Class, Counter, CounterOptions, Generator, Traffic};

use crate::example::{Example, PATIENCE};
use crate::{ask, client};

/// Of no host: what is sent there leaves the kernel.
const ELSEWHERE: Ipv4Addr = host_v4(99);
const PACKETS: u64 = 10_000;

/// Two hosts that say nothing by themselves.
fn silent_pair() -> Pair {
    let pair = topology::pair(1).unwrap();
    for host in [&pair.generator, &pair.subject] {
        host.sysctl(&format!("net.ipv6.conf.{INTERFACE}.disable_ipv6"), "1").unwrap();
    }
    pair
}

/// Sends packets, slowly enough for any loop, and waits until as many have come back, whole.
fn assert_all_come_back(pair: &Pair) {
    let traffic = Traffic {
        destination_mac: pair.subject.mac(INTERFACE).unwrap(),
        flows: 100,
        rate_pps: Some(20_000),
        ..Traffic::udp("198.18.128.10".parse().unwrap(), ELSEWHERE.into(), 9)
    };
    let options = CounterOptions { validate: true, ..CounterOptions::default() };
    let counter = pair.generator.run(|| {
        let counter = Counter::attach(INTERFACE, &options).unwrap();
        let sent = Generator::new(INTERFACE, &traffic).unwrap().run(Amount::Packets(PACKETS)).unwrap();
        assert_eq!((sent.packets, sent.refused), (PACKETS, Some(0)));
        counter
    });
    let deadline = Instant::now() + PATIENCE;
    loop {
        let back = counter.read().unwrap();
        if back.total().packets >= PACKETS || Instant::now() > deadline {
            let udp = back.class(Class::Ipv4Udp);
            assert_eq!((udp.packets, udp.ours, udp.bad_checksum), (PACKETS, PACKETS, 0));
            return;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn bounce_sends_every_packet_back_and_says_how_many() {
    lab_or_skip!();
    let pair = silent_pair();
    let bounce = Example::start(&pair.subject, "bounce", &[INTERFACE], "bouncing on");
    assert_all_come_back(&pair);
    assert_eq!(bounce.stop(), format!("{PACKETS} received, {PACKETS} bounced, 0 lost\n"));
}

#[test]
fn the_bare_loop_sends_every_packet_back_too() {
    lab_or_skip!();
    let pair = silent_pair();
    let _bare = Example::start(&pair.subject, "bare_xsk_bounce", &[INTERFACE], "bouncing on");
    assert_all_come_back(&pair);
}

#[test]
fn bounce_at_layer_4_is_an_echo_server_for_whoever_sends() {
    lab_or_skip!();
    let pair = silent_pair();
    pair.generator.neighbour(INTERFACE, ELSEWHERE.into(), pair.subject.mac(INTERFACE).unwrap()).unwrap();
    let bounce = Example::start(&pair.subject, "bounce", &[INTERFACE, "l4"], "bouncing on");
    let client = client(&pair.generator, IpAddr::from(host_v4(Pair::GENERATOR)));
    assert_eq!(ask(&client, (ELSEWHERE, 9).into(), b"and back").as_deref(), Some(&b"and back"[..]));
    assert_eq!(bounce.stop(), "1 received, 1 bounced, 0 lost\n");
}
