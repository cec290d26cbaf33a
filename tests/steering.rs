//! What leaves the kernel and what stays: queues without a socket, `steer = "all"`, addresses that come while running.
#![allow(missing_docs, clippy::unwrap_used)]

#[path = "support/xfwd.rs"]
mod running;

use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    process::Command,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use running::{PATIENCE, Xfwd};
use xfwd::{
    kernel::{
        link::Link,
        xdp::{KernelCounters, SteeredKind, SteeredService, Steering, XdpMode, XdpProgram, room_mark},
    },
    port::xsk::{self, Mode, OpenRequest, QueueRequest},
    stages::bounce::{Bounce, Layer},
    worker::{Idle, Worker, WorkerThread},
};
use xfwd_ebpf_types::Cause;
use xfwd_netns::{
    Child, Namespace, lab_or_skip,
    topology::{self, Dsr, INTERFACE, Pair, VIP_V4, VIP_V6, host_v4, host_v6},
};

const BOUNCE_ALL: &str = "[dataplane]\nsteer = \"all\"\n\n[bounce]\nlayer = \"l4\"\n";
/// Addresses that no host has.
const NOBODY: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(198, 19, 0, 1)), IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 2, 0, 0, 1))];
const PORT: u16 = 4_000;

/// `NOBODY` leads to the subject.
fn lead_to_subject(pair: &Pair) {
    let mac = pair.subject.mac(INTERFACE).unwrap();
    for address in NOBODY {
        pair.generator.neighbour(INTERFACE, address, mac).unwrap();
    }
}

/// A UDP server that answers with its name, on every address.
fn udp_server(host: &Namespace, addresses: &[IpAddr], port: u16, name: &str) -> Child {
    let mut command = Command::new(xfwd_netns::tool("xfwd-lab-http").unwrap());
    command.args(["udp-serve", "--name", name]);
    for address in addresses {
        command.args(["--listen", &SocketAddr::new(*address, port).to_string()]);
    }
    let server = host.spawn(&mut command).unwrap();
    for address in addresses {
        server.wait_for(&format!("listening on {}\n", SocketAddr::new(*address, port)), PATIENCE).unwrap();
    }
    server
}

/// A socket of its own, so a flow of its own.
fn socket(host: &Namespace, to: IpAddr) -> UdpSocket {
    let any: IpAddr = if to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = host.run(|| UdpSocket::bind((any, 0))).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

/// Sends one datagram and returns the answer, which has to come from where it was sent to: what was sent itself, if xfwd
/// bounced it, or something else.
fn ask(host: &Namespace, to: SocketAddr) -> io::Result<String> {
    let socket = socket(host, to.ip());
    socket.connect(to)?;
    socket.send(b"who?")?;
    let mut buffer = [0; 100];
    let length = socket.recv(&mut buffer)?;
    Ok(String::from_utf8_lossy(&buffer[..length]).into_owned())
}

fn assert_ping(from: &Namespace, address: IpAddr) {
    let address = address.to_string();
    let output =
        from.output(Command::new("ping").args(["-c", "3", "-i", "0.1", "-W", "5", &address])).unwrap();
    assert!(output.status.success(), "ping {address}: {}", String::from_utf8_lossy(&output.stdout));
}

#[test]
fn queues_without_a_socket_pass_to_the_host_with_a_warning() {
    const FLOWS: usize = 60;
    lab_or_skip!();
    let pair = topology::pair(4).unwrap();
    lead_to_subject(&pair);
    // The host answers for these addresses although it does not have them, so they are to be steered.
    for route in ["local 198.19.0.1/32 dev lo", "local 2001:db8::2:0:0:1/128 dev lo"] {
        pair.subject.route(route).unwrap();
    }
    pair.subject.sysctl("net.ipv6.ip_nonlocal_bind", "1").unwrap();
    let _host = udp_server(&pair.subject, &NOBODY, PORT, "host");
    let xfwd = Xfwd::start(&pair.subject, &["--iface", INTERFACE, "--queues", "2"], BOUNCE_ALL);
    let said = xfwd.said();
    let warning = said.lines().find(|line| line.starts_with("warning:") && line.contains("queue"));
    println!("{warning:?}");
    assert!(warning.is_some_and(|line| line.contains('4') && line.contains(INTERFACE)), "{said}");

    let (mut bounced, mut answered) = (0, 0);
    for address in NOBODY {
        for _ in 0..FLOWS {
            match ask(&pair.generator, SocketAddr::new(address, PORT)).unwrap().as_str() {
                "who?" => bounced += 1,
                "host\nwho?" => answered += 1,
                other => panic!("{other}"),
            }
        }
    }
    println!("{bounced} bounced, {answered} answered by the host");
    assert!(bounced > 0 && answered > 0, "{bounced} bounced, {answered} answered by the host");
    let summary = xfwd.stop().summary();
    assert_eq!(summary.rows("queues").len(), 2);
    // Hosts announce themselves to groups, which no queue answers.
    let announced = summary.dropped("not-answered");
    assert_eq!(summary.workers("bounced"), bounced);
    assert_eq!(summary.packets(), bounced + announced);
    assert!(summary.cause("passed-no-socket") >= answered, "{}", summary.0);
}

#[test]
fn with_everything_steered_the_host_itself_is_still_reached() {
    const FLOWS: usize = 100;
    lab_or_skip!();
    let pair = topology::pair(4).unwrap();
    lead_to_subject(&pair);
    let own = [IpAddr::from(host_v4(Pair::SUBJECT)), host_v6(Pair::SUBJECT).into()];
    let _host = udp_server(&pair.subject, &own, PORT, "host");
    let xfwd = Xfwd::start(&pair.subject, &["--iface", INTERFACE, "--queues", "4"], BOUNCE_ALL);
    // As if both had just met: everything starts with ARP or neighbour discovery, in both directions.
    for host in [&pair.generator, &pair.subject] {
        host.ip(["neigh", "flush", "dev", INTERFACE, "nud", "reachable"]).unwrap();
        host.ip(["neigh", "flush", "dev", INTERFACE, "nud", "stale"]).unwrap();
    }
    for address in own {
        assert_ping(&pair.generator, address);
        assert_eq!(ask(&pair.generator, SocketAddr::new(address, PORT)).unwrap(), "host\nwho?");
    }
    for address in [IpAddr::from(host_v4(Pair::GENERATOR)), host_v6(Pair::GENERATOR).into()] {
        assert_ping(&pair.subject, address);
    }
    for address in NOBODY {
        for _ in 0..FLOWS {
            assert_eq!(ask(&pair.generator, SocketAddr::new(address, PORT)).unwrap(), "who?");
        }
        // An echo request is answered, too.
        assert_ping(&pair.generator, address);
    }
    let summary = xfwd.stop().summary();
    assert_eq!(summary.workers("bounced"), 2 * (FLOWS as u64 + 3));
    assert_eq!(summary.packets(), summary.workers("bounced") + summary.dropped("not-answered"));
    assert_eq!(summary.kernel("steered"), summary.packets());
    for cause in ["passed-arp", "passed-neighbour-discovery", "passed-host"] {
        assert!(summary.cause(cause) > 0, "{cause}: {}", summary.0);
    }
    assert_eq!(summary.cause("passed-no-socket"), 0);
    let by_worker = summary.each_worker("bounced");
    assert!(by_worker.iter().all(|packets| *packets > 0), "flows spread over all queues: {by_worker:?}");
}

#[test]
fn an_address_that_the_host_gets_while_running_becomes_its_own() {
    lab_or_skip!();
    let pair = topology::pair(1).unwrap();
    lead_to_subject(&pair);
    let xfwd = Xfwd::start(&pair.subject, &["--iface", INTERFACE], BOUNCE_ALL);
    for (address, prefix) in NOBODY.into_iter().zip(["/32", "/128"]) {
        let to = SocketAddr::new(address, PORT);
        assert_eq!(ask(&pair.generator, to).unwrap(), "who?", "nobody's: bounced");
        pair.subject.address("lo", &format!("{address}{prefix}")).unwrap();
        let since = Instant::now();
        let server = udp_server(&pair.subject, &[address], PORT, "host");
        let took = wait_for_answer(&pair.generator, to, "host\nwho?", since);
        println!("{address} is the host's after {took:?} at most");
        drop(server);

        // And it is nobody's again when it goes.
        pair.subject.ip(["address", "delete", &format!("{address}{prefix}"), "dev", "lo"]).unwrap();
        let took = wait_for_answer(&pair.generator, to, "who?", Instant::now());
        println!("{address} is nobody's after {took:?} at most");
    }
    xfwd.stop();
}

/// Asks until the answer is the wanted one; fails when it takes far longer than the second in which an address is to be
/// respected.
fn wait_for_answer(from: &Namespace, to: SocketAddr, wanted: &str, since: Instant) -> Duration {
    loop {
        let socket = socket(from, to.ip());
        socket.connect(to).unwrap();
        // Nobody listens on the host for a moment: an answer may be missing, or an error.
        socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        let mut buffer = [0; 100];
        let answer = socket.send(b"who?").and_then(|_| socket.recv(&mut buffer));
        let answer = answer.map(|length| String::from_utf8_lossy(&buffer[..length]).into_owned());
        if answer.as_ref().is_ok_and(|answer| answer == wanted) {
            return since.elapsed();
        }
        assert!(since.elapsed() < Duration::from_secs(10), "still {answer:?}");
    }
}

#[test]
fn packets_for_a_vip_on_a_queue_without_socket_reach_the_host() {
    const REQUESTS: u64 = 200;
    lab_or_skip!();
    let dsr = topology::dsr(4, 2).unwrap();
    let vips = [IpAddr::from(VIP_V4), VIP_V6.into()];
    let mut servers: Vec<Child> = Vec::new();
    for (host, name) in
        [(&dsr.backends[0], "backend1"), (&dsr.backends[1], "backend2"), (&dsr.balancer, "host")]
    {
        servers.push(udp_server(host, &vips, PORT, name));
    }
    let mut config = String::new();
    for (vip, backends) in [
        (vips[0], [host_v4(Dsr::backend(0)).into(), host_v4(Dsr::backend(1)).into()]),
        (vips[1], [host_v6(Dsr::backend(0)).into(), IpAddr::from(host_v6(Dsr::backend(1)))]),
    ] {
        let family = if vip.is_ipv4() { 4 } else { 6 };
        config += &format!(
            "[[service]]\nname = \"echo{family}\"\nvip = \"{vip}\"\nprotocol = \"udp\"\nport = {PORT}\nforward = \"dsr\"\n"
        );
        for backend in backends {
            config += &format!("[[service.backend]]\naddress = \"{backend}\"\n");
        }
    }
    let xfwd = Xfwd::start(&dsr.balancer, &["--iface", INTERFACE, "--queues", "2"], &config);
    assert!(xfwd.said().lines().any(|line| line.starts_with("warning:") && line.contains("queue")));
    let mut names: BTreeMap<String, u64> = BTreeMap::new();
    thread::scope(|scope| {
        let clients = vips.map(|vip| {
            let client = &dsr.client;
            scope.spawn(move || {
                (0..REQUESTS).map(|_| ask(client, SocketAddr::new(vip, PORT)).unwrap()).collect::<Vec<_>>()
            })
        });
        for answer in clients.into_iter().flat_map(|client| client.join().unwrap()) {
            let (name, question) = answer.split_once('\n').unwrap();
            assert_eq!(question, "who?");
            *names.entry(name.to_owned()).or_default() += 1;
        }
    });
    println!("{names:?}");
    assert_eq!(names.len(), 3, "the host and both backends answered: {names:?}");
    assert_eq!(names.values().sum::<u64>(), 2 * REQUESTS);
    let summary = xfwd.stop().summary();
    assert_eq!(summary.cause("passed-no-socket"), names["host"]);
    assert_eq!(summary.packets(), names["backend1"] + names["backend2"]);
    assert_eq!(summary.kernel("steered"), summary.packets());
}

// ---------------------------------------------------------------------------------------------------------------------
// Services of prefixes and ranges, by the program itself.

/// Bounces what is steered, the transport layer included; the host has what is not.
struct Bouncer {
    program: XdpProgram,
    worker: WorkerThread,
}

impl Bouncer {
    fn start(host: &Namespace, services: Vec<SteeredService>) -> Self {
        host.run(|| {
            let request = OpenRequest {
                queues: vec![QueueRequest { interface: INTERFACE.to_owned(), queue: 0, worker: 0 }],
                workers: 1,
                mode: Mode::Auto,
                frames_per_queue: 1_024,
                ring_size: 256,
                multi_buffer: false,
                huge_pages: false,
                busy_poll: false,
            };
            let mut opened = xsk::open(&request).unwrap();
            let (mut ports, pool) = (opened.ports.remove(0), opened.pools.remove(0));
            let steering = Steering { services, ..Steering::default() };
            let mut program = XdpProgram::load(&steering).unwrap();
            program.insert_socket(0, &ports[0].socket()).unwrap();
            ports[0].set_room_mark(room_mark());
            let worker = Worker::new(ports, pool, Bounce::new(Layer::L4), Idle::default(), Arc::default());
            let worker = WorkerThread::start(0, worker, None, || ()).unwrap();
            program.attach(Link::find(INTERFACE).unwrap().index, INTERFACE, XdpMode::Native).unwrap();
            Self { program, worker }
        })
    }

    /// Ends it, and says what the program counted.
    fn stop(self) -> KernelCounters {
        let counters = self.program.counters().unwrap();
        drop(self.program);
        self.worker.stop();
        self.worker.join().unwrap();
        counters
    }
}

/// Sends a datagram from a socket of its own; whether just this comes back.
fn is_bounced(host: &Namespace, to: IpAddr, port: u16, payload: &[u8], patience: Duration) -> bool {
    let socket = socket(host, to);
    socket.connect((to, port)).unwrap();
    socket.set_read_timeout(Some(patience)).unwrap();
    socket.send(payload).unwrap();
    let mut buffer = vec![0; payload.len() + 1];
    socket.recv(&mut buffer).is_ok_and(|length| &buffer[..length] == payload)
}

#[test]
fn prefixes_ranges_fragments_and_pings_are_steered_and_their_neighbours_are_not() {
    const UDP: u8 = 17;
    lab_or_skip!();
    let pair = topology::pair(1).unwrap();
    let mac = pair.subject.mac(INTERFACE).unwrap();
    let [v4, v6] = [["203.0.113.0/24", "198.18.9.1"], ["2001:db8:10::/64", "2001:db8:11::1"]];
    // Nobody's, so the host says nothing of its own to what it is left with.
    let inside: [IpAddr; 2] = ["203.0.113.77".parse().unwrap(), "2001:db8:10::77:1".parse().unwrap()];
    let single: [IpAddr; 2] = [v4[1].parse().unwrap(), v6[1].parse().unwrap()];
    for address in inside.into_iter().chain(single) {
        pair.generator.neighbour(INTERFACE, address, mac).unwrap();
        let family = if address.is_ipv4() { "-4" } else { "-6" };
        pair.generator.ip([family, "route", "replace", &address.to_string(), "dev", INTERFACE]).unwrap();
    }
    let mut services = Vec::new();
    for [prefix, address] in [v4, v6] {
        for (network, ports, room) in [(prefix, 0..=u16::MAX, 0), (address, 8_000..=8_100, 40)] {
            let network = network.parse().unwrap();
            services.push(SteeredService { network, protocol: UDP, ports, room, kind: SteeredKind::Vip });
        }
    }
    let bouncer = Bouncer::start(&pair.subject, services);

    const SHORT: Duration = Duration::from_millis(100);
    let ask = |to, port, payload: &[u8], patience| is_bounced(&pair.generator, to, port, payload, patience);
    let mut fragments = 0;
    for (inside, single) in inside.into_iter().zip(single) {
        assert!(ask(inside, 9, b"prefix", PATIENCE) && ask(inside, 60_000, b"prefix", PATIENCE));
        assert!(ask(single, 8_000, b"first", PATIENCE) && ask(single, 8_100, b"last", PATIENCE));
        assert!(!ask(single, 7_999, b"before", SHORT) && !ask(single, 8_101, b"behind", SHORT));
        // Three fragments each; the middle and the last one have no ports, and there is room in front of all of the second.
        let long: Vec<u8> = (0..4_000).map(|at| (at ^ (at >> 8)) as u8).collect();
        for (to, port) in [(inside, 9), (single, 8_050)] {
            assert!(ask(to, port, &long, PATIENCE), "{to}: the fragments did not all come back");
            fragments += 3;
        }
        assert_ping(&pair.generator, inside);
        assert_ping(&pair.generator, single);
    }
    let counters = bouncer.stop();
    assert_eq!(counters.get(Cause::SteeredService), 8);
    assert_eq!(counters.get(Cause::SteeredFragment), fragments);
    assert_eq!(counters.get(Cause::SteeredIcmp), 4 * 3);
    assert!(counters.get(Cause::PassedNoService) >= 4, "{counters:?}");
    assert_eq!(counters.get(Cause::PassedFragment), 0);
}
