//! The sum over a packet that goes into a tunnel, for the checksum of the UDP header in front of it.
//!
//! Over IPv6 that checksum is not optional: RFC 6935 and 6936 let a tunnel go without, but only where both ends are set up
//! for it, and Linux drops such packets unless told otherwise. Summing up the packet reads all its bytes. Most packets say
//! themselves what their sum is: a TCP segment or UDP datagram and its pseudo header sum up to 0 (as one's complement) if
//! its checksum is right, so the segment's sum is that of the pseudo header taken out of 0, and only the IP header is read.
//!
//! If the inner checksum is wrong, so is the outer one, by the same amount: the packet is dropped at the end of the tunnel
//! instead of behind it. It is never made to look right.

use crate::packet::checksum::Sum;
use crate::packet::protocol::{TCP, UDP};
use crate::packet::{Fragment, Headers, Ipv4, Ipv6, Udp};

/// The sum over the whole IP packet in `bytes` as `headers` describe it. `None` when it would have to be read and does not
/// lie in this buffer as a whole.
#[inline]
pub(super) fn inner_sum(bytes: &[u8], headers: &Headers) -> Option<Sum> {
    let (start, end) = (usize::from(headers.network_offset), headers.end as usize);
    let network = bytes.get(start..)?;
    match known_segment_sum(network, headers) {
        Some((header_bytes, segment)) => Some(segment.bytes(network.get(..header_bytes)?)),
        None => Some(Sum::new().bytes(bytes.get(start..end)?)),
    }
}

/// Bytes of the IP header, and the sum over what is behind it if its own checksum says that: not for fragments, for UDP
/// without checksum or with bytes behind the datagram, nor behind options or extension headers, which may change what
/// the pseudo header holds (source routes).
#[inline]
fn known_segment_sum(network: &[u8], headers: &Headers) -> Option<(usize, Sum)> {
    let header_bytes = usize::from(headers.transport_offset).checked_sub(headers.network_offset.into())?;
    let length = u16::try_from((headers.end as usize).checked_sub(headers.transport_offset.into())?).ok()?;
    if headers.fragment != Fragment::No as u8 {
        return None;
    }
    match headers.protocol {
        TCP => {}
        UDP => {
            let udp = Udp::new_checked(network.get(header_bytes..)?).ok()?;
            if udp.checksum() == 0 || udp.length_bytes() != length {
                return None;
            }
        }
        _ => return None,
    }
    let pseudo = match (headers.ip_version, header_bytes) {
        (4, 20) => {
            let ip = Ipv4::new_checked(network).ok()?;
            Sum::new().ipv4_pseudo_header(ip.source(), ip.destination(), headers.protocol, length)
        }
        (6, 40) => {
            let ip = Ipv6::new_checked(network).ok()?;
            Sum::new().ipv6_pseudo_header(ip.source(), ip.destination(), headers.protocol, length.into())
        }
        _ => return None,
    };
    Some((header_bytes, Sum::new().without(pseudo)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::super::test_packets::{right_checksums, tcp4, udp6};
    use super::*;
    use crate::packet::{Outcome, packets, parse};

    /// The sum by reading everything.
    fn read(bytes: &[u8], headers: &Headers) -> u16 {
        Sum::new().bytes(&bytes[headers.network_offset.into()..headers.end as usize]).checksum()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]
        #[test]
        fn the_sum_of_packets_with_right_checksums_is_the_one_that_reading_them_gives(seed: u64) {
            let bytes = right_checksums(packets::well_formed(seed));
            let headers = parse(&bytes, bytes.len());
            prop_assume!(headers.outcome() == Outcome::Ip);
            // Both are zeros of one's complement.
            let zero = |checksum| if checksum == 0xffff { 0 } else { checksum };
            let derived = inner_sum(&bytes, &headers).unwrap().checksum();
            prop_assert_eq!(zero(derived), zero(read(&bytes, &headers)));
        }
    }

    #[test]
    fn a_segment_is_not_read_when_its_checksum_says_what_it_sums_up_to() {
        for whole in [tcp4(&[7; 1_001]), udp6(&[7; 1_001])] {
            let headers = parse(&whole, whole.len());
            let expected = read(&whole, &headers);
            let first = &whole[..headers.payload_offset.into()];
            assert_eq!(inner_sum(first, &headers).map(Sum::checksum), Some(expected));
        }
    }

    #[test]
    fn without_such_a_checksum_the_whole_packet_is_needed() {
        let mut whole = udp6(&[7; 100]);
        whole[60..62].fill(0);
        let headers = parse(&whole, whole.len());
        assert_eq!(inner_sum(&whole, &headers).unwrap().checksum(), read(&whole, &headers));
        assert!(inner_sum(&whole[..100], &headers).is_none());
    }

    #[test]
    fn bytes_behind_a_datagram_that_its_checksum_does_not_cover_are_read() {
        let mut bytes = udp6(&[7; 100]);
        bytes.extend([1, 2, 3]);
        let payload_bytes = (bytes.len() - 54) as u16;
        bytes[18..20].copy_from_slice(&payload_bytes.to_be_bytes());
        let headers = parse(&bytes, bytes.len());
        assert_eq!(headers.outcome(), Outcome::Ip);
        assert_eq!(inner_sum(&bytes, &headers).unwrap().checksum(), read(&bytes, &headers));
    }

    #[test]
    fn a_wrong_checksum_inside_stays_wrong_outside() {
        let mut bytes = tcp4(&[7; 100]);
        bytes[60] ^= 4;
        let headers = parse(&bytes, bytes.len());
        assert_ne!(inner_sum(&bytes, &headers).unwrap().checksum(), read(&bytes, &headers));
    }
}
