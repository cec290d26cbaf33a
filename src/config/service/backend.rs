//! `[[service.backend]]`: the servers behind a service.

use std::collections::HashMap;
use std::net::IpAddr;

use serde::Serialize;
use toml::Spanned;

use super::Draft;
use crate::config::addresses::{family, unicast};
use crate::config::reader::{Reader, Section, Span};
use crate::stages::balance::{BackendState, Forward};

/// A server behind a service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[non_exhaustive]
pub struct Backend {
    /// Address of the server.
    pub address: IpAddr,
    /// Share of the flows relative to the other backends, 0 to 65,535; 0 is as [`BackendState::Drain`].
    pub weight: u32,
    /// Port that packets are sent to by [`Forward::Nat`]; without one, that which the client sent to.
    pub port: Option<u16>,
    /// What the operator wants of it.
    pub state: BackendState,
}

impl Backend {
    /// The weight that counts for new flows: 0 for one that shall get none.
    pub fn share(&self) -> u32 {
        match self.state {
            BackendState::Up => self.weight,
            BackendState::Drain | BackendState::Down => 0,
        }
    }
}

const KEYS: &[&str] = &["address", "weight", "port", "state"];

/// `None` when something is wrong, which is reported.
pub(super) fn read(
    section: &Section<'_>,
    reader: &mut Reader<'_>,
    draft: &mut Draft,
) -> Option<Vec<Backend>> {
    let place = match section.value("backend") {
        // Misspelt, which is reported.
        None if section.has("backend") => return None,
        None => Some(section.span()),
        Some(list) => list.get_ref().as_array().is_some_and(|list| list.is_empty()).then(|| list.span()),
    };
    if let Some(place) = place {
        reader
            .error(place, format!("service {} has no backend", draft.title))
            .help("add `[[service.backend]]` with an `address` for each server");
        return None;
    }
    let sections = section.tables(reader, "backend", "[[service.backend]]", KEYS);
    let mut seen = HashMap::new();
    // First all of them, so that everything wrong is reported.
    let backends: Vec<_> =
        sections.iter().map(|section| backend(section, reader, draft, &mut seen)).collect();
    let backends = backends.into_iter().collect::<Option<Vec<_>>>()?;
    if !backends.is_empty() && backends.iter().all(|backend| backend.share() == 0) {
        reader
            .error(draft.place.clone(), format!("no backend of service {} gets flows", draft.title))
            .label("each has `weight = 0`, or its `state` is `drain` or `down`")
            .help("leave the service out, or give one backend a weight");
    }
    Some(backends).filter(|backends| !backends.is_empty())
}

fn backend(
    section: &Section<'_>,
    reader: &mut Reader<'_>,
    draft: &mut Draft,
    seen: &mut HashMap<IpAddr, Span>,
) -> Option<Backend> {
    let address = section.address(reader, "address");
    section.require(reader, "address", "\"198.18.0.11\"");
    let highest = u32::from(u16::MAX);
    let weight = match section.value("weight") {
        None => Some(1),
        Some(_) => section.integer(reader, "weight", 0..=highest).map(Spanned::into_inner),
    };
    let port = section.integer(reader, "port", 1..=highest);
    let state = section.choice(reader, "state").unwrap_or_default();
    let address = address.and_then(|address| unicast(reader, "address", address));
    check_port(section, reader, draft, address.as_ref());
    let address = address?;
    check_family(reader, &address, draft);
    let (span, address) = (address.span(), *address.get_ref());
    if let Some(first) = seen.get(&address) {
        let line = reader.line(first);
        reader
            .error(span, format!("service {} has the backend {address} twice", draft.title))
            .label(format!("the first is in line {line}"))
            .help("to send it more, raise its `weight`");
        return None;
    }
    seen.insert(address, span.clone());
    draft.backends.push(Spanned::new(span, address));
    let port = port.and_then(|port| u16::try_from(port.into_inner()).ok());
    Some(Backend { address, weight: weight?, port, state })
}

fn check_port(
    section: &Section<'_>,
    reader: &mut Reader<'_>,
    draft: &Draft,
    address: Option<&Spanned<IpAddr>>,
) {
    let (Some(value), Some(forward)) = (section.value("port"), &draft.forward) else { return };
    let forward = *forward.get_ref();
    if forward != Forward::Nat {
        let backend =
            address.map_or("a backend".to_owned(), |address| format!("backend {}", address.get_ref()));
        reader
            .error(value.span(), format!("{backend} of service {} has a `port`", draft.title))
            .label(format!("`forward = \"{forward}\"` leaves the port as it is"))
            .help("remove it, or use `forward = \"nat\"`");
    }
}

/// Only within an outer header can a packet of one family go to an address of the other.
fn check_family(reader: &mut Reader<'_>, address: &Spanned<IpAddr>, draft: &Draft) {
    let (Some(vip), Some(forward)) = (draft.vip, &draft.forward) else { return };
    let (vip, backend, forward) = (vip.address(), *address.get_ref(), *forward.get_ref());
    if forward.keeps_family() && vip.is_ipv4() != backend.is_ipv4() {
        reader
            .error(
                address.span(),
                format!(
                    "backend {backend} of the {} service {} is an {} address",
                    family(vip),
                    draft.title,
                    family(backend)
                ),
            )
            .label(format!("`forward = \"{forward}\"` needs an {} address", family(vip)))
            .help("`forward = \"ipip\"` and `\"gue\"` carry either family to either");
    }
}
