//! Flows of `nat`: there and back.

use super::answers::Answer;
use super::connections::Event;
use super::last_hop::LastHop;
use super::nat::{Endpoint, Session, SessionId, translate_reply, translate_to_backend};
use super::stage::Balance;
use super::state::{MemberRef, Way};
use super::way::{Fit, Hop, fit, pass_hop, write_link};
use crate::packet::{Ethernet, FiveTuple};
use crate::pipeline::{DropReason, Packet, Verdict};

impl Balance {
    /// The session of a packet to a service, opened if there is none, and whether it was.
    #[inline]
    pub(super) fn session(
        &mut self,
        packet: &mut Packet<'_>,
        tuple: &FiveTuple,
        service: u32,
        key: u64,
    ) -> Result<(Session, bool), Verdict> {
        let Some(nat) = &self.nat else { return Err(Verdict::Drop(DropReason::NoSession)) };
        let event = Event::of(packet.headers());
        let found = self.connections.find(key, self.now, event);
        let session = found
            .and_then(|found| nat.sessions.flow(SessionId(found.value), tuple))
            .or_else(|| nat.sessions.find_flow(tuple));
        if let Some(session) = session {
            // A new connection by the five-tuple of one that is over is given to whom the table says now. The session knows that
            // it is over when another worker has had the one before.
            let is_over = found.is_some_and(|found| found.restarted)
                || session.is_restarted_by(packet.headers().tcp_flags);
            if !is_over && self.state.keeper(MemberRef(session.member)).is_some() {
                if found.is_none() {
                    self.connections.insert(key, session.id.0, self.now, event);
                }
                return Ok((session, false));
            }
        }
        let opened = self.open_session(packet, tuple, service, session)?;
        match found {
            Some(_) => _ = self.connections.replace(key, opened.id.0, self.now),
            None => _ = self.connections.insert(key, opened.id.0, self.now, event),
        }
        Ok((opened, true))
    }

    #[inline(never)]
    fn open_session(
        &mut self,
        packet: &mut Packet<'_>,
        tuple: &FiveTuple,
        service: u32,
        before: Option<Session>,
    ) -> Result<Session, Verdict> {
        let Some(slot) = self.choose(tuple, service) else { return Err(self.no_backend(packet, service)) };
        let no_session = Verdict::Drop(DropReason::NoSession);
        let Some(nat) = &mut self.nat else { return Err(no_session) };
        if let Some(before) = before {
            nat.sessions.close(before.id);
        }
        let member = self.state.name(slot);
        let Way::Nat { address, port } = self.state.members[slot as usize].way else {
            return Err(no_session);
        };
        let backend = Endpoint { address, port: port.unwrap_or(tuple.dst_port) };
        let id = nat.sessions.open(self.now, tuple, backend, member.0);
        id.and_then(|id| nat.sessions.flow(id, tuple)).ok_or(no_session)
    }

    /// Sends a packet of a client to its backend.
    #[inline]
    pub(super) fn send_by_session(
        &mut self,
        packet: &mut Packet<'_>,
        session: &Session,
        service: u32,
        is_new: bool,
    ) -> Verdict {
        let Some(slot) = self.state.keeper(MemberRef(session.member)) else {
            return Verdict::Drop(DropReason::NoSession);
        };
        let member = &self.state.members[slot as usize];
        let Some(hop) = member.hop else { return Verdict::Drop(DropReason::NoNeighbour) };
        if fit(packet, 0, hop.mtu as usize) != Fit::Fits {
            return self.too_big(packet, 0, hop.mtu);
        }
        if pass_hop(packet) == Hop::Expired {
            return self.answer(packet, Answer::TimeExceeded, DropReason::Expired);
        }
        let (len, flags) = (packet.len() as u64, packet.headers().tcp_flags);
        self.note_last_hop(packet, session.id);
        self.clamp_mss(packet, service);
        let Some(nat) = &self.nat else { return Verdict::Drop(DropReason::NoSession) };
        if translate_to_backend(packet, session).is_err() {
            return Verdict::Drop(DropReason::Malformed);
        }
        nat.sessions.seen_from_client(session, self.now, flags);
        if write_link(packet, &hop.link).is_err() {
            return Verdict::Drop(DropReason::NoRoom);
        }
        let counts = &member.counts[self.worker];
        counts.packets.add(1);
        counts.bytes.add(len);
        counts.connections.add(u64::from(is_new));
        self.out_of(hop.port)
    }

    /// A packet from a backend to an address of NAT.
    #[inline]
    pub(super) fn reply(&mut self, packet: &mut Packet<'_>, tuple: &FiveTuple) -> Verdict {
        let session = self.nat.as_ref().and_then(|nat| nat.sessions.find_reply(tuple));
        match session {
            Some(session) => self.send_reply(packet, &session, true),
            None => Verdict::Drop(DropReason::NoSession),
        }
    }

    /// Sends a packet of a backend to its client.
    #[inline]
    pub(super) fn send_reply(
        &mut self,
        packet: &mut Packet<'_>,
        session: &Session,
        has_transport: bool,
    ) -> Verdict {
        if pass_hop(packet) == Hop::Expired {
            return self.answer(packet, Answer::TimeExceeded, DropReason::Expired);
        }
        if has_transport
            && let Some(service) =
                self.state.lookup.find(&session.service.address, session.protocol, session.service.port)
        {
            self.clamp_mss(packet, service as u32);
        }
        let Some(nat) = &self.nat else { return Verdict::Drop(DropReason::NoSession) };
        let flags = packet.headers().tcp_flags;
        if translate_reply(packet, session).is_err() {
            return Verdict::Drop(DropReason::Malformed);
        }
        nat.sessions.seen_from_backend(session, self.now, flags);
        self.counters.replies.add(1);
        self.to_client(packet, session.id)
    }

    /// Sends a translated packet to where the client's came from.
    #[inline]
    pub(super) fn to_client(&self, packet: &mut Packet<'_>, session: SessionId) -> Verdict {
        let last_hop = self.nat.as_ref().and_then(|nat| nat.last_hops.of(session));
        let Some(last_hop) = last_hop else { return Verdict::Drop(DropReason::NoNeighbour) };
        let Some(source) = self.state.ports.get(usize::from(last_hop.port)) else {
            return Verdict::Drop(DropReason::NoPort);
        };
        match write_link(packet, &last_hop.link(*source)) {
            Ok(()) => self.out_of(last_hop.port),
            Err(_) => Verdict::Drop(DropReason::NoRoom),
        }
    }

    /// Where the packet at hand came from.
    #[inline]
    pub(super) fn note_last_hop(&self, packet: &Packet<'_>, session: SessionId) {
        let (Some(nat), Ok(frame)) = (&self.nat, Ethernet::new_checked(packet.bytes())) else { return };
        let headers = packet.headers();
        let vlan = if headers.vlan_count > 0 { headers.vlan_tci[0] & 0xfff } else { 0 };
        nat.last_hops.note(session, LastHop { port: self.port, mac: frame.source(), vlan });
    }
}
