//! The second look: which backend a packet goes to, and how.

use std::sync::Arc;

use super::answers::Answer;
use super::choose;
use super::connections::{Asked, Event, Found, Insertion};
use super::mss::clamp_mss;
use super::service::NoBackend;
use super::stage::Balance;
use super::state::{BalanceState, MemberRef, MemberState, Way};
use super::way::{EncapsulateError, Fit, Hop, fit, pass_hop, write_link};
use crate::packet::{FiveTuple, Tcp, flow_hash_of};
use crate::pipeline::{DropReason, Packet, Verdict};

impl Balance {
    /// A whole packet to a service, `nat` excepted. `state` is that of the stage.
    #[inline(always)]
    pub(super) fn flow(
        &mut self,
        state: &BalanceState,
        packet: &mut Packet<'_>,
        service: u32,
        asked: Asked,
    ) -> Verdict {
        let event = Event::of(packet.headers());
        let found = self.connections.find_asked(asked, self.now, event);
        let member = match kept(state, found) {
            Some(member) => member,
            None => match self.new_flow(packet, service, asked.key(), found, event) {
                Ok(slot) => &state.members[slot as usize],
                Err(verdict) => return verdict,
            },
        };
        self.send_to(member, packet, service)
    }

    /// The slot of the member that a flow belongs to; to which it is given here if it had none.
    #[inline]
    pub(super) fn member(
        &mut self,
        packet: &mut Packet<'_>,
        tuple: &FiveTuple,
        service: u32,
        key: u64,
    ) -> Result<u32, Verdict> {
        let event = Event::of(packet.headers());
        let found = self.connections.find(key, self.now, event);
        let kept = found.filter(|found| !found.restarted);
        match kept.and_then(|found| self.state.keeper(MemberRef(found.value))) {
            Some(slot) => Ok(slot),
            None => self.give(packet, tuple, service, key, found, event),
        }
    }

    #[inline(never)]
    fn new_flow(
        &mut self,
        packet: &mut Packet<'_>,
        service: u32,
        key: u64,
        found: Option<Found>,
        event: Event,
    ) -> Result<u32, Verdict> {
        let tuple = FiveTuple::of(packet.bytes(), packet.headers());
        let tuple = tuple.ok_or(Verdict::Drop(DropReason::Malformed))?;
        self.give(packet, &tuple, service, key, found, event)
    }

    /// Gives a flow to the member that the table chooses.
    fn give(
        &mut self,
        packet: &mut Packet<'_>,
        tuple: &FiveTuple,
        service: u32,
        key: u64,
        found: Option<Found>,
        event: Event,
    ) -> Result<u32, Verdict> {
        let Some(slot) = self.choose(tuple, service) else { return Err(self.no_backend(packet, service)) };
        let is_stored = self.store(key, self.state.name(slot).0, found, event);
        // A flow for which there is no room is given to its member with every packet, but begins once.
        if is_stored || event == Event::Syn {
            self.state.members[slot as usize].counts[self.worker].connections.add(1);
        }
        Ok(slot)
    }

    /// Stores what a flow belongs to from now on; `found` is what was found for this packet. Says whether there was room.
    #[inline]
    pub(super) fn store(&mut self, key: u64, value: u32, found: Option<Found>, event: Event) -> bool {
        match found {
            Some(_) => self.connections.replace(key, value, self.now).is_some(),
            None => self.connections.insert(key, value, self.now, event) != Insertion::Refused,
        }
    }

    /// The member that the table chooses.
    #[inline]
    pub(super) fn choose(&self, tuple: &FiveTuple, service: u32) -> Option<u32> {
        let service = &self.state.services[service as usize];
        let table = service.table.as_ref()?;
        Some(table.lookup(choose::hash(tuple, service.affinity)))
    }

    /// No backend takes the flow.
    #[cold]
    pub(super) fn no_backend(&mut self, packet: &mut Packet<'_>, service: u32) -> Verdict {
        match self.state.services[service as usize].no_backend {
            NoBackend::Reject => self.answer(packet, Answer::Refuse, DropReason::NoBackend),
            _ => Verdict::Drop(DropReason::NoBackend),
        }
    }

    /// Sends a packet to a member by its way, `nat` excepted.
    pub(super) fn send(&mut self, packet: &mut Packet<'_>, slot: u32, service: u32) -> Verdict {
        let state = Arc::clone(&self.state);
        self.send_to(&state.members[slot as usize], packet, service)
    }

    /// As [`send`](Self::send).
    #[inline(always)]
    fn send_to(&mut self, member: &MemberState, packet: &mut Packet<'_>, service: u32) -> Verdict {
        let Some(hop) = &member.hop else { return Verdict::Drop(DropReason::NoNeighbour) };
        match &member.way {
            Way::Dsr => {
                if fit(packet, 0, hop.mtu as usize) != Fit::Fits {
                    let mtu = hop.mtu;
                    return self.too_big(packet, 0, mtu);
                }
                let len = packet.len() as u64;
                if packet.headers().tcp_flags & Tcp::SYN != 0 {
                    self.clamp_mss(packet, service as usize);
                }
                if write_link(packet, &hop.link).is_err() {
                    return Verdict::Drop(DropReason::NoRoom);
                }
                member.counts[self.worker].sent(len);
                self.out_of(hop.port)
            }
            _ => self.send_by_tunnel(member, packet, service),
        }
    }

    #[inline(never)]
    fn send_by_tunnel(&mut self, member: &MemberState, packet: &mut Packet<'_>, service: u32) -> Verdict {
        let (Way::Tunnel(tunnel), Some(hop)) = (&member.way, &member.hop) else {
            return Verdict::Drop(DropReason::NoNeighbour);
        };
        if pass_hop(packet) == Hop::Expired {
            return self.answer(packet, Answer::TimeExceeded, DropReason::Expired);
        }
        let overhead = tunnel.overhead();
        if fit(packet, overhead, hop.mtu as usize) != Fit::Fits {
            let mtu = hop.mtu;
            return self.too_big(packet, overhead, mtu);
        }
        let len = packet.len() as u64;
        if packet.headers().tcp_flags & Tcp::SYN != 0 {
            self.clamp_mss(packet, service as usize);
        }
        // Not the key of the connection table, which nobody outside may know.
        let hash = flow_hash_of(packet.bytes(), packet.headers()).unwrap_or_default();
        match tunnel.encapsulate(packet, &hop.link, hash, &mut self.identification) {
            Ok(()) => {}
            Err(EncapsulateError::NotIp) => return Verdict::Drop(DropReason::Malformed),
            Err(EncapsulateError::TooLong) => return Verdict::Drop(DropReason::TooBig),
            Err(_) => return Verdict::Drop(DropReason::NoRoom),
        }
        member.counts[self.worker].sent(len);
        self.out_of(hop.port)
    }

    /// A packet that is too long for its way.
    #[cold]
    pub(super) fn too_big(&mut self, packet: &mut Packet<'_>, overhead: usize, mtu: u32) -> Verdict {
        match fit(packet, overhead, mtu as usize) {
            Fit::TooBig { mtu } => self.answer(packet, Answer::TooBig { mtu }, DropReason::TooBig),
            _ => Verdict::Drop(DropReason::TooBig),
        }
    }

    /// Of a packet with SYN.
    #[inline(never)]
    fn clamp_mss(&self, packet: &mut Packet<'_>, service: usize) {
        if let Some(limit) = self.state.services[service].mss {
            clamp_mss(packet, limit);
        }
    }

    /// Answers a packet in place of a backend.
    #[cold]
    pub(super) fn answer(&mut self, packet: &mut Packet<'_>, answer: Answer, reason: DropReason) -> Verdict {
        self.answers.give(packet, answer, reason, self.instant, &self.counters.answers)
    }
}

/// The member with which a flow stays, by what the connection table has.
#[inline(always)]
fn kept(state: &BalanceState, found: Option<Found>) -> Option<&MemberState> {
    let found = found.filter(|found| !found.restarted)?;
    state.keeping(MemberRef(found.value))
}
