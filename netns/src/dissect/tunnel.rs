//! What Wireshark lets pass in tunnels: that an outer header says another IP version than the inner packet has, and that an
//! inner packet ends before the outer one.

use super::packet::{Packet, Problem};

/// Checks the headers of a packet from the outside in, by the fields that Wireshark shows.
pub(super) fn problems(packet: &Packet) -> Vec<Problem> {
    let mut problems = Vec::new();
    let layers: Vec<&str> = packet.layers.iter().map(String::as_str).collect();
    // A part of a packet has not the length of the whole.
    let is_fragment = layers.contains(&"ipv6.fraghdr")
        || packet.fields("ip.frag_offset").iter().any(|offset| *offset != "0")
        || packet.fields("ip.flags.mf").iter().any(|flag| *flag != "0");
    let mut ip = packet.fields("ip.len").into_iter().zip(packet.fields("ip.hdr_len"));
    let mut ipv6 = packet.fields("ipv6.plen").into_iter();
    let mut udp = packet.fields("udp.length").into_iter();
    // Bytes that the header before has for this one, if that matters.
    let mut available: Option<u64> = None;
    for (index, layer) in layers.iter().enumerate() {
        let before = index.checked_sub(1).map(|index| layers[index]).unwrap_or_default();
        let hands_on = *layer == "ip"
            && layers.get(index + 1) == Some(&"ipv6")
            && matches!(before, "udp" | "ip" | "ipv6");
        if hands_on {
            if before != "udp" {
                problems.push(said(before, "IPv6 where the outer header says IPv4"));
            }
            continue;
        }
        let (length, payload) = match *layer {
            "ip" => {
                let Some((length, header)) = ip.next() else { break };
                (
                    number(length),
                    number(length).zip(number(header)).and_then(|(all, header)| all.checked_sub(header)),
                )
            }
            "ipv6" => {
                let payload = ipv6.next().and_then(number);
                (payload.map(|payload| payload + 40), payload)
            }
            "udp" => (None, udp.next().and_then(number).and_then(|length| length.checked_sub(8))),
            // The packet that an ICMP error quotes may be cut; what other headers leave is not computed here.
            "eth" | "ethertype" | "vlan" => (None, None),
            _ => break,
        };
        if let (Some(length), Some(available)) = (length, available)
            && length != available
            && !is_fragment
        {
            let message = format!("{length} bytes inside, where the outer header says {available}");
            problems.push(said(layer, &message));
        }
        available = payload;
    }
    problems
}

fn said(place: &str, message: &str) -> Problem {
    Problem { place: place.to_owned(), message: message.to_owned() }
}

fn number(text: &str) -> Option<u64> {
    text.parse().ok()
}
