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
    /// `DENY_V4_NETWORKS` has entries.
    pub const NETWORKS_V4: u32 = 2;
    /// `DENY_V6` has entries.
    pub const PREFIXES_V6: u32 = 4;
    /// `DENY_FLOWS` has entries.
    pub const FLOWS: u32 = 8;
    /// `DENY_V4_BLOCKS` has entries.
    pub const BLOCKS_V4: u32 = 16;
}

/// Longest IPv4 prefix that is bits of `DENY_V4_NETWORKS`; longer ones, and addresses, are blocks.
pub const MAX_NETWORK_LENGTH: u8 = 24;
/// Words of `DENY_V4_NETWORKS`: a bit for each /24 there is.
pub const NETWORK_WORDS: u32 = 1 << (MAX_NETWORK_LENGTH - 6);

/// Which bit is that of an IPv4 address in `DENY_V4_NETWORKS`: the word, and the number of the bit in it.
#[inline(always)]
pub const fn network_bit(address: u32) -> (u32, u32) {
    (address >> 14, address >> 8 & 63)
}

/// A part of `DENY_V4_BLOCKS`: blocks of 32 IPv4 addresses, in any order. A block is in one of the two buckets that
/// [`buckets_of`] names, and written as one word: the upper half is its addresses without their last five bits, the
/// lower half has a bit for each address that is denied. Zero is a free place.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bucket {
    /// The blocks.
    pub blocks: [u64; BUCKET_BLOCKS],
}

/// Blocks of a bucket.
pub const BUCKET_BLOCKS: usize = 4;
/// Number of buckets, as a power of two.
pub const BUCKET_BITS: u32 = 17;
/// Buckets of `DENY_V4_BLOCKS`: 4 MiB. The most blocks that all entries can take, four for each prefix of 25 bits and one for each
/// address, fill three quarters of the places.
pub const BUCKETS: u32 = 1 << BUCKET_BITS;
/// Bits of an address within its block.
pub const BLOCK_BITS: u32 = 5;

const _: () = assert!(
    (MAX_DENIED_HOSTS + 4 * MAX_DENIED_PREFIXES) as usize <= BUCKETS as usize * BUCKET_BLOCKS / 4 * 3
);

/// The two buckets of a block. `multiplier` is odd and of random bits, so that nobody can choose addresses that are in
/// each other's way (multiply-shift hashing, Dietzfelbinger et al. 1997).
#[inline(always)]
pub const fn buckets_of(block: u32, multiplier: u64) -> (u32, u32) {
    let hash = (block as u64).wrapping_mul(multiplier);
    ((hash >> (64 - BUCKET_BITS)) as u32, (hash >> (64 - 2 * BUCKET_BITS)) as u32 & (BUCKETS - 1))
}

/// Key of `DENY_HOSTS`: an IPv6 source address.
#[inline(always)]
pub const fn host_key(address: [u8; 16], ip_version: u8) -> EndpointKey {
    EndpointKey { address, port: [0; 2], protocol: 0, ip_version }
}
