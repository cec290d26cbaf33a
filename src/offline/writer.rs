//! Writing pcap (draft-ietf-opsawg-pcap): little-endian, times in nanoseconds, Ethernet.

use std::io::{self, Write};
use std::time::Duration;

const NANOSECONDS: u32 = 0xa1b2_3c4d;
const VERSION: [u16; 2] = [2, 4];
/// Longest packet that every reader takes; longer ones are cut.
const SNAPLEN: u32 = 262_144;
const ETHERNET: u32 = 1;

/// Writes packets to a pcap file. Give it something buffered; dropping it does not flush.
#[derive(Debug)]
pub struct PcapWriter<W> {
    out: W,
}

impl<W: Write> PcapWriter<W> {
    /// Begins a file.
    ///
    /// # Errors
    ///
    /// What the writer says.
    pub fn new(mut out: W) -> io::Result<Self> {
        out.write_all(&NANOSECONDS.to_le_bytes())?;
        for part in VERSION {
            out.write_all(&part.to_le_bytes())?;
        }
        // Two reserved words, then these.
        for word in [0, 0, SNAPLEN, ETHERNET] {
            out.write_all(&word.to_le_bytes())?;
        }
        Ok(Self { out })
    }

    /// Writes a packet: its time since 1970 (of which the format holds 32 bits of seconds), its bytes, and how many it has in
    /// truth.
    ///
    /// # Errors
    ///
    /// What the writer says.
    pub fn write(&mut self, time: Duration, bytes: &[u8], len: u32) -> io::Result<()> {
        let bytes = &bytes[..bytes.len().min(SNAPLEN as usize)];
        let captured = bytes.len() as u32;
        for word in [time.as_secs() as u32, time.subsec_nanos(), captured, len.max(captured)] {
            self.out.write_all(&word.to_le_bytes())?;
        }
        self.out.write_all(bytes)
    }

    /// Ends the file.
    ///
    /// # Errors
    ///
    /// What the writer says to the last bytes.
    pub fn finish(mut self) -> io::Result<W> {
        self.out.flush()?;
        Ok(self.out)
    }
}
