//! What a worker balances by: made by the control side, never changed, replaced as a whole.

use std::sync::Arc;

use crossbeam::utils::CachePadded;

use super::choose::Affinity;
use super::maglev::Table;
use super::service::{Egress, NoBackend};
use super::services::Services;
use super::way::Tunnel;
use crate::packet::MacAddress;
use crate::pipeline::Counter;

/// Everything at one moment.
#[derive(Debug)]
pub(super) struct BalanceState {
    /// Which service a packet is for: indices into `services`.
    pub lookup: Arc<Services>,
    pub services: Vec<ServiceState>,
    /// By slot. A slot stays with its backend for as long as there may be flows that name it.
    pub members: Vec<MemberState>,
    /// MAC address of each port.
    pub ports: Arc<[MacAddress]>,
}

/// The handle of one worker. It is held for each batch, and counting that where all workers count would have them wait for each other.
pub(super) type WorkerState = Arc<Arc<BalanceState>>;

#[derive(Clone, Debug)]
pub(super) struct ServiceState {
    /// `None` when no backend takes new flows.
    pub table: Option<ServiceTable>,
    /// Whether flows are sessions.
    pub is_nat: bool,
    /// A number of its own.
    pub salt: u64,
    pub affinity: Affinity,
    pub no_backend: NoBackend,
    pub mss: Option<u16>,
}

/// Which slot a hash belongs to.
#[derive(Clone, Debug)]
pub(super) struct ServiceTable {
    pub table: Arc<Table>,
    /// By the table's index: slots of members.
    pub slots: Arc<[u32]>,
}

impl ServiceTable {
    #[inline(always)]
    pub fn lookup(&self, hash: u64) -> u32 {
        self.slots[usize::from(self.table.lookup(hash))]
    }
}

/// A backend of one service. What every packet to it needs lies in its first cache line, in this order; only tunnels need more.
#[derive(Clone, Debug)]
#[repr(C, align(64))]
pub(super) struct MemberState {
    /// Counts the backends that had this slot.
    pub generation: u8,
    /// Whether flows that it has stay with it.
    pub keeps_flows: bool,
    /// One a worker.
    pub counts: Arc<[CachePadded<MemberCounts>]>,
    pub hop: Option<Egress>,
    pub way: Way,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Way {
    /// There is no source address for the outer header, or no backend.
    Unknown,
    Dsr,
    Tunnel(Tunnel),
    Nat {
        address: [u8; 16],
        port: Option<u16>,
    },
}

/// What one worker has sent to a member.
#[derive(Debug, Default)]
pub(super) struct MemberCounts {
    pub packets: Counter,
    pub bytes: Counter,
    pub connections: Counter,
}

impl MemberCounts {
    /// One packet more, of so many bytes.
    #[inline(always)]
    pub fn sent(&self, bytes: u64) {
        self.packets.add(1);
        self.bytes.add(bytes);
    }
}

/// A member as a connection table or a session names it: its slot, and the generation that tells it from earlier backends in
/// the same slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct MemberRef(pub u32);

/// Slots that a [`MemberRef`] can name.
pub(super) const MAX_SLOTS: usize = 1 << 24;

impl MemberRef {
    #[inline(always)]
    pub fn new(slot: u32, generation: u8) -> Self {
        Self(slot | u32::from(generation) << 24)
    }

    #[inline(always)]
    pub fn slot(self) -> u32 {
        self.0 & (MAX_SLOTS as u32 - 1)
    }

    #[inline(always)]
    pub fn generation(self) -> u8 {
        (self.0 >> 24) as u8
    }
}

impl BalanceState {
    /// The member in `slot`, as flows name it.
    #[inline(always)]
    pub fn name(&self, slot: u32) -> MemberRef {
        MemberRef::new(slot, self.members[slot as usize].generation)
    }

    /// The slot of a member that keeps its flows; `None` when the flow has to be given to another.
    #[inline(always)]
    pub fn keeper(&self, member: MemberRef) -> Option<u32> {
        self.keeping(member).map(|_| member.slot())
    }

    /// As [`keeper`](Self::keeper), the member itself.
    #[inline(always)]
    pub fn keeping(&self, member: MemberRef) -> Option<&MemberState> {
        let state = self.members.get(member.slot() as usize)?;
        (state.generation == member.generation() && state.keeps_flows).then_some(state)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(generation: u8, keeps_flows: bool) -> BalanceState {
        let member =
            MemberState { generation, keeps_flows, hop: None, way: Way::Unknown, counts: Arc::default() };
        BalanceState {
            lookup: Arc::default(),
            services: Vec::new(),
            members: vec![member],
            ports: Arc::default(),
        }
    }

    #[test]
    fn a_member_is_known_by_its_slot_and_generation() {
        let member = MemberRef::new(MAX_SLOTS as u32 - 1, 255);
        assert_eq!((member.slot(), member.generation()), (MAX_SLOTS as u32 - 1, 255));
        assert_eq!(state(7, true).name(0), MemberRef::new(0, 7));
    }

    #[test]
    fn a_flow_stays_only_with_the_member_that_it_was_given_to() {
        let member = MemberRef::new(0, 7);
        assert_eq!(state(7, true).keeper(member), Some(0));
        assert_eq!(state(7, false).keeper(member), None, "it does not keep flows");
        assert_eq!(state(8, true).keeper(member), None, "another one has its slot");
        assert_eq!(state(7, true).keeper(MemberRef::new(1, 7)), None, "there is no such slot");
    }
}
