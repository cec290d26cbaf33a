//! What to send.

use std::net::IpAddr;

use xfwd_ebpf_types::trafficgen::MIN_FRAME_LENGTH;

use super::{mix::Mix, template::Template};
use crate::{error::Result as LabResult, lab::MacAddress};

/// Longest frame, in bytes without FCS. The kernel makes live frames of one page, of which headroom, book-keeping and
/// `skb_shared_info` take about 760 bytes; what is left is for a 3,300 byte packet on any kernel configuration.
pub const MAX_FRAME_LENGTH: usize = 3_314;
/// Longest frame that can be sent at all: an IP packet of 65,535 bytes behind two VLAN tags.
const LONGEST: usize = 65_535;

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
    /// Lengths that take turns, in place of `frame_length`.
    pub mix: Option<Mix>,
    /// Put the time at which each packet was due (without a rate: was made) behind the marker, for a
    /// [`Counter`](super::Counter) that keeps latencies. Not in TCP, whose SYN segments have no payload.
    pub stamped: bool,
    /// Spread flows over this many queues of the other end, whichever core sends: flow by flow, in turn. The interface
    /// must have as many transmit queues. Packets then take the way through the host stack, at a third of the rate;
    /// without it all packets of a core arrive on the queue `core % queues`.
    pub spread: Option<u32>,
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
            mix: None,
            stamped: false,
            spread: None,
            rate_pps: None,
            cores: Vec::new(),
        }
    }

    /// Bytes of the longest frame.
    pub fn longest_frame(&self) -> usize {
        let mixed = self.mix.as_ref().and_then(|mix| mix.frames().iter().max());
        mixed.copied().unwrap_or(self.frame_length)
    }

    /// The first packets, byte for byte as a [`Generator`](super::Generator) on one core sends them from `interface` of
    /// the calling thread's network namespace; with time stamps of 0.
    ///
    /// # Errors
    ///
    /// If the traffic cannot be made as asked, or the interface does not exist.
    pub fn packets(&self, interface: &str, count: usize) -> LabResult<Vec<Vec<u8>>> {
        let template = Template::new(self, self.source_mac_on(interface)?)?;
        Ok((0..count as u64).map(|number| template.packet(number)).collect())
    }

    /// The source MAC address of packets that leave by this interface.
    pub(super) fn source_mac_on(&self, interface: &str) -> LabResult<MacAddress> {
        self.source_mac.map_or_else(|| MacAddress::of(interface), Ok)
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
    #[error(
        "frames of {0} bytes: live frames fit one page, at most {MAX_FRAME_LENGTH} bytes; longer ones can be replayed"
    )]
    TooLong(usize),
    /// No packet has this length.
    #[error("frames of {0} bytes: no IP packet is that long")]
    NoSuchLength(usize),
    /// Not a mix of lengths.
    #[error("a mix of lengths: {0}")]
    Mix(&'static str),
    /// TCP with time stamps.
    #[error("TCP SYN segments have no payload, so no time stamp: use UDP or ICMP")]
    Stamps,
    /// Time stamps in frames that are sent as they are.
    #[error(
        "frames that are sent as they are have no time stamps: at most {MAX_FRAME_LENGTH} bytes can be stamped"
    )]
    StampsInReplay,
    /// A capture without frames.
    #[error("there is no frame to send")]
    NoFrames,
    /// Spread over no queue, or more queues than there are.
    #[error("cannot spread over {0} queues: the interface has {1} transmit queues")]
    Queues(u32, u32),
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

pub(super) fn check(traffic: &Traffic, addresses: u32) -> Result<(), SpecError> {
    if traffic.longest_frame() > LONGEST {
        return Err(SpecError::NoSuchLength(traffic.longest_frame()));
    }
    if traffic.stamped && traffic.protocol == Protocol::TcpSyn {
        return Err(SpecError::Stamps);
    }
    if addresses == 0 {
        return Err(SpecError::NoFlow);
    }
    let ports = traffic.flows.div_ceil(addresses);
    let available = 65_536 - u32::from(traffic.source_port);
    if ports > available {
        let (flows, first) = (traffic.flows, traffic.source_port);
        return Err(SpecError::Ports { flows, addresses, ports, first, available });
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

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn traffic() -> Traffic {
        Traffic::udp(Ipv4Addr::new(198, 18, 0, 1).into(), Ipv4Addr::new(198, 18, 0, 2).into(), 80)
    }

    #[test]
    fn what_cannot_be_sent_is_refused() {
        let refused = |traffic: Traffic| Template::new(&traffic, MacAddress::default()).unwrap_err();
        assert_eq!(refused(Traffic { flows: 0, ..traffic() }), SpecError::NoFlow);
        assert_eq!(refused(Traffic { frame_length: 70_000, ..traffic() }), SpecError::NoSuchLength(70_000));
        let stamped_syn = Traffic { protocol: Protocol::TcpSyn, stamped: true, ..traffic() };
        assert_eq!(refused(stamped_syn), SpecError::Stamps);
        assert_eq!(refused(Traffic { vlans: vec![1, 2, 3], ..traffic() }), SpecError::Vlan);
        assert_eq!(refused(Traffic { vlans: vec![4096], ..traffic() }), SpecError::Vlan);
        assert_eq!(refused(Traffic { rate_pps: Some(0), ..traffic() }), SpecError::Rate);
        assert_eq!(refused(Traffic { cores: vec![1, 0, 1], ..traffic() }), SpecError::Core(1));
        let many = Traffic { flows: 1_000_000, source_addresses: 2, ..traffic() };
        assert!(matches!(refused(many), SpecError::Ports { ports: 500_000, .. }));
        let last = Traffic { flows: 2, source: Ipv4Addr::BROADCAST.into(), ..traffic() };
        assert!(matches!(refused(last), SpecError::Addresses(_, 2)));
        let mixed = Traffic { source: "::1".parse().unwrap(), ..traffic() };
        assert!(matches!(refused(mixed), SpecError::Family(..)));
    }
}
