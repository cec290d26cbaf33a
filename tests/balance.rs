//! Real clients reach real servers through `xfwd`, over TCP and UDP, IPv4 and IPv6, one, two and four queues; what is not
//! for a service stays with the host; backends that move or are missing are dealt with.
#![allow(missing_docs, clippy::unwrap_used)]

#[path = "support/xfwd.rs"]
mod running;

use std::{
    collections::BTreeMap,
    io::{Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use running::{PATIENCE, Summary, Xfwd};
use serde_json::Value;
use xfwd_netns::{
    Child, Namespace, lab_or_skip,
    topology::{self, Dsr, INTERFACE, VIP_V4, VIP_V6, host_v4, host_v6},
};

const HTTP: u16 = 80;
const ECHO: u16 = 7;
const WEIGHTS: [u32; 3] = [2, 1, 1];
/// Requests of one kind (family and protocol): enough for shares to tell right weights from wrong ones.
const REQUESTS: u64 = 400;

/// The four services: TCP and UDP, on the IPv4 and the IPv6 VIP.
const SERVICES: [(&str, &str, u16); 4] =
    [("web4", "tcp", HTTP), ("web6", "tcp", HTTP), ("echo4", "udp", ECHO), ("echo6", "udp", ECHO)];

fn vip(service: &str) -> IpAddr {
    if service.ends_with('4') { VIP_V4.into() } else { VIP_V6.into() }
}

fn backend_address(service: &str, index: usize) -> IpAddr {
    let host = Dsr::backend(index);
    if service.ends_with('4') { host_v4(host).into() } else { host_v6(host).into() }
}

/// The config of some services, each on all three backends.
fn config(services: &[(&str, &str, u16)]) -> String {
    let mut text = String::new();
    for (name, protocol, port) in services {
        let vip = vip(name);
        text += &format!(
            "[[service]]\nname = \"{name}\"\nvip = \"{vip}\"\nprotocol = \"{protocol}\"\nport = {port}\nforward = \"dsr\"\n"
        );
        for (index, weight) in WEIGHTS.iter().enumerate() {
            let address = backend_address(name, index);
            text += &format!("[[service.backend]]\naddress = \"{address}\"\nweight = {weight}\n");
        }
    }
    text
}

/// A network with HTTP and UDP servers on the VIPs of every backend, named `backend1` and so on.
struct Site {
    dsr: Dsr,
    _servers: Vec<Child>,
}

impl Site {
    fn new(queues: u32) -> Self {
        let dsr = topology::dsr(queues, WEIGHTS.len()).unwrap();
        let hosts = dsr.backends.iter().enumerate();
        let servers = hosts.flat_map(|(index, host)| serve(host, &name(index))).collect();
        Self { dsr, _servers: servers }
    }

    fn start(&self, queues: u32, services: &[(&str, &str, u16)]) -> Xfwd {
        let queues = queues.to_string();
        Xfwd::start(&self.dsr.balancer, &["--iface", INTERFACE, "--queues", &queues], &config(services))
    }

    /// Makes requests of the VIP of a service; each is a new connection or socket.
    fn fetch(&self, (service, protocol, port): (&str, &str, u16), count: u64, timeout: Duration) -> Fetched {
        let to = SocketAddr::new(vip(service), port);
        let (task, option, to) = match protocol {
            "tcp" => ("fetch", "--url", format!("http://{to}/")),
            _ => ("udp-fetch", "--to", to.to_string()),
        };
        let mut command = Command::new(xfwd_netns::tool("xfwd-lab-http").unwrap());
        command.args([task, option, &to, "--count", &count.to_string(), "--concurrency", "4", "--json"]);
        command.args(["--timeout-ms", &timeout.as_millis().to_string()]);
        let output = self.dsr.client.output(&mut command).unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        let report: Value = serde_json::from_str(&text)
            .unwrap_or_else(|error| panic!("{error}: {text}{}", String::from_utf8_lossy(&output.stderr)));
        let names = report["backends"].as_object().unwrap().iter();
        Fetched {
            failed: report["failed"].as_u64().unwrap(),
            failures: report["failures"].to_string(),
            by_name: names.map(|(name, count)| (name.clone(), count.as_u64().unwrap())).collect(),
        }
    }

    /// SYN packets that the client sent again so far.
    fn repeated_syns(&self) -> u64 {
        self.dsr.client.run(repeated_syns)
    }
}

fn name(index: usize) -> String {
    format!("backend{}", index + 1)
}

/// Servers for the VIPs on `host`.
fn serve(host: &Namespace, name: &str) -> Vec<Child> {
    [("serve", HTTP), ("udp-serve", ECHO)]
        .into_iter()
        .map(|(task, port)| {
            let addresses = [IpAddr::from(VIP_V4), VIP_V6.into()].map(|vip| SocketAddr::new(vip, port));
            let mut command = Command::new(xfwd_netns::tool("xfwd-lab-http").unwrap());
            command.args([task, "--name", name]);
            addresses.iter().for_each(|address| _ = command.args(["--listen", &address.to_string()]));
            let server = host.spawn(&mut command).unwrap();
            server.wait_for(&format!("listening on {}", addresses[1]), PATIENCE).unwrap();
            server
        })
        .collect()
}

/// Of the network namespace of this thread.
fn repeated_syns() -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/net/netstat").unwrap();
    let mut lines = text.lines().filter(|line| line.starts_with("TcpExt:"));
    let (names, values) = (lines.next().unwrap(), lines.next().unwrap());
    let position = names.split(' ').position(|name| name == "TCPSynRetrans").unwrap();
    values.split(' ').nth(position).unwrap().parse().unwrap()
}

/// What a client saw.
#[derive(Clone, Debug, Default)]
struct Fetched {
    failed: u64,
    failures: String,
    by_name: BTreeMap<String, u64>,
}

impl Fetched {
    fn of(&self, index: usize) -> u64 {
        self.by_name.get(&name(index)).copied().unwrap_or(0)
    }

    fn succeeded(&self) -> u64 {
        self.by_name.values().sum()
    }

    fn add(&mut self, other: Self) {
        self.failed += other.failed;
        if other.failed > 0 {
            self.failures = other.failures;
        }
        for (name, count) in other.by_name {
            *self.by_name.entry(name).or_default() += count;
        }
    }

    /// Every request was answered, and each backend's share is within 5 standard deviations of its weight: chance
    /// misses that once in a million.
    fn assert_balanced(&self, what: &str) {
        assert_eq!(self.failed, 0, "{what}: {}", self.failures);
        let all = self.succeeded() as f64;
        let weights: u32 = WEIGHTS.iter().sum();
        for (index, weight) in WEIGHTS.iter().enumerate() {
            let share = f64::from(*weight) / f64::from(weights);
            let (expected, deviation) = (all * share, (all * share * (1.0 - share)).sqrt());
            let seen = self.of(index) as f64;
            println!("{what}: backend{} answered {seen} of {all}, by weight {expected}", index + 1);
            assert!((seen - expected).abs() <= 5.0 * deviation, "{what}: {:?}", self.by_name);
        }
    }

    /// What the servers answered is what xfwd says it sent them: connections of TCP, of which the client's kernel may have
    /// asked for some `repeated` times more than once when the machine was busy, and packets of UDP.
    fn assert_counted(&self, summary: &Summary, (service, protocol, _): (&str, &str, u16), repeated: u64) {
        let (counter, repeated) = if protocol == "tcp" { ("connections", repeated) } else { ("packets", 0) };
        let counted: BTreeMap<_, _> = summary.backends(service, counter).into_iter().collect();
        for index in 0..WEIGHTS.len() {
            let counted = counted[&backend_address(service, index).to_string()];
            let seen = self.of(index);
            assert!(
                (seen..=seen + repeated).contains(&counted),
                "{service} backend{}: answered {seen}, counted {counted} {counter}, {repeated} SYN repeated",
                index + 1
            );
        }
    }
}

/// Pings `address` until it has answered thrice.
fn assert_ping(from: &Namespace, address: IpAddr) {
    let address = address.to_string();
    let output =
        from.output(Command::new("ping").args(["-c", "3", "-i", "0.1", "-W", "5", &address])).unwrap();
    assert!(output.status.success(), "ping {address}: {}", String::from_utf8_lossy(&output.stdout));
}

/// Exchanges some bytes over TCP with a listener on `host`.
fn assert_tcp_exchange(client: &Namespace, host: &Namespace, address: SocketAddr) {
    let listener = host.run(|| TcpListener::bind(address)).unwrap();
    let server = thread::spawn(move || {
        let (mut stream, _) = listener.accept()?;
        let mut question = [0; 4];
        stream.read_exact(&mut question)?;
        stream.write_all(&[b"the host says ", &question[..]].concat())
    });
    let mut stream = client.run(|| TcpStream::connect_timeout(&address, PATIENCE)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(b"ping").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "the host says ping", "{address}");
    server.join().unwrap().unwrap();
}

/// What the host itself is asked for while xfwd runs: ping on its own addresses and on the VIPs, TCP on a port of its own and
/// on a port of a VIP that is no service's.
fn assert_host_is_reachable(site: &Site) {
    let dsr = &site.dsr;
    let own = [IpAddr::from(host_v4(Dsr::BALANCER)), host_v6(Dsr::BALANCER).into()];
    for address in own.into_iter().chain([VIP_V4.into(), VIP_V6.into()]) {
        assert_ping(&dsr.client, address);
        assert_tcp_exchange(&dsr.client, &dsr.balancer, SocketAddr::new(address, 8_080));
    }
}

fn real_connections_are_balanced(queues: u32) {
    let site = Site::new(queues);
    let repeated_before = site.repeated_syns();
    let xfwd = site.start(queues, &SERVICES);
    let mut fetched = SERVICES.map(|_| Fetched::default());
    // The host is asked while requests run, and requests run for as long as that takes.
    let host_is_done = AtomicBool::new(false);
    thread::scope(|scope| {
        let host = scope.spawn(|| {
            // Set when this fails, too.
            let _done = SetWhenDropped(&host_is_done);
            assert_host_is_reachable(&site);
        });
        let mut asked = 0;
        while asked < REQUESTS || !host_is_done.load(Ordering::Relaxed) {
            const AT_ONCE: u64 = 100;
            for (service, fetched) in SERVICES.into_iter().zip(&mut fetched) {
                fetched.add(site.fetch(service, AT_ONCE, PATIENCE));
            }
            asked += AT_ONCE;
        }
        host.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
    let pages = curl_pages(&site);

    let repeated = site.repeated_syns() - repeated_before;
    let summary = xfwd.stop().summary();
    println!("{queues} queues: {repeated} SYN repeated");
    for (service, fetched) in SERVICES.into_iter().zip(&mut fetched) {
        fetched.assert_balanced(&format!("{queues} queues, {}", service.0));
        if let Some(page) = pages.get(service.0) {
            *fetched.by_name.entry(page.clone()).or_default() += 1;
        }
        fetched.assert_counted(&summary, service, repeated);
    }
    assert_all_went_well(&summary);
    let by_worker = summary.each_worker("rx_packets");
    println!("{queues} queues: packets by worker {by_worker:?}");
    assert_eq!(by_worker.len(), queues as usize);
    assert!(by_worker.iter().all(|packets| *packets > 0), "all queues are used: {by_worker:?}");
}

struct SetWhenDropped<'a>(&'a AtomicBool);

impl Drop for SetWhenDropped<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A page of each web service by a client that shares no code with the lab: the name of the server, by service.
fn curl_pages(site: &Site) -> BTreeMap<&'static str, String> {
    ["web4", "web6"]
        .into_iter()
        .map(|service| {
            let url = format!("http://{}/", SocketAddr::new(vip(service), HTTP));
            let mut command = Command::new("curl");
            command.args(["--silent", "--show-error", "--fail", "--noproxy", "*", "--max-time", "30", &url]);
            let output = site.dsr.client.output(&mut command).unwrap();
            assert!(output.status.success(), "{url}: {}", String::from_utf8_lossy(&output.stderr));
            (service, String::from_utf8_lossy(&output.stdout).trim_end_matches(['.', '\n']).to_owned())
        })
        .collect()
}

/// Nothing was lost or dropped, and what was received went out again.
fn assert_all_went_well(summary: &Summary) {
    assert_eq!(summary.number("/totals/lost"), 0, "{}", summary.0);
    assert_eq!(summary.number("/totals/verdicts/drop"), 0, "{}", summary.0);
    assert_eq!(summary.kernel("steered"), summary.packets());
    assert_eq!(summary.workers("bounced"), summary.packets());
    assert_eq!(summary.workers("tx_completed"), summary.packets());
    assert_eq!(summary.workers("tx_dropped_busy"), 0);
    let services: u64 = summary.rows("backends").iter().map(|row| row["packets"].as_u64().unwrap()).sum();
    // Pings of the VIPs are answered here.
    let pings = summary.number("/balance/answers/echo_replies");
    assert_eq!(services + pings, summary.packets());
}

#[test]
fn real_connections_are_balanced_by_one_queue_while_the_host_stays_reachable() {
    lab_or_skip!();
    real_connections_are_balanced(1);
}

#[test]
fn real_connections_are_balanced_by_two_queues_while_the_host_stays_reachable() {
    lab_or_skip!();
    real_connections_are_balanced(2);
}

#[test]
fn real_connections_are_balanced_by_four_queues_while_the_host_stays_reachable() {
    lab_or_skip!();
    real_connections_are_balanced(4);
}

#[test]
fn a_backend_that_changes_its_mac_address_is_followed() {
    lab_or_skip!();
    let site = Site::new(1);
    let services = [SERVICES[0], SERVICES[3]];
    let moved = &site.dsr.backends[0];
    // As a host that takes over an address does: it announces the change.
    moved.sysctl(&format!("net.ipv4.conf.{INTERFACE}.arp_notify"), "1").unwrap();
    moved.sysctl(&format!("net.ipv6.conf.{INTERFACE}.ndisc_notify"), "1").unwrap();
    let xfwd = site.start(1, &services);
    services.iter().for_each(|service| site.fetch(*service, 100, PATIENCE).assert_balanced("before"));
    let mac = "02:00:5e:10:00:77";
    moved.ip(["link", "set", "dev", INTERFACE, "address", mac]).unwrap();
    for service in services {
        xfwd.wait_for(&format!("backend {} is at {mac}", backend_address(service.0, 0)));
        let after = site.fetch(service, 100, PATIENCE);
        after.assert_balanced("after");
        assert!(after.of(0) > 0, "the backend that moved answers");
    }
    let summary = xfwd.stop().summary();
    assert_eq!(summary.dropped("no-neighbour"), 0);
}

#[test]
fn a_backend_that_is_down_from_the_start_is_named_and_its_packets_are_counted() {
    lab_or_skip!();
    let site = Site::new(2);
    let down = &site.dsr.backends[2];
    down.ip(["link", "set", "dev", INTERFACE, "down"]).unwrap();
    let web = SERVICES[0];
    let xfwd = site.start(2, &[web]);
    let address = backend_address(web.0, 2);
    let said = xfwd.said();
    let warning = format!("warning: backend {address} does not answer ARP");
    assert_eq!(said.matches("does not answer").count(), 1, "only the one that is down: {said}");
    assert!(said.contains(&warning), "{said}");

    // One try each: a client that waits longer than a second repeats its SYN, to be dropped again.
    let fetched = site.fetch(web, 60, Duration::from_millis(900));
    println!("while backend3 is down: {fetched:?}");
    assert!(fetched.failed > 0 && fetched.of(0) > 0 && fetched.of(1) > 0, "{fetched:?}");
    assert_eq!(fetched.of(2), 0, "{fetched:?}");

    down.up(INTERFACE).unwrap();
    xfwd.wait_for(&format!("backend {address} is at {}", down.mac(INTERFACE).unwrap()));
    let after = site.fetch(web, 200, PATIENCE);
    after.assert_balanced("after backend3 came up");
    let summary = xfwd.stop().summary();
    let dropped = summary.dropped("no-neighbour");
    // A busy machine may fail a request by itself, so their numbers need not be the same.
    assert!(dropped > 0, "{dropped} dropped, {} failed", fetched.failed);
    assert_eq!(summary.packets(), summary.workers("bounced") + dropped);
}
