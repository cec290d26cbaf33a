//! Why a run could not start, or ended.

use std::net::IpAddr;

use thiserror::Error;

use crate::kernel::addresses::AddressError;
use crate::kernel::capabilities::MissingCapabilities;
use crate::kernel::deny::StartDenyError;
use crate::kernel::filter::PlanError;
use crate::kernel::link::LinkError;
use crate::kernel::neighbours::NeighbourError;
use crate::kernel::routes::RouteError;
use crate::kernel::xdp::XdpError;
use crate::port::xsk::BindError;
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
    /// The same interface twice.
    #[error("interface {0} was named twice")]
    InterfaceTwice(String),
    /// This process may not do what is needed.
    #[error(transparent)]
    Capabilities(#[from] MissingCapabilities),
    /// An interface is missing, in use, or has too few queues.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// Packets would be larger than what this kernel hands to AF_XDP.
    #[error(
        "interface {interface}: MTU {mtu} is too large: packets over {largest} bytes need AF_XDP with several buffers a \
         packet, {unsupported}; `ip link set dev {interface} mtu {largest}` would do"
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
        source: RouteError,
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
    /// The rules of the filter do not fit the XDP program's maps.
    #[error("filter: {0}")]
    Filter(#[from] PlanError),
    /// The deny list could not be started.
    #[error(transparent)]
    Deny(#[from] StartDenyError),
    /// The host's addresses could not be read.
    #[error(transparent)]
    Addresses(#[from] AddressError),
    /// The neighbour table could not be read.
    #[error(transparent)]
    Neighbours(#[from] NeighbourError),
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
    Duplicate(std::io::Error),
}

/// Why a run ended that nobody had stopped.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum RunError {
    /// A worker ended by itself.
    #[error(transparent)]
    Worker(#[from] WorkerEnd),
    /// An interface was removed.
    #[error("interface {0} was removed")]
    InterfaceRemoved(String),
}
