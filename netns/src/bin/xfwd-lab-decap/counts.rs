//! What came and what became of it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    net::IpAddr,
};

use anyhow::Result;
use serde::Serialize;

use crate::outer::Received;

/// Counters by kind and by reason; those at 0 are left out.
#[derive(Default, Serialize)]
pub struct Counts {
    /// Packets passed on, by kind: `4in6` is IPv4 in IPv6, `gue-4in6` the same in GUE.
    received: BTreeMap<String, u64>,
    /// Packets that went no further, by reason.
    refused: BTreeMap<&'static str, u64>,
    /// Outer sources of packets passed on.
    sources: BTreeMap<IpAddr, u64>,
    /// Outer UDP source ports of packets passed on.
    gue_source_ports: BTreeSet<u16>,
}

impl Counts {
    pub fn received(&mut self, received: &Received, inner: u8) {
        let outer = if received.source.is_ipv6() { 6 } else { 4 };
        let gue = if received.is_gue { "gue-" } else { "" };
        *self.received.entry(format!("{gue}{inner}in{outer}")).or_default() += 1;
        *self.sources.entry(received.source.ip()).or_default() += 1;
        if received.is_gue {
            self.gue_source_ports.insert(received.source.port());
        }
    }

    pub fn refused(&mut self, reason: &'static str) {
        *self.refused.entry(reason).or_default() += 1;
    }

    /// Adds what the kernel refused before this program could see it, and prints all as JSON.
    pub fn print(&mut self) -> Result<()> {
        let wrong = udp_checksum_errors()?;
        if wrong > 0 {
            self.refused.insert("udp-checksum", wrong);
        }
        println!("{}", serde_json::to_string(self)?);
        Ok(())
    }
}

/// Datagrams of this network namespace that the kernel dropped for their checksum, and those over IPv6 that had none.
fn udp_checksum_errors() -> Result<u64> {
    let ipv4 = fs::read_to_string("/proc/thread-self/net/snmp")?;
    let mut lines = ipv4.lines().filter_map(|line| line.strip_prefix("Udp: "));
    let (names, values) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
    let ipv4 = names.split(' ').zip(values.split(' ')).find(|(name, _)| *name == "InCsumErrors");
    let ipv6 = fs::read_to_string("/proc/thread-self/net/snmp6")?;
    let ipv6 = ipv6.lines().find_map(|line| line.strip_prefix("Udp6InCsumErrors"));
    let both = [ipv4.map(|(_, value)| value), ipv6];
    Ok(both.into_iter().flatten().filter_map(|value| value.trim().parse::<u64>().ok()).sum())
}
