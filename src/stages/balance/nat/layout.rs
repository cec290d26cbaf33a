//! Which session number stands for which address, protocol and port.
//!
//! Numbers are dense. From the outside in: worker, protocol, address (IPv4 before IPv6), port. So a worker owns one run
//! of numbers, and what it chooses from for a flow (one protocol and family) is a run within it.

use std::net::IpAddr;
use std::ops::{Range, RangeInclusive};

use super::session::{Endpoint, mapped};
use crate::packet::protocol::{TCP, UDP};

/// A worker with fewer ports of each address than this is a mistake in the config rather than a wish.
const MIN_SLICE: usize = 64;
const PROTOCOLS: u32 = 2;

/// A pool that cannot be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PoolError {
    /// There is no address.
    #[error("the NAT pool has no address")]
    NoAddress,
    /// An address that a packet cannot have as source.
    #[error("{0} cannot be the source address of a packet")]
    NotUnicast(IpAddr),
    /// An address occurs twice.
    #[error("{0} is in the NAT pool twice")]
    Duplicate(IpAddr),
    /// The range holds port 0, or nothing.
    #[error("{first}-{last} is no range of ports: it has to begin at 1 or later and to hold a port")]
    Ports {
        /// First port.
        first: u16,
        /// Last port.
        last: u16,
    },
    /// A worker's share is too small.
    #[error(
        "{ports} ports for {workers} workers are {} for each, which needs {MIN_SLICE}: \
         widen the range of ports or run fewer workers",
        ports.checked_div(*workers).unwrap_or(0)
    )]
    SliceTooSmall {
        /// Ports of each address.
        ports: usize,
        /// Number of workers.
        workers: usize,
    },
    /// More sessions than numbers.
    #[error("{addresses} addresses with {ports} ports each are more sessions than can be numbered")]
    TooManySessions {
        /// Number of addresses.
        addresses: usize,
        /// Ports of each.
        ports: usize,
    },
}

/// The arithmetic of session numbers.
#[derive(Clone, Debug)]
pub(super) struct Layout {
    /// Sorted, and so IPv4 (mapped) before IPv6.
    addresses: Vec<[u8; 16]>,
    ipv4_addresses: u32,
    first_port: u16,
    /// Ports of each address that a worker has.
    slice: u32,
    workers: u32,
}

/// Which run of numbers a worker chooses from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Class(pub(super) usize);

impl Class {
    pub(super) const COUNT: usize = 4;

    /// `None` for a protocol that is not translated.
    #[inline]
    pub(super) fn of(protocol: u8, is_ipv4: bool) -> Option<Self> {
        Some(Self(protocol_index(protocol)? as usize * 2 + usize::from(!is_ipv4)))
    }

    #[cfg(test)]
    pub(super) fn all() -> impl Iterator<Item = Self> {
        (0..Self::COUNT).map(Self)
    }
}

#[inline]
fn protocol_index(protocol: u8) -> Option<u32> {
    match protocol {
        TCP => Some(0),
        UDP => Some(1),
        _ => None,
    }
}

impl Layout {
    pub(super) fn new(
        addresses: &[IpAddr],
        ports: RangeInclusive<u16>,
        workers: usize,
    ) -> Result<Self, PoolError> {
        let (first, last) = (*ports.start(), *ports.end());
        if first == 0 || last < first {
            return Err(PoolError::Ports { first, last });
        }
        let ports = usize::from(last - first) + 1;
        if workers == 0 || ports / workers < MIN_SLICE {
            return Err(PoolError::SliceTooSmall { ports, workers });
        }
        let sessions = addresses.len().saturating_mul(ports).saturating_mul(PROTOCOLS as usize);
        if u32::try_from(sessions).is_err() {
            return Err(PoolError::TooManySessions { addresses: addresses.len(), ports });
        }
        Ok(Self {
            addresses: checked_addresses(addresses)?,
            ipv4_addresses: addresses.iter().filter(|address| address.is_ipv4()).count() as u32,
            first_port: first,
            slice: (ports / workers) as u32,
            workers: workers as u32,
        })
    }

    #[inline]
    fn address_count(&self) -> u32 {
        self.addresses.len() as u32
    }

    fn of_one_worker(&self) -> u32 {
        PROTOCOLS * self.address_count() * self.slice
    }

    /// Sessions of all workers.
    pub(super) fn sessions(&self) -> u32 {
        self.workers * self.of_one_worker()
    }

    pub(super) fn workers(&self) -> u32 {
        self.workers
    }

    pub(super) fn slice(&self) -> u32 {
        self.slice
    }

    pub(super) fn has_ipv6(&self) -> bool {
        self.ipv4_addresses < self.address_count()
    }

    /// The numbers that a worker owns.
    pub(super) fn of_worker(&self, worker: u32) -> Range<u32> {
        let size = self.of_one_worker();
        worker * size..(worker + 1) * size
    }

    /// Those of them that a flow may get.
    pub(super) fn of_class(&self, worker: u32, class: Class) -> Range<u32> {
        let (protocol, is_ipv6) = (class.0 as u32 / 2, class.0 % 2 == 1);
        let addresses =
            if is_ipv6 { self.ipv4_addresses..self.address_count() } else { 0..self.ipv4_addresses };
        let start = self.of_worker(worker).start + protocol * self.address_count() * self.slice;
        start + addresses.start * self.slice..start + addresses.end * self.slice
    }

    /// Whether the pool has this address.
    #[inline]
    pub(super) fn has_address(&self, address: &[u8; 16]) -> bool {
        self.addresses.binary_search(address).is_ok()
    }

    /// The number of the session that has this end.
    #[inline]
    pub(super) fn number(&self, protocol: u8, nat: &Endpoint) -> Option<u32> {
        let protocol = protocol_index(protocol)?;
        let address = self.addresses.binary_search(&nat.address).ok()? as u32;
        let port = u32::from(nat.port.checked_sub(self.first_port)?);
        let worker = port / self.slice;
        // What the workers cannot share equally is nobody's.
        if worker >= self.workers {
            return None;
        }
        let run = (worker * PROTOCOLS + protocol) * self.address_count() + address;
        Some(run * self.slice + port % self.slice)
    }

    /// The pool's end of a session, and the index of its address.
    pub(super) fn end(&self, number: u32) -> (Endpoint, u16) {
        let (run, offset) = (number / self.slice, number % self.slice);
        let worker = run / (PROTOCOLS * self.address_count());
        let address = run % self.address_count();
        let port = u32::from(self.first_port) + worker * self.slice + offset;
        let endpoint = Endpoint { address: self.addresses[address as usize], port: port as u16 };
        (endpoint, address as u16)
    }

    /// The address with this index.
    #[inline]
    pub(super) fn address(&self, index: u16) -> [u8; 16] {
        self.addresses[usize::from(index)]
    }
}

fn checked_addresses(addresses: &[IpAddr]) -> Result<Vec<[u8; 16]>, PoolError> {
    if addresses.is_empty() {
        return Err(PoolError::NoAddress);
    }
    let mut sorted = Vec::with_capacity(addresses.len());
    for address in addresses {
        let is_broadcast = *address == IpAddr::from([255; 4]);
        let is_mapped = matches!(address, IpAddr::V6(address) if address.to_ipv4_mapped().is_some());
        if address.is_multicast() || address.is_unspecified() || is_broadcast || is_mapped {
            return Err(PoolError::NotUnicast(*address));
        }
        if sorted.contains(&mapped(*address)) {
            return Err(PoolError::Duplicate(*address));
        }
        sorted.push(mapped(*address));
    }
    sorted.sort_unstable();
    Ok(sorted)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    const V4: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(198, 18, 0, 2));

    fn layout(addresses: &[&str], ports: RangeInclusive<u16>, workers: usize) -> Result<Layout, PoolError> {
        let addresses: Vec<IpAddr> = addresses.iter().map(|address| address.parse().unwrap()).collect();
        Layout::new(&addresses, ports, workers)
    }

    #[test]
    fn every_worker_owns_as_many_ports_of_every_address_and_no_two_own_the_same() {
        let layout = layout(&["2001:db8::2", "198.18.0.3", "198.18.0.2"], 1_000..=1_399, 3).unwrap();
        let mut ends = HashSet::new();
        for worker in 0..3 {
            let owned = layout.of_worker(worker);
            let mut by_class = Vec::new();
            for class in Class::all() {
                let numbers = layout.of_class(worker, class);
                let expected = if class.0 % 2 == 1 { 133 } else { 2 * 133 };
                assert_eq!(numbers.len(), expected, "{class:?}");
                for number in numbers {
                    let (end, index) = layout.end(number);
                    let protocol = if class.0 < 2 { TCP } else { UDP };
                    assert_eq!(layout.number(protocol, &end), Some(number));
                    assert_eq!(layout.address(index), end.address);
                    assert_eq!(Class::of(protocol, end.is_ipv4()), Some(class));
                    assert!(ends.insert((protocol, end)), "{end:?} belongs to two");
                    by_class.push(number);
                }
            }
            by_class.sort_unstable();
            assert!(by_class.into_iter().eq(owned));
        }
        assert_eq!(ends.len() as u32, layout.sessions());
    }

    #[test]
    fn what_is_not_of_the_pool_has_no_number() {
        let layout = layout(&["198.18.0.2"], 1_000..=1_399, 3).unwrap();
        let end = |host, port| Endpoint { address: mapped(IpAddr::from([198, 18, 0, host])), port };
        assert!(layout.number(TCP, &end(2, 1_000)).is_some());
        assert!(layout.number(UDP, &end(2, 1_398)).is_some());
        assert_eq!(layout.number(TCP, &end(2, 1_399)), None, "the rest of 400 / 3");
        assert_eq!(layout.number(TCP, &end(2, 999)), None);
        assert_eq!(layout.number(TCP, &end(2, 1_400)), None);
        assert_eq!(layout.number(TCP, &end(3, 1_000)), None);
        assert_eq!(layout.number(1, &end(2, 1_000)), None);
        assert!(layout.has_address(&end(2, 0).address) && !layout.has_address(&end(3, 0).address));
    }

    #[test]
    fn errors_name_the_numbers() {
        let error =
            |addresses: &[&str], ports, workers| layout(addresses, ports, workers).unwrap_err().to_string();
        assert_eq!(
            error(&["198.18.0.2"], 1..=500, 8),
            "500 ports for 8 workers are 62 for each, which needs 64: \
             widen the range of ports or run fewer workers"
        );
        assert_eq!(layout(&["198.18.0.2"], 1..=512, 8).unwrap().slice(), 64);
        assert_eq!(error(&[], 1..=500, 1), "the NAT pool has no address");
        assert_eq!(error(&["224.0.0.1"], 1..=500, 1), "224.0.0.1 cannot be the source address of a packet");
        assert_eq!(error(&["198.18.0.2", "198.18.0.2"], 1..=500, 1), "198.18.0.2 is in the NAT pool twice");
        assert!(error(&["198.18.0.2"], 0..=500, 1).starts_with("0-500 is no range"));
        #[expect(clippy::reversed_empty_ranges, reason = "what a config may say")]
        let backwards = error(&["198.18.0.2"], 500..=1, 1);
        assert!(backwards.starts_with("500-1 is no range"));
        assert!(error(&["198.18.0.2"], 1..=500, 0).starts_with("500 ports for 0 workers are 0 for each"));
        let many = vec![V4; 40_000];
        assert!(
            Layout::new(&many, 1..=65_535, 1)
                .unwrap_err()
                .to_string()
                .starts_with("40000 addresses with 65535")
        );
    }
}
