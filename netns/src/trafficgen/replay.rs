//! Sends frames as they are: a capture, or packets that are too long for the [`Generator`](super::Generator).

use std::{
    io, mem,
    os::fd::{AsRawFd, OwnedFd},
    ptr,
    time::{Duration, Instant},
};

use nix::{
    sched::{CpuSet, sched_setaffinity},
    unistd::Pid,
};

use super::{
    generator::{Amount, Sent},
    statistics::{Way, accepted},
    traffic::{SpecError, Traffic},
};
use crate::{
    error::{Error, Result},
    packet_socket,
    pcap::TimedFrame,
};

/// Frames of one system call.
const BURST: usize = 64;
/// Longer waits sleep, up to this time before their end; shorter ones spin.
const SPIN: Duration = Duration::from_micros(200);
/// Different packets that are made of traffic; flows beyond are not sent.
const MOST_PACKETS: usize = 65_536;

/// When frames are sent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Pace {
    /// As fast as it goes.
    Unlimited,
    /// This many a second, at equal distances.
    Rate(u64),
    /// At the times of the capture, this many times as fast: 1 for its own speed.
    Recorded(f64),
}

/// Sends frames of any length up to the MTU, byte for byte, over and over, through a packet socket.
///
/// That takes the way through the host stack, which makes about a million packets a second of one core, and queues of the
/// interface are chosen by the kernel's hash of the flow: of one core's packets, each flow is on one queue, and many flows are
/// on all.
#[derive(Debug)]
pub struct Replay {
    socket: OwnedFd,
    interface: String,
    frames: Vec<TimedFrame>,
    /// How long the capture lasts: the beginning of the next round.
    round: Duration,
    core: Option<usize>,
}

impl Replay {
    /// Gets ready to send from `interface` of the calling thread's network namespace, in this order.
    ///
    /// # Errors
    ///
    /// If there is no frame, no such interface, or packet sockets are not allowed (CAP_NET_RAW).
    pub fn new(interface: &str, frames: Vec<TimedFrame>) -> Result<Self> {
        let (Some(first), Some(last)) = (frames.first(), frames.last()) else {
            return Err(SpecError::NoFrames.into());
        };
        // The last frame is followed by the first after the mean distance.
        let span = last.at.saturating_sub(first.at);
        let gaps = u32::try_from(frames.len() - 1).unwrap_or(u32::MAX).max(1);
        let round = span + span / gaps;
        let socket = packet_socket::open(interface, 0, &[])?;
        Ok(Self { socket, interface: interface.to_owned(), frames, round, core: None })
    }

    /// Gets ready to send what a generator of this traffic sends, in frames of any length; without time stamps, and at most
    /// 65,536 different packets.
    ///
    /// # Errors
    ///
    /// If the traffic cannot be made as asked, and as [`new`](Self::new).
    pub fn of_traffic(interface: &str, traffic: &Traffic) -> Result<Self> {
        if traffic.stamped {
            return Err(SpecError::StampsInReplay.into());
        }
        let turns = traffic.mix.as_ref().map_or(1, |mix| mix.frames().len());
        let packets =
            usize::try_from(traffic.flows).unwrap_or(usize::MAX).saturating_mul(turns).min(MOST_PACKETS);
        let frames = traffic.packets(interface, packets)?;
        let frames = frames.into_iter().map(|bytes| TimedFrame { bytes, at: Duration::ZERO });
        let core = traffic.cores.first().copied();
        Ok(Self { core, ..Self::new(interface, frames.collect())? })
    }

    /// Sends from this core.
    #[must_use]
    pub fn from_core(self, core: usize) -> Self {
        Self { core: Some(core), ..self }
    }

    /// Frames of one round.
    pub fn frames(&self) -> &[TimedFrame] {
        &self.frames
    }

    /// Sends, from the first frame on. The calling thread must be in the namespace of the interface, and is bound to the core
    /// that was chosen.
    ///
    /// # Errors
    ///
    /// If the socket fails, such as by the interface going down or a frame being longer than its MTU, or the core cannot be
    /// used.
    pub fn run(&mut self, pace: Pace, amount: Amount) -> Result<Sent> {
        if let Some(core) = self.core {
            let mut set = CpuSet::new();
            set.set(core)
                .and_then(|()| sched_setaffinity(Pid::from_raw(0), &set))
                .map_err(|_| SpecError::Core(core))?;
        }
        let (most, end) = match amount {
            Amount::Packets(packets) => (packets, None),
            Amount::For(time) => (u64::MAX, Some(time)),
        };
        let before = accepted(&self.interface, Way::Stack);
        let start = Instant::now();
        let mut sent = 0;
        while sent < most {
            let now = start.elapsed();
            if end.is_some_and(|end| now >= end) {
                break;
            }
            // Frames that are due, at most a burst and to the end of the round.
            let place = (sent % self.frames.len() as u64) as usize;
            let left = usize::try_from(most - sent).unwrap_or(usize::MAX);
            let within = BURST.min(self.frames.len() - place).min(left);
            let due = (0..within).take_while(|ahead| self.due(pace, sent + *ahead as u64) <= now).count();
            if due == 0 {
                let next = self.due(pace, sent).min(end.unwrap_or(Duration::MAX));
                match next.saturating_sub(start.elapsed()).checked_sub(SPIN) {
                    Some(time) => std::thread::sleep(time),
                    None => std::hint::spin_loop(),
                }
                continue;
            }
            sent += self.send(&self.frames[place..place + due])? as u64;
        }
        let elapsed = start.elapsed();
        let accepted =
            accepted(&self.interface, Way::Stack).zip(before).map(|(after, before)| after - before);
        Ok(Sent { packets: sent, refused: accepted.map(|accepted| sent.saturating_sub(accepted)), elapsed })
    }

    /// When packet `number` is due, after the start.
    fn due(&self, pace: Pace, number: u64) -> Duration {
        let (round, place) = (number / self.frames.len() as u64, number % self.frames.len() as u64);
        match pace {
            Pace::Unlimited => Duration::ZERO,
            Pace::Rate(rate) => {
                let nanoseconds = u128::from(number) * 1_000_000_000 / u128::from(rate.max(1));
                Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX))
            }
            Pace::Recorded(speed) => {
                let at = self.frames[place as usize].at.saturating_sub(self.frames[0].at);
                let at = at.as_secs_f64() + self.round.as_secs_f64() * round as f64;
                Duration::try_from_secs_f64(at / speed).unwrap_or(Duration::MAX)
            }
        }
    }

    /// Gives frames to the interface, and returns how many; of those some may have been refused.
    fn send(&self, frames: &[TimedFrame]) -> Result<usize> {
        let mut vectors: [libc::iovec; BURST] =
            [libc::iovec { iov_base: ptr::null_mut(), iov_len: 0 }; BURST];
        // SAFETY: plain data, for which all zeroes is a valid value: no address, no control data.
        let mut messages: [libc::mmsghdr; BURST] = unsafe { mem::zeroed() };
        for ((frame, vector), message) in frames.iter().zip(&mut vectors).zip(&mut messages) {
            // The kernel only reads.
            *vector =
                libc::iovec { iov_base: frame.bytes.as_ptr().cast_mut().cast(), iov_len: frame.bytes.len() };
            message.msg_hdr.msg_iov = vector;
            message.msg_hdr.msg_iovlen = 1;
        }
        let count = frames.len().min(BURST) as libc::c_uint;
        // SAFETY: as many messages as are filled in, each of one vector that names a frame's bytes; all outlive the call.
        let sent = unsafe { libc::sendmmsg(self.socket.as_raw_fd(), messages.as_mut_ptr(), count, 0) };
        if let Ok(sent @ 1..) = usize::try_from(sent) {
            return Ok(sent);
        }
        let error = io::Error::last_os_error();
        match error.raw_os_error() {
            // The first frame found the queue full, and is gone.
            Some(libc::ENOBUFS) => Ok(1),
            Some(libc::EINTR | libc::EAGAIN) => Ok(0),
            _ => {
                let longest = frames.iter().map(|frame| frame.bytes.len()).max().unwrap_or_default();
                let subject = format!("{} (frames of up to {longest} bytes)", self.interface);
                Err(Error::System { call: "sendmmsg", subject, source: error })
            }
        }
    }
}
