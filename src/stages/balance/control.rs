//! The other side of balancing: what is told to the workers' stages, and what they have counted.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use crossbeam::queue::ArrayQueue;
use crossbeam::utils::CachePadded;

use super::stage::{Balance, BalancePlan};
use crate::packet::MacAddress;
use crate::pipeline::Counter;

/// A worker empties its queue at least ten times a second, so this is how long a full one is worth waiting for.
const PATIENCE: Duration = Duration::from_secs(1);
const PAUSE: Duration = Duration::from_millis(1);
/// Room for this many changes of each backend before a worker has looked.
const CHANGES_PER_MEMBER: usize = 4;

/// The MAC address of a backend has changed.
#[derive(Clone, Copy, Debug)]
pub(super) struct NeighbourUpdate {
    /// Index of the backend, over all services.
    pub(super) member: u32,
    pub(super) mac: Option<MacAddress>,
}

/// What one worker has sent to each backend.
#[derive(Debug)]
pub(super) struct MemberCounters(CachePadded<Vec<Counts>>);

#[derive(Debug, Default)]
struct Counts {
    packets: Counter,
    bytes: Counter,
    connections: Counter,
}

impl MemberCounters {
    fn new(members: usize) -> Self {
        Self(CachePadded::new((0..members).map(|_| Counts::default()).collect()))
    }

    #[inline(always)]
    pub(super) fn count(&self, member: usize, bytes: u64, starts_connection: bool) {
        let counts = &self.0[member];
        counts.packets.add(1);
        counts.bytes.add(bytes);
        counts.connections.add(u64::from(starts_connection));
    }
}

/// What was sent to one backend, over all workers.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct BackendCounters {
    /// Name of the service.
    pub service: String,
    /// Address of the backend.
    pub address: IpAddr,
    /// Its weight.
    pub weight: u32,
    /// Packets sent to it.
    pub packets: u64,
    /// Bytes sent to it.
    pub bytes: u64,
    /// TCP connections begun (SYN packets, so a repeated SYN counts again). 0 for UDP.
    pub connections: u64,
}

/// Makes the workers' stages, tells them what changes, and reads what they have counted.
#[derive(Debug)]
pub struct BalanceControl {
    plan: Arc<BalancePlan>,
    workers: Vec<WorkerSide>,
}

#[derive(Debug)]
struct WorkerSide {
    neighbours: Arc<ArrayQueue<NeighbourUpdate>>,
    counters: Arc<MemberCounters>,
}

impl BalanceControl {
    /// Control of the stages that balance by `plan`.
    pub fn new(plan: BalancePlan) -> Self {
        Self { plan: Arc::new(plan), workers: Vec::new() }
    }

    /// Makes the stage of one more worker.
    pub fn stage(&mut self) -> Balance {
        let members = self.members().count();
        let neighbours = Arc::new(ArrayQueue::new((members * CHANGES_PER_MEMBER).max(1)));
        let counters = Arc::new(MemberCounters::new(members));
        self.workers
            .push(WorkerSide { neighbours: Arc::clone(&neighbours), counters: Arc::clone(&counters) });
        Balance::new(Arc::clone(&self.plan), counters, neighbours)
    }

    /// Tells every worker the MAC address of a backend, or that it has none now. Waits while a worker's queue is full,
    /// at most a second; returns `false` when a worker did not take it in that time.
    pub fn set_neighbour(&self, address: IpAddr, mac: Option<MacAddress>) -> bool {
        let mut all = true;
        for (member, (_, one)) in self.members().enumerate() {
            if one.address == address {
                let update = NeighbourUpdate { member: member as u32, mac };
                for worker in &self.workers {
                    all &= push_patiently(&worker.neighbours, update);
                }
            }
        }
        all
    }

    /// What was sent to each backend so far.
    pub fn counters(&self) -> Vec<BackendCounters> {
        let sum = |index: usize, of: fn(&Counts) -> &Counter| {
            self.workers.iter().map(|worker| of(&worker.counters.0[index]).get()).sum()
        };
        self.members()
            .enumerate()
            .map(|(index, (service, member))| BackendCounters {
                service: service.to_owned(),
                address: member.address,
                weight: member.weight,
                packets: sum(index, |counts| &counts.packets),
                bytes: sum(index, |counts| &counts.bytes),
                connections: sum(index, |counts| &counts.connections),
            })
            .collect()
    }

    fn members(&self) -> impl Iterator<Item = (&str, &super::Member)> {
        self.plan
            .services
            .iter()
            .flat_map(|service| service.members.iter().map(|member| (service.name.as_str(), member)))
    }
}

fn push_patiently(queue: &Arc<ArrayQueue<NeighbourUpdate>>, update: NeighbourUpdate) -> bool {
    let tries = PATIENCE.as_millis() / PAUSE.as_millis();
    for _ in 0..tries {
        // A worker that has ended has dropped its half, and there is nobody to wait for.
        if queue.push(update).is_ok() || Arc::strong_count(queue) == 1 {
            return true;
        }
        std::thread::sleep(PAUSE);
    }
    false
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::super::stage::BalancedService;
    use super::super::{Member, maglev};
    use super::*;
    use crate::kernel::xdp::service_key;
    use crate::pipeline::Stage;

    const MAC: MacAddress = MacAddress([2, 0, 0, 0, 0, 1]);
    const TCP: u8 = 6;

    fn address(host: u8) -> IpAddr {
        IpAddr::from([198, 18, 0, host])
    }

    /// Services on ports 80, 81 and so on, each with these backends.
    fn control(services: &[&[u8]]) -> BalanceControl {
        let services = services.iter().zip(80..).map(|(hosts, port)| BalancedService {
            name: format!("port-{port}"),
            key: service_key(IpAddr::from([198, 18, 10, 1]), TCP, port),
            table: maglev::Table::build(&hosts.iter().map(|host| ([*host], 1)).collect::<Vec<_>>(), 251)
                .unwrap(),
            members: hosts
                .iter()
                .map(|host| Member { address: address(*host), weight: 1, port: 0, source: MAC })
                .collect(),
        });
        BalanceControl::new(BalancePlan { services: services.collect() })
    }

    /// What waits in a worker's queue: index of the backend over all services, and its MAC address.
    fn waiting(side: &WorkerSide) -> Vec<(u32, Option<MacAddress>)> {
        std::iter::from_fn(|| side.neighbours.pop()).map(|update| (update.member, update.mac)).collect()
    }

    #[test]
    fn every_worker_is_told_of_a_backend_in_every_service_that_has_it() {
        let mut control = control(&[&[11, 12], &[12, 13]]);
        let _stages = [control.stage(), control.stage()];
        assert!(control.set_neighbour(address(12), Some(MAC)));
        for worker in &control.workers {
            assert_eq!(waiting(worker), [(1, Some(MAC)), (2, Some(MAC))]);
        }
    }

    #[test]
    fn an_address_that_is_no_backend_is_nobodys_business() {
        let mut control = control(&[&[11]]);
        let _stage = control.stage();
        assert!(control.set_neighbour(address(99), Some(MAC)));
        assert_eq!(waiting(&control.workers[0]), []);
    }

    #[test]
    fn a_full_queue_is_waited_for() {
        let mut control = control(&[&[11]]);
        let mut stage = control.stage();
        for _ in 0..CHANGES_PER_MEMBER {
            assert!(control.set_neighbour(address(11), None));
        }
        assert!(control.workers[0].neighbours.is_full());
        thread::scope(|scope| {
            let told = scope.spawn(|| control.set_neighbour(address(11), Some(MAC)));
            // The worker's next turn, which makes room.
            while !told.is_finished() {
                stage.housekeeping();
                thread::yield_now();
            }
            assert!(told.join().unwrap());
        });
    }

    #[test]
    fn a_worker_that_takes_nothing_in_is_reported_and_keeps_the_news_from_nobody_else() {
        let mut control = control(&[&[11]]);
        let (_stuck, mut other) = (control.stage(), control.stage());
        for _ in 0..CHANGES_PER_MEMBER {
            assert!(control.set_neighbour(address(11), None));
        }
        other.housekeeping();
        assert!(!control.set_neighbour(address(11), Some(MAC)));
        assert_eq!(waiting(&control.workers[1]), [(0, Some(MAC))]);
    }

    #[test]
    fn counters_are_summed_over_workers_and_kept_apart_by_backend() {
        let mut control = control(&[&[11, 12], &[12]]);
        let _stages = [control.stage(), control.stage()];
        let [first, second] = [0, 1].map(|worker| Arc::clone(&control.workers[worker].counters));
        first.count(0, 60, true);
        first.count(2, 1_500, false);
        second.count(2, 100, true);
        let rows = control.counters();
        let of = |row: &BackendCounters| {
            (row.service.clone(), row.address, row.packets, row.bytes, row.connections)
        };
        assert_eq!(
            rows.iter().map(of).collect::<Vec<_>>(),
            [
                ("port-80".to_owned(), address(11), 1, 60, 1),
                ("port-80".to_owned(), address(12), 0, 0, 0),
                ("port-81".to_owned(), address(12), 2, 1_600, 1),
            ]
        );
    }
}
