//! The packet inside a tunnel.

use crate::ecn;

/// Why a packet from a tunnel goes no further.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// The outer packet was for a group, not for this host.
    NotOurs,
    /// The first four bits are not the IP version that the outer header says, or no IP version at all.
    Version,
    /// The outer packet has more or fewer bytes than the inner header says. A kernel would cut what is too much; in a lab
    /// it is a mistake of who encapsulated.
    Length,
    /// Congestion was seen that the receiver cannot be told of.
    Congestion,
}

impl Refused {
    /// As counters call it.
    pub fn name(self) -> &'static str {
        match self {
            Refused::NotOurs => "not-ours",
            Refused::Version => "version",
            Refused::Length => "length",
            Refused::Congestion => "congestion",
        }
    }
}

/// Checks version and length, and returns the version. `expected` is the version that the outer header gives away.
pub fn check(packet: &[u8], expected: Option<u8>) -> Result<u8, Refused> {
    let version = packet.first().map(|byte| byte >> 4).ok_or(Refused::Length)?;
    if expected.is_some_and(|expected| version != expected) {
        return Err(Refused::Version);
    }
    let (header_bytes, length) = match (version, packet) {
        (4, [_, _, high, low, ..]) => (20, usize::from(u16::from_be_bytes([*high, *low]))),
        (6, [_, _, _, _, high, low, ..]) => (40, 40 + usize::from(u16::from_be_bytes([*high, *low]))),
        (4 | 6, _) => return Err(Refused::Length),
        _ => return Err(Refused::Version),
    };
    if packet.len() < header_bytes || packet.len() != length { Err(Refused::Length) } else { Ok(version) }
}

/// Writes the ECN field that results from the outer header's traffic class (TOS), and keeps the checksum in step.
/// The packet has passed [`check`].
pub fn take_over_ecn(packet: &mut [u8], outer_traffic_class: u8) -> Result<(), Refused> {
    const ECN: u8 = 0b11;
    let is_ipv4 = packet[0] >> 4 == 4;
    // IPv6 has four bits of its traffic class in each of the first two bytes.
    let shift = if is_ipv4 { 0 } else { 4 };
    let inner = packet[1] >> shift & ECN;
    let result = ecn::decapsulated(inner, outer_traffic_class & ECN).ok_or(Refused::Congestion)?;
    if result == inner {
        return Ok(());
    }
    let before = u16::from_be_bytes([packet[0], packet[1]]);
    packet[1] = packet[1] & !(ECN << shift) | result << shift;
    let after = u16::from_be_bytes([packet[0], packet[1]]);
    if is_ipv4 {
        let checksum = u16::from_be_bytes([packet[10], packet[11]]);
        packet[10..12].copy_from_slice(&updated(checksum, before, after).to_be_bytes());
    }
    Ok(())
}

/// A checksum after one 16-bit word has changed, as wrong as it was before (RFC 1624, equation 3).
fn updated(checksum: u16, before: u16, after: u16) -> u16 {
    let mut sum = u32::from(!checksum) + u32::from(!before) + u32::from(after);
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use etherparse::{Ipv4Header, Ipv6Header, PacketBuilder};

    use super::*;

    fn ipv4() -> Vec<u8> {
        let mut packet = Vec::new();
        PacketBuilder::ipv4([198, 18, 0, 1], [198, 18, 10, 1], 64)
            .udp(1, 2)
            .write(&mut packet, b"payload")
            .unwrap();
        packet
    }

    fn ipv6() -> Vec<u8> {
        let mut packet = Vec::new();
        PacketBuilder::ipv6([1; 16], [2; 16], 64).udp(1, 2).write(&mut packet, b"payload").unwrap();
        packet
    }

    #[test]
    fn a_packet_of_the_expected_version_and_length_passes() {
        assert_eq!(check(&ipv4(), Some(4)), Ok(4));
        assert_eq!(check(&ipv6(), Some(6)), Ok(6));
        assert_eq!(check(&ipv4(), None), Ok(4));
        assert_eq!(check(&ipv6(), None), Ok(6));
    }

    #[test]
    fn another_version_is_refused() {
        assert_eq!(check(&ipv4(), Some(6)), Err(Refused::Version));
        assert_eq!(check(&ipv6(), Some(4)), Err(Refused::Version));
        // GUE variant 0 has a header of its own.
        assert_eq!(check(&[0; 40], None), Err(Refused::Version));
    }

    #[test]
    fn a_packet_that_is_cut_or_followed_by_something_is_refused() {
        for packet in [ipv4(), ipv6()] {
            for length in 0..packet.len() {
                assert_eq!(check(&packet[..length], None), Err(Refused::Length), "{length} bytes");
            }
            assert_eq!(check(&[&packet[..], &[0]].concat(), None), Err(Refused::Length));
        }
    }

    #[test]
    fn a_mark_of_the_way_is_taken_over_and_the_checksum_follows() {
        let mut packet = ipv4();
        packet[1] = 0b1011_1010;
        let mut header = Ipv4Header::from_slice(&packet).unwrap().0;
        packet[10..12].copy_from_slice(&header.calc_header_checksum().to_be_bytes());
        take_over_ecn(&mut packet, 0b11).unwrap();
        assert_eq!(packet[1], 0b1011_1011, "the DSCP stays");
        header = Ipv4Header::from_slice(&packet).unwrap().0;
        assert_eq!(header.header_checksum, header.calc_header_checksum());

        let mut packet = ipv6();
        packet[1] |= 0b10 << 4;
        let before = Ipv6Header::from_slice(&packet).unwrap().0;
        take_over_ecn(&mut packet, 0b11).unwrap();
        let after = Ipv6Header::from_slice(&packet).unwrap().0;
        assert_eq!(after, Ipv6Header { traffic_class: 0b11, ..before });
    }

    #[test]
    fn a_wrong_checksum_is_not_healed() {
        let mut packet = ipv4();
        packet[1] |= 0b10;
        take_over_ecn(&mut packet, 0b11).unwrap();
        let header = Ipv4Header::from_slice(&packet).unwrap().0;
        assert_ne!(header.header_checksum, header.calc_header_checksum());
    }

    #[test]
    fn congestion_that_cannot_be_told_is_refused() {
        assert_eq!(take_over_ecn(&mut ipv4(), 0b11), Err(Refused::Congestion));
        assert_eq!(take_over_ecn(&mut ipv6(), 0b11), Err(Refused::Congestion));
    }
}
