//! Reading pcap (draft-ietf-opsawg-pcap) and pcapng (draft-ietf-opsawg-pcapng), packet by packet: a capture may be longer than
//! memory, and may come by a pipe.

use std::io::{self, Cursor, Read};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use pcap_parser::traits::PcapReaderIterator;
use pcap_parser::{Block, LegacyPcapReader, PcapBlockOwned, PcapError, PcapNGReader};

use super::Frame;

const BUFFER: usize = 1 << 20;
/// Longest record that is believed: of a damaged length, four gigabytes would be read otherwise.
const LONGEST_RECORD: usize = 16 << 20;
/// Longest packet that is believed; the longest of Linux ("big TCP") is half a megabyte.
const LONGEST_PACKET: u32 = 16 << 20;
/// Bytes that say which format it is, and all of pcap's own header.
const HEAD: usize = 24;
const SECTION: u32 = 0x0a0d_0d0a;
const BYTE_ORDER: u32 = 0x1a2b_3c4d;
const OBSOLETE_PACKET: u32 = 2;
const ETHERNET: u32 = 1;
/// The link type has 16 bits; above them may stand the length of frame check sequences.
const LINK_TYPE: u32 = 0xffff;

/// A capture that cannot be read, or not further.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CaptureError {
    /// The system says so.
    #[error("cannot read the capture: {0}")]
    Read(io::Error),
    /// Nothing at all.
    #[error("the capture is empty: not even a header")]
    Empty,
    /// Another format.
    #[error("this is no capture: neither pcap nor pcapng")]
    NotACapture,
    /// A compressed file.
    #[error("the capture is compressed ({0}): unpack it first, for example by `{1} -dc FILE | xfwd … -`")]
    Compressed(&'static str, &'static str),
    /// Packets of something else than Ethernet.
    #[error("the capture is of link type {number} ({name}), and only Ethernet (1) can be read{hint}")]
    LinkType {
        /// Its number.
        number: u32,
        /// Its name.
        name: &'static str,
        /// What to do about it.
        hint: &'static str,
    },
    /// The end is missing, as when who wrote it was killed.
    #[error("the capture ends in the middle of a record, behind packet {packets}")]
    CutShort {
        /// Packets before.
        packets: u64,
    },
    /// Something makes no sense.
    #[error("the capture is damaged behind packet {packets}: {what}")]
    Damaged {
        /// Packets before.
        packets: u64,
        /// What.
        what: &'static str,
    },
}

/// A capture of Ethernet frames.
pub struct Capture<'r> {
    reader: Box<dyn PcapReaderIterator + 'r>,
    state: State,
    capacity: usize,
    failure: Failure,
}

/// What `pcap-parser` does not tell: what the system said.
type Failure = Arc<Mutex<Option<io::Error>>>;

/// What is known from earlier records.
#[derive(Default)]
struct State {
    packets: u64,
    /// pcap: fractions of a second are nanoseconds.
    nanoseconds: bool,
    big_endian: bool,
    interfaces: Vec<Interface>,
    /// Of the last packet.
    time: Duration,
}

/// What a pcapng file says about an interface.
struct Interface {
    link_type: u32,
    snaplen: u32,
    resolution: u8,
    /// Seconds.
    offset: i64,
}

struct Input<R> {
    inner: R,
    failure: Failure,
}

impl<R: Read> Read for Input<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.inner.read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    let kind = error.kind();
                    *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                    return Err(kind.into());
                }
                Ok(count) => return Ok(count),
            }
        }
    }
}

/// At most `count` bytes; fewer at the end.
fn take(input: &mut impl Read, count: usize, into: &mut Vec<u8>) -> Result<(), CaptureError> {
    input.take(count as u64).read_to_end(into).map(drop).map_err(CaptureError::Read)
}

fn word(bytes: &[u8], at: usize, big_endian: bool) -> u32 {
    let word = bytes.get(at..at + 4).and_then(|bytes| bytes.first_chunk()).copied().unwrap_or_default();
    if big_endian { u32::from_be_bytes(word) } else { u32::from_le_bytes(word) }
}

impl<'r> Capture<'r> {
    /// Begins to read a capture. What is given need not be buffered.
    ///
    /// # Errors
    ///
    /// [`CaptureError`] for what is no capture, and for a pcap file that is not of Ethernet.
    pub fn open(mut input: impl Read + 'r) -> Result<Self, CaptureError> {
        let mut head = Vec::with_capacity(HEAD);
        take(&mut input, HEAD, &mut head)?;
        let cut = CaptureError::CutShort { packets: 0 };
        let mut state = State::default();
        let is_section = word(&head, 0, false) == SECTION;
        match (&head[..], word(&head, 0, false)) {
            ([], _) => return Err(CaptureError::Empty),
            ([0x1f, 0x8b, ..], _) => return Err(CaptureError::Compressed("gzip", "gzip")),
            ([0x28, 0xb5, 0x2f, 0xfd, ..], _) => return Err(CaptureError::Compressed("zstd", "zstd")),
            ([0xfd, b'7', b'z', ..], _) => return Err(CaptureError::Compressed("xz", "xz")),
            (_, SECTION | 0xa1b2_c3d4 | 0xd4c3_b2a1 | 0xa1b2_3c4d | 0x4d3c_b2a1) => {}
            _ => return Err(CaptureError::NotACapture),
        }
        if head.len() < HEAD {
            return Err(cut);
        }
        let mut capacity = BUFFER;
        if is_section {
            // The parser wants to see the whole section header at once.
            state.big_endian = match word(&head, 8, false) {
                BYTE_ORDER => false,
                other if other == BYTE_ORDER.swap_bytes() => true,
                _ => return Err(state.damaged("its section header is of no known byte order")),
            };
            let length = word(&head, 4, state.big_endian) as usize;
            if !(28..=LONGEST_RECORD).contains(&length) {
                return Err(state.damaged("the length of its section header"));
            }
            take(&mut input, length - HEAD, &mut head)?;
            if head.len() < length {
                return Err(cut);
            }
            capacity = capacity.max(2 * length);
        } else {
            let big_endian = head[0] == 0xa1;
            state.nanoseconds = matches!(word(&head, 0, big_endian), 0xa1b2_3c4d);
            check_link_type(word(&head, 20, big_endian) & LINK_TYPE)?;
        }
        let failure = Failure::default();
        let input = Input { inner: Cursor::new(head).chain(input), failure: Arc::clone(&failure) };
        let reader: Result<Box<dyn PcapReaderIterator + 'r>, _> = if is_section {
            PcapNGReader::new(capacity, input).map(|reader| Box::new(reader) as Box<_>)
        } else {
            LegacyPcapReader::new(capacity, input).map(|reader| Box::new(reader) as Box<_>)
        };
        let reader = reader.map_err(|_| state.damaged("its header"))?;
        Ok(Self { reader, state, capacity, failure })
    }

    /// Reads the next packet; `false` at the end.
    ///
    /// # Errors
    ///
    /// [`CaptureError`]. Nothing can be read any more then.
    pub fn read(&mut self, into: &mut Frame) -> Result<bool, CaptureError> {
        loop {
            let wants_room = match self.reader.next() {
                Ok((offset, block)) => {
                    let taken = self.state.take(&block, into);
                    drop(block);
                    self.reader.consume(offset);
                    if taken? {
                        self.state.packets += 1;
                        return Ok(true);
                    }
                    continue;
                }
                Err(PcapError::Eof) => return Ok(false),
                Err(PcapError::UnexpectedEof) => {
                    return Err(CaptureError::CutShort { packets: self.state.packets });
                }
                Err(PcapError::Incomplete(_)) => false,
                Err(PcapError::BufferTooSmall) => true,
                Err(_) => return Err(self.state.damaged("a record makes no sense")),
            };
            self.refill(wants_room)?;
        }
    }

    /// Reads on, into a larger buffer if need be.
    fn refill(&mut self, wants_room: bool) -> Result<(), CaptureError> {
        let full = self.reader.data().len() >= self.capacity;
        if wants_room || full {
            if self.capacity >= LONGEST_RECORD {
                return Err(self.state.damaged("a record of more than 16 MiB"));
            }
            self.capacity = (2 * self.capacity).min(LONGEST_RECORD);
            self.reader.grow(self.capacity);
        }
        if self.reader.refill().is_err() {
            let told = self.failure.lock().unwrap_or_else(PoisonError::into_inner).take();
            return Err(CaptureError::Read(told.unwrap_or_else(|| io::ErrorKind::Other.into())));
        }
        Ok(())
    }
}

impl State {
    fn damaged(&self, what: &'static str) -> CaptureError {
        CaptureError::Damaged { packets: self.packets, what }
    }

    /// Takes a record in. Whether it was a packet.
    fn take(&mut self, block: &PcapBlockOwned<'_>, into: &mut Frame) -> Result<bool, CaptureError> {
        match block {
            PcapBlockOwned::LegacyHeader(_) => Ok(false),
            PcapBlockOwned::Legacy(packet) => {
                let nanoseconds = u64::from(packet.ts_usec) * if self.nanoseconds { 1 } else { 1_000 };
                self.time = Duration::from_secs(packet.ts_sec.into()) + Duration::from_nanos(nanoseconds);
                self.packet(packet.data, packet.origlen, into)
            }
            PcapBlockOwned::NG(block) => self.block(block, into),
        }
    }

    fn block(&mut self, block: &Block<'_>, into: &mut Frame) -> Result<bool, CaptureError> {
        match block {
            Block::SectionHeader(section) => {
                self.big_endian = section.big_endian();
                self.interfaces.clear();
                Ok(false)
            }
            Block::InterfaceDescription(interface) => {
                // Always read as little-endian.
                let offset = interface.if_tsoffset;
                self.interfaces.push(Interface {
                    link_type: interface.linktype.0 as u32,
                    snaplen: interface.snaplen,
                    resolution: interface.if_tsresol,
                    offset: if self.big_endian { offset.swap_bytes() } else { offset },
                });
                Ok(false)
            }
            Block::EnhancedPacket(packet) => {
                let interface = self.interface(packet.if_id)?;
                let ticks = u64::from(packet.ts_high) << 32 | u64::from(packet.ts_low);
                self.time = interface.time(ticks);
                let Some(bytes) = packet.data.get(..packet.caplen as usize) else {
                    return Err(self.damaged("a packet is longer than its record"));
                };
                self.packet(bytes, packet.origlen, into)
            }
            Block::SimplePacket(packet) => {
                let interface = self.interface(0)?;
                let snaplen = if interface.snaplen == 0 { u32::MAX } else { interface.snaplen };
                // What is behind it is padding.
                let captured = packet.data.len().min(packet.origlen.min(snaplen) as usize);
                self.packet(&packet.data[..captured], packet.origlen, into)
            }
            Block::Unknown(block) if block.block_type == OBSOLETE_PACKET => {
                Err(self.damaged("obsolete packet blocks cannot be read: `editcap` writes new ones"))
            }
            _ => Ok(false),
        }
    }

    fn interface(&self, index: u32) -> Result<&Interface, CaptureError> {
        let interface = self.interfaces.get(index as usize);
        let interface =
            interface.ok_or_else(|| self.damaged("a packet of an interface that is not described"))?;
        check_link_type(interface.link_type)?;
        Ok(interface)
    }

    fn packet(&self, bytes: &[u8], len: u32, into: &mut Frame) -> Result<bool, CaptureError> {
        if len > LONGEST_PACKET || bytes.len() > LONGEST_PACKET as usize {
            return Err(self.damaged("a packet of more than 16 MiB"));
        }
        into.fill(self.time, bytes, len);
        Ok(true)
    }
}

impl Interface {
    /// The time that a packet's ticks stand for; 0 where that is beyond all numbers.
    fn time(&self, ticks: u64) -> Duration {
        let exponent = u32::from(self.resolution & 0x7f);
        let a_second = if self.resolution & 0x80 == 0 {
            10_u128.checked_pow(exponent)
        } else {
            1_u128.checked_shl(exponent)
        };
        let Some(a_second) = a_second else { return Duration::ZERO };
        let (seconds, rest) = (u128::from(ticks) / a_second, u128::from(ticks) % a_second);
        let nanoseconds = rest.checked_mul(1_000_000_000).map_or(0, |rest| rest / a_second);
        let seconds = u64::try_from(seconds).unwrap_or(u64::MAX).saturating_add_signed(self.offset);
        Duration::new(seconds, nanoseconds as u32)
    }
}

fn check_link_type(number: u32) -> Result<(), CaptureError> {
    const ANY: &str = "; captures of the pseudo-interface `any` are of this kind: capture on one interface";
    let (name, hint) = match number {
        ETHERNET => return Ok(()),
        0 | 108 => ("BSD loopback", ""),
        12 | 14 | 101 | 228 | 229 => ("IP without a link layer", ""),
        105 | 127 => ("IEEE 802.11", ""),
        113 | 276 => ("Linux cooked capture", ANY),
        _ => ("another one", ""),
    };
    Err(CaptureError::LinkType { number, name, hint })
}
