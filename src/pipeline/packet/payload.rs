//! What is behind the transport header, with the lengths and checksums that say so.

use std::ops::Range;

use super::{EditError, Packet};
use crate::packet::Fragment;
use crate::packet::checksum::{Delta, Sum};
use crate::packet::protocol::{ICMP, ICMPV6, TCP, UDP};

/// What a length field of IP or UDP can say.
const MAX_LENGTH: usize = u16::MAX as usize;

impl Packet<'_> {
    /// What is behind the TCP, UDP, SCTP or ICMP header, without Ethernet padding: as much of it as lies in the packet's first
    /// buffer. `None` when there is no such header or it is broken.
    #[inline]
    pub fn payload(&self) -> Option<&[u8]> {
        self.bytes().get(self.payload_range()?)
    }

    /// The [`payload`](Packet::payload), to be changed in place. Checksums do not follow: see
    /// [`fill_checksums`](Packet::fill_checksums).
    #[inline]
    pub fn payload_mut(&mut self) -> Option<&mut [u8]> {
        let range = self.payload_range()?;
        self.bytes_mut().get_mut(range)
    }

    #[inline]
    fn payload_range(&self) -> Option<Range<usize>> {
        if self.headers.payload_offset == 0 {
            return None;
        }
        let start = usize::from(self.headers.payload_offset);
        Some(start..self.transport_end()?.min(self.bytes().len()))
    }

    /// One past the last byte that belongs to the transport header's protocol: of a whole UDP datagram what its own length says,
    /// else the end of the IP packet.
    fn transport_end(&self) -> Option<usize> {
        let headers = &self.headers;
        if headers.protocol == UDP && headers.fragment == Fragment::No as u8 {
            Some(usize::from(headers.transport_offset) + usize::from(self.udp()?.length_bytes()))
        } else {
            Some(headers.end as usize)
        }
    }

    /// Makes the payload `len` bytes long: takes bytes off its end, or adds zeros. The length fields of IP and UDP follow, and
    /// [`Headers`](crate::packet::Headers); Ethernet padding is taken away.
    ///
    /// The checksum of the transport header does not follow, since the payload will be written now: call
    /// [`fill_checksums`](Packet::fill_checksums) afterwards.
    ///
    /// # Errors
    ///
    /// [`EditError::NoHeader`] when there is no transport header, the packet is malformed or a fragment; [`EditError::NoRoom`] when the
    /// buffer or the length fields are too small, or the packet lies in several buffers.
    pub fn resize_payload(&mut self, len: usize) -> Result<(), EditError> {
        self.check_outcome()?;
        let headers = self.headers;
        if headers.fragment != Fragment::No as u8 {
            return Err(EditError::NoHeader);
        }
        let Range { start, end: before } = self.payload_range().ok_or(EditError::NoHeader)?;
        let end = start.checked_add(len).ok_or(EditError::NoRoom)?;
        let network = usize::from(headers.network_offset);
        if !self.is_linear() || end > self.buffer.len() - self.room() || end - network > MAX_LENGTH {
            return Err(EditError::NoRoom);
        }
        // Padding is no payload, so it goes first.
        self.resize(before.min(end))?;
        self.resize(end)?;
        self.headers.end = end as u32;
        // Both fit 16 bits, as was looked at above.
        let (ip_bytes, transport_bytes) =
            ((end - network) as u16, (end - usize::from(headers.transport_offset)) as u16);
        if let Some(mut ip) = self.ipv4_mut() {
            let change = Delta::new().u16(ip.total_bytes(), ip_bytes);
            ip.set_total_bytes(ip_bytes);
            ip.set_checksum(change.apply(ip.checksum()));
        } else if let Some(mut ip) = self.ipv6_mut() {
            ip.set_payload_bytes(ip_bytes - 40);
        }
        if let Some(mut udp) = self.udp_mut() {
            udp.set_length_bytes(transport_bytes);
        }
        Ok(())
    }

    /// Replaces the payload: lengths and checksums are right afterwards.
    ///
    /// # Errors
    ///
    /// Those of [`resize_payload`](Packet::resize_payload).
    pub fn set_payload(&mut self, payload: &[u8]) -> Result<(), EditError> {
        self.resize_payload(payload.len())?;
        if let Some(bytes) = self.payload_mut() {
            bytes.copy_from_slice(payload);
        }
        self.fill_checksums()
    }

    /// Computes the checksums of IPv4, TCP, UDP and ICMP anew, also that of a UDP datagram which had none.
    ///
    /// # Errors
    ///
    /// [`EditError::NoHeader`] when the packet is malformed, not IP or a fragment, [`EditError::NoRoom`] when it lies in several buffers,
    /// not all of which are seen here.
    pub fn fill_checksums(&mut self) -> Result<(), EditError> {
        self.check_outcome()?;
        let headers = self.headers;
        if headers.fragment != Fragment::No as u8 || headers.end == 0 {
            return Err(EditError::NoHeader);
        }
        if !self.is_linear() {
            return Err(EditError::NoRoom);
        }
        if let Some(mut ip) = self.ipv4_mut() {
            ip.fill_checksum();
        }
        let field = match headers.protocol {
            TCP => 16,
            UDP => 6,
            ICMP if headers.ip_version == 4 => 2,
            ICMPV6 if headers.ip_version == 6 => 2,
            _ => return Ok(()),
        };
        if headers.payload_offset == 0 {
            return Ok(());
        }
        let start = usize::from(headers.transport_offset);
        let end = self.transport_end().ok_or(EditError::NoHeader)?;
        let length = end.saturating_sub(start) as u16;
        let pseudo_header = match (self.ipv4(), self.ipv6()) {
            (Some(_), _) if headers.protocol == ICMP => Sum::new(),
            (Some(ip), _) => {
                Sum::new().ipv4_pseudo_header(ip.source(), ip.destination(), headers.protocol, length)
            }
            (_, Some(ip)) => {
                Sum::new().ipv6_pseudo_header(ip.source(), ip.destination(), headers.protocol, length.into())
            }
            _ => return Err(EditError::NoHeader),
        };
        let segment = self.bytes_mut().get_mut(start..end).ok_or(EditError::NoHeader)?;
        segment.get_mut(field..field + 2).ok_or(EditError::NoHeader)?.fill(0);
        let sum = pseudo_header.bytes(segment);
        let checksum = if headers.protocol == UDP { sum.udp_checksum() } else { sum.checksum() };
        segment[field..field + 2].copy_from_slice(&checksum.to_be_bytes());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use etherparse::PacketBuilder;

    use super::*;
    use crate::packet::{packets, parse};
    use crate::pipeline::{Batch, Span};
    use crate::testing::built;

    fn with<R>(bytes: &[u8], len: u32, work: impl FnOnce(&mut Packet<'_>) -> R) -> R {
        let mut buffer = [bytes, &[0xaa; 100]].concat();
        let mut batch = Batch::new(0);
        batch.push_at(&mut buffer, Span { start: 0, end: bytes.len() }, len);
        batch.parse();
        work(batch.packet_mut(0))
    }

    #[test]
    fn a_packet_with_another_payload_is_the_one_that_etherparse_builds() {
        let link = || PacketBuilder::ethernet2([2; 6], [4; 6]);
        let (v4, v6) =
            (|| link().ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64), || link().ipv6([1; 16], [2; 16], 64));
        let build = |payload: &[u8]| {
            [
                built!(v4().udp(1, 2), payload),
                built!(v6().udp(1, 2), payload),
                built!(v4().tcp(1, 2, 3, 4), payload),
                built!(v6().tcp(1, 2, 3, 4), payload),
                built!(v4().icmpv4_echo_request(7, 8), payload),
                built!(v6().icmpv6_echo_request(7, 8), payload),
            ]
        };
        let payloads: [&[u8]; 4] = [b"", b"x", b"twelve bytes", &[0xff; 99]];
        for before in payloads {
            for after in payloads {
                for (mut packet, expected) in build(before).into_iter().zip(build(after)) {
                    // Ethernet padding, which is not zero.
                    packet.resize(packet.len().max(60), 0x55);
                    with(&packet, packet.len() as u32, |packet| {
                        assert_eq!(packet.payload(), Some(before));
                        packet.set_payload(after).unwrap();
                        assert_eq!(packet.bytes(), expected);
                        assert_eq!(*packet.headers(), parse(&expected, expected.len()));
                    });
                }
            }
        }
    }

    #[test]
    fn bytes_that_are_added_are_zero_even_where_there_was_padding() {
        let mut bytes =
            built!(PacketBuilder::ethernet2([2; 6], [4; 6]).ipv4([10; 4], [11; 4], 64).udp(1, 2), b"ab");
        bytes.resize(60, 0x55);
        with(&bytes, 60, |packet| {
            packet.resize_payload(8).unwrap();
            assert_eq!(packet.payload(), Some(&b"ab\0\0\0\0\0\0"[..]));
        });
    }

    #[test]
    fn what_does_not_fit_leaves_the_packet_as_it_was() {
        let bytes =
            built!(PacketBuilder::ethernet2([2; 6], [4; 6]).ipv4([10; 4], [11; 4], 64).udp(1, 2), b"ab");
        for len in [103, 70_000, usize::MAX] {
            with(&bytes, bytes.len() as u32, |packet| {
                assert_eq!(packet.resize_payload(len), Err(EditError::NoRoom));
                assert_eq!(packet.bytes(), bytes);
            });
        }
    }

    #[test]
    fn of_a_packet_in_several_buffers_neither_payload_nor_checksum_is_changed() {
        let mut bytes =
            built!(PacketBuilder::ethernet2([2; 6], [4; 6]).ipv4([10; 4], [11; 4], 64).udp(1, 2), b"ab");
        bytes[16..18].copy_from_slice(&9_000u16.to_be_bytes());
        bytes[38..40].copy_from_slice(&8_980u16.to_be_bytes());
        with(&bytes, 9_014, |packet| {
            assert_eq!(packet.payload(), Some(&b"ab"[..]), "what lies in the first buffer");
            assert_eq!(
                (packet.resize_payload(1), packet.fill_checksums()),
                (Err(EditError::NoRoom), Err(EditError::NoRoom))
            );
            assert_eq!(
                (packet.set_payload(b"x"), packet.reply_udp(b"x")),
                (Err(EditError::NoRoom), Err(EditError::NoRoom))
            );
            assert_eq!(packet.bytes(), bytes);
        });
    }

    #[test]
    fn a_resized_packet_of_any_kind_is_well_formed() {
        let mut resized = 0;
        for seed in packets::seeds(3_000) {
            let bytes = packets::well_formed(seed);
            with(&bytes, bytes.len() as u32, |packet| {
                if packet.resize_payload(seed as usize % 90).is_ok() {
                    resized += 1;
                    assert_eq!(*packet.headers(), parse(packet.bytes(), packet.len()), "seed {seed}");
                    assert_eq!(packet.payload().unwrap().len(), seed as usize % 90);
                }
            });
        }
        assert!(cfg!(miri) || resized > 1_000, "{resized}");
    }
}
