//! What xfwd and its XDP program say to each other: map keys and values, what the parser found in a
//! packet, and the causes that are counted.
//!
//! Everything here is `no_std`, `repr(C)` and free of padding, so that both sides see the same bytes.

#![no_std]
// Denied, not forbidden: `pod` promises aya that the types are plain bytes, and nothing else here is unsafe.
#![deny(unsafe_code)]

mod counters;
pub mod deny;
pub mod filter;
mod gate;
mod headers;
pub mod latency;
#[cfg(feature = "aya")]
mod pod;
mod room;
mod steering;
pub mod trafficgen;

pub use counters::{Cause, CauseClass};
pub use gate::Gate;
pub use headers::{Fragment, Headers, MAX_IPV6_EXTENSIONS, MAX_VLAN_TAGS, Outcome};
pub use room::{MAX_ROOM, MIN_ROOM, RoomMark};
pub use steering::{
    MAX_HOST_ADDRESSES, MAX_NETWORKS, MAX_PORTS, MAX_QUEUES, MAX_SERVICES, NetworkKey, PortKey, ServiceKey,
    Settings, map_ipv4,
};

#[cfg(test)]
mod tests {
    use super::*;

    // The sizes are also part of the maps: a change here is a change of the XDP program's interface.
    #[test]
    fn map_keys_and_values_have_no_padding() {
        assert_eq!(size_of::<Settings>(), 4 * size_of::<u32>());
        assert_eq!(size_of::<ServiceKey>(), 16 + 2 + 1 + 1);
        assert_eq!(size_of::<NetworkKey>(), 4 + 16);
        assert_eq!(size_of::<PortKey>(), 4 + 4 + 1 + 1 + 2);
        assert_eq!(size_of::<Headers>(), 8 + 2 * MAX_VLAN_TAGS + 6 * 2 + 4 + 4);
    }

    #[test]
    fn numbers_of_outcomes_and_causes_are_their_places() {
        for (place, outcome) in Outcome::ALL.iter().enumerate() {
            assert_eq!(*outcome as usize, place);
            assert_eq!(Outcome::from_number(*outcome as u8), *outcome);
        }
        for (place, cause) in Cause::ALL.iter().enumerate() {
            assert_eq!(*cause as usize, place);
        }
    }
}
