//! Real clients reach real servers in the lab's networks, and their reports are read right, failures included.

use std::{
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;
use xfwd_netns::{
    clients::{
        curl, dns, h2, hold,
        iperf3::{self, Amount, Kind},
        requests::{self, Requests},
    },
    commands_or_skip, lab_or_skip,
    topology::{self, Bridged, Routed, host_v4, host_v6},
};

type TestResult = Result<(), Box<dyn std::error::Error>>;

const WAIT: Duration = Duration::from_secs(10);

/// The addresses of a backend behind the router.
fn far(index: usize, port: u16) -> [SocketAddr; 2] {
    [Routed::backend_v4(index).into(), Routed::backend_v6(index).into()]
        .map(|address: IpAddr| SocketAddr::new(address, port))
}

#[test]
fn curl_gets_a_page_in_both_families() -> TestResult {
    commands_or_skip!("curl");
    lab_or_skip!();
    let network = topology::tunnel(1, 1)?;
    let addresses = far(0, 80);
    let server = requests::serve_http(&network.backends[0], "backend1", &addresses)?;
    for address in addresses {
        let page = curl::get(&network.client, address, "/", WAIT)?;
        assert_eq!((page.status, page.server()), (200, "backend1"));
        assert_eq!(curl::get(&network.client, address, "/missing", WAIT)?.status, 404);
        let answers = requests::http(&network.client, address, &Requests::default())?;
        assert_eq!((answers.succeeded, answers.failed, answers.backends["backend1"]), (100, 0, 100));
    }
    drop(server);
    let error = curl::get(&network.client, addresses[0], "/", WAIT).unwrap_err().to_string();
    assert!(error.contains("curl") && error.contains("onnect"), "{error}");
    let answers = requests::http(&network.client, addresses[1], &Requests::default())?;
    assert_eq!((answers.succeeded, answers.failed), (0, 100), "{answers:?}");
    Ok(())
}

#[test]
fn iperf3_moves_tcp_and_udp_in_both_directions_and_families() -> TestResult {
    commands_or_skip!("iperf3");
    lab_or_skip!();
    let network = topology::tunnel(1, 1)?;
    for address in far(0, 5201) {
        let _server = iperf3::serve(&network.backends[0], address)?;
        let udp = Kind::Udp { bits_per_second: 10_000_000, datagram_bytes: 1_000 };
        for (kind, reverse) in [(Kind::Tcp { connections: 2 }, false), (udp, false), (udp, true)] {
            let options = iperf3::Options { kind, amount: Amount::For(Duration::from_secs(1)), reverse };
            let result = iperf3::run(&network.client, address, &options)?;
            assert!(result.received_bytes > 500_000, "{address} {options:?} {result:?}");
            assert!(result.bits_per_second > 5e6, "{address} {options:?} {result:?}");
        }
    }
    let options =
        iperf3::Options { kind: Kind::Tcp { connections: 1 }, amount: Amount::For(WAIT), reverse: false };
    let error = iperf3::run(&network.client, far(0, 5201)[0], &options).unwrap_err().to_string();
    assert!(error.contains("unable to connect"), "{error}");
    Ok(())
}

#[test]
fn http2_pages_and_loads_are_counted_in_both_families() -> TestResult {
    commands_or_skip!("nghttp", "h2load", "nghttpd");
    lab_or_skip!();
    let network = topology::tunnel(1, 1)?;
    for address in far(0, 8080) {
        let server = h2::serve(&network.backends[0], "backend1", address, 3_000)?;
        assert_eq!(h2::get(&network.client, address, WAIT)?, "backend1");
        let load = h2::load(&network.client, address, 200, 4, WAIT)?;
        assert_eq!(load, h2::Load { total: 200, succeeded: 200, failed: 0 });
        drop(server);
        assert!(h2::get(&network.client, address, WAIT).is_err());
        let load = h2::load(&network.client, address, 20, 2, WAIT)?;
        assert_eq!(load, h2::Load { total: 20, succeeded: 0, failed: 20 });
    }
    Ok(())
}

#[test]
fn dig_learns_which_server_answers_over_udp_and_tcp_in_both_families() -> TestResult {
    commands_or_skip!("dig", "dnsmasq");
    lab_or_skip!();
    let network = topology::tunnel(1, 2)?;
    for address in far(1, 53) {
        let server = dns::serve(&network.backends[1], "backend2", address)?;
        for tcp in [false, true] {
            assert_eq!(dns::dig(&network.client, address, tcp, WAIT)?, "backend2");
        }
        drop(server);
        assert!(dns::dig(&network.client, address, false, Duration::from_secs(1)).is_err());
    }
    Ok(())
}

fn hold_options() -> hold::Options {
    hold::Options {
        connections: 10,
        interval: Duration::from_millis(20),
        timeout: Duration::from_secs(2),
        ..hold::Options::default()
    }
}

#[test]
fn held_connections_stay_with_their_server_and_none_breaks() -> TestResult {
    lab_or_skip!();
    let network = topology::tunnel(1, 1)?;
    let addresses = far(0, 7);
    let _server = hold::serve(&network.backends[0], "backend1", &addresses)?;
    for address in addresses {
        // Longer than a segment, so that full packets cross the router.
        let options = hold::Options { time: Duration::from_secs(1), size: 4_000, ..hold_options() };
        let held = hold::start(&network.client, address, &options)?.finish(WAIT)?;
        assert_eq!((held.connections, held.established, held.backends["backend1"]), (10, 10, 10));
        assert!(held.broken.is_empty(), "{held:?}");
        assert!(held.exchanges >= 20 && held.seconds >= 1.0, "{held:?}");
    }
    Ok(())
}

#[test]
fn a_killed_server_breaks_its_connections_and_only_those() -> TestResult {
    lab_or_skip!();
    let network = topology::dsr(1, 2)?;
    let address = |index| SocketAddr::new(host_v4(Bridged::backend(index)).into(), 7);
    let [killed, stays] = [0, 1].map(|index| {
        hold::serve(&network.backends[index], &format!("backend{}", index + 1), &[address(index)])
    });
    let (killed, _stays) = (killed?, stays?);
    let [first, second] = [0, 1].map(|index| hold::start(&network.client, address(index), &hold_options()));
    let (first, second) = (first?, second?);
    killed.signal(Signal::SIGKILL)?;
    // All have broken: it ends by itself, long before its time.
    let held = first.finish(WAIT)?;
    assert_eq!((held.established, held.broken.len()), (10, 10), "{held:?}");
    for broken in &held.broken {
        assert_eq!(broken.server.as_deref(), Some("backend1"));
        assert!(["closed by the server", "connection reset"].contains(&&*broken.reason), "{broken:?}");
        assert!(broken.local.is_some());
    }
    let held = second.stop()?;
    assert_eq!((held.established, held.broken.len()), (10, 0), "{held:?}");
    Ok(())
}

#[test]
fn a_host_that_falls_silent_breaks_connections_by_timeout() -> TestResult {
    lab_or_skip!();
    let network = topology::dsr(1, 1)?;
    let address = SocketAddr::new(host_v6(Bridged::backend(0)).into(), 7);
    let _server = hold::serve(&network.backends[0], "backend1", &[address])?;
    let options = hold::Options { timeout: Duration::from_millis(500), ..hold_options() };
    let holding = hold::start(&network.client, address, &options)?;
    let start = Instant::now();
    network.backends[0].ip(["link", "set", "dev", "eth0", "down"])?;
    let held = holding.finish(WAIT)?;
    assert!(start.elapsed() >= options.timeout / 2);
    assert_eq!(held.broken.len(), 10, "{held:?}");
    assert!(held.broken.iter().all(|broken| broken.reason == "timed out"), "{held:?}");
    Ok(())
}

#[test]
fn connections_that_nobody_takes_are_broken_from_the_start() -> TestResult {
    lab_or_skip!();
    let network = topology::dsr(1, 1)?;
    let address = SocketAddr::new(host_v4(Bridged::backend(0)).into(), 7);
    let held = hold::start(&network.client, address, &hold_options())?.finish(WAIT)?;
    assert_eq!((held.established, held.broken.len(), held.exchanges), (0, 10, 0), "{held:?}");
    assert!(held.broken.iter().all(|broken| broken.reason == "connection refused"), "{held:?}");
    Ok(())
}
