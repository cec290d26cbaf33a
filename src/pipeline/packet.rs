//! One packet of a batch.

mod edit;
mod payload;
mod reply;
mod views;
mod vlan;

use crate::packet::{Headers, parse_into};

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
///
/// # Headers
///
/// [`ethernet`](Packet::ethernet), [`ipv4`](Packet::ipv4) and so on are views of the headers that the parser found, to be
/// read or, with `_mut`, written field by field. What changes several places at once, a checksum with an address or a length
/// with a payload, is a method of the packet ([`set_source`](Packet::set_source), [`set_payload`](Packet::set_payload),
/// [`push_vlan`](Packet::push_vlan), [`reply_udp`](Packet::reply_udp)) and keeps [`Headers`] right as well. These need a pipeline that
/// [reads headers](super::Stage::reads_headers), or a [`reparse`](Packet::reparse) before.
pub struct Packet<'a> {
    buffer: &'a mut [u8],
    // Offsets of 32 bits keep a packet in little more than one cache line.
    /// Where the packet begins in the buffer.
    start: u32,
    /// One past its last byte in the buffer.
    end: u32,
    /// As it was received; [`MADE_HERE`] for one that was not received.
    received_end: u32,
    /// Of the whole packet.
    len: u32,
    mark: u64,
    headers: Headers,
}

/// No buffer ends there.
const MADE_HERE: u32 = u32::MAX;

/// The buffer of a packet has no room for what was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no room in the packet's buffer")]
pub struct NoRoom;

/// Why a packet cannot be changed as asked. It is as it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EditError {
    /// The parser found no header, whole and well-formed, that takes this.
    #[error("the packet has no header that takes this")]
    NoHeader,
    /// The result does not fit the packet's buffer or the length fields of its headers, or the packet lies in several buffers.
    #[error("no room in the packet's buffer")]
    NoRoom,
    /// Nobody must answer it: an address is not that of a single host, or it has options that an answer would have to mirror.
    #[error("the packet must not be answered")]
    NotAnswerable,
}

impl From<NoRoom> for EditError {
    fn from(_: NoRoom) -> Self {
        Self::NoRoom
    }
}

/// Where a packet lies in its buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Offset of its first byte.
    pub start: usize,
    /// One past its last byte.
    pub end: usize,
}

impl<'a> Packet<'a> {
    #[inline(always)]
    pub(super) fn new(buffer: &'a mut [u8], Span { start, end }: Span, len: u32) -> Self {
        assert!(start <= end && end <= buffer.len(), "a packet lies in its buffer");
        assert!(buffer.len() < MADE_HERE as usize, "a buffer is shorter than 4 GiB");
        let (start, end) = (start as u32, end as u32);
        // A whole packet is no shorter than its first part: what is taken off that is taken off the length, too.
        let len = len.max(end - start);
        Self { buffer, start, end, received_end: end, len, mark: 0, headers: Headers::default() }
    }

    /// A packet of `len` zero bytes that was not received. `None` when the buffer is shorter.
    pub(super) fn make(buffer: &'a mut [u8], len: usize) -> Option<Self> {
        buffer.get_mut(..len)?.fill(0);
        let packet = Self::new(buffer, Span { start: 0, end: len }, len as u32);
        Some(Self { received_end: MADE_HERE, ..packet })
    }

    #[inline(always)]
    fn span(&self) -> Span {
        Span { start: self.start as usize, end: self.end as usize }
    }

    /// The bytes from the Ethernet header on.
    #[inline(always)]
    pub fn bytes(&self) -> &[u8] {
        &self.buffer[self.start as usize..self.end as usize]
    }

    /// The bytes, to be changed in place. Who changes a field that [`Headers`] holds (an offset, a port, a
    /// VLAN tag) calls [`reparse`](Packet::reparse) afterwards.
    #[inline(always)]
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.buffer[self.start as usize..self.end as usize]
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
        (&self.headers, &mut self.buffer[self.start as usize..self.end as usize])
    }

    /// What a stage has written down about the packet for the stages behind it; 0 if none has. Its meaning is theirs: a
    /// tenant, a class, the index of an entry in a table of the worker. It stays in the worker and is not sent.
    ///
    /// ```
    /// use xfwd::pipeline::{Batch, Verdict};
    ///
    /// let mut bytes = [0; 60];
    /// let mut batch = Batch::new(0);
    /// batch.push(&mut bytes, 60);
    /// // The first stage classifies, the second one acts.
    /// batch.each_undecided(|packet| { packet.set_mark(7); Verdict::Continue });
    /// batch.each_undecided(|packet| if packet.mark() == 7 { Verdict::Bounce } else { Verdict::Continue });
    /// assert_eq!(batch.finish()[0], Verdict::Bounce);
    /// ```
    #[inline(always)]
    pub fn mark(&self) -> u64 {
        self.mark
    }

    /// Sets the [`mark`](Packet::mark).
    #[inline(always)]
    pub fn set_mark(&mut self, mark: u64) {
        self.mark = mark;
    }

    /// Parses the bytes again.
    #[inline]
    pub fn reparse(&mut self) {
        let linear = &self.buffer[self.start as usize..self.end as usize];
        parse_into(&mut self.headers, linear, self.len as usize);
    }

    /// Whether all of the packet lies in this one buffer.
    #[inline(always)]
    pub fn is_linear(&self) -> bool {
        self.end - self.start == self.len
    }

    /// Free bytes in front of the packet, which [`push_front`](Packet::push_front) takes without a copy.
    #[inline(always)]
    pub fn room(&self) -> usize {
        self.start as usize
    }

    /// Makes the packet `count` bytes longer at its front. What these bytes hold is not specified.
    ///
    /// # Errors
    ///
    /// [`NoRoom`] when there is none in front, and the packet cannot be moved back: its buffer has not so many bytes
    /// behind it, or it lies in several buffers. The packet is as it was then.
    #[inline]
    pub fn push_front(&mut self, count: usize) -> Result<(), NoRoom> {
        if let Some(start) = self.room().checked_sub(count) {
            self.start = start as u32;
        } else {
            self.move_back(count - self.room())?;
            self.start = 0;
        }
        // What has been found to fit a buffer fits 32 bits.
        self.len += count as u32;
        Ok(())
    }

    /// Moves the packet `count` bytes back in its buffer.
    #[cold]
    #[inline(never)]
    fn move_back(&mut self, count: usize) -> Result<(), NoRoom> {
        let Span { start, end } = self.span();
        if !self.is_linear() || self.buffer.len() - end < count {
            return Err(NoRoom);
        }
        self.buffer.copy_within(start..end, start + count);
        self.end += count as u32;
        Ok(())
    }

    /// Makes the packet `count` bytes shorter at its front.
    ///
    /// # Errors
    ///
    /// [`NoRoom`] when the packet's first buffer holds fewer.
    #[inline]
    pub fn pull_front(&mut self, count: usize) -> Result<(), NoRoom> {
        if count > (self.end - self.start) as usize {
            return Err(NoRoom);
        }
        self.start += count as u32;
        self.len -= count as u32;
        Ok(())
    }

    /// Makes the packet `len` bytes long: trims it at its end, or adds zeros there. Length fields of its headers are left as
    /// they are; [`resize_payload`](Packet::resize_payload) changes both.
    ///
    /// # Errors
    ///
    /// [`NoRoom`] when its buffer is too small, or the packet lies in several buffers. It is as it was then.
    pub fn resize(&mut self, len: usize) -> Result<(), NoRoom> {
        let before = self.end as usize;
        let end = self.room().checked_add(len).filter(|end| *end <= self.buffer.len()).ok_or(NoRoom)?;
        if !self.is_linear() {
            return Err(NoRoom);
        }
        if end > before {
            self.buffer[before..end].fill(0);
        }
        self.end = end as u32;
        self.len = len as u32;
        Ok(())
    }

    /// Adds bytes at the end of the packet. Length fields of its headers are left as they are.
    ///
    /// # Errors
    ///
    /// [`NoRoom`] when its buffer is too small, or the packet lies in several buffers. It is as it was then.
    pub fn push_back(&mut self, bytes: &[u8]) -> Result<(), NoRoom> {
        let before = self.end as usize;
        let end = before.checked_add(bytes.len()).ok_or(NoRoom)?;
        if !self.is_linear() {
            return Err(NoRoom);
        }
        self.buffer.get_mut(before..end).ok_or(NoRoom)?.copy_from_slice(bytes);
        self.end = end as u32;
        self.len += bytes.len() as u32;
        Ok(())
    }

    /// Makes the packet `count` bytes shorter at its end. Length fields of its headers are left as they are.
    ///
    /// # Errors
    ///
    /// [`NoRoom`] when it holds fewer, or lies in several buffers. It is as it was then.
    pub fn pull_back(&mut self, count: usize) -> Result<(), NoRoom> {
        self.resize(self.len().checked_sub(count).ok_or(NoRoom)?)
    }

    /// Where the packet lies in its buffer, if that is not from the buffer's beginning to where it was received to.
    #[inline(always)]
    pub(super) fn moved(&self) -> Option<Span> {
        (self.start != 0 || self.end != self.received_end).then(|| self.span())
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

    #[test]
    fn bytes_are_added_and_taken_at_the_end() {
        let mut buffer = [7u8; 64];
        let mut packet = packet(&mut buffer, 2, 60);
        packet.push_back(b"tail").unwrap();
        assert_eq!((packet.len(), &packet.bytes()[58..]), (62, &b"tail"[..]));
        assert_eq!(packet.push_back(b"x"), Err(NoRoom));
        packet.pull_back(62).unwrap();
        assert_eq!((packet.len(), packet.pull_back(1)), (0, Err(NoRoom)));
    }

    #[test]
    fn a_packet_is_no_shorter_than_its_bytes() {
        let mut buffer = [7u8; 64];
        let mut packet = Packet::new(&mut buffer, Span { start: 4, end: 64 }, 20);
        assert_eq!((packet.len(), packet.is_linear()), (60, true));
        packet.pull_front(60).unwrap();
        assert_eq!((packet.len(), packet.pull_front(1)), (0, Err(NoRoom)));
    }

    #[test]
    fn lengths_that_no_buffer_has_are_refused() {
        let mut buffer = [7u8; 64];
        let mut packet = packet(&mut buffer, 2, 60);
        for count in [63, 1 << 32, usize::MAX - 1, usize::MAX] {
            assert_eq!((packet.resize(count), packet.push_front(count)), (Err(NoRoom), Err(NoRoom)));
            assert_eq!((packet.pull_front(count), packet.pull_back(count)), (Err(NoRoom), Err(NoRoom)));
        }
        assert_eq!((packet.len(), packet.room()), (58, 2));
    }

    #[test]
    fn a_packet_is_little_more_than_a_cache_line() {
        assert_eq!(size_of::<Packet<'_>>(), 72);
    }
}
