//! Captured frames in a file that every analyser reads.

use std::{
    fs::File,
    io::{self, BufWriter, Read, Write},
    path::Path,
    time::Duration,
};

use pcap_parser::{Block, PcapBlockOwned, PcapError, create_reader, traits::PcapNGPacketBlock as _};

use crate::{
    capture::Captured,
    error::{Error, Result},
};

/// Longest frame that the file may have, in bytes; what tcpdump writes.
const SNAPLEN: u32 = 262_144;
/// `LINKTYPE_ETHERNET`
const ETHERNET: u32 = 1;

/// Bytes that are read at a time, more than the longest record.
const BUFFER: usize = 1 << 20;

/// A frame of a capture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TimedFrame {
    /// The frame from its Ethernet header on.
    pub bytes: Vec<u8>,
    /// When it was captured, since some moment that all frames of a capture share.
    pub at: Duration,
}

/// Reads the Ethernet frames of a pcap or pcapng file.
///
/// # Errors
///
/// If the file cannot be read, is no capture of Ethernet, or was made with a snap length that has cut a frame off.
pub fn read_pcap(path: &Path) -> Result<Vec<TimedFrame>> {
    let read = || read_from(File::open(path)?);
    read().map_err(|source| Error::System { call: "read", subject: path.display().to_string(), source })
}

fn read_from(file: impl Read + Send) -> io::Result<Vec<TimedFrame>> {
    let damaged = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
    let not_ethernet = || damaged("a capture of something else than Ethernet");
    let mut reader = create_reader(BUFFER, file).map_err(|error| damaged(&error.to_string()))?;
    let mut frames = Vec::new();
    // pcap: nanoseconds of a unit of the fraction. pcapng: link type, units a second and offset of each interface.
    let mut unit = 1_000;
    let mut interfaces = Vec::new();
    loop {
        let (length, block) = match reader.next() {
            Ok(next) => next,
            Err(PcapError::Eof) => return Ok(frames),
            Err(PcapError::Incomplete(_)) => {
                reader.refill().map_err(|error| damaged(&error.to_string()))?;
                continue;
            }
            Err(error) => return Err(damaged(&error.to_string())),
        };
        match block {
            PcapBlockOwned::LegacyHeader(header) => {
                if header.network.0 != ETHERNET.cast_signed() {
                    return Err(not_ethernet());
                }
                unit = if header.is_nanosecond_precision() { 1 } else { 1_000 };
            }
            PcapBlockOwned::Legacy(packet) => {
                let at = Duration::from_secs(packet.ts_sec.into())
                    + Duration::from_nanos(u64::from(packet.ts_usec) * unit);
                frames.push(whole(packet.data, packet.origlen, at)?);
            }
            PcapBlockOwned::NG(Block::SectionHeader(_)) => interfaces.clear(),
            PcapBlockOwned::NG(Block::InterfaceDescription(interface)) => {
                let units =
                    interface.ts_resolution().ok_or_else(|| damaged("an unknown resolution of time"))?;
                interfaces.push((interface.linktype.0, units, interface.ts_offset()));
            }
            PcapBlockOwned::NG(Block::EnhancedPacket(packet)) => {
                let interface = interfaces.get(packet.if_id as usize);
                let (link_type, units, offset) =
                    *interface.ok_or_else(|| damaged("a packet of an unknown interface"))?;
                if link_type != ETHERNET.cast_signed() {
                    return Err(not_ethernet());
                }
                let (seconds, fraction) = packet.decode_ts(u64::try_from(offset).unwrap_or_default(), units);
                let nanoseconds = u128::from(fraction) * 1_000_000_000 / u128::from(units);
                let at = Duration::from_secs(seconds.into())
                    + Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or_default());
                frames.push(whole(packet.packet_data(), packet.origlen, at)?);
            }
            PcapBlockOwned::NG(Block::SimplePacket(_)) => return Err(damaged("packets without times")),
            PcapBlockOwned::NG(_) => {}
        }
        reader.consume(length);
    }
}

/// A frame of which nothing was cut off.
fn whole(data: &[u8], original: u32, at: Duration) -> io::Result<TimedFrame> {
    match data.get(..original as usize) {
        Some(bytes) => Ok(TimedFrame { bytes: bytes.to_vec(), at }),
        None => {
            let cut = format!(
                "a frame of {original} bytes was cut to {}: capture with a larger snap length",
                data.len()
            );
            Err(io::Error::new(io::ErrorKind::InvalidData, cut))
        }
    }
}

/// Writes frames to a file in the pcap format (draft-ietf-opsawg-pcap). A capture has no times: frame `n` is shown at
/// `n` µs.
///
/// # Errors
///
/// If the file cannot be written.
pub fn write_pcap(path: &Path, frames: &[Captured]) -> Result<()> {
    let write = || {
        let mut file = BufWriter::new(File::create(path)?);
        write_to(&mut file, frames)?;
        file.flush()
    };
    write().map_err(|source| Error::System { call: "write", subject: path.display().to_string(), source })
}

fn write_to(file: &mut impl Write, frames: &[Captured]) -> io::Result<()> {
    const MICROSECONDS: u32 = 0xa1b2_c3d4;
    const VERSION: [u16; 2] = [2, 4];
    file.write_all(&MICROSECONDS.to_le_bytes())?;
    for part in VERSION {
        file.write_all(&part.to_le_bytes())?;
    }
    // Two reserved words, then these.
    for word in [0, 0, SNAPLEN, ETHERNET] {
        file.write_all(&word.to_le_bytes())?;
    }
    for (number, frame) in (0_u32..).zip(frames) {
        let length = u32::try_from(frame.bytes.len()).map_err(io::Error::other)?;
        for word in [number / 1_000_000, number % 1_000_000, length, length] {
            file.write_all(&word.to_le_bytes())?;
        }
        file.write_all(&frame.bytes)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_written_behind_its_length_twice() {
        let mut file = Vec::new();
        let frame = Captured { bytes: vec![7; 61], partial_checksum: false };
        write_to(&mut file, &[frame.clone(), frame]).unwrap();
        assert_eq!(file.len(), 24 + 2 * (16 + 61));
        assert_eq!(file[..4], [0xd4, 0xc3, 0xb2, 0xa1]);
        assert_eq!(file[24..40], [0, 0, 0, 0, 0, 0, 0, 0, 61, 0, 0, 0, 61, 0, 0, 0]);
        assert_eq!(file[40..101], [7; 61]);
        assert_eq!(file[105], 1, "the second frame is at 1 µs");
    }

    #[test]
    fn what_is_written_is_read_back_with_its_times() {
        let mut file = Vec::new();
        let frames =
            [60, 9_014, 61].map(|length| Captured { bytes: vec![3; length], partial_checksum: false });
        write_to(&mut file, &frames).unwrap();
        let read = read_from(&file[..]).unwrap();
        assert_eq!(read.len(), 3);
        for ((number, frame), read) in (0..).zip(&frames).zip(&read) {
            assert_eq!((&read.bytes, read.at), (&frame.bytes, Duration::from_micros(number)));
        }
    }

    #[test]
    fn a_frame_that_was_cut_off_is_not_replayed() {
        let mut file = Vec::new();
        write_to(&mut file, &[Captured { bytes: vec![7; 60], partial_checksum: false }]).unwrap();
        file[24 + 12] = 61;
        assert!(read_from(&file[..]).unwrap_err().to_string().contains("snap length"));
    }
}
