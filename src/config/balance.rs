//! `[balance]`: what all services share: the connection tables, and what the balancer sends itself.

use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use serde::Serialize;
use toml::Spanned;

use super::addresses::{family, unicast};
use super::duration;
use super::reader::{Reader, Section};

/// What all services share. Every key has a default.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[non_exhaustive]
pub struct BalanceSettings {
    /// Entries of the connection table of each worker.
    pub connections: u32,
    /// How long a connection is kept of which only a SYN has been seen.
    #[serde(serialize_with = "duration::serialize")]
    pub syn_timeout: Duration,
    /// How long an established TCP connection is kept after its last packet.
    #[serde(serialize_with = "duration::serialize")]
    pub established_timeout: Duration,
    /// How long a TCP connection is kept after FIN or RST.
    #[serde(serialize_with = "duration::serialize")]
    pub closing_timeout: Duration,
    /// How long a UDP flow is kept after its last packet.
    #[serde(serialize_with = "duration::serialize")]
    pub udp_timeout: Duration,
    /// ICMP errors, echo replies and TCP resets that each worker may send a second; 0 sends none.
    pub icmp_rate: u32,
    /// Source addresses of outer headers, one of each family at most; where there is none, the kernel's choice.
    pub tunnel_sources: Vec<IpAddr>,
}

impl Default for BalanceSettings {
    fn default() -> Self {
        Self {
            connections: 1_000_000,
            syn_timeout: Duration::from_secs(60),
            established_timeout: Duration::from_secs(15 * 60),
            closing_timeout: Duration::from_secs(2 * 60),
            udp_timeout: Duration::from_secs(2 * 60),
            icmp_rate: 1000,
            tunnel_sources: Vec::new(),
        }
    }
}

impl BalanceSettings {
    /// The source address for an outer header to `backend`, if the config names one of its family.
    pub fn tunnel_source(&self, backend: IpAddr) -> Option<IpAddr> {
        self.tunnel_sources.iter().copied().find(|source| source.is_ipv4() == backend.is_ipv4())
    }
}

const KEYS: &[&str] = &[
    "connections",
    "syn_timeout",
    "established_timeout",
    "closing_timeout",
    "udp_timeout",
    "icmp_rate",
    "tunnel_sources",
];
const CONNECTIONS: RangeInclusive<u32> = 1024..=64 << 20;
/// More would be a flood of the balancer's own.
const HIGHEST_ICMP_RATE: u32 = 1_000_000;
/// From the clock of a worker's housekeeping up to what connections of databases idle for.
const TIMEOUTS: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(7 * 86_400);

pub(super) fn read(root: &Section<'_>, reader: &mut Reader<'_>) -> BalanceSettings {
    let default = BalanceSettings::default();
    let Some(section) = root.table(reader, "balance", "[balance]", KEYS) else { return default };
    let connections = section.integer(reader, "connections", CONNECTIONS).map(Spanned::into_inner);
    let icmp_rate = section.integer(reader, "icmp_rate", 0..=HIGHEST_ICMP_RATE).map(Spanned::into_inner);
    let mut timeout = |key, default| duration::or(&section, reader, key, TIMEOUTS, default);
    BalanceSettings {
        connections: connections.unwrap_or(default.connections),
        syn_timeout: timeout("syn_timeout", default.syn_timeout),
        established_timeout: timeout("established_timeout", default.established_timeout),
        closing_timeout: timeout("closing_timeout", default.closing_timeout),
        udp_timeout: timeout("udp_timeout", default.udp_timeout),
        icmp_rate: icmp_rate.unwrap_or(default.icmp_rate),
        tunnel_sources: tunnel_sources(&section, reader),
    }
}

fn tunnel_sources(section: &Section<'_>, reader: &mut Reader<'_>) -> Vec<IpAddr> {
    let mut sources: Vec<IpAddr> = Vec::new();
    for source in section.addresses(reader, "tunnel_sources") {
        let Some(source) = unicast(reader, "tunnel_sources", source) else { continue };
        let address = *source.get_ref();
        if let Some(first) = sources.iter().find(|first| first.is_ipv4() == address.is_ipv4()) {
            let message = format!("`tunnel_sources` has two {} addresses", family(address));
            reader.error(source.span(), message).label(format!("the first is {first}"));
            continue;
        }
        sources.push(address);
    }
    sources
}
