//! Ethernet headers for what leaves.

use crate::packet::protocol::ETHERTYPE_VLAN;
use crate::packet::{Ethernet, MacAddress};
use crate::pipeline::{NoRoom, Packet};

const TAG_BYTES: usize = 4;
const UNTAGGED_BYTES: usize = Ethernet::<&[u8]>::HEADER_BYTES;
/// The bits of a tag that name the VLAN; the others are priority and drop eligibility, which stay 0.
const VLAN_ID: u16 = 0x0fff;

/// The Ethernet header that leads to a next hop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkHeader {
    /// The address of the port that the packet leaves by.
    pub source: MacAddress,
    /// The address of the next hop.
    pub destination: MacAddress,
    /// The VLAN it is in (802.1Q), by the lower 12 bits; `None` for no tag.
    pub vlan: Option<u16>,
}

impl LinkHeader {
    /// Bytes of the header: 14, or 18 with a tag.
    #[inline]
    pub const fn bytes(&self) -> usize {
        if self.vlan.is_some() { UNTAGGED_BYTES + TAG_BYTES } else { UNTAGGED_BYTES }
    }

    /// Writes the header to the beginning of `frame`, for a packet of this ethertype.
    ///
    /// # Panics
    ///
    /// When the frame is shorter than [`bytes`](Self::bytes).
    #[inline]
    pub(super) fn write(&self, frame: &mut [u8], ethertype: u16) {
        frame[..6].copy_from_slice(&self.destination.0);
        frame[6..12].copy_from_slice(&self.source.0);
        let [high, low] = ethertype.to_be_bytes();
        if let Some(vlan) = self.vlan {
            let ([tag_high, tag_low], [vlan_high, vlan_low]) =
                (ETHERTYPE_VLAN.to_be_bytes(), (vlan & VLAN_ID).to_be_bytes());
            frame[12..18].copy_from_slice(&[tag_high, tag_low, vlan_high, vlan_low, high, low]);
        } else {
            frame[12..14].copy_from_slice(&[high, low]);
        }
    }
}

/// Replaces the Ethernet header of a packet, tags included, by another one. The ethertype behind the tags stays.
///
/// The packet grows or shrinks at its front if the number of tags changes.
///
/// # Errors
///
/// [`NoRoom`] when there is none for a tag more. The packet is as it was then.
///
/// # Panics
///
/// May panic when the packet's headers were not parsed, or changed since: `network_offset` says where the old header ends.
#[inline(always)]
pub fn write_link(packet: &mut Packet<'_>, link: &LinkHeader) -> Result<(), NoRoom> {
    // Without tags before and after, the ethertype is right already.
    if link.vlan.is_none()
        && usize::from(packet.headers().network_offset) == UNTAGGED_BYTES
        && let Some(addresses) = packet.bytes_mut().first_chunk_mut::<12>()
    {
        // Each by itself: put together first, they would be read back before they are in the cache.
        addresses[..6].copy_from_slice(&link.destination.0);
        addresses[6..].copy_from_slice(&link.source.0);
        return Ok(());
    }
    write_other_link(packet, link)
}

/// Where there are tags.
#[inline(never)]
fn write_other_link(packet: &mut Packet<'_>, link: &LinkHeader) -> Result<(), NoRoom> {
    let (old, new) = (usize::from(packet.headers().network_offset), link.bytes());
    let ethertype = packet.headers().ethertype;
    match new.cmp(&old) {
        core::cmp::Ordering::Greater => packet.push_front(new - old)?,
        core::cmp::Ordering::Less => packet.pull_front(old - new)?,
        core::cmp::Ordering::Equal => {}
    }
    link.write(packet.bytes_mut(), ethertype);
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::super::test_packets::{in_buffer, tagged};
    use super::*;
    use crate::packet::{Outcome, packets, parse};

    const LINK: LinkHeader = LinkHeader {
        source: MacAddress([2, 0, 0, 0, 0, 9]),
        destination: MacAddress([2, 0, 0, 0, 0, 8]),
        vlan: None,
    };

    #[test]
    fn the_header_has_as_many_tags_as_the_link_wants() {
        for tags in 0..=2 {
            for vlan in [None, Some(7), Some(0xf007)] {
                let (before, link) = (tagged(tags), LinkHeader { vlan, ..LINK });
                let ((), after) = in_buffer(&before, 4, 0, |packet| write_link(packet, &link).unwrap());
                let sliced = etherparse::SlicedPacket::from_ethernet(&after).unwrap();
                let Some(etherparse::LinkSlice::Ethernet2(ethernet)) = &sliced.link else {
                    panic!("{sliced:?}")
                };
                assert_eq!(ethernet.destination(), LINK.destination.0);
                assert_eq!(ethernet.source(), LINK.source.0);
                let ids: Vec<u16> = sliced.vlan_ids().iter().map(|id| id.value()).collect();
                assert_eq!(ids, if vlan.is_some() { vec![7] } else { vec![] });
                assert_eq!(after[link.bytes()..], before[14 + 4 * tags..]);
            }
        }
    }

    #[test]
    fn a_tag_more_needs_room_somewhere() {
        let (before, link) = (tagged(0), LinkHeader { vlan: Some(7), ..LINK });
        let (result, after) = in_buffer(&before, 0, 0, |packet| write_link(packet, &link));
        assert_eq!((result, after), (Err(NoRoom), before.clone()));
        let (result, after) = in_buffer(&before, 0, 4, |packet| write_link(packet, &link));
        assert_eq!((result, &after[18..]), (Ok(()), &before[14..]));
    }

    proptest! {
        #[test]
        fn what_the_parser_takes_for_ip_stays_what_it_was(seed: u64, vlan: Option<u16>, front in 0..30usize) {
            let before = packets::packet(seed);
            let headers = parse(&before, before.len());
            prop_assume!(headers.outcome() == Outcome::Ip);
            let link = LinkHeader { vlan, ..LINK };
            let (result, after) = in_buffer(&before, front, 4, |packet| write_link(packet, &link));
            prop_assert_eq!(result, Ok(()));
            prop_assert_eq!(&after[link.bytes()..], &before[usize::from(headers.network_offset)..]);
            let parsed = parse(&after, after.len());
            prop_assert_eq!(
                (parsed.outcome(), parsed.protocol, parsed.src_port, parsed.vlan_count),
                (Outcome::Ip, headers.protocol, headers.src_port, u8::from(vlan.is_some()))
            );
        }
    }
}
