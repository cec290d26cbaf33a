//! What every key of a rule means, for people: `xfwd check --explain-fields`. The same in full is in the documentation
//! of [`rule`](super::rule).

/// A key of `[[filter]]`.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    /// The key.
    pub key: &'static str,
    /// What it may hold.
    pub holds: &'static str,
    /// What it means.
    pub meaning: &'static str,
}

/// What holds for all conditions.
pub const GENERAL: &str = "\
A rule matches when all of its conditions hold; of a list, one element must hold. The rules are looked at in the order
of the file, and the first that matches and decides (drop, accept, bounce) ends the list. A packet about which
no rule decides goes on: to the next stage, or to the host's network stack.

The list is about every packet that arrives on the interface, host traffic included, but for ARP and neighbour
discovery, which are never filtered. Rules that run in the XDP program act on all of these packets. Rules that must run
in a worker (`bounce`, `rate`, and what stands behind them) see only packets that leave the kernel: those of services,
or with `steer = \"all\"` those that are not for this host. `xfwd check CONFIG` says for each rule where it runs and why,
and warns of rules in the worker that packets go past.

A condition on something that a packet does not have does not hold: a later fragment and an ARP packet have no
ports. Nothing is guessed past the end of a packet: of a malformed one, what stands in front of the place where it
breaks off is had. What is encapsulated (IP in IP, 6in4, GRE, ESP) is not looked into: such a packet has the addresses
and the protocol of its outermost IP header, and no ports.";

/// Every key, in the order in which they are explained.
pub const FIELDS: &[Field] = &[
    Field { key: "name", holds: "a text, unique", meaning: "The rule in counters and messages." },
    Field {
        key: "action",
        holds: "drop | accept | continue | bounce | count",
        meaning: "drop: the packet is gone. accept: the rest of the list is skipped, it goes on to the next stage or \
                  to the host. \
                  bounce: it goes back out of the port it came in by, MAC addresses exchanged; to a group address, it \
                  is dropped. count: it is counted and goes on with the next rule. continue: it goes on with the next \
                  rule and is not counted, for a rule that is switched off for now.",
    },
    Field {
        key: "src, dst",
        holds: "a prefix or address, or a list",
        meaning: "Address of the outermost IP header. An IPv4 prefix holds for IPv4 packets only, an IPv6 prefix for \
                  IPv6 packets only (IPv4-mapped addresses are IPv6). Every fragment has addresses, and so has a \
                  packet that is malformed behind the fixed part of its IP header. Routing headers are not followed.",
    },
    Field {
        key: "src_set, dst_set",
        holds: "a file, relative to the config",
        meaning: "Addresses by a file: a prefix a line, `#` or `;` before a comment. A condition of its own: with \
                  `src` beside it, both must hold.",
    },
    Field {
        key: "protocol",
        holds: "a number or name, or a list",
        meaning: "IP protocol: that of the IPv4 header, or what follows the IPv6 extension headers. Skipped are \
                  hop-by-hop options (0), routing (43), fragment (44), authentication (51) and destination options \
                  (60); any other extension header is itself the protocol, and nothing behind it is looked at. A \
                  later fragment has the protocol that its fragment header (IPv6) or IP header (IPv4) names. ipip is \
                  4, ipv6 (6in4) is 41, gre is 47; ah (51) is a protocol in IPv4 only. Not had behind a malformed \
                  IP header or extension header.",
    },
    Field {
        key: "src_port, dst_port",
        holds: "a number or \"a-b\", or a list",
        meaning: "Port of TCP, UDP or SCTP. A first fragment has them, a later fragment never. Had when the fixed \
                  part of the transport header (20, 8, 12 bytes) is there, even if what follows is malformed.",
    },
    Field {
        key: "vlan",
        holds: "1 to 4094, \"a-b\" or \"none\", or a list",
        meaning: "VLAN of the outermost tag (802.1Q or 802.1ad). none: no tag, or a priority tag (VLAN id 0). A \
                  second tag is skipped by all conditions; behind a third is nothing looked at, the packet is not IP. \
                  A NIC that strips tags hides them: `ethtool -K IF rxvlan off`.",
    },
    Field {
        key: "tcp_flags",
        holds: "{ set = [..], clear = [..] }",
        meaning: "All flags of `set` are set and none of `clear`: fin syn rst psh ack urg ece cwr. Had like ports, by \
                  TCP only.",
    },
    Field {
        key: "icmp_type, icmp_code",
        holds: "0 to 255 or \"a-b\", or a list",
        meaning: "Of ICMP in IPv4 or ICMPv6 in IPv6, whose numbers differ: set `protocol` as well. A later fragment \
                  has none; nor have ICMP in IPv6 and ICMPv6 in IPv4.",
    },
    Field {
        key: "length",
        holds: "20 to 65575 or \"a-b\"",
        meaning: "Bytes of the IP packet by its own length field, IP header included (RFC 791, RFC 8200); of a \
                  fragment, the fragment's. Ethernet, tags and padding do not count. Not had when that field is wrong \
                  or the packet is not IP.",
    },
    Field {
        key: "fragment",
        holds: "true | false | first | later",
        meaning: "true: a first or later fragment; false: a whole datagram. An IPv6 fragment header with offset 0 and \
                  nothing to come (atomic, RFC 6946) is no fragment. Not had by what is not IP, nor by a packet that \
                  is malformed before it is clear.",
    },
    Field {
        key: "ip_options",
        holds: "true | false",
        meaning: "IPv4: the header is longer than 20 bytes. IPv6: there is a hop-by-hop options, destination options \
                  or routing header, which carry what IPv4 has options for; of a later fragment, in front of the \
                  fragment header. Not had by what is not IP, nor by a packet that is malformed before it is clear.",
    },
    Field {
        key: "malformed",
        holds: "true | false",
        meaning: "The packet breaks a rule of its own headers: it ends inside one, a length contradicts another or \
                  what was received, a version is wrong, there are more than eight IPv6 extension headers. What is \
                  not IP is not malformed; checksums and what is encapsulated are not looked at. Every packet has \
                  this.",
    },
    Field {
        key: "not",
        holds: "{ conditions }",
        meaning: "All of these conditions together must not hold. It holds for a packet that does not have what they \
                  ask for: not = { dst_port = 80 } holds for ARP and for a later fragment.",
    },
    Field {
        key: "rate",
        holds: "\"1000 pps\", \"10 Mbit/s\"; k, M, G",
        meaning: "Makes the rule a policer: it acts only on packets above this rate; those below go on with the next \
                  rule. Bits are those of the whole frame, without frame check sequence. All workers together let \
                  pass what the rate says.",
    },
    Field {
        key: "burst",
        holds: "packets, or bytes with bit/s",
        meaning: "What may come at once after a pause. Without: a tenth of a second's worth, at least 1 packet or 15140 \
                  bytes.",
    },
    Field {
        key: "per",
        holds: "src | src/24 | src/24/56 | flow",
        meaning: "A rate for each source address (IPv6: each /64), each prefix of a source address (IPv4 bits, IPv6 \
                  bits), or each five-tuple; without, one for all. Packets without address share one. Up to 65536 \
                  are remembered; beyond, those that used the least of their rate are forgotten first.",
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_is_explained() {
        let mut explained: Vec<&str> = FIELDS.iter().flat_map(|field| field.key.split(", ")).collect();
        let mut known = crate::config::filter::KEYS.to_vec();
        explained.sort_unstable();
        known.sort_unstable();
        assert_eq!(explained, known);
    }
}
