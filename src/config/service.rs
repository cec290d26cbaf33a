//! `[[service]]`: a virtual address and port, and the backends behind it.

use std::collections::HashMap;
use std::net::IpAddr;

use serde::Serialize;
use toml::Spanned;

use super::reader::{Reader, Section, Span};
use crate::packet::protocol;
use crate::words::choices;

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
}

choices! {
    /// How a packet gets to its backend.
    pub enum Forward {
        /// Direct server return on one Ethernet segment: only the destination MAC address changes, the
        /// backend has the VIP on a loopback interface and answers the client itself.
        Dsr = "dsr",
    }
}

/// A virtual address, protocol and port, and the backends behind it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Service {
    /// Name in messages and metrics; unique.
    pub name: String,
    /// Address clients send to.
    pub vip: IpAddr,
    /// Transport protocol.
    pub protocol: Protocol,
    /// Port clients send to.
    pub port: u16,
    /// How a packet gets to its backend.
    pub forward: Forward,
    /// Where packets go, in the order of the file; one at least, no address twice.
    pub backends: Vec<Backend>,
}

/// A server behind a service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Backend {
    /// Address of the server.
    pub address: IpAddr,
    /// Share of the flows relative to the other backends, 1 to 65,535.
    pub weight: u32,
}

const KEYS: &[&str] = &["name", "vip", "protocol", "port", "forward", "backend"];
const BACKEND_KEYS: &[&str] = &["address", "weight"];

pub(super) fn read(root: &Section<'_>, reader: &mut Reader<'_>) -> Vec<Service> {
    let mut seen = Seen::default();
    let sections = root.tables(reader, "service", "[[service]]", KEYS);
    sections.iter().filter_map(|section| service(section, reader, &mut seen)).collect()
}

/// What earlier services have taken, and the line where.
#[derive(Default)]
struct Seen {
    names: HashMap<String, usize>,
    endpoints: HashMap<(IpAddr, Protocol, u16), usize>,
}

/// `None` when something is wrong with it, which is reported.
fn service(section: &Section<'_>, reader: &mut Reader<'_>, seen: &mut Seen) -> Option<Service> {
    let name = section.text(reader, "name");
    section.require(reader, "name", "\"web\"");
    let vip = section.address(reader, "vip");
    section.require(reader, "vip", "\"198.18.10.1\"");
    let protocol = section.choice::<Protocol>(reader, "protocol");
    section.require(reader, "protocol", "\"tcp\"");
    let port = section.integer(reader, "port", 1..=u32::from(u16::MAX));
    section.require(reader, "port", "80");
    let forward = section.choice(reader, "forward");
    section.require(reader, "forward", "\"dsr\"");
    let vip = vip.and_then(|vip| unicast(reader, "vip", vip));
    let backends = backends(section, reader, vip.as_ref().map(|vip| *vip.get_ref()));

    let name = name.and_then(|name| unique_name(reader, seen, &name));
    let vip = vip?;
    let port = u16::try_from(*port?.get_ref()).ok()?;
    let (protocol, address) = (protocol?, *vip.get_ref());
    if let Some(line) = seen.endpoints.get(&(address, protocol, port)) {
        reader
            .error(vip.span(), format!("two services have the address {address}, {protocol} port {port}"))
            .label(format!("the first is in line {line}"));
        return None;
    }
    seen.endpoints.insert((address, protocol, port), reader.line(&vip.span()));
    Some(Service { name: name?, vip: address, protocol, port, forward: forward?, backends: backends? })
}

fn unique_name(reader: &mut Reader<'_>, seen: &mut Seen, name: &Spanned<&str>) -> Option<String> {
    let word = name.get_ref().trim();
    if word.is_empty() {
        reader.error(name.span(), "`name` is empty").label("metrics and messages call the service by it");
        return None;
    }
    if let Some(line) = seen.names.get(word) {
        reader
            .error(name.span(), format!("two services have the name `{word}`"))
            .label(format!("the first is in line {line}"));
        return None;
    }
    seen.names.insert(word.to_owned(), reader.line(&name.span()));
    Some(word.to_owned())
}

fn backends(section: &Section<'_>, reader: &mut Reader<'_>, vip: Option<IpAddr>) -> Option<Vec<Backend>> {
    let place = match section.value("backend") {
        // Misspelt, which is reported.
        None if section.has("backend") => return None,
        None => Some(section.span()),
        Some(list) => list.get_ref().as_array().is_some_and(|list| list.is_empty()).then(|| list.span()),
    };
    if let Some(place) = place {
        reader
            .error(place, "the service has no backend")
            .help("add `[[service.backend]]` with an `address` for each server");
        return None;
    }
    let sections = section.tables(reader, "backend", "[[service.backend]]", BACKEND_KEYS);
    let mut seen = HashMap::new();
    // First all of them, so that everything wrong is reported.
    let backends: Vec<_> = sections.iter().map(|section| backend(section, reader, vip, &mut seen)).collect();
    backends.into_iter().collect::<Option<Vec<_>>>().filter(|backends| !backends.is_empty())
}

fn backend(
    section: &Section<'_>,
    reader: &mut Reader<'_>,
    vip: Option<IpAddr>,
    seen: &mut HashMap<IpAddr, usize>,
) -> Option<Backend> {
    let address = section.address(reader, "address");
    section.require(reader, "address", "\"198.18.0.11\"");
    let weight = weight(section, reader);
    let address = unicast(reader, "address", address?)?;
    let (span, address) = (address.span(), *address.get_ref());
    if let Some(vip) = vip {
        check_against_vip(reader, &span, address, vip)?;
    }
    if let Some(line) = seen.insert(address, reader.line(&span)) {
        reader
            .error(span, format!("the service has the backend {address} twice"))
            .label(format!("the first is in line {line}"))
            .help("to send it more, raise its `weight`");
        return None;
    }
    Some(Backend { address, weight: weight? })
}

fn weight(section: &Section<'_>, reader: &mut Reader<'_>) -> Option<u32> {
    let is_zero = |value: &Spanned<toml::de::DeValue<'_>>| {
        value
            .get_ref()
            .as_integer()
            .is_some_and(|integer| integer.as_str().bytes().all(|digit| digit == b'0'))
    };
    match section.value("weight") {
        None => Some(1),
        Some(value) if is_zero(value) => {
            reader
                .error(value.span(), "`weight` is 0")
                .label("must be 1 to 65535")
                .help("a backend that shall get no flows is left out of the file");
            None
        }
        Some(_) => section.integer(reader, "weight", 1..=u32::from(u16::MAX)).map(Spanned::into_inner),
    }
}

/// Direct return sends the packet to the backend unchanged but for its MAC address.
fn check_against_vip(reader: &mut Reader<'_>, span: &Span, address: IpAddr, vip: IpAddr) -> Option<()> {
    if address == vip {
        reader
            .error(span.clone(), "the backend has the address of the service")
            .label("the VIP")
            .help("give the server's own address: the balancer finds its MAC address by it");
        return None;
    }
    if address.is_ipv4() != vip.is_ipv4() {
        let family = |address: IpAddr| if address.is_ipv4() { "IPv4" } else { "IPv6" };
        reader
            .error(span.clone(), format!("an {} backend for an {} service", family(address), family(vip)))
            .label(format!("`forward = \"dsr\"` needs an {} address", family(vip)));
        return None;
    }
    Some(())
}

/// The address, if one host can have it and others can reach it there.
fn unicast(reader: &mut Reader<'_>, key: &str, address: Spanned<IpAddr>) -> Option<Spanned<IpAddr>> {
    let kind = match *address.get_ref() {
        ip if ip.is_unspecified() => "the unspecified address",
        ip if ip.is_loopback() => "a loopback address",
        ip if ip.is_multicast() => "a multicast address",
        IpAddr::V4(ip) if ip.is_broadcast() => "the broadcast address",
        _ => return Some(address),
    };
    reader.error(address.span(), format!("`{key}` is {kind}")).label("expected a unicast address");
    None
}
