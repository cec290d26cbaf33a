//! Packets of several lengths that take turns.

use std::fmt;

use xfwd_ebpf_types::trafficgen::{MAX_LENGTHS, MAX_TURNS};

use super::traffic::SpecError;

/// Bytes of the frame check sequence, which RFC 6985 counts and an interface does not show.
const FCS: usize = 4;

/// The lengths that an IMIX genome has letters for (RFC 6985, section 3), with FCS.
const GENOME: [(char, usize); 10] = [
    ('a', 64),
    ('b', 128),
    ('c', 256),
    ('d', 512),
    ('e', 1_024),
    ('f', 1_280),
    ('g', 1_518),
    ('h', 2_112),
    ('i', 9_000),
    ('j', 16_000),
];

/// A row of lengths that take turns, from its beginning again at its end: an IMIX.
///
/// As RFC 6985 asks, the order is part of it and not left to chance, so that two runs send the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mix {
    frames: Vec<usize>,
}

impl Mix {
    /// The simple IMIX: seven packets of 64 bytes, four of 594 and one of 1,518 (with FCS), mixed evenly.
    pub fn imix() -> Self {
        Self { frames: spread(&[(60, 7), (590, 4), (1_514, 1)]) }
    }

    /// Lengths with how many packets of the row have each, mixed evenly. Bytes of frames with FCS.
    ///
    /// # Errors
    ///
    /// [`SpecError::Mix`] if there is nothing in it, more than 8 lengths or more than 64 packets in the row, or a length
    /// below 64.
    pub fn of(parts: &[(usize, usize)]) -> Result<Self, SpecError> {
        if parts.iter().any(|(length, _)| *length < 64) {
            return Err(SpecError::Mix(
                "a length is below 64 bytes, the shortest Ethernet frame with its FCS",
            ));
        }
        if parts.iter().map(|(_, count)| *count).fold(0, usize::saturating_add) > MAX_TURNS {
            return Err(TOO_MANY_PACKETS);
        }
        let parts: Vec<_> = parts.iter().map(|(length, count)| (length - FCS, *count)).collect();
        Self { frames: spread(&parts) }.checked()
    }

    /// Reads `imix`, or lengths with their counts as `64x7,594x4,1518x1`, or a genome of RFC 6985, section 3, such as
    /// `aaaadg`: a letter a packet, in this order. Bytes are those of frames with FCS.
    ///
    /// # Errors
    ///
    /// [`SpecError::Mix`] for anything else, and as [`of`](Self::of).
    pub fn parse(text: &str) -> Result<Self, SpecError> {
        if text == "imix" {
            return Ok(Self::imix());
        }
        if text.starts_with(|first: char| first.is_ascii_digit()) {
            let part = |part: &str| {
                let (length, count) = part.split_once('x').unwrap_or((part, "1"));
                Some((length.parse().ok()?, count.parse().ok()?))
            };
            let parts: Option<Vec<_>> = text.split(',').map(part).collect();
            return Self::of(&parts.ok_or(NOT_A_MIX)?);
        }
        let length =
            |letter| GENOME.iter().find(|(known, _)| *known == letter).map(|(_, length)| length - FCS);
        let frames: Option<Vec<_>> = text.chars().map(length).collect();
        Self { frames: frames.ok_or(NOT_A_MIX)? }.checked()
    }

    /// The row: bytes of each frame, without FCS.
    pub fn frames(&self) -> &[usize] {
        &self.frames
    }

    /// Different lengths of frames, without FCS, in ascending order.
    pub fn lengths(&self) -> Vec<usize> {
        let mut lengths = self.frames.clone();
        lengths.sort_unstable();
        lengths.dedup();
        lengths
    }

    fn checked(self) -> Result<Self, SpecError> {
        match self.frames.len() {
            0 => Err(SpecError::Mix("it has no packets")),
            packets if packets > MAX_TURNS => Err(TOO_MANY_PACKETS),
            _ if self.lengths().len() > MAX_LENGTHS => Err(SpecError::Mix("it has more than 8 lengths")),
            _ => Ok(self),
        }
    }
}

const TOO_MANY_PACKETS: SpecError = SpecError::Mix("its row has more than 64 packets");
const NOT_A_MIX: SpecError =
    SpecError::Mix("it looks like imix, 64x7,594x4,1518x1, or aaaadg with the letters of RFC 6985, a to j");

/// Longest first in the text, so that it can be compared with other descriptions.
impl fmt::Display for Mix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, length) in self.lengths().into_iter().enumerate() {
            let count = self.frames.iter().filter(|frame| **frame == length).count();
            write!(f, "{}{}x{count}", if place > 0 { "," } else { "" }, length + FCS)?;
        }
        Ok(())
    }
}

/// A row in which each length has its count and is as evenly spread as it can be: in each place stands the length that is
/// furthest behind its share.
fn spread(parts: &[(usize, usize)]) -> Vec<usize> {
    let total: usize = parts.iter().map(|(_, count)| count).sum();
    let mut sent = vec![0; parts.len()];
    let mut row = Vec::with_capacity(total);
    for place in 1..=total {
        // What is owed, times `total`: count * place - sent * total.
        let owed = |index: &usize| (parts[*index].1 * place).saturating_sub(sent[*index] * total);
        let Some(next) = (0..parts.len()).rev().max_by_key(owed) else {
            break;
        };
        sent[next] += 1;
        row.push(parts[next].0);
    }
    row
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_simple_imix_has_seven_four_and_one_mixed_evenly() {
        let imix = Mix::imix();
        assert_eq!(imix.to_string(), "64x7,594x4,1518x1");
        assert_eq!(imix.frames().len(), 12);
        // Never more than two small ones in a row, and no two large ones.
        let longest_run = imix.frames().chunk_by(|one, other| one == other).map(<[usize]>::len).max();
        assert!(longest_run <= Some(2), "{:?}", imix.frames());
        assert_eq!(Mix::parse("imix"), Ok(imix.clone()));
        assert_eq!(Mix::parse("64x7,594x4,1518x1"), Ok(imix));
    }

    #[test]
    fn a_genome_keeps_its_order() {
        let mix = Mix::parse("aaadg").unwrap();
        assert_eq!(mix.frames(), [60, 60, 60, 508, 1514]);
        assert_eq!(mix.to_string(), "64x3,512x1,1518x1");
    }

    #[test]
    fn what_is_no_mix_is_refused() {
        for text in ["", "aaz", "64x", "60x1", "64x65", "64x0", "x", "64,65,66,67,68,69,70,71,72"] {
            assert!(matches!(Mix::parse(text), Err(SpecError::Mix(_))), "{text}");
        }
        assert!(Mix::parse(&"a".repeat(65)).is_err());
    }
}
