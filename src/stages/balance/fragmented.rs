//! Fragments.
//!
//! Only the first fragment of a datagram has ports. For a service that is alone with its address and protocol all fragments are
//! its own, and the hash of addresses and protocol brings them to one backend, in whatever order they come. Where several
//! services share the address, and for `nat`, the first fragment leaves in a table what the later ones need; those that come before
//! it are dropped, and counted.

use super::fragments::FragmentKey;
use super::nat::{SessionId, tuple_with_ports};
use super::services::OfVip;
use super::stage::Balance;
use crate::packet::FiveTuple;
use crate::pipeline::{DropReason, Packet, Verdict};

/// Marks a session in the fragment table; a service has no such bit.
const SESSION: u32 = 1 << 31;

impl Balance {
    #[cold]
    pub(super) fn fragment(&mut self, packet: &mut Packet<'_>) -> Verdict {
        let (headers, bytes) = (*packet.headers(), packet.bytes());
        let (Some(tuple), Some(key)) = (FiveTuple::of(bytes, &headers), FragmentKey::of(bytes, &headers))
        else {
            return Verdict::Drop(DropReason::Malformed);
        };
        let datagram = key.keyed_hash(self.seed);
        let of_vip = self.state.lookup.find_fragment(&tuple.dst, tuple.protocol);
        let Some(first) = tuple_with_ports(bytes, &headers) else {
            if let OfVip::One(service) = of_vip
                && !self.state.services[service].is_nat
            {
                return self.of_service(packet, &tuple, service as u32);
            }
            return match self.fragments.find(datagram, self.now) {
                Some(value) if value & SESSION != 0 => {
                    self.later_of_session(packet, SessionId(value & !SESSION), &tuple)
                }
                Some(service) => self.of_service(packet, &tuple, service),
                None => Verdict::Drop(DropReason::UnknownFragment),
            };
        };
        let Some(service) = self.state.lookup.find(&first.dst, first.protocol, first.dst_port) else {
            // To an address of NAT: a reply.
            let session = self.nat.as_ref().and_then(|nat| nat.sessions.find_reply(&first));
            let Some(session) = session else { return Verdict::Drop(DropReason::NoSession) };
            self.fragments.insert(datagram, session.id.0 | SESSION, self.now);
            return self.send_reply(packet, &session);
        };
        if self.state.services[service].is_nat {
            let asked = self.connections.ask(self.key(&first, service));
            return match self.session(packet, &first, service as u32, asked) {
                Ok(session) => {
                    self.fragments.insert(datagram, session.id.0 | SESSION, self.now);
                    self.send_by_session(packet, &session)
                }
                Err(verdict) => verdict,
            };
        }
        if of_vip == OfVip::Several {
            self.fragments.insert(datagram, service as u32, self.now);
        }
        self.of_service(packet, &tuple, service as u32)
    }

    /// A fragment of a datagram to a service, `nat` excepted. `tuple` has no ports.
    fn of_service(&mut self, packet: &mut Packet<'_>, tuple: &FiveTuple, service: u32) -> Verdict {
        let key = self.fragment_key(tuple, service as usize);
        match self.member(packet, tuple, service, key) {
            Ok(slot) => self.send(packet, slot, service),
            Err(verdict) => verdict,
        }
    }

    /// The key of a flow of fragments in the connection table; `tuple` has no ports. Two services of one address have such flows of
    /// their own.
    pub(super) fn fragment_key(&self, tuple: &FiveTuple, service: usize) -> u64 {
        self.key(tuple, service) ^ self.state.services[service].salt
    }

    fn later_of_session(&mut self, packet: &mut Packet<'_>, id: SessionId, tuple: &FiveTuple) -> Verdict {
        let session = self.nat.as_ref().and_then(|nat| nat.sessions.get(id));
        let Some(session) = session else { return Verdict::Drop(DropReason::NoSession) };
        let is = |endpoints: FiveTuple| {
            (endpoints.src, endpoints.dst, endpoints.protocol) == (tuple.src, tuple.dst, tuple.protocol)
        };
        if is(session.flow()) {
            self.send_by_session(packet, &session)
        } else if is(session.reply()) {
            self.send_reply(packet, &session)
        } else {
            Verdict::Drop(DropReason::NoSession)
        }
    }
}
