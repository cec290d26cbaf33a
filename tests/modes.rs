//! Packets pass in every mode that a veth has, and the summary says in which one the kernel bound each queue.
#![allow(missing_docs, clippy::unwrap_used)]

#[path = "support/xfwd.rs"]
mod running;

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use running::{PATIENCE, Summary, Xfwd};
use xfwd_netns::{
    lab_or_skip,
    topology::{self, INTERFACE, Pair},
};

const PACKETS: u64 = 200;

/// Bounces datagrams of both families with these lines in `[dataplane]`; returns the summary and what xfwd said.
fn bounce_with(dataplane: &str) -> (Summary, String) {
    let pair: Pair = topology::pair(2).unwrap();
    let config = format!("[dataplane]\n{dataplane}\nsteer = \"all\"\n\n[bounce]\nlayer = \"l4\"\n");
    let xfwd = Xfwd::start(&pair.subject, &["--iface", INTERFACE, "--queues", "2"], &config);
    let said = xfwd.said();
    let mac = pair.subject.mac(INTERFACE).unwrap();
    // Addresses that no host has.
    let nobody = [
        SocketAddr::from((Ipv4Addr::new(198, 19, 0, 1), 4_000)),
        SocketAddr::from((Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 2, 0, 0, 1), 4_000)),
    ];
    for to in nobody {
        pair.generator.neighbour(INTERFACE, to.ip(), mac).unwrap();
        let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        for number in 0..PACKETS / 2 {
            let socket = pair.generator.run(|| UdpSocket::bind(any)).unwrap();
            socket.set_read_timeout(Some(PATIENCE)).unwrap();
            socket.connect(to).unwrap();
            socket.send(&number.to_be_bytes()).unwrap();
            let mut buffer = [0; 16];
            let length = socket.recv(&mut buffer).unwrap();
            assert_eq!(buffer[..length], number.to_be_bytes());
        }
    }
    let summary = xfwd.stop().summary();
    assert_eq!(summary.workers("bounced"), PACKETS, "{dataplane}: {}", summary.0);
    assert_eq!(summary.workers("tx_completed"), PACKETS, "{dataplane}");
    (summary, said)
}

/// Flows spread over the queues. Not in generic mode: a veth does not note the queue in the skb, so all is of queue 0.
fn assert_all_queues_are_used(summary: &Summary) {
    assert!(summary.each_worker("bounced").iter().all(|packets| *packets > 0), "{}", summary.0);
}

fn assert_every_queue(summary: &Summary, key: &str, value: impl Into<serde_json::Value>) {
    let value = value.into();
    assert!(summary.rows("queues").iter().all(|queue| queue[key] == value), "{key}: {}", summary.0["queues"]);
}

#[test]
fn auto_takes_copy_mode_where_there_is_no_zero_copy_and_says_so() {
    lab_or_skip!();
    let (summary, said) = bounce_with("mode = \"auto\"");
    assert_every_queue(&summary, "mode", "copy");
    assert_all_queues_are_used(&summary);
    assert!(said.contains("warning: no zero-copy"), "{said}");
    assert!(said.contains("queue 0 copy") && said.contains("queue 1 copy"), "{said}");
}

#[test]
fn copy_mode_is_taken_as_asked_without_a_word() {
    lab_or_skip!();
    let (summary, said) = bounce_with("mode = \"copy\"");
    assert_every_queue(&summary, "mode", "copy");
    assert_all_queues_are_used(&summary);
    assert!(!said.contains("zero-copy") && !said.contains("generic"), "{said}");
}

#[test]
fn generic_mode_is_taken_only_when_asked_for_and_with_a_warning() {
    lab_or_skip!();
    let (summary, said) = bounce_with("mode = \"generic\"");
    assert_every_queue(&summary, "mode", "generic");
    assert!(said.contains("warning:") && said.contains("generic mode"), "{said}");
}

#[test]
fn busy_polling_is_switched_on_when_asked_for() {
    lab_or_skip!();
    let (summary, _) = bounce_with("mode = \"copy\"\nbusy_poll = true\nidle = \"busy\"");
    assert_every_queue(&summary, "busy_poll", true);
    assert_all_queues_are_used(&summary);
    assert_eq!(summary.workers("sleeps"), 0);
}

#[test]
fn the_smallest_rings_and_the_fewest_frames_do() {
    lab_or_skip!();
    let (summary, _) = bounce_with("ring_size = 64\nframes_per_queue = 1024\nhuge_pages = false");
    assert_eq!(summary.number("/totals/lost"), 0);
    assert_all_queues_are_used(&summary);
}
