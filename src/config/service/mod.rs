//! `[[service]]`: a virtual address and port, and the backends behind it.
//!
//! A service is read in two steps: first each by itself, then what services have to do with each other
//! ([`conflicts`]). Ten thousand backends are read in the time of a few, so nothing here compares each with each.

mod backend;
mod conflicts;
mod health;
pub(crate) mod ports;
mod table_size;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use serde::Serialize;
use toml::Spanned;

use super::addresses::unicast_prefix;
use super::nat::Nat;
use super::reader::{Reader, Section, Span};
use super::{addresses, duration};
use crate::packet::protocol;
use crate::stages::balance::{Affinity, Forward, GUE_PORT, NoBackend, choose, maglev};
use crate::stages::filter::Prefix;
use crate::words::choices;
pub use backend::Backend;
pub use health::{HealthCheck, HealthKind, Through};

choices! {
    /// Transport protocol of a service.
    pub enum Protocol {
        /// TCP.
        Tcp = "tcp",
        /// UDP.
        Udp = "udp",
    }
}

impl Protocol {
    /// IP protocol number.
    pub const fn number(self) -> u8 {
        match self {
            Self::Tcp => protocol::TCP,
            Self::Udp => protocol::UDP,
        }
    }

    /// The one that has this IP protocol number.
    pub(super) fn of_number(number: u8) -> Option<Self> {
        [Self::Tcp, Self::Udp].into_iter().find(|protocol| protocol.number() == number)
    }
}

/// A virtual address, protocol and port, and the backends behind it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[non_exhaustive]
pub struct Service {
    /// Name in messages and metrics; unique.
    pub name: String,
    /// Addresses clients send to: one, or a prefix.
    #[cfg_attr(test, schemars(with = "String"))]
    pub vip: Prefix,
    /// Transport protocol.
    pub protocol: Protocol,
    /// Ports clients send to.
    pub ports: RangeInclusive<u16>,
    /// How a packet gets to its backend.
    pub forward: Forward,
    /// What chooses the backend of a new flow.
    pub affinity: Affinity,
    /// Slots of the Maglev table: a prime.
    pub table_size: u32,
    /// What happens when no backend can take a flow.
    pub no_backend: NoBackend,
    /// How long a backend that comes back takes to get its full share.
    #[serde(serialize_with = "duration::serialize_option")]
    pub slow_start: Option<Duration>,
    /// Upper limit for the maximum segment size that TCP handshakes announce.
    pub mss: Option<u16>,
    /// UDP port that backends receive GUE at.
    pub gue_port: u16,
    /// How backends are checked.
    pub health: Option<HealthCheck>,
    /// Where packets go, in the order of the file; one at least, no address twice.
    pub backends: Vec<Backend>,
}

impl Service {
    /// The port, when it has one only.
    pub fn single_port(&self) -> Option<u16> {
        (self.ports.start() == self.ports.end()).then_some(*self.ports.start())
    }

    /// Whether every port is its own.
    pub fn has_all_ports(&self) -> bool {
        self.ports == ports::ALL
    }

    /// The VIP, when it is one address.
    pub fn single_vip(&self) -> Option<IpAddr> {
        addresses::is_address(self.vip).then(|| self.vip.address())
    }

    /// The port at which `backend` is checked: that of the check, else that of the backend, else that of the service.
    pub fn health_port(&self, backend: &Backend) -> Option<u16> {
        let checked = self.health.as_ref().and_then(|health| health.port);
        checked.or(backend.port).or(self.single_port())
    }

    /// The table by which new flows find a backend while all of them are healthy: indices into `backends`.
    ///
    /// # Errors
    ///
    /// None for a service of a [`Plan`](super::Plan), whose backends and table size have been checked.
    pub fn table(&self) -> Result<maglev::Table, maglev::TableError> {
        let backends = self.backends.iter().map(|backend| (backend.address, backend.share()));
        choose::table(backends, self.table_size)
    }

    /// What clients send to: `tcp 198.18.10.1 port 80`.
    pub fn endpoint(&self) -> String {
        endpoint(self.vip, self.protocol, &self.ports)
    }
}

fn endpoint(vip: Prefix, protocol: Protocol, ports: &RangeInclusive<u16>) -> String {
    format!("{protocol} {} {}", addresses::show(vip), ports::show(ports))
}

/// From the least that every host takes (RFC 879: 536 bytes) to what is left of an IPv4 packet of 65,535 bytes.
const MSS: RangeInclusive<u32> = 536..=65_495;
const SLOW_START: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(3600);

const KEYS: &[&str] = &[
    "name",
    "vip",
    "protocol",
    "port",
    "forward",
    "affinity",
    "table_size",
    "no_backend",
    "slow_start",
    "mss",
    "gue_port",
    "health",
    "backend",
];

/// A service as far as it could be read, and where things are: what services have to do with each other is found from
/// these.
struct Draft {
    /// How messages call it: by its name, or by its line.
    title: String,
    name: Option<String>,
    /// Where the VIP is, or the header.
    place: Span,
    vip: Option<Prefix>,
    protocol: Option<Protocol>,
    ports: Option<RangeInclusive<u16>>,
    forward: Option<Spanned<Forward>>,
    backends: Vec<Spanned<IpAddr>>,
}

pub(super) fn read(root: &Section<'_>, reader: &mut Reader<'_>, nat: Option<&Nat>) -> Vec<Service> {
    let mut names = HashMap::new();
    let mut drafts = Vec::new();
    let mut services = Vec::new();
    for section in root.tables(reader, "service", "[[service]]", KEYS) {
        let (draft, service) = service(&section, reader, &mut names);
        drafts.push(draft);
        services.extend(service);
    }
    conflicts::report(&drafts, nat, reader);
    services
}

/// What could be read; the service is `None` when something is wrong with it, which is reported.
fn service(
    section: &Section<'_>,
    reader: &mut Reader<'_>,
    names: &mut HashMap<String, Span>,
) -> (Draft, Option<Service>) {
    let name = section.text(reader, "name");
    section.require(reader, "name", "\"web\"");
    let vip = section.prefix(reader, "vip");
    section.require(reader, "vip", "\"198.18.10.1\"");
    let vip = vip.and_then(|vip| unicast_prefix(reader, "vip", vip));
    let protocol = section.choice::<Protocol>(reader, "protocol");
    section.require(reader, "protocol", "\"tcp\"");
    let ports = ports::read(section, reader);
    section.require(reader, "port", "80");
    let forward = section.choice::<Forward>(reader, "forward");
    section.require(reader, "forward", "\"dsr\"");
    let forward = forward.map(|way| Spanned::new(section.place("forward"), way));

    let title = title(section, reader, name.as_ref());
    let name = name.and_then(|name| unique_name(reader, names, &name));
    let mut draft = Draft {
        title,
        name,
        place: section.place("vip"),
        vip: vip.map(Spanned::into_inner),
        protocol,
        ports,
        forward,
        backends: Vec::new(),
    };
    let backends = backend::read(section, reader, &mut draft);
    let settings = settings(section, reader, &draft);
    let health = health::read(section, reader, &draft, backends.as_deref());
    let table_size = table_size::read(section, reader, &draft);
    let service = complete(&draft, settings, table_size, health, backends);
    (draft, service)
}

/// Keys that stand for themselves.
struct Settings {
    affinity: Affinity,
    no_backend: NoBackend,
    slow_start: Option<Duration>,
    mss: Option<u16>,
    gue_port: u16,
}

fn settings(section: &Section<'_>, reader: &mut Reader<'_>, draft: &Draft) -> Settings {
    let mss = section.integer(reader, "mss", MSS);
    if let Some(place) = section.value("mss")
        && draft.protocol == Some(Protocol::Udp)
    {
        reader
            .error(place.span(), format!("`mss` for service {} of `protocol = \"udp\"`", draft.title))
            .label("only TCP has a maximum segment size");
    }
    let gue_port = section.integer(reader, "gue_port", 1..=u32::from(u16::MAX));
    if let Some(place) = section.value("gue_port")
        && let Some(forward) = &draft.forward
        && *forward.get_ref() != Forward::Gue
    {
        reader
            .error(
                place.span(),
                format!("`gue_port` for service {} of `forward = \"{}\"`", draft.title, forward.get_ref()),
            )
            .label("only `forward = \"gue\"` has one");
    }
    let narrow = |number: Spanned<u32>| u16::try_from(number.into_inner()).ok();
    Settings {
        affinity: section.choice(reader, "affinity").unwrap_or_default(),
        no_backend: section.choice(reader, "no_backend").unwrap_or_default(),
        slow_start: duration::read(section, reader, "slow_start", SLOW_START),
        mss: mss.and_then(narrow),
        gue_port: gue_port.and_then(narrow).unwrap_or(GUE_PORT),
    }
}

fn complete(
    draft: &Draft,
    settings: Settings,
    table_size: u32,
    health: Option<HealthCheck>,
    backends: Option<Vec<Backend>>,
) -> Option<Service> {
    let Settings { affinity, no_backend, slow_start, mss, gue_port } = settings;
    Some(Service {
        name: draft.name.clone()?,
        vip: draft.vip?,
        protocol: draft.protocol?,
        ports: draft.ports.clone()?,
        forward: *draft.forward.as_ref()?.get_ref(),
        affinity,
        table_size,
        no_backend,
        slow_start,
        mss,
        gue_port,
        health,
        backends: backends?,
    })
}

fn title(section: &Section<'_>, reader: &Reader<'_>, name: Option<&Spanned<&str>>) -> String {
    match name.map(|name| name.get_ref().trim()) {
        Some(word) if !word.is_empty() => format!("`{word}`"),
        _ => format!("in line {}", reader.line(&section.span())),
    }
}

fn unique_name(
    reader: &mut Reader<'_>,
    names: &mut HashMap<String, Span>,
    name: &Spanned<&str>,
) -> Option<String> {
    let word = name.get_ref().trim();
    if word.is_empty() {
        reader.error(name.span(), "`name` is empty").label("metrics and messages call the service by it");
        return None;
    }
    if let Some(first) = names.get(word) {
        let line = reader.line(first);
        reader
            .error(name.span(), format!("two services have the name `{word}`"))
            .label(format!("the first is in line {line}"));
        return None;
    }
    names.insert(word.to_owned(), name.span());
    Some(word.to_owned())
}
