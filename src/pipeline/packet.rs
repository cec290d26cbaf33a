//! One packet of a batch.

use crate::packet::{Headers, parse};

/// A received packet: its bytes, and what the parser found in them.
///
/// A packet that was received into several buffers (multi-buffer, jumbo frames) shows the bytes of its first
/// one, which holds the headers; [`len`](Packet::len) is that of the whole packet.
///
/// # Growing and shrinking
///
/// The packet lies somewhere in a buffer. Where there is [`room`](Packet::room) in front, a header is put there without
/// moving the rest ([`push_front`](Packet::push_front)); where there is none, the bytes are moved back within the
/// buffer, which costs a copy of the packet and is otherwise the same. After either, offsets in [`Headers`] are those of
/// the packet as it was, until [`reparse`](Packet::reparse).
pub struct Packet<'a> {
    buffer: &'a mut [u8],
    /// Where the packet begins in the buffer.
    start: usize,
    /// One past its last byte in the buffer.
    end: usize,
    /// As it was received.
    received_end: usize,
    /// Of the whole packet.
    len: u32,
    headers: Headers,
}

/// The buffer of a packet has no room for what was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no room in the packet's buffer")]
pub struct NoRoom;

/// Where a packet lies in its buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Offset of its first byte.
    pub start: usize,
    /// One past its last byte.
    pub end: usize,
}

impl<'a> Packet<'a> {
    pub(super) fn new(buffer: &'a mut [u8], Span { start, end }: Span, len: u32) -> Self {
        assert!(start <= end && end <= buffer.len(), "a packet lies in its buffer");
        Self { buffer, start, end, received_end: end, len, headers: Headers::default() }
    }

    /// The bytes from the Ethernet header on.
    #[inline(always)]
    pub fn bytes(&self) -> &[u8] {
        &self.buffer[self.start..self.end]
    }

    /// The bytes, to be changed in place. Who changes a field that [`Headers`] holds (an offset, a port, a
    /// VLAN tag) calls [`reparse`](Packet::reparse) afterwards.
    #[inline(always)]
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.buffer[self.start..self.end]
    }

    /// Length of the whole packet in bytes, without frame check sequence.
    #[inline(always)]
    #[expect(clippy::len_without_is_empty, reason = "no packet is empty")]
    pub fn len(&self) -> usize {
        self.len as usize
    }

    /// What the parser found. All zero when no stage of the pipeline
    /// [reads headers](super::Stage::reads_headers).
    #[inline(always)]
    pub fn headers(&self) -> &Headers {
        &self.headers
    }

    /// The headers beside the bytes, for a stage that reads the one while it changes the other.
    #[inline(always)]
    pub fn headers_and_bytes(&mut self) -> (&Headers, &mut [u8]) {
        (&self.headers, &mut self.buffer[self.start..self.end])
    }

    /// Parses the bytes again.
    #[inline]
    pub fn reparse(&mut self) {
        self.headers = parse(&self.buffer[self.start..self.end], self.len as usize);
    }

    /// Whether all of the packet lies in this one buffer.
    #[inline(always)]
    pub fn is_linear(&self) -> bool {
        self.end - self.start == self.len as usize
    }

    /// Free bytes in front of the packet, which [`push_front`](Packet::push_front) takes without a copy.
    #[inline(always)]
    pub fn room(&self) -> usize {
        self.start
    }

    /// Makes the packet `count` bytes longer at its front. What these bytes hold is not specified.
    ///
    /// # Errors
    ///
    /// [`NoRoom`] when there is none in front, and the packet cannot be moved back: its buffer has not so many bytes
    /// behind it, or it lies in several buffers. The packet is as it was then.
    #[inline]
    pub fn push_front(&mut self, count: usize) -> Result<(), NoRoom> {
        if let Some(start) = self.start.checked_sub(count) {
            self.start = start;
        } else {
            self.move_back(count - self.start)?;
            self.start = 0;
        }
        self.len += count as u32;
        Ok(())
    }

    /// Moves the packet `count` bytes back in its buffer.
    #[cold]
    #[inline(never)]
    fn move_back(&mut self, count: usize) -> Result<(), NoRoom> {
        if !self.is_linear() || self.buffer.len() - self.end < count {
            return Err(NoRoom);
        }
        self.buffer.copy_within(self.start..self.end, self.start + count);
        self.end += count;
        Ok(())
    }

    /// Makes the packet `count` bytes shorter at its front.
    ///
    /// # Errors
    ///
    /// [`NoRoom`] when the packet's first buffer holds fewer.
    #[inline]
    pub fn pull_front(&mut self, count: usize) -> Result<(), NoRoom> {
        if count > self.end - self.start {
            return Err(NoRoom);
        }
        self.start += count;
        self.len -= count as u32;
        Ok(())
    }

    /// Makes the packet `len` bytes long: trims it at its end, or adds zeros there.
    ///
    /// # Errors
    ///
    /// [`NoRoom`] when its buffer is too small, or the packet lies in several buffers. It is as it was then.
    pub fn resize(&mut self, len: usize) -> Result<(), NoRoom> {
        let end = self.start + len;
        if !self.is_linear() || end > self.buffer.len() {
            return Err(NoRoom);
        }
        if end > self.end {
            self.buffer[self.end..end].fill(0);
        }
        self.end = end;
        self.len = len as u32;
        Ok(())
    }

    /// Where the packet lies in its buffer, if that is not from the buffer's beginning to where it was received to.
    #[inline(always)]
    pub(super) fn moved(&self) -> Option<Span> {
        (self.start != 0 || self.end != self.received_end)
            .then_some(Span { start: self.start, end: self.end })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(buffer: &mut [u8], start: usize, end: usize) -> Packet<'_> {
        Packet::new(buffer, Span { start, end }, (end - start) as u32)
    }

    #[test]
    fn room_in_front_is_taken_without_moving_a_byte() {
        let mut buffer: Vec<u8> = (0..100).collect();
        let mut packet = packet(&mut buffer, 20, 80);
        assert_eq!((packet.room(), packet.len(), packet.bytes()[0]), (20, 60, 20));
        packet.push_front(20).unwrap();
        assert_eq!((packet.room(), packet.len()), (0, 80));
        assert_eq!(packet.bytes()[20..], (20..80).collect::<Vec<u8>>());
        assert_eq!(packet.moved(), None, "it begins where the buffer begins and ends where it ended");
    }

    #[test]
    fn without_room_in_front_the_packet_moves_back() {
        let mut buffer: Vec<u8> = (0..100).collect();
        let mut packet = packet(&mut buffer, 4, 60);
        packet.push_front(40).unwrap();
        assert_eq!((packet.room(), packet.len()), (0, 96));
        assert_eq!(packet.bytes()[40..], (4..60).collect::<Vec<u8>>());
        assert_eq!(packet.moved(), Some(Span { start: 0, end: 96 }));
        assert_eq!(packet.push_front(5), Err(NoRoom));
        assert_eq!(packet.len(), 96, "as it was");
        packet.push_front(4).unwrap();
        assert_eq!(packet.len(), 100);
    }

    #[test]
    fn a_header_is_pulled_off_the_front() {
        let mut buffer: Vec<u8> = (0..100).collect();
        let mut packet = packet(&mut buffer, 0, 60);
        packet.pull_front(14).unwrap();
        assert_eq!((packet.bytes()[0], packet.len(), packet.room()), (14, 46, 14));
        assert_eq!(packet.moved(), Some(Span { start: 14, end: 60 }));
        assert_eq!(packet.pull_front(47), Err(NoRoom));
        packet.push_front(14).unwrap();
        assert_eq!(packet.moved(), None);
    }

    #[test]
    fn resizing_trims_or_adds_zeros() {
        let mut buffer = [7u8; 100];
        let mut packet = packet(&mut buffer, 0, 60);
        packet.resize(20).unwrap();
        packet.resize(30).unwrap();
        assert_eq!(packet.bytes(), [[7; 20].as_slice(), &[0; 10]].concat());
        assert_eq!(packet.resize(101), Err(NoRoom));
        assert_eq!(packet.len(), 30);
    }

    #[test]
    fn a_packet_in_several_buffers_grows_only_into_room_in_front() {
        let mut buffer = [0u8; 100];
        let mut packet = Packet::new(&mut buffer, Span { start: 20, end: 90 }, 9_000);
        assert!(!packet.is_linear());
        packet.push_front(20).unwrap();
        assert_eq!(
            (packet.len(), packet.push_front(1), packet.resize(50)),
            (9_020, Err(NoRoom), Err(NoRoom))
        );
        packet.pull_front(30).unwrap();
        assert_eq!(packet.len(), 8_990);
    }
}
