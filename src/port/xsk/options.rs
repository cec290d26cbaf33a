//! Socket options of AF_XDP that `xsk-rs` does not have: what mode the kernel chose, what it lost, the transmit budget,
//! busy polling. Numbers are from `linux/if_xdp.h` and `asm-generic/socket.h`.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

const XDP_STATISTICS: i32 = 7;
const XDP_OPTIONS: i32 = 8;
/// Since Linux 6.17.
const XDP_MAX_TX_SKB_BUDGET: i32 = 9;
const XDP_OPTIONS_ZEROCOPY: u32 = 1;

/// How long one busy poll may take.
const BUSY_POLL_MICROSECONDS: i32 = 20;
/// Packets that one busy poll may handle: one batch.
const BUSY_POLL_BUDGET: i32 = 64;

/// `struct xdp_statistics`: what the kernel lost on its way to or from a socket, since it was opened.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct XdpStatistics {
    /// Received packets dropped for other reasons than those below: too large for a frame, or no memory.
    pub rx_dropped: u64,
    /// Received packets dropped because the fill ring held an address outside of the UMEM.
    pub rx_invalid_descs: u64,
    /// Descriptors on the tx ring that were not valid.
    pub tx_invalid_descs: u64,
    /// Received packets dropped because the rx ring was full.
    pub rx_ring_full: u64,
    /// Received packets dropped because the fill ring was empty.
    pub rx_fill_ring_empty_descs: u64,
    /// How often the kernel looked for something to send and found the tx ring empty. No loss.
    pub tx_ring_empty_descs: u64,
}

impl XdpStatistics {
    /// Received packets that were steered to the socket and lost before it.
    pub fn rx_lost(&self) -> u64 {
        // The kernel counts a packet in rx_ring_full or rx_dropped; an empty fill ring is counted beside rx_dropped.
        self.rx_dropped + self.rx_ring_full
    }
}

/// Opens a socket that is bound to nothing, to ask which options the kernel knows.
///
/// # Errors
///
/// The error of `socket`: `EAFNOSUPPORT` where the kernel has no AF_XDP, `EPERM` without CAP_NET_RAW.
pub fn unbound_socket() -> io::Result<OwnedFd> {
    // SAFETY: a system call without pointers.
    let fd = unsafe { libc::socket(libc::AF_XDP, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: just opened, and owned by nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Reads `XDP_STATISTICS`.
///
/// # Errors
///
/// The error of `getsockopt`.
pub fn statistics(socket: BorrowedFd<'_>) -> io::Result<XdpStatistics> {
    let mut value = XdpStatistics::default();
    get(socket, XDP_STATISTICS, &mut value)?;
    Ok(value)
}

/// Whether the kernel bound the socket in zero-copy mode, read back by `XDP_OPTIONS`.
///
/// # Errors
///
/// The error of `getsockopt`.
pub fn is_zero_copy(socket: BorrowedFd<'_>) -> io::Result<bool> {
    let mut flags = 0u32;
    get(socket, XDP_OPTIONS, &mut flags)?;
    Ok(flags & XDP_OPTIONS_ZEROCOPY != 0)
}

/// Lets one kick in copy mode send up to `packets` instead of the kernel's 32.
///
/// # Errors
///
/// The error of `setsockopt`: `ENOPROTOOPT` before Linux 6.17, `EACCES` for a number outside of 32 to the size of the
/// tx ring.
pub fn set_tx_budget(socket: BorrowedFd<'_>, packets: u32) -> io::Result<()> {
    set(socket, libc::SOL_XDP, XDP_MAX_TX_SKB_BUDGET, &packets)
}

/// Lets system calls on the socket run the driver's receive loop in the caller's thread, in place of its interrupt
/// (`SO_PREFER_BUSY_POLL`, since Linux 5.11).
///
/// # Errors
///
/// The error of `setsockopt`.
pub fn prefer_busy_poll(socket: BorrowedFd<'_>) -> io::Result<()> {
    set(socket, libc::SOL_SOCKET, libc::SO_PREFER_BUSY_POLL, &1i32)?;
    set(socket, libc::SOL_SOCKET, libc::SO_BUSY_POLL, &BUSY_POLL_MICROSECONDS)?;
    set(socket, libc::SOL_SOCKET, libc::SO_BUSY_POLL_BUDGET, &BUSY_POLL_BUDGET)
}

/// Keeps the socket from programs that this process starts: libxdp opens it without `SOCK_CLOEXEC`, and the queue would be
/// busy for as long as one of them runs.
pub(super) fn close_on_exec(socket: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: sets a flag of an open descriptor.
    let answer = unsafe { libc::fcntl(socket.as_raw_fd(), libc::F_SETFD, libc::FD_CLOEXEC) };
    if answer == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// `T` is one of the plain structs of numbers above.
fn get<T: Copy>(socket: BorrowedFd<'_>, option: i32, value: &mut T) -> io::Result<()> {
    let mut len = size_of::<T>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `len` bytes, and every bit pattern is a valid `T`: all its fields are integers.
    let answer = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_XDP,
            option,
            std::ptr::from_mut(value).cast(),
            &raw mut len,
        )
    };
    if answer == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn set<T: Copy>(socket: BorrowedFd<'_>, level: i32, option: i32, value: &T) -> io::Result<()> {
    // SAFETY: the kernel reads `size_of::<T>()` bytes of an integer that lives through the call.
    let answer = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            option,
            std::ptr::from_ref(value).cast(),
            size_of::<T>() as libc::socklen_t,
        )
    };
    if answer == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
