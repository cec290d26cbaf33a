//! `xfwd-lab-decap` gives a backend's stack what comes through tunnels, and refuses what a kernel would refuse.
#![allow(clippy::unwrap_used)]

use std::{
    net::{IpAddr, SocketAddr, UdpSocket},
    time::{Duration, Instant},
};

use etherparse::{IpNumber, Ipv4Header, Ipv6FlowLabel, Ipv6Header, PacketBuilder, UdpHeader};
use xfwd_netns::{
    Capture,
    decap::{Decap, Decapsulated},
    lab_or_skip,
    topology::{self, INTERFACE, Routed, VIP_V4, VIP_V6, host_v4, host_v6},
};

type TestResult = Result<(), Box<dyn std::error::Error>>;

const WAIT: Duration = Duration::from_secs(10);
const GUE_PORT: u16 = 6080;
const PORT: u16 = 7;
const CLIENT_PORT: u16 = 4_000;

/// The balancer of a network sends frames made by hand to the backend's address.
struct Site {
    network: Routed,
    wire: Capture,
    /// What arrives at the VIPs, IPv4 first.
    servers: [UdpSocket; 2],
    decap: Option<Decap>,
}

impl Site {
    fn new(arguments: &[&str]) -> Result<Self, Box<dyn std::error::Error>> {
        let network = topology::tunnel(1, 1)?;
        let wire = network.balancer.run(|| Capture::open(INTERFACE))?;
        let bind = |vip: IpAddr| -> std::io::Result<UdpSocket> {
            let socket = network.backends[0].run(|| UdpSocket::bind((vip, PORT)))?;
            socket.set_read_timeout(Some(WAIT))?;
            Ok(socket)
        };
        let servers = [bind(VIP_V4.into())?, bind(VIP_V6.into())?];
        let decap = Some(Decap::start(&network.backends[0], arguments)?);
        Ok(Self { network, wire, servers, decap })
    }

    fn send(&self, outer: &[u8]) -> TestResult {
        let (to, from) = (self.network.router.mac(INTERFACE)?, self.network.balancer.mac(INTERFACE)?);
        let kind: u16 = if outer[0] >> 4 == 4 { 0x0800 } else { 0x86dd };
        let frame = [&to.0[..], &from.0, &kind.to_be_bytes(), outer].concat();
        assert!(self.wire.send(&frame)?);
        Ok(())
    }

    fn server(&self, inner: &[u8]) -> &UdpSocket {
        &self.servers[usize::from(inner[0] >> 4 == 6)]
    }

    /// Sends a packet that must get through, after those that must not: when it has, so has all before it.
    fn finish(mut self) -> Result<Decapsulated, Box<dyn std::error::Error>> {
        let inner = ipv4(b"last", 0);
        self.send(&ip(&inner, Outer::V4, 0))?;
        let mut buffer = [0; 64];
        let (length, _) = self.servers[0].recv_from(&mut buffer)?;
        assert_eq!(&buffer[..length], b"last");
        Ok(self.decap.take().ok_or("once")?.stop()?)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outer {
    V4,
    V6,
}

fn ipv4(payload: &[u8], traffic_class: u8) -> Vec<u8> {
    let mut header = Ipv4Header::new(
        (8 + payload.len()) as u16,
        64,
        IpNumber::UDP,
        host_v4(Routed::CLIENT).octets(),
        VIP_V4.octets(),
    )
    .unwrap();
    header.dscp = (traffic_class >> 2).try_into().unwrap();
    header.ecn = (traffic_class & 3).try_into().unwrap();
    header.header_checksum = header.calc_header_checksum();
    let udp = UdpHeader::with_ipv4_checksum(CLIENT_PORT, PORT, &header, payload).unwrap();
    [&header.to_bytes()[..], &udp.to_bytes(), payload].concat()
}

fn ipv6(payload: &[u8], traffic_class: u8) -> Vec<u8> {
    let header = Ipv6Header {
        traffic_class,
        flow_label: Ipv6FlowLabel::ZERO,
        payload_length: (8 + payload.len()) as u16,
        next_header: IpNumber::UDP,
        hop_limit: 64,
        source: host_v6(Routed::CLIENT).octets(),
        destination: VIP_V6.octets(),
    };
    let udp = UdpHeader::with_ipv6_checksum(CLIENT_PORT, PORT, &header, payload).unwrap();
    [&header.to_bytes()[..], &udp.to_bytes(), payload].concat()
}

/// An outer IP header before `payload`.
fn header(protocol: IpNumber, payload: &[u8], outer: Outer, traffic_class: u8) -> Vec<u8> {
    match outer {
        Outer::V4 => {
            let (from, to) = (host_v4(Routed::BALANCER).octets(), Routed::backend_v4(0).octets());
            let mut header = Ipv4Header::new(payload.len() as u16, 64, protocol, from, to).unwrap();
            header.ecn = (traffic_class & 3).try_into().unwrap();
            header.header_checksum = header.calc_header_checksum();
            header.to_bytes().to_vec()
        }
        Outer::V6 => Ipv6Header {
            traffic_class,
            flow_label: Ipv6FlowLabel::ZERO,
            payload_length: payload.len() as u16,
            next_header: protocol,
            hop_limit: 64,
            source: host_v6(Routed::BALANCER).octets(),
            destination: Routed::backend_v6(0).octets(),
        }
        .to_bytes()
        .to_vec(),
    }
}

/// IP in IP.
fn ip(inner: &[u8], outer: Outer, traffic_class: u8) -> Vec<u8> {
    let protocol = if inner[0] >> 4 == 4 { IpNumber::IPV4 } else { IpNumber::IPV6 };
    [header(protocol, inner, outer, traffic_class), inner.to_vec()].concat()
}

/// GUE variant 1.
fn gue(inner: &[u8], outer: Outer, source_port: u16) -> Vec<u8> {
    let mut packet = Vec::new();
    match outer {
        Outer::V4 => {
            PacketBuilder::ipv4(host_v4(Routed::BALANCER).octets(), Routed::backend_v4(0).octets(), 64)
                .udp(source_port, GUE_PORT)
                .write(&mut packet, inner)
        }
        Outer::V6 => {
            PacketBuilder::ipv6(host_v6(Routed::BALANCER).octets(), Routed::backend_v6(0).octets(), 64)
                .udp(source_port, GUE_PORT)
                .write(&mut packet, inner)
        }
    }
    .unwrap();
    packet
}

#[test]
fn every_kind_of_tunnel_reaches_the_vip_and_the_answer_goes_straight_to_the_client() -> TestResult {
    lab_or_skip!();
    let site = Site::new(&[])?;
    let clients = [IpAddr::from(host_v4(Routed::CLIENT)), host_v6(Routed::CLIENT).into()].map(|address| {
        let socket = site.network.client.run(|| UdpSocket::bind((address, CLIENT_PORT))).unwrap();
        socket.set_read_timeout(Some(WAIT)).unwrap();
        socket
    });
    for outer in [Outer::V4, Outer::V6] {
        for (make, version) in [(ipv4 as fn(&[u8], u8) -> Vec<u8>, 0), (ipv6, 1)] {
            for tunnel in
                [|inner: &[u8], outer| ip(inner, outer, 0), |inner: &[u8], outer| gue(inner, outer, 50_000)]
            {
                for length in [0, 100, 1_450] {
                    let inner = make(&vec![b'?'; length], 0);
                    site.send(&tunnel(&inner, outer))?;
                    let mut buffer = [0; 2_000];
                    let (got, from) = site.server(&inner).recv_from(&mut buffer)?;
                    assert_eq!(got, length);
                    site.server(&inner).send_to(b"answer", from)?;
                    let vip: IpAddr = if version == 0 { VIP_V4.into() } else { VIP_V6.into() };
                    assert_eq!(clients[version].recv_from(&mut buffer)?, (6, SocketAddr::new(vip, PORT)));
                }
            }
        }
    }
    let counted = site.finish()?;
    for kind in ["6in4", "4in6", "6in6", "gue-4in4", "gue-6in4", "gue-4in6", "gue-6in6"] {
        assert_eq!(counted.of(kind), 3, "{kind}: {counted:?}");
    }
    assert_eq!((counted.of("4in4"), counted.all()), (4, 25), "{counted:?}");
    assert!(counted.refused.is_empty(), "{counted:?}");
    assert_eq!(counted.gue_source_ports, [50_000].into());
    assert_eq!(counted.sources[&host_v4(Routed::BALANCER).into()], 13);
    Ok(())
}

#[test]
fn packets_that_no_kernel_would_take_are_refused_and_counted_by_reason() -> TestResult {
    lab_or_skip!();
    let site = Site::new(&[])?;
    let (four, six) = (ipv4(b"refused", 0), ipv6(b"refused", 0));
    for outer in [Outer::V4, Outer::V6] {
        for inner in [&four, &six] {
            // The outer header says the other version.
            let other = if inner[0] >> 4 == 4 { IpNumber::IPV6 } else { IpNumber::IPV4 };
            site.send(&[header(other, inner, outer, 0), inner.clone()].concat())?;
            // GUE variant 0.
            site.send(&gue(&[&[0, 4, 0, 0], &inner[..]].concat(), outer, 1))?;
            // One byte too few and one too many.
            site.send(&ip(&inner[..inner.len() - 1], outer, 0))?;
            site.send(&gue(&[&inner[..], &[0]].concat(), outer, 1))?;
            // Congestion on the way, of which this sender cannot be told.
            site.send(&ip(inner, outer, 0b11))?;
            // A UDP checksum that is wrong.
            let mut wrong = gue(inner, outer, 1);
            let length = wrong.len();
            wrong[length - 1] ^= 1;
            site.send(&wrong)?;
        }
    }
    let counted = site.finish()?;
    let expected = [("congestion", 4), ("length", 8), ("udp-checksum", 4), ("version", 8)];
    assert_eq!(counted.refused, expected.map(|(name, count)| (name.to_owned(), count)).into());
    assert_eq!(counted.all(), 1, "the last one: {counted:?}");
    Ok(())
}

#[test]
fn the_marks_of_the_way_are_those_that_the_host_sees() -> TestResult {
    lab_or_skip!();
    let site = Site::new(&[])?;
    let device = site.network.backends[0].run(|| Capture::open("decap0"))?;
    for (inner_mark, outer_mark, expected) in
        [(0b10, 0b11, 0b11), (0b10, 0b01, 0b01), (0b01, 0b10, 0b01), (0, 0b10, 0)]
    {
        let marks = [inner_mark, outer_mark];
        for outer in [Outer::V4, Outer::V6] {
            site.send(&ip(&ipv4(b"marked", inner_mark | 0b1011_1000), outer, outer_mark))?;
            let mut buffer = [0; 64];
            // The host's stack takes it, so the header's checksum is right.
            assert_eq!(site.servers[0].recv_from(&mut buffer)?.0, 6, "{marks:?} {outer:?}");
            let deadline = Instant::now() + WAIT;
            let seen = loop {
                let frame = device.next(WAIT)?.ok_or("nothing")?;
                if frame.bytes.ends_with(b"marked") {
                    break frame.bytes;
                }
                assert!(Instant::now() < deadline, "only other packets");
            };
            assert_eq!(seen[1], 0b1011_1000 | expected, "{marks:?} {outer:?}");
        }
    }
    Ok(())
}

#[test]
fn gue_over_ipv6_without_a_checksum_is_taken_only_when_allowed() -> TestResult {
    lab_or_skip!();
    for (arguments, taken) in [(&[][..], 0), (&["--zero-checksum6"][..], 1)] {
        let site = Site::new(arguments)?;
        let mut packet = gue(&ipv6(b"unsure", 0), Outer::V6, 1);
        packet[46..48].fill(0);
        site.send(&packet)?;
        let mut packet = gue(&ipv4(b"fine", 0), Outer::V4, 1);
        packet[26..28].fill(0);
        site.send(&packet)?;
        let mut buffer = [0; 64];
        assert_eq!(site.servers[0].recv_from(&mut buffer)?.0, 4);
        let counted = site.finish()?;
        assert_eq!((counted.of("gue-6in6"), counted.of("gue-4in4")), (taken, 1), "{counted:?}");
    }
    Ok(())
}

#[test]
fn fragments_of_the_outer_packet_are_put_together() -> TestResult {
    lab_or_skip!();
    let site = Site::new(&[])?;
    let inner = ipv4(&[b'?'; 2_000], 0);
    let (first, second) = inner.split_at(1_000);
    for (part, offset, more) in [(first, 0, true), (second, 125, false)] {
        let (from, to) = (host_v4(Routed::BALANCER).octets(), Routed::backend_v4(0).octets());
        let mut header = Ipv4Header::new(part.len() as u16, 64, IpNumber::IPV4, from, to)?;
        header.identification = 7;
        header.dont_fragment = false;
        header.more_fragments = more;
        header.fragment_offset = u16::try_into(offset)?;
        header.header_checksum = header.calc_header_checksum();
        site.send(&[&header.to_bytes()[..], part].concat())?;
    }
    let mut buffer = [0; 3_000];
    assert_eq!(site.servers[0].recv_from(&mut buffer)?.0, 2_000);
    assert_eq!(site.finish()?.of("4in4"), 2);
    Ok(())
}
