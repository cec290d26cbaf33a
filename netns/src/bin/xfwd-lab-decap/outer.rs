//! The sockets that packets from tunnels arrive at. The kernel has checked the outer headers, put fragments together, and
//! checked the UDP checksum.

use std::{
    io::{self, IoSliceMut},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    ops::Range,
    os::fd::{AsFd, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd},
};

use anyhow::{Context as _, Result, ensure};
use nix::{
    cmsg_space,
    errno::Errno,
    libc,
    sys::socket::{ControlMessageOwned, MsgFlags, SockaddrStorage, bind, recvmsg, setsockopt, sockopt},
};

/// Receive buffer of each socket, for bursts.
const BUFFER_BYTES: usize = 8 << 20;

mod option {
    #![allow(missing_docs, reason = "made by a macro")]
    use nix::{getsockopt_impl, libc, setsockopt_impl, sockopt_impl};

    sockopt_impl!(
        /// Takes UDP over IPv6 without a checksum (RFC 6935).
        UdpNoCheck6Rx,
        Both,
        libc::IPPROTO_UDP,
        libc::UDP_NO_CHECK6_RX,
        bool
    );
}

/// A socket for one kind of outer headers.
pub struct Outer {
    socket: OwnedFd,
    /// The outer header is IPv6.
    pub is_ipv6: bool,
    pub carrier: Carrier,
}

/// What is between the outer IP header and the inner one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carrier {
    /// Nothing; the outer header's protocol number says which version (4 or 6) the inner one has.
    Ip { version: u8 },
    /// A UDP header.
    Gue { port: u16 },
}

/// What a socket has received; the bytes are in the caller's buffer.
#[derive(Debug)]
pub struct Received {
    /// Where the inner packet is in the buffer.
    pub inner: Range<usize>,
    /// The IP version that the inner packet must have, if the outer headers say.
    pub version: Option<u8>,
    /// Traffic class (TOS) of the outer header.
    pub traffic_class: u8,
    /// The outer destination is an address of this host, not of a group.
    pub is_ours: bool,
    /// The outer source, with the port if there is one, else 0.
    pub source: SocketAddr,
    pub is_gue: bool,
}

impl Outer {
    /// Sockets for all kinds.
    pub fn all(gue_port: u16, zero_checksum6: bool) -> Result<Vec<Self>> {
        let carriers =
            [Carrier::Ip { version: 4 }, Carrier::Ip { version: 6 }, Carrier::Gue { port: gue_port }];
        let kinds = carriers.into_iter().flat_map(|carrier| [(false, carrier), (true, carrier)]);
        let sockets = kinds.map(|(is_ipv6, carrier)| {
            let socket = Self::open(is_ipv6, carrier)
                .with_context(|| format!("a socket for {carrier:?}, ipv6={is_ipv6}"))?;
            if is_ipv6 && matches!(carrier, Carrier::Gue { .. }) {
                setsockopt(&socket.socket, option::UdpNoCheck6Rx, &zero_checksum6)?;
            }
            Ok(socket)
        });
        sockets.collect()
    }

    fn open(is_ipv6: bool, carrier: Carrier) -> Result<Self> {
        let family = if is_ipv6 { libc::AF_INET6 } else { libc::AF_INET };
        let (kind, protocol) = match carrier {
            Carrier::Ip { version: 4 } => (libc::SOCK_RAW, libc::IPPROTO_IPIP),
            Carrier::Ip { .. } => (libc::SOCK_RAW, libc::IPPROTO_IPV6),
            Carrier::Gue { .. } => (libc::SOCK_DGRAM, libc::IPPROTO_UDP),
        };
        // nix has no names for these protocols.
        // SAFETY: a system call without pointers.
        let socket =
            unsafe { libc::socket(family, kind | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK, protocol) };
        ensure!(socket >= 0, io::Error::last_os_error());
        // SAFETY: just opened, and owned by nobody else.
        let socket = unsafe { OwnedFd::from_raw_fd(socket) };
        setsockopt(&socket, sockopt::RcvBufForce, &BUFFER_BYTES)?;
        if is_ipv6 {
            setsockopt(&socket, sockopt::Ipv6RecvPacketInfo, &true)?;
            setsockopt(&socket, sockopt::Ipv6RecvTClass, &true)?;
        } else {
            setsockopt(&socket, sockopt::Ipv4PacketInfo, &true)?;
            setsockopt(&socket, sockopt::IpRecvTos, &true)?;
        }
        if let Carrier::Gue { port } = carrier {
            if is_ipv6 {
                setsockopt(&socket, sockopt::Ipv6V6Only, &true)?;
            }
            let any: IpAddr =
                if is_ipv6 { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() };
            bind(socket.as_raw_fd(), &SockaddrStorage::from(SocketAddr::new(any, port)))?;
        }
        Ok(Self { socket, is_ipv6, carrier })
    }

    /// The next packet, if there is one, whose bytes are then in `buffer`.
    pub fn receive(&self, buffer: &mut [u8]) -> Result<Option<Received>> {
        let mut control = cmsg_space!(libc::in6_pktinfo, libc::c_int, [u64; 4]);
        let mut slices = [IoSliceMut::new(buffer)];
        let message = loop {
            let flags = MsgFlags::MSG_DONTWAIT;
            match recvmsg::<SockaddrStorage>(self.socket.as_raw_fd(), &mut slices, Some(&mut control), flags)
            {
                Err(Errno::EAGAIN) => return Ok(None),
                // An ICMP error about something that the host sent from here; nothing is.
                Err(Errno::EINTR | Errno::ECONNREFUSED | Errno::EHOSTUNREACH) => {}
                result => break result.context("recvmsg")?,
            }
        };
        let (mut traffic_class, mut is_ours) = (0, false);
        for control in message.cmsgs().context("control messages")? {
            match control {
                ControlMessageOwned::Ipv4Tos(tos) => traffic_class = tos,
                ControlMessageOwned::Ipv6TClass(class) => traffic_class = class as u8,
                // The local address that stands for the destination, and the destination.
                ControlMessageOwned::Ipv4PacketInfo(info) => {
                    is_ours = info.ipi_spec_dst.s_addr == info.ipi_addr.s_addr;
                }
                ControlMessageOwned::Ipv6PacketInfo(info) => {
                    is_ours = !Ipv6Addr::from(info.ipi6_addr.s6_addr).is_multicast();
                }
                _ => {}
            }
        }
        let source = message.address.as_ref().and_then(socket_address).context("a sender")?;
        let length = message.bytes;
        let is_gue = matches!(self.carrier, Carrier::Gue { .. });
        // A raw IPv4 socket alone gets the outer header.
        let start = if self.is_ipv6 || is_gue { 0 } else { usize::from(buffer[0] & 0xf) * 4 };
        let version = match self.carrier {
            Carrier::Ip { version } => Some(version),
            Carrier::Gue { .. } => None,
        };
        let source = if is_gue { source } else { SocketAddr::new(source.ip(), 0) };
        Ok(Some(Received { inner: start..length, version, traffic_class, is_ours, source, is_gue }))
    }
}

impl AsFd for Outer {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn socket_address(address: &SockaddrStorage) -> Option<SocketAddr> {
    let v4 = address.as_sockaddr_in().map(|address| SocketAddr::from((address.ip(), address.port())));
    v4.or_else(|| {
        Some(SocketAddr::from((address.as_sockaddr_in6()?.ip(), address.as_sockaddr_in6()?.port())))
    })
}
