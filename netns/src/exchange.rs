//! Frames out, answers in: for subjects that send back, changed or not, what they get.
//!
//! Every frame ends in a tag with its number, by which its answer is known. Only a window of frames is under way at any
//! moment, so that no queue on the way overflows, and a frame without an answer is the subject's fault. Frames that are to
//! be dropped are sent among the others, and an answer to one of them is taken in like any other.

use std::time::{Duration, Instant};

use crate::{Capture, Result};

/// Bytes of a tag: the last bytes of a frame.
pub const TAG_BYTES: usize = 12;
const MAGIC: [u8; 8] = *b"xfwd-lab";

/// The tag of frame `number`.
pub fn tag(number: u32) -> [u8; TAG_BYTES] {
    let mut tag = [0; TAG_BYTES];
    tag[..MAGIC.len()].copy_from_slice(&MAGIC);
    tag[MAGIC.len()..].copy_from_slice(&number.to_be_bytes());
    tag
}

fn number(frame: &[u8]) -> Option<usize> {
    let tag = frame.last_chunk::<TAG_BYTES>()?;
    let number = tag.strip_prefix(&MAGIC)?.try_into().ok()?;
    usize::try_from(u32::from_be_bytes(number)).ok()
}

/// What came of an [`exchange`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Exchange {
    /// The answer to each frame.
    pub answers: Vec<Option<Vec<u8>>>,
    /// Answers to a frame that had one.
    pub doubled: usize,
    /// Frames without a tag, of the hosts on the link.
    pub strangers: usize,
}

impl Exchange {
    /// Frames that were answered.
    pub fn answered(&self) -> usize {
        self.answers.iter().flatten().count()
    }
}

/// Sends frames, of which number `n` ends in [`tag`]`(n)`, and takes in the answers. Those for which `is_due` says that
/// there will be an answer are sent `window` at a time; the others go out between them, so there should not be many in a
/// row. Ends when all answers that are due have come and nothing follows them, or none has come for `patience`.
///
/// # Errors
///
/// If the socket fails.
pub fn exchange(
    wire: &Capture,
    frames: &[Vec<u8>],
    is_due: impl Fn(usize) -> bool,
    window: usize,
    patience: Duration,
) -> Result<Exchange> {
    let mut exchange = Exchange { answers: vec![None; frames.len()], ..Exchange::default() };
    let (mut sent, mut under_way) = (0, 0_usize);
    let mut last = Instant::now();
    while last.elapsed() < patience {
        while sent < frames.len() && under_way < window && wire.send(&frames[sent])? {
            under_way += usize::from(is_due(sent));
            sent += 1;
        }
        let Some(captured) = wire.next(Duration::from_millis(20))? else {
            if sent == frames.len() && under_way == 0 {
                break;
            }
            continue;
        };
        let number = number(&captured.bytes).filter(|number| *number < frames.len());
        match number.map(|number| (number, &mut exchange.answers[number])) {
            Some((number, answer @ None)) => {
                *answer = Some(captured.bytes);
                under_way -= usize::from(is_due(number));
                last = Instant::now();
            }
            Some((_, Some(_))) => exchange.doubled += 1,
            None => exchange.strangers += 1,
        }
    }
    Ok(exchange)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_is_read_back_from_the_end_of_a_frame() {
        let mut frame = vec![1; 60];
        assert_eq!(number(&frame), None);
        frame.extend(tag(77));
        assert_eq!(number(&frame), Some(77));
        frame.push(0);
        assert_eq!(number(&frame), None);
    }
}
