//! Two interfaces, one worker a queue of both: what comes in by the one goes out by the other.
#![allow(missing_docs, clippy::unwrap_used)]

#[path = "support/xfwd.rs"]
mod running;

use std::{
    net::{IpAddr, Ipv4Addr},
    process::Command,
    time::{Duration, Instant},
};

use running::{PATIENCE, Xfwd};
use xfwd_netns::{
    Child, Lab, Namespace, VethOptions, lab_or_skip,
    trafficgen::{Amount, Class, Counter, CounterOptions, Generator, Traffic},
};

const VIP: &str = "198.18.10.1";
const HTTP: u16 = 80;
const ECHO: u16 = 7;
const QUEUES: u32 = 2;

/// A client on `front`, two backends on `back` and `back2` of the balancer, each on a subnet of its own. The VIP is on the
/// backends alone; answers go back through the balancer's kernel, which routes.
struct Routed {
    client: Namespace,
    balancer: Namespace,
    backends: Vec<Namespace>,
    _lab: Lab,
}

fn routed(lab: Lab) -> Routed {
    let [client, balancer] = ["client", "balancer"].map(|name| lab.namespace(name).unwrap());
    let cable = VethOptions { queues: QUEUES, ..VethOptions::default() };
    lab.veth(&client, "eth0", &balancer, "front", &cable).unwrap();
    client.address("eth0", "198.18.0.1/24").unwrap();
    balancer.address("front", "198.18.0.2/24").unwrap();
    client.route("default via 198.18.0.2").unwrap();
    let mut backends = Vec::new();
    for (number, port) in [(1, "back1"), (2, "back2")] {
        let backend = lab.namespace(&format!("backend{number}")).unwrap();
        lab.veth(&backend, "eth0", &balancer, port, &cable).unwrap();
        balancer.address(port, &format!("198.18.{number}.2/24")).unwrap();
        backend.address("eth0", &format!("198.18.{number}.11/24")).unwrap();
        backend.address("lo", &format!("{VIP}/32")).unwrap();
        backend.route(&format!("default via 198.18.{number}.2")).unwrap();
        backends.push(backend);
    }
    for scope in ["all", "front", "back1", "back2"] {
        balancer.sysctl(&format!("net.ipv4.conf.{scope}.rp_filter"), "0").unwrap();
    }
    balancer.sysctl("net.ipv4.ip_forward", "1").unwrap();
    Routed { client, balancer, backends, _lab: lab }
}

const INTERFACES: [&str; 8] = ["--iface", "front", "--iface", "back1", "--iface", "back2", "--queues", "2"];

fn config(services: &[(&str, u16)]) -> String {
    let mut text = String::new();
    for (protocol, port) in services {
        text += &format!(
            "[[service]]\nname = \"{protocol}\"\nvip = \"{VIP}\"\nprotocol = \"{protocol}\"\nport = {port}\nforward = \"dsr\"\n"
        );
        for number in [1, 2] {
            text += &format!("[[service.backend]]\naddress = \"198.18.{number}.11\"\n");
        }
    }
    text
}

#[test]
fn backends_behind_other_interfaces_are_reached_by_those() {
    const REQUESTS: u64 = 200;
    let routed = routed(lab_or_skip!("forward"));
    let tool = xfwd_netns::tool("xfwd-lab-http").unwrap();
    let mut servers: Vec<Child> = Vec::new();
    for (number, backend) in (1..).zip(&routed.backends) {
        for (task, port) in [("serve", HTTP), ("udp-serve", ECHO)] {
            let listen = format!("{VIP}:{port}");
            let mut command = Command::new(&tool);
            command.args([task, "--name", &format!("backend{number}"), "--listen", &listen]);
            let server = backend.spawn(&mut command).unwrap();
            server.wait_for(&format!("listening on {listen}"), PATIENCE).unwrap();
            servers.push(server);
        }
    }
    let xfwd = Xfwd::start(&routed.balancer, &INTERFACES, &config(&[("tcp", HTTP), ("udp", ECHO)]));
    for (task, option, to) in
        [("fetch", "--url", format!("http://{VIP}:{HTTP}/")), ("udp-fetch", "--to", format!("{VIP}:{ECHO}"))]
    {
        let mut command = Command::new(&tool);
        command.args([
            task,
            option,
            &to,
            "--count",
            &REQUESTS.to_string(),
            "--timeout-ms",
            "30000",
            "--json",
        ]);
        let output = routed.client.output(&mut command).unwrap();
        let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        println!("{task}: {report}");
        assert_eq!(report["succeeded"], REQUESTS, "{report}");
        for backend in ["backend1", "backend2"] {
            assert!(report["backends"][backend].as_u64().unwrap() > REQUESTS / 4, "{report}");
        }
    }
    let summary = xfwd.stop().summary();
    assert_eq!(summary.rows("queues").len(), 3 * QUEUES as usize);
    assert_eq!(summary.kernel("steered"), summary.packets());
    assert_eq!(summary.workers("forwarded"), summary.packets());
    assert_eq!(summary.workers("tx_completed"), summary.packets());
    assert_eq!((summary.workers("bounced"), summary.number("/totals/lost")), (0, 0));
}

#[test]
fn a_flood_that_is_forwarded_is_accounted_for_packet_by_packet() {
    const PACKETS: u64 = 1_000_000;
    let routed = routed(lab_or_skip!("flood"));
    let count = |host: &Namespace| host.run(|| Counter::attach("eth0", &CounterOptions::default())).unwrap();
    let counters: Vec<Counter> = routed.backends.iter().map(count).collect();
    let received =
        || counters.iter().map(|counter| counter.read().unwrap().class(Class::Ipv4Udp).ours).sum::<u64>();
    let traffic = Traffic {
        destination_mac: routed.balancer.mac("front").unwrap(),
        flows: 1_000,
        cores: vec![0],
        ..Traffic::udp(Ipv4Addr::new(198, 18, 0, 10).into(), VIP.parse::<IpAddr>().unwrap(), ECHO)
    };
    let xfwd = Xfwd::start(&routed.balancer, &INTERFACES, &config(&[("udp", ECHO)]));
    let sent = routed
        .client
        .run(|| Generator::new("eth0", &traffic).unwrap().run(Amount::Packets(PACKETS)))
        .unwrap();
    let accepted = sent.packets - sent.refused.unwrap();
    // A packet that still lies in the ring of the veth when the program is taken off would go to the host.
    wait_until(|| handed_to_xdp(&routed.balancer, "front") >= accepted);
    let summary = xfwd.stop().summary();
    let expected = summary.workers("tx_completed") - summary.workers("tx_dropped_busy");
    wait_until(|| received() >= expected);
    println!(
        "{} sent, {} steered, {} lost, {} received, {} forwarded, {} completed, {} arrived",
        sent.packets,
        summary.kernel("steered"),
        summary.number("/totals/lost"),
        summary.packets(),
        summary.workers("forwarded"),
        summary.workers("tx_completed"),
        received()
    );
    assert_eq!(summary.kernel("steered") + summary.kernel("lost"), accepted);
    assert_eq!(summary.packets() + summary.number("/totals/lost"), accepted);
    assert_eq!(summary.workers("forwarded"), summary.packets());
    assert_eq!(summary.workers("tx_completed"), summary.packets());
    assert_eq!(received(), expected);
    let by_backend = summary.backends("udp", "packets");
    assert!(by_backend.iter().all(|(_, packets)| *packets > 0), "{by_backend:?}");
    for ((address, packets), counter) in by_backend.iter().zip(&counters) {
        let arrived = counter.read().unwrap().class(Class::Ipv4Udp).ours;
        assert!(arrived <= *packets, "{address}: {packets} sent to it, {arrived} arrived");
    }
}

/// Packets that a driver has handed to an XDP program.
fn handed_to_xdp(host: &Namespace, interface: &str) -> u64 {
    let statistics = host.statistics(interface).unwrap();
    let of_queues = statistics.iter().filter(|(name, _)| name.starts_with("rx_queue_"));
    of_queues.filter(|(name, _)| name.ends_with("_xdp_packets")).map(|(_, packets)| packets).sum()
}

/// Waits for what only a counter shows. Who calls asserts on the counters.
fn wait_until(mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !done() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(1));
    }
}
