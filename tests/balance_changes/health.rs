//! A backend that dies gets no flow any more within the time that the config says, and others do not notice; one that comes back
//! gets its share.

use std::{
    fs,
    net::IpAddr,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use xfwd_netns::{lab_or_skip, topology::INTERFACE};

use crate::{
    ask,
    running::{PATIENCE, Xfwd},
    site::{ECHO, Family, HTTP, Line, Site, Way, name, reload, up, wait_said},
    traffic::hold,
};

const INTERVAL: Duration = Duration::from_millis(300);
const TIMEOUT: Duration = Duration::from_millis(250);
const FALL: u32 = 3;
/// What a loaded machine may add.
const SLACK: Duration = Duration::from_millis(1_500);
/// The one that dies.
const VICTIM: usize = 1;
const SERVICES: [&str; 3] = ["tcp80", "tcp7", "udp7"];

fn health(kind: &str, more: &str) -> String {
    format!(
        "[service.health]\ntype = \"{kind}\"\ninterval = \"{}ms\"\ntimeout = \"{}ms\"\nrise = 2\nfall = {FALL}\n{more}\n",
        INTERVAL.as_millis(),
        TIMEOUT.as_millis()
    )
}

fn all() -> [Line; 3] {
    [up(0), up(1), up(2)]
}

/// Waits until a state of the backend was told for every service since `mark`, with one of the reasons.
pub fn wait_told(
    xfwd: &Xfwd,
    mark: usize,
    services: &[&str],
    address: IpAddr,
    state: &str,
    reasons: &[&str],
) {
    let wanted: Vec<String> =
        services.iter().map(|service| format!("service {service}: backend {address} is {state} (")).collect();
    let said =
        wait_said(xfwd, mark, |said| said.ends_with('\n') && wanted.iter().all(|text| said.contains(text)));
    for text in wanted {
        let line = said.lines().find(|line| line.contains(&text)).unwrap();
        assert!(reasons.iter().any(|reason| line.ends_with(&format!("({reason})"))), "{line}");
    }
}

/// How a backend dies, how it comes back, and what checks say to that.
struct Death {
    die: fn(&mut Site),
    revive: fn(&mut Site),
    down: &'static [&'static str],
    up: &'static [&'static str],
}

const KILLED: fn(&mut Site) = |site| site.kill(VICTIM);
const STARTED: fn(&mut Site) = |site| site.serve(VICTIM);

fn a_dead_backend_is_left_out(way: Way, family: Family, kind: &str, more: &str, death: &Death) {
    let mut site = Site::new(way, family, 3);
    let mut config = site.settings();
    for (protocol, port) in [("tcp", HTTP), ("tcp", ECHO), ("udp", ECHO)] {
        // UDP answers no SYN, and is checked beside its path.
        let more = if protocol == "udp" && more.contains("through") { "" } else { more };
        config += &site.service(&format!("{protocol}{port}"), protocol, port, &all(), &health(kind, more));
    }
    let xfwd = site.start(&config);
    let what = format!("{way:?} {family:?} {kind}");
    let weights = [(0, 1), (1, 1), (2, 1)];
    ask::many(&site.client, site.at(ECHO), 45).assert_shares(&weights, &what);
    assert!(!xfwd.said().contains("not healthy"), "{}", xfwd.said());
    let held = hold(&site.client, site.at(ECHO), 30);

    let mark = xfwd.said().len();
    let died = Instant::now();
    (death.die)(&mut site);
    let address = site.addresses[VICTIM];
    let told = |said: &str| {
        SERVICES.iter().all(|service| said.contains(&format!("service {service}: backend {address} is not")))
    };
    // New flows are begun for as long as the checks take. Where the servers themselves live, they are answered.
    let mut last_failure = None;
    while !told(&xfwd.said()[mark..]) {
        assert!(died.elapsed() < PATIENCE, "{what}: {}", xfwd.said());
        let begun = died.elapsed();
        if ask::tcp(&site.client, site.at(ECHO), Duration::from_millis(500)).is_err() {
            last_failure = Some(begun);
        }
    }
    let took = died.elapsed();
    println!("{what}: told after {took:?}, last failure of a new flow at {last_failure:?}");
    assert!(took <= INTERVAL * FALL + TIMEOUT + SLACK, "{what}: {took:?}");
    wait_told(&xfwd, mark, &SERVICES, address, "not healthy: it gets no flows", death.down);
    ask::many(&site.client, site.at(ECHO), 45).assert_shares(&[(0, 1), (2, 1)], &what);

    let mark = xfwd.said().len();
    (death.revive)(&mut site);
    wait_told(&xfwd, mark, &SERVICES, address, "healthy", death.up);
    ask::many(&site.client, site.at(ECHO), 45).assert_shares(&weights, &what);

    // Those of the others are untouched.
    let held = held.stop().unwrap();
    let of_others = held.broken.iter().filter(|broken| broken.server != Some(name(VICTIM)));
    assert_eq!(of_others.count(), 0, "{what}: {held:?}");
    assert_eq!(held.established, 30, "{what}: {held:?}");
    assert!(held.backends.contains_key(&name(VICTIM)), "{what}: {held:?}");
}

#[test]
fn a_killed_process_is_noticed_by_tcp_checks() {
    lab_or_skip!();
    let death = Death { die: KILLED, revive: STARTED, down: &["connection refused"], up: &["connected"] };
    a_dead_backend_is_left_out(Way::Nat, Family::V4, "tcp", "", &death);
}

#[test]
fn a_killed_process_is_noticed_by_tcp_checks_over_ipv6() {
    lab_or_skip!();
    let death = Death { die: KILLED, revive: STARTED, down: &["connection refused"], up: &["connected"] };
    a_dead_backend_is_left_out(Way::Dsr, Family::V6, "tcp", "", &death);
}

#[test]
fn a_killed_process_is_noticed_by_http_checks() {
    lab_or_skip!();
    let death =
        Death { die: KILLED, revive: STARTED, down: &["connection refused"], up: &["HTTP status 200"] };
    a_dead_backend_is_left_out(Way::Ipip, Family::V4, "http", "port = 80", &death);
}

#[test]
fn a_host_that_does_not_answer_echo_requests_is_left_out() {
    lab_or_skip!();
    let death = Death {
        die: |site| site.backends[VICTIM].sysctl("net.ipv4.icmp_echo_ignore_all", "1").unwrap(),
        revive: |site| site.backends[VICTIM].sysctl("net.ipv4.icmp_echo_ignore_all", "0").unwrap(),
        down: &["timeout: no echo reply"],
        up: &["echo reply"],
    };
    a_dead_backend_is_left_out(Way::Dsr, Family::V4, "icmp", "", &death);
}

/// A file for each backend that the command is to find broken.
fn broken_file(site: &Site) -> PathBuf {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR"));
    directory.join(format!("broken-{}-{}", std::process::id(), site.addresses[VICTIM]))
}

#[test]
fn a_command_decides() {
    lab_or_skip!();
    let death = Death {
        die: |site| fs::write(broken_file(site), "").unwrap(),
        revive: |site| fs::remove_file(broken_file(site)).unwrap(),
        down: &["exit status 3"],
        up: &["exit status 0"],
    };
    let directory = env!("CARGO_TARGET_TMPDIR");
    let script = format!(
        "test -n \"$XFWD_SERVICE\" && test ! -e {directory}/broken-{}-$XFWD_BACKEND || exit 3",
        std::process::id()
    );
    let command = format!("command = [\"/bin/sh\", \"-c\", '{script}']");
    a_dead_backend_is_left_out(Way::Nat, Family::V4, "command", &command, &death);
}

/// The UDP service is checked beside its path.
const PATH_DOWN: &[&str] =
    &["connection to 198.18.10.1:80 refused", "connection to 198.18.10.1:7 refused", "connection refused"];
const PATH_UP: &[&str] = &["SYN-ACK from 198.18.10.1:80", "SYN-ACK from 198.18.10.1:7", "connected"];

#[test]
fn checks_go_the_way_of_the_packets_by_dsr() {
    lab_or_skip!();
    let death = Death { die: KILLED, revive: STARTED, down: PATH_DOWN, up: PATH_UP };
    a_dead_backend_is_left_out(Way::Dsr, Family::V4, "tcp", "through = \"path\"", &death);
}

#[test]
fn checks_go_the_way_of_the_packets_by_ipip() {
    lab_or_skip!();
    let death = Death { die: KILLED, revive: STARTED, down: PATH_DOWN, up: PATH_UP };
    a_dead_backend_is_left_out(Way::Ipip, Family::V4, "tcp", "through = \"path\"", &death);
}

#[test]
fn a_backend_that_is_not_healthy_is_taken_to_be_when_the_check_is_removed() {
    lab_or_skip!();
    let mut site = Site::new(Way::Nat, Family::V4, 3);
    let xfwd = site.start(&site.config(&all(), &health("tcp", "")));
    site.kill(VICTIM);
    let address = site.addresses[VICTIM];
    wait_told(&xfwd, 0, &SERVICES, address, "not healthy: it gets no flows", &["connection refused"]);
    // A reload that has nothing to do with it changes nothing, nor does it wait for the next checks.
    reload(&xfwd, &site.config(&[up(0), up(1), Line { weight: 2, ..up(2) }], &health("tcp", "")));
    ask::many(&site.client, site.at(ECHO), 45).assert_shares(&[(0, 1), (2, 2)], "still not healthy");

    site.serve(VICTIM);
    reload(&xfwd, &site.config(&all(), ""));
    ask::many(&site.client, site.at(ECHO), 45).assert_shares(&[(0, 1), (1, 1), (2, 1)], "without checks");
}

/// The kernel takes the nearest address, which an IPv6 VIP of 128 bits easily is.
#[test]
fn checks_that_would_come_from_a_vip_are_warned_of() {
    lab_or_skip!();
    let site = Site::new(Way::Dsr, Family::V6, 2);
    let config = site.config(&[up(0), up(1)], &health("tcp", ""));
    let warning = format!("from {}, which is of service tcp80: health checks", site.family.vip());
    let xfwd = site.start(&config);
    assert!(!xfwd.said().contains(&warning), "{}", xfwd.said());
    xfwd.stop();
    let vip = format!("{}/128", site.family.vip());
    site.balancer
        .ip(["address", "change", &vip, "dev", INTERFACE, "nodad", "preferred_lft", "forever"])
        .unwrap();
    let xfwd = site.start(&config);
    assert_eq!(xfwd.said().matches(&warning).count(), 1, "{}", xfwd.said());
}
