//! A run in progress.

use std::collections::HashSet;
use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use xfwd_ebpf_types::CauseClass;

use super::balance::Balancer;
use super::balance_snapshot::BalanceSnapshot;
use super::events::EventReceiver;
use super::plan::Besides;
use super::reload::ReloadError;
use super::snapshot::{InterfaceSnapshot, QueueSnapshot, Snapshot, Totals, WorkerRow};
use super::{RunError, plan as plans};
use crate::config::{Plan, StageKind, Steer};
use crate::kernel::addresses::{AddressWatcher, host_addresses};
use crate::kernel::deny::{DenyList, DenyThread};
use crate::kernel::link::{Link, LinkWatcher};
use crate::kernel::promiscuous::Promiscuous;
use crate::kernel::xdp::XdpProgram;
use crate::packet::MacAddress;
use crate::port::PortError;
use crate::port::xsk::{QueueReport, options};
use crate::stages::balance::BalanceControl;
use crate::stages::filter::{FilterControl, RuleCounters};
use crate::worker::{Counters, WorkerCounters, WorkerEnd, WorkerThread};

/// Something that happened while running.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// A worker has ended by itself: the run is over, [`Running::stop`] says why.
    WorkerEnded(usize),
    /// An interface was removed: the run is over.
    InterfaceRemoved(String),
    /// An interface lost or got its line.
    Carrier {
        /// Name of the interface.
        interface: String,
        /// Whether there is a line now.
        up: bool,
    },
    /// A backend's MAC address changed.
    Neighbour {
        /// The backend.
        address: IpAddr,
        /// Its MAC address now.
        mac: Option<MacAddress>,
    },
    /// The health checks of a backend have come to another result.
    Health {
        /// Name of the service.
        service: String,
        /// The backend.
        address: IpAddr,
        /// Whether it gets new flows now.
        healthy: bool,
        /// What the last check said.
        reason: String,
    },
}

impl Event {
    /// Whether the run cannot go on.
    pub fn is_end(&self) -> bool {
        matches!(self, Self::WorkerEnded(_) | Self::InterfaceRemoved(_))
    }
}

/// A run. Dropping it stops it.
pub struct Running {
    pub(super) started: Instant,
    pub(super) warnings: Vec<String>,
    pub(super) huge_pages: bool,
    /// What runs; replaced by a reload.
    pub(super) plan: Arc<Mutex<Plan>>,
    pub(super) stages: Vec<StageKind>,
    pub(super) links: Vec<Link>,
    pub(super) sockets: Vec<Socket>,
    pub(super) workers: Vec<WorkerSlot>,
    pub(super) programs: Arc<Mutex<Vec<XdpProgram>>>,
    /// Of each link: what leaves the kernel there besides services.
    pub(super) besides: Vec<Besides>,
    /// The links that are promiscuous.
    pub(super) promiscuous: Vec<Promiscuous>,
    pub(super) filter: Option<FilterControl>,
    pub(super) deny: DenyThread,
    pub(super) balancer: Option<Balancer>,
    /// What the balancer's stages count: to be read when it has ended, too.
    pub(super) balance: Option<Arc<BalanceControl>>,
    /// Those of the stages' own.
    pub(super) counters: Counters,
    pub(super) addresses: Option<AddressWatcher>,
    pub(super) link_watcher: Option<LinkWatcher>,
    /// Names of interfaces that are gone.
    pub(super) removed: Arc<Mutex<Vec<String>>>,
    pub(super) events: EventReceiver,
}

/// A second handle of a socket that a worker owns.
pub(super) struct Socket {
    pub report: QueueReport,
    pub worker: usize,
    pub fd: OwnedFd,
}

pub(super) struct WorkerSlot {
    pub thread: Option<WorkerThread>,
    pub core: Option<usize>,
    pub counters: Arc<WorkerCounters>,
}

impl Running {
    /// What the user should know about how it started.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// The interfaces, as they were at the start.
    pub fn links(&self) -> &[Link] {
        &self.links
    }

    /// The stages, in order.
    pub fn stages(&self) -> &[StageKind] {
        &self.stages
    }

    /// Waits for the next event, at most for `timeout`. Of many that nobody waited for only the older ones are kept; an
    /// [end](Event::is_end) always is, and is told first.
    pub fn wait(&self, timeout: Duration) -> Option<Event> {
        self.events.wait(timeout)
    }

    /// The next event, for async code: what [`wait`](Self::wait) is for threads. It needs no runtime of a certain kind, and one that is
    /// dropped before it is ready has taken no event, so it can stand in a `select!`.
    ///
    /// Everything else of a run that takes time, [`start`](super::Runner::start), [`reload`](Self::reload) and [`stop`](Self::stop), blocks: tokio
    /// has `spawn_blocking` for that. The example `embed_in_tokio` shows all of it.
    ///
    /// ```no_run
    /// # async fn run(running: xfwd::Running) {
    /// loop {
    ///     let event = running.next_event().await;
    ///     println!("{event:?}");
    ///     if event.is_end() {
    ///         break;
    ///     }
    /// }
    /// # }
    /// ```
    pub async fn next_event(&self) -> Event {
        self.events.next().await
    }

    pub(super) fn programs(&self) -> MutexGuard<'_, Vec<XdpProgram>> {
        self.programs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All counters now.
    pub fn snapshot(&self) -> Snapshot {
        let queues: Vec<QueueSnapshot> = self
            .sockets
            .iter()
            .map(|socket| QueueSnapshot {
                report: socket.report.clone(),
                worker: socket.worker,
                shed: self.shed(&socket.report),
                // A socket whose interface is gone has nothing to tell any more.
                statistics: options::statistics(socket.fd.as_fd()).unwrap_or_default(),
            })
            .collect();
        let workers: Vec<WorkerRow> = self
            .workers
            .iter()
            .enumerate()
            .map(|(worker, slot)| WorkerRow { worker, core: slot.core, counters: slot.counters.snapshot() })
            .collect();
        Snapshot {
            seconds: self.started.elapsed().as_secs_f64(),
            huge_pages: self.huge_pages,
            totals: Totals::of(&workers, &queues),
            interfaces: self.interfaces(),
            queues,
            workers,
            rules: self.rules(),
            deny: self.deny.list().counts(),
            backends: self.balance.as_ref().map(|control| control.counters()).unwrap_or_default(),
            balance: self.balance.as_deref().map(BalanceSnapshot::of),
            counters: self.counters.sums(),
        }
    }

    /// Goes on by another plan. What is wrong with it is found before anything changes. Only services and backends may
    /// differ from the plan that runs; packets are not interrupted, and flows stay with their backends. Returns warnings.
    ///
    /// # Errors
    ///
    /// [`ReloadError`]; the plan that ran goes on.
    pub fn reload(&self, plan: &Plan) -> Result<Vec<String>, ReloadError> {
        let mut current = self.plan.lock().unwrap_or_else(PoisonError::into_inner);
        ReloadError::check(&current, plan)?;
        let Some(balancer) = &self.balancer else { return Ok(Vec::new()) };
        let warnings = balancer.reload(plan)?;
        *current = plan.clone();
        let needs_hosts = self.besides.iter().any(|besides| besides.steer == Steer::All);
        let hosts = if needs_hosts { host_addresses()? } else { Vec::new() };
        for (program, besides) in self.programs().iter_mut().zip(&self.besides) {
            program.set_steering(&plans::steering(plan, *besides, &hosts))?;
        }
        Ok(warnings)
    }

    /// The dynamic deny list.
    pub fn deny_list(&self) -> &DenyList {
        self.deny.list()
    }

    /// What each rule did, in the XDP programs and in the workers.
    fn rules(&self) -> Vec<RuleCounters> {
        let mut rules = self.filter.as_ref().map(FilterControl::counters).unwrap_or_default();
        for program in self.programs().iter() {
            for (rule, count) in rules.iter_mut().zip(program.rule_counts().unwrap_or_default()) {
                rule.packets += count.packets;
                rule.bytes += count.bytes;
            }
        }
        rules
    }

    /// Packets for a socket that the XDP program dropped, since the socket's ring was full.
    fn shed(&self, queue: &QueueReport) -> u64 {
        let programs = self.programs();
        let program = self.links.iter().position(|link| link.name == queue.interface);
        program.and_then(|index| programs[index].shed(queue.queue).ok()).unwrap_or_default()
    }

    fn interfaces(&self) -> Vec<InterfaceSnapshot> {
        let programs = self.programs();
        self.links
            .iter()
            .zip(programs.iter())
            .map(|(link, program)| {
                let counters = program.counters().unwrap_or_default();
                let causes = counters.iter().filter(|(_, _, packets)| *packets > 0);
                InterfaceSnapshot {
                    name: link.name.clone(),
                    driver: link.driver.clone(),
                    steered: counters.total(CauseClass::Steered),
                    passed: counters.total(CauseClass::Passed),
                    dropped: counters.total(CauseClass::Dropped),
                    lost: counters.total(CauseClass::Lost),
                    malformed: counters.total(CauseClass::Malformed),
                    causes: causes.map(|(_, name, packets)| (name, packets)).collect(),
                }
            })
            .collect()
    }

    /// Takes the program off the interfaces, lets the workers send what they have, and returns the last counters, with
    /// every reason why the run had ended by itself.
    pub fn stop(mut self) -> (Snapshot, Vec<RunError>) {
        let errors = self.take_down();
        (self.snapshot(), errors)
    }

    fn take_down(&mut self) -> Vec<RunError> {
        for program in self.programs().iter_mut() {
            program.detach();
        }
        self.promiscuous.clear();
        // Before the workers, who take in what these have to tell.
        self.deny.stop();
        self.balancer = None;
        self.addresses = None;
        self.link_watcher = None;
        for slot in &self.workers {
            slot.thread.iter().for_each(WorkerThread::stop);
        }
        let ends: Vec<WorkerEnd> = self
            .workers
            .iter_mut()
            .filter_map(|slot| slot.thread.take())
            .filter_map(|thread| thread.join().err())
            .collect();
        let mut removed = self.removed.lock().unwrap_or_else(PoisonError::into_inner);
        reasons(&mut removed, ends)
    }
}

/// Why the run ended by itself. The removal of an interface is told once, whoever saw it: the watcher of the links, the
/// workers, or all of them.
fn reasons(removed: &mut Vec<String>, ends: Vec<WorkerEnd>) -> Vec<RunError> {
    let mut others = Vec::new();
    for end in ends {
        match end {
            WorkerEnd::Port { source: PortError::Unbound { interface, .. }, .. } => removed.push(interface),
            end => others.push(RunError::Worker(end)),
        }
    }
    let mut seen = HashSet::new();
    let removed = removed.drain(..).filter(|name| seen.insert(name.clone())).map(RunError::InterfaceRemoved);
    removed.collect::<Vec<_>>().into_iter().chain(others).collect()
}

impl Drop for Running {
    fn drop(&mut self) {
        for error in self.take_down() {
            tracing::error!("{error}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_removed_interface_is_told_once() {
        let unbound = |worker, interface: &str| WorkerEnd::Port {
            worker,
            source: PortError::Unbound { interface: interface.to_owned(), queue: 0 },
        };
        let panicked = WorkerEnd::Panicked { worker: 2, message: "oh".to_owned() };
        let ends = vec![unbound(0, "va"), unbound(1, "va"), panicked, unbound(3, "vb")];
        let texts: Vec<_> =
            reasons(&mut vec!["va".to_owned()], ends).iter().map(ToString::to_string).collect();
        assert_eq!(
            texts,
            [
                "interface va was removed, or moved to another network namespace",
                "interface vb was removed, or moved to another network namespace",
                "worker 2 panicked: oh",
            ]
        );
    }
}
