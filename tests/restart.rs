//! Starting and stopping again and again in one process leaves nothing behind. Alone in its program: it counts what the
//! whole process has open.
#![allow(missing_docs, clippy::unwrap_used)]

use std::{
    fs,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use xfwd::{
    config::Plan,
    kernel::link::Link,
    runtime::{Runner, StartError},
};
use xfwd_netns::{
    VethOptions, lab_or_skip,
    topology::{self, INTERFACE, Pair},
};

/// 32 MiB of packet memory a queue and run: a few of them left behind cannot be overlooked.
const BOUNCE: &str = "[dataplane]\nsteer = \"all\"\nhuge_pages = false\n[bounce]\n";
const RUNS: usize = 20;
const FAILED_STARTS: usize = 5;

/// What a process can leave behind.
#[derive(Debug, PartialEq, Eq)]
struct Held {
    descriptors: usize,
    threads: usize,
    /// Memory maps of AF_XDP sockets: their rings.
    rings: usize,
}

impl Held {
    fn now() -> Self {
        let count = |path| fs::read_dir(path).unwrap().count();
        let maps = fs::read_to_string("/proc/self/maps").unwrap();
        Self {
            descriptors: count("/proc/self/fd"),
            threads: count("/proc/self/task"),
            rings: maps.lines().filter(|line| line.contains("socket:")).count(),
        }
    }
}

/// Virtual memory in MiB.
fn memory() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmSize:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() / 1024
}

fn runner(plan: &Plan) -> Runner {
    Runner::with_plan(plan.clone()).interface(INTERFACE)
}

/// One run; the id of its XDP program.
fn run(plan: &Plan) -> u32 {
    let running = runner(plan).start().unwrap();
    let xdp = Link::find(INTERFACE).unwrap().xdp.unwrap();
    let (_, errors) = running.stop();
    assert!(errors.is_empty(), "{errors:?}");
    assert!(Link::find(INTERFACE).unwrap().xdp.is_none());
    xdp.id
}

/// A start that fails when everything is up but the attachment to the second interface.
fn fail(plan: &Plan) {
    let error = runner(plan).interface("eth1").start().err().unwrap();
    assert!(matches!(error, StartError::Xdp(_)), "{error}");
    assert!(Link::find(INTERFACE).unwrap().xdp.is_none());
}

#[test]
fn twenty_runs_and_five_failed_starts_leave_nothing_behind() {
    lab_or_skip!();
    let Pair { subject, lab, .. } = topology::pair(1).unwrap();
    let peer = lab.namespace("peer").unwrap();
    let options = VethOptions { queues: 2, ..VethOptions::default() };
    lab.veth(&subject, "eth1", &peer, INTERFACE, &options).unwrap();
    // A veth with fewer receive queues than its peer has transmit queues takes no XDP program.
    let mut ethtool = Command::new("ethtool");
    assert!(subject.output(ethtool.args(["-L", "eth1", "rx", "1"])).unwrap().status.success());
    let plan = xfwd::config::parse("bounce", BOUNCE).unwrap();

    subject.run(|| {
        // What is made once and kept, such as arenas of the allocator, is there after the first runs.
        let mut programs = vec![run(&plan), run(&plan)];
        fail(&plan);
        let (held, memory_before) = (Held::now(), memory());
        for _ in 0..RUNS {
            programs.push(run(&plan));
        }
        (0..FAILED_STARTS).for_each(|_| fail(&plan));
        assert_eq!(Held::now(), held);
        let grown = memory().saturating_sub(memory_before);
        assert!(grown < 256, "{grown} MiB more than before");

        // The kernel frees them a moment later.
        let deadline = Instant::now() + Duration::from_secs(30);
        let left = || aya::programs::loaded_programs().flatten().any(|info| programs.contains(&info.id()));
        while left() {
            assert!(Instant::now() < deadline, "programs of runs that have ended are still loaded");
            thread::sleep(Duration::from_millis(50));
        }
    });
}
