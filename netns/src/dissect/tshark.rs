//! Runs `tshark`.

use std::{collections::BTreeSet, path::Path, process::Command, sync::OnceLock};

use serde_json::Value;

use super::{Dissected, packet::Packet};
use crate::{
    error::{Error, Result},
    iproute::line,
};

/// What is dissected, by Wireshark's filter names; a name that ends in a dot stands for all that begin with it.
const LAYERS: [&str; 19] = [
    "frame",
    "eth",
    "ethertype",
    "vlan",
    "arp",
    "llc",
    "stp",
    "ip",
    "ip.",
    "ipv6",
    "ipv6.",
    "icmp",
    "icmpv6",
    "igmp",
    "tcp",
    "udp",
    "vxlan",
    "sflow",
    "data",
];

const PREFERENCES: [&str; 9] = [
    "ip.check_checksum:TRUE",
    "udp.check_checksum:TRUE",
    "tcp.check_checksum:TRUE",
    "ip.defragment:TRUE",
    "ipv6.defragment:TRUE",
    // A veth carries no frame check sequence.
    "eth.fcs:Never",
    // Captures have one direction, and no times.
    "tcp.analyze_sequence_numbers:FALSE",
    "tcp.calculate_timestamps:FALSE",
    "tcp.try_heuristic_first:FALSE",
];

pub(super) fn run(pcap: &Path, gue_port: u16) -> Result<Dissected> {
    let mut command = Command::new("tshark");
    // No names are looked up; a dissector that appears twice, as in a tunnel, makes a list.
    command.args(["-n", "-T", "json", "--no-duplicate-keys", "-r"]).arg(pcap);
    // Wireshark has no dissector for GUE. That for IP takes variant 1 as it is, IPv4 and IPv6 alike.
    command.args(["-d", &format!("udp.port=={gue_port},ip")]);
    for preference in PREFERENCES {
        command.args(["-o", preference]);
    }
    // Before the long part.
    let shown = line(&command);
    for protocol in others()? {
        command.args(["--disable-protocol", protocol]);
    }
    let stdout = output(&mut command, &shown)?;
    let unreadable = |why: String| Error::Report {
        command: shown.clone(),
        why,
        stdout: stdout.chars().take(2_000).collect(),
        stderr: String::new(),
    };
    let mut list: Vec<Value> =
        serde_json::from_str(&stdout).map_err(|error| unreadable(error.to_string()))?;
    let packets = list.iter_mut().map(|element| Packet::read(element).ok_or(element.to_string()));
    let packets = packets.collect::<std::result::Result<_, _>>().map_err(unreadable)?;
    Ok(Dissected { packets })
}

/// All dissectors that are not wanted: what a test sends might be taken for anything.
fn others() -> Result<&'static BTreeSet<String>> {
    static OTHERS: OnceLock<BTreeSet<String>> = OnceLock::new();
    if let Some(others) = OTHERS.get() {
        return Ok(others);
    }
    let mut command = Command::new("tshark");
    command.args(["-G", "protocols"]);
    let shown = line(&command);
    let list = output(&mut command, &shown)?;
    // Name, short name and filter name, with tabs between.
    let names = list.lines().filter_map(|line| line.split('\t').nth(2));
    let others = names.filter(|name| !is_wanted(name)).map(str::to_owned).collect();
    Ok(OTHERS.get_or_init(|| others))
}

fn is_wanted(name: &str) -> bool {
    name.starts_with("_ws.")
        || LAYERS.iter().any(|layer| match layer.strip_suffix('.') {
            Some(_) => name.starts_with(layer),
            None => name == *layer,
        })
}

fn output(command: &mut Command, shown: &str) -> Result<String> {
    let output = command.output().map_err(|source| Error::Spawn { command: shown.to_owned(), source })?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err(Error::Command { command: shown.to_owned(), status: output.status, stderr });
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_of_dissectors_are_wanted_as_a_whole() {
        for name in ["ip", "ip.options.nop", "ipv6.fraghdr", "tcp", "_ws.malformed"] {
            assert!(is_wanted(name), "{name}");
        }
        for name in ["ipx", "http", "icmpv6.foo", "data-text-lines"] {
            assert!(!is_wanted(name), "{name}");
        }
    }
}
