//! The library of xfwd with a stage that drops every packet unseen: what `bare_receive.rs` does, as a program on xfwd would do it. It is this
//! very program, started again.

use std::process::Command;

use anyhow::Result;
use signal_hook::consts::SIGTERM;
use signal_hook::iterator::Signals;
use xfwd::prelude::*;
use xfwd_netns::Child;
use xfwd_netns::topology::INTERFACE;

use super::{Failure, Outcome, Own, PATIENCE, Running as Started, Subject, bare_receive};
use crate::bench::Bench;
use crate::site::Site;

/// Drops what it has not looked at.
struct Unseen;

impl Stage for Unseen {
    fn name(&self) -> &str {
        "unseen"
    }
    fn reads_headers(&self) -> bool {
        false
    }
    fn reads_packets(&self) -> bool {
        false
    }
    fn process(&mut self, batch: &mut Batch<'_>) {
        batch.each_undecided(|_| Verdict::Drop(DropReason::Rule));
    }
}

/// Takes every frame of queue 0 until SIGTERM, drops it, and says how many there were.
pub fn receive(interface: &str, core: usize) -> Result<()> {
    let mut signals = Signals::new([SIGTERM])?;
    let runner = Runner::new().interface(interface).cores([core]).steer_everything();
    let running = runner.stage(|_| Unseen).start()?;
    println!("{} {interface}", bare_receive::READY);
    signals.forever().next();
    let (snapshot, errors) = running.stop();
    println!("{}{}", bare_receive::RECEIVED, snapshot.totals.packets);
    errors.into_iter().next().map_or(Ok(()), |error| Err(error.into()))
}

/// The receiver on xfwd's library.
#[derive(Clone, Copy, Debug)]
pub struct Library;

impl Subject for Library {
    fn name(&self) -> String {
        "xfwd".to_owned()
    }

    fn start(&self, bench: &Bench, site: &Site) -> Outcome<Box<dyn Started>> {
        if site.shape.queues > 1 {
            return Err(Failure::Missing("it is started on one queue".to_owned()));
        }
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["library", INTERFACE, &bench.cores.of_worker(0).to_string()]);
        let child = site.subject.spawn(&mut command)?;
        child.wait_for(bare_receive::READY, PATIENCE)?;
        Ok(Box::new(Process { child }))
    }
}

struct Process {
    child: Child,
}

impl Started for Process {
    fn pid(&self) -> Option<u32> {
        Some(self.child.pid())
    }

    fn stop(mut self: Box<Self>) -> Result<Own> {
        let ended = self.child.stop(PATIENCE)?;
        Ok(Own { received: bare_receive::counted(&ended.stdout), sent: None })
    }
}
