//! VLAN tags (IEEE 802.1Q) put on and taken off.

use super::{EditError, Packet};
use crate::packet::protocol::{ETHERTYPE_SERVICE_VLAN, ETHERTYPE_VLAN};
use crate::packet::{Ethernet, Headers};

/// Destination and source MAC address.
const MAC_ADDRESSES: usize = 12;
const TAG_BYTES: usize = 4;

impl Packet<'_> {
    /// Puts a VLAN tag (802.1Q, ethertype 0x8100) in front of those that are there. `tci` is priority (3 bits), drop eligibility
    /// (1 bit) and VLAN id (12 bits), in host byte order.
    ///
    /// [`Headers`](crate::packet::Headers), if the packet was parsed, are those of the new packet.
    ///
    /// # Errors
    ///
    /// [`EditError::NoHeader`] for a packet without Ethernet header, [`EditError::NoRoom`] where
    /// [`push_front`](Packet::push_front) has none.
    pub fn push_vlan(&mut self, tci: u16) -> Result<(), EditError> {
        if self.bytes().len() < Ethernet::<&[u8]>::HEADER_BYTES {
            return Err(EditError::NoHeader);
        }
        self.push_front(TAG_BYTES)?;
        let bytes = self.bytes_mut();
        bytes.copy_within(TAG_BYTES..TAG_BYTES + MAC_ADDRESSES, 0);
        bytes[MAC_ADDRESSES..MAC_ADDRESSES + 2].copy_from_slice(&ETHERTYPE_VLAN.to_be_bytes());
        bytes[MAC_ADDRESSES + 2..MAC_ADDRESSES + TAG_BYTES].copy_from_slice(&tci.to_be_bytes());
        self.reparse_if_parsed();
        Ok(())
    }

    /// Takes the outermost VLAN tag (802.1Q or 802.1ad) off and returns its tag control information, in host byte order.
    ///
    /// [`Headers`](crate::packet::Headers), if the packet was parsed, are those of the new packet.
    ///
    /// # Errors
    ///
    /// [`EditError::NoHeader`] when there is no tag.
    pub fn pop_vlan(&mut self) -> Result<u16, EditError> {
        let bytes = self.bytes_mut();
        let Some(&[type_high, type_low, tci_high, tci_low, _, _]) =
            bytes.get(MAC_ADDRESSES..).and_then(<[u8]>::first_chunk)
        else {
            return Err(EditError::NoHeader);
        };
        if !matches!(u16::from_be_bytes([type_high, type_low]), ETHERTYPE_VLAN | ETHERTYPE_SERVICE_VLAN) {
            return Err(EditError::NoHeader);
        }
        bytes.copy_within(..MAC_ADDRESSES, TAG_BYTES);
        self.pull_front(TAG_BYTES)?;
        self.reparse_if_parsed();
        Ok(u16::from_be_bytes([tci_high, tci_low]))
    }

    /// No packet that was parsed leaves all of them zero.
    fn reparse_if_parsed(&mut self) {
        if self.headers != Headers::default() {
            self.reparse();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::{packets, parse};
    use crate::pipeline::{Batch, Span};

    #[test]
    fn a_tag_that_is_put_on_is_found_and_taken_off_again() {
        let mut tagged = 0;
        for seed in packets::seeds(3_000) {
            let bytes = packets::packet(seed);
            for room in [0, 2, 8] {
                let mut buffer = [vec![0; room], bytes.clone(), vec![0; 8]].concat();
                let mut batch = Batch::new(0);
                batch.push_at(&mut buffer, Span { start: room, end: room + bytes.len() }, bytes.len() as u32);
                batch.parse();
                let packet = batch.packet_mut(0);
                if packet.push_vlan(0x2064).is_err() {
                    assert!(bytes.len() < 14);
                    continue;
                }
                let expected = [&bytes[..12], &[0x81, 0, 0x20, 0x64], &bytes[12..]].concat();
                assert_eq!(packet.bytes(), expected);
                assert_eq!(*packet.headers(), parse(&expected, expected.len()));
                assert_eq!((packet.headers().vlan_tci[0], packet.pop_vlan()), (0x2064, Ok(0x2064)));
                assert_eq!(packet.bytes(), bytes);
                assert_eq!(*packet.headers(), parse(&bytes, bytes.len()));
                tagged += 1;
            }
        }
        assert!(cfg!(miri) || tagged > 5_000, "{tagged}");
    }

    #[test]
    fn what_is_not_there_is_not_taken_off_and_what_was_not_parsed_stays_so() {
        let mut buffer = [0; 64];
        let mut batch = Batch::new(0);
        batch.push_at(&mut buffer, Span { start: 0, end: 60 }, 60);
        let packet = batch.packet_mut(0);
        assert_eq!(packet.pop_vlan(), Err(EditError::NoHeader));
        packet.push_vlan(7).unwrap();
        assert_eq!(packet.push_vlan(8), Err(EditError::NoRoom));
        assert_eq!((packet.len(), *packet.headers()), (64, Headers::default()));
        packet.resize(17).unwrap();
        assert_eq!(packet.pop_vlan(), Err(EditError::NoHeader), "the tag is cut off");
    }
}
