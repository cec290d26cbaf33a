//! The array of lines: words by address and by number.

use xfwd_ebpf_types::filter::{LINE_WORDS, Line, RANGE_BOUNDS, Verdict, WordKind};

/// Values of the upper half of an IPv4 address, and of a port.
const HALF: u32 = 1 << 16;
/// Lines of a table by 8 bits.
const DENSE_LINES: usize = 256 / LINE_WORDS;

/// Lines that are filled and never moved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Lines {
    pub list: Vec<Line>,
}

impl Lines {
    /// Line 0 stands for none.
    pub fn new() -> Self {
        Self { list: vec![Line::default()] }
    }

    fn allocate(&mut self, lines: usize, word: u32) -> u32 {
        let first = self.list.len();
        self.list.resize(first + lines, Line { words: [word; LINE_WORDS] });
        first as u32
    }

    fn set(&mut self, first: u32, index: u32, word: u32) {
        self.list[first as usize + index as usize / LINE_WORDS].words[index as usize % LINE_WORDS] = word;
    }

    /// A table of verdicts by number, below `1 << bits`: for each number the smallest.
    pub fn by_number(&mut self, bits: u32, verdicts: impl Iterator<Item = (u32, Verdict)>) -> u32 {
        let first = self.allocate((1 << bits) / LINE_WORDS, Verdict::NONE.0);
        for (number, verdict) in verdicts {
            let word = &mut self.list[first as usize + number as usize / LINE_WORDS].words
                [number as usize % LINE_WORDS];
            *word = verdict.0.min(*word);
        }
        first
    }

    /// A table by IPv4 address, of [ranges](super::addresses::Said::v4_ranges); line 0 when there are none.
    pub fn by_address(&mut self, ranges: &[(u32, u32)]) -> u32 {
        if ranges.is_empty() {
            return 0;
        }
        let root = self.allocate((HALF as usize) / LINE_WORDS, 0);
        let mut rest = ranges;
        for upper in 0..HALF {
            let first = upper << 16;
            rest = from(rest, first);
            let part = until(rest, first | (HALF - 1));
            let word = self.part(part, first, 16);
            self.set(root, upper, word);
        }
        root
    }

    /// The word for the addresses from `first` on that have `bits` more bits, by the ranges they are in.
    fn part(&mut self, part: &[(u32, u32)], first: u32, bits: u32) -> u32 {
        if let [(_, word)] = part {
            return *word;
        }
        if part.len() <= RANGE_BOUNDS + 1 {
            return WordKind::RANGES | self.line_of_ranges(part);
        }
        let dense = self.allocate(DENSE_LINES, 0);
        let step = 1 << (bits - 8);
        let mut rest = part;
        for index in 0..256 {
            let start = first + index * step;
            rest = from(rest, start);
            let word = self.part(until(rest, start + (step - 1)), start, bits - 8);
            self.set(dense, index, word);
        }
        WordKind::DENSE | dense
    }

    fn line_of_ranges(&mut self, part: &[(u32, u32)]) -> u32 {
        // Bounds that are not used are at the end, and what is behind them is what is behind the last one.
        let mut bounds = [u16::MAX; RANGE_BOUNDS];
        for (bound, (start, _)) in bounds.iter_mut().zip(&part[1..]) {
            *bound = (start & 0xffff) as u16;
        }
        self.list
            .push(Line::of_ranges(bounds, std::array::from_fn(|index| part[index.min(part.len() - 1)].1)));
        self.list.len() as u32 - 1
    }
}

/// The ranges from the one that holds `address` on.
fn from(ranges: &[(u32, u32)], address: u32) -> &[(u32, u32)] {
    let behind = ranges.iter().position(|(start, _)| *start > address).unwrap_or(ranges.len());
    &ranges[behind - 1..]
}

/// The ranges that start at or before `address`.
fn until(ranges: &[(u32, u32)], address: u32) -> &[(u32, u32)] {
    let behind = ranges.iter().position(|(start, _)| *start > address).unwrap_or(ranges.len());
    &ranges[..behind]
}
