//! The maps that hold a [`Steering`], and how they get from one to the next.

use std::{
    collections::HashMap,
    hash::Hash,
    net::{IpAddr, Ipv6Addr},
    os::fd::AsFd,
};

use aya::{
    Ebpf, Pod,
    maps::{Array, Map, MapData, MapError},
    sys::SyscallError,
};
use xfwd_ebpf_types::{
    MAX_HOST_ADDRESSES, MAX_NETWORKS, MAX_PORTS, MAX_SERVICES, NetworkKey, PortKey, ServiceKey, Settings,
};

use super::{
    XdpError, address_key, batch,
    services::{Numbers, Wanted, compile},
    steering::Steering,
    take_map,
};

/// `SETTINGS`, `SERVICES`, `NETWORKS`, `PORTS` and `HOST_ADDRESSES`.
pub(super) struct Tables {
    settings: Array<MapData, Settings>,
    services: Table<ServiceKey, u32>,
    networks: Table<NetworkKey, u32>,
    ports: Table<PortKey, u32>,
    host_addresses: Table<[u8; 16], u8>,
    /// Of the networks that are in the maps, so that one that stays keeps its own.
    numbers: Numbers,
}

impl Tables {
    pub(super) fn new(object: &mut Ebpf) -> Result<Self, XdpError> {
        Ok(Self {
            settings: take_map(object, "SETTINGS")?,
            services: Table::take(object, "SERVICES", MAX_SERVICES, service_name)?,
            networks: Table::take(object, "NETWORKS", MAX_NETWORKS, network_name)?,
            ports: Table::take(object, "PORTS", MAX_PORTS, port_name)?,
            host_addresses: Table::take(object, "HOST_ADDRESSES", MAX_HOST_ADDRESSES, |key| {
                address_name(*key)
            })?,
            numbers: Numbers::default(),
        })
    }

    /// Widens before it narrows: what is steered before and after is steered at every moment between, and with `all`
    /// switched on, the host's addresses are known first; switched off, they go last.
    pub(super) fn apply(&mut self, steering: &Steering) -> Result<(), XdpError> {
        let host_addresses =
            steering.host_addresses.iter().map(|&address| (address_key(address), 0)).collect();
        let wanted = self.numbers.number(compile(&steering.services));
        let settings = wanted.settings(steering);
        let Wanted { services, networks, ports } = wanted;
        // Numbers point at ports.
        self.ports.put(&ports)?;
        self.networks.put(&networks)?;
        self.services.put(&services)?;
        self.host_addresses.put(&host_addresses)?;
        self.settings
            .set(0, settings, 0)
            .map_err(|source| XdpError::map("SETTINGS", "element 0".to_owned(), source))?;
        self.host_addresses.keep_only(&host_addresses)?;
        self.services.keep_only(&services)?;
        self.networks.keep_only(&networks)?;
        self.ports.keep_only(&ports)?;
        self.numbers.keep_only(&ports.keys().map(|key| key.network).collect());
        Ok(())
    }
}

/// A hash map or trie. Nothing else writes to it, so what is in it is known without asking the kernel.
struct Table<K, V> {
    map: MapData,
    present: HashMap<K, V>,
    name: &'static str,
    capacity: u32,
    describe: fn(&K) -> String,
}

impl<K: Pod + Eq + Hash, V: Pod + Eq> Table<K, V> {
    fn take(
        object: &mut Ebpf,
        name: &'static str,
        capacity: u32,
        describe: fn(&K) -> String,
    ) -> Result<Self, XdpError> {
        let Some(Map::HashMap(map) | Map::LpmTrie(map)) = object.take_map(name) else {
            return Err(XdpError::Object { name });
        };
        // The kernel copies as many bytes as the map says.
        let info = map.info().map_err(|source| XdpError::map(name, "its sizes".to_owned(), source))?;
        if (info.key_size() as usize, info.value_size() as usize) != (size_of::<K>(), size_of::<V>()) {
            return Err(XdpError::Object { name });
        }
        Ok(Self { map, present: HashMap::new(), name, capacity, describe })
    }

    /// Inserts what is missing, and changes what has another value.
    fn put(&mut self, wanted: &HashMap<K, V>) -> Result<(), XdpError> {
        if wanted.len() > self.capacity as usize {
            return Err(XdpError::MapFull { map: self.name, wanted: wanted.len(), capacity: self.capacity });
        }
        // Old and new entries are in the map at once, if they fit; if not, what is not wanted any more makes
        // room.
        let others = self.present.keys().filter(|key| !wanted.contains_key(*key)).count();
        if others + wanted.len() > self.capacity as usize {
            self.keep_only(wanted)?;
        }
        let (keys, values): (Vec<K>, Vec<V>) =
            wanted.iter().filter(|(key, value)| self.present.get(*key) != Some(*value)).unzip();
        let result = batch::update(self.map.fd().as_fd(), &keys, &values);
        let done = result.as_ref().map_or_else(|(done, _)| *done, |()| keys.len());
        self.present.extend(keys.iter().copied().zip(values).take(done));
        result.map_err(|(done, source)| self.error(keys.get(done), "BPF_MAP_UPDATE_BATCH", source))
    }

    /// Removes everything else.
    fn keep_only(&mut self, wanted: &HashMap<K, V>) -> Result<(), XdpError> {
        let others: Vec<K> = self.present.keys().filter(|key| !wanted.contains_key(*key)).copied().collect();
        let result = batch::delete(self.map.fd().as_fd(), &others);
        let done = result.as_ref().map_or_else(|(done, _)| *done, |()| others.len());
        for key in &others[..done.min(others.len())] {
            self.present.remove(key);
        }
        result.map_err(|(done, source)| self.error(others.get(done), "BPF_MAP_DELETE_BATCH", source))
    }

    fn error(&self, key: Option<&K>, call: &'static str, source: std::io::Error) -> XdpError {
        let source = MapError::SyscallError(SyscallError { call, io_error: source });
        XdpError::map(self.name, key.map_or_else(String::new, self.describe), source)
    }
}

fn address_name(address: [u8; 16]) -> String {
    Ipv6Addr::from(address).to_canonical().to_string()
}

fn endpoint_name(protocol: u8, scope: u8, port: [u8; 2]) -> String {
    let port = match scope {
        ServiceKey::ANY_PORT => "any port".to_owned(),
        _ => u16::from_be_bytes(port).to_string(),
    };
    match protocol {
        6 => format!("tcp/{port}"),
        17 => format!("udp/{port}"),
        1 | 58 => "ping".to_owned(),
        other => format!("protocol {other} port {port}"),
    }
}

/// A service's key in words, for messages.
fn service_name(key: &ServiceKey) -> String {
    if key.scope == ServiceKey::NETWORK {
        return address_name(key.address);
    }
    format!("{} {}", address_name(key.address), endpoint_name(key.protocol, key.scope, key.port))
}

fn network_name(key: &NetworkKey) -> String {
    let address = Ipv6Addr::from(key.address).to_canonical();
    let length = if matches!(address, IpAddr::V4(_)) { key.length.saturating_sub(96) } else { key.length };
    format!("{address}/{length}")
}

fn port_name(key: &PortKey) -> String {
    let bits = key.length.saturating_sub(PortKey::ALL_PORTS);
    format!("network {}, {}, {bits} bits", key.network, endpoint_name(key.protocol, key.scope, key.port))
}

#[cfg(test)]
mod tests {
    use xfwd_ebpf_types::map_ipv4;

    use super::*;
    use crate::kernel::xdp::service_key;

    #[test]
    fn messages_name_a_service_as_people_write_it() {
        assert_eq!(service_name(&service_key(IpAddr::from([192, 0, 2, 1]), 17, 53)), "192.0.2.1 udp/53");
        let address = "2001:db8::1".parse().unwrap();
        assert_eq!(service_name(&service_key(address, 6, 443)), "2001:db8::1 tcp/443");
        let fragments =
            ServiceKey { port: [0; 2], scope: ServiceKey::ANY_PORT, ..service_key(address, 6, 0) };
        assert_eq!(service_name(&fragments), "2001:db8::1 tcp/any port");
        let network = NetworkKey { length: 120, address: map_ipv4([192, 0, 2, 0]) };
        assert_eq!(network_name(&network), "192.0.2.0/24");
    }
}
