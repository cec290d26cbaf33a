//! ICMP echo, in namespaces.

use std::net::SocketAddr;

use caps::{CapSet, Capability};
use xfwd::health::{Health, HealthError, HealthKind, Target};
use xfwd_netns::lab_or_skip;

use crate::{
    MS, down,
    netns::{Namespace, veth_pair},
    next, start, target, up,
};

fn lab() -> (Namespace, Namespace) {
    let (here, there) = veth_pair("");
    for (namespace, interface, host) in [(&here, "va", 1), (&there, "vb", 2)] {
        namespace.ip(&format!("addr add 10.9.0.{host}/24 dev {interface}"));
        namespace.ip(&format!("addr add fd00:9::{host}/64 dev {interface} nodad"));
    }
    (here, there)
}

fn echo(id: u64, address: &str) -> Target {
    let mut target = target(HealthKind::Icmp, SocketAddr::new(address.parse().unwrap(), 0));
    target.id = id;
    target.check.timeout = 500 * MS;
    target
}

#[test]
fn host_that_answers_echo_requests_is_up_until_it_goes() {
    lab_or_skip!();
    let (here, there) = lab();
    for (address, length) in [("10.9.0.2", 24), ("fd00:9::2", 64)] {
        let (_health, changes) = here.enter(|| start(vec![echo(1, address)]));
        assert_eq!(next(&changes), up("echo reply"));
        there.ip(&format!("addr del {address}/{length} dev vb"));
        assert_eq!(next(&changes).0, xfwd::health::Condition::Down);
    }
}

#[test]
fn host_that_is_silent_is_down_though_others_answer() {
    lab_or_skip!();
    let (here, there) = lab();
    there.sysctl("net.ipv4.icmp_echo_ignore_all", "1").unwrap();
    here.ip("addr add 10.9.0.3/24 dev va");
    let (_health, changes) =
        here.enter(|| start(vec![echo(1, "10.9.0.2"), echo(2, "10.9.0.3"), echo(3, "fd00:9::2")]));
    let mut told: Vec<_> = (0..3).map(|_| changes.recv_timeout(crate::PATIENCE).unwrap()).collect();
    told.sort_by_key(|change| change.id);
    let told: Vec<_> = told.into_iter().map(|change| (change.to, change.reason)).collect();
    assert_eq!(told, [down("timeout: no echo reply"), up("echo reply"), up("echo reply")]);
}

#[test]
fn network_without_a_route_is_down_at_once() {
    lab_or_skip!();
    let (here, _there) = lab();
    let (_health, changes) = here.enter(|| start(vec![echo(1, "198.18.0.1")]));
    assert_eq!(next(&changes), down("network is unreachable"));
}

#[test]
fn echo_without_the_right_to_raw_sockets_is_refused_at_the_start() {
    std::thread::spawn(|| {
        if caps::has_cap(None, CapSet::Effective, Capability::CAP_NET_RAW).unwrap() {
            caps::drop(None, CapSet::Effective, Capability::CAP_NET_RAW).unwrap();
        }
        let error = Health::start(vec![echo(1, "127.0.0.1")], |_| {}).unwrap_err();
        assert!(matches!(error, HealthError::NotPermitted { .. }), "{error}");
        assert!(error.to_string().contains("CAP_NET_RAW"), "{error}");
    })
    .join()
    .unwrap();
}
