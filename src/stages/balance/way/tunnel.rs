//! Tunnels: a packet as it came, in another one that is addressed to a backend.
//!
//! | kind | outer headers | bytes over IPv4, IPv6 |
//! |---|---|---|
//! | IP in IP | RFC 2003 (4 in 4), RFC 4213 (6 in 4), RFC 2473 (4 and 6 in 6) | 20, 40 |
//! | GUE, variant 1 | IP and UDP, directly followed by the inner IP header (draft-ietf-intarea-gue, section 4) | 28, 48 |
//!
//! What the outer header has from the inner one: the whole traffic class, that is DSCP (RFC 2983, the uniform model) and ECN
//! (RFC 6040, normal mode), and "don't fragment" (RFC 2003, section 3.1). An IPv6 packet is never fragmented on its way, so
//! over IPv4 it has that flag too; who sends what does not fit is told before (see [`fit`](super::fit())). The hop limit
//! starts anew at 64. The inner packet is one hop further (see [`pass_hop`](super::pass_hop)), and nothing else of it changes.
//!
//! Routers on the way, and receive queues at its end, tell flows apart by the UDP source port (GUE) and, over IPv6, the flow
//! label (RFC 6438): both are taken from the hash of the inner flow. IP in IP over IPv4 has nothing of the kind.
//!
//! The UDP checksum is 0 over IPv4, where that means none and the inner packet has its own; over IPv6 it is right
//! (see `inner_sum.rs` for how).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::Identification;
use super::inner_sum::inner_sum;
use super::link::LinkHeader;
use super::mtu::ip_bytes;
use crate::packet::checksum::Sum;
use crate::packet::protocol::{ETHERTYPE_IPV4, ETHERTYPE_IPV6, UDP};
use crate::packet::{Ipv4, Ipv6, Outcome};
use crate::pipeline::{NoRoom, Packet};

/// Protocol number of IPv4 in IP (RFC 2003).
const IPV4_IN_IP: u8 = 4;
/// Protocol number of IPv6 in IP (RFC 2473).
const IPV6_IN_IP: u8 = 41;
/// Hops of a packet that begins its way (RFC 1340 and IANA: the default TTL).
const HOPS: u8 = 64;
const UDP_BYTES: usize = 8;
/// Source ports of GUE are dynamic ones (RFC 6335): this one and what 14 bits add to it.
const FIRST_SOURCE_PORT: u16 = 49_152;

/// How a packet is put into another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TunnelKind {
    /// IP directly in IP.
    Ipip,
    /// Generic UDP encapsulation, variant 1.
    Gue {
        /// UDP port of the backend that takes it; 6080 is the assigned one.
        port: u16,
    },
}

/// A tunnel to a backend, its outer headers made in advance.
#[derive(Clone, Copy, Debug)]
pub struct Tunnel {
    kind: TunnelKind,
    outer: Outer,
}

#[derive(Clone, Copy, Debug)]
enum Outer {
    /// `sum` is that of the header as it stands here.
    V4 { header: [u8; 20], sum: Sum },
    /// `sum` is that of the constant part of the UDP checksum: addresses, protocol, destination port.
    V6 { header: [u8; 40], sum: Sum },
}

/// The two ends of a tunnel have addresses of different families.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a tunnel from {from} to {to}: both have to be IPv4 or both IPv6")]
pub struct MixedFamilies {
    /// Our end.
    pub from: IpAddr,
    /// The backend's.
    pub to: IpAddr,
}

/// A packet could not be put into a tunnel. It is as it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EncapsulateError {
    /// It is not a well-formed IP packet.
    #[error("not a well-formed IP packet")]
    NotIp,
    /// Its outer length would not fit the length field. No MTU lets such a packet pass.
    #[error("longer than an IP packet can be")]
    TooLong,
    /// Its buffer has no room for the outer headers.
    #[error(transparent)]
    NoRoom(#[from] NoRoom),
    /// It lies in several buffers, and its sum is needed for a UDP checksum over IPv6, which its headers do not tell.
    #[error("the checksum of a packet in several buffers")]
    Scattered,
}

/// What the outer header takes from the inner packet.
#[derive(Clone, Copy)]
struct Inner {
    bytes: usize,
    protocol: u8,
    traffic_class: u8,
    dont_fragment: bool,
}

impl Tunnel {
    /// A tunnel from our address to a backend's. IPv4-mapped addresses count as IPv4.
    ///
    /// # Errors
    ///
    /// [`MixedFamilies`].
    pub fn new(kind: TunnelKind, from: IpAddr, to: IpAddr) -> Result<Self, MixedFamilies> {
        let outer = match (from.to_canonical(), to.to_canonical()) {
            (IpAddr::V4(from), IpAddr::V4(to)) => ipv4(from, to),
            (IpAddr::V6(from), IpAddr::V6(to)) => ipv6(kind, from, to),
            (from, to) => return Err(MixedFamilies { from, to }),
        };
        Ok(Self { kind, outer })
    }

    /// Bytes that the tunnel adds to an IP packet.
    #[inline]
    pub const fn overhead(&self) -> usize {
        let ip = match self.outer {
            Outer::V4 { .. } => 20,
            Outer::V6 { .. } => 40,
        };
        match self.kind {
            TunnelKind::Ipip => ip,
            TunnelKind::Gue { .. } => ip + UDP_BYTES,
        }
    }

    /// Bytes of the outer IP packet that this one will become.
    #[inline]
    pub fn length_of(&self, packet: &Packet<'_>) -> usize {
        ip_bytes(packet) + self.overhead()
    }

    /// Puts the packet into the tunnel: `link` and the outer headers replace its Ethernet header, tags included. Ethernet
    /// padding behind it goes.
    ///
    /// It becomes [`overhead`](Self::overhead) bytes longer, and the difference of the Ethernet headers: if there is so much
    /// [`room`](Packet::room) in front nothing is moved. `flow_hash` is that of the inner flow; its low bits are used, which
    /// the choice of a backend does not. Whether the link takes the longer packet is to be asked before.
    ///
    /// # Errors
    ///
    /// [`EncapsulateError`]. The packet is as it was then, but for padding.
    #[inline]
    pub fn encapsulate(
        &self,
        packet: &mut Packet<'_>,
        link: &LinkHeader,
        flow_hash: u64,
        identification: &mut Identification,
    ) -> Result<(), EncapsulateError> {
        let inner = Inner::of(packet).ok_or(EncapsulateError::NotIp)?;
        let overhead = self.overhead();
        // What the length field of the outer IP header has to hold; that of IPv6 does not count the header itself.
        let outer_bytes = match self.outer {
            Outer::V4 { .. } => inner.bytes + overhead,
            Outer::V6 { .. } => inner.bytes + overhead - 40,
        };
        let outer_bytes = u16::try_from(outer_bytes).map_err(|_| EncapsulateError::TooLong)?;
        let udp_sum = match (self.kind, &self.outer) {
            (TunnelKind::Gue { .. }, Outer::V6 { .. }) => {
                inner_sum(packet.bytes(), packet.headers()).ok_or(EncapsulateError::Scattered)?
            }
            _ => Sum::new(),
        };

        let end = packet.headers().end as usize;
        if packet.is_linear() && packet.len() > end {
            packet.resize(end)?;
        }
        let ip_at = link.bytes();
        packet.push_front(ip_at + overhead - usize::from(packet.headers().network_offset))?;

        let (ethernet, network) = packet.bytes_mut().split_at_mut(ip_at);
        let source_port = FIRST_SOURCE_PORT | (flow_hash as u16 & 0x3fff);
        match &self.outer {
            Outer::V4 { header, sum } => {
                link.write(ethernet, ETHERTYPE_IPV4);
                let protocol = self.protocol(inner.protocol);
                let id = if inner.dont_fragment { 0 } else { identification.take() };
                network[..20].copy_from_slice(&finish_ipv4(*header, *sum, protocol, outer_bytes, id, inner));
                if let TunnelKind::Gue { port } = self.kind {
                    network[20..28].copy_from_slice(&udp(source_port, port, outer_bytes - 20, 0));
                }
            }
            Outer::V6 { header, sum } => {
                link.write(ethernet, ETHERTYPE_IPV6);
                let protocol = self.protocol(inner.protocol);
                network[..40].copy_from_slice(&finish_ipv6(*header, protocol, outer_bytes, flow_hash, inner));
                if let TunnelKind::Gue { port } = self.kind {
                    // The length counts twice: in the pseudo header and in the UDP header.
                    let sum = sum.with(udp_sum).u16(source_port).u16(outer_bytes).u16(outer_bytes);
                    let checksum = sum.udp_checksum();
                    network[40..48].copy_from_slice(&udp(source_port, port, outer_bytes, checksum));
                }
            }
        }
        Ok(())
    }

    /// What follows the outer IP header.
    #[inline]
    const fn protocol(&self, inner: u8) -> u8 {
        match self.kind {
            TunnelKind::Ipip => inner,
            TunnelKind::Gue { .. } => UDP,
        }
    }
}

impl Inner {
    /// `None` for what is not a well-formed IP packet.
    #[inline]
    fn of(packet: &Packet<'_>) -> Option<Self> {
        let headers = packet.headers();
        if headers.outcome != Outcome::Ip as u8 {
            return None;
        }
        let network = packet.bytes().get(usize::from(headers.network_offset)..)?;
        let bytes = ip_bytes(packet);
        if headers.ip_version == 4 {
            let ip = Ipv4::new_checked(network).ok()?;
            let (traffic_class, dont_fragment) = (ip.traffic_class(), ip.dont_fragment());
            Some(Self { bytes, protocol: IPV4_IN_IP, traffic_class, dont_fragment })
        } else {
            let traffic_class = Ipv6::new_checked(network).ok()?.traffic_class();
            Some(Self { bytes, protocol: IPV6_IN_IP, traffic_class, dont_fragment: true })
        }
    }
}

fn ipv4(from: Ipv4Addr, to: Ipv4Addr) -> Outer {
    let mut header = [0; 20];
    (header[0], header[8]) = (0x45, HOPS);
    header[12..16].copy_from_slice(&from.octets());
    header[16..20].copy_from_slice(&to.octets());
    Outer::V4 { header, sum: Sum::new().bytes(&header) }
}

fn ipv6(kind: TunnelKind, from: Ipv6Addr, to: Ipv6Addr) -> Outer {
    let mut header = [0; 40];
    (header[0], header[7]) = (0x60, HOPS);
    header[8..24].copy_from_slice(&from.octets());
    header[24..40].copy_from_slice(&to.octets());
    let sum = Sum::new().ipv6_pseudo_header(from, to, UDP, 0);
    match kind {
        TunnelKind::Ipip => Outer::V6 { header, sum },
        TunnelKind::Gue { port } => Outer::V6 { header, sum: sum.u16(port) },
    }
}

#[inline(always)]
fn finish_ipv4(
    mut header: [u8; 20],
    sum: Sum,
    protocol: u8,
    total_bytes: u16,
    id: u16,
    inner: Inner,
) -> [u8; 20] {
    let flags = if inner.dont_fragment { 0x4000 } else { 0 };
    header[1] = inner.traffic_class;
    header[2..4].copy_from_slice(&total_bytes.to_be_bytes());
    header[4..6].copy_from_slice(&id.to_be_bytes());
    header[6..8].copy_from_slice(&u16::to_be_bytes(flags));
    header[9] = protocol;
    let sum = sum.u16(inner.traffic_class.into()).u16(total_bytes).u16(id).u16(flags).u16(protocol.into());
    header[10..12].copy_from_slice(&sum.checksum().to_be_bytes());
    header
}

#[inline(always)]
fn finish_ipv6(
    mut header: [u8; 40],
    protocol: u8,
    payload_bytes: u16,
    flow_hash: u64,
    inner: Inner,
) -> [u8; 40] {
    let word = 6 << 28 | u32::from(inner.traffic_class) << 20 | (flow_hash as u32 & 0x000f_ffff);
    header[..4].copy_from_slice(&word.to_be_bytes());
    header[4..6].copy_from_slice(&payload_bytes.to_be_bytes());
    header[6] = protocol;
    header
}

#[inline(always)]
fn udp(source: u16, destination: u16, length_bytes: u16, checksum: u16) -> [u8; UDP_BYTES] {
    let ([a, b], [c, d]) = (source.to_be_bytes(), destination.to_be_bytes());
    let ([e, f], [g, h]) = (length_bytes.to_be_bytes(), checksum.to_be_bytes());
    [a, b, c, d, e, f, g, h]
}

#[cfg(test)]
mod tests {
    use etherparse::{IpNumber, Ipv4Header, Ipv6Header, UdpHeader};
    use proptest::prelude::*;

    use super::super::super::test_packets::{in_buffer, right_checksums, tagged, tcp4, udp6};
    use super::*;
    use crate::packet::{Headers, MacAddress, packets, parse};

    const FROM4: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 2);
    const TO4: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 11);
    const FROM6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2);
    const TO6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x11);
    const GUE: TunnelKind = TunnelKind::Gue { port: 6080 };
    const LINK: LinkHeader = LinkHeader {
        source: MacAddress([2, 0, 0, 0, 0, 9]),
        destination: MacAddress([2, 0, 0, 0, 0, 8]),
        vlan: None,
    };

    /// Every kind over either family.
    fn tunnels() -> [Tunnel; 4] {
        [TunnelKind::Ipip, GUE]
            .map(|kind| {
                [
                    Tunnel::new(kind, FROM4.into(), TO4.into()).unwrap(),
                    Tunnel::new(kind, FROM6.into(), TO6.into()).unwrap(),
                ]
            })
            .concat()
            .try_into()
            .unwrap()
    }

    /// The outer headers as etherparse reads and checks them, and the packet behind them.
    #[derive(Debug)]
    struct Opened {
        v4: Option<Ipv4Header>,
        v6: Option<Ipv6Header>,
        udp: Option<UdpHeader>,
        inner: Vec<u8>,
    }

    /// Opens a tunnelled packet behind its Ethernet header. Every length and checksum is verified by etherparse.
    fn open(network: &[u8]) -> Opened {
        let (mut v4, mut v6) = (None, None);
        let (protocol, payload) = if network[0] >> 4 == 4 {
            let (header, rest) = Ipv4Header::from_slice(network).unwrap();
            assert_eq!(header.header_checksum, header.calc_header_checksum());
            assert_eq!(usize::from(header.total_len), network.len());
            assert_eq!((header.source, header.destination), (FROM4.octets(), TO4.octets()));
            assert_eq!(header.time_to_live, 64);
            (v4.insert(header).protocol, rest)
        } else {
            let (header, rest) = Ipv6Header::from_slice(network).unwrap();
            assert_eq!(usize::from(header.payload_length), network.len() - 40);
            assert_eq!((header.source, header.destination), (FROM6.octets(), TO6.octets()));
            assert_eq!(header.hop_limit, 64);
            (v6.insert(header).next_header, rest)
        };
        let (mut udp, mut inner) = (None, payload);
        if protocol == IpNumber::UDP {
            let (header, rest) = UdpHeader::from_slice(payload).unwrap();
            assert_eq!(usize::from(header.length), payload.len());
            assert_eq!(header.destination_port, 6080);
            assert!(header.source_port >= 49_152);
            match &v6 {
                None => assert_eq!(header.checksum, 0),
                Some(ip) => {
                    let checksum = header.calc_checksum_ipv6_raw(ip.source, ip.destination, rest).unwrap();
                    assert_eq!(header.checksum, checksum);
                }
            }
            (udp, inner) = (Some(header), rest);
        } else {
            let version = if inner[0] >> 4 == 4 { IpNumber::IPV4 } else { IpNumber::IPV6 };
            assert_eq!(protocol, version);
        }
        Opened { v4, v6, udp, inner: inner.to_vec() }
    }

    fn inner_of<'p>(packet: &'p [u8], headers: &Headers) -> &'p [u8] {
        &packet[headers.network_offset.into()..headers.end as usize]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1_000))]
        #[test]
        fn what_comes_out_of_a_tunnel_is_what_went_in(
            seed: u64, hash: u64, vlan in proptest::option::of(0..4096u16), front in 0..80usize, back in 0..80usize,
        ) {
            let before = right_checksums(packets::well_formed(seed));
            let headers = parse(&before, before.len());
            prop_assume!(headers.outcome() == Outcome::Ip);
            let link = LinkHeader { vlan, ..LINK };
            for tunnel in tunnels() {
                let mut ids = Identification::new(7, 1);
                let (result, after) = in_buffer(&before, front, back, |packet| {
                    let length = tunnel.length_of(packet);
                    tunnel.encapsulate(packet, &link, hash, &mut ids).map(|()| length)
                });
                let growth = tunnel.overhead() + link.bytes() - usize::from(headers.network_offset);
                let padding = before.len() - headers.end as usize;
                if growth > front && growth - front > back + padding {
                    prop_assert_eq!(result, Err(NoRoom.into()));
                    prop_assert_eq!(&after[..], &before[..headers.end as usize]);
                    continue;
                }
                prop_assert_eq!(result, Ok(after.len() - link.bytes()));
                prop_assert_eq!(&after[..12], &[LINK.destination.0, LINK.source.0].concat()[..]);
                let outer = parse(&after, after.len());
                prop_assert_eq!((outer.outcome(), outer.vlan_count), (Outcome::Ip, u8::from(vlan.is_some())));
                let opened = open(&after[link.bytes()..]);
                prop_assert_eq!(&opened.inner[..], inner_of(&before, &headers));

                let class = if headers.ip_version == 4 { opened.inner[1] } else {
                    opened.inner[0] << 4 | opened.inner[1] >> 4
                };
                let dont_fragment = headers.ip_version == 6 || opened.inner[6] & 0x40 != 0;
                if let Some(ip) = opened.v4 {
                    prop_assert_eq!(ip.dscp.value() << 2 | ip.ecn.value(), class);
                    prop_assert!(ip.dont_fragment == dont_fragment && !ip.more_fragments);
                    prop_assert_eq!(ip.identification, if dont_fragment { 0 } else { 7 });
                }
                if let Some(ip) = opened.v6 {
                    prop_assert_eq!(ip.traffic_class, class);
                    prop_assert_eq!(ip.flow_label.value(), hash as u32 & 0xf_ffff);
                }
                if let Some(udp) = opened.udp {
                    prop_assert_eq!(udp.source_port & 0x3fff, hash as u16 & 0x3fff);
                }
            }
        }

        #[test]
        fn arbitrary_packets_are_refused_or_go_through(seed: u64, keep in 0..1500usize, front in 0..60usize) {
            let before = packets::packet(seed);
            let linear = &before[..keep.min(before.len())];
            for tunnel in tunnels() {
                let (result, after) = in_buffer(linear, front, 60, |packet| {
                    tunnel.encapsulate(packet, &LINK, seed, &mut Identification::new(0, 1))
                });
                if parse(linear, linear.len()).outcome() == Outcome::Ip {
                    prop_assert_eq!(result, Ok(()));
                } else {
                    prop_assert_eq!((result, &after[..]), (Err(EncapsulateError::NotIp), linear));
                }
            }
        }
    }

    #[test]
    fn exactly_the_overhead_in_front_is_enough_to_move_nothing() {
        for tunnel in tunnels() {
            // The old Ethernet header is as long as the new one, then longer.
            for tags in 0..=2 {
                let before = tagged(tags);
                let (room, _) = in_buffer(&before, tunnel.overhead(), 0, |packet| {
                    tunnel.encapsulate(packet, &LINK, 0, &mut Identification::new(0, 1)).unwrap();
                    packet.room()
                });
                assert_eq!(room, 4 * tags);
            }
        }
    }

    #[test]
    fn padding_of_a_short_frame_does_not_go_through_the_tunnel() {
        let mut before = tcp4(b"");
        let inner = before[14..].to_vec();
        before.resize(60, 0);
        let tunnel = tunnels()[0];
        let (_, after) = in_buffer(&before, 20, 0, |packet| {
            tunnel.encapsulate(packet, &LINK, 0, &mut Identification::new(0, 1))
        });
        assert_eq!(open(&after[14..]).inner, inner);
    }

    #[test]
    fn a_udp_checksum_that_sums_up_to_zero_is_sent_as_ffff() {
        let checksum_to = |to: Ipv6Addr| {
            let tunnel = Tunnel::new(GUE, FROM6.into(), to.into()).unwrap();
            let (_, after) = in_buffer(&udp6(b"payload"), 48, 0, |packet| {
                tunnel.encapsulate(packet, &LINK, 0, &mut Identification::new(0, 1))
            });
            u16::from_be_bytes([after[60], after[61]])
        };
        // An address that adds what is missing to a sum of 0xffff.
        let mut segments = TO6.segments();
        assert_eq!(segments[6], 0);
        segments[6] = checksum_to(TO6);
        assert_eq!(checksum_to(segments.into()), 0xffff);
        segments[6] -= 1;
        assert_eq!(checksum_to(segments.into()), 1);
    }

    #[test]
    fn a_packet_in_several_buffers_goes_through_when_its_headers_say_its_sum() {
        let (whole, mut unsummed) = (udp6(&[7; 3_000]), udp6(&[7; 3_000]));
        unsummed[60..62].fill(0);
        for tunnel in tunnels() {
            for (packet, has_sum) in [(&whole, true), (&unsummed, false)] {
                let mut buffer = [&[0; 48], &packet[..2_000]].concat();
                let mut batch = crate::pipeline::Batch::new(0);
                let span = crate::pipeline::Span { start: 48, end: 2_048 };
                batch.push_at(&mut buffer, span, packet.len() as u32);
                batch.parse();
                let result =
                    tunnel.encapsulate(batch.packet_mut(0), &LINK, 0, &mut Identification::new(0, 1));
                if has_sum || tunnel.overhead() != 48 {
                    assert_eq!(result, Ok(()));
                    // With the rest behind it the packet is right.
                    let after = [batch.packet(0).bytes(), &packet[2_000..]].concat();
                    assert_eq!(open(&after[14..]).inner, packet[14..]);
                } else {
                    assert_eq!(result, Err(EncapsulateError::Scattered));
                }
            }
        }
    }

    #[test]
    fn what_no_length_field_can_hold_is_refused() {
        let before = tcp4(&vec![0; 65_535 - 40]);
        for tunnel in tunnels() {
            let (result, after) = in_buffer(&before, 60, 0, |packet| {
                tunnel.encapsulate(packet, &LINK, 0, &mut Identification::new(0, 1))
            });
            // An IPv6 header does not count itself.
            let fits = tunnel.overhead() == 40;
            assert_eq!(result.is_ok(), fits);
            assert!(fits || (result == Err(EncapsulateError::TooLong) && after == before));
        }
    }

    #[test]
    fn both_ends_are_of_one_family() {
        let error = Tunnel::new(GUE, FROM4.into(), TO6.into()).unwrap_err();
        assert_eq!(
            error.to_string(),
            "a tunnel from 198.18.0.2 to 2001:db8::11: both have to be IPv4 or both IPv6"
        );
        assert!(Tunnel::new(GUE, FROM4.to_ipv6_mapped().into(), TO4.into()).is_ok());
    }
}
