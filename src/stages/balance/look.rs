//! The first look at a packet: what it is to the balancer.

use super::connections::Asked;
use super::nat::tuple_with_ports;
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
    /// Index of the service; of a flow, as the next.
    pub service: u32,
    /// The flow in the connection table.
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
                    looked.service = service as u32;
                    looked.kind = if is_nat { Kind::NatFlow } else { Kind::Flow };
                    return;
                }
                if self.nat.is_none() {
                    return;
                }
                self.look_at_reply(packet)
            }
            TCP | UDP => self.look_at_fragment(packet),
            ICMP | ICMPV6 => Kind::Icmp,
            _ => return,
        };
        self.looked[index].kind = kind;
    }

    #[inline(never)]
    fn look_at_reply(&self, packet: &Packet<'_>) -> Kind {
        match FiveTuple::of(packet.bytes(), packet.headers()) {
            Some(tuple) if self.is_nat_address(&tuple.dst) => Kind::Reply,
            _ => Kind::Nothing,
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
