//! Where xfwd runs: in a virtual machine, or on veth; and the other end of the cable.

use std::fs;
use std::io;
use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::process::{self, Command};
use std::sync::LazyLock;
use std::time::Duration;

use serde_json::Value;
use xfwd_netns::vm::{self, Card, Images, Kernel, Machine, Parts, QUEUES};
use xfwd_netns::{Capture, Child, Lab, Namespace, VethOptions};

use super::cases::{BACKENDS, CASES, Case, Mode, OUTSIDE_MAC, TO_A_VLAN, VLAN};

/// Address of the machine that xfwd runs on.
const HOST: &str = "198.18.0.2";
/// Time to start and to stop.
const PATIENCE: Duration = Duration::from_secs(30);

/// The `xfwd` of this build, as a copy: machines boot for minutes, and another build may meanwhile put another one in its place.
fn xfwd() -> &'static Path {
    static COPY: LazyLock<PathBuf> = LazyLock::new(|| {
        let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("zerocopy");
        fs::create_dir_all(&directory).unwrap();
        let (new, copy) = (directory.join(process::id().to_string()), directory.join("xfwd"));
        fs::copy(env!("CARGO_BIN_EXE_xfwd"), &new).unwrap();
        fs::rename(&new, &copy).unwrap();
        copy
    });
    &COPY
}

/// A started xfwd.
pub struct Run {
    /// What it has written to standard error when it had started.
    pub log: String,
    process: Option<Child>,
}

impl Run {
    /// The mode of each queue by xfwd's greeting: `eth0 (virtio_net, mtu 1500): queue 0 zero-copy on core 1, …`.
    pub fn modes(&self) -> Vec<&str> {
        let greeting = self.log.lines().find(|line| line.starts_with("eth0 (")).unwrap_or_default();
        greeting.split("queue ").skip(1).filter_map(|queue| queue.split(' ').nth(1)).collect()
    }
}

/// A place where xfwd runs on `eth0`.
pub trait Subject {
    fn name(&self) -> &str;
    fn outside(&self) -> &Outside;
    /// Starts xfwd and waits until it runs and the link is up.
    fn start(&mut self, case: &Case, mode: Mode) -> Run;
    /// Ends xfwd and tells all that may explain what went wrong.
    fn autopsy(&mut self) -> String;
    /// Stops xfwd by SIGINT: exit status, summary, standard error.
    fn stop(&mut self, run: Run) -> (i32, Value, String);
    /// Asserts that there is no XDP program on the interface.
    fn expect_clean(&mut self);
}

/// The outside end of the cable: the backends, a client, and a raw socket.
pub struct Outside {
    namespace: Namespace,
    wire: Capture,
    interface: &'static str,
}

impl Outside {
    fn new(namespace: &Namespace, interface: &'static str) -> Self {
        // ARP is answered by the interface that has the address, in its own name.
        for scope in ["all", "default"] {
            namespace.sysctl(&format!("net.ipv4.conf.{scope}.arp_ignore"), "1").unwrap();
            namespace.sysctl(&format!("net.ipv4.conf.{scope}.arp_announce"), "2").unwrap();
            namespace.sysctl(&format!("net.ipv4.conf.{scope}.rp_filter"), "0").unwrap();
            namespace.sysctl(&format!("net.ipv6.conf.{scope}.disable_ipv6"), "1").unwrap();
        }
        namespace.ip(["link", "set", "dev", interface, "address", &OUTSIDE_MAC.to_string()]).unwrap();
        namespace.address(interface, "198.18.0.1/15").unwrap();
        for (index, (address, mac)) in BACKENDS.iter().enumerate() {
            let (name, mac) = (format!("backend{index}"), mac.to_string());
            let link = ["link", "add", "link", interface, "name", &name, "address", &mac, "type", "macvlan"];
            namespace.ip(link.into_iter().chain(["mode", "bridge"])).unwrap();
            namespace.address(&name, &format!("{address}/32")).unwrap();
            namespace.up(&name).unwrap();
        }
        let wire = namespace.run(|| Capture::open(interface)).unwrap();
        Self { namespace: namespace.clone(), wire, interface }
    }

    pub fn wire(&self) -> &Capture {
        &self.wire
    }

    /// Asserts that packets to the host's own address pass to its network stack: it says that a port is closed.
    pub fn expect_host_answers(&self) {
        let answer = self.namespace.run(|| {
            let socket = UdpSocket::bind("198.18.0.1:0")?;
            socket.set_read_timeout(Some(Duration::from_secs(5)))?;
            socket.connect((HOST, 9))?;
            socket.send(b"anybody there?")?;
            socket.recv(&mut [0; 16])
        });
        let error = answer.expect_err("the port is closed");
        let kind = error.kind();
        assert_eq!(
            kind,
            io::ErrorKind::ConnectionRefused,
            "the host does not answer on {}: {error}",
            self.interface
        );
    }
}

/// xfwd in a virtual machine.
pub struct VmSubject {
    name: String,
    // Before the lab, which ends what is in its namespaces.
    machine: Machine,
    outside: Outside,
    _lab: Lab,
}

impl VmSubject {
    pub fn boot(images: &Images, kernel: &Kernel, card: Card) -> Self {
        let lab = Lab::new("zerocopy").unwrap();
        let namespace = lab.namespace("outside").unwrap();
        let configs: Vec<(String, String)> = CASES
            .iter()
            .chain([&TO_A_VLAN])
            .flat_map(|case| Mode::ALL.map(|mode| (format!("/etc/{}", case.file(mode)), case.config(mode))))
            .collect();
        let files: Vec<(&str, &str)> =
            configs.iter().map(|(path, text)| (path.as_str(), text.as_str())).collect();
        let parts = Parts { kernel, card, programs: &[xfwd()], files: &files };
        let mut machine =
            Machine::boot(&namespace, "tap0", images, &parts).unwrap_or_else(|error| panic!("{error}"));
        let address = machine.run(&format!("ip addr add {HOST}/15 dev eth0")).unwrap();
        assert_eq!(address.status, 0, "{}", address.output);
        let outside = Outside::new(&namespace, "tap0");
        Self { name: format!("{card}, Linux {}", kernel.release()), machine, outside, _lab: lab }
    }

    fn run(&mut self, command: &str) -> vm::Answer {
        self.machine.run(command).unwrap_or_else(|error| panic!("{error}"))
    }

    fn wait_until(&mut self, command: &str) {
        self.machine.wait_until(command, PATIENCE).unwrap_or_else(|error| panic!("{error}"));
    }

    /// What xfwd has written to standard error so far.
    fn log(&mut self) -> String {
        self.run("cat /tmp/err").output
    }

    fn launch(&mut self, case: &Case, mode: Mode) {
        let file = case.file(mode);
        let xfwd = format!("xfwd --iface eth0 --queues {QUEUES} --json --quiet /etc/{file}");
        // The files are emptied here, not by the job in the background: what is read next must not be of the last run.
        self.run(&format!(": >/tmp/out; : >/tmp/err; {xfwd} >>/tmp/out 2>>/tmp/err & pid=$!"));
    }

    /// What `xfwd features` says about the card.
    pub fn features(&mut self) -> String {
        let answer = self.run("xfwd features --iface eth0");
        assert_eq!(answer.status, 0, "{}", answer.output);
        answer.output
    }

    /// What the kernel lacks, by `xfwd features`, in the order of the releases that brought it.
    pub fn missing_features(&mut self) -> Vec<String> {
        let features = self.features_json();
        let rows = features["kernel"]["features"].as_array().unwrap().iter();
        rows.filter_map(|row| row["needs"].as_str().map(str::to_owned)).collect()
    }

    fn features_json(&mut self) -> Value {
        let answer = self.run("xfwd features --iface eth0 --json 2>/tmp/features-err");
        serde_json::from_str(&answer.output).unwrap_or_else(|error| panic!("{error}: {answer:?}"))
    }

    /// Gives the machine a VLAN, and backends in it that it knows.
    pub fn add_vlan(&mut self) {
        let (id, addresses) = VLAN;
        let mut commands = format!(
            "vconfig add eth0 {id} && ip addr add 198.19.0.2/24 dev eth0.{id} && ip link set eth0.{id} up"
        );
        for (address, (_, mac)) in addresses.iter().zip(BACKENDS) {
            commands += &format!(" && arp -i eth0.{id} -s {address} {mac}");
        }
        let answer = self.run(&commands);
        assert_eq!(answer.status, 0, "{}", answer.output);
    }

    pub fn set_mtu(&mut self, mtu: u32) {
        let answer = self.run(&format!("ip link set eth0 mtu {mtu}"));
        assert_eq!(answer.status, 0, "{}", answer.output);
    }

    /// Runs xfwd, which must not start; what it says.
    pub fn refused(&mut self, case: &Case, mode: Mode) -> String {
        self.launch(case, mode);
        let status = self.run("wait $pid").status;
        let log = self.log();
        assert_eq!(status, 1, "{log}");
        log
    }

    /// Pulls the cable, and waits until xfwd has told it.
    pub fn pull_cable(&mut self) {
        self.machine.set_cable(false).unwrap();
        self.wait_until("grep -q 'eth0: carrier lost' /tmp/err");
    }

    /// Plugs the cable in again, and waits until xfwd has told it.
    pub fn plug_cable(&mut self) {
        self.run("before=$(grep -c 'eth0: carrier back' /tmp/err)");
        self.machine.set_cable(true).unwrap();
        self.wait_until("[ $(grep -c 'eth0: carrier back' /tmp/err) -gt $before ]");
        self.wait_for_carrier();
    }

    /// `ip link set eth0 down`, and up again.
    pub fn link_down_and_up(&mut self) {
        self.run("ip link set eth0 down; sleep 0.2; ip link set eth0 up");
        self.wait_for_carrier();
    }

    /// Waits until the link has been up for a while: igb resets when a program comes or goes.
    fn wait_for_carrier(&mut self) {
        self.wait_until(
            "up=0; for i in 1 2 3 4 5 6; do read up </sys/class/net/eth0/carrier; [ \"$up\" = 1 ] || break; sleep 0.05; done; \
             [ \"$up\" = 1 ]",
        );
    }

    /// Kills xfwd by SIGKILL.
    pub fn kill(&mut self, _run: Run) {
        self.run("kill -9 $pid; wait $pid");
        self.wait_for_carrier();
    }
}

impl Subject for VmSubject {
    fn name(&self) -> &str {
        &self.name
    }

    fn outside(&self) -> &Outside {
        &self.outside
    }

    fn start(&mut self, case: &Case, mode: Mode) -> Run {
        self.launch(case, mode);
        self.wait_until("grep -q '^stages: ' /tmp/err || ! kill -0 $pid");
        self.wait_for_carrier();
        Run { log: self.log(), process: None }
    }

    fn autopsy(&mut self) -> String {
        let statistics = self.run("grep . /sys/class/net/eth0/statistics/* | grep -v ':0$'").output;
        self.run("kill -INT $pid; wait $pid");
        format!(
            "{statistics}\n{}\n{}\n{}",
            self.log(),
            self.run("cat /tmp/out").output,
            self.machine.console()
        )
    }

    fn stop(&mut self, _run: Run) -> (i32, Value, String) {
        let status = self.run("kill -INT $pid; wait $pid").status;
        let summary = self.run("cat /tmp/out").output;
        let log = self.log();
        self.wait_for_carrier();
        let summary =
            serde_json::from_str(&summary).unwrap_or_else(|error| panic!("{error}: {summary}\n{log}"));
        (status, summary, log)
    }

    fn expect_clean(&mut self) {
        let features = self.features_json();
        assert_eq!(features["interface"]["xdp_attached"], Value::Null, "{features:#}");
    }
}

/// xfwd on a veth pair.
pub struct VethSubject {
    inside: Namespace,
    outside: Outside,
    directory: PathBuf,
    log: String,
    _lab: Lab,
}

impl VethSubject {
    pub fn new() -> Self {
        let lab = Lab::new("zerocopy-veth").unwrap();
        let (outside, inside) = (lab.namespace("outside").unwrap(), lab.namespace("inside").unwrap());
        lab.veth(
            &outside,
            "eth0",
            &inside,
            "eth0",
            &VethOptions { queues: QUEUES, ..VethOptions::default() },
        )
        .unwrap();
        inside.ip(["link", "set", "dev", "eth0", "address", &vm::MAC.to_string()]).unwrap();
        inside.address("eth0", &format!("{HOST}/15")).unwrap();
        let directory = std::env::temp_dir().join(format!("xfwd-zerocopy-{}", process::id()));
        fs::create_dir_all(&directory).unwrap();
        Self { inside, outside: Outside::new(&outside, "eth0"), directory, log: String::new(), _lab: lab }
    }
}

impl Drop for VethSubject {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.directory);
    }
}

impl Subject for VethSubject {
    fn name(&self) -> &str {
        "veth"
    }

    fn outside(&self) -> &Outside {
        &self.outside
    }

    fn start(&mut self, case: &Case, mode: Mode) -> Run {
        let config = self.directory.join(case.file(mode));
        fs::write(&config, case.config(mode)).unwrap();
        let mut command = Command::new(xfwd());
        command.args(["--iface", "eth0", "--queues", &QUEUES.to_string(), "--json", "--quiet"]).arg(config);
        let process = self.inside.spawn(&mut command).unwrap();
        process.wait_for("stages: ", PATIENCE).unwrap_or_else(|error| panic!("{error}"));
        self.log = process.stderr();
        Run { log: self.log.clone(), process: Some(process) }
    }

    fn autopsy(&mut self) -> String {
        self.log.clone()
    }

    fn stop(&mut self, run: Run) -> (i32, Value, String) {
        let mut process = run.process.expect("a process");
        let report = process.stop(PATIENCE).unwrap();
        let summary =
            serde_json::from_str(&report.stdout).unwrap_or_else(|error| panic!("{error}: {}", report.stderr));
        (report.status.code().unwrap_or(-1), summary, report.stderr)
    }

    fn expect_clean(&mut self) {
        let link = self.inside.ip(["-d", "link", "show", "dev", "eth0"]).unwrap();
        assert!(!link.contains("xdp"), "{link}");
    }
}
