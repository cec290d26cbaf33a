//! What the parser finds in a packet. The XDP program and user space each have a parser; both fill this
//! struct by the same rules, and a test compares them on generated packets.
//!
//! # The rules
//!
//! A packet may lie in several buffers. What was **received** is all of them; **headers** are read only from
//! the first. A header that crosses its end is truncated, as if the packet ended there.
//!
//! Each header is checked in this order, and the first rule that is broken is the outcome:
//!
//! * **Ethernet**: 14 bytes, then up to [`MAX_VLAN_TAGS`] tags of 4 bytes (802.1Q `0x8100`, 802.1ad `0x88a8`,
//!   in any order). A further tag is not looked into: [`Outcome::NotIp`] with the tag's ethertype.
//! * **IPv4** (RFC 791): 20 bytes, version 4, header length 20 or more, the options are there, total length
//!   at least the header length and at most what was received. Bytes behind the total length are Ethernet
//!   padding. The header checksum is not verified.
//! * **IPv6** (RFC 8200): 40 bytes, version 6, payload length at most what was received (jumbograms are not
//!   known, a payload length of 0 means no payload). Then hop-by-hop options (0), routing (43), fragment
//!   (44), AH (51) and destination options (60) are skipped in any order, at most [`MAX_IPV6_EXTENSIONS`] of
//!   them: a further one is [`Outcome::TooManyExtensions`], whether or not it is there. Each lies within the
//!   IP packet as a whole. Any other next header, "no next header" (59) too, is `protocol`.
//! * **Fragments**: a later fragment has no transport header; `protocol` is that of the fragment header
//!   (IPv6) or IP header (IPv4). Extension headers behind the fragment header of a later fragment are not
//!   looked into, and `protocol` is then the number of the first of them. An IPv6 fragment header with offset
//!   0 and no more fragments (atomic, RFC 6946) is no fragment, and changes nothing where another one came
//!   before.
//! * **TCP** (RFC 9293): 20 bytes, data offset 5 or more, options within the IP packet.
//! * **UDP** (RFC 768): 8 bytes; length at least 8 and, unless the packet is a fragment, at most the IP
//!   payload.
//! * **SCTP** (RFC 9260): the common header of 12 bytes; chunks are payload.
//! * **ICMP** (RFC 792) in IPv4 and **ICMPv6** (RFC 4443) in IPv6: 8 bytes. ICMP in IPv6 and ICMPv6 in IPv4
//!   are unknown protocols.
//! * **Any other protocol** ends parsing: `transport_offset` and `payload_offset` stay 0, and nothing behind the IP
//!   header is checked. Tunnels are among them: **GRE** (47, RFC 2784), IP in IP (4, RFC 2003), IPv6 in IP (41, RFC
//!   4213), ESP (50, RFC 4303), so what was found is always about the outermost headers. So are extension headers
//!   that are not named above (mobility 135, HIP 139, shim6 140 and what may still be assigned), and, in IPv4, AH.
//!
//! **IP options** are said to be there in IPv4 when the header is longer than 20 bytes, and in IPv6 when there is a
//! hop-by-hop options, destination options or routing header: those carry what IPv4 has options for.
//!
//! # What is filled in when the parser stops early
//!
//! What was found before stays; everything else is 0. A step fills its fields as a whole:
//!
//! | fields | filled in when |
//! |---|---|
//! | `vlan_tci`, `vlan_count` | the tag's 4 bytes are there |
//! | `ethertype`, `network_offset` | Ethernet and all tags up to the second are there, whatever follows |
//! | `ip_version` | the fixed header (20 or 40 bytes) is there and its version is right |
//! | `end` | the IP header has passed all its rules, IPv6 extension headers aside |
//! | `protocol`, `fragment`, `ip_options` (IPv4) | together with `end` |
//! | `fragment`, `ip_options` (IPv6) | the fragment header, the first of the headers that carry options is there in full |
//! | `protocol` (IPv6) | the extension headers are done with, or a later fragment ends them |
//! | `transport_offset`, ports, `tcp_flags`, ICMP type and code | the 20, 12 or 8 bytes of the transport header are there |
//! | `payload_offset` | the transport header has passed all its rules |

/// VLAN tags that are looked behind.
pub const MAX_VLAN_TAGS: usize = 2;
/// IPv6 extension headers that are looked behind.
pub const MAX_IPV6_EXTENSIONS: usize = 8;

/// Offsets and fields of one packet. Numbers are in host byte order, offsets in bytes from the start of the
/// Ethernet header.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Headers {
    /// An [`Outcome`] as number: how parsing ended.
    pub outcome: u8,
    /// 4, 6, or 0 when the packet is not IP or broke off before the IP version was known to be right.
    pub ip_version: u8,
    /// IP protocol of what follows the IP header and its extension headers.
    pub protocol: u8,
    /// A [`Fragment`] as number.
    pub fragment: u8,
    /// Number of VLAN tags, 0 to 2.
    pub vlan_count: u8,
    /// TCP flags (CWR ECE URG ACK PSH RST SYN FIN, from the high bit), else 0.
    pub tcp_flags: u8,
    /// ICMP or ICMPv6 type, else 0.
    pub icmp_type: u8,
    /// ICMP or ICMPv6 code, else 0.
    pub icmp_code: u8,
    /// Tag control information of each VLAN tag, outermost first.
    pub vlan_tci: [u16; MAX_VLAN_TAGS],
    /// Ethertype behind the VLAN tags; 0 when the packet ends inside them.
    pub ethertype: u16,
    /// Where what follows Ethernet and VLAN tags starts, even if nothing does; 0 when the packet ends inside
    /// them.
    pub network_offset: u16,
    /// Where the TCP, UDP, SCTP, ICMP or ICMPv6 header starts; 0 when there is none.
    pub transport_offset: u16,
    /// Where the bytes behind the transport header start; 0 when there is no transport header.
    pub payload_offset: u16,
    /// TCP, UDP or SCTP source port, else 0.
    pub src_port: u16,
    /// TCP, UDP or SCTP destination port, else 0.
    pub dst_port: u16,
    /// 1 when the IP header has options: an IPv4 header longer than 20 bytes, or an IPv6 hop-by-hop options,
    /// destination options or routing header; else 0.
    pub ip_options: u8,
    /// Always 0: the struct has no padding.
    pub zero: [u8; 3],
    /// One past the last byte of the IP packet, by its own length field; 0 when not IP or malformed before.
    pub end: u32,
}

impl Headers {
    /// How parsing ended.
    #[inline(always)]
    pub const fn outcome(&self) -> Outcome {
        Outcome::from_number(self.outcome)
    }

    /// Whether the packet is a fragment, and which.
    #[inline(always)]
    pub const fn fragment(&self) -> Fragment {
        match self.fragment {
            1 => Fragment::First,
            2 => Fragment::Later,
            _ => Fragment::No,
        }
    }
}

/// Whether a packet is a fragment of an IP datagram.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fragment {
    /// A whole datagram.
    No = 0,
    /// Offset 0 with more to come: it has the transport header.
    First = 1,
    /// Offset above 0: it has no transport header.
    Later = 2,
}

macro_rules! outcomes {
    ($($(#[$doc:meta])* $variant:ident = $number:literal, $name:literal;)*) => {
        /// How parsing a packet ended.
        #[repr(u8)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Outcome { $($(#[$doc])* $variant = $number,)* }

        impl Outcome {
            /// Every outcome, by number.
            pub const ALL: &[Outcome] = &[$(Outcome::$variant,)*];

            /// The outcome with this number; an unknown number is [`Outcome::NotIp`].
            #[inline(always)]
            pub const fn from_number(number: u8) -> Self {
                match number { $($number => Outcome::$variant,)* _ => Outcome::NotIp }
            }

            /// Short name, as counters and traces show it.
            pub const fn name(self) -> &'static str {
                match self { $(Outcome::$variant => $name,)* }
            }
        }
    };
}

outcomes! {
    /// An IP packet, parsed up to the transport header where there is a known one.
    Ip = 0, "ip";
    /// Well-formed Ethernet, but not IPv4 or IPv6.
    NotIp = 1, "not-ip";
    /// Fewer than 14 bytes.
    TruncatedEthernet = 2, "truncated-ethernet";
    /// The packet ends inside a VLAN tag.
    TruncatedVlan = 3, "truncated-vlan";
    /// The packet, or its first buffer, ends inside the IPv4 header or its options.
    TruncatedIpv4 = 4, "truncated-ipv4";
    /// Ethertype IPv4, but another IP version.
    Ipv4Version = 5, "ipv4-version";
    /// IPv4 header length below 20 bytes.
    Ipv4HeaderLength = 6, "ipv4-header-length";
    /// IPv4 total length below the header length, or above what was received.
    Ipv4TotalLength = 7, "ipv4-total-length";
    /// The packet ends inside the IPv6 header.
    TruncatedIpv6 = 8, "truncated-ipv6";
    /// Ethertype IPv6, but another IP version.
    Ipv6Version = 9, "ipv6-version";
    /// IPv6 payload length above what was received.
    Ipv6PayloadLength = 10, "ipv6-payload-length";
    /// The IP packet ends inside an IPv6 extension header.
    TruncatedExtension = 11, "truncated-ipv6-extension";
    /// More than [`MAX_IPV6_EXTENSIONS`] IPv6 extension headers.
    TooManyExtensions = 12, "too-many-ipv6-extensions";
    /// The IP packet ends inside the TCP header or its options.
    TruncatedTcp = 13, "truncated-tcp";
    /// TCP data offset below 5.
    TcpDataOffset = 14, "tcp-data-offset";
    /// The IP packet ends inside the UDP header.
    TruncatedUdp = 15, "truncated-udp";
    /// UDP length below 8, or above the IP payload.
    UdpLength = 16, "udp-length";
    /// The IP packet ends inside the ICMP or ICMPv6 header.
    TruncatedIcmp = 17, "truncated-icmp";
    /// The IP packet ends inside the SCTP common header.
    TruncatedSctp = 18, "truncated-sctp";
}

impl Outcome {
    /// Whether the packet breaks a rule of its own headers.
    #[inline(always)]
    pub const fn is_malformed(self) -> bool {
        self as u8 >= Outcome::TruncatedEthernet as u8
    }
}
