//! One packet of a capture, in a buffer as a worker has it.

use std::time::Duration;

use crate::pipeline::Span;

/// Room in front of a packet: more than any outer headers.
const FRONT: usize = 128;
/// A buffer is at least as long as a frame of a port, so that answers have room; a long packet has as much behind it.
const LEAST: usize = 4_096;
const BACK: usize = 128;

/// A packet of a capture. Its buffer is used again for the next one.
#[derive(Clone, Debug, Default)]
pub struct Frame {
    buffer: Vec<u8>,
    end: usize,
    len: u32,
    time: Duration,
}

impl Frame {
    /// Takes a packet: when it was captured (since 1970), its bytes, and how many it had before it was cut.
    pub(super) fn fill(&mut self, time: Duration, bytes: &[u8], len: u32) {
        self.end = FRONT + bytes.len();
        let needed = (self.end + BACK).max(LEAST);
        if self.buffer.len() < needed {
            self.buffer.resize(needed, 0);
        }
        self.buffer[FRONT..self.end].copy_from_slice(bytes);
        self.len = len.max(bytes.len() as u32);
        self.time = time;
    }

    /// The bytes that were captured.
    pub fn bytes(&self) -> &[u8] {
        self.buffer.get(FRONT..self.end).unwrap_or_default()
    }

    /// Bytes of the packet before it was cut.
    #[expect(clippy::len_without_is_empty, reason = "a packet may have been cut to nothing")]
    pub fn len(&self) -> u32 {
        self.len
    }

    /// When it was captured, since 1970.
    pub fn time(&self) -> Duration {
        self.time
    }

    pub(super) fn span(&self) -> Span {
        Span { start: FRONT.min(self.end), end: self.end }
    }

    pub(super) fn buffer(&self) -> &[u8] {
        &self.buffer
    }

    pub(super) fn buffer_mut(&mut self) -> &mut [u8] {
        &mut self.buffer
    }
}
