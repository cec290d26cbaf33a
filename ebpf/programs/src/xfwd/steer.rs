//! Steer or pass: what becomes of a packet whose headers are known.

use core::arch::asm;

use aya_ebpf::{
    bindings::{xdp_action, xdp_md},
    maps::lpm_trie,
    programs::XdpContext,
};
use xfwd_ebpf_types::{Cause, Fragment, Headers, NetworkKey, Outcome, PortKey, ServiceKey, Settings};

use crate::{
    filter,
    maps::{COUNTERS, GATES, HOST_ADDRESSES, NETWORKS, PORT_KEY_BYTES, PORTS, SERVICES, SETTINGS, XSKS},
    packet::Packet,
    parse::{ICMP, ICMPV6, TCP, UDP, bounded_offset, forget, forget_path, parse},
};

const ETHERTYPE_ARP: u16 = 0x0806;
/// Router solicitation, the first of the neighbour discovery messages (RFC 4861).
const ND_FIRST: u8 = 133;
/// Redirect, the last of them.
const ND_LAST: u8 = 137;

const ECHO_REQUEST: u8 = 8;
const ECHO_REQUEST_V6: u8 = 128;
/// Bytes of an ICMP error in front of the packet that it is about.
const ICMP_BYTES: usize = 8;

/// A [`ServiceKey`] in words: written as bytes, it would be built byte by byte for every packet.
#[repr(C)]
struct Key {
    address: [u64; 2],
    /// Port, protocol and scope.
    rest: u32,
    /// Not part of the key: the compiler leaves no hole at the end.
    unused: u32,
}

impl Key {
    #[inline(always)]
    fn new(address: [u64; 2], port: u16, protocol: u8, scope: u8) -> Self {
        let [port_0, port_1] = port.to_be_bytes();
        Self { address, rest: u32::from_ne_bytes([port_0, port_1, protocol, scope]), unused: 0 }
    }

    #[inline(always)]
    fn service(&self) -> &ServiceKey {
        // SAFETY: Key starts with the 20 bytes of a ServiceKey, every one of them is initialized, and any
        // value of them is valid.
        unsafe { &*core::ptr::from_ref(self).cast() }
    }
}

const _: () = assert!(size_of::<ServiceKey>() == 20 && size_of::<Key>() == 24);

/// A [`NetworkKey`] in words.
#[repr(C)]
struct NetworkQuery {
    /// Not part of the key: the words are aligned.
    unused: u32,
    length: u32,
    address: [u64; 2],
}

/// A [`PortKey`] in words.
#[repr(C)]
struct PortQuery {
    length: u32,
    network: u32,
    /// Protocol, scope and port.
    rest: u32,
}

const _: () = assert!(size_of::<NetworkKey>() == 20 && size_of::<NetworkQuery>() == 24);
const _: () = assert!(size_of::<PortKey>() == size_of::<PortQuery>());

/// Decides on one packet, counts the cause, and returns the XDP action.
///
/// What is dropped for its IPv4 source address is dropped here, by a program that is short and needs hardly a register or a word of
/// stack; what takes more is in functions of their own.
#[inline(always)]
pub fn steer(packet: &Packet) -> u32 {
    let (denied, verdicts) = (filter::denied_kinds(), filter::source_verdicts());
    if (denied | verdicts) != 0
        && let Some(ipv4) = packet.plain_ipv4()
    {
        let source = ipv4.source();
        let found = filter::look_at_source(verdicts, source);
        if filter::leads_on(found) {
            return by_whole_source(packet.context, found, source, packet.length_at_once(&ipv4));
        }
        if filter::is_dropped_source(found) {
            return drop_by_rule(packet, found, packet.length_at_once(&ipv4));
        }
        if filter::is_denied_ipv4(denied, source) {
            return drop_denied();
        }
        return by_headers(packet.context, found);
    }
    by_headers(packet.context, filter::UNKNOWN)
}

/// Goes on where the upper half of the source address was not enough: `found` is its word.
#[inline(never)]
fn by_whole_source(context: *mut xdp_md, found: u32, source: u32, length: u64) -> u32 {
    let found = filter::follow(found, source);
    if filter::is_dropped_source(found) {
        return drop_by_rule(&Packet::new(&XdpContext::new(context)), found, length);
    }
    if filter::is_denied_ipv4(filter::denied_kinds(), source) {
        return drop_denied();
    }
    by_headers(context, found)
}

/// Drops for the rule that a word of a source address names; a `length` of 0 is not known.
#[inline(always)]
fn drop_by_rule(packet: &Packet, found: u32, length: u64) -> u32 {
    filter::count(found, if length == 0 { packet.length() } else { length });
    xdp_action::XDP_DROP
}

#[inline(always)]
fn drop_denied() -> u32 {
    count(Cause::DroppedDenied as u32);
    xdp_action::XDP_DROP
}

/// Decides on a packet by all its headers; `source` is the word of its source address, or [`filter::UNKNOWN`].
///
/// A function that is visible from outside: those the verifier follows once, by themselves, and not at every call.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn by_headers(context: *mut xdp_md, source: u32) -> u32 {
    let packet = &Packet::new(&XdpContext::new(context));
    if let Some(room) = takes_unseen() {
        return redirect(packet, Cause::SteeredAll, room);
    }
    let source = forget(source.into(), packet.queue().into()) as u32;
    let headers = forget_path(packet, parse(packet));
    let outcome = headers.outcome();
    let is_arp = outcome as u8 == Outcome::NotIp as u8 && headers.ethertype == ETHERTYPE_ARP;
    if !is_arp && !is_neighbour_discovery(&headers) {
        if filter::is_denied(packet, &headers) {
            count(Cause::DroppedDenied as u32);
            return xdp_action::XDP_DROP;
        }
        // Counted for the rule: user space adds up what `dropped-rule` is.
        if filter::drops(packet, &headers, source) {
            return xdp_action::XDP_DROP;
        }
    }
    if outcome.is_malformed() && besides() != Settings::EVERYTHING {
        return pass(Cause::malformed_index(outcome));
    }
    let is_ip = outcome as u8 == Outcome::Ip as u8;
    if is_ip {
        let Some(destination) = destination(packet, &headers) else {
            // Not reached: the parser has seen the whole IP header.
            return xdp_action::XDP_PASS;
        };
        if let Some((key, cause)) = key(packet, &headers, destination)
            && let Some(room) = room(&key)
        {
            return redirect(packet, cause, room);
        }
        if is_neighbour_discovery(&headers) && besides() != Settings::EVERYTHING {
            return pass(Cause::PassedNeighbourDiscovery as u32);
        }
        let address = Key::new(destination, 0, 0, 0);
        // SAFETY: the value is not read.
        if besides() == Settings::ALL && unsafe { HOST_ADDRESSES.get(&address.service().address) }.is_some() {
            return pass(Cause::PassedHost as u32);
        }
    } else if is_arp && besides() != Settings::EVERYTHING {
        return pass(Cause::PassedArp as u32);
    }
    if besides() != 0 {
        let room = SETTINGS.get(0).map_or(0, |settings| settings.room);
        return redirect(packet, Cause::SteeredAll, room as u8);
    }
    pass(if !is_ip {
        Cause::PassedNotIp
    } else if is_tcp_or_udp(&headers) && headers.fragment() != Fragment::No {
        Cause::PassedFragment
    } else {
        Cause::PassedNoService
    } as u32)
}

/// The room for packets if all of them leave whatever is in them, so that nobody has to look. `None` if it depends on the packet.
#[inline(always)]
fn takes_unseen() -> Option<u8> {
    if filter::looks_at_packets() {
        return None;
    }
    let settings = SETTINGS.get(0)?;
    (settings.steer == Settings::EVERYTHING && settings.services == 0).then_some(settings.room as u8)
}

/// Under which key the packet would be a service's, and what it is then counted as. `None` for what no service has.
#[inline(always)]
fn key(packet: &Packet, headers: &Headers, destination: [u64; 2]) -> Option<(Key, Cause)> {
    if is_tcp_or_udp(headers) {
        return Some(if headers.fragment() == Fragment::No {
            (Key::new(destination, headers.dst_port, headers.protocol, 0), Cause::SteeredService)
        } else {
            (Key::new(destination, 0, headers.protocol, ServiceKey::ANY_PORT), Cause::SteeredFragment)
        });
    }
    // A type is there only if the parser took it for an ICMP header.
    if headers.fragment() != Fragment::No {
        return None;
    }
    let key = match (headers.protocol, headers.icmp_type) {
        (ICMP, ECHO_REQUEST) | (ICMPV6, ECHO_REQUEST_V6) => {
            Key::new(destination, 0, headers.protocol, ServiceKey::ANY_PORT)
        }
        // Destination unreachable, time exceeded, parameter problem (RFC 792).
        (ICMP, 3 | 11 | 12) => embedded(packet, headers)?,
        // The same and packet too big (RFC 4443).
        (ICMPV6, 1..=4) => embedded(packet, headers)?,
        _ => return None,
    };
    Some((key, Cause::SteeredIcmp))
}

/// Source of the TCP or UDP packet that an ICMP error is about, as the destination of an answer to it. What is embedded is a
/// packet that left this machine, so IPv6 extension headers are not looked behind.
#[inline(always)]
fn embedded(packet: &Packet, headers: &Headers) -> Option<Key> {
    let transport = usize::from(headers.transport_offset);
    let inner = bounded_offset(transport) + ICMP_BYTES;
    if inner != transport + ICMP_BYTES {
        return None;
    }
    let (address, protocol, transport) = if headers.ip_version == 4 {
        let header: &[u8; 20] = packet.bytes(inner)?;
        let length = usize::from(header[0] & 0x0f) * 4;
        let is_later_fragment = header[6] & 0x1f | header[7] != 0;
        if header[0] >> 4 != 4 || length < 20 || is_later_fragment {
            return None;
        }
        (mapped([header[12], header[13], header[14], header[15]]), header[9], inner + length)
    } else {
        let header: &[u8; 40] = packet.bytes(inner)?;
        if header[0] >> 4 != 6 {
            return None;
        }
        let address =
            [u64::from_ne_bytes(*packet.bytes(inner + 8)?), u64::from_ne_bytes(*packet.bytes(inner + 16)?)];
        (address, header[6], inner + 40)
    };
    if !matches!(protocol, TCP | UDP) || transport + 4 > headers.end as usize {
        return None;
    }
    let [port_0, port_1, _, _] = *packet.bytes::<4>(transport)?;
    Some(Key::new(address, u16::from_be_bytes([port_0, port_1]), protocol, 0))
}

/// The room that a service wants in front of its packets; `None` when nobody has this key.
#[inline(always)]
fn room(key: &Key) -> Option<u8> {
    // SAFETY: the value is read at once, and a word is written at once.
    if let Some(room) = unsafe { SERVICES.get(key.service()) } {
        return Some(*room as u8);
    }
    let networks = SETTINGS.get(0).map_or(0, |settings| settings.networks);
    if networks == 0 {
        return None;
    }
    let network = network(key.address, networks)?;
    let query = PortQuery { length: PortKey::FULL, network, rest: key.rest.rotate_left(16) };
    // SAFETY: it is the 12 bytes of the map's key, a packed struct, all of them initialized.
    let query: &lpm_trie::Key<[u8; PORT_KEY_BYTES]> = unsafe { &*(&raw const query).cast() };
    PORTS.get(query).map(|room| *room as u8)
}

/// The number of the longest prefix that holds an address, or of the address itself.
#[inline(always)]
fn network(address: [u64; 2], networks: u32) -> Option<u32> {
    if networks & Settings::ADDRESSES != 0 {
        let key = Key::new(address, 0, 0, ServiceKey::NETWORK);
        // SAFETY: the value is read at once, and a word is written at once.
        if let Some(network) = unsafe { SERVICES.get(key.service()) } {
            return Some(*network);
        }
    }
    if networks & Settings::PREFIXES == 0 {
        return None;
    }
    let query = NetworkQuery { unused: 0, length: NetworkKey::FULL, address };
    // SAFETY: behind its first word lie the 20 bytes of the map's key, a packed struct, all of them initialized.
    let query: &lpm_trie::Key<[u8; 16]> = unsafe { &*(&raw const query.length).cast() };
    NETWORKS.get(query).copied()
}

/// What leaves besides packets of a service. Read only when no service matched, or the packet is broken: most packets of a load
/// balancer do not get that far.
#[inline(always)]
fn besides() -> u32 {
    SETTINGS.get(0).map_or(0, |settings| settings.steer)
}

#[inline(always)]
fn is_tcp_or_udp(headers: &Headers) -> bool {
    matches!(headers.protocol, TCP | UDP)
}

/// Only what the parser took for an ICMPv6 header has a type: a later fragment has none, and 0 is not in
/// range.
#[inline(always)]
fn is_neighbour_discovery(headers: &Headers) -> bool {
    headers.ip_version == 6 && headers.protocol == ICMPV6 && (ND_FIRST..=ND_LAST).contains(&headers.icmp_type)
}

/// Destination address of an IP packet, as `map_ipv4` writes it.
#[inline(always)]
fn destination(packet: &Packet, headers: &Headers) -> Option<[u64; 2]> {
    let network = usize::from(headers.network_offset);
    Some(if headers.ip_version == 4 {
        mapped(*packet.bytes(network + 16)?)
    } else {
        [u64::from_ne_bytes(*packet.bytes(network + 24)?), u64::from_ne_bytes(*packet.bytes(network + 32)?)]
    })
}

#[inline(always)]
fn mapped([a, b, c, d]: [u8; 4]) -> [u64; 2] {
    [0, u64::from_ne_bytes([0, 0, 0xff, 0xff, a, b, c, d])]
}

/// Redirects to the socket of the packet's queue, with this much room in front if there can be, or passes when there is no
/// socket. What the worker has no room for is dropped.
#[inline(always)]
fn redirect(packet: &Packet, cause: Cause, room: u8) -> u32 {
    if is_shed(packet.queue()) {
        count(Cause::LostQueueFull as u32);
        return xdp_action::XDP_DROP;
    }
    match XSKS.redirect(packet.queue(), u64::from(xdp_action::XDP_PASS)) {
        Ok(action) => {
            count(cause as u32);
            // The last thing of all: a packet that passes is left as it is.
            if room != 0 {
                packet.make_room(room);
            }
            action
        }
        Err(_) => pass(Cause::PassedNoSocket as u32),
    }
}

/// Whether the gate of a queue is closed, and so one more packet shed.
#[inline(always)]
fn is_shed(queue: u32) -> bool {
    let Some(gate) = GATES.get_ptr_mut(queue) else {
        return false;
    };
    // SAFETY: the element is as large as a Gate. User space may write the word meanwhile, so it is read as it is.
    if unsafe { (&raw const (*gate).closed).read_volatile() } == 0 {
        return false;
    }
    // An atomic addition, which `core` does not have for this target: in generic mode several CPUs receive from one queue.
    // SAFETY: eight bytes of the element, and nothing but this writes them.
    unsafe {
        asm!("lock *(u64 *)({0} + 0) += {1}", in(reg) &raw mut (*gate).shed, in(reg) 1_u64, options(nostack));
    }
    true
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
