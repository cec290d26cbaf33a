//! Packets of 9,000 bytes, which lie in several buffers, come back whole; the host's own are left alone.
#![allow(missing_docs, clippy::unwrap_used)]

#[path = "support/xfwd.rs"]
mod running;

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    process::Command,
};

use running::{PATIENCE, Xfwd};
use xfwd_netns::{
    VethOptions, lab_or_skip,
    topology::{self, INTERFACE, Pair, host_v4, host_v6},
};

const MTU: u32 = 9_000;
const BOUNCE_ALL: &str = "[dataplane]\nsteer = \"all\"\n\n[bounce]\nlayer = \"l4\"\n";
/// Addresses that no host has, with the bytes that IP and UDP headers take to them.
const NOBODY: [(IpAddr, usize); 2] = [
    (IpAddr::V4(Ipv4Addr::new(198, 19, 0, 1)), 28),
    (IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 2, 0, 0, 1)), 48),
];

fn jumbo_pair(queues: u32) -> Pair {
    let pair = topology::pair_with(&VethOptions { queues, mtu: MTU, ..VethOptions::default() }).unwrap();
    let mac = pair.subject.mac(INTERFACE).unwrap();
    NOBODY.iter().for_each(|(address, _)| pair.generator.neighbour(INTERFACE, *address, mac).unwrap());
    pair
}

/// Bytes that differ from place to place and from packet to packet.
fn payload(number: usize, length: usize) -> Vec<u8> {
    (0..length).map(|at| (at ^ (at >> 8) ^ (number * 31)) as u8).collect()
}

fn socket(pair: &Pair, to: IpAddr) -> UdpSocket {
    let any: IpAddr = if to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = pair.generator.run(|| UdpSocket::bind((any, 0))).unwrap();
    socket.connect(SocketAddr::new(to, 4_000)).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

#[test]
fn jumbo_packets_are_bounced_to_the_byte_among_small_ones() {
    const ROUNDS: usize = 40;
    lab_or_skip!();
    let pair = jumbo_pair(2);
    let xfwd = Xfwd::start(&pair.subject, &["--iface", INTERFACE, "--queues", "2"], BOUNCE_ALL);
    let (mut packets, mut bytes) = (0, 0);
    for (address, headers) in NOBODY {
        let largest = MTU as usize - headers;
        for round in 0..ROUNDS {
            // Around the ends of the first and the second buffer (4,096 bytes less headroom), and of the MTU.
            let lengths = [18, largest, 1, 3_700 + round, 1_472, 7_700 + round, largest - 1, 4_096, 0];
            let socket = socket(&pair, address);
            // All at once, so that a batch has packets of one and of several buffers.
            for (number, length) in lengths.into_iter().enumerate() {
                assert_eq!(socket.send(&payload(number, length)).unwrap(), length);
                packets += 1;
                // An Ethernet frame has 60 bytes at least, but a veth pads none.
                bytes += (length + headers + 14) as u64;
            }
            let mut buffer = vec![0; MTU as usize];
            for (number, length) in lengths.into_iter().enumerate() {
                let received = socket.recv(&mut buffer).unwrap();
                assert_eq!(received, length, "{address}: packet {number} of round {round}");
                assert!(buffer[..length] == payload(number, length), "{address}: {length} bytes differ");
            }
        }
    }
    let summary = xfwd.stop().summary();
    assert!(summary.rows("queues").iter().all(|queue| queue["multi_buffer"] == true), "{}", summary.0);
    assert_eq!(summary.workers("bounced"), packets);
    if summary.dropped("not-answered") == 0 {
        assert_eq!(summary.number("/totals/bytes"), bytes);
    }
    // Every buffer of a packet is a frame that is sent and given back.
    assert!(summary.workers("tx_frames") > packets * 3 / 2, "{}", summary.0);
    assert_eq!(summary.workers("tx_frames"), summary.workers("tx_completed"));
    assert_eq!((summary.number("/totals/lost"), summary.workers("tx_dropped_busy")), (0, 0));
    assert_eq!(summary.statistic("tx_invalid_descs"), 0);
}

#[test]
fn jumbo_packets_too_fast_for_small_rings_are_lost_whole_and_counted() {
    const PACKETS: u64 = 5_000;
    lab_or_skip!();
    let pair = jumbo_pair(1);
    // The rx ring holds 21 packets of three buffers: it is full in the middle of one all the time.
    let config = format!("{BOUNCE_ALL}\n")
        .replace("[dataplane]", "[dataplane]\nring_size = 64\nframes_per_queue = 1024");
    let xfwd = Xfwd::start(&pair.subject, &["--iface", INTERFACE], &config);
    let (address, headers) = NOBODY[0];
    let sender = socket(&pair, address);
    let packet = payload(1, MTU as usize - headers);
    for _ in 0..PACKETS {
        assert_eq!(sender.send(&packet).unwrap(), packet.len());
    }
    // A packet on its own, which comes back behind all of them.
    let last = socket(&pair, address);
    let mut buffer = vec![0; MTU as usize];
    last.set_read_timeout(Some(std::time::Duration::from_millis(100))).unwrap();
    let mut tries = 0;
    loop {
        assert!(tries < 100, "nothing comes back any more");
        tries += 1;
        last.send(&packet).unwrap();
        if last.recv(&mut buffer).is_ok_and(|length| buffer[..length] == packet) {
            break;
        }
    }
    let summary = xfwd.stop().summary();
    println!(
        "{} steered, {} bounced, {} lost, {} frames sent",
        summary.kernel("steered"),
        summary.workers("bounced"),
        summary.number("/totals/lost"),
        summary.workers("tx_frames")
    );
    let steered_or_shed = summary.kernel("steered") + summary.kernel("lost");
    assert_eq!(steered_or_shed, summary.packets() + summary.number("/totals/lost"));
    assert_eq!(summary.packets(), summary.workers("bounced") + summary.dropped("not-answered"));
    assert_eq!(summary.workers("tx_frames"), 3 * summary.workers("bounced"), "whole packets only");
    assert_eq!(summary.workers("tx_completed"), summary.workers("tx_frames"));
}

#[test]
fn jumbo_pings_to_the_host_are_answered() {
    lab_or_skip!();
    let pair = jumbo_pair(1);
    let xfwd = Xfwd::start(&pair.subject, &["--iface", INTERFACE], BOUNCE_ALL);
    for (address, payload) in
        [(IpAddr::from(host_v4(Pair::SUBJECT)), MTU - 28), (host_v6(Pair::SUBJECT).into(), MTU - 48)]
    {
        let (address, payload) = (address.to_string(), payload.to_string());
        let mut ping = Command::new("ping");
        ping.args(["-c", "3", "-i", "0.1", "-W", "5", "-M", "do", "-s", &payload, &address]);
        let output = pair.generator.output(&mut ping).unwrap();
        assert!(output.status.success(), "{address}: {}", String::from_utf8_lossy(&output.stdout));
    }
    let summary = xfwd.stop().summary();
    assert!(summary.cause("passed-host") >= 6, "{}", summary.0);
}
