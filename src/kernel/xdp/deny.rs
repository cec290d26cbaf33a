//! The deny list's maps.
//!
//! IPv4 sources are bits in two arrays, which are written by `mmap`: [`networks`], a bit for each /24, and [`blocks`], a hash table of 32
//! addresses an entry. A packet asks with one load for each, so that nothing has to be parsed to drop it. What an entry says is there
//! until its last bit is taken out, however many others say the same.

mod blocks;
mod mapped;
mod networks;

use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;

use aya::{
    Ebpf,
    maps::{
        Array, HashMap, Map, MapData,
        lpm_trie::{Key, LpmTrie},
    },
};
use xfwd_ebpf_types::deny::{
    BUCKET_BLOCKS, BUCKETS, DenySettings, MAX_NETWORK_LENGTH, NETWORK_WORDS, host_key,
};
use xfwd_ebpf_types::filter::{EndpointKey, FlowKey};

use self::{blocks::Blocks, mapped::Mapped, networks::Networks};
use super::{XdpError, address_key, error::is_refused, take_map, variable};
use crate::kernel::deny::{DenyEntry, DenyTable};

/// The maps of one program that hold what is denied.
pub struct DenyMaps {
    settings: Array<MapData, DenySettings>,
    /// What the settings say.
    told: u32,
    networks: Networks<Mapped>,
    blocks: Blocks<Mapped>,
    hosts: HashMap<MapData, EndpointKey, u32>,
    prefixes_v6: LpmTrie<MapData, [u8; 16], u32>,
    flows: HashMap<MapData, FlowKey, u32>,
    /// Entries of each of `KEYED`.
    used: [usize; KEYED.len()],
}

/// The variable of the program that says which of the maps have entries.
const SETTINGS: &str = ".data.deny";
const NETWORKS: &str = "DENY_V4_NETWORKS";
const BLOCKS: &str = "DENY_V4_BLOCKS";

/// Maps with keys: the name, and the bit in the settings.
const KEYED: [(&str, u32); 3] = [
    ("DENY_HOSTS", DenySettings::HOSTS),
    ("DENY_V6", DenySettings::PREFIXES_V6),
    ("DENY_FLOWS", DenySettings::FLOWS),
];

/// The variables that the program knows the tables by.
const VARIABLES: [(&str, &str); 2] = [(".bss.networks", NETWORKS), (".bss.blocks", BLOCKS)];

/// Puts the tables in the place of their variables. To be called before the program is loaded.
pub(super) fn place(object: &mut Ebpf) -> Result<(), XdpError> {
    VARIABLES.iter().try_for_each(|(variable, map)| variable::replace(object, variable, map))
}

/// The multiplier of the blocks' buckets: another for each program.
pub(super) fn multiplier() -> u64 {
    RandomState::new().hash_one(BLOCKS) | 1
}

/// Where an entry is.
enum Place {
    Network(u32, u8),
    Block(u32, u8),
    Host(EndpointKey),
    V6(Key<[u8; 16]>),
    Flow(FlowKey),
}

impl Place {
    fn of(entry: &DenyEntry) -> Self {
        match entry {
            DenyEntry::Source(prefix) => match (prefix.address(), prefix.length()) {
                (IpAddr::V4(address), length @ ..=MAX_NETWORK_LENGTH) => {
                    Self::Network(address.to_bits(), length)
                }
                (IpAddr::V4(address), length) => Self::Block(address.to_bits(), length),
                (IpAddr::V6(_), 128) => Self::Host(host_key(address_key(prefix.address()), 6)),
                (IpAddr::V6(address), length) => Self::V6(Key::new(length.into(), address.octets())),
            },
            DenyEntry::Flow { src, dst, protocol } => Self::Flow(flow_key(src, dst, *protocol)),
        }
    }

    /// Index in `KEYED`.
    fn keyed(&self) -> Option<usize> {
        match self {
            Self::Network(..) | Self::Block(..) => None,
            Self::Host(_) => Some(0),
            Self::V6(_) => Some(1),
            Self::Flow(_) => Some(2),
        }
    }
}

/// The bits of an address that a prefix says.
fn mask(length: u8) -> u32 {
    u32::MAX.checked_shl(32 - u32::from(length)).unwrap_or_default()
}

/// The last address of a prefix.
fn end_of(address: u32, length: u8) -> u32 {
    address | !mask(length)
}

fn flow_key(src: &SocketAddr, dst: &SocketAddr, protocol: u8) -> FlowKey {
    FlowKey {
        src: address_key(src.ip()),
        dst: address_key(dst.ip()),
        src_port: src.port().to_be_bytes(),
        dst_port: dst.port().to_be_bytes(),
        protocol,
        ip_version: if src.is_ipv4() { 4 } else { 6 },
        zero: [0; 2],
    }
}

impl DenyMaps {
    pub(super) fn take(object: &mut Ebpf, multiplier: u64) -> Option<Self> {
        let networks = map_words(object, NETWORKS, NETWORK_WORDS as usize)?;
        let blocks = map_words(object, BLOCKS, BUCKETS as usize * BUCKET_BLOCKS)?;
        Some(Self {
            settings: take_map(object, SETTINGS).ok()?,
            told: 0,
            networks: Networks::new(networks),
            blocks: Blocks::new(blocks, multiplier),
            hosts: take_map(object, KEYED[0].0).ok()?,
            prefixes_v6: take_map(object, KEYED[1].0).ok()?,
            flows: take_map(object, KEYED[2].0).ok()?,
            used: [0; KEYED.len()],
        })
    }

    /// Tells the program which maps have entries.
    fn tell(&mut self) -> Result<(), XdpError> {
        let keyed = KEYED.iter().zip(self.used).filter(|(_, used)| *used > 0).map(|((_, bit), _)| bit);
        let mut used: u32 = keyed.sum();
        if !self.networks.is_empty() {
            used |= DenySettings::NETWORKS_V4;
        }
        if !self.blocks.is_empty() {
            used |= DenySettings::BLOCKS_V4;
        }
        if used != self.told {
            self.settings
                .set(0, DenySettings { used }, 0)
                .map_err(|source| XdpError::map(SETTINGS, "element 0".to_owned(), source))?;
            self.told = used;
        }
        Ok(())
    }
}

/// An array of words in memory; it stays with the object, too.
fn map_words(object: &Ebpf, name: &'static str, words: usize) -> Option<Mapped> {
    let Some(Map::Array(map)) = object.map(name) else { return None };
    Mapped::new(map.fd().as_fd(), words)
        .inspect_err(|error| tracing::error!("mapping {name} failed: {error}"))
        .ok()
}

impl DenyTable for DenyMaps {
    fn insert(&mut self, entry: &DenyEntry) -> Result<(), XdpError> {
        let place = Place::of(entry);
        let result = match &place {
            Place::Network(address, length) => {
                self.networks.insert(*address, *length);
                Ok(())
            }
            Place::Block(address, length) => {
                self.blocks.insert(*address, *length).map_err(|_| XdpError::MapFull {
                    map: BLOCKS,
                    wanted: 1,
                    capacity: BUCKETS * BUCKET_BLOCKS as u32,
                })?;
                Ok(())
            }
            Place::Host(key) => self.hosts.insert(key, 0, 0),
            Place::V6(key) => self.prefixes_v6.insert(key, 0, 0),
            Place::Flow(key) => self.flows.insert(key, 0, 0),
        };
        if let Some(map) = place.keyed() {
            result.map_err(|source| XdpError::map(KEYED[map].0, entry.to_string(), source))?;
            self.used[map] += 1;
        }
        self.tell()
    }

    fn remove(&mut self, entry: &DenyEntry) -> Result<(), XdpError> {
        let place = Place::of(entry);
        let result = match &place {
            Place::Network(address, length) => {
                self.networks.remove(*address, *length);
                Ok(())
            }
            Place::Block(address, length) => {
                self.blocks.remove(*address, *length);
                Ok(())
            }
            Place::Host(key) => self.hosts.remove(key),
            Place::V6(key) => self.prefixes_v6.remove(key),
            Place::Flow(key) => self.flows.remove(key),
        };
        if let Some(map) = place.keyed() {
            match result {
                Err(source) if is_refused(&source, libc::ENOENT) => return Ok(()),
                Err(source) => return Err(XdpError::map(KEYED[map].0, entry.to_string(), source)),
                Ok(()) => self.used[map] = self.used[map].saturating_sub(1),
            }
        }
        self.tell()
    }
}
