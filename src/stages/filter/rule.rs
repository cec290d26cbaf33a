//! Rules: conditions on a packet, and what becomes of a packet that meets them.
//!
//! # What holds for every condition
//!
//! * All conditions of a [`Match`] must hold; one that is left out always holds. Of a list one element must hold.
//! * **A condition on something that a packet does not have does not hold.** A later fragment has no ports, an ARP
//!   packet no addresses: neither `dst_port = "0-65535"` nor `ip_options = false` holds for it.
//! * **Nothing is guessed past the end of a packet.** What stands in front of the place where a malformed packet
//!   breaks off is known, what stands behind it is not had. Which field is known when is said at each field, and
//!   in full in the documentation of [`Headers`](crate::packet::Headers)' module.
//! * `not` is the plain opposite of a [`Match`]: it holds for every packet for which that does not, the packets
//!   that do not have what it asks for included. `not = { dst_port = 80 }` holds for ARP.
//! * **The outermost header counts.** What is encapsulated (IP in IP, 6in4, GRE, ESP) is not looked into: such a packet
//!   has the addresses and the protocol of its outer header and no ports.

use std::ops::RangeInclusive;
use std::sync::Arc;

use serde::{Serialize, Serializer};

use super::{Prefix, PrefixSet};
use crate::words::choices;

/// One rule of a list. It matches when `matches` holds and `not` does not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Rule {
    /// Name in counters and messages; unique in a list.
    pub name: String,
    /// What must hold.
    pub matches: Match,
    /// What must not hold: all of its conditions together, not each of them.
    pub not: Option<Match>,
    /// What becomes of a packet.
    pub action: Action,
    /// Makes the rule a policer: it acts only on the packets above this rate, and those below it go on with the
    /// next rule as if the rule did not match.
    pub rate: Option<Rate>,
}

impl Rule {
    /// A rule that acts on every packet.
    pub fn new(name: impl Into<String>, action: Action) -> Self {
        Self { name: name.into(), matches: Match::default(), not: None, action, rate: None }
    }
}

choices! {
    /// What becomes of a packet that a rule matches. The first rule that matches and decides ([`Action::decides`])
    /// ends the list. A packet about which no rule decides goes on: in a worker to the next stage, in the XDP program to a
    /// worker or the host's network stack.
    pub enum Action {
        /// It is dropped. Decides.
        Drop = "drop",
        /// It is let through: the rest of the list is skipped and it goes on. Decides.
        Accept = "accept",
        /// It goes on with the next rule as if this one were not there, and nothing is counted: for a rule that is
        /// switched off for now. The word means what it means in nftables: no decision.
        Continue = "continue",
        /// It is sent back out of the port it came in by, source and destination MAC address exchanged. Decides; a
        /// packet to a group address, which cannot become a source, is dropped.
        Bounce = "bounce",
        /// It is counted and goes on with the next rule.
        Count = "count",
    }
}

impl Action {
    /// Whether the list ends with a rule that has this action and matches.
    pub const fn decides(self) -> bool {
        matches!(self, Self::Drop | Self::Accept | Self::Bounce)
    }
}

/// Conditions on a packet. All must hold; an empty list and a `None` always hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Match {
    /// Source address of the outermost IP header. Had as soon as its fixed part (20 or 40 bytes, version right) is
    /// there, so also by every kind of fragment and by a packet that is malformed behind it. An IPv4 prefix holds
    /// for IPv4 packets only, an IPv6 prefix for IPv6 packets only. An IPv6 routing header is not followed:
    /// the destination is that of the IPv6 header.
    pub src: Vec<Prefix>,
    /// Destination address; like `src`.
    pub dst: Vec<Prefix>,
    /// Source address, by a set; a condition of its own beside `src`, so both must hold.
    #[serde(serialize_with = "file_of_set")]
    pub src_set: Option<Arc<PrefixSet>>,
    /// Destination address, by a set.
    #[serde(serialize_with = "file_of_set")]
    pub dst_set: Option<Arc<PrefixSet>>,
    /// IP protocol number: in IPv4 that of the header, in IPv6 that behind the extension headers that are skipped
    /// (hop-by-hop options 0, routing 43, fragment 44, authentication 51, destination options 60).
    /// * An unknown extension header is a protocol: its number is what matches, nothing behind it is looked at.
    /// * A later fragment has the protocol that its fragment header (IPv6) or IP header (IPv4) names.
    /// * IP in IP is 4, 6in4 is 41, GRE is 47, ESP is 50; the authentication header is 51 in IPv4 only.
    /// * Not had when the IP header or the chain of extension headers is malformed.
    pub protocol: Vec<u8>,
    /// Source port of TCP, UDP or SCTP. Had as soon as the fixed part of the transport header (20, 8, 12 bytes) is
    /// there, so also by a first fragment; never by a later fragment, nor by any other protocol. UDP-Lite and DCCP
    /// are not known.
    pub src_port: Vec<RangeInclusive<u16>>,
    /// Destination port; like `src_port`.
    pub dst_port: Vec<RangeInclusive<u16>>,
    /// VLAN of the outermost tag (802.1Q or 802.1ad), 1 to 4094; **0 stands for none**: no tag, or a priority tag (VLAN
    /// id 0, IEEE 802.1Q 9.6). A second tag is not looked at by any condition, but the headers behind it
    /// are; behind a third tag is nothing known, and the packet is not IP. Not had when the packet ends inside
    /// its first tag or before. A NIC that strips tags hides them (`ethtool -K IF rxvlan off`).
    pub vlan: Vec<RangeInclusive<u16>>,
    /// TCP flags; had like the ports, by TCP only.
    pub tcp_flags: Option<TcpFlags>,
    /// Type of ICMP (in IPv4) or ICMPv6 (in IPv6). The numbers of the two differ: set `protocol` as well. Had when
    /// the 8 bytes of the header are there, so not by a later fragment. ICMP in IPv6 and ICMPv6 in
    /// IPv4 have none.
    pub icmp_type: Vec<RangeInclusive<u8>>,
    /// Code of ICMP or ICMPv6; like `icmp_type`.
    pub icmp_code: Vec<RangeInclusive<u8>>,
    /// Bytes of the IP packet, its header included, by its own length field (RFC 791 total length; RFC 8200 payload
    /// length and 40): Ethernet, VLAN tags and padding do not count, and of a fragment it is the fragment's. Not
    /// had when the length field is wrong (see `malformed`) or the packet is not IP.
    pub length: Option<RangeInclusive<u32>>,
    /// Whether it is a fragment. Had when a fragment header was found, or when the headers in which one
    /// could be were in order. An IPv6 fragment header with offset 0 and nothing to come (an atomic fragment, RFC
    /// 6946) is no fragment.
    pub fragment: Option<FragmentKind>,
    /// Whether the IP header has options. IPv4: it is longer than 20 bytes. IPv6: there is a hop-by-hop options,
    /// destination options or routing header (what IPv4 has options for), in front of the fragment header if
    /// it is a later fragment. Had like `fragment`.
    pub ip_options: Option<bool>,
    /// Whether the packet breaks a rule of its own headers: it ends inside a header, a length contradicts
    /// another or what was received, a version is wrong, there are more than eight IPv6 extension headers.
    /// [`Outcome`](crate::packet::Outcome) lists them. A packet that is not IP is not malformed; checksums are not looked
    /// at. Every packet has this.
    pub malformed: Option<bool>,
}

/// TCP flags by their bits: CWR 128, ECE 64, URG 32, ACK 16, PSH 8, RST 4, SYN 2, FIN 1 (RFC 9293).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize)]
pub struct TcpFlags {
    /// All of these are set.
    pub set: u8,
    /// None of these is set.
    pub clear: u8,
}

choices! {
    /// Which part of a datagram a packet is.
    pub enum FragmentKind {
        /// A whole datagram.
        No = "no",
        /// A first or later fragment.
        Any = "any",
        /// The first fragment: offset 0, and more to come.
        First = "first",
        /// A fragment that is not the first.
        Later = "later",
    }
}

/// What a policer lets pass: a token bucket that holds `burst` and is filled at the rate of `limit`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Rate {
    /// How fast the bucket fills.
    pub limit: RateLimit,
    /// What the bucket holds: packets, or bytes with [`RateLimit::BitsPerSecond`]. At least 1.
    pub burst: u64,
    /// Which packets share a bucket.
    pub per: Per,
}

/// A rate of packets or of bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[non_exhaustive]
pub enum RateLimit {
    /// Packets a second.
    PacketsPerSecond(u64),
    /// Bits a second: those of the whole frame, without frame check sequence, as byte counters count.
    BitsPerSecond(u64),
}

/// Which packets share a bucket of a policer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[non_exhaustive]
pub enum Per {
    /// All that the rule matches.
    Whole,
    /// Those whose source address has the same leading bits. All packets that have no address share one.
    Src {
        /// Leading bits of an IPv4 address, 1 to 32.
        ipv4: u8,
        /// Leading bits of an IPv6 address, 1 to 128.
        ipv6: u8,
    },
    /// Those of one [`FiveTuple`](crate::packet::FiveTuple): all fragments between two hosts are one flow. All
    /// packets that are not well-formed IP share one.
    Flow,
}

/// A set is written as its file.
fn file_of_set<S: Serializer>(set: &Option<Arc<PrefixSet>>, serializer: S) -> Result<S::Ok, S::Error> {
    set.as_ref().map(|set| set.file()).serialize(serializer)
}
