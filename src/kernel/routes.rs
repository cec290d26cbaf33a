//! Where the kernel would send a packet.
