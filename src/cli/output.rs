//! Writing to the two streams, and numbers for people.

use std::error::Error;
use std::fmt::Display;
use std::io::{ErrorKind, Write};
use std::process::ExitCode;

/// Writes a line to standard error. A reader that has gone away is no reason to stop forwarding packets.
pub(super) fn say(line: impl Display) {
    let _ = writeln!(std::io::stderr().lock(), "{line}");
}

/// Writes an error to standard error, with what caused it where it does not say so itself.
pub(super) fn say_error(error: &dyn Error) {
    say(format!("error: {}", with_causes(error)));
}

fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let said = cause.to_string();
        if !text.contains(&said) {
            text.push_str("\n  caused by: ");
            text.push_str(&said);
        }
        next = cause.source();
    }
    text
}

/// Writes a line to standard output. A reader that has gone away (`| head`) wants no more; anything else, such as a full
/// disk, is an error.
pub(super) fn print(line: impl Display) -> ExitCode {
    let mut stdout = std::io::stdout().lock();
    match writeln!(stdout, "{line}").and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            say(format!("error: cannot write to standard output: {error}"));
            ExitCode::FAILURE
        }
        _ => ExitCode::SUCCESS,
    }
}

/// A count with separators: `1,234,567`.
pub(super) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A rate in three or four digits: `0`, `950`, `12.3 k`, `4.56 M`, `10.2 G`.
pub(super) fn rate(number: f64) -> String {
    let (value, unit) = match number {
        n if n >= 1e9 => (n / 1e9, " G"),
        n if n >= 1e6 => (n / 1e6, " M"),
        n if n >= 1e3 => (n / 1e3, " k"),
        n => return format!("{n:.0}"),
    };
    if value >= 100.0 {
        format!("{value:.0}{unit}")
    } else if value >= 10.0 {
        format!("{value:.1}{unit}")
    } else {
        format!("{value:.2}{unit}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("cannot start")]
    struct Outer(#[source] Inner);

    #[derive(Debug, thiserror::Error)]
    #[error("no memory: {0}")]
    struct Inner(#[source] std::io::Error);

    #[test]
    fn a_cause_is_told_unless_the_error_says_it() {
        let error = Outer(Inner(std::io::Error::other("12 pages short")));
        assert_eq!(with_causes(&error), "cannot start\n  caused by: no memory: 12 pages short");
    }

    #[test]
    fn numbers_read_well() {
        assert_eq!([0, 999, 1_000, 1_234_567].map(count), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!(
            [0.0, 950.0, 12_345.0, 856_000.0, 4_560_000.0, 10.2e9].map(rate),
            ["0", "950", "12.3 k", "856 k", "4.56 M", "10.2 G"]
        );
    }
}
