//! TCP resets (RFC 9293, section 3.10.7.1: what a closed port answers).

use super::{HOPS, NotAnswered, may_be_answered};
use crate::packet::checksum::Sum;
use crate::packet::protocol::TCP;
use crate::packet::{Ethernet, Fragment, Headers, Ipv4, Ipv6, Tcp};
use crate::pipeline::Packet;

const IPV4_BYTES: usize = 20;
const IPV6_BYTES: usize = 40;
const TCP_BYTES: usize = 20;
/// The bits of the traffic class that are DSCP. A reset is not ECN-capable (RFC 3168, section 6.1).
const DSCP: u8 = 0xfc;

/// What a reset says, from the segment that it answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Reset {
    source_port: u16,
    destination_port: u16,
    sequence: u32,
    acknowledgement: u32,
    flags: u8,
}

/// Makes of a TCP segment the reset that tells its sender that nobody listens. It is never longer than the segment was.
///
/// The checksum of the segment is not verified: whoever gets the reset holds its numbers against what was sent.
///
/// # Errors
///
/// [`NotAnswered`] for what [must not be answered](may_be_answered), a reset among it, for fragments, for what is not TCP, and for
/// packets in several buffers.
pub fn reset(packet: &mut Packet<'_>) -> Result<(), NotAnswered> {
    if !may_be_answered(packet) || !packet.is_linear() {
        return Err(NotAnswered);
    }
    let headers = *packet.headers();
    let reset = Reset::of(packet.bytes(), &headers).ok_or(NotAnswered)?;
    let ip_at = usize::from(headers.network_offset);
    let ip_bytes = if headers.ip_version == 4 { IPV4_BYTES } else { IPV6_BYTES };
    packet.resize(ip_at + ip_bytes + TCP_BYTES)?;
    let (frame, network) = packet.bytes_mut().split_at_mut(ip_at);
    Ethernet::new_checked(frame).map_err(|_| NotAnswered)?.swap_addresses();
    let (header, segment) = network.split_at_mut(ip_bytes);
    if headers.ip_version == 4 {
        write_ipv4(header, segment, reset).ok_or(NotAnswered)
    } else {
        write_ipv6(header, segment, reset).ok_or(NotAnswered)
    }
}

impl Reset {
    /// `None` when the packet is no whole TCP segment, or a reset itself.
    fn of(bytes: &[u8], headers: &Headers) -> Option<Self> {
        if headers.protocol != TCP || headers.fragment != Fragment::No as u8 || headers.payload_offset == 0 {
            return None;
        }
        let segment = Tcp::new_checked(bytes.get(usize::from(headers.transport_offset)..)?).ok()?;
        let flags = segment.flags();
        if flags & Tcp::RST != 0 {
            return None;
        }
        // SYN and FIN take a sequence number each.
        let length = (headers.end - u32::from(headers.payload_offset))
            + u32::from(flags & Tcp::SYN != 0)
            + u32::from(flags & Tcp::FIN != 0);
        let (sequence, acknowledgement, flags) = if flags & Tcp::ACK != 0 {
            (segment.acknowledgement(), 0, Tcp::RST)
        } else {
            (0, segment.sequence().wrapping_add(length), Tcp::RST | Tcp::ACK)
        };
        let (source_port, destination_port) = (segment.destination_port(), segment.source_port());
        Some(Self { source_port, destination_port, sequence, acknowledgement, flags })
    }

    /// Writes the segment; `pseudo_header` is the sum over that.
    fn write(self, segment: &mut [u8], pseudo_header: Sum) -> Option<()> {
        segment.fill(0);
        segment[12] = ((TCP_BYTES / 4) << 4) as u8;
        let mut tcp = Tcp::new_checked(&mut *segment).ok()?;
        tcp.set_source_port(self.source_port);
        tcp.set_destination_port(self.destination_port);
        tcp.set_sequence(self.sequence);
        tcp.set_acknowledgement(self.acknowledgement);
        tcp.set_flags(self.flags);
        let checksum = pseudo_header.bytes(segment).checksum();
        Tcp::new_checked(segment).ok()?.set_checksum(checksum);
        Some(())
    }
}

/// Writes IP header and segment over those of the question. `None` only if there were no room, which there is.
fn write_ipv4(header: &mut [u8], segment: &mut [u8], reset: Reset) -> Option<()> {
    // Options go.
    header[0] = 0x45;
    let mut ip = Ipv4::new_checked(header).ok()?;
    ip.swap_addresses();
    ip.set_traffic_class(ip.traffic_class() & DSCP);
    ip.set_total_bytes((IPV4_BYTES + TCP_BYTES) as u16);
    ip.set_identification(0);
    ip.set_dont_fragment(true);
    ip.set_ttl(HOPS);
    ip.set_protocol(TCP);
    ip.fill_checksum();
    let sum = Sum::new().ipv4_pseudo_header(ip.source(), ip.destination(), TCP, TCP_BYTES as u16);
    reset.write(segment, sum)
}

/// Like [`write_ipv4`]; extension headers go.
fn write_ipv6(header: &mut [u8], segment: &mut [u8], reset: Reset) -> Option<()> {
    let mut ip = Ipv6::new_checked(header).ok()?;
    ip.swap_addresses();
    ip.set_class_and_label(ip.traffic_class() & DSCP, 0);
    ip.set_payload_bytes(TCP_BYTES as u16);
    ip.set_next_header(TCP);
    ip.set_hop_limit(HOPS);
    let sum = Sum::new().ipv6_pseudo_header(ip.source(), ip.destination(), TCP, TCP_BYTES as u32);
    reset.write(segment, sum)
}

#[cfg(test)]
mod tests {
    use etherparse::{PacketBuilder, SlicedPacket, TcpHeader, TransportSlice};

    use super::super::super::test_packets::{
        CLIENT_MAC, CLIENT4, CLIENT6, OUR_MAC, VIP4, VIP6, in_buffer, tcp4, udp4, with_tags,
    };
    use super::*;

    /// A segment in either family with these flags, sequence number 1000 and acknowledgement number 2000.
    fn segments(flags: u8, payload: &[u8]) -> [Vec<u8>; 2] {
        let mut header = TcpHeader::new(40_000, 80, 1_000, 512);
        (header.syn, header.fin) = (flags & Tcp::SYN != 0, flags & Tcp::FIN != 0);
        (header.ack, header.rst) = (flags & Tcp::ACK != 0, flags & Tcp::RST != 0);
        header.acknowledgment_number = 2_000;
        header.set_options_raw(&[2, 4, 5, 0xb4]).unwrap();
        let link = || PacketBuilder::ethernet2(CLIENT_MAC, OUR_MAC);
        let mut packets = [Vec::new(), Vec::new()];
        link().ipv4(CLIENT4, VIP4, 64).tcp_header(header.clone()).write(&mut packets[0], payload).unwrap();
        link().ipv6(CLIENT6, VIP6, 64).tcp_header(header).write(&mut packets[1], payload).unwrap();
        packets
    }

    /// The reset, whose checksum etherparse computes as well.
    fn answered(question: &[u8]) -> TcpHeader {
        let (result, after) = in_buffer(question, 0, 0, reset);
        assert_eq!(result, Ok(()));
        let sliced = SlicedPacket::from_ethernet(&after).unwrap();
        let Some(TransportSlice::Tcp(tcp)) = sliced.transport else { panic!("no TCP") };
        assert!(tcp.payload().is_empty());
        let header = tcp.to_header();
        match sliced.net {
            Some(etherparse::NetSlice::Ipv4(ip)) => {
                let expected = header.calc_checksum_ipv4(&ip.header().to_header(), &[]).unwrap();
                assert_eq!(header.checksum, expected);
            }
            Some(etherparse::NetSlice::Ipv6(ip)) => {
                let expected = header.calc_checksum_ipv6(&ip.header().to_header(), &[]).unwrap();
                assert_eq!(header.checksum, expected);
            }
            _ => panic!("no IP"),
        }
        header
    }

    #[test]
    fn the_numbers_are_those_that_the_sender_accepts() {
        let (syn, ack, fin) = (Tcp::SYN, Tcp::ACK, Tcp::FIN);
        for (flags, payload, sequence, acknowledgement) in [
            (syn, &b""[..], 0, Some(1_001)),
            (syn, b"fast open", 0, Some(1_010)),
            (0, b"12345", 0, Some(1_005)),
            (fin, b"", 0, Some(1_001)),
            (syn | fin, b"1", 0, Some(1_003)),
            (ack, b"12345", 2_000, None),
            (syn | ack, b"", 2_000, None),
            (fin | ack, b"12345", 2_000, None),
        ] {
            for question in segments(flags, payload) {
                let reset = answered(&question);
                assert!(reset.rst && !reset.syn && !reset.fin);
                assert_eq!((reset.source_port, reset.destination_port), (80, 40_000));
                assert_eq!(reset.sequence_number, sequence, "flags {flags:#x}");
                assert_eq!(reset.ack.then_some(reset.acknowledgment_number), acknowledgement);
                assert_eq!(reset.data_offset(), 5, "no options");
            }
        }
    }

    #[test]
    fn sequence_numbers_wrap() {
        let mut question = segments(Tcp::SYN, b"")[0].clone();
        question[38..42].fill(0xff);
        assert_eq!(answered(&question).acknowledgment_number, 0);
    }

    #[test]
    fn resets_and_fragments_and_what_is_not_tcp_are_not_reset() {
        let mut questions = segments(Tcp::RST, b"").to_vec();
        questions.extend(segments(Tcp::RST | Tcp::ACK, b"payload"));
        let mut first_fragment = tcp4(b"payload");
        first_fragment[20] = 0x20;
        questions.extend([first_fragment, udp4(b"payload")]);
        for question in questions {
            assert_eq!(in_buffer(&question, 0, 0, reset), (Err(NotAnswered), question));
        }
    }

    #[test]
    fn ethernet_padding_is_no_payload() {
        let mut question = segments(Tcp::SYN, b"")[0].clone();
        question.resize(64, 0);
        assert_eq!(answered(&question).acknowledgment_number, 1_001);
    }

    #[test]
    fn options_and_extension_headers_of_the_question_go() {
        let mut question = segments(Tcp::SYN, b"")[0].clone();
        question.splice(34..34, [1; 40]);
        (question[14], question[15], question[17]) = (0x4f, 0xb9, 84);
        let (_, after) = in_buffer(&question, 0, 0, reset);
        assert_eq!((after.len(), after[14], after[15]), (54, 0x45, 0xb8), "ECN goes as well");
        let mut question = segments(Tcp::SYN, b"")[1].clone();
        question.splice(54..54, [6, 0, 1, 4, 0, 0, 0, 0]);
        (question[19], question[20]) = (question[19] + 8, 60);
        assert_eq!(answered(&question).acknowledgment_number, 1_001);
    }

    #[test]
    fn tags_stay() {
        let (result, after) = in_buffer(&with_tags(tcp4(b""), 1), 0, 0, reset);
        let sliced = SlicedPacket::from_ethernet(&after).unwrap();
        assert_eq!((result, sliced.vlan_ids()[0].value()), (Ok(()), 100));
    }
}
