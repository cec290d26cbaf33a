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
                all &= self.workers.iter().all(|worker| push_patiently(&worker.neighbours, update));
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

fn push_patiently(queue: &ArrayQueue<NeighbourUpdate>, update: NeighbourUpdate) -> bool {
    let tries = PATIENCE.as_millis() / PAUSE.as_millis();
    for _ in 0..tries {
        if queue.push(update).is_ok() {
            return true;
        }
        std::thread::sleep(PAUSE);
    }
    false
}
