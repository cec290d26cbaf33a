//! What the traffic generator of the lab and its XDP programs say to each other.
//!
//! Every struct here is a row of `u64`, so that user space can read and write it as an array of words.

/// First bytes of the payload of a generated UDP or ICMP packet: `xfwd` in ASCII, followed by the low 32 bits
/// of the packet's sequence number (network byte order).
pub const MARKER: [u8; 4] = *b"xfwd";

/// Bytes that the generator puts behind a UDP or ICMP header: the marker and the sequence number.
pub const MARKER_LENGTH: usize = 8;

/// Bytes of a time stamp, which follows the marker and the sequence number in traffic that has one: `bpf_ktime_get_ns`
/// when the packet was due (network byte order).
pub const STAMP_LENGTH: usize = 8;

/// Longest row of headers that the generator writes: Ethernet, two VLAN tags, IPv6, UDP, marker and time stamp make 86
/// bytes.
pub const MAX_HEADER_LENGTH: usize = 96;

/// Length of the headers that are written without looking at the frame's length: the shortest Ethernet frame.
pub const MIN_FRAME_LENGTH: usize = 60;

/// The one element of the per-CPU map `STATE`: where the generator on this CPU stands.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GeneratorState {
    /// Packets handed to the interface; also the sequence number of the next one.
    pub sent: u64,
    /// Packets that may still be sent; frames behind them are recycled unsent.
    pub remaining: u64,
    /// Flow of the next packet, 0 to flows - 1.
    pub flow: u64,
    /// Which source address the next packet has, counted from the first.
    pub address: u64,
    /// Which source port (ICMP: identifier) the next packet has, counted from the first.
    pub port: u64,
    /// Time of `bpf_ktime_get_ns` that pacing counts from; 0: that of the next packet.
    pub start_ns: u64,
    /// When the next packet is due, in 1/256 ns after `start_ns`.
    pub due: u64,
    /// Before when the next packet may not go, behind the plan or not, in 1/256 ns after `start_ns`.
    pub next: u64,
    /// Place of the next packet in the row of lengths.
    pub turn: u64,
    /// Time of the first packet, by `bpf_ktime_get_ns`; 0: none was sent yet.
    pub first_ns: u64,
    /// Time of the latest packet whose time was taken: each 64th, and the last of a given number.
    pub latest_ns: u64,
}

impl GeneratorState {
    /// Number of `u64` in this struct.
    pub const WORDS: usize = 11;

    /// Reads the struct as the map holds it.
    pub const fn from_words(words: [u64; Self::WORDS]) -> Self {
        let [sent, remaining, flow, address, port, start_ns, due, next, turn, first_ns, latest_ns] = words;
        Self { sent, remaining, flow, address, port, start_ns, due, next, turn, first_ns, latest_ns }
    }

    /// Writes the struct as the map holds it.
    pub const fn to_words(self) -> [u64; Self::WORDS] {
        let Self { sent, remaining, flow, address, port, start_ns, due, next, turn, first_ns, latest_ns } =
            self;
        [sent, remaining, flow, address, port, start_ns, due, next, turn, first_ns, latest_ns]
    }
}

/// Most different lengths of one traffic.
pub const MAX_LENGTHS: usize = 8;

/// Longest row in which lengths take turns.
pub const MAX_TURNS: usize = 64;

/// What depends on the length of a packet, where lengths take turns.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Length {
    /// Bytes of the frame.
    pub frame: u32,
    /// Total length (IPv4) or payload length (IPv6).
    pub ip: u32,
    /// Length of UDP.
    pub transport: u32,
    /// Sum (RFC 1071) of the IPv4 header in the template.
    pub ip_sum: u32,
    /// Sum of what the checksum of UDP, TCP or ICMP covers in the template.
    pub sum: u32,
}

impl Length {
    /// Number of `u32` in this struct.
    pub const WORDS: usize = 5;

    /// Writes the struct as the program holds it.
    pub const fn to_words(self) -> [u32; Self::WORDS] {
        let Self { frame, ip, transport, ip_sum, sum } = self;
        [frame, ip, transport, ip_sum, sum]
    }
}

/// Fractions of a nanosecond that pacing counts in, as bits: 1/256 ns keeps the error below 0.1% at 10 Mpps.
pub const PACING_FRACTION_BITS: u32 = 8;

/// An element of the per-CPU map `CLASSES`, which has one per [`Class`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClassCounters {
    /// Packets of this class.
    pub packets: u64,
    /// Their bytes, Ethernet header included, FCS not.
    pub bytes: u64,
    /// How many of them a traffic generator made (or a peer answered to).
    pub ours: u64,
    /// How many had a wrong IP or transport checksum; only counted when validation is on.
    pub bad_checksum: u64,
}

impl ClassCounters {
    /// Number of `u64` in this struct.
    pub const WORDS: usize = 4;

    /// Reads the struct as the map holds it.
    pub const fn from_words(words: [u64; Self::WORDS]) -> Self {
        let [packets, bytes, ours, bad_checksum] = words;
        Self { packets, bytes, ours, bad_checksum }
    }
}

macro_rules! classes {
    ($($(#[$doc:meta])* $variant:ident = $number:literal, $name:literal;)*) => {
        /// What the counter tells apart.
        #[repr(u32)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Class { $($(#[$doc])* $variant = $number,)* }

        impl Class {
            /// Every class, by number.
            pub const ALL: &[Class] = &[$(Class::$variant,)*];

            /// Short name, as reports show it.
            pub const fn name(self) -> &'static str {
                match self { $(Class::$variant => $name,)* }
            }
        }
    };
}

classes! {
    /// UDP in IPv4.
    Ipv4Udp = 0, "ipv4-udp";
    /// TCP in IPv4.
    Ipv4Tcp = 1, "ipv4-tcp";
    /// ICMP.
    Ipv4Icmp = 2, "ipv4-icmp";
    /// Any other IPv4 packet.
    Ipv4Other = 3, "ipv4-other";
    /// UDP in IPv6.
    Ipv6Udp = 4, "ipv6-udp";
    /// TCP in IPv6.
    Ipv6Tcp = 5, "ipv6-tcp";
    /// ICMPv6, neighbour discovery aside.
    Ipv6Icmp = 6, "ipv6-icmp";
    /// Any other IPv6 packet.
    Ipv6Other = 7, "ipv6-other";
    /// Not test traffic, and always passed to the host: ARP and all that is not IP, neighbour discovery,
    /// multicast.
    Control = 8, "control";
}

/// What the counter does with test traffic it has counted.
#[repr(u32)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CounterVerdict {
    /// Drop all of it.
    #[default]
    Drop = 0,
    /// Drop what a traffic generator made, pass the rest to the host stack.
    DropOurs = 1,
    /// Pass all of it to the host stack.
    Pass = 2,
    /// Swap the MAC addresses of what a traffic generator made and send it back (XDP_TX); pass the rest.
    Reflect = 3,
}
