//! The dynamic deny list: what is dropped before the filter is asked.

use crate::filter::EndpointKey;

/// Most single addresses.
pub const MAX_DENIED_HOSTS: u32 = 131_072;
/// Most prefixes of a family.
pub const MAX_DENIED_PREFIXES: u32 = 65_536;
/// Most 5-tuples.
pub const MAX_DENIED_FLOWS: u32 = 131_072;

/// The variable `DENY`, the one element of the map `.data.deny`: which maps have entries. A map without is not looked into.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DenySettings {
    /// Bits of [`HOSTS`](Self::HOSTS) and the others.
    pub used: u32,
}

impl DenySettings {
    /// `DENY_HOSTS` has entries.
    pub const HOSTS: u32 = 1;
    /// `DENY_V4` has entries.
    pub const PREFIXES_V4: u32 = 2;
    /// `DENY_V6` has entries.
    pub const PREFIXES_V6: u32 = 4;
    /// `DENY_FLOWS` has entries.
    pub const FLOWS: u32 = 8;
}

/// Key of `DENY_HOSTS`: a source address.
#[inline(always)]
pub const fn host_key(address: [u8; 16], ip_version: u8) -> EndpointKey {
    EndpointKey { address, port: [0; 2], protocol: 0, ip_version }
}
