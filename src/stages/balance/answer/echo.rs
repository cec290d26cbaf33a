//! Echo replies (RFC 792, RFC 4443): the address answers a ping.

use super::{HOPS, NotAnswered, may_be_answered};
use crate::packet::{Ethernet, Fragment, Ipv4, Ipv6};
use crate::pipeline::Packet;
use crate::stages::bounce::answer_echo_request;

const IPV4_BYTES: u16 = 20;
const IPV6_BYTES: u16 = 40;

/// Makes of an echo request its reply, whatever its length, and however many buffers it lies in.
///
/// Its checksum follows the changes; one that was wrong stays wrong. Traffic class, identification and "don't fragment" are
/// those of the request.
///
/// # Errors
///
/// [`NotAnswered`] for what [must not be answered](may_be_answered), for what is no echo request, for fragments, of which the
/// later ones do not say what they belong to, and for requests with IP options or extension headers, which would have to be
/// turned around as well (RFC 1122, section 3.2.2.6).
pub fn echo_reply(packet: &mut Packet<'_>) -> Result<(), NotAnswered> {
    let headers = packet.headers();
    let plain = if headers.ip_version == 4 { IPV4_BYTES } else { IPV6_BYTES };
    if !may_be_answered(packet)
        || headers.fragment != Fragment::No as u8
        || headers.transport_offset != headers.network_offset + plain
    {
        return Err(NotAnswered);
    }
    let (headers, bytes) = packet.headers_and_bytes();
    let (frame, network) = bytes.split_at_mut(usize::from(headers.network_offset));
    let transport = usize::from(headers.transport_offset - headers.network_offset);
    if !answer_echo_request(headers, &mut network[transport..]) {
        return Err(NotAnswered);
    }
    Ethernet::new_checked(frame).map_err(|_| NotAnswered)?.swap_addresses();
    if headers.ip_version == 4 {
        if let Ok(mut ip) = Ipv4::new_checked(&mut *network) {
            ip.swap_addresses();
            ip.set_ttl(HOPS);
            ip.fill_checksum();
        }
    } else if let Ok(mut ip) = Ipv6::new_checked(&mut *network) {
        ip.swap_addresses();
        ip.set_hop_limit(HOPS);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use etherparse::PacketBuilder;

    use super::super::super::test_packets::{
        CLIENT_MAC, CLIENT4, CLIENT6, OUR_MAC, VIP4, VIP6, in_buffer, tcp4, with_tags,
    };
    use super::*;
    use crate::pipeline::{Batch, Span};

    fn built(from: [[u8; 6]; 2], reply: bool, hops: u8) -> [Vec<u8>; 2] {
        let mut packets = [Vec::new(), Vec::new()];
        let link = || PacketBuilder::ethernet2(from[0], from[1]);
        let (v4, v6) =
            if reply { ((VIP4, CLIENT4), (VIP6, CLIENT6)) } else { ((CLIENT4, VIP4), (CLIENT6, VIP6)) };
        let (v4, v6) = (link().ipv4(v4.0, v4.1, hops), link().ipv6(v6.0, v6.1, hops));
        let (v4, v6) = if reply {
            (v4.icmpv4_echo_reply(7, 9), v6.icmpv6_echo_reply(7, 9))
        } else {
            (v4.icmpv4_echo_request(7, 9), v6.icmpv6_echo_request(7, 9))
        };
        v4.write(&mut packets[0], b"odd length!").unwrap();
        v6.write(&mut packets[1], b"odd length!").unwrap();
        packets
    }

    #[test]
    fn the_reply_is_the_one_that_etherparse_builds() {
        let requests = built([CLIENT_MAC, OUR_MAC], false, 7);
        let replies = built([OUR_MAC, CLIENT_MAC], true, 64);
        for (request, reply) in requests.into_iter().zip(replies) {
            for tags in 0..=2 {
                let (result, after) = in_buffer(&with_tags(request.clone(), tags), 0, 0, echo_reply);
                assert_eq!((result, after), (Ok(()), with_tags(reply.clone(), tags)));
            }
        }
    }

    #[test]
    fn only_whole_requests_without_options_are_answered() {
        let [request, request6] = built([CLIENT_MAC, OUR_MAC], false, 64);
        let mut fragment = request.clone();
        fragment[20] = 0x20;
        let mut options = request.clone();
        options.splice(34..34, [1; 4]);
        (options[14], options[17]) = (0x46, options[17] + 4);
        let mut code = request6.clone();
        code[55] = 1;
        let [reply, reply6] = built([CLIENT_MAC, OUR_MAC], true, 64);
        for packet in [fragment, options, code, reply, reply6, tcp4(b"")] {
            assert_eq!(in_buffer(&packet, 0, 0, echo_reply), (Err(NotAnswered), packet));
        }
    }

    #[test]
    fn a_request_in_several_buffers_is_answered() {
        let mut request = built([CLIENT_MAC, OUR_MAC], false, 64)[0].clone();
        request[16..18].copy_from_slice(&8_000u16.to_be_bytes());
        let mut batch = Batch::new(0);
        let end = request.len();
        batch.push_at(&mut request, Span { start: 0, end }, 8_014);
        batch.parse();
        assert_eq!(echo_reply(batch.packet_mut(0)), Ok(()));
    }
}
