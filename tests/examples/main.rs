//! The examples do what their first lines say, in a namespace, against the sockets of a real host.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    reason = "a test fails by panicking, in its helper functions too"
)]

mod bounce;
mod dns_responder;
mod embed_in_tokio;
#[path = "../support/example.rs"]
mod example;
mod first_stage;
mod l2_bridge;
mod reload;
mod sampler;
mod syn_scrubber;
mod vxlan_gateway;
mod whoami;

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;

use example::{Example, PATIENCE};
use serde_json::Value;
use xfwd_netns::topology::{self, INTERFACE, Pair, host_v4, host_v6};
use xfwd_netns::{Namespace, lab_or_skip};

/// Long enough for an answer that would come, in a lab.
const NO_ANSWER: Duration = Duration::from_millis(300);

fn client(namespace: &Namespace, address: impl Into<IpAddr>) -> UdpSocket {
    let address = SocketAddr::new(address.into(), 0);
    let socket = namespace.run(|| UdpSocket::bind(address)).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

/// Sends `payload` and gives back the answer, which has to come from where it was sent to.
fn ask(client: &UdpSocket, server: SocketAddr, payload: &[u8]) -> Option<Vec<u8>> {
    client.send_to(payload, server).unwrap();
    let mut buffer = [0; 2_048];
    match client.recv_from(&mut buffer) {
        Ok((length, from)) => {
            assert_eq!(from, server);
            Some(buffer[..length].to_vec())
        }
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => None,
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn udp_echo_answers_on_its_port_and_leaves_all_others_to_the_host() {
    const PORT: u16 = 7;
    const SIZES: [usize; 6] = [0, 1, 18, 19, 512, 1_400];
    lab_or_skip!();
    let pair = topology::pair(2).unwrap();
    let hosts: [(IpAddr, IpAddr); 2] = [
        (host_v4(Pair::GENERATOR).into(), host_v4(Pair::SUBJECT).into()),
        (host_v6(Pair::GENERATOR).into(), host_v6(Pair::SUBJECT).into()),
    ];
    for (from, to) in hosts {
        let server = SocketAddr::new(to, PORT);
        // A server of the host on another port has to hear of everything that is sent to it, as before.
        let host = pair.subject.run(|| UdpSocket::bind((to, 4_000))).unwrap();
        host.set_read_timeout(Some(PATIENCE)).unwrap();
        let address = server.to_string();
        let echo = Example::start(&pair.subject, "udp_echo", &[INTERFACE, &address, "2"], "echoing on");

        // The client's kernel checks the checksums of what comes back. Several flows reach both workers.
        for _ in 0..8 {
            let client = client(&pair.generator, from);
            for size in SIZES {
                let payload: Vec<u8> = (0..size).map(|index| index as u8).collect();
                assert_eq!(ask(&client, server, &payload), Some(payload), "{size} bytes to {server}");
            }
            client.send_to(b"still there?", host.local_addr().unwrap()).unwrap();
            let mut buffer = [0; 64];
            let (length, _) = host.recv_from(&mut buffer).unwrap();
            assert_eq!(&buffer[..length], b"still there?");
        }
        assert_eq!(echo.stop(), format!("{} answered, 0 refused\n", 8 * SIZES.len()));
        // It is gone: nobody answers any more.
        let late = client(&pair.generator, from);
        late.set_read_timeout(Some(NO_ANSWER)).unwrap();
        assert_eq!(ask(&late, server, b"anybody?"), None);
    }
}

#[test]
fn udp_echo_does_not_answer_other_servers() {
    lab_or_skip!();
    let pair = topology::pair(1).unwrap();
    let server = SocketAddr::new(host_v4(Pair::SUBJECT).into(), 7);
    let echo = Example::start(&pair.subject, "udp_echo", &[INTERFACE, &server.to_string()], "echoing on");
    let forged = pair.generator.run(|| UdpSocket::bind((host_v4(Pair::GENERATOR), 19))).unwrap();
    forged.set_read_timeout(Some(NO_ANSWER)).unwrap();
    assert_eq!(ask(&forged, server, b"round and round"), None);
    assert_eq!(echo.stop(), "0 answered, 1 refused\n");
}

#[test]
fn custom_stage_drops_what_has_passed_a_router_and_counts_it_in_the_summary() {
    lab_or_skip!();
    let pair = topology::pair(1).unwrap();
    // Of no host: with `steer = "all"` what is sent there leaves the kernel, and is bounced.
    let elsewhere = SocketAddr::new(host_v4(99).into(), 9);
    pair.generator.neighbour(INTERFACE, elsewhere.ip(), pair.subject.mac(INTERFACE).unwrap()).unwrap();
    let config = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/custom_stage.toml");
    let arguments = ["--iface", INTERFACE, "--json", config];
    let xfwd = Example::start(&pair.subject, "custom_stage", &arguments, "\nleaves the kernel: ");

    let client = client(&pair.generator, host_v4(Pair::GENERATOR));
    client.set_ttl(255).unwrap();
    assert_eq!(ask(&client, elsewhere, b"from next door").as_deref(), Some(&b"from next door"[..]));
    client.set_ttl(254).unwrap();
    client.set_read_timeout(Some(NO_ANSWER)).unwrap();
    assert_eq!(ask(&client, elsewhere, b"from far away"), None);

    let summary: Value = serde_json::from_str(&xfwd.stop()).unwrap();
    assert_eq!(summary["counters"]["too-far"], 1, "{summary}");
    assert_eq!(summary["totals"]["verdicts"]["bounce"], 1, "{summary}");
}
