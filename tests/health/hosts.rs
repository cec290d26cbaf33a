//! ICMP echo, and checks through a service's path, in namespaces.

use std::{
    io::Read as _,
    net::{SocketAddr, TcpListener, UdpSocket},
};

use caps::{CapSet, Capability};
use etherparse::{NetSlice, SlicedPacket, TransportSlice};
use socket2::{Domain, Protocol, Socket, Type};
use xfwd::{
    health::{Condition, Delivery, Health, HealthError, HealthKind, ServicePath, Target, Through},
    kernel::link::Link,
    packet::MacAddress,
};
use xfwd_netns::lab_or_skip;

use crate::{
    MS, down,
    netns::{Namespace, veth_pair},
    next, start, target, up, wait,
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

/// A backend that has the VIP of either family on its loopback interface, and answers by the link it was asked on.
fn path_lab() -> (Namespace, Namespace, ServicePath) {
    let (here, there) = lab();
    for vip in ["198.18.10.1/32", "2001:db8:10::1/128"] {
        there.ip(&format!("addr add {vip} dev lo"));
    }
    // To nowhere: what is routed to the VIP does not reach the backend.
    here.ip("route add default via 10.9.0.77");
    here.ip("-6 route add default via fd00:9::77");
    here.sysctl("net.ipv4.conf.all.rp_filter", "0").unwrap();
    here.sysctl("net.ipv4.conf.va.rp_filter", "0").unwrap();
    let delivery = Delivery::Frame {
        interface: here.enter(|| Link::find("va")).unwrap().index,
        from: MacAddress(here.mac("va").unwrap().0),
        to: MacAddress(there.mac("vb").unwrap().0),
    };
    let path =
        ServicePath { vip: "198.18.10.1:80".parse().unwrap(), source: "10.9.0.1".parse().unwrap(), delivery };
    (here, there, path)
}

fn through(path: &ServicePath, backend: &str) -> Target {
    let mut target = target(HealthKind::Tcp, SocketAddr::new(backend.parse().unwrap(), 80));
    target.check.through = Through::Path;
    target.check.timeout = 500 * MS;
    target.path = Some(path.clone());
    target
}

/// Connections of a namespace that wait for the third packet of the handshake.
fn half_open(namespace: &Namespace) -> usize {
    let states = |table: &str| {
        let table = std::fs::read_to_string(format!("/proc/thread-self/net/{table}")).unwrap();
        // TCP_SYN_RECV is 3, and TCP_NEW_SYN_RECV shows as it.
        table.lines().filter(|line| line.split_whitespace().nth(3) == Some("03")).count()
    };
    namespace.enter(|| states("tcp") + states("tcp6"))
}

#[test]
fn backend_that_serves_the_vip_is_up_through_the_path_and_keeps_nothing_half_open() {
    lab_or_skip!();
    let (here, there, v4) = path_lab();
    let v6 = ServicePath {
        vip: "[2001:db8:10::1]:80".parse().unwrap(),
        source: "fd00:9::1".parse().unwrap(),
        ..v4.clone()
    };
    // As where this host answers ARP for the VIPs. The backend keeps still about them.
    there.sysctl("net.ipv4.conf.all.arp_ignore", "1").unwrap();
    there.sysctl("net.ipv4.conf.all.arp_announce", "2").unwrap();
    here.ip("addr add 198.18.10.1/32 dev va");
    here.ip("addr add 2001:db8:10::1/128 dev va nodad");
    for (path, backend) in [(v4, "10.9.0.2"), (v6, "fd00:9::2")] {
        let listener = there.enter(|| TcpListener::bind(path.vip)).unwrap();
        let (health, changes) = here.enter(|| start(vec![through(&path, backend)]));
        assert_eq!(next(&changes), up(&format!("SYN-ACK from {}", path.vip)));
        wait("some checks", || health.status()[0].checks >= 5);
        drop(health);
        // Without a RST they would stay for a minute.
        wait("the backend to forget", || half_open(&there) == 0);
        listener.set_nonblocking(true).unwrap();
        assert!(listener.accept().is_err(), "a connection was made");
    }
}

#[test]
fn backend_without_a_server_or_without_the_vip_is_down_through_the_path() {
    lab_or_skip!();
    let (here, there, path) = path_lab();
    // Its own address would do for a check of the address.
    let _listener = there.enter(|| TcpListener::bind("10.9.0.2:80")).unwrap();
    let (_health, changes) = here.enter(|| start(vec![through(&path, "10.9.0.2")]));
    assert_eq!(next(&changes), down("connection to 198.18.10.1:80 refused"));

    there.ip("addr del 198.18.10.1/32 dev lo");
    let (_health, changes) = here.enter(|| start(vec![through(&path, "10.9.0.2")]));
    assert_eq!(next(&changes), down("timeout: no SYN-ACK from 198.18.10.1:80"));
}

#[test]
fn syn_through_a_gue_tunnel_arrives_as_it_is() {
    lab_or_skip!();
    let (here, there, mut path) = path_lab();
    path.delivery = Delivery::Gue { from: Some("10.9.0.1".parse().unwrap()), port: 6080 };
    let tunnel = there.enter(|| UdpSocket::bind("10.9.0.2:6080")).unwrap();
    let (_health, changes) = here.enter(|| start(vec![through(&path, "10.9.0.2")]));
    let mut buffer = [0; 2048];
    let (bytes, _) = tunnel.recv_from(&mut buffer).unwrap();
    assert_syn(&buffer[..bytes], &path);
    assert_eq!(next(&changes), down("timeout: no SYN-ACK from 198.18.10.1:80"));
}

#[test]
fn syn_through_an_ipip_tunnel_arrives_as_it_is() {
    lab_or_skip!();
    let (here, there, mut path) = path_lab();
    path.delivery = Delivery::Ipip { from: None };
    for (backend, outer_bytes, domain) in [("10.9.0.2", 20, Domain::IPV4), ("fd00:9::2", 0, Domain::IPV6)] {
        // IP protocol 4. The kernel hands over the outer header of IPv4, not that of IPv6.
        let tunnel = there.enter(|| Socket::new(domain, Type::RAW, Some(Protocol::from(4)))).unwrap();
        let (_health, _changes) = here.enter(|| start(vec![through(&path, backend)]));
        let mut buffer = [0; 2048];
        let bytes = (&tunnel).read(&mut buffer).unwrap();
        assert_syn(&buffer[outer_bytes..bytes], &path);
    }
}

fn assert_syn(packet: &[u8], path: &ServicePath) {
    let sliced = SlicedPacket::from_ip(packet).unwrap();
    let Some(NetSlice::Ipv4(ip)) = &sliced.net else { panic!("{sliced:?}") };
    let header = ip.header();
    assert_eq!(
        (header.source_addr(), header.destination_addr()),
        ([10, 9, 0, 1].into(), [198, 18, 10, 1].into())
    );
    let Some(TransportSlice::Tcp(tcp)) = &sliced.transport else { panic!("{sliced:?}") };
    assert!(tcp.syn() && !tcp.ack() && tcp.destination_port() == path.vip.port());
}

#[test]
fn check_through_a_path_that_cannot_be_is_refused_at_the_start() {
    lab_or_skip!();
    let (here, _there, path) = path_lab();
    let refused = |change: &(dyn Fn(&mut Target) + Sync)| {
        let mut target = through(&path, "10.9.0.2");
        change(&mut target);
        here.enter(|| Health::start(vec![target], |_| {}).unwrap_err().to_string())
    };
    let error = refused(&|target| target.check.kind = HealthKind::Http);
    assert!(error.ends_with("only `tcp` can go through the path of the service, not `http`"), "{error}");
    let error = refused(&|target| {
        let Some(ServicePath { delivery: Delivery::Frame { interface, .. }, .. }) = &mut target.path else {
            panic!("not a frame")
        };
        *interface = 4711;
    });
    assert!(error.ends_with("there is no interface #4711"), "{error}");
}

#[test]
fn check_through_a_path_that_is_not_known_yet_fails_until_it_is() {
    lab_or_skip!();
    let (here, there, path) = path_lab();
    let _listener = there.enter(|| TcpListener::bind((path.vip.ip(), path.vip.port())).unwrap());
    let known = through(&path, "10.9.0.2");
    let unknown = Target { path: None, ..known.clone() };
    let health = here.enter(|| Health::start(vec![unknown], |_| {}).unwrap());
    wait("the check to fail", || health.status()[0].condition == Condition::Down);
    here.enter(|| health.set_targets(vec![known]).unwrap());
    wait("the check to succeed", || health.status()[0].condition == Condition::Up);
}
