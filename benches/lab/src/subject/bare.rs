//! The bare xsk-rs loops: `examples/bare_xsk_bounce.rs`, and one that only receives. They are this very program, started again.

#[path = "../../../../examples/bare_xsk_bounce.rs"]
#[allow(dead_code, reason = "only what it exports is run")]
mod bounce;

use std::process::Command;

use anyhow::{Result, anyhow};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;
use xfwd_netns::Child;
use xfwd_netns::topology::INTERFACE;

use super::{Failure, Outcome, Own, PATIENCE, Running, Subject, bare_receive};
use crate::bench::Bench;
use crate::site::Site;

/// Which loop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Bare {
    /// Swaps MAC addresses and sends back.
    Bounce,
    /// Receives and gives the frame back, unseen.
    Receive,
    /// Receives, looks at the headers, and gives the frame back.
    ReceiveAndRead,
}

impl Bare {
    fn argument(self) -> &'static str {
        match self {
            Self::Bounce => "bounce",
            Self::Receive => "receive",
            Self::ReceiveAndRead => "receive-and-read",
        }
    }

    /// The loop itself, on queue 0 of `interface`, until a signal or an error ends it.
    pub fn run(self, interface: &str, core: usize) -> Result<()> {
        let mut set = CpuSet::new();
        set.set(core)?;
        sched_setaffinity(Pid::from_raw(0), &set)?;
        match self {
            Self::Bounce => bounce::bounce(interface),
            Self::Receive => bare_receive::receive(interface, false),
            Self::ReceiveAndRead => bare_receive::receive(interface, true),
        }
        .map_err(|error| anyhow!("{error}"))
    }
}

impl Subject for Bare {
    fn name(&self) -> String {
        match self {
            Self::Bounce | Self::Receive => "bare xsk-rs loop",
            Self::ReceiveAndRead => "bare xsk-rs loop, headers read",
        }
        .to_owned()
    }

    fn start(&self, bench: &Bench, site: &Site) -> Outcome<Box<dyn Running>> {
        if site.shape.queues > 1 {
            return Err(Failure::Missing("it knows one queue".to_owned()));
        }
        site.refuse_jumbo()?;
        let mut command = Command::new(std::env::current_exe()?);
        let core = bench.cores.of_worker(0).to_string();
        command.args(["bare", self.argument(), INTERFACE, &core]);
        let child = site.subject.spawn(&mut command)?;
        let ready = match self {
            Self::Bounce => "bouncing on",
            Self::Receive | Self::ReceiveAndRead => bare_receive::READY,
        };
        child.wait_for(ready, PATIENCE)?;
        Ok(Box::new(Process { child, counts: *self != Self::Bounce }))
    }
}

struct Process {
    child: Child,
    counts: bool,
}

impl Running for Process {
    fn pid(&self) -> Option<u32> {
        Some(self.child.pid())
    }

    fn stop(mut self: Box<Self>) -> Result<Own> {
        if !self.counts {
            return Ok(Own::default());
        }
        let ended = self.child.stop(PATIENCE)?;
        Ok(Own { received: bare_receive::counted(&ended.stdout), sent: None })
    }
}
