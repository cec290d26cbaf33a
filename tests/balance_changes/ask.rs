//! Single questions to the servers of the lab, from ports that are never used twice: no answer is by a flow of before.

use std::{
    collections::BTreeMap,
    io::{self, BufRead as _, BufReader, Write as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket},
    sync::atomic::{AtomicU16, Ordering},
    time::Duration,
};

use socket2::{Domain, Socket, Type};
use xfwd_netns::Namespace;

use crate::{running::PATIENCE, traffic::Answered};

/// Below those that the kernel gives by itself.
const FIRST_PORT: u16 = 2_000;

/// A port that no question of this process has come from.
pub fn fresh_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(FIRST_PORT);
    let port = NEXT.fetch_add(1, Ordering::Relaxed);
    assert!(port < 32_768, "ports have run out");
    port
}

fn any(like: SocketAddr, port: u16) -> SocketAddr {
    let any: IpAddr =
        if like.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    SocketAddr::new(any, port)
}

/// A TCP connection from a port of the host. It ends by a reset, so that the port can be used at once again.
pub fn connect(host: &Namespace, from: u16, to: SocketAddr, patience: Duration) -> io::Result<TcpStream> {
    host.run(|| {
        let socket = Socket::new(Domain::for_address(to), Type::STREAM, None)?;
        socket.set_reuse_address(true)?;
        socket.set_linger(Some(Duration::ZERO))?;
        socket.bind(&any(to, from).into())?;
        socket.connect_timeout(&to.into(), patience)?;
        Ok(socket.into())
    })
}

/// The name of the TCP echo server that answers on a connection.
pub fn on(stream: &mut TcpStream, patience: Duration) -> io::Result<String> {
    stream.set_read_timeout(Some(patience))?;
    stream.write_all(b"who\n")?;
    let mut answer = String::new();
    BufReader::new(stream).read_line(&mut answer)?;
    match answer.split_once(' ') {
        Some((name, "who\n")) => Ok(name.to_owned()),
        _ => Err(io::Error::other(format!("answered {answer:?}"))),
    }
}

/// The name of the TCP echo server that answers to a port of the host.
pub fn tcp_from(host: &Namespace, from: u16, to: SocketAddr, patience: Duration) -> io::Result<String> {
    on(&mut connect(host, from, to, patience)?, patience)
}

/// The same from a fresh port.
pub fn tcp(host: &Namespace, to: SocketAddr, patience: Duration) -> io::Result<String> {
    tcp_from(host, fresh_port(), to, patience)
}

/// The name of the UDP server that answers a datagram of this many bytes, from a fresh port.
pub fn udp(host: &Namespace, to: SocketAddr, bytes: usize, patience: Duration) -> io::Result<String> {
    let socket = host.run(|| UdpSocket::bind(any(to, fresh_port())))?;
    socket.connect(to)?;
    socket.set_read_timeout(Some(patience))?;
    let question: Vec<u8> = (0..bytes).map(|index| b'a' + (index % 26) as u8).collect();
    socket.send(&question)?;
    let mut buffer = vec![0; 65_535];
    // A wait that a suspension of the whole machine interrupts is not restarted by the kernel.
    let received = std::iter::repeat_with(|| socket.recv(&mut buffer))
        .find(|received| !matches!(received, Err(error) if error.kind() == io::ErrorKind::Interrupted));
    let length = received.unwrap_or_else(|| Err(io::ErrorKind::Interrupted.into()))?;
    let answer = &buffer[..length];
    match answer.iter().position(|byte| *byte == b'\n') {
        Some(end) if answer[end + 1..] == question => Ok(String::from_utf8_lossy(&answer[..end]).into()),
        _ => Err(io::Error::other(format!("{length} bytes that are not the question"))),
    }
}

/// Asks the echo servers of both protocols so many times each. Panics if any has no answer.
pub fn many(host: &Namespace, to: SocketAddr, count: usize) -> Answered {
    let mut answered = BTreeMap::new();
    for _ in 0..count {
        for name in [tcp(host, to, PATIENCE), udp(host, to, 64, PATIENCE)] {
            *answered.entry(name.unwrap()).or_default() += 1;
        }
    }
    Answered(answered)
}
