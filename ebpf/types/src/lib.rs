//! What xfwd and its XDP program say to each other: map keys and values, what the parser found in a
//! packet, and the causes that are counted.
//!
//! Everything here is `no_std`, `repr(C)` and free of padding, so that both sides see the same bytes.

#![no_std]
#![forbid(unsafe_code)]

mod counters;
mod headers;
mod steering;
pub mod trafficgen;

pub use counters::{Cause, CauseClass};
pub use headers::{Fragment, Headers, MAX_IPV6_EXTENSIONS, MAX_VLAN_TAGS, Outcome};
pub use steering::{MAX_HOST_ADDRESSES, MAX_QUEUES, MAX_SERVICES, ServiceKey, Settings, map_ipv4};
