//! Room that the XDP program makes in front of a packet, and how user space recognizes it.
//!
//! A descriptor of AF_XDP says where a packet begins, and user space cannot move that. So for services whose packets get
//! outer headers, the program moves the beginning forward by their size (`bpf_xdp_adjust_head`) and writes a word into the
//! new bytes: 48 bits that were drawn when the process started, and the size of the room. A packet without room has its
//! destination MAC address in the place of these bits. Who cannot see them can only guess, at odds of 1 to 2^48 a packet;
//! a packet from behind a router cannot even try, since its MAC addresses are the router's choice. What a right guess would
//! gain: that packet, whose MAC address no host has, is read from another byte on.

/// Least room that can be made: the word.
pub const MIN_ROOM: u8 = 8;
/// Most room that can be made. Drivers keep 192 or 256 bytes in front of a packet, and the kernel needs 40 of them.
pub const MAX_ROOM: u8 = 128;

/// What tells room from a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RoomMark(u64);

impl RoomMark {
    const BITS: u64 = (1 << 48) - 1;

    /// A mark out of 48 of the bits of `random`.
    pub const fn new(random: u64) -> Self {
        Self(random & Self::BITS)
    }

    /// The word that says that there is this much room, little-endian in the packet: six bytes of mark, two of size.
    #[inline(always)]
    pub const fn word(self, room: u8) -> u64 {
        self.0 | (room as u64) << 48
    }

    /// The room that a packet's first word speaks of.
    #[inline(always)]
    pub const fn room(self, word: u64) -> Option<usize> {
        if word & Self::BITS == self.0 { Some((word >> 48) as usize) } else { None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mark_tells_how_much_room_there_is() {
        let mark = RoomMark::new(0xffff_1234_5678_9abc);
        assert_eq!(mark.room(mark.word(62)), Some(62));
        assert_eq!(mark.room(mark.word(62) ^ 1), None);
        assert_eq!(mark.room(mark.word(62) ^ 1 << 47), None);
        assert_eq!(mark.word(8).to_le_bytes(), [0xbc, 0x9a, 0x78, 0x56, 0x34, 0x12, 8, 0]);
    }
}
