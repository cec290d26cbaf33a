//! A thread that listens to the kernel's notifications of some kinds and hands them to a [`Listener`].
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
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
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
    /// All notifications that were waiting have been handed over. Told after every burst, when [`Listener::due`] has
    /// come, and after [`Watch::wake`]; so what is decided here rests on nothing outdated.
    Settled,
}

/// Who is told. A closure that needs no clock is one.
pub(crate) trait Listener: Send + 'static {
    /// Takes in what happened.
    fn notice(&mut self, notice: Notice);

    /// When [`Notice::Settled`] is wanted although nothing happens. It has to move on when that is told.
    fn due(&self) -> Option<Instant> {
        None
    }
}

impl<F: FnMut(Notice) + Send + 'static> Listener for F {
    fn notice(&mut self, notice: Notice) {
        self(notice);
    }
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

/// The running thread. Dropping it ends the thread and waits for it; a listener that is busy at that moment is waited
/// for.
pub(crate) struct Watch {
    signal: Arc<Signal>,
    thread: Option<JoinHandle<()>>,
}

/// What other threads have to say to the watcher's.
struct Signal {
    event: EventFd,
    stop: AtomicBool,
}

impl Watch {
    /// Starts a thread called `name` (at most 15 characters show).
    pub(crate) fn start(
        name: &str,
        subscription: Subscription,
        mut listener: impl Listener,
    ) -> io::Result<Self> {
        let event = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
        let signal = Arc::new(Signal { event, stop: AtomicBool::new(false) });
        let shared = Arc::clone(&signal);
        let thread = thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || run(&subscription.0, &shared, &mut listener))?;
        Ok(Self { signal, thread: Some(thread) })
    }

    /// Tells the listener [`Notice::Settled`] soon, after what else waits.
    pub(crate) fn wake(&self) {
        // A non-blocking eventfd refuses a write only when it is already signalled 2^64 - 2 times.
        let _ = self.signal.event.write(1);
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.signal.stop.store(true, Ordering::Release);
        self.wake();
        if let Some(thread) = self.thread.take()
            // A listener may own its own watcher and drop it: a thread cannot wait for itself.
            && thread.thread().id() != thread::current().id()
            && thread.join().is_err()
        {
            tracing::error!("a kernel watcher had panicked");
        }
    }
}

fn run(socket: &Socket, signal: &Signal, listener: &mut impl Listener) {
    let mut buffer = Vec::new();
    loop {
        let due = listener.due();
        let wait = due.map(|due| due.saturating_duration_since(Instant::now()));
        let ready = ready(socket, signal, wait);
        if signal.stop.load(Ordering::Acquire) {
            return;
        }
        let settled = match ready {
            Ok(true) => drain(socket, &mut buffer, listener),
            Ok(false) => Ok(due.is_some_and(|due| Instant::now() >= due)),
            Err(error) => Err(error.into()),
        };
        match settled {
            Ok(true) => listener.notice(Notice::Settled),
            Ok(false) => {}
            Err(error) => {
                tracing::error!("waiting for notifications of the kernel: {error}");
                if pause(signal, PAUSE_AFTER_ERROR) {
                    return;
                }
                listener.notice(Notice::Lost);
            }
        }
    }
}

/// Hands over what waits, up to [`DATAGRAMS_A_ROUND`]. `false`: there may be more.
fn drain(socket: &Socket, buffer: &mut Vec<u8>, listener: &mut impl Listener) -> io::Result<bool> {
    for _ in 0..DATAGRAMS_A_ROUND {
        match receive_datagram(socket, buffer) {
            Ok(()) => hand_over(buffer, listener),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(true),
            Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => listener.notice(Notice::Lost),
            Err(error) => return Err(error),
        }
    }
    Ok(false)
}

fn hand_over(datagram: &[u8], listener: &mut impl Listener) {
    for message in messages(datagram, None) {
        match message.map(|message| message.payload) {
            Ok(NetlinkPayload::InnerMessage(message)) => listener.notice(Notice::Message(message)),
            Ok(NetlinkPayload::Overrun(_)) => listener.notice(Notice::Lost),
            Ok(_) => {}
            Err(error) => {
                tracing::debug!("netlink: a notification was not understood: {error}");
                listener.notice(Notice::Lost);
            }
        }
    }
}

/// Waits for notifications, a signal, or the time. `true`: for one of the first two.
fn ready(socket: &Socket, signal: &Signal, wait: Option<Duration>) -> Result<bool, Errno> {
    // Rounded up, so that a wait of less than a millisecond does not spin.
    let timeout = wait.map_or(PollTimeout::NONE, |wait| {
        PollTimeout::try_from(wait.as_millis() + 1).unwrap_or(PollTimeout::MAX)
    });
    let mut descriptors = [
        PollFd::new(signal.event.as_fd(), PollFlags::POLLIN),
        PollFd::new(socket.as_fd(), PollFlags::POLLIN),
    ];
    match poll(&mut descriptors, timeout) {
        Ok(_) | Err(Errno::EINTR) => {}
        Err(error) => return Err(error),
    }
    // `any` also sees POLLERR, which is how a socket tells an overrun.
    let [signalled, readable] = descriptors.map(|descriptor| descriptor.any() == Some(true));
    if signalled {
        // Takes the signal back; it cannot fail, as nobody else reads.
        let _ = signal.event.read();
    }
    Ok(signalled || readable)
}

/// Waits, and says whether the watcher was stopped meanwhile.
fn pause(signal: &Signal, time: Duration) -> bool {
    let mut descriptors = [PollFd::new(signal.event.as_fd(), PollFlags::POLLIN)];
    let timeout = PollTimeout::try_from(time.as_millis()).unwrap_or(PollTimeout::MAX);
    // The time is kept by poll; an error of it only shortens the pause.
    let _ = poll(&mut descriptors, timeout);
    signal.stop.load(Ordering::Acquire)
}
