//! The deny list's maps.

use std::net::{IpAddr, SocketAddr};

use aya::{
    Ebpf,
    maps::{
        Array, HashMap, MapData,
        lpm_trie::{Key, LpmTrie},
    },
};
use xfwd_ebpf_types::deny::{DenySettings, host_key};
use xfwd_ebpf_types::filter::{EndpointKey, FlowKey};

use super::{XdpError, address_key, error::is_refused, take_map};
use crate::kernel::deny::{DenyEntry, DenyTable};

/// The maps of one program that hold what is denied.
pub struct DenyMaps {
    settings: Array<MapData, DenySettings>,
    hosts: HashMap<MapData, EndpointKey, u32>,
    prefixes_v4: LpmTrie<MapData, [u8; 4], u32>,
    prefixes_v6: LpmTrie<MapData, [u8; 16], u32>,
    flows: HashMap<MapData, FlowKey, u32>,
    /// Entries by the bit of their map in the settings.
    used: [usize; 4],
}

/// The variable of the program that says which of the maps have entries.
const SETTINGS: &str = ".data.deny";

/// A map's name, and its bit in the settings.
const MAPS: [(&str, u32); 4] = [
    ("DENY_HOSTS", DenySettings::HOSTS),
    ("DENY_V4", DenySettings::PREFIXES_V4),
    ("DENY_V6", DenySettings::PREFIXES_V6),
    ("DENY_FLOWS", DenySettings::FLOWS),
];

/// An entry as the key of its map.
enum MapKey {
    Host(EndpointKey),
    V4(Key<[u8; 4]>),
    V6(Key<[u8; 16]>),
    Flow(FlowKey),
}

impl MapKey {
    fn of(entry: &DenyEntry) -> Self {
        match entry {
            DenyEntry::Source(prefix) => match (prefix.address(), prefix.length()) {
                (IpAddr::V4(_), 32) => Self::Host(host_key(address_key(prefix.address()), 4)),
                (IpAddr::V6(_), 128) => Self::Host(host_key(address_key(prefix.address()), 6)),
                (IpAddr::V4(address), length) => Self::V4(Key::new(length.into(), address.octets())),
                (IpAddr::V6(address), length) => Self::V6(Key::new(length.into(), address.octets())),
            },
            DenyEntry::Flow { src, dst, protocol } => Self::Flow(flow_key(src, dst, *protocol)),
        }
    }

    /// Index in `MAPS`.
    fn map(&self) -> usize {
        match self {
            Self::Host(_) => 0,
            Self::V4(_) => 1,
            Self::V6(_) => 2,
            Self::Flow(_) => 3,
        }
    }
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
    pub(super) fn take(object: &mut Ebpf) -> Option<Self> {
        Some(Self {
            settings: take_map(object, SETTINGS).ok()?,
            hosts: take_map(object, "DENY_HOSTS").ok()?,
            prefixes_v4: take_map(object, "DENY_V4").ok()?,
            prefixes_v6: take_map(object, "DENY_V6").ok()?,
            flows: take_map(object, "DENY_FLOWS").ok()?,
            used: [0; 4],
        })
    }

    fn set_used(&mut self) -> Result<(), XdpError> {
        let bits = MAPS.iter().zip(self.used).filter(|(_, used)| *used > 0).map(|((_, bit), _)| bit);
        let settings = DenySettings { used: bits.sum() };
        self.settings
            .set(0, settings, 0)
            .map_err(|source| XdpError::map(SETTINGS, "element 0".to_owned(), source))
    }
}

impl DenyTable for DenyMaps {
    fn insert(&mut self, entry: &DenyEntry) -> Result<(), XdpError> {
        let key = MapKey::of(entry);
        let result = match &key {
            MapKey::Host(key) => self.hosts.insert(key, 0, 0),
            MapKey::V4(key) => self.prefixes_v4.insert(key, 0, 0),
            MapKey::V6(key) => self.prefixes_v6.insert(key, 0, 0),
            MapKey::Flow(key) => self.flows.insert(key, 0, 0),
        };
        let map = key.map();
        result.map_err(|source| XdpError::map(MAPS[map].0, entry.to_string(), source))?;
        self.used[map] += 1;
        if self.used[map] == 1 { self.set_used() } else { Ok(()) }
    }

    fn remove(&mut self, entry: &DenyEntry) -> Result<(), XdpError> {
        let key = MapKey::of(entry);
        let result = match &key {
            MapKey::Host(key) => self.hosts.remove(key),
            MapKey::V4(key) => self.prefixes_v4.remove(key),
            MapKey::V6(key) => self.prefixes_v6.remove(key),
            MapKey::Flow(key) => self.flows.remove(key),
        };
        let map = key.map();
        match result {
            Err(source) if is_refused(&source, libc::ENOENT) => return Ok(()),
            Err(source) => return Err(XdpError::map(MAPS[map].0, entry.to_string(), source)),
            Ok(()) => {}
        }
        self.used[map] = self.used[map].saturating_sub(1);
        if self.used[map] == 0 { self.set_used() } else { Ok(()) }
    }
}
