//! What was counted over a whole capture.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::net::IpAddr;

use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

/// Counters of a replay. In JSON, lists of names and numbers are objects.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Summary {
    /// Packets of the capture.
    pub packets: u64,
    /// Bytes that they had.
    pub bytes: u64,
    /// Packets that break a rule of their own headers, whatever became of them.
    pub malformed: u64,
    /// Packets of which the capture does not have all bytes.
    pub snapped: u64,
    /// Milliseconds from the first packet to the last.
    pub milliseconds: u64,
    /// What became of them; the sum is `packets`.
    pub verdicts: Verdicts,
    /// Packets that each rule acted on, in the order of the list, wherever it runs.
    #[serde(serialize_with = "map")]
    pub rules: Vec<(String, u64)>,
    /// Packets sent to each backend, by service and address.
    #[serde(serialize_with = "maps")]
    pub backends: Vec<(String, Vec<(IpAddr, u64)>)>,
    /// Packets by what the XDP program counted them as; causes without a packet are left out.
    #[serde(serialize_with = "map")]
    pub causes: Vec<(&'static str, u64)>,
    /// Packets that the worker dropped, by reason; reasons without a packet are left out.
    #[serde(serialize_with = "map")]
    pub dropped: Vec<(&'static str, u64)>,
    /// What registered stages count, by name.
    pub counters: BTreeMap<String, u64>,
}

/// Packets by verdict.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Verdicts {
    /// Left to the host's network stack.
    pub pass: u64,
    /// Dropped.
    pub drop: u64,
    /// Sent out of the port that they came in by.
    pub bounce: u64,
    /// Sent out of another port.
    pub forward: u64,
}

fn map<S: Serializer>(rows: &[(impl Display, u64)], serializer: S) -> Result<S::Ok, S::Error> {
    let mut map = serializer.serialize_map(Some(rows.len()))?;
    for (name, packets) in rows {
        map.serialize_entry(&name.to_string(), packets)?;
    }
    map.end()
}

fn maps<S: Serializer>(rows: &[(String, Vec<(IpAddr, u64)>)], serializer: S) -> Result<S::Ok, S::Error> {
    struct Inner<'r>(&'r [(IpAddr, u64)]);
    impl Serialize for Inner<'_> {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            map(self.0, serializer)
        }
    }
    let mut map = serializer.serialize_map(Some(rows.len()))?;
    for (service, backends) in rows {
        map.serialize_entry(service, &Inner(backends))?;
    }
    map.end()
}
