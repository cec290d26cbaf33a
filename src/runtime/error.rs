//! Why a run could not start, or ended.

use std::net::IpAddr;

use thiserror::Error;

use super::NoSuchCore;
use crate::config::InvalidSize;
use crate::kernel::addresses::AddressError;
use crate::kernel::capabilities::MissingCapabilities;
use crate::kernel::deny::StartDenyError;
use crate::kernel::filter::PlanError;
use crate::kernel::link::LinkError;
use crate::kernel::next_hops::{NextHopError, Unresolved};
use crate::kernel::xdp::XdpError;
use crate::port::xsk::{BindError, MAX_PORTS};
use crate::stages::balance::maglev::TableError;
use crate::worker::WorkerEnd;

/// Why a run could not start. Nothing is left behind then.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum StartError {
    /// Nothing to run on.
    #[error("no interface was named")]
    NoInterface,
    /// No queue was asked for.
    #[error("0 queues were asked for; at least 1 is needed")]
    NoQueue,
    /// Rings or frames of a size that does not work.
    #[error(transparent)]
    Size(#[from] InvalidSize),
    /// The same interface twice.
    #[error("interface {0} was named twice")]
    InterfaceTwice(String),
    /// More interfaces than a worker has room for.
    #[error("{0} interfaces were named; a worker can serve {MAX_PORTS}")]
    TooManyInterfaces(usize),
    /// A core was named that is not there.
    #[error(transparent)]
    Core(#[from] NoSuchCore),
    /// This process may not do what is needed.
    #[error(transparent)]
    Capabilities(#[from] MissingCapabilities),
    /// An interface is missing, in use, or has too few queues.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// Packets would be larger than what this kernel hands to AF_XDP.
    #[error(
        "interface {interface}: MTU {mtu} is too large: packets over {largest} bytes need AF_XDP with several buffers a \
         packet, and {unsupported}; `ip link set dev {interface} mtu {largest}` would do"
    )]
    Mtu {
        /// Name of the interface.
        interface: String,
        /// Its MTU in bytes.
        mtu: u32,
        /// The largest that works without.
        largest: u32,
        /// What is missing.
        unsupported: crate::kernel::features::Unsupported,
    },
    /// The kernel has no route to a backend.
    #[error("service {service}: backend {backend} cannot be reached: {source}")]
    Unroutable {
        /// Name of the service.
        service: String,
        /// Address of the backend.
        backend: IpAddr,
        /// What the kernel says.
        source: Box<Unresolved>,
    },
    /// A backend that is this host.
    #[error(
        "service {service}: backend {backend} is an address of this host; a balancer cannot be a backend of its own, \
         since what it sends does not come back to its network stack"
    )]
    OwnAddress {
        /// Name of the service.
        service: String,
        /// Address of the backend.
        backend: IpAddr,
    },
    /// Direct server return needs the backend on the link.
    #[error(
        "service {service}: backend {backend} is not on the link of {interfaces}: the kernel reaches it {route}; \
         `forward = \"dsr\"` rewrites MAC addresses only, so give the interface an address in the backend's subnet, or \
         name the other interface too (`--iface`)"
    )]
    NotANeighbour {
        /// Name of the service.
        service: String,
        /// Address of the backend.
        backend: IpAddr,
        /// The interfaces that were named.
        interfaces: String,
        /// How the kernel reaches it.
        route: String,
    },
    /// The table of a service could not be built.
    #[error("service {service}: {source}")]
    Table {
        /// Name of the service.
        service: String,
        /// Why.
        source: TableError,
    },
    /// The ports of `[nat]` are too few for so many workers.
    #[error(transparent)]
    PoolTooSmall(#[from] crate::config::PoolTooSmall),
    /// The pool of `[nat]` could not be made.
    #[error("nat: {0}")]
    Nat(#[source] crate::stages::balance::nat::PoolError),
    /// Health checks could not be started.
    #[error(transparent)]
    Health(#[from] crate::health::HealthError),
    /// A thread could not be started.
    #[error("a thread could not be started: {0}")]
    Thread(#[source] std::io::Error),
    /// The rules of the filter do not fit the XDP program's maps.
    #[error("filter: {0}")]
    Filter(#[from] PlanError),
    /// The deny list could not be started.
    #[error(transparent)]
    Deny(#[from] StartDenyError),
    /// The host's addresses could not be read.
    #[error(transparent)]
    Addresses(#[from] AddressError),
    /// The kernel's routes, interfaces or neighbours could not be read.
    #[error(transparent)]
    NextHops(#[from] NextHopError),
    /// The sockets could not be opened.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The XDP program could not be loaded or attached.
    #[error(transparent)]
    Xdp(#[from] XdpError),
    /// A worker could not be started.
    #[error(transparent)]
    Worker(#[from] WorkerEnd),
    /// A socket could not be duplicated to read its statistics.
    #[error("cannot duplicate a socket to read its statistics: {0}")]
    Duplicate(#[source] std::io::Error),
    /// The map by which workers tell the XDP program that their rings are full could not be mapped.
    #[error("cannot map the gates of the XDP program (`mmap`): {0}")]
    Gate(#[source] std::io::Error),
}

/// Why a run ended that nobody had stopped.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum RunError {
    /// A worker ended by itself.
    #[error(transparent)]
    Worker(#[from] WorkerEnd),
    /// An interface is gone.
    #[error("interface {0} was removed, or moved to another network namespace")]
    InterfaceRemoved(String),
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::features::{Feature, Unsupported};
    use crate::port::xsk::MAX_SINGLE_BUFFER_MTU;

    #[test]
    fn an_mtu_that_is_too_large_is_told_with_what_would_do() {
        let error = StartError::Mtu {
            interface: "ens1f0".to_owned(),
            mtu: 9_000,
            largest: MAX_SINGLE_BUFFER_MTU,
            unsupported: Unsupported { feature: Feature::MultiBuffer, running: (6, 1) },
        };
        assert_eq!(
            error.to_string(),
            "interface ens1f0: MTU 9000 is too large: packets over 3498 bytes need AF_XDP with several buffers a packet, \
             and multi-buffer AF_XDP (XDP_USE_SG) needs Linux 6.6; this is Linux 6.1; `ip link set dev ens1f0 mtu 3498` \
             would do"
        );
    }
}
