//! Packets, and the addresses in them.

use std::net::{IpAddr, SocketAddr};

use etherparse::{
    IpFragOffset, IpNumber, Ipv4Header, Ipv6FragmentHeader, Ipv6Header, LinkHeader, PacketBuilder, TcpHeader,
};
use xfwd::packet::{FiveTuple, parse};

pub const CLIENT_MAC: [u8; 6] = [2, 0, 0, 0, 9, 9];
/// The balancer's ports.
pub const PORTS: [[u8; 6]; 2] = [[2, 0, 0, 0, 0, 2], [2, 0, 0, 0, 0, 3]];

pub const TCP: u8 = 6;
pub const UDP: u8 = 17;

/// The addresses of one IP version.
#[derive(Clone, Copy, Debug)]
pub struct Family {
    pub is_ipv4: bool,
}

pub const V4: Family = Family { is_ipv4: true };
pub const V6: Family = Family { is_ipv4: false };
pub const FAMILIES: [Family; 2] = [V4, V6];

impl Family {
    fn of(self, ipv4: &str, ipv6: &str) -> IpAddr {
        if self.is_ipv4 { ipv4.parse().unwrap() } else { ipv6.parse().unwrap() }
    }

    pub fn client(self) -> IpAddr {
        self.of("203.0.113.7", "2001:db8:c::7")
    }

    pub fn vip(self) -> IpAddr {
        self.of("198.18.10.1", "2001:db8:10::1")
    }

    /// The balancer's own: of tunnels and of nat.
    pub fn ours(self) -> IpAddr {
        self.of("198.18.0.2", "2001:db8::2")
    }

    pub fn router(self) -> IpAddr {
        self.of("192.0.2.9", "2001:db8:f::9")
    }

    pub fn backend(self, index: usize) -> IpAddr {
        self.of(&format!("198.18.0.{}", 11 + index), &format!("2001:db8::{:x}", 0x11 + index))
    }

    /// The IP header's length.
    pub fn ip_bytes(self) -> usize {
        if self.is_ipv4 { 20 } else { 40 }
    }
}

/// A TCP or UDP packet.
#[derive(Clone, Debug)]
pub struct Packet {
    pub macs: ([u8; 6], [u8; 6]),
    pub vlan: Option<u16>,
    pub from: SocketAddr,
    pub to: SocketAddr,
    pub hops: u8,
    pub transport: Transport,
    pub payload: Vec<u8>,
}

#[derive(Clone, Debug)]
pub enum Transport {
    Udp,
    /// Flags as letters: S, A, F, R. With a maximum segment size.
    Tcp(&'static str, Option<u16>),
}

/// A packet of a client from this port.
pub fn from_client(family: Family, port: u16, to_port: u16, transport: Transport) -> Packet {
    Packet {
        macs: (CLIENT_MAC, PORTS[0]),
        vlan: None,
        from: SocketAddr::new(family.client(), port),
        to: SocketAddr::new(family.vip(), to_port),
        hops: 64,
        transport,
        payload: b"what the client says".to_vec(),
    }
}

pub fn syn(family: Family, port: u16) -> Packet {
    from_client(family, port, 80, Transport::Tcp("S", None))
}

pub fn data(family: Family, port: u16) -> Packet {
    from_client(family, port, 80, Transport::Tcp("A", None))
}

pub fn udp(family: Family, port: u16) -> Packet {
    from_client(family, port, 53, Transport::Udp)
}

impl Packet {
    pub fn bytes(&self) -> Vec<u8> {
        let link = PacketBuilder::ethernet2(self.macs.0, self.macs.1);
        let mut bytes = Vec::new();
        macro_rules! with_ip {
            ($step:expr) => {
                match (self.from.ip(), self.to.ip()) {
                    (IpAddr::V4(from), IpAddr::V4(to)) => $step.ipv4(from.octets(), to.octets(), self.hops),
                    (IpAddr::V6(from), IpAddr::V6(to)) => $step.ipv6(from.octets(), to.octets(), self.hops),
                    _ => panic!("two families"),
                }
            };
        }
        let ip = match self.vlan {
            Some(vlan) => with_ip!(link.single_vlan(vlan.try_into().unwrap())),
            None => with_ip!(link),
        };
        let (from, to) = (self.from.port(), self.to.port());
        match self.transport {
            Transport::Udp => ip.udp(from, to).write(&mut bytes, &self.payload).unwrap(),
            Transport::Tcp(flags, mss) => {
                let mut header = TcpHeader::new(from, to, 1_000, 512);
                header.syn = flags.contains('S');
                header.ack = flags.contains('A');
                header.fin = flags.contains('F');
                header.rst = flags.contains('R');
                if let Some(mss) = mss {
                    header.set_options(&[etherparse::TcpOptionElement::MaximumSegmentSize(mss)]).unwrap();
                }
                ip.tcp_header(header).write(&mut bytes, &self.payload).unwrap();
            }
        }
        bytes
    }

    /// From the IP header on.
    pub fn ip(&self) -> Vec<u8> {
        Self { vlan: None, ..self.clone() }.bytes()[14..].to_vec()
    }

    pub fn tuple(&self) -> FiveTuple {
        tuple(&self.bytes())
    }

    /// The fragments of the packet, of so many bytes of payload each.
    pub fn fragments(&self, id: u16, size: usize) -> Vec<Vec<u8>> {
        let (bytes, family) = (self.bytes(), Family { is_ipv4: self.from.is_ipv4() });
        let payload = &bytes[14 + family.ip_bytes()..];
        let chunks: Vec<&[u8]> = payload.chunks(size).collect();
        chunks
            .iter()
            .enumerate()
            .map(|(index, chunk)| self.fragment(id, index * size, index + 1 < chunks.len(), chunk))
            .collect()
    }

    fn fragment(&self, id: u16, offset: usize, more: bool, chunk: &[u8]) -> Vec<u8> {
        let protocol = IpNumber(if matches!(self.transport, Transport::Udp) { UDP } else { TCP });
        let offset = IpFragOffset::try_new((offset / 8) as u16).unwrap();
        let mut bytes = ethernet(self.macs.0, self.macs.1, self.from.is_ipv4());
        match (self.from.ip(), self.to.ip()) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                let mut header =
                    Ipv4Header::new(chunk.len() as u16, self.hops, protocol, from.octets(), to.octets())
                        .unwrap();
                header.identification = id;
                header.dont_fragment = false;
                header.more_fragments = more;
                header.fragment_offset = offset;
                header.header_checksum = header.calc_header_checksum();
                header.write(&mut bytes).unwrap();
            }
            (IpAddr::V6(from), IpAddr::V6(to)) => {
                let header = Ipv6Header {
                    payload_length: 8 + chunk.len() as u16,
                    next_header: IpNumber::IPV6_FRAGMENTATION_HEADER,
                    hop_limit: self.hops,
                    source: from.octets(),
                    destination: to.octets(),
                    ..Ipv6Header::default()
                };
                header.write(&mut bytes).unwrap();
                Ipv6FragmentHeader::new(protocol, offset, more, id.into()).write(&mut bytes).unwrap();
            }
            _ => panic!("two families"),
        }
        bytes.extend(chunk);
        bytes
    }
}

/// An Ethernet header.
pub fn ethernet(source: [u8; 6], destination: [u8; 6], is_ipv4: bool) -> Vec<u8> {
    let ether_type = if is_ipv4 { etherparse::EtherType::IPV4 } else { etherparse::EtherType::IPV6 };
    let mut bytes = Vec::new();
    let header = etherparse::Ethernet2Header { source, destination, ether_type };
    LinkHeader::Ethernet2(header).write(&mut bytes).unwrap();
    bytes
}

/// A packet with these MAC addresses and this tag, whatever it had.
pub fn relinked(ip: &[u8], source: [u8; 6], destination: [u8; 6], vlan: Option<u16>) -> Vec<u8> {
    let mut bytes = ethernet(source, destination, ip[0] >> 4 == 4);
    if let Some(vlan) = vlan {
        let [high, low] = vlan.to_be_bytes();
        bytes.splice(12..12, [0x81, 0, high, low]);
    }
    bytes.extend(ip);
    bytes
}

/// An ICMP message, of which the family says the kind.
pub fn icmp(from: IpAddr, to: IpAddr, kind: (u8, u8), word: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let link = PacketBuilder::ethernet2(CLIENT_MAC, PORTS[0]);
    match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let step =
                link.ipv4(from.octets(), to.octets(), 60).icmpv4_raw(kind.0, kind.1, word.to_be_bytes());
            step.write(&mut bytes, payload).unwrap();
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let step =
                link.ipv6(from.octets(), to.octets(), 60).icmpv6_raw(kind.0, kind.1, word.to_be_bytes());
            step.write(&mut bytes, payload).unwrap();
        }
        _ => panic!("two families"),
    }
    bytes
}

pub fn tuple(bytes: &[u8]) -> FiveTuple {
    FiveTuple::of(bytes, &parse(bytes, bytes.len())).unwrap()
}

/// What an ICMP packet says: type, code, the word behind the checksum, and what follows; both checksums are right.
pub fn read_icmp(bytes: &[u8]) -> (IpAddr, IpAddr, (u8, u8), u32, Vec<u8>) {
    let headers = parse(bytes, bytes.len());
    let tuple = FiveTuple::of(bytes, &headers).unwrap();
    let message = &bytes[headers.transport_offset.into()..headers.end as usize];
    let ip = etherparse::SlicedPacket::from_ethernet(bytes).unwrap();
    match ip.transport.unwrap() {
        etherparse::TransportSlice::Icmpv4(icmp) => {
            let expected = icmp.icmp_type().calc_checksum(icmp.payload());
            assert_eq!(icmp.checksum(), expected, "ICMP checksum");
        }
        etherparse::TransportSlice::Icmpv6(icmp) => {
            assert!(icmp.is_checksum_valid(tuple.src, tuple.dst), "ICMPv6 checksum");
        }
        other => panic!("{other:?}"),
    }
    let word = u32::from_be_bytes(message[4..8].try_into().unwrap());
    (tuple.source().ip(), tuple.destination().ip(), (message[0], message[1]), word, message[8..].to_vec())
}
