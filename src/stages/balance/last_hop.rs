//! By which way a session's client is reached: where its packets came from.
//!
//! A reply that is translated back goes to the MAC address, port and VLAN that the client's last packet came by. So no route to
//! clients is looked up, and where clients come through several routers, replies go back through the same one.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::nat::SessionId;
use super::way::LinkHeader;
use crate::hints::{huge_array, prefetch};
use crate::packet::MacAddress;
use crate::pipeline::PortIndex;

/// One word a session: 48 bits of MAC address, 4 of port, 12 of VLAN. Any worker writes and reads it.
#[derive(Debug)]
pub(super) struct LastHops(Box<[AtomicU64]>);

/// Where a packet came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LastHop {
    pub port: PortIndex,
    pub mac: MacAddress,
    /// 0 without a tag.
    pub vlan: u16,
}

impl LastHops {
    pub fn new(sessions: usize) -> Self {
        Self(huge_array(sessions, || AtomicU64::new(0)))
    }

    /// Brings the place of a session near.
    #[inline(always)]
    pub fn ask(&self, session: SessionId) {
        // For a hint a session that there is not does no harm.
        prefetch(self.0.as_ptr().wrapping_add(session.0 as usize));
    }

    /// Notes it. Written only if it is another one, so that the line is not taken from other workers for nothing.
    #[inline]
    pub fn note(&self, session: SessionId, hop: LastHop) {
        let [a, b, c, d, e, f] = hop.mac.0;
        let word = u64::from_be_bytes([0, 0, a, b, c, d, e, f])
            | u64::from(hop.port & 0xf) << 48
            | u64::from(hop.vlan & 0xfff) << 52;
        if let Some(place) = self.0.get(session.0 as usize)
            && place.load(Relaxed) != word
        {
            place.store(word, Relaxed);
        }
    }

    /// `None` when nothing was noted.
    #[inline]
    pub fn of(&self, session: SessionId) -> Option<LastHop> {
        let word = self.0.get(session.0 as usize)?.load(Relaxed);
        let [_, _, a, b, c, d, e, f] = word.to_be_bytes();
        let hop = LastHop {
            port: (word >> 48) as PortIndex & 0xf,
            mac: MacAddress([a, b, c, d, e, f]),
            vlan: (word >> 52) as u16,
        };
        (word != 0).then_some(hop)
    }
}

impl LastHop {
    /// The Ethernet header of what goes there, from `source`.
    pub fn link(&self, source: MacAddress) -> LinkHeader {
        LinkHeader { source, destination: self.mac, vlan: (self.vlan != 0).then_some(self.vlan) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_noted_is_read() {
        let hops = LastHops::new(2);
        assert_eq!(hops.of(SessionId(1)), None);
        let hop = LastHop { port: 15, mac: MacAddress([2, 3, 4, 5, 6, 255]), vlan: 4_094 };
        hops.note(SessionId(1), hop);
        assert_eq!((hops.of(SessionId(0)), hops.of(SessionId(1))), (None, Some(hop)));
        hops.note(SessionId(2), hop);
        assert_eq!(hops.of(SessionId(2)), None, "a session that there is not");
    }
}
