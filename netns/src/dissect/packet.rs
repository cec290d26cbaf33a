//! One packet as tshark shows it: a tree of layers and fields.

use std::fmt;

use serde_json::Value;

use super::tunnel;

/// Expert information of this severity or above is a problem (`PI_WARN` of Wireshark's `epan/proto.h`).
const WARNING: u64 = 0x0060_0000;
/// Expert information that depends on other packets, such as "connection reset" (`PI_SEQUENCE`).
const SEQUENCE: u64 = 0x0200_0000;
/// Layers by which Wireshark says that it could not go on.
const BROKEN_LAYERS: [&str; 3] = ["_ws.malformed", "_ws.short", "_ws.unreassembled"];

/// One dissected packet.
#[derive(Clone, Debug)]
pub struct Packet {
    /// Its number in the capture, from 1 on.
    pub number: u64,
    /// Names of its layers from the outside in, such as `eth`, `ethertype`, `ip`, `ip`, `tcp`, `data`.
    pub layers: Vec<String>,
    /// What is wrong with it.
    pub problems: Vec<Problem>,
    tree: Value,
}

/// Something that is wrong with a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The field, such as `ip.checksum_tree`, or the layer.
    pub place: String,
    /// What Wireshark says.
    pub message: String,
}

impl Packet {
    /// Reads one element of the list that `tshark -T json --no-duplicate-keys` prints.
    pub(super) fn read(element: &mut Value) -> Option<Self> {
        let tree = element.pointer_mut("/_source/layers")?.take();
        let frame = tree.get("frame")?;
        let number = frame.get("frame.number")?.as_str()?.parse().ok()?;
        let layers = frame.get("frame.protocols")?.as_str()?;
        let layers: Vec<String> = layers.split(':').map(str::to_owned).collect();
        let mut problems = Vec::new();
        find_problems("packet", &tree, &mut problems);
        let broken =
            tree.as_object()?.keys().chain(&layers).find(|key| BROKEN_LAYERS.contains(&key.as_str()));
        if let Some(layer) = broken
            && problems.is_empty()
        {
            problems.push(Problem { place: layer.clone(), message: "cannot be dissected".to_owned() });
        }
        let mut packet = Self { number, layers, problems, tree };
        let more = tunnel::problems(&packet);
        packet.problems.extend(more);
        Some(packet)
    }

    /// All values of a field in the names of Wireshark, such as `ip.ttl`: of the outer header first.
    pub fn fields(&self, name: &str) -> Vec<&str> {
        let mut found = Vec::new();
        find_fields(name, 0, &self.tree, &mut found);
        // An ICMP error has the packet that it is about inside its own layer.
        found.sort_by_key(|(depth, _)| *depth);
        found.into_iter().map(|(_, text)| text).collect()
    }

    /// The first value of a field: that of the outermost header.
    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields(name).first().copied()
    }

    /// All that tshark shows of it.
    pub fn tree(&self) -> &Value {
        &self.tree
    }
}

impl fmt::Display for Packet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "packet {}, {}", self.number, self.layers.join(":"))?;
        let addresses =
            [self.fields("ip.src"), self.fields("ipv6.src"), self.fields("ip.dst"), self.fields("ipv6.dst")];
        write!(f, " {}", addresses.concat().join(" "))?;
        for problem in &self.problems {
            write!(f, "; {}: {}", problem.place, problem.message)?;
        }
        Ok(())
    }
}

/// Collects values with how deep in the tree they are.
fn find_fields<'a>(name: &str, depth: usize, value: &'a Value, found: &mut Vec<(usize, &'a str)>) {
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                match value {
                    Value::String(text) if key == name => found.push((depth, text)),
                    Value::Array(all) if key == name => {
                        found.extend(all.iter().filter_map(Value::as_str).map(|text| (depth, text)));
                    }
                    _ => find_fields(name, depth + 1, value, found),
                }
            }
        }
        // Layers of one name, from the outside in.
        Value::Array(all) => all.iter().for_each(|value| find_fields(name, depth, value, found)),
        _ => {}
    }
}

/// `place` is the key that led here.
fn find_problems(place: &str, value: &Value, found: &mut Vec<Problem>) {
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                if key == "_ws.expert" {
                    read_experts(place, value, found);
                } else {
                    find_problems(key, value, found);
                }
            }
        }
        Value::Array(all) => all.iter().for_each(|value| find_problems(place, value, found)),
        _ => {}
    }
}

fn read_experts(place: &str, value: &Value, found: &mut Vec<Problem>) {
    if let Value::Array(all) = value {
        all.iter().for_each(|value| read_experts(place, value, found));
        return;
    }
    let number = |name: &str| value.get(name)?.as_str()?.parse::<u64>().ok();
    // What cannot be read is shown, too.
    let severity = number("_ws.expert.severity").unwrap_or(u64::MAX);
    let group = number("_ws.expert.group").unwrap_or_default();
    if severity >= WARNING && group != SEQUENCE {
        let message = value.get("_ws.expert.message").and_then(Value::as_str).unwrap_or("unknown");
        // The same number in one's complement arithmetic. Linux writes it so into TCP, too, and no receiver minds.
        if place == "tcp.checksum.status_tree" && message.contains("0xffff instead of 0x0000") {
            return;
        }
        found.push(Problem { place: place.to_owned(), message: message.to_owned() });
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn packet(ip: Value) -> Packet {
        let mut element = json!({"_source": {"layers": {
            "frame": {"frame.number": "3", "frame.protocols": "eth:ethertype:ip:ip:data"},
            "ip": ip,
        }}});
        Packet::read(&mut element).unwrap()
    }

    fn expert(severity: &str, group: &str) -> Value {
        json!({"_ws.expert": {
            "_ws.expert.message": "so", "_ws.expert.severity": severity, "_ws.expert.group": group
        }})
    }

    #[test]
    fn fields_are_found_from_the_outside_in() {
        let packet = packet(json!([{"ip.ttl": "64"}, {"inside": {"ip.ttl": "63"}}]));
        assert_eq!((packet.number, packet.layers.len()), (3, 5));
        assert_eq!(packet.fields("ip.ttl"), ["64", "63"]);
        assert_eq!(packet.field("ip.src"), None);
    }

    #[test]
    fn the_packet_inside_an_icmp_error_comes_after_the_one_around_it() {
        let mut element = json!({"_source": {"layers": {
            "frame": {"frame.number": "1", "frame.protocols": "eth:ethertype:ip:icmp:ip:tcp"},
            "icmp": {"icmp.type": "3", "ip": {"ip.src": "198.18.0.1"}},
            "ip": {"ip.src": "198.18.10.1"},
        }}});
        let packet = Packet::read(&mut element).unwrap();
        assert_eq!(packet.fields("ip.src"), ["198.18.10.1", "198.18.0.1"]);
    }

    #[test]
    fn warnings_and_errors_are_problems_but_notes_and_the_course_of_a_connection_are_not() {
        for (severity, group, problems) in [
            ("8388608", "16777216", 1),
            ("6291456", "150994944", 1),
            ("4194304", "16777216", 0),
            ("6291456", "33554432", 0),
        ] {
            let packet = packet(json!([{}, {"ip.checksum_tree": expert(severity, group)}]));
            assert_eq!(packet.problems.len(), problems, "{severity} {group}");
        }
    }

    #[test]
    fn a_tcp_checksum_of_minus_zero_is_no_problem() {
        let mut expert = expert("6291456", "16777216");
        expert["_ws.expert"]["_ws.expert.message"] =
            "TCP Checksum 0xffff instead of 0x0000 (see RFC 1624)".into();
        let packet = packet(json!({"tcp.checksum.status_tree": expert}));
        assert_eq!(packet.problems.len(), 0);
    }

    #[test]
    fn several_notes_of_one_field_are_all_read() {
        let one = expert("8388608", "16777216")["_ws.expert"].clone();
        let packet = packet(json!({"ip.len_tree": {"_ws.expert": [one.clone(), one]}}));
        assert_eq!(packet.problems.len(), 2);
        assert_eq!(packet.problems[0].place, "ip.len_tree");
    }
}
