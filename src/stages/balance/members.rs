//! The backends of all services by slot, on the control side.

use std::collections::{HashMap, HashSet, VecDeque};
use std::net::IpAddr;
use std::ops::Index;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam::utils::CachePadded;

use super::service::{BackendState, BalancedBackend};
use super::state::{MAX_SLOTS, MemberCounts, MemberState, Way};
use crate::pipeline::Counter;

/// A backend of one service.
#[derive(Debug)]
pub(super) struct Member {
    service: String,
    pub backend: BalancedBackend,
    /// What its health check says.
    pub healthy: bool,
    /// When it came back, or was added to a running service.
    pub back_since: Option<Instant>,
    /// It was removed, and may have flows.
    leaving: bool,
    /// Packets that it had got, and when that changed last; kept while it is leaving.
    quiet: Option<(u64, Instant)>,
    counts: Arc<[CachePadded<MemberCounts>]>,
}

impl Member {
    /// Whether it gets new flows while it is healthy.
    pub fn gets_flows(&self) -> bool {
        !self.leaving && self.backend.state == BackendState::Up && self.backend.weight > 0
    }

    /// A counter, over all workers.
    pub fn sum(&self, of: fn(&MemberCounts) -> &Counter) -> u64 {
        self.counts.iter().map(|counts| of(counts).get()).sum()
    }

    /// What it gets now, in a word.
    pub fn describe(&self, is_removed: bool, is_reachable: bool) -> &'static str {
        match self.backend.state {
            _ if is_removed => "removed",
            BackendState::Down => "down",
            _ if !self.healthy => "unhealthy",
            _ if !is_reachable => "unreachable",
            BackendState::Up if self.backend.weight > 0 => "up",
            _ => "drain",
        }
    }
}

/// Slots, each with the generation of what is or was in it last.
#[derive(Debug)]
pub(super) struct Members {
    slots: Vec<(u8, Option<Member>)>,
    /// The one that is free for longest comes first, so that a generation comes round as late as it can.
    free: VecDeque<u32>,
    by_name: HashMap<String, HashMap<IpAddr, u32>>,
    /// Counters of a free slot.
    nobody: Arc<[CachePadded<MemberCounts>]>,
    workers: usize,
}

impl Members {
    pub fn new(workers: usize) -> Self {
        Self {
            slots: Vec::new(),
            free: VecDeque::new(),
            by_name: HashMap::new(),
            nobody: counts(workers),
            workers,
        }
    }

    pub fn find(&self, service: &str, address: IpAddr) -> Option<&Member> {
        let slot = *self.by_name.get(service)?.get(&address)?;
        self.slots[slot as usize].1.as_ref()
    }

    pub fn find_mut(&mut self, service: &str, address: IpAddr) -> Option<&mut Member> {
        let slot = *self.by_name.get(service)?.get(&address)?;
        self.slots[slot as usize].1.as_mut()
    }

    /// The slot of a backend, which is as said from now on. One that is new, or was not to get flows, has come back at `now`.
    pub fn set(&mut self, service: &str, backend: &BalancedBackend, now: Option<Instant>) -> u32 {
        if let Some(slot) = self.by_name.get(service).and_then(|slots| slots.get(&backend.address)) {
            let member = self.slots[*slot as usize].1.as_mut().expect("named slots are taken");
            if !member.gets_flows() {
                member.back_since = now;
            }
            member.backend = backend.clone();
            member.leaving = false;
            member.quiet = None;
            return *slot;
        }
        let slot = self.free.pop_front().unwrap_or_else(|| {
            assert!(self.slots.len() < MAX_SLOTS, "more than {MAX_SLOTS} backends");
            self.slots.push((0, None));
            self.slots.len() as u32 - 1
        });
        self.slots[slot as usize].1 = Some(Member {
            service: service.to_owned(),
            backend: backend.clone(),
            healthy: true,
            back_since: now,
            leaving: false,
            quiet: None,
            counts: counts(self.workers),
        });
        self.by_name.entry(service.to_owned()).or_default().insert(backend.address, slot);
        slot
    }

    /// A backend was removed, and keeps its slot as long as it has flows.
    pub fn leave(&mut self, slot: u32) {
        if let Some(member) = &mut self.slots[slot as usize].1 {
            member.leaving = true;
        }
    }

    /// The addresses of all backends.
    pub fn addresses(&self) -> HashSet<IpAddr> {
        self.slots.iter().filter_map(|(_, member)| Some(member.as_ref()?.backend.address)).collect()
    }

    /// Frees a slot. Flows that name it belong to nobody then.
    pub fn remove(&mut self, slot: u32) {
        let (generation, member) = &mut self.slots[slot as usize];
        let Some(member) = member.take() else { return };
        *generation = generation.wrapping_add(1);
        self.free.push_back(slot);
        if let Some(slots) = self.by_name.get_mut(&member.service) {
            slots.remove(&member.backend.address);
            if slots.is_empty() {
                self.by_name.remove(&member.service);
            }
        }
    }

    /// Whether a removed backend got no packet for `quiet`.
    pub fn is_quiet(&mut self, slot: u32, now: Instant, quiet: Duration) -> bool {
        let Some(member) = self.slots[slot as usize].1.as_mut() else { return true };
        let packets = member.sum(|counts| &counts.packets);
        match member.quiet {
            Some((before, since)) if before == packets => now.saturating_duration_since(since) >= quiet,
            _ => {
                member.quiet = Some((packets, now));
                false
            }
        }
    }

    /// A state a slot, that says nothing yet of what is in it.
    pub fn states(&self) -> Vec<MemberState> {
        let state = |(generation, member): &(u8, Option<Member>)| MemberState {
            generation: *generation,
            keeps_flows: false,
            hop: None,
            way: Way::Unknown,
            counts: Arc::clone(member.as_ref().map_or(&self.nobody, |member| &member.counts)),
        };
        self.slots.iter().map(state).collect()
    }
}

impl Index<u32> for Members {
    type Output = Member;

    /// # Panics
    ///
    /// When the slot is free.
    fn index(&self, slot: u32) -> &Member {
        self.slots[slot as usize].1.as_ref().expect("the slot is taken")
    }
}

fn counts(workers: usize) -> Arc<[CachePadded<MemberCounts>]> {
    (0..workers).map(|_| CachePadded::default()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn backend(last: u8) -> BalancedBackend {
        BalancedBackend { address: [198, 18, 0, last].into(), port: None, weight: 1, state: BackendState::Up }
    }

    #[test]
    fn a_slot_stays_with_its_backend_until_that_is_removed() {
        let mut members = Members::new(1);
        let slots: Vec<u32> = (1..4).map(|last| members.set("web", &backend(last), None)).collect();
        assert_eq!(slots, [0, 1, 2]);
        assert_eq!(members.set("dns", &backend(1), None), 3, "the same address in another service");
        members.leave(1);
        assert_eq!(members.set("web", &backend(2), None), 1);
        assert!(members[1].gets_flows());
        members.remove(1);
        assert!(members.find("web", backend(2).address).is_none());
        assert!(!members.addresses().contains(&backend(2).address));
    }

    #[test]
    fn a_free_slot_is_used_again_last_and_by_another_generation() {
        let mut members = Members::new(1);
        (1..4).for_each(|last| _ = members.set("web", &backend(last), None));
        members.remove(2);
        members.remove(0);
        assert_eq!((members.set("web", &backend(7), None), members.set("web", &backend(8), None)), (2, 0));
        let generations: Vec<u8> = members.states().iter().map(|state| state.generation).collect();
        assert_eq!(generations, [1, 0, 1]);
    }

    #[test]
    fn quiet_is_no_packet_for_so_long() {
        let mut members = Members::new(2);
        let (slot, start, quiet) =
            (members.set("web", &backend(1), None), Instant::now(), Duration::from_secs(10));
        let at = |seconds| start + Duration::from_secs(seconds);
        assert!(!members.is_quiet(slot, at(0), quiet) && !members.is_quiet(slot, at(9), quiet));
        // Whichever worker has sent it.
        members.states()[slot as usize].counts[1].sent(60);
        assert!(!members.is_quiet(slot, at(10), quiet) && !members.is_quiet(slot, at(19), quiet));
        assert!(members.is_quiet(slot, at(20), quiet));
    }

    #[test]
    fn what_gets_no_flows_comes_back_when_it_is_set_again() {
        let (mut members, now) = (Members::new(1), Some(Instant::now()));
        let set = |members: &mut Members, backend: &BalancedBackend| members.set("web", backend, now);
        for gone in [
            BalancedBackend { weight: 0, ..backend(1) },
            BalancedBackend { state: BackendState::Drain, ..backend(1) },
        ] {
            let slot = members.set("web", &gone, None);
            set(&mut members, &backend(1));
            assert_eq!(members[slot].back_since, now);
            members.remove(slot);
        }
        let slot = members.set("web", &backend(1), None);
        set(&mut members, &backend(1));
        assert_eq!(members[slot].back_since, None, "it was there all the time");
    }
}
