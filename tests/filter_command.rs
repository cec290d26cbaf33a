//! The filter and the deny list through the command: what is dropped in the kernel, what in the worker, and what is
//! counted; `xfwd check` says where each rule runs.
#![allow(missing_docs, clippy::unwrap_used)]

#[path = "support/xfwd.rs"]
mod running;

use std::{
    fs,
    net::{IpAddr, SocketAddr, UdpSocket},
    path::PathBuf,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use running::{PATIENCE, Summary, Xfwd};
use xfwd::stages::filter::fields::FIELDS;
use xfwd_netns::{
    Namespace, lab_or_skip,
    topology::{self, Dsr, INTERFACE, Pair, VIP_V4, host_v4, host_v6},
    trafficgen::{Amount, Generator, Traffic},
};

/// Number of the host whose packets are dropped: a second address of the other end.
const DENIED: u8 = 77;
const ONE_QUEUE: [&str; 4] = ["--iface", INTERFACE, "--queues", "1"];
/// Within this a change of the deny file has taken effect.
const SOON: Duration = Duration::from_secs(1);

/// Packets and bytes that a rule acted on.
fn counted(summary: &Summary, rule: &str) -> (u64, u64) {
    let row = summary.rows("rules").iter().find(|row| row["name"] == rule);
    let row = row.unwrap_or_else(|| panic!("no rule {rule} in {}", summary.0));
    (row["packets"].as_u64().unwrap(), row["bytes"].as_u64().unwrap())
}

/// Two hosts, of which the generator has the addresses of the denied host as well.
fn pair() -> Pair {
    let pair = topology::pair(1).unwrap();
    pair.generator.address(INTERFACE, &format!("{}/24", host_v4(DENIED))).unwrap();
    pair.generator.address(INTERFACE, &format!("{}/64", host_v6(DENIED))).unwrap();
    pair
}

/// Sends `count` echo requests of 98 or 118 bytes to the subject, and says whether all (`true`) or none were answered.
fn ping(pair: &Pair, source: IpAddr, count: u32) -> bool {
    let to =
        if source.is_ipv4() { host_v4(Pair::SUBJECT).into() } else { IpAddr::from(host_v6(Pair::SUBJECT)) };
    let mut command = Command::new("ping");
    command.args([
        "-c",
        &count.to_string(),
        "-i",
        "0.1",
        "-W",
        "1",
        "-I",
        &source.to_string(),
        &to.to_string(),
    ]);
    let output = pair.generator.output(&mut command).unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let answered = text.contains(&format!(" {count} received"));
    assert!(answered || text.contains(" 0 received"), "{text}{}", String::from_utf8_lossy(&output.stderr));
    answered
}

/// Sends `count` datagrams of 10 bytes.
fn send(namespace: &Namespace, from: SocketAddr, to: SocketAddr, count: u64) {
    let socket = namespace.run(|| UdpSocket::bind(from)).unwrap();
    (0..count).for_each(|_| _ = socket.send_to(b"0123456789", to).unwrap());
}

#[test]
fn a_filter_without_services_protects_the_host() {
    lab_or_skip!();
    let pair = pair();
    let (v4, v6) = (host_v4(DENIED), host_v6(DENIED));
    let xfwd = Xfwd::start(
        &pair.subject,
        &ONE_QUEUE,
        &format!(
            "[[filter]]\nname = \"intruder\"\nsrc = [\"{v4}\", \"{v6}\"]\naction = \"drop\"\n\
             [[filter]]\nname = \"pings\"\nprotocol = \"icmp\"\naction = \"count\"\n"
        ),
    );
    assert!(xfwd.said().contains("leaves the kernel: nothing"), "{}", xfwd.said());
    let port = SocketAddr::from((host_v4(Pair::SUBJECT), 9_000));
    let socket = pair.subject.run(|| UdpSocket::bind(port)).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();

    assert!(
        !ping(&pair, v4.into(), 5) && !ping(&pair, v6.into(), 4),
        "nothing is answered to who is dropped"
    );
    assert!(
        ping(&pair, host_v4(Pair::GENERATOR).into(), 3) && ping(&pair, host_v6(Pair::GENERATOR).into(), 3)
    );
    send(&pair.generator, (v4, 9_001).into(), port, 7);
    send(&pair.generator, (host_v4(Pair::GENERATOR), 9_002).into(), port, 1);
    let (_, from) = socket.recv_from(&mut [0; 64]).unwrap();
    assert_eq!(from, SocketAddr::from((host_v4(Pair::GENERATOR), 9_002)), "the first that arrives");

    let summary = xfwd.stop().summary();
    // Ethernet, IP and ICMP headers with 56 bytes; Ethernet, IP and UDP headers with 10.
    assert_eq!(counted(&summary, "intruder"), (5 + 4 + 7, 5 * 98 + 4 * 118 + 7 * 52));
    assert_eq!(counted(&summary, "pings"), (3, 3 * 98));
    assert_eq!(summary.cause("dropped-rule"), 16);
    assert_eq!(summary.kernel("dropped"), 16);
    assert_eq!((summary.kernel("steered"), summary.packets()), (0, 0), "no packet leaves the kernel");
}

#[test]
fn rules_in_the_kernel_and_a_policer_in_the_worker_act_before_a_balancer() {
    lab_or_skip!();
    const REQUESTS: u64 = 50;
    const DATAGRAMS: u64 = 60;
    let dsr = topology::dsr(1, 1).unwrap();
    let backend = host_v4(Dsr::backend(0));
    let listen = format!("{VIP_V4}:80");
    let tool = xfwd_netns::tool("xfwd-lab-http").unwrap();
    let server = dsr.backends[0]
        .spawn(Command::new(&tool).args(["serve", "--name", "one", "--listen", &listen]))
        .unwrap();
    server.wait_for(&format!("listening on {listen}"), PATIENCE).unwrap();
    let mut config = format!(
        "[[filter]]\nname = \"blocked\"\nprotocol = \"udp\"\ndst_port = 9\naction = \"drop\"\n\
         [[filter]]\nname = \"to-vip\"\ndst = \"{VIP_V4}\"\naction = \"count\"\n\
         [[filter]]\nname = \"limit\"\nprotocol = \"udp\"\nrate = \"1 pps\"\nburst = 5\naction = \"drop\"\n"
    );
    for (protocol, port) in [("tcp", 80), ("udp", 7)] {
        config += &format!(
            "[[service]]\nname = \"{protocol}\"\nvip = \"{VIP_V4}\"\nprotocol = \"{protocol}\"\nport = {port}\n\
             forward = \"dsr\"\n[[service.backend]]\naddress = \"{backend}\"\n"
        );
    }
    let xfwd = Xfwd::start(&dsr.balancer, &ONE_QUEUE, &config);
    let client = SocketAddr::from((host_v4(Dsr::CLIENT), 0));
    send(&dsr.client, client, (VIP_V4, 9).into(), 11);
    send(&dsr.client, client, (VIP_V4, 7).into(), DATAGRAMS);
    let mut fetch = Command::new(&tool);
    fetch.args(["fetch", "--url", &format!("http://{listen}/"), "--count", &REQUESTS.to_string(), "--json"]);
    let output = dsr.client.output(&mut fetch).unwrap();
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&report["failed"], &report["backends"]["one"]), (&0.into(), &REQUESTS.into()), "{report}");

    let summary = xfwd.stop().summary();
    assert_eq!(counted(&summary, "blocked"), (11, 11 * 52));
    assert_eq!(summary.cause("dropped-rule"), 11);
    let steered = summary.kernel("steered");
    assert_eq!(counted(&summary, "to-vip").0, steered, "counted in the kernel, and not again in the worker");
    let (limited, bytes) = counted(&summary, "limit");
    let passed: u64 = summary.backends("udp", "packets").iter().map(|(_, packets)| packets).sum();
    println!("{limited} of {DATAGRAMS} datagrams were above the rate");
    assert_eq!((limited + passed, bytes), (DATAGRAMS, limited * 52));
    assert!((5..30).contains(&passed), "a burst of 5 and one a second: {passed}");
    assert_eq!(summary.dropped("rule"), limited);
    assert_eq!(summary.packets(), steered);
    assert_eq!(summary.number("/totals/lost"), 0);
}

#[test]
fn every_action_does_what_it_says_with_everything_steered() {
    lab_or_skip!();
    const EACH: u64 = 500;
    let pair = topology::pair(1).unwrap();
    // Hosts tell their neighbours by themselves which multicast groups they listen to.
    for host in [&pair.generator, &pair.subject] {
        host.sysctl(&format!("net.ipv6.conf.{INTERFACE}.disable_ipv6"), "1").unwrap();
    }
    let xfwd = Xfwd::start(
        &pair.subject,
        &ONE_QUEUE,
        "[dataplane]\nsteer = \"all\"\n[bounce]\n\
         [[filter]]\nname = \"let\"\ndst_port = 1002\naction = \"accept\"\n\
         [[filter]]\nname = \"block\"\ndst_port = \"1001-1002\"\naction = \"drop\"\n\
         [[filter]]\nname = \"off\"\ndst_port = 1003\naction = \"continue\"\n\
         [[filter]]\nname = \"seen\"\ndst_port = \"1001-1003\"\naction = \"count\"\n\
         [[filter]]\nname = \"back\"\ndst_port = 1004\naction = \"bounce\"\n\
         [[filter]]\nname = \"behind\"\ndst_port = \"1004-1005\"\naction = \"drop\"\n",
    );
    for port in 1001..=1005 {
        let traffic = Traffic {
            destination_mac: pair.subject.mac(INTERFACE).unwrap(),
            rate_pps: Some(20_000),
            ..Traffic::udp(host_v4(Pair::GENERATOR).into(), host_v4(200).into(), port)
        };
        let sent =
            pair.generator.run(|| Generator::new(INTERFACE, &traffic)?.run(Amount::Packets(EACH))).unwrap();
        assert_eq!((sent.packets, sent.refused.unwrap_or(0)), (EACH, 0));
    }
    // A packet that still lies in the ring of the veth when the program is taken off would go to the host.
    let deadline = Instant::now() + PATIENCE;
    while arrived(&pair) < 5 * EACH && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(1));
    }
    let summary = xfwd.stop().summary();
    let all = (EACH, EACH * 60);
    let counts = ["let", "block", "off", "seen", "back", "behind"].map(|rule| counted(&summary, rule));
    assert_eq!(counts, [all, all, (0, 0), all, all, all]);
    assert_eq!(summary.cause("dropped-rule"), EACH, "by `block`");
    assert_eq!(summary.packets(), 4 * EACH);
    assert_eq!(summary.dropped("rule"), EACH, "by `behind`, which had to run in the worker");
    assert_eq!(summary.number("/totals/verdicts/bounce"), 3 * EACH, "of `let`, `seen` and `back`");
}

/// Packets that the subject's driver has handed to the XDP program.
fn arrived(pair: &Pair) -> u64 {
    let statistics = pair.subject.statistics(INTERFACE).unwrap();
    let of_queues = statistics.iter().filter(|(name, _)| name.starts_with("rx_queue_"));
    of_queues.filter(|(name, _)| name.ends_with("_xdp_packets")).map(|(_, packets)| packets).sum()
}

/// A deny list in a file of its own, removed when dropped.
struct DenyFile(PathBuf);

impl DenyFile {
    fn new(name: &str) -> Self {
        let name = format!("deny-{}-{name}.txt", std::process::id());
        let file = Self(PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name));
        file.write("");
        file
    }

    fn write(&self, text: &str) {
        fs::write(&self.0, text).unwrap();
    }
}

impl Drop for DenyFile {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

#[test]
fn a_deny_list_alone_is_followed_while_running() {
    lab_or_skip!();
    let pair = pair();
    let file = DenyFile::new("followed");
    let xfwd = Xfwd::start(&pair.subject, &ONE_QUEUE, &format!("[deny]\nfile = {:?}\n", file.0));
    let (denied, other) = (IpAddr::from(host_v4(DENIED)), IpAddr::from(host_v4(Pair::GENERATOR)));
    let answered = || ping(&pair, denied, 1);
    assert!(answered());

    file.write(&format!("{denied}\n"));
    thread::sleep(SOON);
    assert!(!answered() && ping(&pair, other, 1), "written to the file: dropped");

    file.write(&format!("{denied}\nnonsense\n"));
    xfwd.wait_for("line 2: `nonsense`");
    assert!(xfwd.said().contains("what it held before stays denied"), "{}", xfwd.said());
    assert!(!answered(), "a file that is wrong changes nothing");

    file.write("# none\n");
    thread::sleep(SOON);
    assert!(answered(), "taken out of the file: answered again");

    let written = Instant::now();
    file.write(&format!("{denied} 4s\n"));
    thread::sleep(SOON);
    assert!(!answered());
    assert!(written.elapsed() < Duration::from_secs(4), "this machine is too slow to tell");
    thread::sleep(Duration::from_secs(5).saturating_sub(written.elapsed()));
    assert!(answered(), "its time is over");

    let summary = xfwd.stop().summary();
    assert_eq!(summary.cause("dropped-denied"), 3, "{}", summary.0);
    assert_eq!(summary.packets(), 0);
    for (name, count) in [("entries", 0), ("added", 2), ("removed", 1), ("expired", 1), ("bad_files", 1)] {
        assert_eq!(summary.number(&format!("/deny/{name}")), count, "{name}: {}", summary.0["deny"]);
    }
}

fn check(argument: &str) -> (String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_xfwd"))
        .args(["check", argument])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    let [stdout, stderr] = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap());
    assert!(output.status.success(), "{stderr}");
    (stdout, stderr)
}

#[test]
fn check_says_where_each_rule_of_the_example_runs_and_why() {
    let (stdout, stderr) = check("examples/filter.toml");
    assert!(stdout == CHECKED, "found\n{stdout}\n");
    assert!(stderr == WARNED, "found\n{stderr}\n");
}

const CHECKED: &str = "\
filter broken: drop malformed true
    runs in kernel
filter monitoring: accept src 198.18.9.0/24,2001:db8:9::/48
    runs in kernel
filter deny-list: drop src_set examples/deny.txt (3 prefixes)
    runs in kernel
filter spoofed: drop src 10.0.0.0/8,127.0.0.0/8,169.254.0.0/16,172.16.0.0/12,… (6) dst 198.18.10.0/24
    runs in kernel
filter options: drop ip_options true
    runs in kernel
filter christmas-trees: drop protocol 6 tcp_flags syn,fin
    runs in kernel
filter ping-limit: drop above 1000 packets/s (burst 200, per source /24 or IPv6 /64) protocol 1,58 icmp_type 8,128
    runs in worker: policers run in the worker
filter syn-limit: drop above 100 packets/s (burst 10, per source /32 or IPv6 /64) protocol 6 tcp_flags syn no tcp_flags ack
    runs in worker: policers run in the worker
filter amplification: drop protocol 17 src_port 19,53,123,389,… (6) not ( src 198.18.0.53/32 )
    runs in kernel
filter tagged: count vlan 1-4094
    runs in worker: it stands behind `ping-limit`, which runs in the worker and may match the same packets
service web: tcp 198.18.10.1 port 80 by dsr to 198.18.0.11 100.0 %
stages: filter > balance
leaves the kernel: packets of the services; everything else goes to the host's network stack
";
const WARNED: &str = "\
warning: rule `ping-limit` runs in the worker: packets that are not of a service are left to the host and go past it unseen
warning: rule `syn-limit` runs in the worker: packets that are not of a service are left to the host and go past it unseen
warning: rule `tagged` runs in the worker: packets that are not of a service are left to the host and go past it unseen
";

#[test]
fn every_key_is_explained() {
    let (stdout, _) = check("--explain-fields");
    for key in FIELDS.iter().flat_map(|field| field.key.split(", ")) {
        assert!(stdout.contains(key), "no {key} in\n{stdout}");
    }
    assert!(stdout.contains("every packet that arrives on the interface"), "{stdout}");
}
