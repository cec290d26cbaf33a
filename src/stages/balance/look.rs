//! The first look at a packet: what it is to the balancer.

use super::connections::Asked;
use super::nat::{SessionId, tuple_with_ports};
use super::services::OfVip;
use super::stage::Balance;
use super::state::BalanceState;
use crate::packet::protocol::{ICMP, ICMPV6, TCP, UDP};
use crate::packet::{FiveTuple, FlowWords, Fragment, Outcome};
use crate::pipeline::Packet;

/// What a packet is to the balancer, and what was found out about its flow. Small, since one is kept for each packet of a batch: a packet's
/// five-tuple is taken from the packet again by those that need it.
#[derive(Clone, Copy, Default)]
pub(super) struct Looked {
    pub kind: Kind,
    /// Index of the service of a flow; of a reply the number of its session, or [`NO_SESSION`].
    pub number: u32,
    /// A flow in the connection table.
    pub asked: Asked,
}

/// What a packet is to the balancer.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Kind {
    /// Nothing: other stages may look at it.
    #[default]
    Nothing,
    /// Of a flow to a service.
    Flow,
    /// Of a flow to a service of NAT.
    NatFlow,
    /// To an address of NAT.
    Reply,
    /// A fragment to a service or to an address of NAT.
    Fragment,
    /// ICMP.
    Icmp,
}

/// The number of no session: a pool has fewer.
const NO_SESSION: u32 = u32::MAX;

/// Keeps flows whose value is a session apart from flows whose value is a member, should a service go from one to the other.
const NAT_KEY: u64 = 0x9e37_79b9_7f4a_7c15;

impl Balance {
    #[inline(always)]
    pub(super) fn look(&mut self, state: &BalanceState, index: usize, packet: &Packet<'_>) {
        let headers = packet.headers();
        self.looked[index].kind = Kind::Nothing;
        if headers.outcome != Outcome::Ip as u8 {
            return;
        }
        let kind = match headers.protocol {
            TCP | UDP if headers.fragment == Fragment::No as u8 => {
                let Some(flow) = FlowWords::of(packet.bytes(), headers) else { return };
                if let Some(service) = state.lookup.find_words(flow.dst, headers.protocol, headers.dst_port) {
                    let is_nat = state.services[service].is_nat;
                    let key = flow.hash_with(&self.flow_key) ^ if is_nat { NAT_KEY } else { 0 };
                    let looked = &mut self.looked[index];
                    looked.asked = self.connections.ask(key);
                    looked.number = service as u32;
                    looked.kind = if is_nat { Kind::NatFlow } else { Kind::Flow };
                    if is_nat {
                        self.to_approach |= 1 << index;
                    }
                    return;
                }
                if self.nat.is_none() {
                    return;
                }
                self.look_at_reply(index, packet)
            }
            TCP | UDP => self.look_at_fragment(packet),
            ICMP | ICMPV6 => Kind::Icmp,
            _ => return,
        };
        self.looked[index].kind = kind;
    }

    #[inline(never)]
    fn look_at_reply(&mut self, index: usize, packet: &Packet<'_>) -> Kind {
        let tuple = FiveTuple::of(packet.bytes(), packet.headers());
        let Some((nat, tuple)) = self.nat.as_ref().zip(tuple) else { return Kind::Nothing };
        match nat.sessions.number_of_reply(&tuple) {
            Some(id) => {
                nat.sessions.ask(id, packet.headers().ip_version == 4);
                nat.last_hops.ask(id);
                self.looked[index].number = id.0;
            }
            None if nat.sessions.has_address(&tuple.dst) => self.looked[index].number = NO_SESSION,
            None => return Kind::Nothing,
        }
        Kind::Reply
    }

    /// The look at a flow of `nat` in between: its place in the connection table is near by now, and says which session it has. That is
    /// as far away, so it is asked for before the packet is judged; for a flow that nobody knows, what tells whether it is new.
    #[inline(never)]
    pub(super) fn approach(&self, index: usize, packet: &Packet<'_>) {
        let Some(nat) = &self.nat else { return };
        match self.connections.glance(self.looked[index].asked) {
            Some(session) => {
                let id = SessionId(session);
                nat.sessions.ask(id, packet.headers().ip_version == 4);
                nat.last_hops.ask(id);
            }
            None => {
                if let Some(tuple) = FiveTuple::of(packet.bytes(), packet.headers()) {
                    nat.sessions.ask_flow(&tuple);
                }
            }
        }
    }

    /// The key of a flow in the connection table.
    #[inline(always)]
    pub(super) fn key(&self, tuple: &FiveTuple, service: usize) -> u64 {
        let key = tuple.keyed_hash(self.seed);
        if self.state.services[service].is_nat { key ^ NAT_KEY } else { key }
    }

    #[inline(always)]
    pub(super) fn is_nat_address(&self, address: &[u8; 16]) -> bool {
        self.nat.as_ref().is_some_and(|nat| nat.sessions.has_address(address))
    }

    #[cold]
    fn look_at_fragment(&self, packet: &Packet<'_>) -> Kind {
        let Some(tuple) = FiveTuple::of(packet.bytes(), packet.headers()) else { return Kind::Nothing };
        let of_vip = self.state.lookup.find_fragment(&tuple.dst, tuple.protocol);
        let is_ours = match tuple_with_ports(packet.bytes(), packet.headers()) {
            // The first fragment tells its port.
            Some(first) if of_vip != OfVip::None => {
                self.state.lookup.find(&first.dst, first.protocol, first.dst_port).is_some()
            }
            _ => of_vip != OfVip::None || self.is_nat_address(&tuple.dst),
        };
        if is_ours { Kind::Fragment } else { Kind::Nothing }
    }
}
