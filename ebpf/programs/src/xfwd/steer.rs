//! Steer or pass: what becomes of a packet whose headers are known.

use aya_ebpf::bindings::xdp_action;
use xfwd_ebpf_types::{Cause, Fragment, Headers, Outcome, ServiceKey};

use crate::{
    filter,
    maps::{COUNTERS, HOST_ADDRESSES, SERVICES, SETTINGS, XSKS},
    packet::Packet,
    parse::{ICMPV6, TCP, UDP, forget_path, parse},
};

const ETHERTYPE_ARP: u16 = 0x0806;
/// Router solicitation, the first of the neighbour discovery messages (RFC 4861).
const ND_FIRST: u8 = 133;
/// Redirect, the last of them.
const ND_LAST: u8 = 137;

/// A [`ServiceKey`] in words: written as bytes, it would be built byte by byte for every packet.
#[repr(C)]
struct Key {
    address: [u64; 2],
    port_and_protocol: u32,
    /// Not part of the key: the compiler leaves no hole at the end.
    unused: u32,
}

impl Key {
    #[inline(always)]
    fn service(&self) -> &ServiceKey {
        // SAFETY: Key starts with the 20 bytes of a ServiceKey, every one of them is initialized, and any
        // value of them is valid.
        unsafe { &*core::ptr::from_ref(self).cast() }
    }
}

const _: () = assert!(size_of::<ServiceKey>() == 20 && size_of::<Key>() == 24);

/// Decides on one packet, counts the cause, and returns the XDP action.
#[inline(always)]
pub fn steer(packet: &Packet) -> u32 {
    let source = filter::look_at_source(packet);
    if filter::drops_by_source(packet, source) {
        count(Cause::DroppedRule as u32);
        return xdp_action::XDP_DROP;
    }
    let headers = forget_path(packet, parse(packet));
    let outcome = headers.outcome();
    let is_arp = outcome as u8 == Outcome::NotIp as u8 && headers.ethertype == ETHERTYPE_ARP;
    if !is_arp && !is_neighbour_discovery(&headers) {
        if filter::is_denied(packet, &headers) {
            count(Cause::DroppedDenied as u32);
            return xdp_action::XDP_DROP;
        }
        if filter::drops(packet, &headers, source) {
            count(Cause::DroppedRule as u32);
            return xdp_action::XDP_DROP;
        }
    }
    if outcome.is_malformed() {
        return pass(Cause::malformed_index(outcome));
    }
    let is_ip = outcome as u8 == Outcome::Ip as u8;
    if is_ip {
        let Some(key) = key(packet, &headers) else {
            // Not reached: the parser has seen the whole IP header.
            return xdp_action::XDP_PASS;
        };
        // SAFETY: the value is not read.
        if is_whole_tcp_or_udp(&headers) && unsafe { SERVICES.get(key.service()) }.is_some() {
            return redirect(packet, Cause::SteeredService);
        }
        if is_neighbour_discovery(&headers) {
            return pass(Cause::PassedNeighbourDiscovery as u32);
        }
        // SAFETY: the value is not read.
        if steer_all() && unsafe { HOST_ADDRESSES.get(&key.service().address) }.is_some() {
            return pass(Cause::PassedHost as u32);
        }
    } else if is_arp {
        return pass(Cause::PassedArp as u32);
    }
    if steer_all() {
        return redirect(packet, Cause::SteeredAll);
    }
    pass(if !is_ip {
        Cause::PassedNotIp
    } else if is_tcp_or_udp(&headers) && headers.fragment() != Fragment::No {
        Cause::PassedFragment
    } else {
        Cause::PassedNoService
    } as u32)
}

/// Read only when no service matched: most packets of a load balancer do not get that far.
#[inline(always)]
fn steer_all() -> bool {
    SETTINGS.get(0).is_some_and(|settings| settings.steer_all != 0)
}

#[inline(always)]
fn is_tcp_or_udp(headers: &Headers) -> bool {
    matches!(headers.protocol, TCP | UDP)
}

#[inline(always)]
fn is_whole_tcp_or_udp(headers: &Headers) -> bool {
    is_tcp_or_udp(headers) && headers.fragment() == Fragment::No
}

/// Only what the parser took for an ICMPv6 header has a type: a later fragment has none, and 0 is not in
/// range.
#[inline(always)]
fn is_neighbour_discovery(headers: &Headers) -> bool {
    headers.ip_version == 6 && headers.protocol == ICMPV6 && (ND_FIRST..=ND_LAST).contains(&headers.icmp_type)
}

/// Destination address, protocol and port of an IP packet.
#[inline(always)]
fn key(packet: &Packet, headers: &Headers) -> Option<Key> {
    let network = usize::from(headers.network_offset);
    let address = if headers.ip_version == 4 {
        let [a, b, c, d] = *packet.bytes(network + 16)?;
        // As `map_ipv4` writes it.
        [0, u64::from_ne_bytes([0, 0, 0xff, 0xff, a, b, c, d])]
    } else {
        [
            u64::from_ne_bytes(*packet.bytes(network + 24)?),
            u64::from_ne_bytes(*packet.bytes(network + 32)?),
        ]
    };
    let [port_0, port_1] = headers.dst_port.to_be_bytes();
    Some(Key {
        address,
        port_and_protocol: u32::from_ne_bytes([port_0, port_1, headers.protocol, 0]),
        unused: 0,
    })
}

/// Redirects to the socket of the packet's queue, or passes when there is none.
#[inline(always)]
fn redirect(packet: &Packet, cause: Cause) -> u32 {
    match XSKS.redirect(packet.queue(), u64::from(xdp_action::XDP_PASS)) {
        Ok(action) => {
            count(cause as u32);
            action
        }
        Err(_) => pass(Cause::PassedNoSocket as u32),
    }
}

#[inline(always)]
fn pass(counter: u32) -> u32 {
    count(counter);
    xdp_action::XDP_PASS
}

#[inline(always)]
fn count(counter: u32) {
    if let Some(packets) = COUNTERS.get_ptr_mut(counter) {
        // SAFETY: the element is this CPU's own, and XDP programs on one CPU do not interrupt each other.
        unsafe { *packets += 1 };
    }
}
