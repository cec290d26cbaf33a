//! The maps that hold a [`Steering`], and how they get from one to the next.

use std::{collections::HashSet, hash::Hash};

use aya::{
    Ebpf, Pod,
    maps::{Array, HashMap, MapData},
};
use xfwd_ebpf_types::{MAX_HOST_ADDRESSES, MAX_SERVICES, ServiceKey, Settings};

use super::{
    XdpError, address_key,
    error::is_refused,
    steering::{Steering, service_name},
    take_map,
};

/// `SETTINGS`, `SERVICES` and `HOST_ADDRESSES`.
pub(super) struct Tables {
    settings: Array<MapData, Settings>,
    services: Table<ServiceKey, u32>,
    host_addresses: Table<[u8; 16], u8>,
}

impl Tables {
    pub(super) fn new(object: &mut Ebpf) -> Result<Self, XdpError> {
        Ok(Self {
            settings: take_map(object, "SETTINGS")?,
            services: Table {
                map: take_map(object, "SERVICES")?,
                present: HashSet::new(),
                name: "SERVICES",
                capacity: MAX_SERVICES,
                describe: service_name,
            },
            host_addresses: Table {
                map: take_map(object, "HOST_ADDRESSES")?,
                present: HashSet::new(),
                name: "HOST_ADDRESSES",
                capacity: MAX_HOST_ADDRESSES,
                describe: |address| std::net::Ipv6Addr::from(*address).to_canonical().to_string(),
            },
        })
    }

    /// Widens before it narrows what the host keeps: with `all` switched on, the host's addresses must be
    /// known first; switched off, they may go last.
    pub(super) fn apply(&mut self, steering: &Steering) -> Result<(), XdpError> {
        let host_addresses: HashSet<_> =
            steering.host_addresses.iter().map(|&address| address_key(address)).collect();
        self.services.insert_missing(&steering.services)?;
        self.host_addresses.insert_missing(&host_addresses)?;
        let settings = Settings { steer_all: u32::from(steering.all) };
        self.settings
            .set(0, settings, 0)
            .map_err(|source| XdpError::map("SETTINGS", "element 0".to_owned(), source))?;
        self.host_addresses.remove_others(&host_addresses)?;
        self.services.remove_others(&steering.services)
    }
}

/// A hash map used as a set. Nothing else writes to it, so what is in it is known without asking the kernel.
struct Table<K, V> {
    map: HashMap<MapData, K, V>,
    present: HashSet<K>,
    name: &'static str,
    capacity: u32,
    describe: fn(&K) -> String,
}

impl<K: Pod + Eq + Hash, V: Pod + Default> Table<K, V> {
    fn insert_missing(&mut self, wanted: &HashSet<K>) -> Result<(), XdpError> {
        if wanted.len() > self.capacity as usize {
            return Err(XdpError::MapFull { map: self.name, wanted: wanted.len(), capacity: self.capacity });
        }
        // Old and new entries are in the map at once, if they fit; if not, what is not wanted any more makes
        // room.
        if self.present.union(wanted).count() > self.capacity as usize {
            self.remove_others(wanted)?;
        }
        for key in wanted {
            if self.present.contains(key) {
                continue;
            }
            self.map
                .insert(key, V::default(), 0)
                .map_err(|source| XdpError::map(self.name, (self.describe)(key), source))?;
            self.present.insert(*key);
        }
        Ok(())
    }

    fn remove_others(&mut self, wanted: &HashSet<K>) -> Result<(), XdpError> {
        let others: Vec<K> = self.present.difference(wanted).copied().collect();
        for key in others {
            match self.map.remove(&key) {
                Err(source) if !is_refused(&source, libc::ENOENT) => {
                    return Err(XdpError::map(self.name, (self.describe)(&key), source));
                }
                _ => self.present.remove(&key),
            };
        }
        Ok(())
    }
}
