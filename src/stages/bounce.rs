//! Bounce: every packet goes back out of the port it came in by.
//!
//! [`Layer`] says how much of it is turned around. Swapping two fields of a header does not change the sum over it, so
//! no checksum has to be touched, but for the answer to an ICMP echo request, whose type changes.

use crate::packet::checksum::Delta;
use crate::packet::{Ethernet, Fragment, Headers, Icmp, Ipv4, Ipv6, Outcome, Tcp, Udp, protocol};
use crate::pipeline::{Batch, DropReason, Packet, Stage, Verdict};
use crate::words::choices;

/// ICMP echo request and reply (RFC 792).
const ICMP_ECHO: (u8, u8) = (8, 0);
/// ICMPv6 echo request and reply (RFC 4443).
const ICMPV6_ECHO: (u8, u8) = (128, 129);

choices! {
    /// How much of a packet is turned around.
    #[derive(Default)]
    pub enum Layer {
        /// MAC addresses.
        #[default]
        L2 = "l2",
        /// MAC and IP addresses; what is not IP is bounced as by `l2`.
        L3 = "l3",
        /// MAC and IP addresses, TCP and UDP ports; ICMP echo requests become replies.
        L4 = "l4",
    }
}

/// The stage. Decides about every packet: [`Verdict::Bounce`], or a drop for
///
/// * [`DropReason::NotAnswered`]: addressed to a group (multicast or broadcast), which cannot be a source address;
/// * [`DropReason::Malformed`]: `L3` and `L4`, when the headers are broken.
///
/// The TTL is left as it is: bouncing is not routing.
#[derive(Clone, Copy, Debug)]
pub struct Bounce {
    layer: Layer,
}

impl Bounce {
    /// A stage that turns packets around up to `layer`.
    pub fn new(layer: Layer) -> Self {
        Self { layer }
    }
}

impl Stage for Bounce {
    fn name(&self) -> &str {
        "bounce"
    }

    fn reads_headers(&self) -> bool {
        self.layer != Layer::L2
    }

    fn process(&mut self, batch: &mut Batch<'_>) {
        match self.layer {
            Layer::L2 => batch.each_undecided(|packet| bounce_l2(packet.bytes_mut())),
            Layer::L3 => batch.each_undecided(|packet| bounce_ip(packet, false)),
            Layer::L4 => batch.each_undecided(|packet| bounce_ip(packet, true)),
        }
    }
}

/// Exchanges the MAC addresses.
#[inline]
pub(super) fn bounce_l2(bytes: &mut [u8]) -> Verdict {
    let Ok(mut ethernet) = Ethernet::new_checked(bytes) else {
        return Verdict::Drop(DropReason::Malformed);
    };
    if ethernet.destination().is_multicast() {
        return Verdict::Drop(DropReason::NotAnswered);
    }
    ethernet.swap_addresses();
    Verdict::Bounce
}

#[inline]
fn bounce_ip(packet: &mut Packet<'_>, transport: bool) -> Verdict {
    let (headers, bytes) = packet.headers_and_bytes();
    let verdict = match headers.outcome() {
        Outcome::NotIp => return bounce_l2(bytes),
        Outcome::Ip => bounce_l2(bytes),
        _ => return Verdict::Drop(DropReason::Malformed),
    };
    if verdict != Verdict::Bounce {
        return verdict;
    }
    if !swap_ip_addresses(headers, bytes) {
        return Verdict::Drop(DropReason::NotAnswered);
    }
    if transport && headers.transport_offset > 0 && swap_transport(headers, bytes) {
        packet.reparse();
    }
    Verdict::Bounce
}

/// `false` when the destination cannot be a source. The parser has seen the whole IP header.
#[inline]
fn swap_ip_addresses(headers: &Headers, bytes: &mut [u8]) -> bool {
    let network = &mut bytes[usize::from(headers.network_offset)..];
    if headers.ip_version == 4 {
        let Ok(mut ip) = Ipv4::new_checked(network) else { return false };
        if ip.destination().is_multicast() || ip.destination().is_broadcast() {
            return false;
        }
        ip.swap_addresses();
    } else {
        let Ok(mut ip) = Ipv6::new_checked(network) else { return false };
        if ip.destination().is_multicast() {
            return false;
        }
        ip.swap_addresses();
    }
    true
}

/// Swaps ports, or answers an echo request. Returns whether something changed.
#[inline]
fn swap_transport(headers: &Headers, bytes: &mut [u8]) -> bool {
    let transport = &mut bytes[usize::from(headers.transport_offset)..];
    match headers.protocol {
        protocol::TCP => Tcp::new_checked(transport).map(|mut tcp| tcp.swap_ports()).is_ok(),
        protocol::UDP => Udp::new_checked(transport).map(|mut udp| udp.swap_ports()).is_ok(),
        protocol::ICMP | protocol::ICMPV6 => answer_echo_request(headers, transport),
        _ => false,
    }
}

/// Makes of an echo request its reply, addresses aside. `false` when it is none.
pub(super) fn answer_echo_request(headers: &Headers, transport: &mut [u8]) -> bool {
    let (request, reply) = match headers.protocol {
        protocol::ICMP => ICMP_ECHO,
        protocol::ICMPV6 => ICMPV6_ECHO,
        _ => return false,
    };
    let Ok(mut icmp) = Icmp::new_checked(transport) else { return false };
    // The first fragment holds the header; the checksum is over the whole datagram, and a delta keeps it right.
    if icmp.message_type() != request || icmp.code() != 0 || headers.fragment() == Fragment::Later {
        return false;
    }
    let word = |message_type: u8| u16::from_be_bytes([message_type, 0]);
    let checksum = Delta::new().u16(word(request), word(reply)).apply(icmp.checksum());
    icmp.set_message_type(reply);
    icmp.set_checksum(checksum);
    true
}

#[cfg(test)]
mod tests {
    use etherparse::{PacketBuilder, SlicedPacket, TransportSlice};

    use super::*;
    use crate::testing::{self, Harness};

    const CLIENT: [u8; 6] = [2, 0, 0, 0, 0, 1];
    const SERVER: [u8; 6] = [2, 0, 0, 0, 0, 2];
    const CLIENT4: [u8; 4] = [198, 18, 0, 1];
    const SERVER4: [u8; 4] = [198, 18, 0, 2];
    const CLIENT6: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
    const SERVER6: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2];

    /// Runs the packet through the stage and leaves in `packet` what became of it.
    fn bounced(layer: Layer, packet: &mut Vec<u8>) -> Verdict {
        let processed = Harness::new(Bounce::new(layer)).one(packet);
        *packet = processed.bytes;
        processed.verdict
    }

    macro_rules! built {
        ($step:expr $(,)?) => {
            testing::built!($step, b"payload")
        };
    }

    #[test]
    fn l2_swaps_mac_addresses_and_nothing_else() {
        let mut packet =
            built!(PacketBuilder::ethernet2(CLIENT, SERVER).ipv4(CLIENT4, SERVER4, 64).udp(1000, 2000));
        let before = packet.clone();
        assert_eq!(bounced(Layer::L2, &mut packet), Verdict::Bounce);
        assert_eq!(packet[..6], CLIENT);
        assert_eq!(packet[6..12], SERVER);
        assert_eq!(packet[12..], before[12..]);
    }

    #[test]
    fn l3_swaps_addresses_but_not_ports() {
        let mut packet =
            built!(PacketBuilder::ethernet2(CLIENT, SERVER).ipv4(CLIENT4, SERVER4, 64).udp(1000, 2000));
        let expected =
            built!(PacketBuilder::ethernet2(SERVER, CLIENT).ipv4(SERVER4, CLIENT4, 64).udp(1000, 2000));
        assert_eq!(bounced(Layer::L3, &mut packet), Verdict::Bounce);
        assert_eq!(packet, expected);
    }

    #[test]
    fn l4_swaps_ports_and_leaves_checksums_right() {
        let tcp = |src: [u8; 4], dst: [u8; 4], src_mac, dst_mac, sp, dp| {
            built!(PacketBuilder::ethernet2(src_mac, dst_mac).ipv4(src, dst, 64).tcp(sp, dp, 7, 1024).syn(),)
        };
        let mut packet = tcp(CLIENT4, SERVER4, CLIENT, SERVER, 40_000, 80);
        assert_eq!(bounced(Layer::L4, &mut packet), Verdict::Bounce);
        assert_eq!(packet, tcp(SERVER4, CLIENT4, SERVER, CLIENT, 80, 40_000));

        let udp6 = |src, dst, src_mac, dst_mac, sp, dp| {
            built!(PacketBuilder::ethernet2(src_mac, dst_mac).ipv6(src, dst, 64).udp(sp, dp))
        };
        let mut packet = udp6(CLIENT6, SERVER6, CLIENT, SERVER, 40_000, 53);
        assert_eq!(bounced(Layer::L4, &mut packet), Verdict::Bounce);
        assert_eq!(packet, udp6(SERVER6, CLIENT6, SERVER, CLIENT, 53, 40_000));
    }

    #[test]
    fn l4_answers_echo_requests_of_both_families() {
        let mut packet = built!(
            PacketBuilder::ethernet2(CLIENT, SERVER).ipv4(CLIENT4, SERVER4, 64).icmpv4_echo_request(7, 9)
        );
        let expected = built!(
            PacketBuilder::ethernet2(SERVER, CLIENT).ipv4(SERVER4, CLIENT4, 64).icmpv4_echo_reply(7, 9)
        );
        assert_eq!(bounced(Layer::L4, &mut packet), Verdict::Bounce);
        assert_eq!(packet, expected);

        let mut packet = built!(
            PacketBuilder::ethernet2(CLIENT, SERVER).ipv6(CLIENT6, SERVER6, 64).icmpv6_echo_request(7, 9)
        );
        let expected = built!(
            PacketBuilder::ethernet2(SERVER, CLIENT).ipv6(SERVER6, CLIENT6, 64).icmpv6_echo_reply(7, 9)
        );
        assert_eq!(bounced(Layer::L4, &mut packet), Verdict::Bounce);
        assert_eq!(packet, expected);
    }

    #[test]
    fn an_udp_checksum_of_zero_stays_zero() {
        let mut packet =
            built!(PacketBuilder::ethernet2(CLIENT, SERVER).ipv4(CLIENT4, SERVER4, 64).udp(1000, 2000));
        packet[40..42].fill(0);
        bounced(Layer::L4, &mut packet);
        let sliced = SlicedPacket::from_ethernet(&packet).unwrap();
        let Some(TransportSlice::Udp(udp)) = sliced.transport else { panic!("no UDP") };
        assert_eq!((udp.source_port(), udp.checksum()), (2000, 0));
    }

    #[test]
    fn what_is_sent_to_a_group_is_not_bounced() {
        let not_answered = Verdict::Drop(DropReason::NotAnswered);
        let broadcast = [0xff; 6];
        let mut packet =
            built!(PacketBuilder::ethernet2(CLIENT, broadcast).ipv4(CLIENT4, SERVER4, 64).udp(1, 2));
        assert_eq!(bounced(Layer::L2, &mut packet), not_answered);
        let mut packet =
            built!(PacketBuilder::ethernet2(CLIENT, SERVER).ipv4(CLIENT4, [255; 4], 64).udp(1, 2));
        assert_eq!(bounced(Layer::L3, &mut packet), not_answered);
    }

    #[test]
    fn broken_headers_are_dropped_where_they_would_be_touched() {
        let mut packet =
            built!(PacketBuilder::ethernet2(CLIENT, SERVER).ipv4(CLIENT4, SERVER4, 64).udp(1, 2));
        packet.truncate(30);
        assert_eq!(bounced(Layer::L3, &mut packet.clone()), Verdict::Drop(DropReason::Malformed));
        assert_eq!(bounced(Layer::L2, &mut packet), Verdict::Bounce);
    }
}
