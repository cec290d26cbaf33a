//! Whole frames as a host's network stack sees them, by an AF_PACKET socket.

use std::{
    io, mem,
    os::fd::{AsRawFd, OwnedFd},
    panic,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use crate::{
    error::{Error, Result},
    packet_socket,
};

/// Receive buffer, for bursts of some 10,000 small frames.
const BUFFER_BYTES: libc::c_int = 64 << 20;
/// More than the longest frame of a veth.
const FRAME_BYTES: usize = 70_000;
const PACKET_IGNORE_OUTGOING: libc::c_int = 23;

/// Receives what arrives at an interface, and passes on to the host. XDP programs act before it.
#[derive(Debug)]
pub struct Capture {
    socket: OwnedFd,
}

/// One received frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Captured {
    /// The frame from its Ethernet header on; a VLAN tag that the kernel took out is back in its place.
    pub bytes: Vec<u8>,
    /// The kernel has left a checksum unfinished, for an offload that never happened.
    pub partial_checksum: bool,
}

impl Capture {
    /// Starts to receive on `interface` of the calling thread's network namespace.
    ///
    /// # Errors
    ///
    /// If there is no such interface, or AF_PACKET sockets are not allowed (CAP_NET_RAW).
    pub fn open(interface: &str) -> Result<Self> {
        let options = [
            (libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, BUFFER_BYTES),
            (libc::SOL_PACKET, libc::PACKET_AUXDATA, 1),
            (libc::SOL_PACKET, PACKET_IGNORE_OUTGOING, 1),
        ];
        let socket = packet_socket::open(interface, libc::ETH_P_ALL, &options)?;
        Ok(Self { socket })
    }

    /// Sends a frame out of the interface. `false`: its queue is full now.
    ///
    /// # Errors
    ///
    /// If the socket fails, such as by the interface going down, or the frame being too long for it.
    pub fn send(&self, frame: &[u8]) -> Result<bool> {
        // SAFETY: the kernel reads the frame's bytes.
        let sent = unsafe {
            libc::send(self.socket.as_raw_fd(), frame.as_ptr().cast(), frame.len(), libc::MSG_DONTWAIT)
        };
        if sent >= 0 {
            return Ok(true);
        }
        match Error::last_os("send", "AF_PACKET") {
            Error::System { source, .. }
                if matches!(source.raw_os_error(), Some(libc::EAGAIN | libc::ENOBUFS)) =>
            {
                Ok(false)
            }
            error => Err(error),
        }
    }

    /// Goes on to receive on a thread of its own.
    pub fn record(self) -> Recording {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            let mut frames = Vec::new();
            loop {
                // Read before the wait: what arrived before the end is in the socket then, and is still taken.
                let last = stopped.load(Ordering::Relaxed);
                match self.next(Duration::from_millis(20))? {
                    Some(frame) => frames.push(frame),
                    None if last => return Ok(frames),
                    None => {}
                }
            }
        });
        Recording { stop, thread: Some(thread) }
    }

    /// The next frame, or `None` if none arrives in this time.
    ///
    /// # Errors
    ///
    /// If the socket fails, such as by the interface going down.
    pub fn next(&self, timeout: Duration) -> Result<Option<Captured>> {
        let mut poll = libc::pollfd { fd: self.socket.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        let milliseconds = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX);
        // SAFETY: one pollfd, as said.
        match unsafe { libc::poll(&raw mut poll, 1, milliseconds) } {
            0 => return Ok(None),
            count if count < 0 => {
                let error = io::Error::last_os_error();
                if error.kind() == io::ErrorKind::Interrupted {
                    return Ok(None);
                }
                return Err(Error::System { call: "poll", subject: "AF_PACKET".to_owned(), source: error });
            }
            _ => {}
        }
        let mut bytes = vec![0; FRAME_BYTES];
        // Room for one tpacket_auxdata with its header, aligned as a header must be.
        let mut control = [0u64; 8];
        let mut buffer = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
        // SAFETY: plain data, for which all zeroes is a valid value.
        let mut message: libc::msghdr = unsafe { mem::zeroed() };
        message.msg_iov = &raw mut buffer;
        message.msg_iovlen = 1;
        message.msg_control = control.as_mut_ptr().cast();
        message.msg_controllen = mem::size_of_val(&control);
        // SAFETY: the message points to buffers of the lengths it names, which outlive the call.
        let length = unsafe { libc::recvmsg(self.socket.as_raw_fd(), &raw mut message, 0) };
        let Ok(length) = usize::try_from(length) else {
            return Err(Error::last_os("recvmsg", "AF_PACKET"));
        };
        bytes.truncate(length);
        // Captures can be long, and most frames are short.
        bytes.shrink_to_fit();
        let mut captured = Captured { bytes, partial_checksum: false };
        // SAFETY: the kernel has filled the message in; headers are walked by the macros made for it.
        let mut header = unsafe { libc::CMSG_FIRSTHDR(&raw const message) };
        while !header.is_null() {
            // SAFETY: not null, so a header inside `control`.
            let (level, kind) = unsafe { ((*header).cmsg_level, (*header).cmsg_type) };
            if (level, kind) == (libc::SOL_PACKET, libc::PACKET_AUXDATA) {
                // SAFETY: the data of this kind of header is a tpacket_auxdata, which need not be aligned.
                let auxiliary: libc::tpacket_auxdata =
                    unsafe { libc::CMSG_DATA(header).cast::<libc::tpacket_auxdata>().read_unaligned() };
                captured.apply(&auxiliary);
            }
            // SAFETY: `header` is a header of `message`.
            header = unsafe { libc::CMSG_NXTHDR(&raw const message, header) };
        }
        Ok(Some(captured))
    }
}

/// A capture that runs in the background.
#[derive(Debug)]
pub struct Recording {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<Vec<Captured>>>>,
}

impl Recording {
    /// Ends it, once nothing has arrived for 20 ms, and returns all frames in their order.
    ///
    /// # Errors
    ///
    /// If the socket failed, such as by the interface going down.
    pub fn stop(mut self) -> Result<Vec<Captured>> {
        self.stop.store(true, Ordering::Relaxed);
        let Some(thread) = self.thread.take() else {
            return Ok(Vec::new());
        };
        thread.join().unwrap_or_else(|payload| panic::resume_unwind(payload))
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

impl Captured {
    fn apply(&mut self, auxiliary: &libc::tpacket_auxdata) {
        let has = |flag: libc::__u32| auxiliary.tp_status & flag != 0;
        self.partial_checksum = has(libc::TP_STATUS_CSUMNOTREADY);
        if has(libc::TP_STATUS_VLAN_VALID) && self.bytes.len() >= 12 {
            let known = has(libc::TP_STATUS_VLAN_TPID_VALID);
            let kind = if known { auxiliary.tp_vlan_tpid } else { libc::ETH_P_8021Q as u16 };
            let tag = [kind.to_be_bytes(), auxiliary.tp_vlan_tci.to_be_bytes()];
            self.bytes.splice(12..12, tag.into_iter().flatten());
        }
    }
}
