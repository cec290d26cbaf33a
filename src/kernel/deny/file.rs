//! Deny lists in files: an entry a line, and how long it is denied.
//!
//! ```text
//! # comment
//! 192.0.2.1                                        # until the line is removed
//! 198.51.100.0/24                           10m    # for ten minutes from when the line appeared
//! tcp 192.0.2.1:40000 198.51.100.1:443      1h
//! ```
//!
//! Times are numbers with `s`, `m`, `h` or `d`. A line whose time is over does nothing until it is removed and written again.

use std::time::Duration;

use super::DenyEntry;

/// One entry of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line {
    /// What is denied.
    pub entry: DenyEntry,
    /// For how long; `None`: as long as the line is there.
    pub ttl: Option<Duration>,
}

/// A line that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: `{text}`: {reason}")]
#[non_exhaustive]
pub struct BadLine {
    /// Its number, from 1.
    pub line: usize,
    /// What stands there.
    pub text: String,
    /// What is wrong with it.
    pub reason: String,
}

/// Reads a whole file.
///
/// # Errors
///
/// The first [`BadLine`].
pub fn parse(text: &str) -> Result<Vec<Line>, BadLine> {
    let mut lines = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let content = line.split('#').next().unwrap_or_default().trim();
        if content.is_empty() {
            continue;
        }
        let bad = |reason: String| BadLine { line: index + 1, text: content.to_owned(), reason };
        let (entry, ttl) = match content.rsplit_once(char::is_whitespace) {
            Some((entry, last)) if !last.contains([':', '.', '/']) => {
                let ttl = duration(last).ok_or_else(|| {
                    bad(format!("`{last}` is not a time, such as `90s`, `10m`, `1h` or `7d`"))
                })?;
                (entry, Some(ttl))
            }
            _ => (content, None),
        };
        lines.push(Line { entry: entry.parse().map_err(|error| bad(format!("{error}")))?, ttl });
    }
    Ok(lines)
}

fn duration(text: &str) -> Option<Duration> {
    let unit = match text.bytes().last()? {
        b's' => 1,
        b'm' => 60,
        b'h' => 3_600,
        b'd' => 86_400,
        _ => return None,
    };
    let number: u32 = text[..text.len() - 1].parse().ok()?;
    Some(Duration::from_secs(u64::from(number) * unit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_with_comments_and_times() {
        let text = "# head\n192.0.2.1 # comment\n\n  10.0.0.0/8\t10m\n2001:db8::/32 2d\ntcp 192.0.2.1:1 192.0.2.2:2 90s\n";
        let lines = parse(text).unwrap();
        let shown: Vec<_> =
            lines.iter().map(|line| (line.entry.to_string(), line.ttl.map(|ttl| ttl.as_secs()))).collect();
        let expected = [
            ("192.0.2.1/32", None),
            ("10.0.0.0/8", Some(600)),
            ("2001:db8::/32", Some(172_800)),
            ("tcp 192.0.2.1:1 192.0.2.2:2", Some(90)),
        ];
        assert_eq!(shown, expected.map(|(entry, ttl)| (entry.to_owned(), ttl)));
    }

    #[test]
    fn a_wrong_line_is_named() {
        let error = |text: &str| parse(text).unwrap_err().to_string();
        assert_eq!(
            error("10.0.0.0/8\n10.0.0.1/8"),
            "line 2: `10.0.0.1/8`: bits are set behind the prefix: write `10.0.0.0/8`"
        );
        assert_eq!(
            error("10.0.0.1 5x"),
            "line 1: `10.0.0.1 5x`: `5x` is not a time, such as `90s`, `10m`, `1h` or `7d`"
        );
        assert!(error("tcp 10.0.0.1").contains("not a 5-tuple"));
    }
}
