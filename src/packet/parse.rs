//! The one-pass parser: bytes of a packet in, [`Headers`] out, by the rules in the documentation of
//! [`Headers`]' module. The XDP program has a parser of its own; both agree on every packet.
//!
//! # Beside etherparse
//!
//! On well-formed packets both find the same, which `tests/parser.rs` tests. Where the rules differ, on purpose:
//!
//! | packet | here | etherparse |
//! |---|---|---|
//! | third VLAN tag | not looked into, not IP | three tags |
//! | ethertype 0x9100, which no standard assigns to tags | not IP | a tag |
//! | AH in IPv4 | protocol 51, parsing ends | skipped |
//! | more than eight IPv6 extension headers | malformed | followed |
//! | extension headers behind the fragment header of a later fragment | not looked into: they are data | followed |
//! | first fragment | transport header parsed | no transport header |
//! | IPv6 payload length 0 | no payload | length of what was received |
//! | hop-by-hop options that are not first | skipped | an error |
//! | UDP length 0 | malformed | the rest of the IP packet |
//! | SCTP | ports | protocol number only |
//! | ICMP in IPv6, ICMPv6 in IPv4 | protocol number only | parsed |

use super::protocol::{
    AUTHENTICATION, DESTINATION_OPTIONS, ETHERTYPE_IPV4, ETHERTYPE_IPV6, ETHERTYPE_SERVICE_VLAN,
    ETHERTYPE_VLAN, FRAGMENT, HOP_BY_HOP, ICMP, ICMPV6, ROUTING, SCTP, TCP, UDP,
};
use super::{Fragment, Headers, MAX_IPV6_EXTENSIONS, MAX_VLAN_TAGS, Outcome};

const ETHERNET_BYTES: usize = 14;
/// Flag "more fragments" of the IPv4 header, in the word that holds the fragment offset.
const IPV4_MORE_FRAGMENTS: u16 = 0x2000;
const IPV4_FRAGMENT_OFFSET: u16 = 0x1fff;
/// Flag M of the IPv6 fragment header, in the word that holds the fragment offset.
const IPV6_MORE_FRAGMENTS: u16 = 0x0001;
const IPV6_FRAGMENT_OFFSET: u16 = 0xfff8;

/// Parses a packet from its Ethernet header to its transport header.
///
/// `linear` is what lies in the packet's first frame; every header has to lie there. `packet_len` is the
/// length of the whole packet in bytes, further frames of a multi-buffer packet included; the length fields
/// of the headers are held against it. A value below `linear.len()` is taken as `linear.len()`.
///
/// How parsing ended is [`Headers::outcome`]; what was found before is filled in.
///
/// ```
/// use xfwd::packet::{Outcome, parse};
///
/// let mut packet = Vec::new();
/// etherparse::PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2])
///     .ipv4([10, 0, 0, 1], [198, 18, 10, 1], 64)
///     .udp(40_000, 53)
///     .write(&mut packet, b"query")?;
/// let headers = parse(&packet, packet.len());
/// assert_eq!(headers.outcome(), Outcome::Ip);
/// assert_eq!((headers.protocol, headers.dst_port, headers.payload_offset), (17, 53, 42));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[inline]
pub fn parse(linear: &[u8], packet_len: usize) -> Headers {
    let packet_len = packet_len.max(linear.len());
    let mut headers = Headers::default();
    if common(&mut headers, linear, packet_len) { headers } else { any(linear, packet_len) }
}

/// As [`parse`], with the result where it is wanted: a copy of it would have to wait for every narrow store.
#[inline]
pub(crate) fn parse_into(headers: &mut Headers, linear: &[u8], packet_len: usize) {
    let packet_len = packet_len.max(linear.len());
    if !common(headers, linear, packet_len) {
        *headers = any(linear, packet_len);
    }
}

/// The common packet by a short way: untagged, whole TCP or UDP over IPv4 without options or IPv6 without extension headers, and nothing
/// wrong with it. [`any`] finds the same in these packets, a test compares them. What makes this way shorter is that lengths are
/// compared once and the result is written once. `packet_len` is at least that of `linear`. Says whether the packet is such a one.
#[inline(always)]
fn common(headers: &mut Headers, linear: &[u8], packet_len: usize) -> bool {
    const IPV4_TRANSPORT: usize = ETHERNET_BYTES + 20;
    const IPV6_TRANSPORT: usize = ETHERNET_BYTES + 40;
    let Some(header) = linear.first_chunk::<IPV4_TRANSPORT>() else { return false };
    let length = |at: usize| usize::from(u16::from_be_bytes([header[at], header[at + 1]]));
    match u16::from_be_bytes([header[12], header[13]]) {
        ETHERTYPE_IPV4 => {
            let fragment = u16::from_be_bytes([header[20], header[21]]);
            if header[14] != 0x45 || fragment & (IPV4_MORE_FRAGMENTS | IPV4_FRAGMENT_OFFSET) != 0 {
                return false;
            }
            let ip = (4, ETHERTYPE_IPV4, header[23], ETHERNET_BYTES + length(16));
            common_transport::<IPV4_TRANSPORT>(headers, linear, packet_len, ip)
        }
        ETHERTYPE_IPV6 if header[14] >> 4 == 6 => {
            let ip = (6, ETHERTYPE_IPV6, header[20], IPV6_TRANSPORT + length(18));
            common_transport::<IPV6_TRANSPORT>(headers, linear, packet_len, ip)
        }
        _ => false,
    }
}

/// The second half of [`common`], with what was found before: IP version, ethertype, protocol, and where the IP packet ends.
#[inline(always)]
fn common_transport<const TRANSPORT: usize>(
    headers: &mut Headers,
    linear: &[u8],
    packet_len: usize,
    (ip_version, ethertype, protocol, end): (u8, u16, u8, usize),
) -> bool {
    let first = linear.get(TRANSPORT..TRANSPORT + 8).and_then(|first| first.first_chunk::<8>());
    let Some(&[src_high, src_low, dst_high, dst_low, length_high, length_low, ..]) = first else {
        return false;
    };
    // What has to lie within the IP packet, by its own length.
    let (tcp_flags, header_bytes, own_bytes) = match protocol {
        TCP if linear.len() >= TRANSPORT + 20 => {
            let [offset, flags] = [linear[TRANSPORT + 12], linear[TRANSPORT + 13]];
            let header_bytes = usize::from(offset >> 4) * 4;
            if header_bytes < 20 || TRANSPORT + header_bytes > linear.len() {
                return false;
            }
            (flags, header_bytes, header_bytes)
        }
        UDP => {
            let own_bytes = usize::from(u16::from_be_bytes([length_high, length_low]));
            if own_bytes < 8 {
                return false;
            }
            (0, 8, own_bytes)
        }
        _ => return false,
    };
    if TRANSPORT + own_bytes > end || end > packet_len {
        return false;
    }
    *headers = Headers {
        outcome: Outcome::Ip as u8,
        ip_version,
        protocol,
        tcp_flags,
        ethertype,
        network_offset: ETHERNET_BYTES as u16,
        transport_offset: TRANSPORT as u16,
        payload_offset: (TRANSPORT + header_bytes) as u16,
        src_port: u16::from_be_bytes([src_high, src_low]),
        dst_port: u16::from_be_bytes([dst_high, dst_low]),
        end: end as u32,
        ..Headers::default()
    };
    true
}

/// The long way, for every packet.
#[inline(never)]
fn any(linear: &[u8], packet_len: usize) -> Headers {
    let mut headers = Headers::default();
    headers.outcome = ethernet(linear, packet_len, &mut headers) as u8;
    headers
}

/// `N` bytes at `offset`, if all of them lie before `limit`.
#[inline(always)]
fn bytes_at<const N: usize>(linear: &[u8], offset: usize, limit: usize) -> Option<&[u8; N]> {
    linear.get(..limit)?.get(offset..)?.first_chunk()
}

#[inline(always)]
fn ethernet(linear: &[u8], packet_len: usize, headers: &mut Headers) -> Outcome {
    let Some(header) = linear.first_chunk::<ETHERNET_BYTES>() else {
        return Outcome::TruncatedEthernet;
    };
    let mut ethertype = u16::from_be_bytes([header[12], header[13]]);
    let mut offset = ETHERNET_BYTES;
    if is_vlan(ethertype) {
        for tci in 0..MAX_VLAN_TAGS {
            if !is_vlan(ethertype) {
                break;
            }
            let Some(&[tci_high, tci_low, type_high, type_low]) = bytes_at(linear, offset, linear.len())
            else {
                return Outcome::TruncatedVlan;
            };
            headers.vlan_tci[tci] = u16::from_be_bytes([tci_high, tci_low]);
            headers.vlan_count += 1;
            ethertype = u16::from_be_bytes([type_high, type_low]);
            offset += 4;
        }
    }
    headers.ethertype = ethertype;
    headers.network_offset = offset as u16;
    match ethertype {
        ETHERTYPE_IPV4 => ipv4(linear, packet_len, offset, headers),
        ETHERTYPE_IPV6 => ipv6(linear, packet_len, offset, headers),
        _ => Outcome::NotIp,
    }
}

#[inline(always)]
fn is_vlan(ethertype: u16) -> bool {
    ethertype == ETHERTYPE_VLAN || ethertype == ETHERTYPE_SERVICE_VLAN
}

#[inline(always)]
fn ipv4(linear: &[u8], packet_len: usize, offset: usize, headers: &mut Headers) -> Outcome {
    let Some(header) = bytes_at::<20>(linear, offset, linear.len()) else {
        return Outcome::TruncatedIpv4;
    };
    if header[0] >> 4 != 4 {
        return Outcome::Ipv4Version;
    }
    headers.ip_version = 4;
    let header_bytes = usize::from(header[0] & 0x0f) * 4;
    if header_bytes < 20 {
        return Outcome::Ipv4HeaderLength;
    }
    let transport = offset + header_bytes;
    if transport > linear.len() {
        return Outcome::TruncatedIpv4;
    }
    let end = offset + usize::from(u16::from_be_bytes([header[2], header[3]]));
    if end < transport || end > packet_len {
        return Outcome::Ipv4TotalLength;
    }
    headers.end = end as u32;
    headers.protocol = header[9];
    headers.ip_options = u8::from(header_bytes > 20);
    let fragment = u16::from_be_bytes([header[6], header[7]]);
    if fragment & (IPV4_MORE_FRAGMENTS | IPV4_FRAGMENT_OFFSET) != 0 {
        if fragment & IPV4_FRAGMENT_OFFSET != 0 {
            headers.fragment = Fragment::Later as u8;
            return Outcome::Ip;
        }
        headers.fragment = Fragment::First as u8;
    }
    match headers.protocol {
        TCP => tcp(linear, transport, end, headers),
        UDP => udp(linear, transport, end, headers),
        SCTP => sctp(linear, transport, end, headers),
        ICMP => icmp(linear, transport, end, headers),
        _ => Outcome::Ip,
    }
}

#[inline(always)]
fn ipv6(linear: &[u8], packet_len: usize, offset: usize, headers: &mut Headers) -> Outcome {
    let Some(header) = bytes_at::<40>(linear, offset, linear.len()) else {
        return Outcome::TruncatedIpv6;
    };
    if header[0] >> 4 != 6 {
        return Outcome::Ipv6Version;
    }
    headers.ip_version = 6;
    let transport = offset + header.len();
    let end = transport + usize::from(u16::from_be_bytes([header[4], header[5]]));
    if end > packet_len {
        return Outcome::Ipv6PayloadLength;
    }
    headers.end = end as u32;
    let mut chain = Chain {
        next: header[6],
        offset: transport,
        fragment: Fragment::No,
        has_options: false,
        outcome: Outcome::Ip,
    };
    if !matches!(chain.next, TCP | UDP | ICMPV6) {
        chain = extensions(linear, chain, end.min(linear.len()));
        headers.fragment = chain.fragment as u8;
        headers.ip_options = u8::from(chain.has_options);
        if chain.outcome != Outcome::Ip {
            return chain.outcome;
        }
    }
    headers.protocol = chain.next;
    if chain.fragment == Fragment::Later {
        return Outcome::Ip;
    }
    match chain.next {
        TCP => tcp(linear, chain.offset, end, headers),
        UDP => udp(linear, chain.offset, end, headers),
        SCTP => sctp(linear, chain.offset, end, headers),
        ICMPV6 => icmp(linear, chain.offset, end, headers),
        _ => Outcome::Ip,
    }
}

/// How far a chain of IPv6 extension headers was followed.
#[derive(Clone, Copy)]
pub(super) struct Chain {
    /// Number of the header at `offset`.
    pub(super) next: u8,
    pub(super) offset: usize,
    pub(super) fragment: Fragment,
    /// Whether one of the headers carried what IPv4 has options for.
    pub(super) has_options: bool,
    /// [`Outcome::Ip`] unless the chain is broken.
    pub(super) outcome: Outcome,
}

/// Follows a chain of IPv6 extension headers. Few packets have any, so it stays out of line; it takes and
/// returns a value, since a reference to the [`Headers`] would keep them out of registers for all packets.
#[inline(never)]
pub(super) fn extensions(linear: &[u8], mut chain: Chain, limit: usize) -> Chain {
    for seen in 0.. {
        if !matches!(chain.next, HOP_BY_HOP | ROUTING | FRAGMENT | AUTHENTICATION | DESTINATION_OPTIONS) {
            break;
        }
        if seen == MAX_IPV6_EXTENSIONS {
            return Chain { outcome: Outcome::TooManyExtensions, ..chain };
        }
        // Every one of these headers has 8 bytes or more.
        let Some(&[following, length, fragment_high, fragment_low, ..]) =
            bytes_at::<8>(linear, chain.offset, limit)
        else {
            return Chain { outcome: Outcome::TruncatedExtension, ..chain };
        };
        let bytes = match chain.next {
            FRAGMENT => 8,
            AUTHENTICATION => (usize::from(length) + 2) * 4,
            _ => (usize::from(length) + 1) * 8,
        };
        if chain.offset + bytes > limit {
            return Chain { outcome: Outcome::TruncatedExtension, ..chain };
        }
        let is_fragment = chain.next == FRAGMENT;
        chain.has_options |= matches!(chain.next, HOP_BY_HOP | ROUTING | DESTINATION_OPTIONS);
        chain.next = following;
        chain.offset += bytes;
        if is_fragment {
            let word = u16::from_be_bytes([fragment_high, fragment_low]);
            if word & IPV6_FRAGMENT_OFFSET != 0 {
                chain.fragment = Fragment::Later;
                break;
            }
            if word & IPV6_MORE_FRAGMENTS != 0 {
                chain.fragment = Fragment::First;
            }
        }
    }
    chain
}

#[inline(always)]
fn tcp(linear: &[u8], offset: usize, end: usize, headers: &mut Headers) -> Outcome {
    let limit = end.min(linear.len());
    let Some(header) = bytes_at::<20>(linear, offset, limit) else {
        return Outcome::TruncatedTcp;
    };
    headers.transport_offset = offset as u16;
    headers.src_port = u16::from_be_bytes([header[0], header[1]]);
    headers.dst_port = u16::from_be_bytes([header[2], header[3]]);
    headers.tcp_flags = header[13];
    let header_bytes = usize::from(header[12] >> 4) * 4;
    if header_bytes < 20 {
        return Outcome::TcpDataOffset;
    }
    if offset + header_bytes > limit {
        return Outcome::TruncatedTcp;
    }
    headers.payload_offset = (offset + header_bytes) as u16;
    Outcome::Ip
}

#[inline(always)]
fn udp(linear: &[u8], offset: usize, end: usize, headers: &mut Headers) -> Outcome {
    let Some(header) = bytes_at::<8>(linear, offset, end.min(linear.len())) else {
        return Outcome::TruncatedUdp;
    };
    headers.transport_offset = offset as u16;
    headers.src_port = u16::from_be_bytes([header[0], header[1]]);
    headers.dst_port = u16::from_be_bytes([header[2], header[3]]);
    let length = usize::from(u16::from_be_bytes([header[4], header[5]]));
    // The length is that of the whole datagram: a first fragment does not hold all of it.
    if length < 8 || (headers.fragment == Fragment::No as u8 && offset + length > end) {
        return Outcome::UdpLength;
    }
    headers.payload_offset = (offset + 8) as u16;
    Outcome::Ip
}

#[inline(always)]
fn sctp(linear: &[u8], offset: usize, end: usize, headers: &mut Headers) -> Outcome {
    let Some(header) = bytes_at::<12>(linear, offset, end.min(linear.len())) else {
        return Outcome::TruncatedSctp;
    };
    headers.transport_offset = offset as u16;
    headers.src_port = u16::from_be_bytes([header[0], header[1]]);
    headers.dst_port = u16::from_be_bytes([header[2], header[3]]);
    headers.payload_offset = (offset + 12) as u16;
    Outcome::Ip
}

#[inline(always)]
fn icmp(linear: &[u8], offset: usize, end: usize, headers: &mut Headers) -> Outcome {
    let Some(header) = bytes_at::<8>(linear, offset, end.min(linear.len())) else {
        return Outcome::TruncatedIcmp;
    };
    headers.transport_offset = offset as u16;
    headers.icmp_type = header[0];
    headers.icmp_code = header[1];
    headers.payload_offset = (offset + 8) as u16;
    Outcome::Ip
}

#[cfg(test)]
mod tests {
    use super::super::packets;
    use super::*;

    #[test]
    fn the_short_way_finds_the_same_as_the_long_one() {
        for seed in packets::seeds(50_000) {
            for packet in [packets::packet(seed), packets::well_formed(seed)] {
                // Whole, cut before its end, and as first part of a longer one.
                for length in [packet.len(), packet.len() * 3 / 4, packet.len().min(60)] {
                    let linear = &packet[..length];
                    assert_eq!(parse(linear, length), any(linear, length), "seed {seed}");
                    assert_eq!(parse(linear, packet.len()), any(linear, packet.len()), "seed {seed}");
                }
            }
        }
    }
}
