//! ICMP errors (RFC 792, RFC 1191, RFC 4443).

use super::{HOPS, NotAnswered, may_be_answered};
use crate::packet::checksum::Sum;
use crate::packet::protocol::{ICMP, ICMPV6};
use crate::packet::{Ethernet, Ipv4, Ipv6};
use crate::pipeline::Packet;

/// An ICMPv4 error quotes as much as fits in this (RFC 1812, section 4.3.2.3): every host takes it.
const IPV4_MAX_BYTES: usize = 576;
/// An ICMPv6 error quotes as much as fits in this (RFC 4443, section 2.4 (c)): every link takes it.
const IPV6_MAX_BYTES: usize = 1280;
const IPV4_BYTES: usize = 20;
const IPV6_BYTES: usize = 40;
const ICMP_BYTES: usize = 8;
/// Ethernet with two tags: what the parser finds IP behind.
const MAX_LINK_BYTES: usize = 22;
/// Traffic class of ICMPv4 errors: precedence 6, internetwork control (RFC 1812, section 4.3.2.5).
const INTERNETWORK_CONTROL: u8 = 0xc0;

/// What the sender of a packet is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IcmpError {
    /// Its packets may have no more than so many bytes, IP header included: fragmentation needed (IPv4), packet too big (IPv6).
    TooBig {
        /// The longest IP packet that fits.
        mtu: u16,
    },
    /// It took too many hops.
    TimeExceeded,
    /// Nobody takes packets there.
    PortUnreachable,
}

impl IcmpError {
    /// Type, code and the four bytes behind the checksum.
    fn ipv4(self) -> (u8, u8, u32) {
        match self {
            Self::TooBig { mtu } => (3, 4, mtu.into()),
            Self::TimeExceeded => (11, 0, 0),
            Self::PortUnreachable => (3, 3, 0),
        }
    }

    fn ipv6(self) -> (u8, u8, u32) {
        match self {
            Self::TooBig { mtu } => (2, 0, mtu.into()),
            Self::TimeExceeded => (3, 0, 0),
            Self::PortUnreachable => (1, 4, 0),
        }
    }
}

/// Makes of a packet the ICMP error that tells its sender about it, and quotes as much of it as the standards allow.
///
/// The quoted bytes stay where they are if there is [`room`](Packet::room) for the headers in front (28 bytes, IPv6: 48).
///
/// # Errors
///
/// [`NotAnswered`] for what [must not be answered](may_be_answered), where there is no room for the headers, and for packets in
/// several buffers.
pub fn icmp_error(packet: &mut Packet<'_>, error: IcmpError) -> Result<(), NotAnswered> {
    if !may_be_answered(packet) {
        return Err(NotAnswered);
    }
    let headers = *packet.headers();
    let link_bytes = usize::from(headers.network_offset);
    let (ip_bytes, max_bytes) =
        if headers.ip_version == 4 { (IPV4_BYTES, IPV4_MAX_BYTES) } else { (IPV6_BYTES, IPV6_MAX_BYTES) };
    let added = ip_bytes + ICMP_BYTES;
    let quoted = (headers.end as usize - link_bytes).min(max_bytes - added);

    let mut link = [0; MAX_LINK_BYTES];
    let link = link.get_mut(..link_bytes).ok_or(NotAnswered)?;
    link.copy_from_slice(&packet.bytes()[..link_bytes]);
    Ethernet::new_checked(&mut *link).map_err(|_| NotAnswered)?.swap_addresses();

    if !packet.is_linear() {
        return Err(NotAnswered);
    }
    // Trimming first means to move less, but may be done only if growing cannot fail then.
    let kept = link_bytes + quoted;
    if packet.len() - kept >= added.saturating_sub(packet.room()) {
        packet.resize(kept)?;
    }
    packet.push_front(added)?;
    packet.resize(kept + added)?;
    let (frame, network) = packet.bytes_mut().split_at_mut(link_bytes);
    frame.copy_from_slice(link);
    let (header, asked) = network.split_at_mut(added);
    if headers.ip_version == 4 {
        write_ipv4(header, asked, error).ok_or(NotAnswered)
    } else {
        write_ipv6(header, asked, error).ok_or(NotAnswered)
    }
}

/// Writes both headers in front of what is quoted. `None` only if that were no IPv4 packet, which the parser has seen.
fn write_ipv4(header: &mut [u8], asked: &[u8], error: IcmpError) -> Option<()> {
    let question = Ipv4::new_checked(asked).ok()?;
    let (header, message) = header.split_at_mut(IPV4_BYTES);
    write_message(message, error.ipv4(), Sum::new().bytes(asked));
    header.fill(0);
    header[0] = 0x45;
    let mut ip = Ipv4::new_checked(header).ok()?;
    ip.set_traffic_class(INTERNETWORK_CONTROL);
    ip.set_total_bytes((IPV4_BYTES + ICMP_BYTES + asked.len()) as u16);
    ip.set_dont_fragment(true);
    ip.set_ttl(HOPS);
    ip.set_protocol(ICMP);
    ip.set_source(question.destination());
    ip.set_destination(question.source());
    ip.fill_checksum();
    Some(())
}

/// Like [`write_ipv4`].
fn write_ipv6(header: &mut [u8], asked: &[u8], error: IcmpError) -> Option<()> {
    let question = Ipv6::new_checked(asked).ok()?;
    let (source, destination) = (question.destination(), question.source());
    let (header, message) = header.split_at_mut(IPV6_BYTES);
    let bytes = (ICMP_BYTES + asked.len()) as u16;
    let covered = Sum::new().ipv6_pseudo_header(source, destination, ICMPV6, bytes.into()).bytes(asked);
    write_message(message, error.ipv6(), covered);
    let mut ip = Ipv6::new_checked(header).ok()?;
    ip.set_class_and_label(0, 0);
    ip.set_payload_bytes(bytes);
    ip.set_next_header(ICMPV6);
    ip.set_hop_limit(HOPS);
    ip.set_source(source);
    ip.set_destination(destination);
    Some(())
}

/// Writes the ICMP header; `covered` is the sum over everything else that its checksum covers.
fn write_message(message: &mut [u8], (icmp_type, code, rest): (u8, u8, u32), covered: Sum) {
    let [a, b, c, d] = rest.to_be_bytes();
    message.copy_from_slice(&[icmp_type, code, 0, 0, a, b, c, d]);
    let checksum = covered.with(Sum::new().bytes(message)).checksum();
    message[2..4].copy_from_slice(&checksum.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use etherparse::{
        Icmpv4Type, Icmpv6Type, SlicedPacket, TransportSlice, icmpv4::DestUnreachableHeader, icmpv6,
    };

    use super::super::super::test_packets::{in_buffer, tcp4, tcp6, udp4, udp6, with_tags};
    use super::*;
    use crate::packet::{Embedded, FiveTuple, parse};

    const ERRORS: [IcmpError; 3] =
        [IcmpError::TooBig { mtu: 1_472 }, IcmpError::TimeExceeded, IcmpError::PortUnreachable];

    fn answered(question: &[u8], error: IcmpError) -> Vec<u8> {
        let (result, after) = in_buffer(question, 0, 60, |packet| icmp_error(packet, error));
        assert_eq!(result, Ok(()));
        after
    }

    #[test]
    fn etherparse_reads_the_errors_that_were_meant() {
        for error in ERRORS {
            let after = answered(&tcp4(&[7; 1_460]), error);
            let sliced = SlicedPacket::from_ethernet(&after).unwrap();
            let Some(TransportSlice::Icmpv4(icmp)) = sliced.transport else { panic!("no ICMP") };
            let expected = match error {
                IcmpError::TooBig { mtu } => {
                    Icmpv4Type::DestinationUnreachable(DestUnreachableHeader::FragmentationNeeded {
                        next_hop_mtu: mtu,
                    })
                }
                IcmpError::TimeExceeded => {
                    Icmpv4Type::TimeExceeded(etherparse::icmpv4::TimeExceededCode::TtlExceededInTransit)
                }
                IcmpError::PortUnreachable => Icmpv4Type::DestinationUnreachable(DestUnreachableHeader::Port),
            };
            assert_eq!(icmp.icmp_type(), expected);
            let header = etherparse::Icmpv4Header::with_checksum(expected, icmp.payload());
            assert_eq!(icmp.checksum(), header.checksum);

            let after = answered(&tcp6(&[7; 1_440]), error);
            let sliced = SlicedPacket::from_ethernet(&after).unwrap();
            let Some(TransportSlice::Icmpv6(icmp)) = sliced.transport else { panic!("no ICMPv6") };
            let expected = match error {
                IcmpError::TooBig { mtu } => Icmpv6Type::PacketTooBig { mtu: mtu.into() },
                IcmpError::TimeExceeded => {
                    Icmpv6Type::TimeExceeded(icmpv6::TimeExceededCode::HopLimitExceeded)
                }
                IcmpError::PortUnreachable => {
                    Icmpv6Type::DestinationUnreachable(icmpv6::DestUnreachableCode::Port)
                }
            };
            assert_eq!(icmp.icmp_type(), expected);
            let Some(etherparse::NetSlice::Ipv6(ip)) = sliced.net else { panic!("no IPv6") };
            let (source, destination) = (ip.header().source(), ip.header().destination());
            let header =
                etherparse::Icmpv6Header::with_checksum(expected, source, destination, icmp.payload())
                    .unwrap();
            assert_eq!(icmp.checksum(), header.checksum);
        }
    }

    #[test]
    fn as_much_is_quoted_as_every_host_takes() {
        for (payload, quoted4, quoted6) in [(0, 40, 60), (7, 47, 67), (1_440, 548, 1_232)] {
            for (question, quoted, added) in
                [(tcp4(&vec![7; payload]), quoted4, 28), (tcp6(&vec![7; payload]), quoted6, 48)]
            {
                let after = answered(&question, IcmpError::TimeExceeded);
                assert_eq!(after.len(), 14 + added + quoted);
                assert_eq!(after[14 + added..], question[14..14 + quoted], "as it came");
            }
        }
    }

    #[test]
    fn ethernet_padding_is_not_quoted() {
        let mut question = udp4(b"");
        question.resize(60, 0);
        assert_eq!(answered(&question, IcmpError::PortUnreachable).len(), 14 + 28 + 28);
    }

    #[test]
    fn tags_stay() {
        let after = answered(&with_tags(udp6(b"payload"), 2), IcmpError::PortUnreachable);
        let headers = parse(&after, after.len());
        assert_eq!((headers.vlan_tci, headers.protocol, headers.icmp_type), ([100, 101], 58, 1));
    }

    #[test]
    fn room_in_front_means_that_nothing_is_moved() {
        for (question, added) in [(udp4(&[7; 900]), 28), (udp6(&[7; 900]), 48)] {
            let (result, _) = in_buffer(&question, added, 0, |packet| {
                let first_quoted = packet.bytes()[14..].as_ptr();
                icmp_error(packet, IcmpError::TimeExceeded)
                    .map(|()| (packet.room(), packet.bytes()[14 + added..].as_ptr() == first_quoted))
            });
            assert_eq!(result, Ok((0, true)));
        }
    }

    #[test]
    fn what_is_not_quoted_is_room_enough() {
        for (question, added) in [(tcp4(&[7; 1_440]), 28), (tcp6(&[7; 1_440]), 48)] {
            let (result, after) =
                in_buffer(&question, 0, 0, |packet| icmp_error(packet, IcmpError::TimeExceeded));
            assert_eq!(result, Ok(()));
            assert_eq!(after[14 + added..], question[14..after.len() - added]);
        }
    }

    #[test]
    fn without_room_there_is_no_answer() {
        let question = udp4(b"payload");
        let (result, after) =
            in_buffer(&question, 27, 0, |packet| icmp_error(packet, IcmpError::TimeExceeded));
        assert_eq!((result, after), (Err(NotAnswered), question));
    }

    #[test]
    fn who_gets_the_error_knows_by_the_quote_which_flow_it_is_about() {
        for question in [tcp4(b"payload"), tcp6(b"payload"), udp4(b"payload"), udp6(b"payload")] {
            let flow = FiveTuple::of(&question, &parse(&question, question.len())).unwrap();
            let after = answered(&question, IcmpError::PortUnreachable);
            let embedded = Embedded::of(&after, &parse(&after, after.len())).unwrap();
            assert_eq!(embedded.tuple, flow);
        }
    }
}
