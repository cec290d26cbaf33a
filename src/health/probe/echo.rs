//! ICMP echo (RFC 792, RFC 4443). One raw socket a family serves all checks: each raw socket gets a copy of every message
//! that arrives, so one a check would cost the square of their number.
//!
//! The kernel's unprivileged ping sockets are not used: `net.ipv4.ping_group_range` is empty on many systems. CAP_NET_RAW,
//! which AF_XDP sockets need as well, is enough.

use std::{
    collections::HashMap,
    hash::{BuildHasher as _, RandomState},
    io::{self, ErrorKind},
    net::{IpAddr, SocketAddr},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    time::Instant,
};

// `sockopt_impl` calls the other one by its bare name.
use nix::{
    setsockopt_impl, sockopt_impl,
    sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, setsockopt, socket, sockopt},
};
use tokio::{net::UdpSocket, runtime::Handle, sync::oneshot};

use super::{Answer, Failure, within};
use crate::packet::{Icmp, Ipv4, checksum::Sum};

/// Room for some thousand answers at once; the kernel caps it at `net.core.rmem_max`.
const SOCKET_BUFFER_BYTES: usize = 1024 * 1024;

/// Header, and 16 bytes that only this process knows.
const MESSAGE_BYTES: usize = 24;

/// `IPPROTO_ICMPV6` as a level of `setsockopt`.
const SOL_ICMPV6: libc::c_int = libc::IPPROTO_ICMPV6;

/// `ICMP_FILTER` (raw(7)) and `ICMP6_FILTER` (RFC 3542, section 3.2) have the same number.
const FILTER: libc::c_int = 1;

// A set bit blocks a type; ICMP's filter knows the first 32.
sockopt_impl!(IcmpFilter, SetOnly, libc::SOL_RAW, FILTER, u32);
sockopt_impl!(Icmp6Filter, SetOnly, SOL_ICMPV6, FILTER, [u32; 8]);

/// Which ICMP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    /// ICMP.
    V4,
    /// ICMPv6.
    V6,
}

impl Family {
    const fn request(self) -> u8 {
        match self {
            Self::V4 => 8,
            Self::V6 => 128,
        }
    }

    const fn reply(self) -> u8 {
        match self {
            Self::V4 => 0,
            Self::V6 => 129,
        }
    }
}

/// Sends an echo request and waits for the reply.
pub(in crate::health) struct Echo {
    address: IpAddr,
    socket: Arc<Socket>,
}

impl Echo {
    pub(super) fn new(address: IpAddr, socket: Arc<Socket>) -> Self {
        Self { address, socket }
    }

    pub(super) async fn run(&self, deadline: Instant) -> Answer {
        let (waits, reply) = self.socket.expect(self.address);
        within(deadline, "no echo reply", async {
            self.socket.send(self.address, waits.number).await?;
            // The sender stays in the table until `waits` is dropped.
            reply.await.map_err(|_| io::Error::from(ErrorKind::BrokenPipe))
        })
        .await?;
        Ok("echo reply".to_owned())
    }
}

/// A raw socket, and who waits for what on it.
pub(in crate::health) struct Socket {
    /// A raw socket in fact: `sendto` and `recvfrom` with an IP address are all that the type stands for.
    socket: UdpSocket,
    family: Family,
    /// By identifier and sequence number, as one.
    waiting: Mutex<HashMap<u32, (IpAddr, oneshot::Sender<()>)>>,
    next: AtomicU32,
    secret: u64,
}

impl Socket {
    /// Opens it, and starts to read. Called within the runtime.
    pub(super) fn open(family: Family) -> io::Result<Arc<Self>> {
        let (domain, protocol) = match family {
            Family::V4 => (AddressFamily::Inet, SockProtocol::Icmp),
            Family::V6 => (AddressFamily::Inet6, SockProtocol::IcmpV6),
        };
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        let descriptor = socket(domain, SockType::Raw, flags, protocol)?;
        match family {
            Family::V4 => setsockopt(&descriptor, IcmpFilter, &!(1_u32 << Family::V4.reply()))?,
            Family::V6 => {
                let mut block = [u32::MAX; 8];
                block[usize::from(Family::V6.reply() / 32)] &= !(1 << (Family::V6.reply() % 32));
                setsockopt(&descriptor, Icmp6Filter, &block)?;
            }
        }
        if let Err(error) = setsockopt(&descriptor, sockopt::RcvBuf, &SOCKET_BUFFER_BYTES) {
            tracing::debug!("setsockopt(SO_RCVBUF, {SOCKET_BUFFER_BYTES}): {error}");
        }
        let random = RandomState::new();
        let socket = Arc::new(Self {
            socket: UdpSocket::from_std(descriptor.into())?,
            family,
            waiting: Mutex::default(),
            next: AtomicU32::new(random.hash_one(0) as u32),
            secret: random.hash_one(1),
        });
        Handle::current().spawn(read(Arc::clone(&socket)));
        Ok(socket)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u32, (IpAddr, oneshot::Sender<()>)>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a reply from `address` from now on, until the guard is dropped.
    fn expect(&self, address: IpAddr) -> (Waits<'_>, oneshot::Receiver<()>) {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let (sender, receiver) = oneshot::channel();
        self.lock().insert(number, (address, sender));
        (Waits { socket: self, number }, receiver)
    }

    async fn send(&self, address: IpAddr, number: u32) -> io::Result<()> {
        let message = request(self.family, number, self.secret);
        // A raw IPv6 socket wants no port.
        self.socket.send_to(&message, SocketAddr::new(address, 0)).await?;
        Ok(())
    }

    /// Wakes who waits for this message.
    fn take(&self, from: IpAddr, packet: &[u8]) {
        let Some(number) = reply(self.family, packet, self.secret) else {
            return;
        };
        let mut waiting = self.lock();
        if waiting.get(&number).is_some_and(|(address, _)| *address == from)
            && let Some((_, sender)) = waiting.remove(&number)
        {
            // Whoever waited may have given up just now.
            let _ = sender.send(());
        }
    }
}

/// An entry of [`Socket::waiting`].
struct Waits<'s> {
    socket: &'s Socket,
    number: u32,
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.socket.lock().remove(&self.number);
    }
}

/// Takes messages for as long as the runtime runs.
async fn read(socket: Arc<Socket>) {
    let mut buffer = [0; 2048];
    loop {
        match socket.socket.recv_from(&mut buffer).await {
            Ok((bytes, from)) => socket.take(from.ip(), &buffer[..bytes]),
            Err(error) => {
                // Pending errors of the socket are told once each.
                tracing::debug!("receiving ICMP: {}", Failure::from(error));
                tokio::task::yield_now().await;
            }
        }
    }
}

/// An echo request. The kernel fills in the checksum of ICMPv6, as it knows the source address.
fn request(family: Family, number: u32, secret: u64) -> [u8; MESSAGE_BYTES] {
    let mut message = [0; MESSAGE_BYTES];
    message[0] = family.request();
    message[4..8].copy_from_slice(&number.to_be_bytes());
    message[8..16].copy_from_slice(&secret.to_be_bytes());
    message[16..24].copy_from_slice(&(secret ^ u64::from(number)).to_be_bytes());
    if family == Family::V4 {
        let checksum = Sum::new().bytes(&message).checksum();
        message[2..4].copy_from_slice(&checksum.to_be_bytes());
    }
    message
}

/// The number of a reply to one of our requests. A raw IPv4 socket gives the IP header too.
fn reply(family: Family, packet: &[u8], secret: u64) -> Option<u32> {
    let message = match family {
        Family::V4 => packet.get(Ipv4::new_checked(packet).ok()?.header_bytes()..)?,
        Family::V6 => packet,
    };
    let icmp = Icmp::new_checked(message).ok()?;
    let number = u32::from_be_bytes(message.get(4..8)?.try_into().ok()?);
    let as_sent = request(family, number, secret);
    let ours = icmp.message_type() == family.reply() && icmp.code() == 0 && message[8..] == as_sent[8..];
    ours.then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: u64 = 0x0123_4567_89ab_cdef;

    fn answered(number: u32) -> Vec<u8> {
        let mut message = request(Family::V6, number, SECRET).to_vec();
        message[0] = Family::V6.reply();
        message
    }

    #[test]
    fn request_has_a_valid_checksum() {
        let message = request(Family::V4, 0x0001_0002, SECRET);
        assert_eq!(message[..2], [8, 0]);
        assert_eq!(Sum::new().bytes(&message).checksum(), 0);
    }

    #[test]
    fn reply_is_ours_only_with_type_number_and_payload_of_the_request() {
        assert_eq!(reply(Family::V6, &answered(7), SECRET), Some(7));
        assert_eq!(reply(Family::V6, &answered(7), SECRET + 1), None);
        assert_eq!(reply(Family::V6, &request(Family::V6, 7, SECRET), SECRET), None);
        for (byte, to) in [(1, 1), (7, 8), (20, 0)] {
            let mut changed = answered(7);
            changed[byte] = to;
            assert_eq!(reply(Family::V6, &changed, SECRET), None, "byte {byte}");
        }
        for length in 0..MESSAGE_BYTES {
            assert_eq!(reply(Family::V6, &answered(7)[..length], SECRET), None);
        }
    }

    #[test]
    fn reply_over_ipv4_is_found_behind_options() {
        let mut packet = vec![0x46, 0, 0, 0, 0, 0, 0, 0, 64, 1, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2, 1, 1, 1, 0];
        let mut message = request(Family::V4, 9, SECRET);
        message[0] = Family::V4.reply();
        packet.extend(message);
        assert_eq!(reply(Family::V4, &packet, SECRET), Some(9));
    }
}
