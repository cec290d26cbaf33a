//! ICMP for a service: echo requests are answered here, errors go to the backend that owns the flow which they are about.

use super::answers::Answer;
use super::nat::{Session, translate_error_reply, translate_error_to_backend};
use super::services::OfVip;
use super::stage::Balance;
use super::state::MemberRef;
use super::way::{Hop, pass_hop, write_link};
use crate::packet::protocol::{ICMP, TCP, UDP};
use crate::packet::{Embedded, FiveTuple};
use crate::pipeline::{DropReason, Packet, Verdict};

const ECHO_REQUEST: u8 = 8;
const ECHO_REQUEST_V6: u8 = 128;

impl Balance {
    #[cold]
    pub(super) fn icmp(&mut self, packet: &mut Packet<'_>) -> Verdict {
        let headers = *packet.headers();
        let echo = if headers.protocol == ICMP { ECHO_REQUEST } else { ECHO_REQUEST_V6 };
        if headers.icmp_type == echo {
            let Some(tuple) = FiveTuple::of(packet.bytes(), &headers) else { return Verdict::Continue };
            let is_vip = [TCP, UDP]
                .iter()
                .any(|protocol| self.state.lookup.find_fragment(&tuple.dst, *protocol) != OfVip::None);
            if !is_vip {
                return Verdict::Continue;
            }
            return self.answer(packet, Answer::EchoReply, DropReason::NotAnswered);
        }
        let Some(embedded) = Embedded::of(packet.bytes(), &headers) else { return Verdict::Continue };
        let flow = embedded.flow();
        // Who sent a packet gets the errors about it; anything else is forged.
        if FiveTuple::of(packet.bytes(), &headers).is_none_or(|error| error.dst != flow.dst) {
            return Verdict::Continue;
        }
        if let Some(service) = self.state.lookup.find(&flow.dst, flow.protocol, flow.dst_port) {
            return self.error_from_client(packet, &embedded, &flow, service);
        }
        let session = self.nat.as_ref().and_then(|nat| nat.sessions.find_error_from_backend(&embedded));
        match session {
            Some(session) => self.error_from_backend(packet, &session),
            None if self.is_nat_address(&flow.dst) => Verdict::Drop(DropReason::NoSession),
            None => Verdict::Continue,
        }
    }

    /// An error about what a backend sent to a client.
    fn error_from_client(
        &mut self,
        packet: &mut Packet<'_>,
        embedded: &Embedded,
        flow: &FiveTuple,
        service: usize,
    ) -> Verdict {
        if !self.state.services[service].is_nat {
            let key = self.key(flow, service);
            // The client may send fragments only, which are a flow of their own.
            let fragments = FiveTuple { src_port: 0, dst_port: 0, ..*flow };
            let slot = self
                .known(key)
                .or_else(|| self.known(self.fragment_key(&fragments, service)))
                .or_else(|| self.choose(flow, service as u32));
            return match slot {
                Some(slot) => self.send(packet, slot, service as u32),
                None => Verdict::Drop(DropReason::NoBackend),
            };
        }
        let no_session = Verdict::Drop(DropReason::NoSession);
        let session = self.nat.as_ref().and_then(|nat| nat.sessions.find_error_from_client(embedded));
        let Some(session) = session else { return no_session };
        let Some(slot) = self.state.keeper(MemberRef(session.member)) else { return no_session };
        let Some(hop) = self.state.members[slot as usize].hop else {
            return Verdict::Drop(DropReason::NoNeighbour);
        };
        if pass_hop(packet) == Hop::Expired {
            return Verdict::Drop(DropReason::Expired);
        }
        if translate_error_to_backend(packet, &session).is_err() {
            return Verdict::Drop(DropReason::Malformed);
        }
        match write_link(packet, &hop.link) {
            Ok(()) => self.out_of(hop.port),
            Err(_) => Verdict::Drop(DropReason::NoRoom),
        }
    }

    /// The slot of the member that a known flow stays with.
    fn known(&self, key: u64) -> Option<u32> {
        let (value, _) = self.connections.peek(key, self.now)?;
        self.state.keeper(MemberRef(value))
    }

    /// An error about what a client's packet became on its way to a backend.
    fn error_from_backend(&mut self, packet: &mut Packet<'_>, session: &Session) -> Verdict {
        if pass_hop(packet) == Hop::Expired {
            return Verdict::Drop(DropReason::Expired);
        }
        match translate_error_reply(packet, session) {
            Ok(()) => self.to_client(packet, session.id),
            Err(_) => Verdict::Drop(DropReason::Malformed),
        }
    }
}
