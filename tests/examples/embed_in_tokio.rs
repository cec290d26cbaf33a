//! `embed_in_tokio`: asked by HTTP, told by HTTP, woken by what happens to its interface, and ended in every way it can be.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use xfwd_netns::topology::{self, INTERFACE, Pair, host_v4};
use xfwd_netns::{Namespace, lab_or_skip};

use crate::example::{Example, PATIENCE};
use crate::{NO_ANSWER, ask, client};

const HTTP: (Ipv4Addr, u16) = (Ipv4Addr::LOCALHOST, 8_080);
const SERVER: (Ipv4Addr, u16) = (host_v4(Pair::SUBJECT), 7);

fn start(pair: &Pair, queues: &str) -> Example {
    let (server, http) = (SocketAddr::from(SERVER).to_string(), SocketAddr::from(HTTP).to_string());
    Example::start(&pair.subject, "embed_in_tokio", &[INTERFACE, &server, &http, queues], "echoing on")
}

/// Status and body of the answer to a request.
fn request(namespace: &Namespace, method: &str, path: &str) -> (u16, String) {
    let mut stream = namespace.run(|| TcpStream::connect(HTTP)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(stream, "{method} {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

/// Asks until the workers have heard of a change.
fn ask_until(client: &UdpSocket, answered: bool) {
    let deadline = Instant::now() + PATIENCE;
    while ask(client, SERVER.into(), b"may I?").is_some() != answered {
        assert!(Instant::now() < deadline);
    }
}

#[test]
fn the_list_changes_while_packets_flow_and_counters_are_shown() {
    lab_or_skip!();
    let pair = topology::pair(2).unwrap();
    let echo = start(&pair, "2");
    let client = client(&pair.generator, host_v4(Pair::GENERATOR));
    client.set_read_timeout(Some(NO_ANSWER)).unwrap();
    let http = |method: &str, path: &str| request(&pair.subject, method, path);

    assert_eq!(ask(&client, SERVER.into(), b"may I?"), None);
    assert_eq!(http("GET", "/counters"), (200, "answered 0\nrefused 1\n".to_owned()));
    assert_eq!(http("PUT", "/allowed/198.18.0.1"), (200, String::new()));
    ask_until(&client, true);
    assert!(http("GET", "/counters").1.starts_with("answered 1\n"));
    assert_eq!(http("DELETE", "/allowed/198.18.0.1"), (200, String::new()));
    ask_until(&client, false);
    for (method, path) in [("PUT", "/allowed/nobody"), ("POST", "/allowed/198.18.0.1"), ("GET", "/")] {
        assert_eq!(http(method, path), (404, String::new()), "{method} {path}");
    }

    // Somebody who connects and says nothing keeps neither the others nor the end waiting.
    let silent = pair.subject.run(|| TcpStream::connect(HTTP)).unwrap();
    assert_eq!(http("GET", "/counters").0, 200);
    assert!(echo.stop().contains(" answered, "));
    drop(silent);
}

#[test]
fn an_event_wakes_the_async_side() {
    lab_or_skip!();
    let pair = topology::pair(1).unwrap();
    let echo = start(&pair, "1");
    pair.generator.ip(["link", "set", INTERFACE, "down"]).unwrap();
    echo.wait_for("up: false");
    pair.generator.ip(["link", "set", INTERFACE, "up"]).unwrap();
    echo.wait_for("up: true");
    echo.stop();
}

#[test]
fn the_program_ends_with_its_interface_and_says_so() {
    lab_or_skip!();
    let pair = topology::pair(1).unwrap();
    let mut echo = start(&pair, "1");
    let before = Instant::now();
    pair.subject.ip(["link", "delete", INTERFACE]).unwrap();
    let report = echo.wait();
    assert!(!report.status.success() && report.stderr.contains("InterfaceRemoved"), "{report:?}");
    assert!(before.elapsed() < Duration::from_secs(10), "nobody has waited for it");
}
