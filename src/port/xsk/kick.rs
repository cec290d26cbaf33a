//! Telling the kernel to send or to fill.
//!
//! `xsk-rs` has `TxQueue::wakeup`, but it answers `Ok` for `EAGAIN`, `EBUSY`, `ENOBUFS` and `ENETDOWN` alike. They mean
//! four different things to us (still queued, dropped, later, no link), so the system call is made here.

use std::io;
use std::os::fd::RawFd;

/// What the kernel answered to a request to send.
#[derive(Debug)]
pub(super) enum Kick {
    /// It took what it could: all that is queued, unless the driver works on it in its own time.
    Done,
    /// Still queued: the budget of one call is used up, or the socket's send buffer is (`EAGAIN`).
    Again,
    /// The driver would not take a packet and the kernel dropped it; its frame completes like any other (`EBUSY`).
    DroppedBusy,
    /// No memory for a packet now; it stays queued (`ENOBUFS`, `ENOMEM`).
    NoMemory,
    /// The link is down; everything stays queued (`ENETDOWN`).
    LinkDown,
    /// The socket has lost its interface (`ENXIO`).
    Unbound,
    /// Anything else.
    Failed(io::Error),
}

impl Kick {
    fn classify(error: io::Error) -> Self {
        match error.raw_os_error() {
            Some(libc::EAGAIN | libc::EINTR) => Self::Again,
            Some(libc::EBUSY) => Self::DroppedBusy,
            Some(libc::ENOBUFS | libc::ENOMEM) => Self::NoMemory,
            Some(libc::ENETDOWN) => Self::LinkDown,
            Some(libc::ENXIO) => Self::Unbound,
            _ => Self::Failed(error),
        }
    }
}

/// Asks the kernel to send what is on the tx ring, without waiting.
pub(super) fn send(fd: RawFd) -> Kick {
    // SAFETY: a null buffer of length 0 and a null address are what AF_XDP expects; nothing is read or written.
    let answer = unsafe { libc::sendto(fd, std::ptr::null(), 0, libc::MSG_DONTWAIT, std::ptr::null(), 0) };
    if answer >= 0 { Kick::Done } else { Kick::classify(io::Error::last_os_error()) }
}

/// Lets the driver take from the fill ring and, with busy polling, run its receive loop, without waiting. Failing is
/// no news: the next call to send or wait will tell.
pub(super) fn receive(fd: RawFd) {
    // SAFETY: a null buffer of length 0 is what AF_XDP expects; nothing is written.
    unsafe {
        libc::recvfrom(
            fd,
            std::ptr::null_mut(),
            0,
            libc::MSG_DONTWAIT,
            std::ptr::null_mut(),
            std::ptr::null_mut(),
        )
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_errno_of_a_send_has_its_meaning() {
        let meaning = |errno| Kick::classify(io::Error::from_raw_os_error(errno));
        assert!(matches!(meaning(libc::EAGAIN), Kick::Again));
        assert!(matches!(meaning(libc::EINTR), Kick::Again));
        assert!(matches!(meaning(libc::EBUSY), Kick::DroppedBusy));
        assert!(matches!(meaning(libc::ENOBUFS), Kick::NoMemory));
        assert!(matches!(meaning(libc::ENOMEM), Kick::NoMemory));
        assert!(matches!(meaning(libc::ENETDOWN), Kick::LinkDown));
        assert!(matches!(meaning(libc::ENXIO), Kick::Unbound));
        assert!(matches!(meaning(libc::EBADF), Kick::Failed(_)));
    }
}
