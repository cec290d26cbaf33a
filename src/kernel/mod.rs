//! All that is read from or set in the kernel: XDP program and maps, links, addresses, neighbours, features.
//!
//! Questions to the kernel are blocking netlink requests, changes arrive on a thread a watcher: none of it needs
//! an async runtime, and none of it runs on a worker.

pub mod addresses;
pub mod capabilities;
pub mod deny;
mod ethtool;
pub mod features;
pub mod filter;
pub mod link;
pub mod local_ports;
mod neighbours;
pub mod netdev;
mod netlink;
pub mod next_hops;
pub mod offline;
pub mod promiscuous;
pub mod routes;
mod watch;
pub mod xdp;
