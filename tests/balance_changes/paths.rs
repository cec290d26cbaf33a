//! What does not fit and what has come too far.

use std::{
    io::{self, Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpListener},
    os::fd::AsRawFd as _,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use nix::sys::socket::{
    ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, setsockopt,
    sockopt::{Ipv4RecvErr, Ipv6RecvErr},
};
use socket2::{Domain, Socket, Type};
use xfwd_netns::{lab_or_skip, topology::RoutedOptions};

use crate::{
    ask,
    running::PATIENCE,
    site::{ECHO, Family, QUEUES, Site, Way, up},
};

const UPLOAD: u16 = 4_000;
const BYTES: usize = 1_000_000;

/// The cables carry 1,500 bytes all the way, which with an outer header leaves less.
fn the_client_learns_the_mtu(family: Family, inner_mtu: u32) {
    lab_or_skip!();
    let options = RoutedOptions {
        queues: QUEUES,
        backends: 2,
        balancer_mtu: 1_500,
        backend_mtu: 1_500,
        ..RoutedOptions::default()
    };
    let site = Site::routed(Way::Ipip, family, &options);
    let to = site.at(UPLOAD);
    let sinks: Vec<_> = site
        .backends
        .iter()
        .map(|backend| backend.run(|| TcpListener::bind(to)).unwrap())
        .map(|listener| {
            thread::spawn(move || -> io::Result<()> {
                // Until the process ends.
                loop {
                    let (mut stream, _) = listener.accept()?;
                    let mut bytes = vec![0; BYTES];
                    stream.read_exact(&mut bytes)?;
                    stream.write_all(&(bytes.len() as u32).to_be_bytes())?;
                }
            })
        })
        .collect();
    let xfwd = site.start(&site.service("upload", "tcp", UPLOAD, &[up(0), up(1)], ""));
    let vip = family.vip().to_string();
    let size = if family == Family::V4 { "1472" } else { "1452" };
    // Echo requests are answered by the balancer, where they fit.
    let ping = || {
        let output = site
            .client
            .output(Command::new("ping").args(["-M", "do", "-c", "1", "-W", "5", "-s", size, &vip]));
        let output = output.unwrap();
        let text = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8_lossy(&text).into_owned())
    };
    let (answered, text) = ping();
    assert!(answered, "{text}");

    for _ in 0..3 {
        let begun = Instant::now();
        let mut stream = ask::connect(&site.client, ask::fresh_port(), to, PATIENCE).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(&vec![b'u'; BYTES]).unwrap();
        let mut count = [0; 4];
        stream.read_exact(&mut count).unwrap();
        assert_eq!(u32::from_be_bytes(count) as usize, BYTES);
        println!("{family:?}: {BYTES} bytes in {:?}", begun.elapsed());
        // Whoever lost packets to the MTU would wait for timers.
        assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    }
    let route = site.client.ip(["route", "get", &vip]).unwrap();
    assert!(route.contains(&format!("mtu {inner_mtu}")), "{route}");
    let (answered, text) = ping();
    assert!(!answered && text.contains(&inner_mtu.to_string()), "{text}");
    assert!(sinks.iter().all(|sink| !sink.is_finished()));
    let summary = xfwd.stop().summary();
    println!("{}", summary.0["balance"]);
}

#[test]
fn an_upload_finds_the_mtu_of_the_tunnel() {
    the_client_learns_the_mtu(Family::V4, 1_480);
}

#[test]
fn an_upload_finds_the_mtu_of_the_tunnel_over_ipv6() {
    the_client_learns_the_mtu(Family::V6, 1_460);
}

/// Sends a datagram that may pass one router, and returns who says that it was one too many: address, ICMP type and code.
fn probe(site: &Site, to: SocketAddr) -> (IpAddr, u8, u8) {
    let socket = site.client.run(|| Socket::new(Domain::for_address(to), Type::DGRAM, None)).unwrap();
    if to.is_ipv4() {
        socket.set_ttl_v4(1).unwrap();
        setsockopt(&socket, Ipv4RecvErr, &true).unwrap();
    } else {
        socket.set_unicast_hops_v6(1).unwrap();
        setsockopt(&socket, Ipv6RecvErr, &true).unwrap();
    }
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.connect(&to.into()).unwrap();
    socket.send(b"how far").unwrap();
    let mut byte = [std::mem::MaybeUninit::uninit(); 1];
    let error = socket.recv(&mut byte).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(nix::libc::EHOSTUNREACH), "{error}");
    let mut buffer = [0; 64];
    let mut parts = [io::IoSliceMut::new(&mut buffer)];
    let mut space = nix::cmsg_space!([u8; 128]);
    let message =
        recvmsg::<SockaddrStorage>(socket.as_raw_fd(), &mut parts, Some(&mut space), MsgFlags::MSG_ERRQUEUE)
            .unwrap();
    let told = message.cmsgs().unwrap().find_map(|control| match control {
        ControlMessageOwned::Ipv4RecvErr(error, Some(from)) => {
            let from = IpAddr::from(from.sin_addr.s_addr.to_ne_bytes());
            Some((from, error.ee_type, error.ee_code))
        }
        ControlMessageOwned::Ipv6RecvErr(error, Some(from)) => {
            Some((IpAddr::from(from.sin6_addr.s6_addr), error.ee_type, error.ee_code))
        }
        _ => None,
    });
    told.unwrap()
}

fn the_last_hop_is_the_vip(way: Way, family: Family) {
    lab_or_skip!();
    let site = Site::new(way, family, 2);
    let xfwd = site.start(&site.config(&[up(0), up(1)], ""));
    let time_exceeded = if family == Family::V4 { 11 } else { 3 };
    for _ in 0..10 {
        assert_eq!(probe(&site, site.at(ECHO)), (family.vip(), time_exceeded, 0));
    }
    let summary = xfwd.stop().summary();
    println!("{}", summary.0["balance"]);
}

#[test]
fn a_packet_that_has_come_too_far_for_a_tunnel_is_told_so_by_the_vip() {
    the_last_hop_is_the_vip(Way::Ipip, Family::V4);
}

#[test]
fn a_packet_that_has_come_too_far_for_nat_is_told_so_by_the_vip() {
    the_last_hop_is_the_vip(Way::Nat, Family::V4);
}

#[test]
fn an_ipv6_packet_that_has_come_too_far_is_told_so_by_the_vip() {
    the_last_hop_is_the_vip(Way::Nat, Family::V6);
    the_last_hop_is_the_vip(Way::Ipip, Family::V6);
}
