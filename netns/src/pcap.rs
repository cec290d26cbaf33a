//! Captured frames in a file that every analyser reads.

use std::{
    fs::File,
    io::{self, BufWriter, Write},
    path::Path,
};

use crate::{
    capture::Captured,
    error::{Error, Result},
};

/// Longest frame that the file may have, in bytes; what tcpdump writes.
const SNAPLEN: u32 = 262_144;
/// `LINKTYPE_ETHERNET`
const ETHERNET: u32 = 1;

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
}
