//! One packet of a batch.

use crate::packet::{Headers, parse};

/// A received packet: its bytes, and what the parser found in them.
///
/// A packet that was received into several buffers (multi-buffer, jumbo frames) shows the bytes of its first
/// one, which holds the headers; [`len`](Packet::len) is that of the whole packet.
pub struct Packet<'a> {
    bytes: &'a mut [u8],
    len: u32,
    headers: Headers,
}

impl<'a> Packet<'a> {
    pub(super) fn new(bytes: &'a mut [u8], len: u32) -> Self {
        Self { bytes, len, headers: Headers::default() }
    }

    /// The bytes from the Ethernet header on.
    #[inline(always)]
    pub fn bytes(&self) -> &[u8] {
        self.bytes
    }

    /// The bytes, to be changed in place. Who changes a field that [`Headers`] holds (an offset, a port, a
    /// VLAN tag) calls [`reparse`](Packet::reparse) afterwards.
    #[inline(always)]
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        self.bytes
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
        (&self.headers, self.bytes)
    }

    /// Parses the bytes again.
    #[inline]
    pub fn reparse(&mut self) {
        self.headers = parse(self.bytes, self.len as usize);
    }
}
