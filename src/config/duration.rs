//! Spans of time in the config: `"30s"`, `"15m"`, `"200ms"`.

use std::ops::RangeInclusive;
use std::time::Duration;

use serde::Serializer;

use super::reader::{Reader, Section};

/// Units, the longest first, and how many milliseconds each has.
const UNITS: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// The span of time `key` holds, `default` when it is absent or wrong, which is reported.
pub(super) fn or(
    section: &Section<'_>,
    reader: &mut Reader<'_>,
    key: &str,
    allowed: RangeInclusive<Duration>,
    default: Duration,
) -> Duration {
    read(section, reader, key, allowed).unwrap_or(default)
}

/// The span of time `key` holds.
pub(super) fn read(
    section: &Section<'_>,
    reader: &mut Reader<'_>,
    key: &str,
    allowed: RangeInclusive<Duration>,
) -> Option<Duration> {
    let value = section.value(key)?;
    let Some(text) = value.get_ref().as_str() else {
        let error = reader.wrong_type(key, value, "a time with its unit, such as \"30s\"");
        if let Some(integer) = value.get_ref().as_integer() {
            error.help(format!("in seconds that is `\"{}s\"`", integer.as_str()));
        }
        return None;
    };
    match parse(text) {
        Some(duration) if allowed.contains(&duration) => Some(duration),
        Some(_) => {
            let (least, most) = (show(*allowed.start()), show(*allowed.end()));
            reader
                .error(value.span(), format!("`{key}` is out of range"))
                .label(format!("must be `{least}` to `{most}`"));
            None
        }
        None => {
            reader
                .error(value.span(), format!("`{key}` is not a time"))
                .label("expected one such as `200ms`, `30s`, `15m`, `2h` or `1d`");
            None
        }
    }
}

/// A whole number and its unit.
fn parse(text: &str) -> Option<Duration> {
    let (number, unit) = text.split_at(text.find(|letter: char| !letter.is_ascii_digit())?);
    let (_, milliseconds) = UNITS.into_iter().find(|(name, _)| *name == unit.trim_start())?;
    // Digits that are too many for a number are out of every range.
    let number: u64 = if number.is_empty() { return None } else { number.parse().unwrap_or(u64::MAX) };
    Some(Duration::from_millis(number.saturating_mul(milliseconds)))
}

/// As it would stand in the file, in the longest unit that needs no fraction.
pub(crate) fn show(duration: Duration) -> String {
    let milliseconds = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let whole = |(_, unit): &(&str, u64)| milliseconds > 0 && milliseconds.is_multiple_of(*unit);
    match UNITS.into_iter().find(whole) {
        Some((name, unit)) => format!("{}{name}", milliseconds / unit),
        None => "0s".to_owned(),
    }
}

/// As it would stand in the file, for JSON.
pub(super) fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&show(*duration))
}

/// As [`serialize`], where there may be none.
pub(super) fn serialize_option<S: Serializer>(
    duration: &Option<Duration>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match duration {
        Some(duration) => serializer.collect_str(&show(*duration)),
        None => serializer.serialize_none(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_a_whole_number_and_a_unit() {
        let milliseconds = |text| parse(text).map(|duration| duration.as_millis());
        assert_eq!(milliseconds("200ms"), Some(200));
        assert_eq!(milliseconds("30s"), Some(30_000));
        assert_eq!(milliseconds("15 m"), Some(900_000));
        assert_eq!(milliseconds("2h"), Some(7_200_000));
        assert_eq!(milliseconds("1d"), Some(86_400_000));
        for wrong in ["", "30", "s", "-1s", "1.5s", "1S", "1m30s", "1s ", "ten s", "1 µs"] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
        assert!(parse("99999999999999999999d").unwrap() > Duration::from_secs(1 << 40));
    }

    #[test]
    fn a_time_is_shown_as_it_would_be_written() {
        for text in ["200ms", "1500ms", "30s", "90s", "15m", "2h", "1d"] {
            assert_eq!(show(parse(text).unwrap()), text);
        }
        assert_eq!(show(Duration::from_secs(120)), "2m");
        assert_eq!(show(Duration::ZERO), "0s");
    }
}
