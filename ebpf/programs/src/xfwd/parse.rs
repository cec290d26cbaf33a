//! The parser, by the rules of [`Headers`]. User space has its own, which a test compares with this one.
//!
//! Everything is inlined into one straight run over the headers, so that the compiler drops the fields the
//! caller does not use.

use core::arch::asm;

use xfwd_ebpf_types::{Fragment, Headers, MAX_IPV6_EXTENSIONS, Outcome};

use crate::packet::Packet;

const ETHERNET_BYTES: usize = 14;
const VLAN_TAG_BYTES: usize = 4;
const IPV4_BYTES: usize = 20;
const IPV6_BYTES: usize = 40;
const TCP_BYTES: usize = 20;
const UDP_BYTES: usize = 8;
const ICMP_BYTES: usize = 8;
const SCTP_BYTES: usize = 12;

const ETHERTYPE_VLAN: u16 = 0x8100;
const ETHERTYPE_SERVICE_VLAN: u16 = 0x88a8;
const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_IPV6: u16 = 0x86dd;

const HOP_BY_HOP: u8 = 0;
pub const ICMP: u8 = 1;
pub const TCP: u8 = 6;
pub const UDP: u8 = 17;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
pub const ICMPV6: u8 = 58;
const DESTINATION_OPTIONS: u8 = 60;
pub const SCTP: u8 = 132;

/// Parses the headers of `packet`.
#[inline(always)]
pub fn parse(packet: &Packet) -> Headers {
    let mut headers = Headers::default();
    let outcome = match ethernet(packet, &mut headers) {
        Ok(()) => Outcome::Ip,
        Err(outcome) => outcome,
    };
    headers.outcome = outcome as u8;
    headers
}

#[inline(always)]
fn ethernet(packet: &Packet, headers: &mut Headers) -> Result<(), Outcome> {
    let header: &[u8; ETHERNET_BYTES] = packet.bytes(0).ok_or(Outcome::TruncatedEthernet)?;
    let mut ethertype = u16_at(header, 12);
    let mut offset = ETHERNET_BYTES;
    for tci in &mut headers.vlan_tci {
        if ethertype != ETHERTYPE_VLAN && ethertype != ETHERTYPE_SERVICE_VLAN {
            break;
        }
        let tag: &[u8; VLAN_TAG_BYTES] = packet.bytes(offset).ok_or(Outcome::TruncatedVlan)?;
        *tci = u16_at(tag, 0);
        ethertype = u16_at(tag, 2);
        offset += VLAN_TAG_BYTES;
        headers.vlan_count += 1;
    }
    headers.ethertype = ethertype;
    headers.network_offset = offset as u16;
    match ethertype {
        ETHERTYPE_IPV4 => ipv4(packet, headers, offset),
        ETHERTYPE_IPV6 => ipv6(packet, headers, offset),
        _ => Err(Outcome::NotIp),
    }
}

#[inline(always)]
fn ipv4(packet: &Packet, headers: &mut Headers, offset: usize) -> Result<(), Outcome> {
    let header: &[u8; IPV4_BYTES] = packet.bytes(offset).ok_or(Outcome::TruncatedIpv4)?;
    if header[0] >> 4 != 4 {
        return Err(Outcome::Ipv4Version);
    }
    headers.ip_version = 4;
    let header_length = usize::from(header[0] & 0x0f) * 4;
    if header_length < IPV4_BYTES {
        return Err(Outcome::Ipv4HeaderLength);
    }
    if !packet.is_linear_to(offset + header_length) {
        return Err(Outcome::TruncatedIpv4);
    }
    let total_length = bounded(u16_at(header, 2));
    let end = offset + total_length;
    if total_length < header_length || !packet.reaches(end) {
        return Err(Outcome::Ipv4TotalLength);
    }
    headers.end = end as u32;
    headers.protocol = header[9];
    headers.ip_options = u8::from(header_length > IPV4_BYTES);
    let flags_and_offset = u16_at(header, 6);
    let fragment = fragment(flags_and_offset & 0x1fff != 0, flags_and_offset & 0x2000 != 0);
    headers.fragment = fragment as u8;
    if fragment == Fragment::Later {
        return Ok(());
    }
    let offset = offset + header_length;
    match headers.protocol {
        TCP => tcp(packet, headers, offset, end),
        UDP => udp(packet, headers, offset, end),
        SCTP => sctp(packet, headers, offset, end),
        ICMP => icmp(packet, headers, offset, end),
        _ => Ok(()),
    }
}

#[inline(always)]
fn ipv6(packet: &Packet, headers: &mut Headers, offset: usize) -> Result<(), Outcome> {
    let header: &[u8; IPV6_BYTES] = packet.bytes(offset).ok_or(Outcome::TruncatedIpv6)?;
    if header[0] >> 4 != 6 {
        return Err(Outcome::Ipv6Version);
    }
    headers.ip_version = 6;
    let mut offset = offset + IPV6_BYTES;
    let end = offset + bounded(u16_at(header, 4));
    if !packet.reaches(end) {
        return Err(Outcome::Ipv6PayloadLength);
    }
    headers.end = end as u32;

    let mut next = header[6];
    if is_extension(next) {
        // The conditions stand at the bottom for Linux 6.1, which accepts a loop only if what leads back is a jump. If
        // the bottom ended in none, the compiler could lay it in front of the top and let it run on into that.
        let mut extensions = 0;
        loop {
            // No extension header is shorter than 8 bytes.
            let extension: &[u8; 8] = packet.bytes(offset).ok_or(Outcome::TruncatedExtension)?;
            let length = match next {
                FRAGMENT => 8,
                AUTHENTICATION => (usize::from(extension[1]) + 2) * 4,
                _ => (usize::from(extension[1]) + 1) * 8,
            };
            let behind = offset + length;
            if behind > end || !packet.is_linear_to(behind) {
                return Err(Outcome::TruncatedExtension);
            }
            let is_fragment_header = next == FRAGMENT;
            headers.ip_options |= u8::from(carries_options(next));
            next = extension[0];
            offset = forget_history(packet, behind);
            if is_fragment_header {
                let offset_and_flags = u16_at(extension, 2);
                match fragment(offset_and_flags & 0xfff8 != 0, offset_and_flags & 1 != 0) {
                    Fragment::Later => {
                        headers.fragment = Fragment::Later as u8;
                        headers.protocol = next;
                        return Ok(());
                    }
                    Fragment::First => headers.fragment = Fragment::First as u8,
                    Fragment::No => {}
                }
            }
            extensions += 1;
            if !is_extension(next) {
                break;
            }
            if extensions == MAX_IPV6_EXTENSIONS {
                return Err(Outcome::TooManyExtensions);
            }
        }
    }
    headers.protocol = next;
    match next {
        TCP => tcp(packet, headers, offset, end),
        UDP => udp(packet, headers, offset, end),
        SCTP => sctp(packet, headers, offset, end),
        ICMPV6 => icmp(packet, headers, offset, end),
        _ => Ok(()),
    }
}

#[inline(always)]
fn is_extension(next: u8) -> bool {
    matches!(next, HOP_BY_HOP | ROUTING | FRAGMENT | AUTHENTICATION | DESTINATION_OPTIONS)
}

/// Whether the extension header carries what IPv4 has options for.
#[inline(always)]
fn carries_options(next: u8) -> bool {
    matches!(next, HOP_BY_HOP | ROUTING | DESTINATION_OPTIONS)
}

#[inline(always)]
fn fragment(has_offset: bool, has_more: bool) -> Fragment {
    match (has_offset, has_more) {
        (true, _) => Fragment::Later,
        (false, true) => Fragment::First,
        (false, false) => Fragment::No,
    }
}

#[inline(always)]
fn tcp(packet: &Packet, headers: &mut Headers, offset: usize, end: usize) -> Result<(), Outcome> {
    let header: &[u8; TCP_BYTES] = within(packet, offset, end).ok_or(Outcome::TruncatedTcp)?;
    headers.transport_offset = offset as u16;
    headers.src_port = u16_at(header, 0);
    headers.dst_port = u16_at(header, 2);
    headers.tcp_flags = header[13];
    let header_length = usize::from(header[12] >> 4) * 4;
    if header_length < TCP_BYTES {
        return Err(Outcome::TcpDataOffset);
    }
    let behind = offset + header_length;
    if behind > end || !packet.is_linear_to(behind) {
        return Err(Outcome::TruncatedTcp);
    }
    headers.payload_offset = behind as u16;
    Ok(())
}

#[inline(always)]
fn udp(packet: &Packet, headers: &mut Headers, offset: usize, end: usize) -> Result<(), Outcome> {
    let header: &[u8; UDP_BYTES] = within(packet, offset, end).ok_or(Outcome::TruncatedUdp)?;
    headers.transport_offset = offset as u16;
    headers.src_port = u16_at(header, 0);
    headers.dst_port = u16_at(header, 2);
    let length = usize::from(u16_at(header, 4));
    // The length of a fragmented datagram is that of the whole datagram.
    let is_whole = headers.fragment == Fragment::No as u8;
    if length < UDP_BYTES || (is_whole && offset + length > end) {
        return Err(Outcome::UdpLength);
    }
    headers.payload_offset = (offset + UDP_BYTES) as u16;
    Ok(())
}

#[inline(always)]
fn sctp(packet: &Packet, headers: &mut Headers, offset: usize, end: usize) -> Result<(), Outcome> {
    let header: &[u8; SCTP_BYTES] = within(packet, offset, end).ok_or(Outcome::TruncatedSctp)?;
    headers.transport_offset = offset as u16;
    headers.src_port = u16_at(header, 0);
    headers.dst_port = u16_at(header, 2);
    headers.payload_offset = (offset + SCTP_BYTES) as u16;
    Ok(())
}

#[inline(always)]
fn icmp(packet: &Packet, headers: &mut Headers, offset: usize, end: usize) -> Result<(), Outcome> {
    let header: &[u8; ICMP_BYTES] = within(packet, offset, end).ok_or(Outcome::TruncatedIcmp)?;
    headers.transport_offset = offset as u16;
    headers.icmp_type = header[0];
    headers.icmp_code = header[1];
    headers.payload_offset = (offset + ICMP_BYTES) as u16;
    Ok(())
}

/// The offset unchanged; all the verifier knows about it afterwards is that it is below 32,768, which 8
/// extension headers of at most 2,048 bytes cannot reach.
///
/// Without this the verifier follows every combination of extension headers on its own, since each leads to
/// another range of offsets, and needs more than ten times as many steps. It is written in assembler because
/// the compiler would see that nothing changes.
#[inline(always)]
fn forget_history(packet: &Packet, mut offset: usize) -> usize {
    let unknown = packet.queue();
    // SAFETY: arithmetic on registers; the two instructions in the middle undo each other.
    unsafe {
        asm!(
            "{0} ^= {1}",
            "{0} ^= {1}",
            "{0} &= 0x7fff",
            inout(reg) offset,
            in(reg) u64::from(unknown),
            options(pure, nomem, nostack),
        );
    }
    offset
}

/// `N` bytes from `offset`, when they end at or before `end` and are in the linear part.
#[inline(always)]
fn within<const N: usize>(packet: &Packet, offset: usize, end: usize) -> Option<&[u8; N]> {
    if offset + N > end {
        return None;
    }
    packet.bytes(offset)
}

/// The number unchanged, as a length that can be added to the start of the packet.
///
/// The verifiers of older kernels (6.1 and 6.12 were tried) know nothing about the result of a byte swap, and refuse to
/// add it to a pointer; they know that of a mask, which the compiler would leave out.
#[inline(always)]
fn bounded(number: u16) -> usize {
    let mut length = usize::from(number);
    // SAFETY: arithmetic on a register.
    unsafe {
        asm!("{0} &= 0xffff", inout(reg) length, options(pure, nomem, nostack));
    }
    length
}

/// The big-endian number at `index`, which is a constant within the array at every call.
#[inline(always)]
fn u16_at<const N: usize>(bytes: &[u8; N], index: usize) -> u16 {
    u16::from_be_bytes([bytes[index], bytes[index + 1]])
}

/// The headers unchanged; all the verifier knows afterwards about those that decide where a packet goes is how large each
/// field is.
///
/// The parser ends in many ways, and what is constant in each would make the verifier follow all that comes behind once
/// for each of them. `network_offset` is kept below 32, of which 22 are used, so that it can be added to a packet pointer.
#[inline(always)]
pub fn forget_path(packet: &Packet, headers: Headers) -> Headers {
    let unknown = u64::from(packet.queue());
    Headers {
        outcome: forget(headers.outcome.into(), unknown) as u8,
        ip_version: forget(headers.ip_version.into(), unknown) as u8,
        protocol: forget(headers.protocol.into(), unknown) as u8,
        fragment: forget(headers.fragment.into(), unknown) as u8,
        icmp_type: forget(headers.icmp_type.into(), unknown) as u8,
        ethertype: forget(headers.ethertype.into(), unknown) as u16,
        network_offset: forget(headers.network_offset.into(), unknown) as u16 & 0x1f,
        transport_offset: forget(headers.transport_offset.into(), unknown) as u16,
        payload_offset: 0,
        ..headers
    }
}

/// As [`forget_path`], for what only the filter looks at: without one this is not paid for.
#[inline(always)]
pub fn forget_rest(packet: &Packet, headers: &Headers) -> Headers {
    let unknown = u64::from(packet.queue());
    Headers {
        vlan_count: forget(headers.vlan_count.into(), unknown) as u8,
        tcp_flags: forget(headers.tcp_flags.into(), unknown) as u8,
        icmp_code: forget(headers.icmp_code.into(), unknown) as u8,
        vlan_tci: [forget(headers.vlan_tci[0].into(), unknown) as u16, 0],
        src_port: forget(headers.src_port.into(), unknown) as u16,
        dst_port: forget(headers.dst_port.into(), unknown) as u16,
        ip_options: forget(headers.ip_options.into(), unknown) as u8,
        end: forget(headers.end.into(), unknown) as u32,
        ..*headers
    }
}

/// An offset unchanged, as one that can be added to a packet pointer; only what is below 4,096 is one.
#[inline(always)]
pub fn bounded_offset(mut offset: usize) -> usize {
    // SAFETY: arithmetic on a register.
    unsafe {
        asm!("{0} &= 0xfff", inout(reg) offset, options(pure, nomem, nostack));
    }
    offset
}

#[inline(always)]
pub fn forget(mut value: u64, unknown: u64) -> u64 {
    // SAFETY: arithmetic on registers; the two instructions undo each other.
    unsafe {
        asm!("{0} ^= {1}", "{0} ^= {1}", inout(reg) value, in(reg) unknown, options(pure, nomem, nostack));
    }
    value
}
