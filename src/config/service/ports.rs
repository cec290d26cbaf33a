//! The ports of a service: one, a range, or all.

use std::ops::RangeInclusive;

use toml::Spanned;
use toml::de::DeValue;

use crate::config::reader::{Reader, Section};

/// Every port that a packet can be sent to: 0 is reserved (RFC 6335, section 6).
pub(crate) const ALL: RangeInclusive<u16> = 1..=u16::MAX;

/// The value of `port`: `80`, `"8000-8100"` or `"all"`.
pub(super) fn read(section: &Section<'_>, reader: &mut Reader<'_>) -> Option<RangeInclusive<u16>> {
    let value = section.value("port")?;
    match value.get_ref() {
        DeValue::String(word) if word == "all" => Some(ALL),
        DeValue::String(_) => range(reader, "port", value),
        DeValue::Integer(_) => {
            let port = section.integer(reader, "port", 1..=u32::from(u16::MAX))?;
            let port = u16::try_from(*port.get_ref()).ok()?;
            Some(port..=port)
        }
        _ => {
            reader.wrong_type("port", value, "a port, a range such as \"8000-8100\", or \"all\"");
            None
        }
    }
}

/// A range in a string.
pub(in crate::config) fn range(
    reader: &mut Reader<'_>,
    key: &str,
    value: &Spanned<DeValue<'_>>,
) -> Option<RangeInclusive<u16>> {
    let Some(text) = value.get_ref().as_str() else {
        reader.wrong_type(key, value, "a range such as \"1024-32767\"");
        return None;
    };
    let (low, high) = text.split_once('-').unwrap_or((text, text));
    let number = |text: &str| {
        let text = text.trim();
        let digits = !text.is_empty() && text.bytes().all(|digit| digit.is_ascii_digit());
        // Digits that are too many for a number are out of range, too.
        digits.then(|| text.parse().unwrap_or(u32::MAX))
    };
    let (Some(low), Some(high)) = (number(low), number(high)) else {
        let or_all = if key == "port" { " or `all`" } else { "" };
        reader
            .error(value.span(), format!("`{key}` is not a range of ports"))
            .label(format!("expected one such as `8000-8100`{or_all}"));
        return None;
    };
    match (u16::try_from(low), u16::try_from(high)) {
        (Ok(low), Ok(high)) if low > high => {
            reader
                .error(value.span(), format!("`{key}` is a reversed range"))
                .label(format!("write `\"{high}-{low}\"`"));
            None
        }
        (Ok(low), Ok(high)) if low > 0 => Some(low..=high),
        _ => {
            reader.error(value.span(), format!("`{key}` is out of range")).label("must be 1 to 65535");
            None
        }
    }
}

/// The ports as messages call them: `port 80`, `ports 8000-8100` or `all ports`.
pub(crate) fn show(ports: &RangeInclusive<u16>) -> String {
    if *ports == ALL {
        "all ports".to_owned()
    } else if ports.start() == ports.end() {
        format!("port {}", ports.start())
    } else {
        format!("ports {}-{}", ports.start(), ports.end())
    }
}
