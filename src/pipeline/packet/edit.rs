//! Fields that a checksum covers: it follows by what has changed (RFC 1624), so that a packet which was damaged on its way stays
//! recognizably so.

use std::net::IpAddr;

use super::{EditError, Packet};
use crate::packet::checksum::Delta;
use crate::packet::protocol::{ICMPV6, TCP, UDP};
use crate::packet::{Fragment, Outcome};

/// Which end of a packet.
#[derive(Clone, Copy)]
enum End {
    Source,
    Destination,
}

impl Packet<'_> {
    /// Sets the source address. The checksums of IPv4, TCP, UDP and ICMPv6 follow; a UDP datagram without one stays without.
    /// Further protocols with a checksum over addresses (DCCP, UDP-Lite) are not known.
    ///
    /// ```
    /// # use xfwd::pipeline::{Batch, EditError};
    /// # let mut bytes = Vec::new();
    /// # let builder = etherparse::PacketBuilder::ethernet2([2; 6], [4; 6]).ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64);
    /// # builder.udp(40_000, 53).write(&mut bytes, b"question").unwrap();
    /// # let len = bytes.len() as u32;
    /// # let mut batch = Batch::new(0);
    /// # batch.push(&mut bytes, len);
    /// # batch.parse();
    /// # let packet = batch.packet_mut(0);
    /// packet.set_source([192, 0, 2, 1].into())?;
    /// packet.set_source_port(1_024)?;
    /// packet.set_hop_limit(63)?;
    /// assert!(packet.ipv4().is_some_and(|ip| ip.has_valid_checksum()));
    /// # Ok::<(), EditError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`EditError::NoHeader`] when the packet is not well-formed IP of this version.
    #[inline]
    pub fn set_source(&mut self, address: IpAddr) -> Result<(), EditError> {
        self.set_address(End::Source, address)
    }

    /// Sets the destination address; otherwise like [`set_source`](Packet::set_source). The checksums follow as if the address were
    /// that of the last destination: where a routing header names another one, they become wrong.
    ///
    /// # Errors
    ///
    /// As there.
    #[inline]
    pub fn set_destination(&mut self, address: IpAddr) -> Result<(), EditError> {
        self.set_address(End::Destination, address)
    }

    #[inline]
    fn set_address(&mut self, end: End, address: IpAddr) -> Result<(), EditError> {
        self.check_outcome()?;
        let change = match address {
            IpAddr::V4(new) => {
                let mut ip = self.ipv4_mut().ok_or(EditError::NoHeader)?;
                let old = match end {
                    End::Source => ip.source(),
                    End::Destination => ip.destination(),
                };
                let change = Delta::new().ipv4(old, new);
                match end {
                    End::Source => ip.set_source(new),
                    End::Destination => ip.set_destination(new),
                }
                ip.set_checksum(change.apply(ip.checksum()));
                change
            }
            IpAddr::V6(new) => {
                let mut ip = self.ipv6_mut().ok_or(EditError::NoHeader)?;
                let old = match end {
                    End::Source => ip.source(),
                    End::Destination => ip.destination(),
                };
                match end {
                    End::Source => ip.set_source(new),
                    End::Destination => ip.set_destination(new),
                }
                Delta::new().ipv6(old, new)
            }
        };
        self.follow(change);
        Ok(())
    }

    /// Sets the source port of TCP or UDP. The checksum follows, and [`Headers::src_port`](crate::packet::Headers::src_port).
    ///
    /// # Errors
    ///
    /// [`EditError::NoHeader`] when there is no such header, or the packet is malformed.
    #[inline]
    pub fn set_source_port(&mut self, port: u16) -> Result<(), EditError> {
        self.set_port(End::Source, port)?;
        self.headers.src_port = port;
        Ok(())
    }

    /// Sets the destination port of TCP or UDP. The checksum follows, and
    /// [`Headers::dst_port`](crate::packet::Headers::dst_port).
    ///
    /// # Errors
    ///
    /// As [`set_source_port`](Packet::set_source_port).
    #[inline]
    pub fn set_destination_port(&mut self, port: u16) -> Result<(), EditError> {
        self.set_port(End::Destination, port)?;
        self.headers.dst_port = port;
        Ok(())
    }

    #[inline]
    fn set_port(&mut self, end: End, port: u16) -> Result<(), EditError> {
        self.check_outcome()?;
        if !matches!(self.headers.protocol, TCP | UDP) || self.headers.payload_offset == 0 {
            return Err(EditError::NoHeader);
        }
        let start = usize::from(self.headers.transport_offset)
            + match end {
                End::Source => 0,
                End::Destination => 2,
            };
        let field = self.bytes_mut().get_mut(start..start + 2).ok_or(EditError::NoHeader)?;
        let old = u16::from_be_bytes([field[0], field[1]]);
        field.copy_from_slice(&port.to_be_bytes());
        self.follow(Delta::new().u16(old, port));
        Ok(())
    }

    /// Sets the hops that the packet may still take: TTL (IPv4, whose checksum follows) or hop limit (IPv6).
    ///
    /// # Errors
    ///
    /// [`EditError::NoHeader`] when the packet is not IP or its header is broken.
    #[inline]
    pub fn set_hop_limit(&mut self, hops: u8) -> Result<(), EditError> {
        if let Some(mut ip) = self.ipv4_mut() {
            let word = |ttl: u8, protocol: u8| u16::from_be_bytes([ttl, protocol]);
            let change = Delta::new().u16(word(ip.ttl(), ip.protocol()), word(hops, ip.protocol()));
            ip.set_ttl(hops);
            ip.set_checksum(change.apply(ip.checksum()));
        } else {
            self.ipv6_mut().ok_or(EditError::NoHeader)?.set_hop_limit(hops);
        }
        Ok(())
    }

    /// Sets DSCP (upper six bits, RFC 2474) and ECN (lower two, RFC 3168). The checksum of IPv4 follows.
    ///
    /// # Errors
    ///
    /// [`EditError::NoHeader`] when the packet is not IP or its header is broken.
    #[inline]
    pub fn set_traffic_class(&mut self, class: u8) -> Result<(), EditError> {
        if let Some(mut ip) = self.ipv4_mut() {
            let change = Delta::new().u16(ip.traffic_class().into(), class.into());
            ip.set_traffic_class(class);
            ip.set_checksum(change.apply(ip.checksum()));
        } else {
            let mut ip = self.ipv6_mut().ok_or(EditError::NoHeader)?;
            ip.set_class_and_label(class, ip.flow_label());
        }
        Ok(())
    }

    /// Exchanges the ends of the packet: MAC addresses, IP addresses and the ports of TCP and UDP. No checksum changes by that.
    /// Hop limit, lengths and what is behind the headers are left as they are.
    ///
    /// # Errors
    ///
    /// [`EditError::NoHeader`] when the packet is not well-formed IP; [`EditError::NotAnswerable`] when it is a later fragment, or one
    /// of its addresses is not that of a single host (a group, "this host", loopback) and so can be no end of an answer.
    pub fn turn_around(&mut self) -> Result<(), EditError> {
        self.check_outcome()?;
        let ethernet = self.ethernet().ok_or(EditError::NoHeader)?;
        let is_between_hosts = !ethernet.source().is_multicast() && !ethernet.destination().is_multicast();
        let addresses: [IpAddr; 2] = match (self.ipv4(), self.ipv6()) {
            (Some(ip), _) => [ip.source().into(), ip.destination().into()],
            (_, Some(ip)) => [ip.source().into(), ip.destination().into()],
            _ => return Err(EditError::NoHeader),
        };
        if !is_between_hosts
            || !addresses.into_iter().all(is_host)
            || self.headers.fragment == Fragment::Later as u8
        {
            return Err(EditError::NotAnswerable);
        }
        if let Some(mut ethernet) = self.ethernet_mut() {
            ethernet.swap_addresses();
        }
        if let Some(mut ip) = self.ipv4_mut() {
            ip.swap_addresses();
        } else if let Some(mut ip) = self.ipv6_mut() {
            ip.swap_addresses();
        }
        let swapped = if let Some(mut tcp) = self.tcp_mut() {
            tcp.swap_ports();
            true
        } else if let Some(mut udp) = self.udp_mut() {
            udp.swap_ports();
            true
        } else {
            false
        };
        if swapped {
            let headers = &mut self.headers;
            (headers.src_port, headers.dst_port) = (headers.dst_port, headers.src_port);
        }
        Ok(())
    }

    #[inline(always)]
    pub(super) fn check_outcome(&self) -> Result<(), EditError> {
        if self.headers.outcome == Outcome::Ip as u8 { Ok(()) } else { Err(EditError::NoHeader) }
    }

    /// Where the transport checksum lies that covers addresses, if there is one; from the start of the packet.
    #[inline]
    fn transport_checksum(&self) -> Option<usize> {
        let headers = &self.headers;
        let within = match headers.protocol {
            TCP => 16,
            UDP => 6,
            ICMPV6 if headers.ip_version == 6 => 2,
            _ => return None,
        };
        (headers.payload_offset != 0).then(|| usize::from(headers.transport_offset) + within)
    }

    /// Brings the transport checksum up to date.
    #[inline]
    fn follow(&mut self, change: Delta) {
        let is_udp = self.headers.protocol == UDP;
        let Some(field) = self.transport_checksum().and_then(|at| self.bytes_mut().get_mut(at..at + 2))
        else {
            return;
        };
        let old = u16::from_be_bytes([field[0], field[1]]);
        let new = if is_udp { change.apply_udp(old) } else { change.apply(old) };
        field.copy_from_slice(&new.to_be_bytes());
    }
}

/// Whether the address can be that of a host on a network.
fn is_host(address: IpAddr) -> bool {
    match address {
        // This network, loopback; from 224 on multicast, class E and broadcast.
        IpAddr::V4(address) => !matches!(address.octets()[0], 0 | 127 | 224..),
        IpAddr::V6(address) => !(address.is_unspecified() || address.is_loopback() || address.is_multicast()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::{packets, parse};
    use crate::pipeline::Batch;

    /// A packet whose checksums are right, if it is one that has them.
    fn right(seed: u64) -> Vec<u8> {
        let mut bytes = packets::well_formed(seed);
        with(&mut bytes, |packet| {
            // Fragments have none.
            let _ = packet.fill_checksums();
        });
        bytes
    }

    fn with<R>(bytes: &mut [u8], work: impl FnOnce(&mut Packet<'_>) -> R) -> R {
        let len = bytes.len() as u32;
        let mut batch = Batch::new(0);
        batch.push(bytes, len);
        batch.parse();
        work(batch.packet_mut(0))
    }

    #[test]
    fn checksums_that_followed_are_those_that_would_be_computed_anew() {
        let mut edited = [0; 4];
        for seed in packets::seeds(6_000) {
            let mut bytes = right(seed);
            let (mut expected, mut whole) = (Vec::new(), false);
            with(&mut bytes, |packet| {
                let v4 = packet.set_source([192, 0, 2, 7].into()).is_ok()
                    && packet.set_destination([203, 0, 113, 200].into()).is_ok();
                let (a, b) = ("2001:db8::7".parse().unwrap(), "2001:db8:ffff::8".parse().unwrap());
                let v6 = packet.set_source(a).is_ok() && packet.set_destination(b).is_ok();
                assert!(!(v4 && v6));
                let ports =
                    packet.set_source_port(1_234).is_ok() && packet.set_destination_port(0xfffe).is_ok();
                let hops = packet.set_hop_limit(9).is_ok() && packet.set_traffic_class(0xb9).is_ok();
                for (count, done) in edited.iter_mut().zip([v4, v6, ports, hops]) {
                    *count += u32::from(done);
                }
                assert_eq!(*packet.headers(), parse(packet.bytes(), packet.len()), "seed {seed}");
                expected = packet.bytes().to_vec();
            });
            with(&mut expected, |packet| whole = packet.fill_checksums().is_ok());
            if whole {
                assert_eq!(bytes, expected, "seed {seed}");
            }
        }
        assert!(cfg!(miri) || edited.iter().all(|count| *count > 1_000), "{edited:?}");
    }

    #[test]
    fn what_is_malformed_or_of_the_other_version_is_left_alone() {
        for seed in packets::seeds(3_000) {
            let bytes = packets::packet(seed);
            let mut after = bytes.clone();
            with(&mut after, |packet| {
                let version = packet.headers().ip_version;
                let other: IpAddr = if version == 4 { [1; 16].into() } else { [1; 4].into() };
                assert_eq!(packet.set_source(other), Err(EditError::NoHeader));
                if packet.headers().outcome().is_malformed() {
                    assert_eq!(packet.set_source_port(1), Err(EditError::NoHeader));
                    assert_eq!(packet.turn_around(), Err(EditError::NoHeader));
                    assert_eq!(packet.fill_checksums(), Err(EditError::NoHeader));
                    assert_eq!(packet.resize_payload(1), Err(EditError::NoHeader));
                    assert_eq!(packet.reply_udp(b""), Err(EditError::NoHeader));
                }
            });
            assert_eq!(after, bytes);
        }
    }

    #[test]
    fn turned_around_twice_a_packet_is_as_it_was() {
        let mut turned = 0;
        for seed in packets::seeds(3_000) {
            let before = packets::well_formed(seed);
            let mut bytes = before.clone();
            with(&mut bytes, |packet| {
                if packet.turn_around().is_ok() {
                    assert_eq!(*packet.headers(), parse(packet.bytes(), packet.len()));
                    packet.turn_around().unwrap();
                    turned += 1;
                }
            });
            assert_eq!(bytes, before);
        }
        assert!(cfg!(miri) || turned > 200, "{turned}");
    }
}
