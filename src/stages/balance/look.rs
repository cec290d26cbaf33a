//! The first look at a packet: what it is to the balancer.

use super::nat::tuple_with_ports;
use super::services::OfVip;
use super::stage::Balance;
use crate::packet::protocol::{ICMP, ICMPV6, TCP, UDP};
use crate::packet::{FiveTuple, FlowWords, Fragment, Outcome};
use crate::pipeline::Packet;

/// What a packet is to the balancer. Small, since one is kept for each packet of a batch: a packet's five-tuple is taken from the packet
/// again by those that need it.
#[derive(Clone, Copy)]
pub(super) enum Looked {
    /// Nothing: other stages may look at it.
    Nothing,
    /// Of a flow to a service.
    Flow {
        /// Index of the service.
        service: u32,
        /// Of the flow in the connection table.
        key: u64,
    },
    /// Of a flow to a service of NAT.
    NatFlow {
        /// Index of the service.
        service: u32,
        /// Of the flow in the connection table.
        key: u64,
    },
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
    pub(super) fn look(&self, packet: &Packet<'_>) -> Looked {
        let headers = packet.headers();
        if headers.outcome != Outcome::Ip as u8 {
            return Looked::Nothing;
        }
        match headers.protocol {
            TCP | UDP if headers.fragment == Fragment::No as u8 => {}
            TCP | UDP => return self.look_at_fragment(packet),
            ICMP | ICMPV6 => return Looked::Icmp,
            _ => return Looked::Nothing,
        }
        let Some(flow) = FlowWords::of(packet.bytes(), headers) else { return Looked::Nothing };
        match self.state.lookup.find_words(flow.dst, headers.protocol, headers.dst_port) {
            Some(service) => {
                let key = flow.keyed_hash(self.seed);
                if self.state.services[service].is_nat {
                    return Looked::NatFlow { service: service as u32, key: key ^ NAT_KEY };
                }
                Looked::Flow { service: service as u32, key }
            }
            None if self.nat.is_none() => Looked::Nothing,
            None => self.look_at_reply(packet),
        }
    }

    #[inline(never)]
    fn look_at_reply(&self, packet: &Packet<'_>) -> Looked {
        match FiveTuple::of(packet.bytes(), packet.headers()) {
            Some(tuple) if self.is_nat_address(&tuple.dst) => Looked::Reply,
            _ => Looked::Nothing,
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
    fn look_at_fragment(&self, packet: &Packet<'_>) -> Looked {
        let Some(tuple) = FiveTuple::of(packet.bytes(), packet.headers()) else { return Looked::Nothing };
        let of_vip = self.state.lookup.find_fragment(&tuple.dst, tuple.protocol);
        let is_ours = match tuple_with_ports(packet.bytes(), packet.headers()) {
            // The first fragment tells its port.
            Some(first) if of_vip != OfVip::None => {
                self.state.lookup.find(&first.dst, first.protocol, first.dst_port).is_some()
            }
            _ => of_vip != OfVip::None || self.is_nat_address(&tuple.dst),
        };
        if is_ours { Looked::Fragment } else { Looked::Nothing }
    }
}
