//! A half-open TCP connection to the VIP, by the service's own way: a SYN is sent as a client's would be forwarded, the SYN-ACK of the
//! backend comes back directly, as to a client, and a RST ends it. So the check fails too when the backend lacks the VIP, or
//! does not decapsulate.
//!
//! The RST goes by the same way as the SYN. The kernel sends one as well, since it knows no such connection, but that is
//! routed to the VIP: to wherever the VIP is routed.
//!
//! The SYN-ACK is seen by a packet socket, before the host's routing: the VIP is often an address of this host, which answers ARP for it,
//! and routing drops what comes from an address of its own. The port is reserved while a check runs, so that no
//! connection of this host uses it.
//!
//! Source: RFC 9293 (3.5, reset generation in 3.5.2), raw(7), packet(7), the kernel's Documentation/networking/filter.rst.

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, SocketAddr},
    os::fd::{AsRawFd as _, OwnedFd},
    sync::Arc,
    time::Instant,
};

use nix::{
    ifaddrs::getifaddrs,
    sys::socket::{AddressFamily, LinkAddr, MsgFlags, SockFlag, SockType, sendto, socket},
};
use socket2::{Domain, Protocol, SockFilter, Socket, Type};
use tokio::net::UdpSocket;

use super::{Answer, Failure, within};
use crate::{
    health::{Delivery, HealthError, ServicePath},
    packet::{Ipv4, Ipv6, Tcp, checksum::Sum, protocol},
};

const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const ACK: u8 = 0x10;

/// IP in IP (RFC 2003, RFC 2473), and IPv6 in IP.
const IPV4_IN_IP: i32 = 4;
const IPV6_IN_IP: i32 = 41;

/// Of the packets that are sent, as the kernel's.
const HOP_LIMIT: u8 = 64;

/// Opens half a connection.
pub(in crate::health) struct Path {
    path: ServicePath,
    /// Backend, where tunnels end.
    backend: IpAddr,
    /// For [`Delivery::Frame`].
    link: Option<(Arc<OwnedFd>, LinkAddr)>,
}

/// What sends Ethernet frames.
#[derive(Default)]
pub(super) struct Links {
    socket: Option<Arc<OwnedFd>>,
    addresses: HashMap<u32, LinkAddr>,
}

impl Path {
    pub(super) fn new(
        path: &ServicePath,
        backend: IpAddr,
        links: &mut Links,
        wrong: impl FnOnce(String) -> HealthError,
    ) -> Result<Self, HealthError> {
        if path.vip.is_ipv4() != path.source.is_ipv4() {
            return Err(wrong(format!("{} cannot be reached from {}", path.vip, path.source)));
        }
        let from = match path.delivery {
            Delivery::Ipip { from } | Delivery::Gue { from, .. } => from,
            Delivery::Frame { .. } => None,
        };
        if let Some(from) = from.filter(|from| from.is_ipv4() != backend.is_ipv4()) {
            return Err(wrong(format!("{backend} cannot be reached from {from}")));
        }
        // Tried once, so that a lack of privileges shows at the start.
        may_listen(path)?;
        let link = match path.delivery {
            Delivery::Frame { interface, .. } => {
                let socket = links.socket()?;
                let address = links
                    .address(interface)?
                    .ok_or_else(|| wrong(format!("there is no interface #{interface}")))?;
                Some((socket, address))
            }
            Delivery::Ipip { .. } | Delivery::Gue { .. } => None,
        };
        Ok(Self { path: path.clone(), backend, link })
    }

    pub(super) async fn run(&self, deadline: Instant) -> Answer {
        let step = format!("no SYN-ACK from {}", self.path.vip);
        within(deadline, &step, self.half_open()).await
    }

    async fn half_open(&self) -> Result<String, Failure> {
        let vip = self.path.vip;
        // Not for packets: it keeps the port from others.
        let reserved = Socket::new(Domain::for_address(vip), Type::STREAM, Some(Protocol::TCP))?;
        reserved.bind(&SocketAddr::new(self.path.source, 0).into())?;
        let from = reserved
            .local_addr()?
            .as_socket()
            .ok_or_else(|| io::Error::from(io::ErrorKind::AddrNotAvailable))?;
        let answers = UdpSocket::from_std(OwnedFd::from(listen(from, vip)?).into())?;

        let sequence = sequence();
        self.send(&segment(from, vip, sequence, SYN)).await?;
        let mut buffer = [0; 2048];
        loop {
            let bytes = answers.recv(&mut buffer).await?;
            match judge(&buffer[..bytes], from, vip, sequence) {
                Some(Seen::SynAck) => {
                    self.send(&segment(from, vip, sequence.wrapping_add(1), RST)).await?;
                    return Ok(format!("SYN-ACK from {vip}"));
                }
                Some(Seen::Reset) => return Err(Failure(format!("connection to {vip} refused"))),
                None => {}
            }
        }
    }

    /// Sends an IP packet by the service's way.
    async fn send(&self, packet: &[u8]) -> io::Result<()> {
        match self.path.delivery {
            Delivery::Frame { from, to, .. } => {
                let Some((socket, address)) = &self.link else {
                    return Err(io::ErrorKind::NotFound.into());
                };
                let ethertype = if self.path.vip.is_ipv4() { libc::ETH_P_IP } else { libc::ETH_P_IPV6 };
                // ETH_P_* are two-byte values in an int.
                let ethertype = (ethertype as u16).to_be_bytes();
                let frame = [&to.octets(), &from.octets(), &ethertype[..], packet].concat();
                sendto(socket.as_raw_fd(), &frame, address, MsgFlags::empty())?;
            }
            Delivery::Ipip { from } => {
                let inner = if self.path.vip.is_ipv4() { IPV4_IN_IP } else { IPV6_IN_IP };
                let socket = raw(Domain::for_address(SocketAddr::new(self.backend, 0)), inner)?;
                if let Some(from) = from {
                    socket.bind(&SocketAddr::new(from, 0).into())?;
                }
                socket.send_to(packet, &SocketAddr::new(self.backend, 0).into())?;
            }
            Delivery::Gue { from, port } => {
                let any =
                    if self.backend.is_ipv4() { IpAddr::from([0_u8; 4]) } else { IpAddr::from([0_u16; 8]) };
                let socket = UdpSocket::bind((from.unwrap_or(any), 0)).await?;
                socket.send_to(packet, (self.backend, port)).await?;
            }
        }
        Ok(())
    }
}

impl Links {
    fn socket(&mut self) -> Result<Arc<OwnedFd>, HealthError> {
        if let Some(socket) = &self.socket {
            return Ok(Arc::clone(socket));
        }
        // Protocol 0: it receives nothing.
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        let open = socket(AddressFamily::Packet, SockType::Raw, flags, None)
            .map_err(|error| refused("socket(AF_PACKET)")(error.into()))?;
        Ok(Arc::clone(self.socket.insert(Arc::new(open))))
    }

    fn address(&mut self, interface: u32) -> Result<Option<LinkAddr>, HealthError> {
        if !self.addresses.contains_key(&interface) {
            let failed = |error: nix::Error| HealthError::System { call: "getifaddrs", source: error.into() };
            let links =
                getifaddrs().map_err(failed)?.filter_map(|entry| entry.address?.as_link_addr().copied());
            self.addresses =
                links.filter_map(|link| Some((u32::try_from(link.ifindex()).ok()?, link))).collect();
        }
        Ok(self.addresses.get(&interface).copied())
    }
}

fn refused(call: &'static str) -> impl FnOnce(io::Error) -> HealthError {
    move |source| match source.kind() {
        io::ErrorKind::PermissionDenied => HealthError::NotPermitted { kind: "tcp through the path", source },
        _ => HealthError::System { call, source },
    }
}

/// Whether this process may look for answers.
fn may_listen(path: &ServicePath) -> Result<(), HealthError> {
    match listen(SocketAddr::new(path.source, 0), path.vip) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            Err(refused("socket(AF_PACKET)")(error))
        }
        _ => Ok(()),
    }
}

/// A socket that sees IP packets with TCP segments from the VIP to this end, which [`judge`] looks at again: what comes before the
/// filter is set may be anything.
fn listen(from: SocketAddr, vip: SocketAddr) -> io::Result<Socket> {
    let ethertype = if vip.is_ipv4() { libc::ETH_P_IP } else { libc::ETH_P_IPV6 };
    let protocol = Protocol::from(i32::from((ethertype as u16).to_be()));
    let socket = Socket::new(Domain::PACKET, Type::DGRAM, Some(protocol))?;
    let program = filter(from.port(), vip).into_iter();
    let program = program.map(|step| SockFilter::new(step.code, step.jt, step.jf, step.k));
    socket.attach_filter(&program.collect::<Vec<_>>())?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// A classic BPF program that lets packets from `vip` to TCP port `port` pass. A VIP has no options to send, so the TCP header
/// stands at the end of the bare IP header.
fn filter(port: u16, vip: SocketAddr) -> Vec<libc::sock_filter> {
    const WORD: u32 = libc::BPF_W;
    const HALF: u32 = libc::BPF_H;
    const BYTE: u32 = libc::BPF_B;
    let (protocol_at, source_at, tcp_at, source) = match vip.ip() {
        IpAddr::V4(address) => (9, 12, 20, address.octets().to_vec()),
        IpAddr::V6(address) => (6, 8, 40, address.octets().to_vec()),
    };
    let words = source.chunks_exact(4).enumerate().map(|(index, word)| {
        let word = word.iter().fold(0, |word, byte| word << 8 | u32::from(*byte));
        (WORD, source_at + 4 * index as u32, word)
    });
    let ports = [(HALF, tcp_at, vip.port()), (HALF, tcp_at + 2, port)];
    let tests: Vec<_> = [(BYTE, protocol_at, u32::from(protocol::TCP))]
        .into_iter()
        .chain(words)
        .chain(ports.map(|(size, at, port)| (size, at, u32::from(port))))
        .collect();
    let step = |code: u32, jf: usize, k| libc::sock_filter { code: code as u16, jt: 0, jf: jf as u8, k };
    let mut program = Vec::with_capacity(2 * tests.len() + 2);
    for (index, (size, at, value)) in tests.iter().enumerate() {
        program.push(step(libc::BPF_LD | size | libc::BPF_ABS, 0, *at));
        // Over the tests that are left, and the acceptance.
        let over = 2 * (tests.len() - index - 1) + 1;
        program.push(step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, over, *value));
    }
    program.push(step(libc::BPF_RET | libc::BPF_K, 0, u32::MAX));
    program.push(step(libc::BPF_RET | libc::BPF_K, 0, 0));
    program
}

fn raw(domain: Domain, protocol: i32) -> io::Result<Socket> {
    let socket = Socket::new(domain, Type::RAW, Some(Protocol::from(protocol)))?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// A first sequence number that nobody can foresee.
fn sequence() -> u32 {
    use std::hash::{BuildHasher as _, RandomState};
    // Every RandomState has keys of its own.
    RandomState::new().hash_one(()) as u32
}

/// An IP packet with a bare TCP segment.
fn segment(from: SocketAddr, to: SocketAddr, sequence: u32, flags: u8) -> Vec<u8> {
    let mut tcp = [0; 20];
    tcp[0..2].copy_from_slice(&from.port().to_be_bytes());
    tcp[2..4].copy_from_slice(&to.port().to_be_bytes());
    tcp[4..8].copy_from_slice(&sequence.to_be_bytes());
    tcp[12] = 5 << 4;
    tcp[13] = flags;
    tcp[14..16].copy_from_slice(&u16::MAX.to_be_bytes());
    let length = tcp.len() as u16;
    let mut packet = match (from.ip(), to.ip()) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let sum = Sum::new().ipv4_pseudo_header(source, destination, protocol::TCP, length);
            let checksum = sum.bytes(&tcp).checksum();
            tcp[16..18].copy_from_slice(&checksum.to_be_bytes());
            let mut header = vec![0x45, 0, 0, 0, 0, 0, 0x40, 0, HOP_LIMIT, protocol::TCP, 0, 0];
            header[2..4].copy_from_slice(&(20 + length).to_be_bytes());
            header.extend(source.octets());
            header.extend(destination.octets());
            let checksum = Sum::new().bytes(&header).checksum();
            header[10..12].copy_from_slice(&checksum.to_be_bytes());
            header
        }
        (source, destination) => {
            let (source, destination) = (v6(source), v6(destination));
            let sum = Sum::new().ipv6_pseudo_header(source, destination, protocol::TCP, u32::from(length));
            let checksum = sum.bytes(&tcp).checksum();
            tcp[16..18].copy_from_slice(&checksum.to_be_bytes());
            let mut header = vec![0x60, 0, 0, 0, 0, 0, protocol::TCP, HOP_LIMIT];
            header[4..6].copy_from_slice(&length.to_be_bytes());
            header.extend(source.octets());
            header.extend(destination.octets());
            header
        }
    };
    packet.extend(tcp);
    packet
}

fn v6(address: IpAddr) -> std::net::Ipv6Addr {
    match address {
        IpAddr::V6(address) => address,
        IpAddr::V4(address) => address.to_ipv6_mapped(),
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Seen {
    SynAck,
    Reset,
}

/// What a received IP packet says about the SYN `sequence`.
fn judge(packet: &[u8], from: SocketAddr, vip: SocketAddr, sequence: u32) -> Option<Seen> {
    let segment = match (from.ip(), vip.ip()) {
        (IpAddr::V4(to), IpAddr::V4(source)) => {
            let ip = Ipv4::new_checked(packet).ok()?;
            let is_ours = (ip.source(), ip.destination(), ip.protocol()) == (source, to, protocol::TCP);
            packet.get(ip.header_bytes()..).filter(|_| is_ours)?
        }
        (to, source) => {
            let ip = Ipv6::new_checked(packet).ok()?;
            let is_ours =
                (ip.source(), ip.destination(), ip.next_header()) == (v6(source), v6(to), protocol::TCP);
            packet.get(Ipv6::<&[u8]>::HEADER_BYTES..).filter(|_| is_ours)?
        }
    };
    let tcp = Tcp::new_checked(segment).ok()?;
    let acknowledged = u32::from_be_bytes(segment.get(8..12)?.try_into().ok()?);
    let ours = tcp.source_port() == vip.port()
        && tcp.destination_port() == from.port()
        && tcp.flags() & ACK != 0
        && acknowledged == sequence.wrapping_add(1);
    match tcp.flags() & (SYN | RST) {
        SYN if ours => Some(Seen::SynAck),
        RST if ours => Some(Seen::Reset),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use etherparse::{SlicedPacket, TransportSlice};

    use super::*;

    const ENDS: [(&str, &str); 2] =
        [("198.18.0.9:40000", "198.18.10.1:80"), ("[2001:db8::9]:40000", "[2001:db8:10::1]:80")];

    fn ends((from, vip): (&str, &str)) -> (SocketAddr, SocketAddr) {
        (from.parse().unwrap(), vip.parse().unwrap())
    }

    #[test]
    fn syn_is_one_that_another_implementation_reads() {
        for (from, vip) in ENDS.map(ends) {
            let packet = segment(from, vip, 77, SYN);
            let sliced = SlicedPacket::from_ip(&packet).unwrap();
            let Some(TransportSlice::Tcp(tcp)) = sliced.transport else { panic!("{sliced:?}") };
            assert_eq!((tcp.source_port(), tcp.destination_port()), (from.port(), vip.port()));
            assert!(tcp.syn() && !tcp.ack() && !tcp.rst());
            assert_eq!(tcp.sequence_number(), 77);
            let checksum = match sliced.net.unwrap() {
                etherparse::NetSlice::Ipv4(ip) => {
                    let header = ip.header().to_header();
                    assert_eq!(header.header_checksum, header.calc_header_checksum());
                    tcp.calc_checksum_ipv4(header.source, header.destination).unwrap()
                }
                etherparse::NetSlice::Ipv6(ip) => {
                    let header = ip.header().to_header();
                    tcp.calc_checksum_ipv6(header.source, header.destination).unwrap()
                }
                other => panic!("{other:?}"),
            };
            assert_eq!(tcp.checksum(), checksum);
        }
    }

    #[test]
    fn answer_is_ours_only_with_ports_and_acknowledgement_of_the_syn() {
        for (from, vip) in ENDS.map(ends) {
            let answer = |to: SocketAddr, acknowledged: u32, flags| {
                let mut packet = segment(vip, to, 5, flags);
                let tcp = packet.len() - 20;
                packet[tcp + 8..tcp + 12].copy_from_slice(&acknowledged.to_be_bytes());
                judge(&packet, from, vip, u32::MAX)
            };
            assert_eq!(answer(from, 0, SYN | ACK), Some(Seen::SynAck));
            assert_eq!(answer(from, 0, RST | ACK), Some(Seen::Reset));
            assert_eq!(answer(from, 1, SYN | ACK), None);
            assert_eq!(answer(from, 0, ACK), None);
            assert_eq!(answer(from, 0, SYN), None);
            let other = SocketAddr::new(from.ip(), from.port() + 1);
            assert_eq!(answer(other, 0, SYN | ACK), None);
            assert_eq!(judge(&segment(from, vip, 5, SYN | ACK), from, vip, u32::MAX), None);
        }
    }

    #[test]
    fn filter_lets_the_vip_answer_and_nobody_else() {
        for (from, vip) in ENDS.map(ends) {
            let passes = |source, to| run(&filter(from.port(), vip), &segment(source, to, 5, SYN | ACK));
            assert!(passes(vip, from));
            assert!(!passes(from, vip));
            let port = |end: SocketAddr| SocketAddr::new(end.ip(), end.port() + 1);
            assert!(!passes(port(vip), from) && !passes(vip, port(from)));
            assert!(!passes(SocketAddr::new(from.ip(), vip.port()), from));
        }
    }

    /// Interprets what [`filter`] is made of.
    fn run(program: &[libc::sock_filter], packet: &[u8]) -> bool {
        let (mut at, mut accumulator) = (0, 0);
        loop {
            let libc::sock_filter { code, jf, k, .. } = program[at];
            at += 1;
            let bytes = match u32::from(code) & 0x18 {
                libc::BPF_H => 2,
                libc::BPF_B => 1,
                _ => 4,
            };
            match u32::from(code) & 7 {
                libc::BPF_LD => {
                    let loaded = &packet[k as usize..][..bytes];
                    accumulator = loaded.iter().fold(0, |sum, byte| sum << 8 | u32::from(*byte));
                }
                libc::BPF_JMP if accumulator != k => at += usize::from(jf),
                libc::BPF_JMP => {}
                _ => return k != 0,
            }
        }
    }
}
