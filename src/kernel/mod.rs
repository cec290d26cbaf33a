//! All that is read from or set in the kernel: XDP program and maps, links, addresses, neighbours, features.

pub mod addresses;
pub mod capabilities;
pub mod link;
pub mod neighbours;
pub mod routes;
pub mod xdp;
