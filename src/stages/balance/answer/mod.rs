//! Answers that the balancer gives itself, in place of the host that has the address: built in the packet that they
//! answer, to be sent back by the port it came in by ([`Verdict::Bounce`](crate::pipeline::Verdict::Bounce)).
//!
//! * [`icmp_error`]: the packet is too big, its time is exceeded, or nobody listens.
//! * [`reset`]: nobody listens to that TCP port. [`refuse`] chooses between this and an ICMP error.
//! * [`echo_reply`]: the address is there.
//! * [`RateLimit`]: how many of them a second (RFC 1812, section 4.3.2.8; RFC 4443, section 2.4 (f)).
//!
//! An answer has the Ethernet header of the question with its addresses swapped, VLAN tags included; its source is the
//! address that the question was sent to, so the client sees nobody else; its time to live is 64. What must not be answered
//! ([`may_be_answered`]) is not, and is as it was then. [`Packet::headers`] stay those of the question.

mod echo;
mod icmp;
mod limit;
mod reset;

pub use echo::echo_reply;
pub use icmp::{IcmpError, icmp_error};
pub use limit::RateLimit;
pub use reset::reset;

use std::net::{Ipv4Addr, Ipv6Addr};

use crate::packet::protocol::{ICMP, ICMPV6, TCP};
use crate::packet::{Ethernet, Fragment, Headers, Ipv4, Ipv6, Outcome};
use crate::pipeline::{NoRoom, Packet};

/// Hops of an answer.
const HOPS: u8 = 64;

/// A packet gets no answer: it must not, or there is no room for one. It is as it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no answer to this packet")]
pub struct NotAnswered;

impl From<NoRoom> for NotAnswered {
    fn from(_: NoRoom) -> Self {
        Self
    }
}

/// Tells the sender of a packet that nobody takes it: a reset for TCP (RFC 9293, section 3.5.2), port unreachable for
/// everything else (RFC 1122, section 3.2.2.1; RFC 4443, section 3.1).
///
/// # Errors
///
/// [`NotAnswered`].
pub fn refuse(packet: &mut Packet<'_>) -> Result<(), NotAnswered> {
    if packet.headers().protocol == TCP {
        reset(packet)
    } else {
        icmp_error(packet, IcmpError::PortUnreachable)
    }
}

/// Whether a packet may be answered by an error at all (RFC 1122, section 3.2.2; RFC 1812, section 4.3.2.7; RFC 4443,
/// section 2.4 (e)): a well-formed IP packet, sent by one host to one host, both on the link and in IP, that is neither a later
/// fragment nor an ICMP error, redirect or unknown ICMP message.
///
/// What cannot be seen here is the broadcast address of a subnet.
pub fn may_be_answered(packet: &Packet<'_>) -> bool {
    let (headers, bytes) = (packet.headers(), packet.bytes());
    headers.outcome == Outcome::Ip as u8
        && headers.fragment != Fragment::Later as u8
        && Ethernet::new_checked(bytes)
            .is_ok_and(|frame| !frame.destination().is_multicast() && !frame.source().is_multicast())
        && is_between_hosts(headers, bytes)
        && !is_icmp_error(headers)
}

fn is_between_hosts(headers: &Headers, bytes: &[u8]) -> bool {
    let network = bytes.get(usize::from(headers.network_offset)..).unwrap_or_default();
    if headers.ip_version == 4 {
        Ipv4::new_checked(network).is_ok_and(|ip| {
            !(is_no_host4(ip.source()) || ip.destination().is_multicast() || ip.destination().is_broadcast())
        })
    } else {
        Ipv6::new_checked(network)
            .is_ok_and(|ip| !(is_no_host6(ip.source()) || ip.destination().is_multicast()))
    }
}

/// This network, loopback; from 224 on multicast, class E and broadcast.
fn is_no_host4(address: Ipv4Addr) -> bool {
    matches!(address.octets()[0], 0 | 127 | 224..)
}

fn is_no_host6(address: Ipv6Addr) -> bool {
    address.is_unspecified() || address.is_loopback() || address.is_multicast()
}

/// Whether this is ICMP other than the queries that are known, and their replies.
fn is_icmp_error(headers: &Headers) -> bool {
    match headers.protocol {
        // Echo (0, 8), timestamp (13, 14).
        ICMP => headers.ip_version != 4 || !matches!(headers.icmp_type, 0 | 8 | 13 | 14),
        // Errors are below 128 (RFC 4443, section 2.1); 137 is redirect.
        ICMPV6 => headers.ip_version != 6 || headers.icmp_type < 128 || headers.icmp_type == 137,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::test_packets::{
        CLIENT4, VIP4, in_buffer, tcp4, tcp6, transport_checksum, udp4, udp6, with_tags,
    };
    use super::*;
    use crate::packet::{packets, parse};

    type Answer = fn(&mut Packet<'_>) -> Result<(), NotAnswered>;

    const ANSWERS: [(&str, Answer); 6] = [
        ("too big", |packet| icmp_error(packet, IcmpError::TooBig { mtu: 1_400 })),
        ("time exceeded", |packet| icmp_error(packet, IcmpError::TimeExceeded)),
        ("port unreachable", |packet| icmp_error(packet, IcmpError::PortUnreachable)),
        ("reset", reset),
        ("refuse", refuse),
        ("echo reply", echo_reply),
    ];

    fn may(packet: &[u8]) -> bool {
        in_buffer(packet, 0, 0, |packet| may_be_answered(packet)).0
    }

    #[test]
    fn packets_from_host_to_host_may_be_answered() {
        for packet in [tcp4(b""), tcp6(b""), udp4(b""), udp6(b"")] {
            assert!(may(&packet));
            assert!(may(&with_tags(packet, 2)));
        }
    }

    #[test]
    fn groups_and_addresses_that_are_no_single_host_are_not_answered() {
        for (what, at, bytes) in [
            ("a broadcast frame", 0, &[0xff; 6][..]),
            ("a multicast frame", 0, &[0x33, 0x33, 0, 0, 0, 1]),
            ("a frame from a group", 6, &[3, 0, 0, 0, 0, 1]),
            ("unspecified source", 26, &[0, 0, 0, 0]),
            ("source in this network", 26, &[0, 0, 0, 9]),
            ("loopback source", 26, &[127, 0, 0, 1]),
            ("multicast source", 26, &[224, 0, 0, 1]),
            ("class E source", 26, &[240, 0, 0, 1]),
            ("broadcast source", 26, &[255, 255, 255, 255]),
            ("multicast destination", 30, &[239, 1, 1, 1]),
            ("broadcast destination", 30, &[255, 255, 255, 255]),
            ("a later fragment", 20, &[0x20, 1]),
        ] {
            let mut packet = udp4(b"payload");
            packet[at..at + bytes.len()].copy_from_slice(bytes);
            assert!(!may(&packet), "{what}");
        }
        for (what, at, bytes) in [
            ("unspecified source", 22, [0; 16]),
            ("loopback source", 22, std::net::Ipv6Addr::LOCALHOST.octets()),
            ("multicast source", 22, [0xff; 16]),
            ("multicast destination", 38, packets::IPV6[2]),
        ] {
            let mut packet = udp6(b"payload");
            packet[at..at + 16].copy_from_slice(&bytes);
            assert!(!may(&packet), "{what}");
        }
    }

    #[test]
    fn icmp_errors_are_not_answered() {
        for icmp_type in 0..=255 {
            let mut packet = udp4(b"payload");
            (packet[23], packet[34]) = (1, icmp_type);
            assert_eq!(may(&packet), matches!(icmp_type, 0 | 8 | 13 | 14), "ICMP {icmp_type}");
            let mut packet = udp6(b"payload");
            (packet[20], packet[54]) = (58, icmp_type);
            assert_eq!(may(&packet), icmp_type >= 128 && icmp_type != 137, "ICMPv6 {icmp_type}");
        }
    }

    #[test]
    fn tcp_is_refused_by_a_reset_and_udp_by_an_icmp_error() {
        let protocol = |packet: &[u8]| {
            let (result, after) = in_buffer(packet, 0, 100, refuse);
            assert_eq!(result, Ok(()));
            parse(&after, after.len()).protocol
        };
        assert_eq!(
            [tcp4(b""), tcp6(b""), udp4(b""), udp6(b"")].map(|packet| protocol(&packet)),
            [6, 6, 1, 58]
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]
        #[test]
        fn an_answer_to_whatever_it_is_goes_back_to_its_sender_with_right_checksums(
            seed: u64, front in 0..60usize, back in 0..60usize,
        ) {
            let before = packets::packet(seed);
            let headers = parse(&before, before.len());
            for (what, answer) in ANSWERS {
                let (result, after) = in_buffer(&before, front, back, answer);
                if result.is_err() {
                    prop_assert_eq!(&after, &before, "{}", what);
                    continue;
                }
                prop_assert_eq!(&after[..6], &before[6..12]);
                prop_assert_eq!(&after[6..12], &before[..6]);
                let ip = usize::from(headers.network_offset);
                prop_assert_eq!(&after[12..ip], &before[12..ip], "tags and ethertype");
                let found = parse(&after, after.len());
                prop_assert_eq!((found.outcome(), found.ip_options), (Outcome::Ip, 0), "{}", what);
                prop_assert!(found.fragment() == Fragment::No && found.transport_offset > 0);
                let hops = if headers.ip_version == 4 {
                    let view = Ipv4::new_checked(&after[ip..]).unwrap();
                    prop_assert!(view.has_valid_checksum(), "{}", what);
                    let asked = Ipv4::new_checked(&before[ip..]).unwrap();
                    prop_assert_eq!((view.source(), view.destination()), (asked.destination(), asked.source()));
                    view.ttl()
                } else {
                    let view = Ipv6::new_checked(&after[ip..]).unwrap();
                    let asked = Ipv6::new_checked(&before[ip..]).unwrap();
                    prop_assert_eq!((view.source(), view.destination()), (asked.destination(), asked.source()));
                    view.hop_limit()
                };
                prop_assert_eq!(hops, 64);
                if what != "echo reply" {
                    // That one keeps a wrong checksum wrong.
                    prop_assert_eq!(found.end as usize, after.len());
                    prop_assert_eq!(transport_checksum(&after, &found), 0, "{}", what);
                }
            }
        }
    }

    #[test]
    fn the_client_and_the_address_it_asked_are_swapped() {
        let (_, after) = in_buffer(&udp4(b"payload"), 0, 100, refuse);
        let ip = Ipv4::new_checked(&after[14..]).unwrap();
        assert_eq!((ip.source().octets(), ip.destination().octets()), (VIP4, CLIENT4));
    }
}
