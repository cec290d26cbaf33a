//! AF_PACKET sockets.

use std::{
    mem,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
};

use crate::error::{Error, Result};

/// Opens a socket for whole frames on `interface` of the calling thread's network namespace. It receives what has this
/// EtherType: `libc::ETH_P_ALL`, or 0 for nothing.
pub(crate) fn open(
    interface: &str,
    ethertype: libc::c_int,
    options: &[(i32, i32, libc::c_int)],
) -> Result<OwnedFd> {
    let index = nix::net::if_::if_nametoindex(interface).map_err(|error| Error::System {
        call: "if_nametoindex",
        subject: interface.to_owned(),
        source: error.into(),
    })?;
    // Protocol 0: nothing is received before bind names the interface.
    // SAFETY: a system call without pointers.
    let socket = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
    if socket < 0 {
        return Err(Error::last_os("socket(AF_PACKET)", interface));
    }
    // SAFETY: just opened, and owned by nobody else.
    let socket = unsafe { OwnedFd::from_raw_fd(socket) };
    for (level, option, value) in options {
        // SAFETY: the option's value is the `c_int` that is pointed to.
        let result = unsafe {
            libc::setsockopt(
                socket.as_raw_fd(),
                *level,
                *option,
                (&raw const *value).cast(),
                mem::size_of_val(value) as libc::socklen_t,
            )
        };
        if result < 0 {
            return Err(Error::last_os("setsockopt", interface));
        }
    }
    // SAFETY: plain data, for which all zeroes is a valid value.
    let mut address: libc::sockaddr_ll = unsafe { mem::zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = (ethertype as u16).to_be();
    address.sll_ifindex = index.cast_signed();
    // SAFETY: the address is a sockaddr_ll of the given size.
    let result = unsafe {
        libc::bind(
            socket.as_raw_fd(),
            (&raw const address).cast(),
            mem::size_of_val(&address) as libc::socklen_t,
        )
    };
    if result < 0 {
        return Err(Error::last_os("bind(AF_PACKET)", interface));
    }
    Ok(socket)
}
