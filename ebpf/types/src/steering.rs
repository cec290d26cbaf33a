//! The maps that tell the XDP program which packets leave the kernel.

/// Highest number of queues of one interface that can be steered (size of the XSKMAP).
pub const MAX_QUEUES: u32 = 256;
/// Highest number of entries of `SERVICES`: one for each address, protocol and single port, one more for each address
/// and protocol ([`ServiceKey::ANY_PORT`]), and one for each address with port ranges ([`ServiceKey::NETWORK`]).
pub const MAX_SERVICES: u32 = 131_072;
/// Highest number of entries of `NETWORKS`: prefixes.
pub const MAX_NETWORKS: u32 = 65_536;
/// Highest number of entries of `PORTS`. A range of ports takes 30 at most, all ports take one.
pub const MAX_PORTS: u32 = 1_048_576;
/// Highest number of addresses of the host that `steer = "all"` leaves to the host stack.
pub const MAX_HOST_ADDRESSES: u32 = 4_096;

/// The one element of the map `SETTINGS`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// What leaves the kernel besides packets of a service: 0 nothing, or [`Settings::ALL`] or [`Settings::EVERYTHING`].
    pub steer: u32,
    /// Room in front of what leaves by `steer`, as in `SERVICES`.
    pub room: u32,
    /// Where there are services of several ports or addresses, which are in `PORTS`: bits of [`Settings::ADDRESSES`] and
    /// [`Settings::PREFIXES`].
    pub networks: u32,
    /// 1 if there are services at all, else 0: without them, and with [`Settings::EVERYTHING`], no packet has to be looked at.
    pub services: u32,
}

impl Settings {
    /// All but ARP, neighbour discovery, malformed packets and what is addressed to the host (`steer = "all"`).
    pub const ALL: u32 = 1;
    /// Every frame (`steer = "everything"`).
    pub const EVERYTHING: u32 = 2;
    /// At single addresses, whose numbers are in `SERVICES` ([`ServiceKey::NETWORK`]).
    pub const ADDRESSES: u32 = 1;
    /// At prefixes, whose numbers are in `NETWORKS`.
    pub const PREFIXES: u32 = 2;
}

/// Key of the map `SERVICES`: what leaves the kernel at one address. The value is the room in bytes that is made in front
/// of the packet, or 0.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ServiceKey {
    /// IPv6 address, or IPv4 address as [`map_ipv4`] writes it.
    pub address: [u8; 16],
    /// Destination port in network byte order; zero with [`ServiceKey::ANY_PORT`].
    pub port: [u8; 2],
    /// IP protocol number (6 TCP, 17 UDP; 1 ICMP, 58 ICMPv6 for echo requests).
    pub protocol: u8,
    /// 0, [`ServiceKey::ANY_PORT`] or [`ServiceKey::NETWORK`].
    pub scope: u8,
}

impl ServiceKey {
    /// The entry is for what has no port: fragments of TCP and UDP, and echo requests.
    pub const ANY_PORT: u8 = 1;
    /// The entry is for the address as a whole, without protocol and port; its value is a number in `PORTS`.
    pub const NETWORK: u8 = 2;
}

/// Key of the LPM trie `NETWORKS`: a prefix. The value is its number in `PORTS`, or [`NetworkKey::NOTHING`].
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct NetworkKey {
    /// Bits of the prefix; those of an IPv4 prefix are 96 more.
    pub length: u32,
    /// The address, as in [`ServiceKey`].
    pub address: [u8; 16],
}

impl NetworkKey {
    /// Bits of a whole address.
    pub const FULL: u32 = 128;
    /// A number that `PORTS` has no entries for.
    pub const NOTHING: u32 = 0;
}

/// Key of the LPM trie `PORTS`: ports of a network that share their first bits. The value is the room.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortKey {
    /// Bits of the key: [`PortKey::ALL_PORTS`] and those that the ports share.
    pub length: u32,
    /// The number that `NETWORKS` gives, as the machine writes it: all its bits are compared.
    pub network: u32,
    /// As in [`ServiceKey`].
    pub protocol: u8,
    /// As in [`ServiceKey`].
    pub scope: u8,
    /// As in [`ServiceKey`].
    pub port: [u8; 2],
}

impl PortKey {
    /// Bits in front of the port.
    pub const ALL_PORTS: u32 = 48;
    /// Bits of the whole key.
    pub const FULL: u32 = 64;
}

/// Writes an IPv4 address as IPv4-mapped IPv6 address (RFC 4291, section 2.5.5.2), so that one map holds
/// both families.
#[inline(always)]
pub const fn map_ipv4(address: [u8; 4]) -> [u8; 16] {
    let [a, b, c, d] = address;
    [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d]
}
