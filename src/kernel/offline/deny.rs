//! The deny list.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::kernel::deny::DenyEntry;
use crate::kernel::deny::file::Line;
use crate::kernel::offline::lpm::Lpm;
use crate::kernel::xdp::address_key;
use crate::stages::filter::Facts;

/// A 5-tuple with its IP version: addresses and ports, protocol.
type Flow = (u8, [u8; 16], u16, [u8; 16], u16, u8);

/// What is denied, and until when.
pub(super) struct Denied {
    /// Source prefixes of IPv4, as the upper bits of the number.
    v4: Lpm<Duration>,
    v6: Lpm<Duration>,
    flows: HashMap<Flow, Duration>,
}

impl Denied {
    pub fn new(lines: &[Line]) -> Self {
        // The same entry twice holds until the later end.
        let mut ends: HashMap<DenyEntry, Duration> = HashMap::new();
        for Line { entry, ttl } in lines {
            let end = ends.entry(*entry).or_default();
            *end = ttl.unwrap_or(Duration::MAX).max(*end);
        }
        let (mut v4, mut v6, mut flows) = (Vec::new(), Vec::new(), HashMap::new());
        for (entry, end) in ends {
            match entry {
                DenyEntry::Source(prefix) => match prefix.address() {
                    IpAddr::V4(address) => v4.push((top(address.to_bits()), prefix.length(), end)),
                    IpAddr::V6(address) => v6.push((address.to_bits(), prefix.length(), end)),
                },
                DenyEntry::Flow { src, dst, protocol } => _ = flows.insert(flow(&src, &dst, protocol), end),
            }
        }
        Self { v4: Lpm::new(v4), v6: Lpm::new(v6), flows }
    }

    pub fn is_any(&self) -> bool {
        !(self.v4.is_empty() && self.v6.is_empty() && self.flows.is_empty())
    }

    /// Whether a packet is denied at this moment.
    pub fn holds(&self, facts: &Facts, at: Duration) -> bool {
        let (sources, source) = match facts.ip_version {
            4 => (&self.v4, top(u128::from_be_bytes(facts.src) as u32)),
            6 => (&self.v6, u128::from_be_bytes(facts.src)),
            _ => return false,
        };
        if sources.all(source).any(|end| at < *end) {
            return true;
        }
        if self.flows.is_empty() {
            return false;
        }
        let (Some((src_port, dst_port)), Some(protocol)) = (facts.ports, facts.protocol) else {
            return false;
        };
        let flow = (facts.ip_version, facts.src, src_port, facts.dst, dst_port, protocol);
        self.flows.get(&flow).is_some_and(|end| at < *end)
    }
}

fn top(address: u32) -> u128 {
    u128::from(address) << 96
}

fn flow(src: &SocketAddr, dst: &SocketAddr, protocol: u8) -> Flow {
    let version = if src.is_ipv4() { 4 } else { 6 };
    (version, address_key(src.ip()), src.port(), address_key(dst.ip()), dst.port(), protocol)
}
