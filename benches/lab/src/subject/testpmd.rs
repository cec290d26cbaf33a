//! DPDK's `dpdk-testpmd` over its AF_XDP driver, in copy mode as everything on a veth.

use anyhow::Result;
use nix::sys::signal::Signal;
use xfwd_netns::Child;

use super::{Outcome, Own, PATIENCE, Running, Subject, command};
use crate::bench::Bench;
use crate::site::Site;

/// What it says when packets are handled.
pub const READY: &str = "start packet forwarding";

/// Bytes of a buffer for long frames: as large as fits a page with the heads that DPDK puts in front.
const LONG_MBUF: &str = "3840";

/// What it does with packets: its forwarding modes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Testpmd {
    /// Swaps MAC addresses; with one port packets go back where they came from, with two out of the other.
    Macswap,
    /// Receives and drops.
    RxOnly,
    /// Sends on as it is.
    Io,
}

impl Testpmd {
    fn mode(self) -> &'static str {
        match self {
            Self::Macswap => "macswap",
            Self::RxOnly => "rxonly",
            Self::Io => "io",
        }
    }

    /// Starts it; it may not be ready when this returns.
    pub fn spawn(self, bench: &Bench, site: &Site) -> Outcome<Child> {
        let mut command = command("dpdk-testpmd", "dpdk-dev")?;
        site.refuse_jumbo()?;
        let queues = site.shape.queues as usize;
        let workers = queues.min(bench.cores.subject.len());
        // Its main thread sleeps, but for a line of statistics a second.
        let mut cores = vec![format!("0@{}", bench.cores.generator)];
        cores.extend((0..workers).map(|index| format!("{}@{}", index + 1, bench.cores.of_worker(index))));
        command.args(["--lcores", &cores.join(","), "--no-pci", "--no-huge", "-m", "1024", "--no-shconf"]);
        // veth tells of one combined channel, so the driver takes one queue a port: each queue is a port of its own.
        let interfaces = site.interfaces();
        let sockets =
            (0..queues).flat_map(|queue| interfaces.iter().map(move |interface| (interface, queue)));
        for (port, (interface, queue)) in sockets.enumerate() {
            let device =
                format!("net_af_xdp{port},iface={interface},start_queue={queue},queue_count=1,force_copy=1");
            command.args(["--vdev", &device]);
        }
        // Packets leave by the port they came in by, or by the other interface's.
        let topology = if interfaces.len() == 1 { "loop" } else { "paired" };
        command.args(["--", "--auto-start", "--total-num-mbufs=16384", "--stats-period", "1"]);
        command.args(["--forward-mode", self.mode(), "--port-topology", topology]);
        command.args(["--nb-cores", &workers.to_string(), "--rxq", "1", "--txq", "1"]);
        if site.shape.mtu > 1_500 {
            command.args(["--mbuf-size", LONG_MBUF, "--max-pkt-len", &(site.shape.mtu + 18).to_string()]);
        }
        Ok(site.subject.spawn(&mut command)?)
    }
}

impl Subject for Testpmd {
    fn name(&self) -> String {
        format!("testpmd {}", self.mode())
    }

    fn start(&self, bench: &Bench, site: &Site) -> Outcome<Box<dyn Running>> {
        let child = self.spawn(bench, site)?;
        child.wait_for(READY, PATIENCE)?;
        Ok(Box::new(Process { child }))
    }
}

struct Process {
    child: Child,
}

impl Running for Process {
    fn pid(&self) -> Option<u32> {
        Some(self.child.pid())
    }

    fn stop(mut self: Box<Self>) -> Result<Own> {
        self.child.signal(Signal::SIGINT)?;
        let ended = self.child.wait(PATIENCE)?;
        let (_, forwarded) = ended.stdout.rsplit_once("Accumulated forward statistics").unwrap_or_default();
        let number = |name: &str| forwarded.split_once(name)?.1.split_whitespace().next()?.parse().ok();
        Ok(Own { received: number("RX-packets:"), sent: number("TX-packets:") })
    }
}
