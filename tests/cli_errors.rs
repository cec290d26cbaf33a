//! Errors and warnings of the command, through the command: exit status, the words, and an interface that is as it was.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    reason = "a test fails by panicking, in its helper functions too"
)]

#[path = "support/xfwd.rs"]
mod running;
#[path = "support/xdp.rs"]
mod xdp;

use std::{
    os::fd::AsRawFd,
    path::Path,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use running::{ConfigFile, PATIENCE};
use xfwd_netns::{
    ExitReport, Namespace, VethOptions, lab_or_skip,
    topology::{self, INTERFACE, Pair},
};
use xsk_rs::{
    CompQueue, FillQueue, RxQueue, Socket, TxQueue, Umem,
    config::{BindFlags, LibxdpFlags, SocketConfig, UmemConfig},
};

/// Exit status of what could not start.
const FAILED: i32 = 1;
/// Exit status of a wrong command line or config.
const WRONG: i32 = 2;

const BOUNCE: &str = "[dataplane]\nsteer = \"all\"\nhuge_pages = false\n[bounce]\n";

fn xfwd() -> Command {
    Command::new(env!("CARGO_BIN_EXE_xfwd"))
}

/// Runs a command to its end, with `config` in a file as the last argument. What it said has `CONFIG` for the file's name.
fn run(namespace: &Namespace, mut command: Command, arguments: &[&str], config: &str) -> ExitReport {
    let file = ConfigFile::new(config);
    command.args(arguments).arg(file.path());
    let mut report = namespace.spawn(&mut command).unwrap().wait(PATIENCE).unwrap();
    report.stderr = report.stderr.replace(&file.path().display().to_string(), "CONFIG");
    report
}

/// No XDP program is on the interface.
fn assert_clean(namespace: &Namespace, interface: &str) {
    let link = namespace.ip(["link", "show", "dev", interface]).unwrap();
    assert!(!link.contains("xdp"), "{link}");
}

/// The command ends with `status` and says just this, and `eth0` is as it was.
fn assert_refused(namespace: &Namespace, arguments: &[&str], config: &str, status: i32, says: &str) {
    let report = run(namespace, xfwd(), arguments, config);
    assert_eq!(report.stderr.trim_end(), says, "{arguments:?}");
    assert_eq!((report.status.code(), report.stdout.as_str()), (Some(status), ""), "{arguments:?}");
    assert_clean(namespace, INTERFACE);
}

/// The command runs, for a moment, and says this among the other things.
fn assert_runs_and_says(namespace: &Namespace, arguments: &[&str], config: &str, says: &str) {
    let arguments = [arguments, &["--duration", "0.1"]].concat();
    let report = run(namespace, xfwd(), &arguments, config);
    assert!(report.status.success(), "{}", report.stderr);
    assert!(report.stderr.contains(says), "{}", report.stderr);
    assert_clean(namespace, INTERFACE);
}

// ---------------------------------------------------------------------------------------------------------------------
// The command line. Nothing is touched, so neither root nor a lab is needed.

/// Runs the command here; its exit status and what it said.
fn run_here(arguments: &[&str]) -> (Option<i32>, String) {
    let output = xfwd().args(arguments).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "", "{arguments:?}");
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

#[test]
fn wrong_command_lines_end_with_status_2_and_say_what_is_wrong() {
    let cases: &[(&[&str], &str)] = &[
        (&[], "the following required arguments were not provided:\n  --iface <IF>\n  <CONFIG>\n"),
        (&["lb.toml"], "the following required arguments were not provided:\n  --iface <IF>\n"),
        (&["--iface", "lo"], "the following required arguments were not provided:\n  <CONFIG>\n"),
        (&["check"], "the following required arguments were not provided:\n  <CONFIG>\n"),
        (&["--frob"], "unexpected argument '--frob' found\n"),
        (&["--ifaces", "lo", "lb.toml"], "a similar argument exists: '--iface'\n"),
        (
            &["--iface", "lo", "--queues", "0", "lb.toml"],
            "invalid value '0' for '--queues <N>': 0 is not in 1..",
        ),
        (
            &["--iface", "lo", "--queues", "four", "lb.toml"],
            "invalid value 'four' for '--queues <N>': invalid digit",
        ),
        (&["--iface", "lo", "--queues", "-1", "lb.toml"], "unexpected argument '-1' found\n"),
        (&["--iface", "lo", "--cores", "", "lb.toml"], "invalid value '' for '--cores <LIST>'"),
        (
            &["--iface", "lo", "--duration", "nan", "lb.toml"],
            "invalid value 'nan' for '--duration <SECONDS>': must be from 0 to 3162240000 seconds\n",
        ),
        (&["--iface", "lo", "--duration", "-1", "lb.toml"], "must be from 0 to 3162240000 seconds\n"),
        (
            &["--iface", "lo", "--duration", "5s", "lb.toml"],
            "not a number of seconds, such as `10` or `0.5`\n",
        ),
    ];
    for (arguments, says) in cases {
        let (status, said) = run_here(arguments);
        assert_eq!(status, Some(WRONG), "{arguments:?}: {said}");
        assert!(said.starts_with("error: ") && said.contains(says), "{arguments:?}: {said}");
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// The config. It is read before anything else, by `check` and by a run alike.

/// Both `check` and a run refuse the file with status 2 and just these words.
fn assert_config_refused(file: &Path, says: &str) {
    let path = file.display().to_string();
    for arguments in [&["check", &path][..], &["--iface", "lo", &path]] {
        let (status, said) = run_here(arguments);
        assert_eq!(said.replace(&path, "CONFIG").trim_end(), says);
        assert_eq!(status, Some(WRONG));
    }
}

#[test]
fn config_that_cannot_be_read_is_named() {
    let nothing = Path::new(env!("CARGO_TARGET_TMPDIR")).join("no-such-config.toml");
    assert_config_refused(&nothing, "error: cannot read CONFIG: No such file or directory (os error 2)");
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR"));
    assert_config_refused(directory, "error: cannot read CONFIG: Is a directory (os error 21)");
    let garbage = ConfigFile::new("");
    std::fs::write(garbage.path(), (0..=255).rev().collect::<Vec<u8>>()).unwrap();
    assert_config_refused(garbage.path(), "error: cannot read CONFIG: stream did not contain valid UTF-8");
}

#[test]
fn config_that_may_not_be_read_is_named() {
    lab_or_skip!();
    let file = ConfigFile::new(BOUNCE);
    let private = std::os::unix::fs::PermissionsExt::from_mode(0o000);
    std::fs::set_permissions(file.path(), private).unwrap();
    // Root may read all files, unless it gives that up.
    let mut command = Command::new("setpriv");
    let drop = ["--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-dac_override,-dac_read_search"];
    let output = command.args(drop).arg(env!("CARGO_BIN_EXE_xfwd")).arg("check").arg(file.path()).output();
    let output = output.unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(
        said.replace(&file.path().display().to_string(), "CONFIG"),
        "error: cannot read CONFIG: Permission denied (os error 13)\n"
    );
    assert_eq!(output.status.code(), Some(WRONG));
}

#[test]
fn config_errors_point_at_the_place_and_say_what_would_be_right() {
    let cases: [(&str, &str); 11] = [
        (
            "",
            "error: there is nothing to do
--> CONFIG
 = help: add `[[service]]` to balance load, `[[filter]]` or `[deny]` to drop packets, or `[bounce]` to send them back where they came from",
        ),
        (
            "hello world\n",
            "error: key with no value, expected `=`
 --> CONFIG:1:7
  |
1 | hello world
  |       ^",
        ),
        (
            "[dataplane]\nmode = 5\n[bounce]\n",
            "error: `mode` must be a string
 --> CONFIG:2:8
  |
2 | mode = 5
  |        ^ this is an integer",
        ),
        (
            "[dataplane]\nring_sise = 4\n[bounce]\n",
            "error: unknown key `ring_sise` in `[dataplane]`
 --> CONFIG:2:1
  |
2 | ring_sise = 4
  | ^^^^^^^^^ did you mean `ring_size`?",
        ),
        (
            "[[service]]\nname = \"web\"\nvip = \"198.18.10.1\"\nprotocol = \"tcp\"\nport = 80\nforward = \"dsr\"\n\
             backend = []\n",
            "error: service `web` has no backend
 --> CONFIG:7:11
  |
7 | backend = []
  |           ^^
  |
  = help: add `[[service.backend]]` with an `address` for each server",
        ),
        (
            "[[service]]\nname = \"web\"\nvip = \"198.18.10.1\"\nprotocol = \"tcp\"\nport = 80\nforward = \"dsr\"\n\
             [[service.backend]]\naddress = \"198.18.0.11\"\n\
             [[service]]\nname = \"too\"\nvip = \"198.18.10.1\"\nprotocol = \"tcp\"\nport = 80\nforward = \"dsr\"\n\
             [[service.backend]]\naddress = \"198.18.0.12\"\n",
            "error: services `web` and `too` both take tcp 198.18.10.1 port 80
  --> CONFIG:11:7
   |
11 | vip = \"198.18.10.1\"
   |       ^^^^^^^^^^^^^ the first is in line 3",
        ),
        (
            &service("198.18.10.1"),
            "error: backend 198.18.10.1 of service `web` is also a VIP
 --> CONFIG:8:11
  |
8 | address = \"198.18.10.1\"
  |           ^^^^^^^^^^^^^ service `web` has 198.18.10.1
  |
  = help: give the server's own address: packets for a VIP come back to the balancer",
        ),
        (
            &service("2001:db8::11"),
            "error: backend 2001:db8::11 of the IPv4 service `web` is an IPv6 address
 --> CONFIG:8:11
  |
8 | address = \"2001:db8::11\"
  |           ^^^^^^^^^^^^^^ `forward = \"dsr\"` needs an IPv4 address
  |
  = help: `forward = \"ipip\"` and `\"gue\"` carry either family to either",
        ),
        (
            &(service("198.18.0.11") + "weight = 0\n"),
            "error: no backend of service `web` gets flows
 --> CONFIG:3:7
  |
3 | vip = \"198.18.10.1\"
  |       ^^^^^^^^^^^^^ each has `weight = 0`, or its `state` is `drain` or `down`
  |
  = help: leave the service out, or give one backend a weight",
        ),
        (
            &(service("198.18.0.11").replace("dsr", "nat") + "[nat]\naddresses = [\"198.18.0.2\"]\nports = \"40000-40009\"\n"),
            "error: the port pool of `[nat]` is too small
  --> CONFIG:11:9
   |
11 | ports = \"40000-40009\"
   |         ^^^^^^^^^^^^^ 10 ports; each worker needs 64
   |
   = help: the default is `ports = \"1024-32767\"`",
        ),
        (
            &(service("198.18.0.11") + "port = 8080\n[service.health]\ntype = \"tcp\"\ntimeout = \"5s\"\n"),
            "error: backend 198.18.0.11 of service `web` has a `port`
 --> CONFIG:9:8
  |
9 | port = 8080
  |        ^^^^ `forward = \"dsr\"` leaves the port as it is
  |
  = help: remove it, or use `forward = \"nat\"`

error: the health check of service `web` takes longer than its interval
  --> CONFIG:12:11
   |
12 | timeout = \"5s\"
   |           ^^^^ `timeout` is 5s, `interval` 2s
   |
   = help: a try must have ended when the next begins",
        ),
    ];
    for (config, says) in cases {
        assert_config_refused(ConfigFile::new(config).path(), says);
    }
}

#[test]
fn every_error_of_a_config_is_told_at_once() {
    assert_config_refused(
        ConfigFile::new("[dataplane]\nmode = \"fast\"\nidel = \"busy\"\n[bounce]\n").path(),
        "error: unknown value `fast` for `mode`
 --> CONFIG:2:8
  |
2 | mode = \"fast\"
  |        ^^^^^^ known: `auto`, `zero-copy`, `copy`, `generic`

error: unknown key `idel` in `[dataplane]`
 --> CONFIG:3:1
  |
3 | idel = \"busy\"
  | ^^^^ did you mean `idle`?",
    );
}

// ---------------------------------------------------------------------------------------------------------------------
// Interfaces, queues and cores.

#[test]
fn an_interface_that_does_not_exist_is_answered_with_the_nearest() {
    lab_or_skip!();
    let Pair { subject, lab: _lab, .. } = topology::pair(1).unwrap();
    assert_refused(
        &subject,
        &["--iface", "eht0"],
        BOUNCE,
        FAILED,
        "error: there is no interface `eht0` in this network namespace; did you mean `eth0`? It has: eth0, lo",
    );
}

#[test]
fn an_interface_named_twice_is_refused() {
    lab_or_skip!();
    let Pair { subject, lab: _lab, .. } = topology::pair(1).unwrap();
    let arguments = ["--iface", INTERFACE, "--iface", INTERFACE];
    assert_refused(&subject, &arguments, BOUNCE, WRONG, "error: interface eth0 was named twice");
    // Another of its names is no other interface.
    subject.ip(["link", "property", "add", "dev", INTERFACE, "altname", "uplink-of-this-host"]).unwrap();
    let arguments = ["--iface", INTERFACE, "--iface", "uplink-of-this-host"];
    assert_refused(
        &subject,
        &arguments,
        BOUNCE,
        WRONG,
        "error: interface uplink-of-this-host was named twice",
    );
}

#[test]
fn more_queues_than_there_are_is_answered_with_the_command_that_adds_them() {
    lab_or_skip!();
    let Pair { subject, lab: _lab, .. } = topology::pair(4).unwrap();
    let ethtool = |queues: &str| {
        let mut command = Command::new("ethtool");
        assert!(subject.output(command.args(["-L", INTERFACE, "rx", queues])).unwrap().status.success());
    };
    ethtool("2");
    assert_refused(
        &subject,
        &["--iface", INTERFACE, "--queues", "4"],
        BOUNCE,
        FAILED,
        "error: `eth0` receives on 2 queues, and 4 were asked for. Give it 4 with\n\
         \n    ethtool -L eth0 rx 4\n\
         \nor ask for 2.",
    );
    assert_refused(
        &subject,
        &["--iface", INTERFACE, "--queues", "5"],
        BOUNCE,
        FAILED,
        "error: `eth0` receives on 2 queues, and 5 were asked for. Its driver allows 4 at most (`ethtool -l eth0`).",
    );
    // What it proposes is right.
    ethtool("4");
    assert_runs_and_says(
        &subject,
        &["--iface", INTERFACE, "--queues", "4"],
        BOUNCE,
        "eth0 (veth, mtu 1500): queue 0",
    );
}

#[test]
fn fewer_queues_than_there_are_is_a_warning_that_names_the_traffic_that_goes_past() {
    lab_or_skip!();
    let Pair { subject, lab: _lab, .. } = topology::pair(4).unwrap();
    assert_runs_and_says(
        &subject,
        &["--iface", INTERFACE, "--queues", "2"],
        BOUNCE,
        "warning: `eth0` receives on 4 queues, and 2 were asked for: packets that arrive on queues 2..3 go past xfwd to \
         the host stack. Ask for all 4 queues, or bring all packets onto queues 0..1 with\n\
         \n    ethtool -L eth0 rx 2\n",
    );
    let all = run(&subject, xfwd(), &["--iface", INTERFACE, "--queues", "4", "--duration", "0"], BOUNCE);
    assert!(!all.stderr.contains("go past"), "{}", all.stderr);
}

#[test]
fn an_interface_that_is_down_is_a_warning() {
    lab_or_skip!();
    let Pair { subject, lab: _lab, .. } = topology::pair(1).unwrap();
    subject.ip(["link", "set", "dev", INTERFACE, "down"]).unwrap();
    let says = "warning: interface eth0 is down: `ip link set eth0 up`\n";
    assert_runs_and_says(&subject, &["--iface", INTERFACE], BOUNCE, says);
}

#[test]
fn a_core_that_does_not_exist_is_refused_before_anything_is_touched() {
    lab_or_skip!();
    let Pair { subject, lab: _lab, .. } = topology::pair(1).unwrap();
    let on_core_0 = || {
        let mut command = Command::new("taskset");
        command.args(["-c", "0", env!("CARGO_BIN_EXE_xfwd")]);
        command
    };
    let arguments = ["--iface", INTERFACE, "--cores", "99999"];
    let report = run(&subject, on_core_0(), &arguments, BOUNCE);
    assert_eq!(report.stderr, "error: core 99999 cannot be used: this process may use core 0\n");
    assert_eq!((report.status.code(), report.stdout.as_str()), (Some(FAILED), ""));
    assert_clean(&subject, INTERFACE);
    // As is one that exists, but is not for this process.
    let arguments = ["--iface", INTERFACE, "--cores", "1"];
    let report = run(&subject, on_core_0(), &arguments, BOUNCE);
    assert_eq!(report.stderr, "error: core 1 cannot be used: this process may use core 0\n");
}

#[test]
fn more_workers_than_cores_is_a_warning() {
    lab_or_skip!();
    let Pair { subject, lab: _lab, .. } = topology::pair(2).unwrap();
    let mut command = Command::new("taskset");
    command.args(["-c", "0", env!("CARGO_BIN_EXE_xfwd")]);
    let arguments = ["--iface", INTERFACE, "--queues", "2", "--duration", "0"];
    let report = run(&subject, command, &arguments, BOUNCE);
    assert!(report.status.success(), "{}", report.stderr);
    assert!(
        report.stderr.contains(
            "warning: 2 workers share 1 core: they take turns, and a busy one keeps the others from their packets; use \
             fewer queues, or `idle = \"poll\"`\n"
        ),
        "{}",
        report.stderr
    );
}

// ---------------------------------------------------------------------------------------------------------------------
// Privileges.

#[test]
fn each_missing_capability_is_named() {
    lab_or_skip!();
    let Pair { subject, lab: _lab, .. } = topology::pair(1).unwrap();
    // CAP_SYS_ADMIN includes two of them.
    for (without, named) in [
        ("-net_admin", &["CAP_NET_ADMIN  to load and attach the XDP program, and to ask for neighbours"][..]),
        ("-net_raw", &["CAP_NET_RAW    to open AF_XDP sockets"]),
        ("-bpf,-sys_admin", &["CAP_BPF        to load the XDP program and to make its maps"]),
        ("-perfmon,-sys_admin", &["CAP_PERFMON    to load a program that reads packets at computed offsets"]),
        (
            "-all",
            &[
                "CAP_NET_ADMIN  to load and attach the XDP program, and to ask for neighbours",
                "CAP_NET_RAW    to open AF_XDP sockets",
                "CAP_BPF        to load the XDP program and to make its maps",
                "CAP_PERFMON    to load a program that reads packets at computed offsets",
            ],
        ),
    ] {
        let mut command = Command::new("setpriv");
        command.arg(format!("--bounding-set={without}")).arg(format!("--inh-caps={without}"));
        command.arg(env!("CARGO_BIN_EXE_xfwd"));
        // Root may read the config without any capability: it is root's.
        let report = run(&subject, command, &["--iface", INTERFACE], BOUNCE);
        let missing: String = named.iter().map(|line| format!("\n    {line}")).collect();
        let begins = format!("error: this process lacks privileges:\n{missing}\n\nRun it with sudo; or");
        assert!(report.stderr.starts_with(&begins), "{without}: {}", report.stderr);
        assert!(report.stderr.contains("sudo setcap cap_net_admin,cap_net_raw,"), "{}", report.stderr);
        assert_eq!(report.status.code(), Some(FAILED), "{without}");
        assert_clean(&subject, INTERFACE);
    }
}

#[test]
fn a_limit_of_locked_memory_is_named() {
    lab_or_skip!();
    let Pair { subject, lab: _lab, .. } = topology::pair(1).unwrap();
    let mut command = Command::new("prlimit");
    command.args(["--memlock=8388608:8388608", "setpriv"]);
    // Without these the limit counts, and cannot be raised.
    command.args(["--bounding-set=-ipc_lock,-sys_resource", "--inh-caps=-ipc_lock,-sys_resource"]);
    command.arg(env!("CARGO_BIN_EXE_xfwd"));
    let report = run(&subject, command, &["--iface", INTERFACE], BOUNCE);
    assert_eq!(
        report.stderr,
        "error: cannot register 32 MiB of packet memory (UMEM): No buffer space available (os error 105); a lower \
         `frames_per_queue` needs less, and CAP_IPC_LOCK or a higher `ulimit -l` lifts the limit on locked memory\n"
    );
    assert_eq!(report.status.code(), Some(FAILED));
    assert_clean(&subject, INTERFACE);
}

// ---------------------------------------------------------------------------------------------------------------------
// What is already there.

#[test]
fn another_xdp_program_is_named_and_left_alone() {
    lab_or_skip!();
    let Pair { subject, lab: _lab, .. } = topology::pair(1).unwrap();
    let (program, id) = subject.run(|| {
        let program = xdp::load();
        let index = nix::net::if_::if_nametoindex(INTERFACE).unwrap();
        xdp::attach_by_netlink(&program, index, xdp::Mode::Native);
        (program, id_of_program())
    });
    let arguments = ["--iface", INTERFACE];
    let report = run(&subject, xfwd(), &arguments, BOUNCE);
    assert_eq!(
        report.stderr,
        format!(
            "error: `eth0` already has an XDP program: test_pass (id {id}, native mode). Remove it with\n\
             \n    ip link set dev eth0 xdp off\n\n"
        )
    );
    assert_eq!(report.status.code(), Some(FAILED));
    assert_eq!(subject.run(id_of_program), id);
    // What it proposes is right.
    subject.ip(["link", "set", "dev", INTERFACE, "xdp", "off"]).unwrap();
    assert_runs_and_says(&subject, &arguments, BOUNCE, "\nleaves the kernel: ");

    let link = subject.run(|| {
        let index = nix::net::if_::if_nametoindex(INTERFACE).unwrap();
        xdp::attach_by_link(&program, index, xdp::Mode::Native)
    });
    let report = run(&subject, xfwd(), &arguments, BOUNCE);
    assert_eq!(
        report.stderr,
        format!(
            "error: `eth0` already has an XDP program: test_pass (id {id}, native mode). A bpf_link holds it: it goes when \
             the process that owns the link ends, or the pin of the link is removed; `bpftool link show` names the \
             process.\n"
        )
    );
    assert_eq!(report.status.code(), Some(FAILED));
    assert_eq!(subject.run(id_of_program), id);
    drop(link);
    // Another test may be between fork and exec, with a copy of the descriptor.
    wait_until(|| subject.run(|| xfwd::kernel::link::Link::find(INTERFACE).unwrap().xdp.is_none()));
    assert_runs_and_says(&subject, &arguments, BOUNCE, "\nleaves the kernel: ");
}

fn wait_until(condition: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline);
        thread::sleep(Duration::from_millis(20));
    }
}

/// Id of the XDP program on `eth0` of the thread's namespace.
fn id_of_program() -> u32 {
    xfwd::kernel::link::Link::find(INTERFACE).unwrap().xdp.unwrap().id
}

#[test]
fn a_second_xfwd_on_the_same_interface_is_refused_and_the_first_runs_on() {
    lab_or_skip!();
    let Pair { subject, lab: _lab, .. } = topology::pair(2).unwrap();
    let first = running::Xfwd::start(&subject, &["--iface", INTERFACE], BOUNCE);
    let second = run(&subject, xfwd(), &["--iface", INTERFACE], BOUNCE);
    assert!(
        second.stderr.starts_with("error: `eth0` already has an XDP program: xfwd_steer (id "),
        "{}",
        second.stderr
    );
    assert_eq!(second.status.code(), Some(FAILED));
    first.stop();
    assert_clean(&subject, INTERFACE);
}

/// A bound AF_XDP socket that nothing is received by.
struct BareSocket {
    _tx: TxQueue,
    _rx: RxQueue,
    _rings: Option<(FillQueue, CompQueue)>,
    _umem: Umem,
}

fn bind(namespace: &Namespace, queue: u32) -> BareSocket {
    namespace.run(|| {
        let (umem, _frames) = Umem::new(UmemConfig::default(), 64.try_into().unwrap(), false).unwrap();
        let config = SocketConfig::builder()
            .libxdp_flags(LibxdpFlags::XSK_LIBXDP_FLAGS_INHIBIT_PROG_LOAD)
            .bind_flags(BindFlags::XDP_COPY)
            .build();
        // SAFETY: the only socket of this UMEM, interface and queue.
        let socket = unsafe { Socket::new(config, &umem, &INTERFACE.parse().unwrap(), queue) };
        let (tx, rx, rings) = socket.unwrap();
        // libxdp leaves it open for programs that other tests start.
        // SAFETY: sets a flag of an open descriptor.
        assert_eq!(unsafe { libc::fcntl(rx.fd().as_raw_fd(), libc::F_SETFD, libc::FD_CLOEXEC) }, 0);
        BareSocket { _tx: tx, _rx: rx, _rings: rings, _umem: umem }
    })
}

#[test]
fn a_queue_that_another_socket_has_is_named() {
    lab_or_skip!();
    let Pair { subject, lab: _lab, .. } = topology::pair(2).unwrap();
    let socket = bind(&subject, 1);
    let begun = Instant::now();
    assert_refused(
        &subject,
        &["--iface", INTERFACE, "--queues", "2"],
        BOUNCE,
        FAILED,
        "error: interface eth0 queue 1 is in use by another AF_XDP socket; `ss --xdp -p -e` names the process that has it",
    );
    assert!(begun.elapsed() >= Duration::from_millis(1_500), "a queue just closed may be busy for a moment");
    // The queue beside it is free.
    assert_runs_and_says(&subject, &["--iface", INTERFACE, "--queues", "1"], BOUNCE, "\nleaves the kernel: ");
    drop(socket);
}

#[test]
fn a_queue_that_is_given_up_within_the_patience_is_had() {
    lab_or_skip!();
    let Pair { subject, lab: _lab, .. } = topology::pair(1).unwrap();
    let socket = bind(&subject, 0);
    let other = thread::spawn(move || {
        thread::sleep(Duration::from_millis(400));
        drop(socket);
    });
    assert_runs_and_says(&subject, &["--iface", INTERFACE], BOUNCE, "\nleaves the kernel: ");
    other.join().unwrap();
}

// ---------------------------------------------------------------------------------------------------------------------
// What the driver can do.

#[test]
fn a_driver_without_native_xdp_is_answered_with_generic_mode_which_works() {
    lab_or_skip!();
    let Pair { subject, lab: _lab, .. } = topology::pair(1).unwrap();
    subject.ip(["link", "add", "name", "br0", "type", "bridge"]).unwrap();
    subject.up("br0").unwrap();
    let report = run(&subject, xfwd(), &["--iface", "br0"], BOUNCE);
    assert_eq!(
        report.stderr,
        "error: the driver of br0 does not run XDP programs, or not with its MTU of 1500 or its present offloads (switch \
         LRO off: `ethtool -K br0 lro off`); mode = \"generic\" works with every driver, slower\n  \
         caused by: Operation not supported (os error 95)\n"
    );
    assert_eq!((report.status.code(), report.stdout.as_str()), (Some(FAILED), ""));
    assert_clean(&subject, "br0");

    let generic = BOUNCE.replace("[dataplane]", "[dataplane]\nmode = \"generic\"");
    let says = "br0 (bridge, mtu 1500): queue 0 generic on core";
    assert_runs_and_says(&subject, &["--iface", "br0"], &generic, says);
    let says =
        "warning: interface br0: generic mode, as asked: each packet becomes an skb first, so this is slow\n";
    assert_runs_and_says(&subject, &["--iface", "br0"], &generic, says);
    assert_clean(&subject, "br0");
}

/// After zero-copy was refused the UMEM is made anew, so copy mode works: the same run would fail on the old one.
#[test]
fn zero_copy_that_the_driver_lacks_is_an_error_only_when_it_was_asked_for() {
    lab_or_skip!();
    let Pair { subject, lab: _lab, .. } = topology::pair(2).unwrap();
    let arguments = ["--iface", INTERFACE, "--queues", "2"];
    assert_refused(
        &subject,
        &arguments,
        &BOUNCE.replace("[dataplane]", "[dataplane]\nmode = \"zero-copy\""),
        FAILED,
        "error: interface eth0 queue 0: the driver refuses zero-copy (Operation not supported (os error 95)); `mode = \
         \"auto\"` or `mode = \"copy\"` would do, with one copy a packet",
    );
    let says = "warning: no zero-copy (eth0 queue 0: Operation not supported (os error 95)): copy mode\n";
    assert_runs_and_says(&subject, &arguments, BOUNCE, says);
    let copy = BOUNCE.replace("[dataplane]", "[dataplane]\nmode = \"copy\"");
    let report = run(&subject, xfwd(), &[&arguments[..], &["--duration", "0"]].concat(), &copy);
    assert!(report.status.success() && !report.stderr.contains("zero-copy"), "{}", report.stderr);
}

/// No driver that can be made without hardware refuses an MTU for which the program takes several buffers: veth and tun
/// take any. What a driver's refusal is turned into is tested in `kernel::xdp::attachment`, and what a kernel without
/// multi-buffer sockets (before Linux 6.6) is told in `runtime::error`.
#[test]
fn a_large_mtu_is_had_with_several_buffers_a_packet() {
    lab_or_skip!();
    let options = VethOptions { mtu: 9_000, ..VethOptions::default() };
    let Pair { subject, lab: _lab, .. } = topology::pair_with(&options).unwrap();
    let report = run(&subject, xfwd(), &["--iface", INTERFACE, "--duration", "0", "--json"], BOUNCE);
    assert!(report.status.success(), "{}", report.stderr);
    let summary: serde_json::Value = serde_json::from_str(&report.stdout).unwrap();
    assert_eq!(summary["queues"][0]["multi_buffer"], true, "{summary}");
}

#[test]
fn too_few_receive_queues_on_the_second_interface_leave_the_first_one_clean() {
    lab_or_skip!();
    let Pair { subject, lab, .. } = topology::pair(1).unwrap();
    let peer = lab.namespace("peer").unwrap();
    let options = VethOptions { queues: 4, ..VethOptions::default() };
    lab.veth(&subject, "eth1", &peer, INTERFACE, &options).unwrap();
    let mut ethtool = Command::new("ethtool");
    assert!(subject.output(ethtool.args(["-L", "eth1", "rx", "1"])).unwrap().status.success());
    // Both are bound, the workers run and the first one is attached when the second one is refused.
    assert_refused(
        &subject,
        &["--iface", INTERFACE, "--iface", "eth1"],
        BOUNCE,
        FAILED,
        "error: eth1 has fewer receive queues than its peer has transmit queues; a veth takes an XDP program only with at \
         least as many (`ethtool -L eth1 rx N`)\n  caused by: No space left on device (os error 28)",
    );
    assert_clean(&subject, "eth1");
    assert_runs_and_says(&subject, &["--iface", INTERFACE], BOUNCE, "\nleaves the kernel: ");
}

// ---------------------------------------------------------------------------------------------------------------------
// Backends.

fn service(backend: &str) -> String {
    format!(
        "[[service]]\nname = \"web\"\nvip = \"198.18.10.1\"\nprotocol = \"tcp\"\nport = 80\nforward = \"dsr\"\n\
         [[service.backend]]\naddress = \"{backend}\"\n"
    )
}

#[test]
fn a_backend_that_direct_return_cannot_reach_is_named_with_its_service() {
    lab_or_skip!();
    let Pair { subject, lab, .. } = topology::pair(1).unwrap();
    let arguments = ["--iface", INTERFACE];
    assert_refused(
        &subject,
        &arguments,
        &service("192.0.2.9"),
        FAILED,
        "error: service web: backend 192.0.2.9 cannot be reached: the host has no route to 192.0.2.9 (Network is \
         unreachable (os error 101)); `ip route get 192.0.2.9` shows what the kernel finds",
    );

    subject.route("192.0.2.0/24 via 198.18.0.1").unwrap();
    let dsr_needs = "`forward = \"dsr\"` rewrites MAC addresses only, so give the interface an address in the backend's \
                     subnet, or name the other interface too (`--iface`)";
    assert_refused(
        &subject,
        &arguments,
        &service("192.0.2.9"),
        FAILED,
        &format!(
            "error: service web: backend 192.0.2.9 is not on the link of eth0: the kernel reaches it via 198.18.0.1 on \
             eth0; {dsr_needs}"
        ),
    );

    let other = lab.namespace("other").unwrap();
    lab.veth(&subject, "eth1", &other, INTERFACE, &VethOptions::default()).unwrap();
    subject.address("eth1", "203.0.113.1/24").unwrap();
    assert_refused(
        &subject,
        &arguments,
        &service("203.0.113.9"),
        FAILED,
        &format!(
            "error: service web: backend 203.0.113.9 is not on the link of eth0: the kernel reaches it by eth1; \
             {dsr_needs}"
        ),
    );
    // What it proposes is right.
    let both = ["--iface", INTERFACE, "--iface", "eth1"];
    let says = "warning: backend 203.0.113.9 does not answer ARP or neighbour discovery yet: packets for it are dropped until \
                it does\n";
    assert_runs_and_says(&subject, &both, &service("203.0.113.9"), says);

    assert_refused(
        &subject,
        &arguments,
        &service("198.18.0.2"),
        FAILED,
        "error: service web: backend 198.18.0.2 is an address of this host; a balancer cannot be a backend of its own, since \
         what it sends does not come back to its network stack",
    );
}

// ---------------------------------------------------------------------------------------------------------------------
// Where it writes to.

#[test]
fn a_summary_that_cannot_be_written_is_an_error() {
    lab_or_skip!();
    let Pair { subject, lab: _lab, .. } = topology::pair(1).unwrap();
    let mut command = Command::new("sh");
    command.args(["-c", "exec \"$0\" \"$@\" > /dev/full", env!("CARGO_BIN_EXE_xfwd")]);
    let report = run(&subject, command, &["--iface", INTERFACE, "--duration", "0", "--json"], BOUNCE);
    assert!(
        report
            .stderr
            .ends_with("error: cannot write to standard output: No space left on device (os error 28)\n"),
        "{}",
        report.stderr
    );
    assert_eq!(report.status.code(), Some(FAILED));
}
