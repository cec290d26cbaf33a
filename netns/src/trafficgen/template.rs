//! The template that the XDP program makes packets from.

use std::net::{IpAddr, Ipv4Addr};

use xfwd_ebpf_types::trafficgen::{Length, MARKER, MARKER_LENGTH, MIN_FRAME_LENGTH, STAMP_LENGTH};

use super::traffic::{Protocol, SpecError, Traffic, check};
use crate::lab::MacAddress;

/// One packet of the traffic, with 0 in the fields that vary, and where those are. See the XDP program `generate`.
///
/// Where lengths take turns, it is the longest.
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
    pub is_udp: bool,
    /// 0: no time stamp.
    pub stamp_at: usize,
    pub ip_length_at: usize,
    /// 0: the protocol has no length.
    pub transport_length_at: usize,
    /// What takes turns; empty: nothing.
    pub lengths: Vec<Length>,
    /// Which of `lengths` each turn has.
    pub order: Vec<u8>,
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
        let Some(mix) = &traffic.mix else {
            return Self::of_length(traffic, interface_mac, addresses, traffic.frame_length);
        };
        let lengths = mix.lengths();
        let templates = lengths
            .iter()
            .map(|length| Self::of_length(traffic, interface_mac, addresses, *length))
            .collect::<Result<Vec<_>, _>>()?;
        let order = mix.frames().iter().map(|frame| {
            // All lengths of the row are among its lengths, of which there are eight at most.
            lengths.iter().position(|length| length == frame).unwrap_or_default() as u8
        });
        let (order, lengths) = (order.collect(), templates.iter().map(Self::length).collect());
        let longest = templates.into_iter().next_back().ok_or(SpecError::Mix("it has no packets"))?;
        Ok(Self { order, lengths, ..longest })
    }

    /// What the program has to know of a template to make its packets out of a longer one.
    fn length(&self) -> Length {
        let word = |at: usize| u32::from(u16::from_be_bytes([self.frame[at], self.frame[at + 1]]));
        Length {
            // A frame is far below 4 GiB.
            frame: self.frame.len() as u32,
            ip: word(self.ip_length_at),
            transport: if self.transport_length_at > 0 { word(self.transport_length_at) } else { 0 },
            ip_sum: self.ip_sum.into(),
            sum: self.sum.into(),
        }
    }

    fn of_length(
        traffic: &Traffic,
        interface_mac: MacAddress,
        addresses: u32,
        frame_length: usize,
    ) -> Result<Self, SpecError> {
        let stamp_length = if traffic.stamped { STAMP_LENGTH } else { 0 };
        let mut frame = Vec::with_capacity(frame_length);
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
            Protocol::Udp => (8 + MARKER_LENGTH + stamp_length, 17, 0, 8 + MARKER.len(), 6),
            Protocol::TcpSyn => (20, 6, 0, 4, 16),
            Protocol::IcmpEcho => {
                (8 + MARKER_LENGTH + stamp_length, if ipv4 { 1 } else { 58 }, 4, 8 + MARKER.len(), 2)
            }
        };
        let header_length = transport_at + transport_length;
        // TCP: a SYN has no payload, so what fills the frame is Ethernet padding.
        let frame_length = frame_length.max(header_length).max(MIN_FRAME_LENGTH);
        let end = if traffic.protocol == Protocol::TcpSyn { header_length } else { frame_length };
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
                frame.extend(&[0; STAMP_LENGTH][..stamp_length]);
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
                frame.extend(&[0; STAMP_LENGTH][..stamp_length]);
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
        let ip_sum = if ipv4 { sum_words(&frame[network_at..transport_at]) } else { 0 };
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
            is_udp: traffic.protocol == Protocol::Udp,
            stamp_at: if traffic.stamped { transport_at + 8 + MARKER_LENGTH } else { 0 },
            ip_length_at: network_at + if ipv4 { 2 } else { 4 },
            transport_length_at: if traffic.protocol == Protocol::Udp { transport_at + 4 } else { 0 },
            lengths: Vec::new(),
            order: Vec::new(),
        })
    }

    /// Packet `number` (from 0) of a core's traffic as the XDP program makes it, but for time stamps, which stay 0.
    pub fn packet(&self, number: u64) -> Vec<u8> {
        let mut frame = self.frame.clone();
        let flow = number % self.flows;
        // Below the number of flows, of which there are less than 2^32.
        let (address, port) = ((flow % self.addresses) as u32, (flow / self.addresses) as u16);
        let (mut ip_sum, mut sum) = (self.ip_sum, self.sum);
        if !self.order.is_empty() {
            let turn = (number % self.order.len() as u64) as usize;
            let length = self.lengths[usize::from(self.order[turn])];
            frame.truncate(length.frame as usize);
            // Sums and the lengths of packets have 16 bits.
            (ip_sum, sum) = (length.ip_sum as u16, length.sum as u16);
            put(&mut frame, self.ip_length_at, &(length.ip as u16).to_be_bytes());
            if self.transport_length_at > 0 {
                put(&mut frame, self.transport_length_at, &(length.transport as u16).to_be_bytes());
            }
        }
        let address = self.first_address.wrapping_add(address);
        let port = self.first_port.wrapping_add(port);
        let sequence = number as u32;
        put(&mut frame, self.address_at, &address.to_be_bytes());
        put(&mut frame, self.port_at, &port.to_be_bytes());
        put(&mut frame, self.sequence_at, &sequence.to_be_bytes());
        let address_sum = sum_words(&address.to_be_bytes());
        if self.ip_checksum_at > 0 {
            put(&mut frame, self.ip_checksum_at, &(!add(ip_sum, address_sum)).to_be_bytes());
        }
        sum = add(add(sum, port), sum_words(&sequence.to_be_bytes()));
        if self.sum_has_address {
            sum = add(sum, address_sum);
        }
        let checksum = if self.is_udp && sum == 0xffff { 0xffff } else { !sum };
        put(&mut frame, self.checksum_at, &checksum.to_be_bytes());
        frame
    }
}

fn put(frame: &mut [u8], at: usize, bytes: &[u8]) {
    frame[at..at + bytes.len()].copy_from_slice(bytes);
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
    use crate::trafficgen::Mix;

    fn traffic() -> Traffic {
        Traffic::udp(Ipv4Addr::new(198, 18, 0, 1).into(), Ipv4Addr::new(198, 18, 0, 2).into(), 80)
    }

    fn template(traffic: &Traffic) -> Template {
        Template::new(traffic, MacAddress::default()).unwrap()
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
        assert_eq!((template(&ipv6).header_length, template(&ipv6).frame.len()), (82, 82));
        assert_eq!((template(&traffic()).header_length, template(&traffic()).frame.len()), (50, 60));
        let stamped = Traffic { protocol: Protocol::Udp, stamped: true, ..ipv6 };
        assert_eq!((template(&stamped).header_length, template(&stamped).stamp_at), (86, 78));
        let stamped = Traffic { stamped: true, ..traffic() };
        assert_eq!((template(&stamped).header_length, template(&stamped).frame.len()), (58, 60));
    }

    #[test]
    fn lengths_take_turns_and_each_packet_is_what_it_would_be_alone() {
        let mixed = Traffic { mix: Some(Mix::parse("gad").unwrap()), flows: 5, ..traffic() };
        for (number, length) in [(0, 1514), (1, 60), (2, 508), (3, 1514)] {
            let alone = Traffic { mix: None, frame_length: length, ..mixed.clone() };
            assert_eq!(template(&mixed).packet(number), template(&alone).packet(number), "packet {number}");
        }
    }
}
