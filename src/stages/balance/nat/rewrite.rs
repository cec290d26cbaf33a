//! Addresses and ports in headers: read, replaced, and what that changes in checksums.
//!
//! Every function looks whether all that it will touch is there before it touches anything.

use super::session::Endpoint;
use crate::packet::checksum::Delta;
use crate::packet::protocol::{TCP, UDP};
use crate::packet::{Ipv4, Ipv6};

/// New ends of a packet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ends {
    pub(super) source: Endpoint,
    pub(super) destination: Endpoint,
}

/// What has changed in an IP header.
#[derive(Clone, Copy, Debug)]
pub(super) struct AddressChange {
    /// By the addresses: what every checksum with a pseudo header has to follow.
    pub(super) addresses: Delta,
    /// By all changes, the IPv4 header checksum included: what a checksum over the header has to follow.
    pub(super) header: Delta,
}

/// Whether an IP header of this version lies at the beginning of `bytes` and takes these ends.
#[inline]
pub(super) fn takes_addresses(bytes: &[u8], version: u8, ends: &Ends) -> bool {
    let is_ipv4 = version == 4;
    let is_there = if is_ipv4 { Ipv4::new_checked(bytes).is_ok() } else { Ipv6::new_checked(bytes).is_ok() };
    is_there && ends.source.is_ipv4() == is_ipv4 && ends.destination.is_ipv4() == is_ipv4
}

/// Replaces the addresses of an IP header, and brings its own checksum up to date. Nothing happens where
/// [`takes_addresses`] says no.
#[inline]
pub(super) fn set_addresses(bytes: &mut [u8], ends: &Ends) -> AddressChange {
    let unchanged = AddressChange { addresses: Delta::new(), header: Delta::new() };
    match (ends.source.ipv4(), ends.destination.ipv4()) {
        (Some(source), Some(destination)) => {
            let Ok(mut header) = Ipv4::new_checked(bytes) else { return unchanged };
            let addresses =
                Delta::new().ipv4(header.source(), source).ipv4(header.destination(), destination);
            let (before, after) = (header.checksum(), addresses.apply(header.checksum()));
            header.set_source(source);
            header.set_destination(destination);
            header.set_checksum(after);
            AddressChange { addresses, header: addresses.u16(before, after) }
        }
        _ => {
            let Ok(mut header) = Ipv6::new_checked(bytes) else { return unchanged };
            let (source, destination) = (ends.source.address.into(), ends.destination.address.into());
            let addresses =
                Delta::new().ipv6(header.source(), source).ipv6(header.destination(), destination);
            header.set_source(source);
            header.set_destination(destination);
            AddressChange { addresses, header: addresses }
        }
    }
}

/// How much of a transport header is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Transport {
    /// Not even the ports.
    Missing,
    /// The ports, and not the checksum: where an ICMP error quotes no more of a TCP segment than it has to.
    Ports,
    /// All.
    Whole,
}

impl Transport {
    #[inline]
    pub(super) fn of(bytes: &[u8], protocol: u8) -> Self {
        let checksum_end = match protocol {
            TCP => 18,
            UDP => 8,
            _ => return Self::Missing,
        };
        match bytes.len() {
            0..4 => Self::Missing,
            length if length < checksum_end => Self::Ports,
            _ => Self::Whole,
        }
    }
}

/// Replaces the ports of a TCP or UDP header and, if it is there, brings its checksum up to date, from what `addresses`
/// has changed in the pseudo header. Returns what has changed in the header, checksum included.
#[inline]
pub(super) fn set_ports(bytes: &mut [u8], protocol: u8, ends: &Ends, addresses: Delta) -> Delta {
    let transport = Transport::of(bytes, protocol);
    let Some(header) = bytes.first_chunk_mut::<4>() else { return Delta::new() };
    if transport == Transport::Missing {
        return Delta::new();
    }
    let [a, b, c, d] = *header;
    let before = [u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])];
    let after = [ends.source.port, ends.destination.port];
    header[..2].copy_from_slice(&after[0].to_be_bytes());
    header[2..].copy_from_slice(&after[1].to_be_bytes());
    let ports = |delta: Delta| delta.u16(before[0], after[0]).u16(before[1], after[1]);
    if transport == Transport::Ports {
        return ports(Delta::new());
    }
    let change = ports(addresses);
    let (before, after) = set_checksum(bytes, protocol, change);
    ports(Delta::new()).u16(before, after)
}

/// Applies a change to the checksum of a whole transport header; returns the old and the new one.
#[inline]
fn set_checksum(bytes: &mut [u8], protocol: u8, change: Delta) -> (u16, u16) {
    let at = if protocol == TCP { 16 } else { 6 };
    let Some(field) = bytes.get_mut(at..at + 2) else { return (0, 0) };
    let before = u16::from_be_bytes([field[0], field[1]]);
    let after = if protocol == TCP { change.apply(before) } else { change.apply_udp(before) };
    field.copy_from_slice(&after.to_be_bytes());
    (before, after)
}
