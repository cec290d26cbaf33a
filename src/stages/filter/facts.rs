//! Everything a rule can look at.

use xfwd_ebpf_types::map_ipv4;

use crate::packet::protocol::{ETHERTYPE_ARP, ICMP, ICMPV6, SCTP, TCP, UDP};
use crate::packet::{Fragment, Headers, Outcome};

/// VLAN id in a tag's control information.
pub(super) const VLAN_ID: u16 = 0x0fff;

/// Router solicitation to redirect (RFC 4861).
const NEIGHBOUR_DISCOVERY: std::ops::RangeInclusive<u8> = 133..=137;

/// Whether a packet is one that is never filtered: ARP or neighbour discovery.
#[inline]
pub(crate) fn is_exempt(headers: &Headers) -> bool {
    (headers.outcome() == Outcome::NotIp && headers.ethertype == ETHERTYPE_ARP)
        || is_neighbour_discovery(headers)
}

/// Only what the parser took for an ICMPv6 header has a type.
#[inline]
pub(crate) fn is_neighbour_discovery(headers: &Headers) -> bool {
    headers.ip_version == 6 && headers.protocol == ICMPV6 && NEIGHBOUR_DISCOVERY.contains(&headers.icmp_type)
}

/// What a packet has, in the form rules ask for it; `None` is what it does not have. When that is, is said at the
/// fields of [`Match`](super::Match).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// 4, 6, or 0 when there are no addresses.
    pub ip_version: u8,
    /// Source address, IPv4 as IPv4-mapped IPv6 address; zero when there is none.
    pub src: [u8; 16],
    /// Destination address; like `src`.
    pub dst: [u8; 16],
    /// IP protocol number.
    pub protocol: Option<u8>,
    /// Source and destination port.
    pub ports: Option<(u16, u16)>,
    /// TCP flags.
    pub tcp_flags: Option<u8>,
    /// ICMP or ICMPv6 type and code.
    pub icmp: Option<(u8, u8)>,
    /// VLAN id, 0 when there is none.
    pub vlan: Option<u16>,
    /// Bytes of the IP packet.
    pub length: Option<u32>,
    /// Which part of a datagram it is.
    pub fragment: Option<Fragment>,
    /// Whether the IP header has options.
    pub ip_options: Option<bool>,
    /// Whether it breaks a rule of its own headers.
    pub malformed: bool,
}

impl Facts {
    /// The facts of a packet: `data` holds at least what was parsed, `headers` is what the parser found in it.
    #[inline]
    pub fn of(data: &[u8], headers: &Headers) -> Self {
        let outcome = headers.outcome();
        let (src, dst) = addresses(data, headers).unwrap_or_default();
        // The IP header and the extension headers are done with.
        let chain_is_known =
            headers.end != 0 && !matches!(outcome, Outcome::TruncatedExtension | Outcome::TooManyExtensions);
        let has_transport = headers.transport_offset != 0;
        let fragment = headers.fragment();
        let has_options = headers.ip_options != 0;
        Self {
            ip_version: headers.ip_version,
            src,
            dst,
            protocol: chain_is_known.then_some(headers.protocol),
            ports: (has_transport && matches!(headers.protocol, TCP | UDP | SCTP))
                .then_some((headers.src_port, headers.dst_port)),
            tcp_flags: (has_transport && headers.protocol == TCP).then_some(headers.tcp_flags),
            icmp: (has_transport && matches!(headers.protocol, ICMP | ICMPV6))
                .then_some((headers.icmp_type, headers.icmp_code)),
            vlan: vlan(headers, outcome),
            length: (headers.end != 0).then(|| headers.end - u32::from(headers.network_offset)),
            fragment: (chain_is_known || fragment != Fragment::No).then_some(fragment),
            ip_options: (chain_is_known || has_options).then_some(has_options),
            malformed: outcome.is_malformed(),
        }
    }
}

#[inline]
fn vlan(headers: &Headers, outcome: Outcome) -> Option<u16> {
    if headers.vlan_count > 0 {
        return Some(headers.vlan_tci[0] & VLAN_ID);
    }
    (!matches!(outcome, Outcome::TruncatedEthernet | Outcome::TruncatedVlan)).then_some(0)
}

/// The parser sets `ip_version` when the fixed header, which holds the addresses, is there.
#[inline]
fn addresses(data: &[u8], headers: &Headers) -> Option<([u8; 16], [u8; 16])> {
    let header = data.get(usize::from(headers.network_offset)..)?;
    match headers.ip_version {
        4 => {
            let (pair, _) = header.first_chunk::<20>()?[12..].as_chunks::<4>();
            Some((map_ipv4(pair[0]), map_ipv4(pair[1])))
        }
        6 => {
            let (pair, _) = header.first_chunk::<40>()?[8..].as_chunks::<16>();
            Some((pair[0], pair[1]))
        }
        _ => None,
    }
}
