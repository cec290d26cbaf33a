//! Views of the headers that the parser found.
//!
//! Every view is checked against the bytes that are there now, so offsets that are out of date give a view of other bytes or
//! none, and never reach outside of the packet.

use super::Packet;
use crate::packet::protocol::{ICMP, ICMPV6, TCP, UDP};
use crate::packet::{Ethernet, Headers, Icmp, Ipv4, Ipv6, Tcp, Udp};

/// Where the IP packet of this version lies, of a packet of which `linear` bytes are in the first buffer.
#[inline]
fn network(headers: &Headers, version: u8, linear: usize) -> Option<(usize, usize)> {
    (headers.ip_version == version && headers.end != 0)
        .then(|| (headers.network_offset.into(), linear.min(headers.end as usize)))
}

/// Where the transport header and what is behind it lie.
#[inline]
fn transport(headers: &Headers, is_it: bool, linear: usize) -> Option<(usize, usize)> {
    (is_it && headers.payload_offset != 0)
        .then(|| (headers.transport_offset.into(), linear.min(headers.end as usize)))
}

#[inline]
fn is_icmp(headers: &Headers) -> bool {
    headers.protocol == if headers.ip_version == 4 { ICMP } else { ICMPV6 }
}

macro_rules! views {
    ($($(#[$doc:meta])* $name:ident $name_mut:ident: $view:ident, $headers:ident, $linear:ident => $range:expr;)*) => {
        impl Packet<'_> {
            $(
                $(#[$doc])*
                #[inline]
                pub fn $name(&self) -> Option<$view<&[u8]>> {
                    let ($headers, $linear) = (&self.headers, self.bytes().len());
                    let (start, end) = $range?;
                    $view::new_checked(self.bytes().get(start..end)?).ok()
                }

                #[doc = concat!("Like [`", stringify!($name), "`](Packet::", stringify!($name), "), to be written. No checksum ",
                    "follows, and who changes what [`Headers`] holds calls [`reparse`](Packet::reparse).")]
                #[inline]
                pub fn $name_mut(&mut self) -> Option<$view<&mut [u8]>> {
                    let ($headers, $linear) = (&self.headers, self.bytes().len());
                    let (start, end) = $range?;
                    $view::new_checked(self.bytes_mut().get_mut(start..end)?).ok()
                }
            )*
        }
    };
}

views! {
    /// The Ethernet header. `None` only of a packet of fewer than 14 bytes.
    ethernet ethernet_mut: Ethernet, _headers, linear => Some((0, linear));
    /// The IPv4 header and what is behind it, Ethernet padding aside. `None` if the packet is not IPv4 or its header is broken.
    ///
    /// ```
    /// # let mut bytes = Vec::new();
    /// # let builder = etherparse::PacketBuilder::ethernet2([2; 6], [4; 6]).ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64);
    /// # builder.udp(40_000, 53).write(&mut bytes, b"question").unwrap();
    /// # let len = bytes.len() as u32;
    /// # let mut batch = xfwd::pipeline::Batch::new(0);
    /// # batch.push(&mut bytes, len);
    /// # batch.parse();
    /// # let packet = batch.packet_mut(0);
    /// if let (Some(ip), Some(udp)) = (packet.ipv4(), packet.udp()) {
    ///     assert_eq!((ip.source().octets(), udp.destination_port()), ([10, 0, 0, 1], 53));
    /// }
    /// assert!(packet.tcp().is_none() && packet.ipv6().is_none());
    /// ```
    ipv4 ipv4_mut: Ipv4, headers, linear => network(headers, 4, linear);
    /// The IPv6 header and what is behind it, Ethernet padding aside. `None` if the packet is not IPv6 or its header is broken.
    ipv6 ipv6_mut: Ipv6, headers, linear => network(headers, 6, linear);
    /// The TCP header and what is behind it. `None` if there is none, as in a later fragment, or it is broken.
    tcp tcp_mut: Tcp, headers, linear => transport(headers, headers.protocol == TCP, linear);
    /// The UDP header and what is behind it. `None` if there is none, as in a later fragment, or it is broken.
    udp udp_mut: Udp, headers, linear => transport(headers, headers.protocol == UDP, linear);
    /// The ICMP header (of ICMPv6 in an IPv6 packet) and what is behind it. `None` if there is none or it is broken.
    icmp icmp_mut: Icmp, headers, linear => transport(headers, is_icmp(headers), linear);
}

#[cfg(test)]
mod tests {
    use etherparse::{LaxNetSlice, LaxSlicedPacket, TransportSlice};

    use super::*;
    use crate::packet::{Outcome, packets, parse};
    use crate::pipeline::Batch;

    fn with<R>(mut bytes: Vec<u8>, work: impl FnOnce(&mut Packet<'_>) -> R) -> R {
        let len = bytes.len() as u32;
        let mut batch = Batch::new(0);
        batch.push(&mut bytes, len);
        batch.parse();
        work(batch.packet_mut(0))
    }

    #[test]
    fn views_are_there_exactly_for_the_headers_that_etherparse_finds() {
        let mut seen = [0; 5];
        for seed in packets::seeds(5_000) {
            let bytes = packets::well_formed(seed);
            let headers = parse(&bytes, bytes.len());
            // Where the rules of both differ (IPv6 chains, odd protocols) nothing is compared.
            if headers.outcome() != Outcome::Ip || headers.fragment != 0 {
                continue;
            }
            let reference = LaxSlicedPacket::from_ethernet(&bytes).unwrap();
            with(bytes.clone(), |packet| {
                match &reference.net {
                    Some(LaxNetSlice::Ipv4(ip)) => {
                        seen[0] += 1;
                        assert_eq!(packet.ipv4().unwrap().source(), ip.header().source_addr());
                        assert!(packet.ipv6().is_none());
                    }
                    Some(LaxNetSlice::Ipv6(ip)) => {
                        seen[1] += 1;
                        assert_eq!(packet.ipv6().unwrap().source(), ip.header().source_addr());
                        assert!(packet.ipv4().is_none());
                    }
                    _ => {}
                }
                match &reference.transport {
                    Some(TransportSlice::Tcp(tcp)) => {
                        seen[2] += 1;
                        assert_eq!(packet.tcp().unwrap().sequence(), tcp.sequence_number());
                        assert!(packet.udp().is_none() && packet.icmp().is_none());
                    }
                    Some(TransportSlice::Udp(udp)) if packet.udp().is_some() => {
                        seen[3] += 1;
                        assert_eq!(packet.udp().unwrap().checksum(), udp.checksum());
                        assert!(packet.tcp().is_none() && packet.icmp().is_none());
                    }
                    _ => seen[4] += u32::from(packet.icmp().is_some()),
                }
            });
        }
        assert!(cfg!(miri) || seen.iter().all(|count| *count > 100), "{seen:?}");
    }

    #[test]
    fn what_was_not_parsed_has_an_ethernet_header_only() {
        let mut bytes = packets::well_formed(3);
        let len = bytes.len() as u32;
        let mut batch = Batch::new(0);
        batch.push(&mut bytes, len);
        let packet = batch.packet_mut(0);
        assert!(packet.ethernet().is_some() && packet.ethernet_mut().is_some());
        assert!(packet.ipv4().is_none() && packet.ipv6().is_none() && packet.tcp_mut().is_none());
    }

    #[test]
    fn offsets_that_are_out_of_date_never_reach_outside_of_the_packet() {
        for seed in packets::seeds(3_000) {
            for cut in [1, 14, 30, 50] {
                with(packets::packet(seed), |packet| {
                    if packet.pull_front(cut).is_err() {
                        return;
                    }
                    let _ = (packet.ethernet(), packet.ipv4(), packet.ipv6());
                    let _ = (packet.tcp(), packet.udp(), packet.icmp(), packet.payload());
                    let _ = (packet.set_hop_limit(1), packet.set_source([10, 0, 0, 1].into()));
                    let _ = (packet.set_source_port(1), packet.fill_checksums());
                    let _ = (packet.push_vlan(1), packet.reply_udp(b"answer"));
                });
            }
        }
    }
}
