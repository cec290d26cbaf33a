//! The maps that tell the XDP program which packets leave the kernel.

/// Highest number of queues of one interface that can be steered (size of the XSKMAP).
pub const MAX_QUEUES: u32 = 256;
/// Highest number of services (address, protocol, port) that can be steered.
pub const MAX_SERVICES: u32 = 65_536;
/// Highest number of addresses of the host that `steer = "all"` leaves to the host stack.
pub const MAX_HOST_ADDRESSES: u32 = 4_096;

/// The one element of the map `SETTINGS`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// 1: everything but ARP, neighbour discovery and what is addressed to the host leaves the kernel
    /// (`steer = "all"`); 0: only packets of a service.
    pub steer_all: u32,
}

/// Key of the map `SERVICES`: one virtual address, protocol and port that leaves the kernel.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ServiceKey {
    /// IPv6 address, or IPv4 address as [`map_ipv4`] writes it.
    pub address: [u8; 16],
    /// Destination port in network byte order.
    pub port: [u8; 2],
    /// IP protocol number (6 TCP, 17 UDP).
    pub protocol: u8,
    /// Always 0: the key is compared as bytes.
    pub zero: u8,
}

/// Writes an IPv4 address as IPv4-mapped IPv6 address (RFC 4291, section 2.5.5.2), so that one map holds
/// both families.
#[inline(always)]
pub const fn map_ipv4(address: [u8; 4]) -> [u8; 16] {
    let [a, b, c, d] = address;
    [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d]
}
