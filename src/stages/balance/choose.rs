//! Which backend a new flow goes to: the hash of its five-tuple chooses a slot of its service's table.
//!
//! The stage, the control thread that builds tables, and `xfwd which` all choose by what is here, so they agree.

use std::net::IpAddr;

use super::maglev::{Table, TableError};
use crate::packet::FiveTuple;
use crate::words::choices;

choices! {
    /// What of a packet chooses the backend of a new flow.
    #[derive(Default)]
    pub enum Affinity {
        /// Addresses, ports and protocol: each connection is on its own.
        #[default]
        FiveTuple = "5tuple",
        /// Source and destination address: all connections of a client to a VIP go to one backend.
        Src = "src",
    }
}

/// The table of a service with these backends, each an address and a weight; the weight of one that shall get no new flows is 0.
///
/// A backend is known by its address, whatever its place in the file, so every balancer builds the same table.
/// The table's indices are those of `backends`.
///
/// # Errors
///
/// [`TableError`] when no backend has a weight, one is there twice, or `size` is not a prime above their number.
pub fn table(backends: impl IntoIterator<Item = (IpAddr, u32)>, size: u32) -> Result<Table, TableError> {
    let keyed: Vec<(Key, u32)> =
        backends.into_iter().map(|(address, weight)| (Key::of(address), weight)).collect();
    Table::build(&keyed, size)
}

/// The hash that chooses a backend for packets of `tuple`.
///
/// By [`Affinity::Src`] ports and protocol do not count. So services that share a VIP have the same hash for a client, and if they
/// have the same backends, weights and table size, a client's connections to all of them go to the same backend: HTTP
/// and HTTPS of a shop, say. A prefix as VIP is many addresses: a client is bound for each of them on its own.
///
/// Packets without ports (fragments, see [`FiveTuple::of`]) have another hash by [`Affinity::FiveTuple`] than the rest of
/// their flow, and the same by [`Affinity::Src`].
#[inline]
pub fn hash(tuple: &FiveTuple, affinity: Affinity) -> u64 {
    match affinity {
        Affinity::FiveTuple => tuple.flow_hash(),
        Affinity::Src => FiveTuple { src_port: 0, dst_port: 0, protocol: 0, ..*tuple }.flow_hash(),
    }
}

/// The octets of an address: 4 or 16.
enum Key {
    V4([u8; 4]),
    V6([u8; 16]),
}

impl Key {
    fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(v4) => Self::V4(v4.octets()),
            IpAddr::V6(v6) => Self::V6(v6.octets()),
        }
    }
}

impl AsRef<[u8]> for Key {
    fn as_ref(&self) -> &[u8] {
        match self {
            Self::V4(octets) => octets,
            Self::V6(octets) => octets,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::maglev::DEFAULT_SIZE;
    use super::*;
    use crate::packet::protocol::{TCP, UDP};

    fn tuple(client: u8, src_port: u16, dst_port: u16, protocol: u8) -> FiveTuple {
        let mapped = |host| std::net::Ipv4Addr::new(198, 18, 1, host).to_ipv6_mapped().octets();
        FiveTuple { src: mapped(client), dst: mapped(250), src_port, dst_port, protocol }
    }

    #[test]
    fn by_five_tuple_every_connection_is_on_its_own() {
        let hash = |src_port| hash(&tuple(7, src_port, 80, TCP), Affinity::FiveTuple);
        assert_eq!(hash(40_000), tuple(7, 40_000, 80, TCP).flow_hash());
        assert_ne!(hash(40_000), hash(40_001));
    }

    #[test]
    fn by_source_all_connections_of_a_client_to_a_vip_have_one_hash() {
        let hash = |tuple| hash(&tuple, Affinity::Src);
        let first = hash(tuple(7, 40_000, 80, TCP));
        for other in [
            tuple(7, 40_001, 80, TCP),
            tuple(7, 40_000, 443, TCP),
            tuple(7, 40_000, 443, UDP),
            tuple(7, 0, 0, UDP),
        ] {
            assert_eq!(hash(other), first);
        }
        assert_ne!(hash(tuple(8, 40_000, 80, TCP)), first);
    }

    #[test]
    fn a_backend_is_known_by_its_address_whatever_its_place() {
        let addresses =
            ["198.18.0.11", "2001:db8::11", "198.18.0.12"].map(|text| text.parse::<IpAddr>().unwrap());
        let [a, b, c] = addresses;
        let one = table([(a, 1), (b, 2), (c, 0)], DEFAULT_SIZE).unwrap();
        let other = table([(c, 0), (b, 2), (a, 1)], DEFAULT_SIZE).unwrap();
        let chosen = |table: &Table, of: [IpAddr; 3]| {
            table.slots().iter().map(|backend| of[usize::from(*backend)]).collect::<Vec<_>>()
        };
        assert!(chosen(&one, [a, b, c]) == chosen(&other, [c, b, a]));
        assert!(!one.slots().contains(&2), "a backend of weight 0 has no slot");
        assert_eq!(table([(a, 0)], 251).unwrap_err(), TableError::NoWeight);
    }
}
