//! An interface that takes frames to whatever MAC address.
//!
//! A NIC drops frames to unicast addresses that are not its own, and to groups that nobody has joined, before an XDP
//! program could see them. The membership of a packet socket tells it not to (packet(7), `PACKET_MR_PROMISC`). Such memberships are
//! counted by the kernel beside `ip link set promisc on`, and end with the socket: however the process ends, the
//! interface is as it was.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

use super::link::{Link, LinkError};

/// Keeps an interface promiscuous until it is dropped.
#[derive(Debug)]
pub struct Promiscuous {
    _socket: OwnedFd,
}

impl Promiscuous {
    /// Makes an interface of the calling thread's network namespace promiscuous. Needs CAP_NET_RAW.
    ///
    /// # Errors
    ///
    /// [`LinkError::Kernel`] with the call that failed.
    pub fn enter(link: &Link) -> Result<Self, LinkError> {
        let failed = |call, source| LinkError::Kernel { call, interface: link.name.clone(), source };
        // Without a protocol: it receives nothing.
        let socket = socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, None)
            .map_err(|error| failed("socket(AF_PACKET)", error.into()))?;
        let membership = libc::packet_mreq {
            mr_ifindex: link.index.cast_signed(),
            mr_type: libc::PACKET_MR_PROMISC as u16,
            mr_alen: 0,
            mr_address: [0; 8],
        };
        // SAFETY: the option reads a `packet_mreq`, which is what is pointed to, and lives through the call.
        let result = unsafe {
            libc::setsockopt(
                socket.as_raw_fd(),
                libc::SOL_PACKET,
                libc::PACKET_ADD_MEMBERSHIP,
                (&raw const membership).cast(),
                size_of_val(&membership) as libc::socklen_t,
            )
        };
        if result < 0 {
            return Err(failed("setsockopt(PACKET_ADD_MEMBERSHIP)", io::Error::last_os_error()));
        }
        Ok(Self { _socket: socket })
    }
}
