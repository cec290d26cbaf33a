//! The hot path of balancing.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use crossbeam::queue::ArrayQueue;
use foldhash::fast::FixedState;
use xfwd_ebpf_types::ServiceKey;

use super::control::{MemberCounters, NeighbourUpdate};
use super::maglev::Table;
use crate::packet::{Ethernet, FiveTuple, Fragment, Headers, MacAddress, Tcp};
use crate::pipeline::{Batch, DropReason, Packet, PortIndex, Stage, Verdict};

/// The services to balance: what all workers share.
#[derive(Debug)]
pub struct BalancePlan {
    /// The services.
    pub services: Vec<BalancedService>,
}

/// A service and its backends.
#[derive(Debug)]
pub struct BalancedService {
    /// Name of the service, as counters show it.
    pub name: String,
    /// Which packets belong to it.
    pub key: ServiceKey,
    /// Which backend a hash belongs to: indices into `members`.
    pub table: Table,
    /// The backends.
    pub members: Vec<Member>,
}

/// A backend of a service.
#[derive(Clone, Debug)]
pub struct Member {
    /// Its address.
    pub address: IpAddr,
    /// Its weight.
    pub weight: u32,
    /// The port that leads to it.
    pub port: PortIndex,
    /// MAC address of that port.
    pub source: MacAddress,
}

/// The stage: one instance a worker.
pub struct Balance {
    /// Looked up with a fixed seed: the keys are the operator's, not the sender's.
    services: HashMap<ServiceKey, Target, FixedState>,
    plan: Arc<BalancePlan>,
    /// MAC address of every backend, over all services.
    macs: Vec<Option<MacAddress>>,
    counters: Arc<MemberCounters>,
    neighbours: Arc<ArrayQueue<NeighbourUpdate>>,
}

#[derive(Clone, Copy)]
struct Target {
    /// Index of the service in the plan.
    service: u32,
    /// Where its backends begin in `macs` and in the counters.
    first_member: u32,
}

impl Balance {
    pub(super) fn new(
        plan: Arc<BalancePlan>,
        counters: Arc<MemberCounters>,
        neighbours: Arc<ArrayQueue<NeighbourUpdate>>,
    ) -> Self {
        let mut services = HashMap::with_hasher(FixedState::default());
        let mut members = 0;
        for (index, service) in plan.services.iter().enumerate() {
            services.insert(service.key, Target { service: index as u32, first_member: members as u32 });
            members += service.members.len();
        }
        Self { services, plan, macs: vec![None; members], counters, neighbours }
    }

    #[inline]
    fn judge(&self, packet: &mut Packet<'_>, port: PortIndex) -> Verdict {
        let len = packet.len() as u64;
        let (headers, bytes) = packet.headers_and_bytes();
        // Fragments carry no ports, or will be followed by some that do not.
        if headers.fragment() != Fragment::No {
            return Verdict::Continue;
        }
        let Some(tuple) = FiveTuple::of(bytes, headers) else { return Verdict::Continue };
        let Some(target) = self.services.get(&key_of(&tuple)) else { return Verdict::Continue };
        let service = &self.plan.services[target.service as usize];
        let chosen = service.table.lookup(tuple.flow_hash()) as usize;
        let (member, index) = (&service.members[chosen], target.first_member as usize + chosen);
        let Some(mac) = self.macs[index] else { return Verdict::Drop(DropReason::NoNeighbour) };
        let starts_connection = is_syn(headers);
        let Ok(mut ethernet) = Ethernet::new_checked(bytes) else {
            return Verdict::Drop(DropReason::Malformed);
        };
        ethernet.set_destination(mac);
        ethernet.set_source(member.source);
        self.counters.count(index, len, starts_connection);
        if member.port == port { Verdict::Bounce } else { Verdict::Forward(member.port) }
    }
}

impl Stage for Balance {
    fn name(&self) -> &str {
        "balance"
    }

    fn process(&mut self, batch: &mut Batch<'_>) {
        let port = batch.port();
        batch.each_undecided(|packet| self.judge(packet, port));
    }

    fn housekeeping(&mut self) {
        while let Some(update) = self.neighbours.pop() {
            self.macs[update.member as usize] = update.mac;
        }
    }
}

#[inline(always)]
fn key_of(tuple: &FiveTuple) -> ServiceKey {
    ServiceKey { address: tuple.dst, port: tuple.dst_port.to_be_bytes(), protocol: tuple.protocol, zero: 0 }
}

#[inline(always)]
fn is_syn(headers: &Headers) -> bool {
    headers.tcp_flags & (Tcp::SYN | Tcp::ACK) == Tcp::SYN
}
