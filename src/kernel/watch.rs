//! A thread that listens to the kernel's notifications of one kind and hands them to a closure.
//!
//! The kernel drops notifications when the socket's buffer is full (ENOBUFS). A watcher must then not go on with what
//! it believes: it is told [`Notice::Lost`], and reads the whole table again.
//!
//! Order at the start of every watcher: subscribe, read the table, then follow. A change between the last two is
//! seen twice, never missed.

#![forbid(unsafe_code)]

use std::{
    io,
    os::fd::AsFd,
    sync::Arc,
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use netlink_packet_core::NetlinkPayload;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::{Socket, protocols::NETLINK_ROUTE};
use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::eventfd::{EfdFlags, EventFd},
};

use super::netlink::{messages, receive_datagram};

/// Room for a burst: flushing a neighbour table of some thousand entries is one. The kernel caps it at
/// `net.core.rmem_max`, and an overrun is handled, so failing to get it is not an error.
const SOCKET_BUFFER_BYTES: libc::c_int = 1024 * 1024;

/// Datagrams handled before the stop signal and the clock are looked at again.
const DATAGRAMS_A_ROUND: u32 = 64;

/// Wait after an error of the socket that is not an overrun; none is known, so it must not become a busy loop.
const PAUSE_AFTER_ERROR: Duration = Duration::from_secs(1);

/// What a watcher is told.
pub(crate) enum Notice {
    /// Something changed.
    Message(RouteNetlinkMessage),
    /// Notifications were lost, or could not be understood: read everything again.
    Lost,
    /// All notifications that were waiting have been handed over. Told after every burst, and once a period if one was
    /// asked for; so what is decided here rests on nothing outdated.
    Settled,
}

/// A socket that already collects notifications, though no thread reads it yet.
pub(crate) struct Subscription(Socket);

impl Subscription {
    /// Joins multicast groups (`RTNLGRP_*`) in the network namespace of the calling thread.
    pub(crate) fn new(groups: &[libc::c_uint]) -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        socket.set_non_blocking(true)?;
        if let Err(error) = socket.set_rx_buf_sz(SOCKET_BUFFER_BYTES) {
            tracing::debug!("setsockopt(SO_RCVBUF, {SOCKET_BUFFER_BYTES}): {error}");
        }
        for group in groups {
            socket.add_membership(*group)?;
        }
        Ok(Self(socket))
    }
}

/// The running thread. Dropping it ends the thread and waits for it; a closure that runs at that moment is waited for.
pub(crate) struct Watch {
    stop: Arc<EventFd>,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    /// Starts a thread called `name` (at most 15 characters show). `period`: how often
    /// [`Notice::Settled`] is wanted when nothing happens.
    pub(crate) fn start(
        name: &str,
        subscription: Subscription,
        period: Option<Duration>,
        on_notice: impl FnMut(Notice) + Send + 'static,
    ) -> io::Result<Self> {
        let stop = Arc::new(EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?);
        let signal = Arc::clone(&stop);
        let thread = thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || run(&subscription.0, &signal, period, on_notice))?;
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // A non-blocking eventfd refuses a write only when it is already signalled 2^64 - 2 times.
        let _ = self.stop.write(1);
        if let Some(thread) = self.thread.take()
            // A closure may own its own watcher and drop it: a thread cannot wait for itself.
            && thread.thread().id() != thread::current().id()
            && thread.join().is_err()
        {
            tracing::error!("a kernel watcher had panicked");
        }
    }
}

fn run(socket: &Socket, stop: &EventFd, period: Option<Duration>, mut on_notice: impl FnMut(Notice)) {
    let mut buffer = Vec::new();
    let mut settle_at = period.map(|period| Instant::now() + period);
    loop {
        let wait = settle_at.map(|at| at.saturating_duration_since(Instant::now()));
        let settled = match ready(socket, stop, wait) {
            Ok(Ready::Stop) => return,
            Ok(Ready::Notifications) => drain(socket, &mut buffer, &mut on_notice),
            Ok(Ready::Nothing) => Ok(settle_at.is_some_and(|at| Instant::now() >= at)),
            Err(error) => Err(error.into()),
        };
        match settled {
            Ok(true) => {
                on_notice(Notice::Settled);
                settle_at = period.map(|period| Instant::now() + period);
            }
            Ok(false) => {}
            Err(error) => {
                tracing::error!("waiting for notifications of the kernel: {error}");
                if pause(stop, PAUSE_AFTER_ERROR) {
                    return;
                }
                on_notice(Notice::Lost);
            }
        }
    }
}

/// Hands over what waits, up to [`DATAGRAMS_A_ROUND`]. `false`: there may be more.
fn drain(socket: &Socket, buffer: &mut Vec<u8>, on_notice: &mut impl FnMut(Notice)) -> io::Result<bool> {
    for _ in 0..DATAGRAMS_A_ROUND {
        match receive_datagram(socket, buffer) {
            Ok(()) => hand_over(buffer, on_notice),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(true),
            Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => on_notice(Notice::Lost),
            Err(error) => return Err(error),
        }
    }
    Ok(false)
}

fn hand_over(datagram: &[u8], on_notice: &mut impl FnMut(Notice)) {
    for message in messages(datagram, None) {
        match message.map(|message| message.payload) {
            Ok(NetlinkPayload::InnerMessage(message)) => on_notice(Notice::Message(message)),
            Ok(NetlinkPayload::Overrun(_)) => on_notice(Notice::Lost),
            Ok(_) => {}
            Err(error) => {
                tracing::debug!("netlink: a notification was not understood: {error}");
                on_notice(Notice::Lost);
            }
        }
    }
}

enum Ready {
    Stop,
    Notifications,
    Nothing,
}

fn ready(socket: &Socket, stop: &EventFd, wait: Option<Duration>) -> Result<Ready, Errno> {
    // Rounded up, so that a wait of less than a millisecond does not spin.
    let timeout = wait.map_or(PollTimeout::NONE, |wait| {
        PollTimeout::try_from(wait.as_millis() + 1).unwrap_or(PollTimeout::MAX)
    });
    let mut descriptors =
        [PollFd::new(stop.as_fd(), PollFlags::POLLIN), PollFd::new(socket.as_fd(), PollFlags::POLLIN)];
    match poll(&mut descriptors, timeout) {
        Ok(_) | Err(Errno::EINTR) => {}
        Err(error) => return Err(error),
    }
    // `any` also sees POLLERR, which is how a socket tells an overrun.
    let [stopped, readable] = descriptors.map(|descriptor| descriptor.any() == Some(true));
    Ok(if stopped {
        Ready::Stop
    } else if readable {
        Ready::Notifications
    } else {
        Ready::Nothing
    })
}

/// Waits, and says whether the watcher was stopped meanwhile.
fn pause(stop: &EventFd, time: Duration) -> bool {
    let mut descriptors = [PollFd::new(stop.as_fd(), PollFlags::POLLIN)];
    let timeout = PollTimeout::try_from(time.as_millis()).unwrap_or(PollTimeout::MAX);
    matches!(poll(&mut descriptors, timeout), Ok(ready) if ready > 0)
}
