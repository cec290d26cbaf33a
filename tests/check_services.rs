//! What `xfwd check` says about services, whether they are a few or a thousand. Neither root nor a lab is needed.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    reason = "a test fails by panicking, in its helper functions too"
)]

#[path = "support/xfwd.rs"]
mod running;

use std::fmt::Write;
use std::path::Path;
use std::process::Command;

use running::ConfigFile;

/// What it says about a valid config.
fn check(config: &Path) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_xfwd")).arg("check").arg(config).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), said.as_str()), (Some(0), ""));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn the_example_with_everything_is_accepted_and_described() {
    let said = check(&Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/balance.toml"));
    assert_eq!(
        said,
        "\
service web: tcp 198.18.10.1 port 80 by dsr to 198.18.0.11 66.7 %, 198.18.0.12 (drain), 198.18.0.13 33.3 %
    slow start of 30s
    checked by http GET /health, status 200-299 or 304, at port 80 every 2s, 1s at most; up after 2, down after 3
service media: tcp 2001:db8:10::21 ports 50000-51000 by ipip to 2001:db8:1::11 50.0 %, 198.18.1.12 50.0 %
    all connections of a client to one backend, TCP segments of 1400 bytes at most
    checked by tcp at port 50000 every 2s, 1s at most; up after 2, down after 3
service dns: udp 198.18.10.53 port 53 by gue to 198.18.1.21 50.0 %, 198.18.1.22 50.0 %
    UDP port 6080
    checked by /usr/local/bin/check-dns example.org every 5s, 3s at most; up after 2, down after 3
service shop: tcp 198.18.10.1 port 443 by nat to 198.18.0.31:8443 50.0 %, 198.18.0.32:8443 50.0 %
    checked by https GET /, status 200, at the backend's port every 2s, 1s at most; up after 2, down after 3
service everything-else: tcp 198.18.10.0/24 all ports by dsr to 198.18.0.41 100.0 %
    rejects when no backend is left
    checked by icmp every 2s, 1s at most; up after 2, down after 3
balance: 1000000 connections a worker, forgotten after 1m (SYN), 15m (established), 2m (closing), 2m (UDP); 1000 answers a second; \
tunnels from 198.18.0.2 and 2001:db8::2
nat: from 198.18.0.2, 2001:db8::2, ports 1024-32767
stages: balance
leaves the kernel: packets of the services; everything else goes to the host's network stack
"
    );
}

#[test]
fn a_thousand_services_are_a_line_each_and_are_counted() {
    let mut config = String::new();
    for index in 0..1_000 {
        let (high, low) = (index / 250, index % 250);
        write!(
            config,
            "[[service]]\nname = \"s{index}\"\nvip = \"198.18.{high}.{low}\"\nprotocol = \"tcp\"\nport = 80\nforward = \"dsr\"\n"
        )
        .unwrap();
        for host in 0..10 {
            writeln!(config, "[[service.backend]]\naddress = \"198.19.{high}.{host}\"").unwrap();
        }
    }
    let file = ConfigFile::new(&config);
    let said = check(file.path());
    let lines: Vec<&str> = said.lines().collect();
    let named: Vec<String> = (0..8).map(|host| format!("198.19.3.{host} 10.0 %")).collect();
    let last = format!("service s999: tcp 198.18.3.249 port 80 by dsr to {}, and 2 more", named.join(", "));
    assert_eq!(
        lines[999..],
        [
            &last,
            "services: 1000, with 10000 backends",
            "stages: balance",
            "leaves the kernel: packets of the services; everything else goes to the host's network stack",
        ]
    );
}
