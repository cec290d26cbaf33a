//! `[nat]`: the addresses and ports that `forward = "nat"` sends from.

use std::net::IpAddr;
use std::ops::RangeInclusive;

use serde::Serialize;
use toml::Spanned;

use super::addresses::unicast;
use super::reader::{Reader, Section};
use super::service::ports;

/// What sessions of `forward = "nat"` get as their source: a pool of ports on each address, of which each worker has a part of
/// its own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[non_exhaustive]
pub struct NatSettings {
    /// Addresses, each once; backends send their replies there.
    pub addresses: Vec<IpAddr>,
    /// The ports of each address, shared out to the workers; the host's own connections must not use them.
    pub ports: RangeInclusive<u16>,
}

/// Fewer ports for a worker would be spent by a handful of clients: sessions wait in their pool for as long as a TCP
/// connection may linger.
pub const LEAST_PORTS_PER_WORKER: u32 = 64;

/// The ports of `[nat]` are too few for the workers.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the port pool of `[nat]` is too small: {ports} ports on each address are {} for each of {workers} workers, and \
     {LEAST_PORTS_PER_WORKER} are needed: widen `ports` to {} or more, or use fewer queues",
    ports / workers,
    workers * LEAST_PORTS_PER_WORKER
)]
pub struct PoolTooSmall {
    /// Ports of each address.
    pub ports: u32,
    /// Workers that share them.
    pub workers: u32,
}

impl NatSettings {
    /// The number of ports of each address.
    pub fn ports_per_address(&self) -> u32 {
        u32::from(*self.ports.end()) - u32::from(*self.ports.start()) + 1
    }

    /// Whether the ports can be shared out to so many workers.
    ///
    /// # Errors
    ///
    /// [`PoolTooSmall`] when a worker would get fewer than [`LEAST_PORTS_PER_WORKER`] ports of each address.
    pub fn check_workers(&self, workers: u32) -> Result<(), PoolTooSmall> {
        let ports = self.ports_per_address();
        if ports / workers.max(1) >= LEAST_PORTS_PER_WORKER {
            Ok(())
        } else {
            Err(PoolTooSmall { ports, workers })
        }
    }
}

const KEYS: &[&str] = &["addresses", "ports"];
/// Below those that Linux takes for connections of its own (`net.ipv4.ip_local_port_range`, 32768 to 60999 unless changed): replies
/// to these would be taken for replies of backends.
const DEFAULT_PORTS: RangeInclusive<u16> = 1_024..=32_767;

/// The settings, each address with its place.
pub(super) struct Nat {
    pub addresses: Vec<Spanned<IpAddr>>,
    pub ports: RangeInclusive<u16>,
}

impl Nat {
    pub fn settings(self) -> NatSettings {
        NatSettings {
            addresses: self.addresses.into_iter().map(Spanned::into_inner).collect(),
            ports: self.ports,
        }
    }
}

pub(super) fn read(root: &Section<'_>, reader: &mut Reader<'_>) -> Option<Nat> {
    let section = root.table(reader, "nat", "[nat]", KEYS)?;
    section.require(reader, "addresses", "[\"198.18.0.2\"]");
    let mut addresses: Vec<Spanned<IpAddr>> = Vec::new();
    for address in section.addresses(reader, "addresses") {
        let Some(address) = unicast(reader, "addresses", address) else { continue };
        if addresses.iter().any(|first| first.get_ref() == address.get_ref()) {
            reader
                .error(address.span(), format!("`addresses` has {} twice", address.get_ref()))
                .label("remove this");
            continue;
        }
        addresses.push(address);
    }
    if let Some(list) = section
        .value("addresses")
        .filter(|list| list.get_ref().as_array().is_some_and(|list| list.is_empty()))
    {
        reader.error(list.span(), "`addresses` is empty").label("add for example `\"198.18.0.2\"`");
    }
    let ports = match section.value("ports") {
        None => DEFAULT_PORTS,
        Some(value) => {
            let ports = ports::range(reader, "ports", value).unwrap_or(DEFAULT_PORTS);
            let count = u32::from(*ports.end()) - u32::from(*ports.start()) + 1;
            if count < LEAST_PORTS_PER_WORKER {
                reader
                    .error(value.span(), "the port pool of `[nat]` is too small")
                    .label(format!("{count} ports; each worker needs {LEAST_PORTS_PER_WORKER}"))
                    .help(format!(
                        "the default is `ports = \"{}-{}\"`",
                        DEFAULT_PORTS.start(),
                        DEFAULT_PORTS.end()
                    ));
            }
            ports
        }
    };
    Some(Nat { addresses, ports })
}
