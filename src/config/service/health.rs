//! `[service.health]`: how the backends of a service are checked.

use std::ops::RangeInclusive;
use std::time::Duration;

use toml::Spanned;

use super::{Backend, Draft, Forward, Protocol};
use crate::config::addresses::is_address;
use crate::config::choice::list;
use crate::config::duration;
use crate::config::filter::values;
use crate::config::reader::{Reader, Section};

pub use crate::health::{HealthCheck, HealthKind, Through};

const KEYS: &[&str] = &[
    "type", "interval", "timeout", "rise", "fall", "port", "path", "host", "status", "verify", "command",
    "through",
];
const COMMON_KEYS: [&str; 5] = ["type", "interval", "timeout", "rise", "fall"];
const INTERVALS: RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(3600);
const TIMEOUTS: RangeInclusive<Duration> = Duration::from_millis(10)..=Duration::from_secs(3600);
const DEFAULT_INTERVAL: Duration = Duration::from_secs(2);
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(1);
const DEFAULT_RISE: u32 = 2;
const DEFAULT_FALL: u32 = 3;
const IN_A_ROW: RangeInclusive<u32> = 1..=100;
const HTTP_STATUS: RangeInclusive<u32> = 100..=599;

impl HealthKind {
    /// The keys that mean something for it, beside those common to all.
    const fn keys(self) -> &'static [&'static str] {
        match self {
            Self::Tcp => &["port", "through"],
            Self::Http => &["port", "path", "host", "status"],
            Self::Https => &["port", "path", "host", "status", "verify"],
            Self::Tls => &["port", "host", "verify"],
            Self::Icmp => &[],
            Self::Command => &["port", "command"],
        }
    }

    /// Whether there is nothing to try without a port.
    const fn needs_port(self) -> bool {
        matches!(self, Self::Tcp | Self::Http | Self::Https | Self::Tls)
    }
}

/// `None` when there is none, or when it has no type to go by, which is reported.
pub(super) fn read(
    section: &Section<'_>,
    reader: &mut Reader<'_>,
    draft: &Draft,
    backends: Option<&[Backend]>,
) -> Option<HealthCheck> {
    let section = section.table(reader, "health", "[service.health]", KEYS)?;
    let kind = section.choice::<HealthKind>(reader, "type");
    section.require(reader, "type", "\"tcp\"");
    let check = HealthCheck {
        kind: kind.unwrap_or(HealthKind::Tcp),
        interval: duration::or(&section, reader, "interval", INTERVALS, DEFAULT_INTERVAL),
        timeout: duration::or(&section, reader, "timeout", TIMEOUTS, DEFAULT_TIMEOUT),
        rise: section.integer(reader, "rise", IN_A_ROW).map_or(DEFAULT_RISE, Spanned::into_inner),
        fall: section.integer(reader, "fall", IN_A_ROW).map_or(DEFAULT_FALL, Spanned::into_inner),
        port: port(&section, reader),
        path: path(&section, reader).unwrap_or_else(|| "/".to_owned()),
        host: host(&section, reader),
        status: status(&section, reader),
        verify: section.boolean(reader, "verify").unwrap_or(false),
        command: command(&section, reader),
        through: section.choice(reader, "through").unwrap_or_default(),
    };
    let kind = kind?;
    check_keys(&section, reader, kind, draft);
    check_times(&section, reader, &check, draft);
    check_port(&section, reader, &check, draft, backends);
    if check.through == Through::Path && kind == HealthKind::Tcp {
        check_path(&section, reader, draft);
    }
    if kind == HealthKind::Command {
        section.require(reader, "command", "[\"/usr/local/bin/check\"]");
    }
    Some(check)
}

fn port(section: &Section<'_>, reader: &mut Reader<'_>) -> Option<u16> {
    let port = section.integer(reader, "port", 1..=u32::from(u16::MAX))?;
    u16::try_from(port.into_inner()).ok()
}

/// An absolute path with a query perhaps, as it stands in the request line (RFC 9112, section 3.2.1).
fn path(section: &Section<'_>, reader: &mut Reader<'_>) -> Option<String> {
    let path = section.text(reader, "path")?;
    let text = *path.get_ref();
    if !text.starts_with('/') {
        reader.error(path.span(), "`path` does not begin with `/`").label(format!("did you mean `/{text}`?"));
        return None;
    }
    if !is_visible(text) {
        reader
            .error(path.span(), "`path` has a character that no URL has")
            .label("write spaces and what is not ASCII with `%`, as in `%20`");
        return None;
    }
    Some(text.to_owned())
}

fn host(section: &Section<'_>, reader: &mut Reader<'_>) -> Option<String> {
    let host = section.text(reader, "host")?;
    let text = *host.get_ref();
    if text.is_empty() || text.contains('/') || !is_visible(text) {
        reader
            .error(host.span(), "`host` is not the name of a host")
            .label("expected one such as `www.example.org`");
        return None;
    }
    Some(text.to_owned())
}

fn is_visible(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_graphic())
}

fn status(section: &Section<'_>, reader: &mut Reader<'_>) -> Vec<RangeInclusive<u16>> {
    let status = values::ranges(section, reader, "status", HTTP_STATUS);
    if status.is_empty() { vec![200..=200] } else { status }
}

fn command(section: &Section<'_>, reader: &mut Reader<'_>) -> Vec<String> {
    let Some(words) = section.texts(reader, "command") else { return Vec::new() };
    let program = words.first().map(|word| *word.get_ref()).unwrap_or_default();
    let span = words.first().map_or_else(|| section.place("command"), Spanned::span);
    if program.is_empty() {
        reader.error(span, "`command` names no program").label("add for example `\"/usr/local/bin/check\"`");
    } else if !program.starts_with('/') {
        reader
            .error(span, "`command` is not an absolute path")
            .label("the directory that `xfwd` runs in, and its `PATH`, do not count");
    }
    words.into_iter().map(|word| word.into_inner().to_owned()).collect()
}

fn check_keys(section: &Section<'_>, reader: &mut Reader<'_>, kind: HealthKind, draft: &Draft) {
    let fits = |key: &&&str| !COMMON_KEYS.contains(*key) && !kind.keys().contains(*key);
    for key in KEYS.iter().filter(fits) {
        let Some(value) = section.value(key) else { continue };
        let known = COMMON_KEYS.into_iter().chain(kind.keys().iter().copied());
        reader
            .error(
                value.span(),
                format!("`{key}` means nothing for the `{kind}` check of service {}", draft.title),
            )
            .label("remove this")
            .help(format!("keys of `type = \"{kind}\"`: {}", list(known)));
    }
}

fn check_times(section: &Section<'_>, reader: &mut Reader<'_>, check: &HealthCheck, draft: &Draft) {
    if check.timeout <= check.interval {
        return;
    }
    // The one that is written is wrong; if both are, the timeout.
    let key = if section.value("timeout").is_some() { "timeout" } else { "interval" };
    reader
        .error(
            section.place(key),
            format!("the health check of service {} takes longer than its interval", draft.title),
        )
        .label(format!(
            "`timeout` is {}, `interval` {}",
            duration::show(check.timeout),
            duration::show(check.interval)
        ))
        .help("a try must have ended when the next begins");
}

/// There must be one port to try at each backend.
fn check_port(
    section: &Section<'_>,
    reader: &mut Reader<'_>,
    check: &HealthCheck,
    draft: &Draft,
    backends: Option<&[Backend]>,
) {
    let (Some(ports), Some(backends)) = (&draft.ports, backends) else { return };
    let is_known = ports.start() == ports.end() || section.has("port");
    if is_known || !check.kind.needs_port() {
        return;
    }
    if let Some(backend) = backends.iter().find(|backend| backend.port.is_none()) {
        reader
            .error(
                section.span(),
                format!(
                    "at which port of backend {} shall the health check of service {} try?",
                    backend.address, draft.title
                ),
            )
            .label(format!("add for example `port = {}`", ports.start()))
            .help("a service with one port needs no `port` here: that is tried");
    }
}

/// A SYN for the VIP by the way of the service.
fn check_path(section: &Section<'_>, reader: &mut Reader<'_>, draft: &Draft) {
    let place = section.place("through");
    let title = &draft.title;
    let why = if draft.forward.as_ref().is_some_and(|forward| *forward.get_ref() == Forward::Nat) {
        "by `forward = \"nat\"` the address is the path"
    } else if draft.protocol == Some(Protocol::Udp) {
        "only TCP answers a SYN"
    } else if draft.vip.is_some_and(|vip| !is_address(vip)) {
        "the VIP is a prefix: there is no one address to try"
    } else if draft.vip.is_some_and(|vip| {
        draft.backends.iter().any(|backend| backend.get_ref().is_ipv4() != vip.address().is_ipv4())
    }) {
        "a backend is of another IP version than the VIP"
    } else {
        return;
    };
    reader
        .error(place, format!("service {title} cannot be checked through its path"))
        .label(why)
        .help("use `through = \"address\"`, which is the default");
}
