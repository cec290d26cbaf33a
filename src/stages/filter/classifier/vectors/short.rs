//! The short way of TCP and UDP, for a batch at a time.
//!
//! Two passes: first the vectors of each packet, whose memory is asked for, then what they have in common. So the loads of many packets
//! overlap, and none is waited for once a packet. What is found is the first rule by what vectors hold; whether that is all that it
//! asks for, the caller knows.

use std::hint::select_unpredictable;

use super::chunk::{Chunk, RULES, WORDS};
use super::{Vector, Vectors};
use crate::hints::prefetch;
use crate::lanes::{self, Lanes};
use crate::packet::protocol::{TCP, UDP};
use crate::packet::{Fragment, Headers, Outcome};
use crate::pipeline::{BATCH_SIZE, Batch};

/// Chunks of a source's vector that are asked for ahead: it is that which differs most from packet to packet.
const MOST_PREFETCHED: usize = 4;

/// What is looked up for a packet that goes this way: source, destination, destination port, and what carries them.
type Row = [Vector; 4];

/// For each packet of a batch the first rule that may match it.
pub(in super::super) struct Short {
    /// By packet.
    firsts: [u32; BATCH_SIZE],
}

/// What holds for the destination of the packet before: packets to the same address, such as that of a service, often come in a row.
struct Destination {
    ipv4: (u32, Vector),
    ipv6: (u128, Vector),
}

impl Short {
    /// Nothing is known of any packet: all of them have this in place of a rule.
    #[inline(always)]
    pub fn none(unknown: u32) -> Self {
        Self { firsts: [unknown; BATCH_SIZE] }
    }

    /// The first rule of the packet at `index`.
    #[inline(always)]
    pub fn first(&self, index: usize) -> u32 {
        self.firsts[index]
    }

    /// Looks up the packets of a batch that are undecided. Of those that do not go this way nothing is known, as in [`none`](Self::none); to
    /// those that match no rule `no_rule` is given.
    #[inline(always)]
    pub fn look_up(&mut self, vectors: &Vectors, batch: &Batch<'_>, no_rule: u32) {
        let mut destination =
            Destination { ipv4: (0, vectors.dst.ipv4.find(0)), ipv6: (0, vectors.dst.ipv6.find(0)) };
        let mut rows = [Row::default(); BATCH_SIZE];
        let mut found = 0u64;
        for index in batch.undecided() {
            let packet = batch.packet(index);
            if let Some(row) = vectors.short_row(packet.bytes(), packet.headers(), &mut destination) {
                for chunk in vectors.chunks_of(row[0]).iter().take(MOST_PREFETCHED) {
                    prefetch(chunk);
                }
                rows[index] = row;
                found |= 1 << index;
            }
        }
        let join = Join { vectors, rows: &rows, packets: found, no_rule, firsts: &mut self.firsts };
        lanes::with_widest(join);
    }
}

/// The second pass.
struct Join<'a> {
    vectors: &'a Vectors,
    rows: &'a [Row; BATCH_SIZE],
    /// Those that have a row, by bits.
    packets: u64,
    no_rule: u32,
    firsts: &'a mut [u32; BATCH_SIZE],
}

impl lanes::Work for Join<'_> {
    #[inline(always)]
    fn run<L: Lanes>(mut self, lanes: L) {
        // As many chunks as most lists have, in loops of their own.
        match self.vectors.chunks {
            1 => self.join_all(lanes, self.vectors.by_chunks::<1>()),
            2 => self.join_all(lanes, self.vectors.by_chunks::<2>()),
            _ => {
                for index in ones(self.packets) {
                    let first = self.vectors.first_of(lanes, &self.rows[index]);
                    self.firsts[index] = first.map_or(self.no_rule, |rule| rule as u32);
                }
            }
        }
    }
}

impl Join<'_> {
    #[inline(always)]
    fn join_all<L: Lanes, const CHUNKS: usize>(&mut self, lanes: L, vectors: &[[Chunk; CHUNKS]]) {
        for index in ones(self.packets) {
            let fields = self.rows[index].map(|Vector(number)| &vectors[usize::from(number)]);
            let set_words = (0..CHUNKS).fold(0, |set, chunk| {
                let words = lanes.set_words(fields.map(|field| &field[chunk].0));
                set | u32::from(words) << (WORDS * chunk)
            });
            // Where nothing is set, some word that is not used.
            let word = set_words.trailing_zeros() as usize;
            let (chunk, word) = (word / WORDS % CHUNKS, word % WORDS);
            let bits = Chunk::joined_word(fields.map(|field| &field[chunk]), word);
            let rule = (chunk * RULES + word * 64) as u32 + bits.trailing_zeros();
            self.firsts[index] = select_unpredictable(set_words == 0, self.no_rule, rule);
        }
    }
}

impl Vectors {
    /// `None` for packets that do not go the short way.
    #[inline(always)]
    fn short_row(&self, bytes: &[u8], headers: &Headers, destination: &mut Destination) -> Option<Row> {
        let kind = [headers.outcome, headers.fragment];
        if kind != [Outcome::Ip as u8, Fragment::No as u8] || headers.transport_offset == 0 {
            return None;
        }
        let carried = match headers.protocol {
            TCP => &self.carried[0],
            UDP => &self.carried[1],
            _ => return None,
        };
        let network = bytes.get(usize::from(headers.network_offset)..)?;
        let (src, dst) = if headers.ip_version == 4 {
            let (pair, _) = network.first_chunk::<20>()?[12..].as_chunks::<4>();
            let dst = u32::from_be_bytes(pair[1]);
            if destination.ipv4.0 != dst {
                destination.ipv4 = (dst, self.dst.ipv4.find(dst));
            }
            (self.src.ipv4.find(u32::from_be_bytes(pair[0])), destination.ipv4.1)
        } else {
            let (pair, _) = network.first_chunk::<40>()?[8..].as_chunks::<16>();
            let dst = u128::from_be_bytes(pair[1]);
            if destination.ipv6.0 != dst {
                destination.ipv6 = (dst, self.dst.ipv6.find(dst));
            }
            (self.src.ipv6.find(u128::from_be_bytes(pair[0])), destination.ipv6.1)
        };
        Some([src, dst, self.dst_port.find(headers.dst_port.into()), carried.find(headers.src_port.into())])
    }

    /// All vectors, each of so many chunks.
    #[inline(always)]
    fn by_chunks<const CHUNKS: usize>(&self) -> &[[Chunk; CHUNKS]] {
        self.vectors.as_chunks().0
    }

    #[inline(always)]
    fn first_of<L: Lanes>(&self, lanes: L, row: &Row) -> Option<usize> {
        let fields = row.map(|vector| self.chunks_of(vector));
        (0..self.chunks).find_map(|chunk| {
            let fields = fields.map(|field| &field[chunk]);
            let set_words = lanes.set_words(fields.map(|field| &field.0));
            let word = (set_words != 0).then(|| set_words.trailing_zeros() as usize)?;
            let bits = Chunk::joined_word(fields, word);
            Some(chunk * RULES + word * 64 + bits.trailing_zeros() as usize)
        })
    }
}

/// The bits that are set.
#[inline(always)]
fn ones(mut bits: u64) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let first = bits.trailing_zeros() as usize;
        (bits != 0).then(|| {
            bits &= bits - 1;
            first
        })
    })
}
