//! The other side of balancing: what is told to the workers' stages, and what they have counted.
//!
//! The control side holds what is wanted (services and backends of the config), what is known (next hops, health), and makes
//! a [`BalanceState`] of both whenever something changes. Each worker has a queue of length one for it, in which a newer state
//! replaces one that was not taken yet: no news is lost, nobody waits, and what a worker sees is always whole.

use std::collections::{HashMap, HashSet};
use std::hash::BuildHasher;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crossbeam::queue::ArrayQueue;
use foldhash::fast::FixedState;

use super::connections::Timeouts;
use super::last_hop::LastHops;
use super::members::Members;
use super::nat::{NatPool, NatWorker};
use super::service::{BackendState, BalancedBackend, BalancedService, Egress, Forward};
use super::services::Services;
use super::stage::{Balance, Nat, StageCounters};
use super::state::{BalanceState, ServiceState, ServiceTable, Way, WorkerState};
use super::tables::{self, Blueprint, Built};
use super::way::{Tunnel, TunnelKind};
use crate::packet::MacAddress;
use crate::stages::filter::Prefix;

use super::maglev::{Table, TableError};

/// States that workers are done with and that wait to be freed here, not there.
const USED_STATES: usize = 8;

/// What all services share.
#[derive(Debug)]
pub struct BalanceOptions {
    /// Number of workers.
    pub workers: usize,
    /// MAC address of each port.
    pub ports: Vec<MacAddress>,
    /// Flows in the connection table of each worker.
    pub connections: usize,
    /// How long flows are kept.
    pub timeouts: Timeouts,
    /// ICMP errors, echo replies and TCP resets that each worker may send a second.
    pub answers_per_second: u32,
    /// Where `nat` sends from, for as many workers; needed by services that do.
    pub nat: Option<NatPool>,
}

impl BalanceOptions {
    /// A connection table for a million flows a worker, the timeouts that are usual, a thousand answers a second, no NAT.
    pub fn new(workers: usize, ports: Vec<MacAddress>) -> Self {
        Self {
            workers,
            ports,
            connections: 1_000_000,
            timeouts: Timeouts::default(),
            answers_per_second: 1_000,
            nat: None,
        }
    }
}

/// Services that cannot be balanced.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("service {service}: {source}")]
pub struct ServiceError {
    /// Name of the service.
    pub service: String,
    /// Why it has no table.
    pub source: TableError,
}

/// What was sent to one backend, over all workers.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct BackendCounters {
    /// Name of the service.
    pub service: String,
    /// Address of the backend.
    pub address: IpAddr,
    /// Its weight.
    pub weight: u32,
    /// What it gets now: `up`, `drain`, `down`, `unhealthy`, `unreachable` (no next hop), or `removed` (not in the config any
    /// more, but there may be flows).
    pub state: &'static str,
    /// Packets sent to it.
    pub packets: u64,
    /// Bytes sent to it, as they were received.
    pub bytes: u64,
    /// Connections begun: TCP flows and UDP flows that were given to it.
    pub connections: u64,
}

/// Makes the workers' stages, tells them what changes, and reads what they have counted.
#[derive(Debug)]
pub struct BalanceControl {
    inner: Mutex<Inner>,
    workers: Vec<WorkerSide>,
    settings: Settings,
}

/// What of the options stays the same for all workers.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub workers: usize,
    pub connections: usize,
    pub timeouts: Timeouts,
    pub answers_per_second: u32,
    /// When all clocks show 0: workers read each other's sessions.
    pub epoch: Instant,
}

/// A worker's half of the queues.
#[derive(Clone, Debug)]
pub(super) struct Mailbox {
    /// The newest state, until the worker takes it.
    pub news: Arc<ArrayQueue<WorkerState>>,
    /// States that the worker is done with.
    pub used: Arc<ArrayQueue<WorkerState>>,
}

#[derive(Debug)]
struct WorkerSide {
    mailbox: Mailbox,
    counters: Arc<StageCounters>,
    /// Until its stage is made.
    nat: Mutex<Option<Nat>>,
}

/// What is wanted and known.
#[derive(Debug)]
struct Inner {
    lookup: Arc<Services>,
    services: Vec<Entry>,
    members: Members,
    hops: HashMap<IpAddr, Egress>,
    ports: Arc<[MacAddress]>,
}

/// A service, and what was made for it.
#[derive(Debug)]
struct Entry {
    service: BalancedService,
    /// Slots of its backends, in their order.
    slots: Arc<[u32]>,
    /// Slots of backends that were removed and may have flows.
    leaving: Vec<u32>,
    /// Backends with the weights that they have now, in their order.
    blueprint: Blueprint,
    /// Made of `blueprint`; `None` if all weights are 0.
    table: Option<Arc<Table>>,
}

impl BalanceControl {
    /// Control of the stages of all workers.
    ///
    /// # Errors
    ///
    /// [`ServiceError`] for a service that no table can be made for.
    pub fn new(options: BalanceOptions, services: Vec<BalancedService>) -> Result<Self, ServiceError> {
        let BalanceOptions { workers, ports, connections, timeouts, answers_per_second, nat } = options;
        let mut inner = Inner {
            lookup: Arc::default(),
            services: Vec::new(),
            members: Members::new(workers),
            hops: HashMap::new(),
            ports: ports.into(),
        };
        // No worker is running yet.
        inner.set_services(services, Instant::now(), None, tables::threads_beside(0))?;
        let last_hops = nat.as_ref().map(|pool| Arc::new(LastHops::new(pool.capacity())));
        let mut nats: Vec<NatWorker> = nat.map(|pool| pool.workers(timeouts)).unwrap_or_default();
        let sides = (0..workers).rev().map(|_| WorkerSide {
            mailbox: Mailbox {
                news: Arc::new(ArrayQueue::new(1)),
                used: Arc::new(ArrayQueue::new(USED_STATES)),
            },
            counters: Arc::default(),
            nat: Mutex::new(
                nats.pop().zip(last_hops.clone()).map(|(sessions, last_hops)| Nat { sessions, last_hops }),
            ),
        });
        let mut sides: Vec<WorkerSide> = sides.collect();
        sides.reverse();
        let settings = Settings { workers, connections, timeouts, answers_per_second, epoch: Instant::now() };
        Ok(Self { inner: Mutex::new(inner), workers: sides, settings })
    }

    /// Makes the stage of a worker. Allocates its tables.
    ///
    /// # Panics
    ///
    /// When there is no such worker.
    pub fn stage(&self, worker: usize) -> Balance {
        let side = &self.workers[worker];
        let state = Arc::new(Arc::new(self.inner().state()));
        let nat = side.nat.lock().unwrap_or_else(PoisonError::into_inner).take();
        Balance::new(worker, state, side.mailbox.clone(), Arc::clone(&side.counters), &self.settings, nat)
    }

    /// Tells by which way backends are reached now; `None` is not at all. What is not named stays.
    pub fn set_egress(&self, hops: impl IntoIterator<Item = (IpAddr, Option<Egress>)>) {
        let mut inner = self.inner();
        let mut changed = false;
        for (address, hop) in hops {
            changed |= match hop {
                Some(hop) => inner.hops.insert(address, hop) != Some(hop),
                None => inner.hops.remove(&address).is_some(),
            };
        }
        if changed {
            self.publish(&inner);
        }
    }

    /// Tells which backends, by service and address, are healthy now. What is not named stays; a backend of which nothing was
    /// told is healthy.
    pub fn set_health<'n>(&self, health: impl IntoIterator<Item = (&'n str, IpAddr, bool)>) {
        let mut inner = self.inner();
        let now = Instant::now();
        let mut changed = HashSet::new();
        for (service, address, healthy) in health {
            if let Some(member) = inner.members.find_mut(service, address)
                && member.healthy != healthy
            {
                member.healthy = healthy;
                member.back_since = healthy.then_some(now);
                changed.insert(service);
            }
        }
        if !changed.is_empty() {
            inner.make_tables(now, self.threads(), |service| changed.contains(&*service.name));
            self.publish(&inner);
        }
    }

    /// The addresses of all backends that may get packets, removed ones with flows among them: their next hops are to be followed.
    pub fn addresses(&self) -> HashSet<IpAddr> {
        self.inner().members.addresses()
    }

    /// Balances these services from now on. Backends that stay keep their flows, and so do those that go, until they have
    /// none; a service is the one that had its name before.
    ///
    /// # Errors
    ///
    /// [`ServiceError`]; nothing has changed then.
    pub fn set_services(&self, services: Vec<BalancedService>) -> Result<(), ServiceError> {
        let mut inner = self.inner();
        let now = Instant::now();
        inner.set_services(services, now, Some(now), self.threads())?;
        self.publish(&inner);
        Ok(())
    }

    /// What takes time: backends in slow start get more, removed ones without flows are forgotten, and what workers no longer use is
    /// freed. To be called about ten times a second.
    pub fn tick(&self, now: Instant) {
        self.free_used();
        let mut inner = self.inner();
        let forgotten = inner.forget(now, self.settings.timeouts.longest());
        // Time changes nothing else.
        let grown = inner.make_tables(now, self.threads(), |service| service.slow_start.is_some());
        if grown || forgotten {
            self.publish(&inner);
        }
    }

    /// What was sent to each backend so far.
    pub fn counters(&self) -> Vec<BackendCounters> {
        let inner = self.inner();
        let mut rows = Vec::new();
        for entry in &inner.services {
            for (slots, removed) in [(&*entry.slots, false), (&*entry.leaving, true)] {
                for slot in slots {
                    let member = &inner.members[*slot];
                    rows.push(BackendCounters {
                        service: entry.service.name.clone(),
                        address: member.backend.address,
                        weight: member.backend.weight,
                        state: member.describe(removed, inner.hops.contains_key(&member.backend.address)),
                        packets: member.sum(|counts| &counts.packets),
                        bytes: member.sum(|counts| &counts.bytes),
                        connections: member.sum(|counts| &counts.connections),
                    });
                }
            }
        }
        rows
    }

    /// Packets that were sent to one backend so far; `None` when there is no such backend.
    pub fn packets(&self, service: &str, backend: IpAddr) -> Option<u64> {
        Some(self.inner().members.find(service, backend)?.sum(|counts| &counts.packets))
    }

    /// What the stages count besides backends, one a worker.
    pub fn stage_counters(&self) -> impl Iterator<Item = &StageCounters> {
        self.workers.iter().map(|side| &*side.counters)
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Threads that build tables.
    fn threads(&self) -> usize {
        tables::threads_beside(self.settings.workers)
    }

    /// Frees the states that workers are done with.
    fn free_used(&self) {
        for side in &self.workers {
            while side.mailbox.used.pop().is_some() {}
        }
    }

    fn publish(&self, inner: &Inner) {
        // Before each new one: so a worker always finds room for the one that it gives back.
        self.free_used();
        let state = Arc::new(inner.state());
        for side in &self.workers {
            // One that was not taken is freed here.
            drop(side.mailbox.news.force_push(Arc::new(Arc::clone(&state))));
        }
    }
}

/// The table of a service, if any of its backends has a weight.
fn table_of(service: &BalancedService, built: Built) -> Result<Option<Arc<Table>>, ServiceError> {
    match built {
        Ok(table) => Ok(Some(table)),
        Err(TableError::NoWeight) => Ok(None),
        Err(source) => Err(ServiceError { service: service.name.clone(), source }),
    }
}

impl Inner {
    /// Replaces all services. Backends that are new come at `new`, which is `None` the first time: then nobody starts slowly.
    fn set_services(
        &mut self,
        services: Vec<BalancedService>,
        now: Instant,
        new: Option<Instant>,
        threads: usize,
    ) -> Result<(), ServiceError> {
        // Whatever can go wrong goes wrong here, before anything has changed.
        let blueprints: Vec<Blueprint> =
            services.iter().map(|service| self.blueprint(service, now, new)).collect();
        let built = tables::build(&blueprints, &self.known(), threads);
        let tables = services.iter().zip(built).map(|(service, built)| table_of(service, built));
        let tables = tables.collect::<Result<Vec<_>, ServiceError>>()?;

        self.lookup = Arc::new(Services::new(
            services.iter().map(|service| (service.network, service.protocol, service.ports.clone())),
        ));
        let mut before: HashMap<String, Entry> =
            self.services.drain(..).map(|entry| (entry.service.name.clone(), entry)).collect();
        for ((service, blueprint), table) in services.into_iter().zip(blueprints).zip(tables) {
            let old = before.remove(&service.name);
            let had: Vec<u32> =
                old.iter().flat_map(|entry| entry.slots.iter().chain(&entry.leaving)).copied().collect();
            let slots: Arc<[u32]> = service
                .backends
                .iter()
                .map(|backend| self.members.set(&service.name, backend, new))
                .collect();
            let here: HashSet<u32> = slots.iter().copied().collect();
            let leaving: Vec<u32> = had.into_iter().filter(|slot| !here.contains(slot)).collect();
            leaving.iter().for_each(|slot| self.members.leave(*slot));
            self.services.push(Entry { service, slots, leaving, blueprint, table });
        }
        for gone in before.into_values() {
            gone.slots.iter().chain(&gone.leaving).for_each(|slot| self.members.remove(*slot));
        }
        Ok(())
    }

    /// The tables that there are.
    fn known(&self) -> HashMap<&Blueprint, &Arc<Table>> {
        self.services.iter().filter_map(|entry| Some((&entry.blueprint, entry.table.as_ref()?))).collect()
    }

    /// What the table of a service is made of as things are. A backend that is not known yet has come at `new`.
    fn blueprint(&self, service: &BalancedService, now: Instant, new: Option<Instant>) -> Blueprint {
        let percent = |backend: &BalancedBackend| {
            if backend.state != BackendState::Up {
                return 0;
            }
            let (healthy, back_since) = match self.members.find(&service.name, backend.address) {
                Some(member) if member.gets_flows() => (member.healthy, member.back_since),
                Some(member) => (member.healthy, new),
                None => (true, new),
            };
            if healthy { slow_start(service.slow_start, back_since, now) } else { 0 }
        };
        let percents: Vec<u32> = service.backends.iter().map(percent).collect();
        // Whole weights, unless some backend has a part of its own: a table is the same for the weights times a hundred.
        let whole = percents.iter().all(|percent| matches!(percent, 0 | 100));
        let factor = |percent: u32| if whole { percent / 100 } else { percent };
        let backends = service.backends.iter().zip(percents);
        let backends =
            backends.map(|(backend, percent)| (backend.address, backend.weight * factor(percent))).collect();
        Blueprint { backends, size: service.table_size }
    }

    /// Makes the tables anew, of these services, whose weights have changed. Whether there were any.
    fn make_tables(&mut self, now: Instant, threads: usize, of: impl Fn(&BalancedService) -> bool) -> bool {
        let entries = self.services.iter().enumerate().filter(|(_, entry)| of(&entry.service));
        let now_and_before = entries
            .map(|(index, entry)| (index, self.blueprint(&entry.service, now, None), &entry.blueprint));
        let (changed, blueprints): (Vec<usize>, Vec<Blueprint>) = now_and_before
            .filter(|(_, blueprint, before)| blueprint != *before)
            .map(|(index, blueprint, _)| (index, blueprint))
            .unzip();
        if changed.is_empty() {
            return false;
        }
        let built = tables::build(&blueprints, &self.known(), threads);
        for ((index, blueprint), built) in changed.into_iter().zip(blueprints).zip(built) {
            let entry = &mut self.services[index];
            match table_of(&entry.service, built) {
                Ok(table) => (entry.table, entry.blueprint) = (table, blueprint),
                // Size and backends are those that there was a table for.
                Err(error) => tracing::error!("{error}"),
            }
        }
        true
    }

    /// Gives up removed backends that got no packet for `quiet`. Whether there were any.
    fn forget(&mut self, now: Instant, quiet: Duration) -> bool {
        let members = &mut self.members;
        let mut changed = false;
        for entry in &mut self.services {
            entry.leaving.retain(|slot| {
                let is_quiet = members.is_quiet(*slot, now, quiet);
                if is_quiet {
                    members.remove(*slot);
                    changed = true;
                }
                !is_quiet
            });
        }
        changed
    }

    fn state(&self) -> BalanceState {
        let mut members = self.members.states();
        for entry in &self.services {
            for slot in entry.slots.iter().chain(&entry.leaving) {
                let member = &self.members[*slot];
                let hop = self.hops.get(&member.backend.address).copied();
                let state = &mut members[*slot as usize];
                state.keeps_flows = member.healthy && member.backend.state != BackendState::Down;
                state.hop = hop;
                state.way = way(&entry.service, &member.backend, hop);
            }
        }
        let services = self.services.iter().map(Entry::state).collect();
        BalanceState { lookup: Arc::clone(&self.lookup), services, members, ports: Arc::clone(&self.ports) }
    }
}

impl Entry {
    fn state(&self) -> ServiceState {
        ServiceState {
            table: self.table.clone().map(|table| ServiceTable { table, slots: Arc::clone(&self.slots) }),
            salt: FixedState::default().hash_one(&self.service.name),
            is_nat: self.service.forward == Forward::Nat,
            affinity: self.service.affinity,
            no_backend: self.service.no_backend,
            mss: self.service.mss,
        }
    }
}

fn way(service: &BalancedService, backend: &BalancedBackend, hop: Option<Egress>) -> Way {
    let kind = match service.forward {
        Forward::Dsr if hop.is_some_and(|hop| hop.is_direct) => return Way::Dsr,
        Forward::Dsr => return Way::Unknown,
        Forward::Nat => {
            return Way::Nat { address: Prefix::new(backend.address, 128).mapped().0, port: backend.port };
        }
        Forward::Ipip => TunnelKind::Ipip,
        Forward::Gue => TunnelKind::Gue { port: service.gue_port },
    };
    match hop.and_then(|hop| hop.source) {
        Some(source) => Tunnel::new(kind, source, backend.address).map_or(Way::Unknown, Way::Tunnel),
        None => Way::Unknown,
    }
}

/// Percent of its weight that a backend gets which has come back at `since`: a tenth at once, and a tenth more after each tenth of
/// the time.
fn slow_start(time: Option<Duration>, since: Option<Instant>, now: Instant) -> u32 {
    let (Some(time), Some(since)) = (time, since) else { return 100 };
    let passed = now.saturating_duration_since(since).as_secs_f64() / time.as_secs_f64().max(1e-9);
    ((passed * 10.0) as u32 + 1).min(10) * 10
}

#[cfg(test)]
mod tests {
    use super::super::connections::Event;
    use super::super::state::MemberRef;
    use super::*;
    use crate::pipeline::Stage;

    fn services(backends: u8) -> Vec<BalancedService> {
        let service = BalancedService::new("web", [198, 18, 10, 1].into(), 6, 80, Forward::Dsr);
        let service = BalancedService { table_size: 251, ..service };
        vec![(1..=backends).fold(service, |service, last| service.with([198, 18, 0, last].into(), 1))]
    }

    fn control(workers: usize) -> BalanceControl {
        let options = BalanceOptions { connections: 8, ..BalanceOptions::new(workers, Vec::new()) };
        BalanceControl::new(options, services(2)).unwrap()
    }

    #[test]
    fn a_slow_start_takes_ten_steps() {
        let (start, time) = (Instant::now(), Some(Duration::from_secs(30)));
        let at = |millis| slow_start(time, Some(start), start + Duration::from_millis(millis));
        assert_eq!(
            [at(0), at(2_999), at(3_000), at(26_999), at(27_000), at(99_000)],
            [10, 10, 20, 90, 100, 100]
        );
        assert_eq!((slow_start(None, Some(start), start), slow_start(time, None, start)), (100, 100));
    }

    #[test]
    fn a_stage_sees_the_last_of_several_states_and_gives_back_each_that_it_had() {
        let control = control(1);
        let mut stage = control.stage(0);
        for last in 3..100 {
            control.set_services(services(last)).unwrap();
            control.set_services(services(last + 1)).unwrap();
            stage.housekeeping();
            assert_eq!(stage.state.members.len(), usize::from(last) + 1);
            assert!(control.workers[0].mailbox.used.len() <= 1, "there is always room for the next");
        }
        control.tick(Instant::now());
        assert!(control.workers[0].mailbox.used.is_empty());
    }

    #[test]
    fn a_worker_that_takes_nothing_holds_up_nobody() {
        let control = control(2);
        let (mut one, mut other) = (control.stage(0), control.stage(1));
        for last in 3..20 {
            control.set_services(services(last)).unwrap();
            one.housekeeping();
        }
        assert_eq!((one.state.members.len(), other.state.members.len()), (19, 2));
        other.housekeeping();
        assert_eq!(other.state.members.len(), 19);
    }

    #[test]
    fn services_without_a_table_change_nothing() {
        let control = control(1);
        let mut stage = control.stage(0);
        let [mut wrong] = <[BalancedService; 1]>::try_from(services(2)).unwrap();
        wrong.table_size = 250;
        let error = control.set_services(vec![wrong]).unwrap_err();
        assert_eq!(error.service, "web");
        stage.housekeeping();
        assert_eq!(control.counters().len(), 2);
        assert_eq!(stage.state.services.len(), 1);
    }

    /// The tables that a stage goes by, in the order of the services.
    fn tables(stage: &Balance) -> Vec<Arc<Table>> {
        let services = stage.state.services.iter();
        services.map(|service| Arc::clone(&service.table.as_ref().unwrap().table)).collect()
    }

    #[test]
    fn services_with_the_same_backends_share_a_table_until_one_of_them_changes() {
        let named = |names: &[&str]| -> Vec<BalancedService> {
            let [service] = <[BalancedService; 1]>::try_from(services(3)).unwrap();
            names.iter().map(|name| BalancedService { name: (*name).to_owned(), ..service.clone() }).collect()
        };
        let options = BalanceOptions { connections: 8, ..BalanceOptions::new(1, Vec::new()) };
        let control = BalanceControl::new(options, named(&["web", "dns"])).unwrap();
        let mut stage = control.stage(0);
        let before = tables(&stage);
        assert!(Arc::ptr_eq(&before[0], &before[1]));

        control.set_health([("dns", [198, 18, 0, 2].into(), false)]);
        stage.housekeeping();
        let after = tables(&stage);
        assert!(Arc::ptr_eq(&before[0], &after[0]), "of the service that did not change");
        assert!(!after[1].slots().contains(&1), "the second backend gets no flows");

        control.set_health([("dns", [198, 18, 0, 2].into(), true)]);
        let mut more = named(&["web", "dns", "mail"]);
        more[1].backends[0].weight = 2;
        control.set_services(more).unwrap();
        stage.housekeeping();
        let reloaded = tables(&stage);
        assert!(Arc::ptr_eq(&before[0], &reloaded[0]), "a reload does not build it again");
        assert!(Arc::ptr_eq(&before[0], &reloaded[2]), "a new service takes the one that there is");
        assert!(!Arc::ptr_eq(&before[0], &reloaded[1]));
    }

    #[test]
    fn nothing_is_published_when_nothing_has_changed() {
        let control = control(1);
        let address = IpAddr::from([198, 18, 0, 1]);
        control.set_health([("web", address, true), ("nobody", address, false)]);
        control.set_egress([(address, None)]);
        control.tick(Instant::now());
        assert!(control.workers[0].mailbox.news.is_empty());
    }

    #[test]
    fn a_service_that_is_gone_frees_the_slots_of_its_backends() {
        let control = control(1);
        let mut stage = control.stage(0);
        let before = stage.state.name(0);
        control.set_services(Vec::new()).unwrap();
        control.set_services(services(1)).unwrap();
        stage.housekeeping();
        assert_eq!(stage.state.keeper(before), None);
        assert_eq!(stage.state.name(0), MemberRef::new(0, before.generation() + 1));
    }

    #[test]
    fn what_has_expired_is_swept_without_packets() {
        let timeouts = Timeouts { syn: Duration::from_millis(20), ..Timeouts::default() };
        let options = BalanceOptions { connections: 8, timeouts, ..BalanceOptions::new(1, Vec::new()) };
        let control = BalanceControl::new(options, services(2)).unwrap();
        let mut stage = control.stage(0);
        stage.connections.insert(7, 0, stage.now, Event::Syn);
        let deadline = Instant::now() + Duration::from_secs(20);
        while !stage.connections.is_empty() {
            assert!(Instant::now() < deadline, "turns without packets see no time pass");
            stage.housekeeping();
        }
    }
}
