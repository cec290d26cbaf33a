//! Flows of `nat`: there and back.

use super::answers::Answer;
use super::connections::{Asked, Event};
use super::last_hop::LastHop;
use super::mss::clamp_mss;
use super::nat::{Endpoint, Session, SessionId, translate_reply, translate_to_backend};
use super::stage::Balance;
use super::state::{MemberRef, Way};
use super::way::{Fit, Hop, fit, pass_hop, write_link};
use crate::packet::{Ethernet, FiveTuple, Tcp};
use crate::pipeline::{DropReason, Packet, Verdict};

impl Balance {
    /// A whole packet to a service of NAT.
    #[inline]
    pub(super) fn nat_flow(&mut self, packet: &mut Packet<'_>, service: u32, asked: Asked) -> Verdict {
        let Some(tuple) = FiveTuple::of(packet.bytes(), packet.headers()) else {
            return Verdict::Drop(DropReason::Malformed);
        };
        match self.session(packet, &tuple, service, asked) {
            Ok(session) => self.send_by_session(packet, &session),
            Err(verdict) => verdict,
        }
    }

    /// The session of a packet to a service, opened if there is none.
    #[inline]
    pub(super) fn session(
        &mut self,
        packet: &mut Packet<'_>,
        tuple: &FiveTuple,
        service: u32,
        asked: Asked,
    ) -> Result<Session, Verdict> {
        let Some(nat) = &self.nat else { return Err(Verdict::Drop(DropReason::NoSession)) };
        let event = Event::of(packet.headers());
        let (key, found) = (asked.key(), self.connections.find_asked(asked, self.now, event));
        let session = found
            .and_then(|found| nat.sessions.flow(SessionId(found.value), tuple))
            .or_else(|| nat.sessions.find_flow(tuple));
        if let Some(session) = session {
            // A new connection by the five-tuple of one that is over is given to whom the table says now. The session knows that
            // it is over when another worker has had the one before.
            let is_over = found.is_some_and(|found| found.restarted)
                || session.is_restarted_by(packet.headers().tcp_flags);
            if !is_over && self.state.keeper(MemberRef(session.member)).is_some() {
                if found.is_none_or(|found| found.value != session.id.0) {
                    self.store(key, session.id.0, found, event);
                }
                return Ok(session);
            }
        }
        let opened = self.open_session(packet, tuple, service, session)?;
        self.store(key, opened.id.0, found, event);
        Ok(opened)
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
        let member = &self.state.members[slot as usize];
        let Way::Nat { address, port } = member.way else { return Err(no_session) };
        let backend = Endpoint { address, port: port.unwrap_or(tuple.dst_port) };
        if let Some(next) = nat.sessions.ask_next(tuple) {
            nat.last_hops.ask(next);
        }
        let id = nat.sessions.open(self.now, tuple, backend, self.state.name(slot).0);
        let session = id.and_then(|id| nat.sessions.flow(id, tuple)).ok_or(no_session)?;
        member.counts[self.worker].connections.add(1);
        Ok(session)
    }

    /// Sends a packet of a client to its backend.
    #[inline]
    pub(super) fn send_by_session(&mut self, packet: &mut Packet<'_>, session: &Session) -> Verdict {
        let Some(slot) = self.state.keeper(MemberRef(session.member)) else {
            return Verdict::Drop(DropReason::NoSession);
        };
        let member = &self.state.members[slot as usize];
        let Some(hop) = member.hop else { return Verdict::Drop(DropReason::NoNeighbour) };
        if pass_hop(packet) == Hop::Expired {
            return self.answer(packet, Answer::TimeExceeded, DropReason::Expired);
        }
        if fit(packet, 0, hop.mtu as usize) != Fit::Fits {
            return self.too_big(packet, 0, hop.mtu);
        }
        let (len, flags) = (packet.len() as u64, packet.headers().tcp_flags);
        self.note_last_hop(packet, session.id);
        self.clamp_session_mss(packet, session);
        let Some(nat) = &self.nat else { return Verdict::Drop(DropReason::NoSession) };
        if translate_to_backend(packet, session).is_err() {
            return Verdict::Drop(DropReason::Malformed);
        }
        nat.sessions.seen_from_client(session, self.now, flags);
        if write_link(packet, &hop.link).is_err() {
            return Verdict::Drop(DropReason::NoRoom);
        }
        member.counts[self.worker].sent(len);
        self.out_of(hop.port)
    }

    /// A packet from a backend to an address of NAT.
    #[inline]
    pub(super) fn reply(&mut self, packet: &mut Packet<'_>, id: SessionId) -> Verdict {
        let tuple = FiveTuple::of(packet.bytes(), packet.headers());
        let session = self.nat.as_ref().zip(tuple).and_then(|(nat, tuple)| nat.sessions.reply(id, &tuple));
        match session {
            Some(session) => self.send_reply(packet, &session),
            None => Verdict::Drop(DropReason::NoSession),
        }
    }

    /// Sends a packet of a backend to its client.
    #[inline]
    pub(super) fn send_reply(&mut self, packet: &mut Packet<'_>, session: &Session) -> Verdict {
        if pass_hop(packet) == Hop::Expired {
            return self.answer(packet, Answer::TimeExceeded, DropReason::Expired);
        }
        self.clamp_session_mss(packet, session);
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

    /// For SYN and SYN-ACK alike.
    #[inline(always)]
    fn clamp_session_mss(&self, packet: &mut Packet<'_>, session: &Session) {
        if packet.headers().tcp_flags & Tcp::SYN != 0
            && let Endpoint { address, port } = session.service
            && let Some(service) = self.state.lookup.find(&address, session.protocol, port)
            && let Some(limit) = self.state.services[service].mss
        {
            clamp_mss(packet, limit);
        }
    }

    /// Where the packet at hand came from.
    #[inline]
    fn note_last_hop(&self, packet: &Packet<'_>, session: SessionId) {
        let (Some(nat), Ok(frame)) = (&self.nat, Ethernet::new_checked(packet.bytes())) else { return };
        let headers = packet.headers();
        let vlan = if headers.vlan_count > 0 { headers.vlan_tci[0] & 0xfff } else { 0 };
        nat.last_hops.note(session, LastHop { port: self.port, mac: frame.source(), vlan });
    }
}
