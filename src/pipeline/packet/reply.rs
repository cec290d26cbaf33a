//! A datagram that becomes its answer, in place.

use super::{EditError, Packet};

/// Hops of a new packet: the default for hosts (RFC 1700, and what RFC 4861 suggests).
const HOPS: u8 = 64;
/// Of a traffic class: ECN.
const ECN: u8 = 3;

impl Packet<'_> {
    /// Makes of a UDP datagram the answer to it: back to where it came from, with this payload. All of its headers are right
    /// afterwards, checksums too.
    ///
    /// The answer has 64 hops to go and the DSCP of the question, no ECN, no flow label, and "don't fragment"
    /// with identification 0 (RFC 6864). VLAN tags stay.
    ///
    /// An answer whose payload is made out of the question's is written in place:
    /// [`turn_around`](Packet::turn_around), [`resize_payload`](Packet::resize_payload), [`payload_mut`](Packet::payload_mut),
    /// [`set_hop_limit`](Packet::set_hop_limit), [`fill_checksums`](Packet::fill_checksums).
    ///
    /// ```
    /// use xfwd::pipeline::{Batch, DropReason, Verdict};
    ///
    /// # let mut bytes = Vec::new();
    /// # let builder = etherparse::PacketBuilder::ethernet2([2; 6], [4; 6]).ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64);
    /// # builder.udp(40_000, 7).write(&mut bytes, b"ping").unwrap();
    /// # let len = bytes.len() as u32;
    /// # let mut batch = Batch::new(0);
    /// # batch.push(&mut bytes, len);
    /// # batch.parse();
    /// batch.each_undecided(|packet| match packet.reply_udp(b"pong") {
    ///     Ok(()) => Verdict::Bounce,
    ///     Err(_) => Verdict::Drop(DropReason::NotAnswered),
    /// });
    /// # assert_eq!(batch.packet(0).payload(), Some(&b"pong"[..]));
    /// # assert_eq!(batch.finish()[0], Verdict::Bounce);
    /// ```
    ///
    /// # Errors
    ///
    /// [`EditError::NoHeader`] when the packet is no whole, well-formed UDP datagram. [`EditError::NotAnswerable`] when one of its addresses is
    /// not that of a single host, its source port is 0, or it has IP options or extension headers.
    /// [`EditError::NoRoom`] when the payload does not fit, or the packet lies in several buffers.
    pub fn reply_udp(&mut self, payload: &[u8]) -> Result<(), EditError> {
        self.check_outcome()?;
        let headers = self.headers;
        let udp = self.udp().ok_or(EditError::NoHeader)?;
        let plain = headers.network_offset + if headers.ip_version == 4 { 20 } else { 40 };
        if headers.fragment != 0 {
            return Err(EditError::NoHeader);
        }
        if udp.source_port() == 0 || headers.transport_offset != plain {
            return Err(EditError::NotAnswerable);
        }
        let end = usize::from(headers.payload_offset) + payload.len();
        if !self.is_linear() || end > self.buffer.len() - self.room() || end > usize::from(u16::MAX) {
            return Err(EditError::NoRoom);
        }
        self.turn_around()?;
        if let Some(mut ip) = self.ipv4_mut() {
            ip.set_ttl(HOPS);
            ip.set_traffic_class(ip.traffic_class() & !ECN);
            ip.set_identification(0);
            ip.set_dont_fragment(true);
        } else if let Some(mut ip) = self.ipv6_mut() {
            ip.set_hop_limit(HOPS);
            ip.set_class_and_label(ip.traffic_class() & !ECN, 0);
        }
        self.set_payload(payload)
    }
}

#[cfg(test)]
mod tests {
    use etherparse::{Ethernet2Header, IpNumber, Ipv4Header, PacketBuilder, PacketBuilderStep};

    use super::*;
    use crate::packet::{packets, parse};
    use crate::pipeline::{Batch, Span};

    const CLIENT: [u8; 6] = [2, 0, 0, 0, 0, 1];
    const SERVER: [u8; 6] = [2, 0, 0, 0, 0, 2];

    fn replied(bytes: &[u8], payload: &[u8]) -> (Result<(), EditError>, Vec<u8>) {
        let mut buffer = [&[0; 4], bytes, &[0xaa; 64]].concat();
        let mut batch = Batch::new(0);
        batch.push_at(&mut buffer, Span { start: 4, end: 4 + bytes.len() }, bytes.len() as u32);
        batch.parse();
        let packet = batch.packet_mut(0);
        let result = packet.reply_udp(payload);
        assert!(result.is_err() || *packet.headers() == parse(packet.bytes(), packet.len()));
        (result, packet.bytes().to_vec())
    }

    fn v4(
        step: PacketBuilderStep<Ethernet2Header>,
        from: [u8; 4],
        to: [u8; 4],
        hops: u8,
        ports: (u16, u16),
        payload: &[u8],
    ) -> Vec<u8> {
        let mut ip = Ipv4Header::new(0, hops, IpNumber::UDP, from, to).unwrap();
        ip.dont_fragment = true;
        let mut bytes = Vec::new();
        step.ip(etherparse::IpHeaders::Ipv4(ip, Default::default()))
            .udp(ports.0, ports.1)
            .write(&mut bytes, payload)
            .unwrap();
        bytes
    }

    fn v6(
        step: PacketBuilderStep<Ethernet2Header>,
        from: [u8; 16],
        to: [u8; 16],
        hops: u8,
        ports: (u16, u16),
        payload: &[u8],
    ) -> Vec<u8> {
        let mut bytes = Vec::new();
        step.ipv6(from, to, hops).udp(ports.0, ports.1).write(&mut bytes, payload).unwrap();
        bytes
    }

    #[test]
    fn the_answer_is_the_one_that_etherparse_builds() {
        let (there, back) =
            (|| PacketBuilder::ethernet2(CLIENT, SERVER), || PacketBuilder::ethernet2(SERVER, CLIENT));
        let (a, b) = ([198, 18, 0, 1], [198, 18, 0, 2]);
        let (a6, b6) = ([0x20; 16], [0x21; 16]);
        for payload in [&b""[..], b"a", b"a longer answer than the question was", &[0xff; 60]] {
            let (mut question, answer) = (
                v4(there(), a, b, 9, (40_000, 53), b"question"),
                v4(back(), b, a, 64, (53, 40_000), payload),
            );
            assert_eq!(replied(&question, payload), (Ok(()), answer.clone()));
            question.resize(60, 0x55);
            assert_eq!(replied(&question, payload), (Ok(()), answer.clone()), "padded");
            question[40..42].fill(0);
            assert_eq!(replied(&question, payload), (Ok(()), answer), "without checksum");

            let (question, answer) = (
                v6(there(), a6, b6, 9, (40_000, 53), b"question"),
                v6(back(), b6, a6, 64, (53, 40_000), payload),
            );
            assert_eq!(replied(&question, payload), (Ok(()), answer));
        }
    }

    #[test]
    fn groups_nobody_and_what_has_no_port_are_not_answered() {
        let there = || PacketBuilder::ethernet2(CLIENT, SERVER);
        let host = [198, 18, 0, 1];
        let refused = [
            v4(there(), host, [224, 0, 0, 251], 9, (5353, 5353), b"q"),
            v4(there(), host, [255; 4], 9, (68, 67), b"q"),
            v4(there(), [0; 4], host, 9, (68, 67), b"q"),
            v4(there(), [127, 0, 0, 1], host, 9, (1, 2), b"q"),
            v4(there(), host, host, 9, (0, 2), b"q"),
            v4(PacketBuilder::ethernet2(CLIENT, [0xff; 6]), host, host, 9, (1, 2), b"q"),
            v6(there(), [0x20; 16], [0xff; 16], 9, (1, 2), b"q"),
        ];
        for question in refused {
            assert_eq!(replied(&question, b"answer"), (Err(EditError::NotAnswerable), question));
        }
    }

    #[test]
    fn whatever_comes_is_answered_well_formed_or_left_as_it_was() {
        let mut answered = 0;
        for seed in packets::seeds(20_000) {
            let bytes = packets::packet(seed);
            let (result, after) = replied(&bytes, b"an answer");
            match result {
                Ok(()) => answered += 1,
                Err(_) => assert_eq!(after, bytes, "seed {seed}"),
            }
        }
        assert!(cfg!(miri) || answered > 100, "{answered}");
    }
}
