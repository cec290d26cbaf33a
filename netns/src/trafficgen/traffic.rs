//! What to send, and the template that the XDP program makes packets from.

use std::net::{IpAddr, Ipv4Addr};

use xfwd_ebpf_types::trafficgen::{MARKER, MARKER_LENGTH, MIN_FRAME_LENGTH};

use crate::lab::MacAddress;

/// Longest frame, in bytes without FCS. The kernel makes live frames of one page, of which headroom, book-keeping and
/// `skb_shared_info` take about 760 bytes; what is left is for a 3,300 byte packet on any kernel configuration.
pub const MAX_FRAME_LENGTH: usize = 3_314;

/// Kind of packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// UDP datagrams.
    Udp,
    /// TCP segments with SYN set, each with a new sequence number.
    TcpSyn,
    /// ICMP or ICMPv6 echo requests; the identifier takes the place of the source port.
    IcmpEcho,
}

/// What to send. Flow `n` (from 0) has the source address `source + n % source_addresses` and the source port
/// `source_port + n / source_addresses`; flows take turns, packet by packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Traffic {
    /// Kind of packets.
    pub protocol: Protocol,
    /// Source MAC address; `None`: that of the interface.
    pub source_mac: Option<MacAddress>,
    /// Destination MAC address.
    pub destination_mac: MacAddress,
    /// VLAN ids, outermost first, at most two; with two the outer one is an 802.1ad tag.
    pub vlans: Vec<u16>,
    /// First source address.
    pub source: IpAddr,
    /// Destination address.
    pub destination: IpAddr,
    /// First source port.
    pub source_port: u16,
    /// Destination port; ICMP has none.
    pub destination_port: u16,
    /// Number of flows.
    pub flows: u32,
    /// Number of source addresses the flows share, at most `flows` are used.
    pub source_addresses: u32,
    /// Bytes of a frame from the Ethernet header to the end of the payload, without FCS. Frames are made longer where
    /// their headers need it.
    pub frame_length: usize,
    /// Packets per second, of all cores together; `None`: as many as go.
    pub rate_pps: Option<u64>,
    /// Cores to send from, each with the same flows; empty: the one the call is made on.
    pub cores: Vec<usize>,
}

impl Traffic {
    /// One flow of 60 byte UDP frames from port 10,000.
    pub fn udp(source: IpAddr, destination: IpAddr, destination_port: u16) -> Self {
        Self {
            protocol: Protocol::Udp,
            source_mac: None,
            destination_mac: MacAddress::default(),
            vlans: Vec::new(),
            source,
            destination,
            source_port: 10_000,
            destination_port,
            flows: 1,
            source_addresses: 256,
            frame_length: MIN_FRAME_LENGTH,
            rate_pps: None,
            cores: Vec::new(),
        }
    }
}

/// Why traffic cannot be made as asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SpecError {
    /// Source and destination are of different families.
    #[error("source {0} and destination {1} are not of the same IP version")]
    Family(IpAddr, IpAddr),
    /// Frames do not fit the kernel's live frames.
    #[error("frames of {0} bytes: live frames fit one page, at most {MAX_FRAME_LENGTH} bytes")]
    TooLong(usize),
    /// No flow, or no source address.
    #[error("at least one flow and one source address are needed")]
    NoFlow,
    /// The source ports do not suffice.
    #[error(
        "{flows} flows from {addresses} addresses need {ports} ports, from {first} on there are {available}"
    )]
    Ports {
        /// Number of flows.
        flows: u32,
        /// Number of source addresses.
        addresses: u32,
        /// Ports that each address needs.
        ports: u32,
        /// First source port.
        first: u16,
        /// Ports from there to 65,535.
        available: u32,
    },
    /// The source addresses do not suffice.
    #[error("there are no {1} addresses from {0} on")]
    Addresses(IpAddr, u32),
    /// More than two tags, or a number above 4,095.
    #[error("at most two VLAN tags, each 0 to 4095")]
    Vlan,
    /// A rate of 0.
    #[error("a rate must be above 0")]
    Rate,
    /// No such core, or twice the same.
    #[error("core {0} is given twice, or does not exist")]
    Core(usize),
}

/// One packet of the traffic, with 0 in the fields that vary, and where those are. See the XDP program `generate`.
#[derive(Clone, Debug)]
pub(super) struct Template {
    pub frame: Vec<u8>,
    pub header_length: usize,
    pub flows: u64,
    pub addresses: u64,
    pub first_address: u32,
    pub first_port: u16,
    pub address_at: usize,
    pub port_at: usize,
    pub sequence_at: usize,
    /// 0 in IPv6.
    pub ip_checksum_at: usize,
    pub ip_sum: u16,
    pub checksum_at: usize,
    pub sum: u16,
    pub sum_has_address: bool,
}

const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_IPV6: u16 = 0x86dd;
const ETHERTYPE_VLAN: u16 = 0x8100;
const ETHERTYPE_QINQ: u16 = 0x88a8;
const HOP_LIMIT: u8 = 64;

impl Template {
    pub fn new(traffic: &Traffic, interface_mac: MacAddress) -> Result<Self, SpecError> {
        let addresses = traffic.source_addresses.min(traffic.flows);
        check(traffic, addresses)?;

        let mut frame = Vec::with_capacity(traffic.frame_length);
        frame.extend(traffic.destination_mac.0);
        frame.extend(traffic.source_mac.unwrap_or(interface_mac).0);
        for (index, vlan) in traffic.vlans.iter().enumerate() {
            let outer = index + 1 < traffic.vlans.len();
            frame.extend(if outer { ETHERTYPE_QINQ } else { ETHERTYPE_VLAN }.to_be_bytes());
            frame.extend(vlan.to_be_bytes());
        }
        let ipv4 = traffic.source.is_ipv4();
        frame.extend(if ipv4 { ETHERTYPE_IPV4 } else { ETHERTYPE_IPV6 }.to_be_bytes());

        let network_at = frame.len();
        let transport_at = network_at + if ipv4 { 20 } else { 40 };
        let (transport_length, protocol, port_at, sequence_at, checksum_at) = match traffic.protocol {
            Protocol::Udp => (8 + MARKER_LENGTH, 17, 0, 8 + MARKER.len(), 6),
            Protocol::TcpSyn => (20, 6, 0, 4, 16),
            Protocol::IcmpEcho => (
                8 + MARKER_LENGTH,
                if ipv4 { 1 } else { 58 },
                4,
                8 + MARKER.len(),
                2,
            ),
        };
        let header_length = transport_at + transport_length;
        // TCP: a SYN has no payload, so what fills the frame is Ethernet padding.
        let frame_length = traffic.frame_length.max(header_length).max(MIN_FRAME_LENGTH);
        let end = if traffic.protocol == Protocol::TcpSyn {
            header_length
        } else {
            frame_length
        };
        // `check` has bounded the frame's length far below 65,536.
        let length = |from: usize| u16::try_from(end - from).unwrap_or(u16::MAX);

        let (first_address, address_at, ip_checksum_at) = match (traffic.source, traffic.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                frame.extend([0x45, 0]);
                frame.extend(length(network_at).to_be_bytes());
                // Identification 0, don't fragment.
                frame.extend([0, 0, 0x40, 0, HOP_LIMIT, protocol, 0, 0]);
                frame.extend(Ipv4Addr::UNSPECIFIED.octets());
                frame.extend(destination.octets());
                (u32::from(source), network_at + 12, network_at + 10)
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                frame.extend([0x60, 0, 0, 0]);
                frame.extend(length(transport_at).to_be_bytes());
                frame.extend([protocol, HOP_LIMIT]);
                let source = source.octets();
                frame.extend(&source[..12]);
                frame.extend([0; 4]);
                frame.extend(destination.octets());
                let [.., a, b, c, d] = source;
                (u32::from_be_bytes([a, b, c, d]), network_at + 20, 0)
            }
            (source, destination) => return Err(SpecError::Family(source, destination)),
        };

        match traffic.protocol {
            Protocol::Udp => {
                frame.extend([0, 0]);
                frame.extend(traffic.destination_port.to_be_bytes());
                frame.extend(length(transport_at).to_be_bytes());
                frame.extend([0, 0]);
                frame.extend(MARKER);
                frame.extend([0; 4]);
            }
            Protocol::TcpSyn => {
                frame.extend([0, 0]);
                frame.extend(traffic.destination_port.to_be_bytes());
                frame.extend([0; 8]);
                // Header of 20 bytes, SYN, a window of 65,535.
                frame.extend([0x50, 0x02, 0xff, 0xff, 0, 0, 0, 0]);
            }
            Protocol::IcmpEcho => {
                let kind = if ipv4 { 8 } else { 128 };
                // Identifier varies, sequence number 1.
                frame.extend([kind, 0, 0, 0, 0, 0, 0, 1]);
                frame.extend(MARKER);
                frame.extend([0; 4]);
            }
        }
        if end > header_length {
            frame.extend((header_length..end).map(|at| at as u8));
        }
        frame.resize(frame_length, 0);

        let sum_has_address = !ipv4 || traffic.protocol != Protocol::IcmpEcho;
        let mut sum = sum_words(&frame[transport_at..end]);
        if sum_has_address {
            let addresses_at = if ipv4 { network_at + 12 } else { network_at + 8 };
            let pseudo = sum_words(&frame[addresses_at..transport_at]);
            sum = add(add(sum, pseudo), add(protocol.into(), length(transport_at)));
        }
        let ip_sum = if ipv4 {
            sum_words(&frame[network_at..transport_at])
        } else {
            0
        };
        Ok(Self {
            frame,
            header_length,
            flows: traffic.flows.into(),
            addresses: addresses.into(),
            first_address,
            first_port: traffic.source_port,
            address_at,
            port_at: transport_at + port_at,
            sequence_at: transport_at + sequence_at,
            ip_checksum_at,
            ip_sum,
            checksum_at: transport_at + checksum_at,
            sum,
            sum_has_address,
        })
    }
}

fn check(traffic: &Traffic, addresses: u32) -> Result<(), SpecError> {
    if traffic.frame_length > MAX_FRAME_LENGTH {
        return Err(SpecError::TooLong(traffic.frame_length));
    }
    if addresses == 0 {
        return Err(SpecError::NoFlow);
    }
    let ports = traffic.flows.div_ceil(addresses);
    let available = 65_536 - u32::from(traffic.source_port);
    if ports > available {
        let (flows, first) = (traffic.flows, traffic.source_port);
        return Err(SpecError::Ports {
            flows,
            addresses,
            ports,
            first,
            available,
        });
    }
    let first = match traffic.source {
        IpAddr::V4(source) => u32::from(source),
        IpAddr::V6(source) => u128::from(source) as u32,
    };
    if first.checked_add(addresses - 1).is_none() {
        return Err(SpecError::Addresses(traffic.source, addresses));
    }
    if traffic.vlans.len() > 2 || traffic.vlans.iter().any(|vlan| *vlan > 4095) {
        return Err(SpecError::Vlan);
    }
    if traffic.rate_pps == Some(0) {
        return Err(SpecError::Rate);
    }
    let mut cores = traffic.cores.clone();
    cores.sort_unstable();
    match cores.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(pair) => Err(SpecError::Core(pair[0])),
        None => Ok(()),
    }
}

/// One's complement sum of big-endian words (RFC 1071); an odd last byte is padded with 0.
fn sum_words(bytes: &[u8]) -> u16 {
    bytes.chunks(2).fold(0, |sum, word| {
        let second = word.get(1).copied().unwrap_or(0);
        add(sum, u16::from_be_bytes([word[0], second]))
    })
}

/// One's complement addition.
fn add(left: u16, right: u16) -> u16 {
    let (sum, carry) = left.overflowing_add(right);
    sum + u16::from(carry)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn traffic() -> Traffic {
        Traffic::udp(
            Ipv4Addr::new(198, 18, 0, 1).into(),
            Ipv4Addr::new(198, 18, 0, 2).into(),
            80,
        )
    }

    #[test]
    fn frames_grow_to_hold_their_headers() {
        let ipv6 = Traffic {
            protocol: Protocol::TcpSyn,
            source: "2001:db8::1".parse().unwrap(),
            destination: "2001:db8::2".parse().unwrap(),
            vlans: vec![1, 2],
            ..traffic()
        };
        let template = Template::new(&ipv6, MacAddress::default()).unwrap();
        assert_eq!((template.header_length, template.frame.len()), (82, 82));
        let template = Template::new(&traffic(), MacAddress::default()).unwrap();
        assert_eq!((template.header_length, template.frame.len()), (50, 60));
    }

    #[test]
    fn what_cannot_be_sent_is_refused() {
        let refused = |traffic: Traffic| Template::new(&traffic, MacAddress::default()).unwrap_err();
        assert_eq!(
            refused(Traffic {
                flows: 0,
                ..traffic()
            }),
            SpecError::NoFlow
        );
        assert_eq!(
            refused(Traffic {
                frame_length: 9000,
                ..traffic()
            }),
            SpecError::TooLong(9000)
        );
        assert_eq!(
            refused(Traffic {
                vlans: vec![1, 2, 3],
                ..traffic()
            }),
            SpecError::Vlan
        );
        assert_eq!(
            refused(Traffic {
                vlans: vec![4096],
                ..traffic()
            }),
            SpecError::Vlan
        );
        assert_eq!(
            refused(Traffic {
                rate_pps: Some(0),
                ..traffic()
            }),
            SpecError::Rate
        );
        assert_eq!(
            refused(Traffic {
                cores: vec![1, 0, 1],
                ..traffic()
            }),
            SpecError::Core(1)
        );
        let many = Traffic {
            flows: 1_000_000,
            source_addresses: 2,
            ..traffic()
        };
        assert!(matches!(refused(many), SpecError::Ports { ports: 500_000, .. }));
        let last = Traffic {
            flows: 2,
            source: Ipv4Addr::BROADCAST.into(),
            ..traffic()
        };
        assert!(matches!(refused(last), SpecError::Addresses(_, 2)));
        let mixed = Traffic {
            source: "::1".parse().unwrap(),
            ..traffic()
        };
        assert!(matches!(refused(mixed), SpecError::Family(..)));
    }
}
