//! The packet that an ICMP error quotes.
//!
//! An error tells about a packet that its receiver has sent, and quotes its beginning (RFC 792: the IP header and 64
//! bits more; RFC 1812, section 4.3.2.3, and RFC 4443, section 2.4: as much as fits). The quoted packet says which flow
//! the error is about: the reverse of it, as seen by who gets the error.

use xfwd_ebpf_types::map_ipv4;

use super::parse::{Chain, extensions};
use super::protocol::{ICMP, ICMPV6, SCTP, TCP, UDP};
use super::{FiveTuple, Fragment, Headers, Outcome};

/// Bytes of the transport header that every quote holds (RFC 792): both ports, and the checksum of UDP.
const TRANSPORT_BYTES: usize = 8;
const MORE_FRAGMENTS: u16 = 0x2000;
const FRAGMENT_OFFSET: u16 = 0x1fff;

/// What an ICMP error quotes, and where it lies. Offsets count from the Ethernet header of the error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Embedded {
    /// Addresses, ports and protocol of the quoted packet, as it was sent: its source is the receiver of the error. Ports
    /// are those of TCP, UDP and SCTP, also of a first fragment; 0 for other protocols and later fragments.
    pub tuple: FiveTuple,
    /// Whether the quoted packet was a fragment.
    pub fragment: Fragment,
    /// Where its IP header begins. It is of the IP version of the error.
    pub network_offset: u16,
    /// Where its transport header begins, of which at least the first 8 bytes are there; 0 when it has none that is known
    /// (later fragments, protocols other than TCP, UDP and SCTP).
    pub transport_offset: u16,
    /// One past its last byte that is quoted and lies in the packet's first buffer. What is behind it may still belong
    /// to the error (RFC 4884 extensions), or be padding.
    pub end: u16,
}

impl Embedded {
    /// The packet that an ICMP error quotes: destination unreachable, time exceeded and parameter problem (RFC 792),
    /// and in ICMPv6 packet too big (RFC 4443). `data` holds what was parsed, `headers` is what the parser found in it.
    ///
    /// Lengths in the quoted header may go beyond what is quoted: that is what quoting is. Its checksum is not verified, and
    /// neither is that of the error.
    ///
    /// `None` for all other packets, for later fragments of an error, and where the quote is broken: another IP version,
    /// headers that do not end within it, or, for TCP, UDP and SCTP, fewer than 8 bytes of the transport header.
    pub fn of(data: &[u8], headers: &Headers) -> Option<Self> {
        if headers.outcome != Outcome::Ip as u8 || !is_error(headers) {
            return None;
        }
        let limit = data.len().min(headers.end as usize);
        let offset = usize::from(headers.payload_offset);
        match headers.ip_version {
            4 => ipv4(data.get(..limit)?, offset),
            _ => ipv6(data.get(..limit)?, offset),
        }
    }

    /// The flow that the error is about, as the receiver of the error gets its packets: the quoted tuple reversed. The error
    /// itself comes from any router on the way; that is not part of this.
    #[inline]
    pub fn flow(&self) -> FiveTuple {
        self.tuple.reversed()
    }
}

/// Whether this is an ICMP error whose header is there. Redirects and source quench are not: they are for a host's own
/// stack, and deprecated (RFC 6633).
fn is_error(headers: &Headers) -> bool {
    headers.transport_offset > 0
        && match (headers.ip_version, headers.protocol) {
            (4, ICMP) => matches!(headers.icmp_type, 3 | 11 | 12),
            (6, ICMPV6) => matches!(headers.icmp_type, 1..=4),
            _ => false,
        }
}

fn ipv4(data: &[u8], offset: usize) -> Option<Embedded> {
    let header = data.get(offset..)?.first_chunk::<20>()?;
    let header_bytes = usize::from(header[0] & 0x0f) * 4;
    let total_bytes = usize::from(u16::from_be_bytes([header[2], header[3]]));
    if header[0] >> 4 != 4 || header_bytes < 20 || total_bytes < header_bytes {
        return None;
    }
    let word = u16::from_be_bytes([header[6], header[7]]);
    let fragment = match (word & FRAGMENT_OFFSET, word & MORE_FRAGMENTS) {
        (0, 0) => Fragment::No,
        (0, _) => Fragment::First,
        _ => Fragment::Later,
    };
    let (addresses, _) = header[12..].as_chunks::<4>();
    let addresses = (map_ipv4(addresses[0]), map_ipv4(addresses[1]));
    let quoted = data.get(..data.len().min(offset + total_bytes))?;
    embedded(quoted, offset, addresses, header[9], fragment, offset + header_bytes)
}

fn ipv6(data: &[u8], offset: usize) -> Option<Embedded> {
    let header = data.get(offset..)?.first_chunk::<40>()?;
    if header[0] >> 4 != 6 {
        return None;
    }
    let payload_bytes = usize::from(u16::from_be_bytes([header[4], header[5]]));
    let (addresses, _) = header[8..].as_chunks::<16>();
    let quoted = data.get(..data.len().min(offset + 40 + payload_bytes))?;
    let (next, outcome, fragment) = (header[6], Outcome::Ip, Fragment::No);
    let start = Chain { next, offset: offset + 40, fragment, has_options: false, outcome };
    let chain = extensions(quoted, start, quoted.len());
    if chain.outcome != Outcome::Ip {
        return None;
    }
    embedded(quoted, offset, (addresses[0], addresses[1]), chain.next, chain.fragment, chain.offset)
}

fn embedded(
    quoted: &[u8],
    network: usize,
    (src, dst): ([u8; 16], [u8; 16]),
    protocol: u8,
    fragment: Fragment,
    transport: usize,
) -> Option<Embedded> {
    let header = quoted.get(transport..)?;
    let ports_follow = fragment != Fragment::Later && matches!(protocol, TCP | UDP | SCTP);
    let (src_port, dst_port) = if ports_follow {
        let header = header.first_chunk::<TRANSPORT_BYTES>()?;
        (u16::from_be_bytes([header[0], header[1]]), u16::from_be_bytes([header[2], header[3]]))
    } else {
        (0, 0)
    };
    Some(Embedded {
        tuple: FiveTuple { src, dst, src_port, dst_port, protocol },
        fragment,
        network_offset: u16::try_from(network).ok()?,
        transport_offset: if ports_follow { u16::try_from(transport).ok()? } else { 0 },
        end: u16::try_from(quoted.len()).ok()?,
    })
}

#[cfg(test)]
mod tests {
    use etherparse::PacketBuilder;
    use proptest::prelude::*;

    use super::super::{packets, parse};
    use super::*;

    const VIP4: [u8; 4] = [198, 18, 10, 1];
    const CLIENT4: [u8; 4] = [198, 18, 0, 1];
    const ROUTER4: [u8; 4] = [203, 0, 113, 9];
    const VIP6: [u8; 16] = packets::IPV6[0];
    const CLIENT6: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7];
    const ROUTER6: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9];

    /// An error of `icmp_type` from a router, which quotes `quoted`.
    fn error4(icmp_type: u8, quoted: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        PacketBuilder::ethernet2([2; 6], [2; 6])
            .ipv4(ROUTER4, VIP4, 60)
            .icmpv4_raw(icmp_type, 1, [0; 4])
            .write(&mut bytes, quoted)
            .unwrap();
        bytes
    }

    fn error6(icmp_type: u8, quoted: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        PacketBuilder::ethernet2([2; 6], [2; 6])
            .ipv6(ROUTER6, VIP6, 60)
            .icmpv6_raw(icmp_type, 0, [0; 4])
            .write(&mut bytes, quoted)
            .unwrap();
        bytes
    }

    fn of(bytes: &[u8]) -> Option<Embedded> {
        Embedded::of(bytes, &parse(bytes, bytes.len()))
    }

    /// A segment that a backend has sent, with this VIP as its source.
    fn sent4() -> Vec<u8> {
        let mut bytes = Vec::new();
        PacketBuilder::ipv4(VIP4, CLIENT4, 64).tcp(80, 40_000, 7, 512).write(&mut bytes, &[9; 700]).unwrap();
        bytes
    }

    fn sent6() -> Vec<u8> {
        let mut bytes = Vec::new();
        PacketBuilder::ipv6(VIP6, CLIENT6, 64).udp(53, 40_000).write(&mut bytes, &[9; 700]).unwrap();
        bytes
    }

    #[test]
    fn an_error_belongs_to_the_reverse_of_what_it_quotes() {
        let embedded = of(&error4(3, &sent4()[..28])).unwrap();
        let flow = embedded.flow();
        assert_eq!(flow.source().to_string(), "198.18.0.1:40000");
        assert_eq!(flow.destination().to_string(), "198.18.10.1:80");
        assert_eq!(flow.protocol, TCP);
        assert_eq!((embedded.network_offset, embedded.transport_offset, embedded.end), (42, 62, 70));
        assert_eq!(embedded.fragment, Fragment::No);

        let embedded = of(&error6(2, &sent6())).unwrap();
        assert_eq!(embedded.flow().source().to_string(), "[2001:db8::7]:40000");
        assert_eq!(embedded.flow().destination().to_string(), "[2001:db8:10::1]:53");
        assert_eq!((embedded.network_offset, embedded.transport_offset, embedded.end), (62, 102, 810));
    }

    #[test]
    fn only_errors_quote() {
        let quoted = (sent4(), sent6());
        for icmp_type in 0..=255 {
            let is_error = matches!(icmp_type, 3 | 11 | 12);
            assert_eq!(of(&error4(icmp_type, &quoted.0)).is_some(), is_error, "ICMP {icmp_type}");
            let is_error = matches!(icmp_type, 1..=4);
            assert_eq!(of(&error6(icmp_type, &quoted.1)).is_some(), is_error, "ICMPv6 {icmp_type}");
        }
        assert_eq!(of(&error4(3, &quoted.1)), None, "IPv6 in ICMP");
        assert_eq!(of(&error6(1, &quoted.0)), None, "IPv4 in ICMPv6");
        let mut later = error4(3, &quoted.0);
        later[21] = 1;
        assert_eq!(of(&later), None, "a later fragment of an error");
    }

    #[test]
    fn a_quote_may_end_behind_eight_bytes_of_the_transport_header_but_not_before() {
        for length in 0..40 {
            assert_eq!(of(&error4(11, &sent4()[..length])).is_some(), length >= 28, "{length} bytes");
            assert_eq!(of(&error6(3, &sent6()[..length + 20])).is_some(), length >= 28, "{length} bytes");
        }
    }

    #[test]
    fn options_and_extension_headers_are_passed_over() {
        let mut quoted = sent4();
        quoted.splice(20..20, [1; 40]);
        quoted[0] = 0x4f;
        let embedded = of(&error4(3, &quoted)).unwrap();
        assert_eq!((embedded.tuple.src_port, embedded.transport_offset), (80, 42 + 60));

        let mut quoted = sent6();
        // Destination options of 8 bytes, then a fragment header of a whole packet.
        quoted.splice(40..40, [44, 0, 1, 4, 0, 0, 0, 0, 17, 0, 0, 0, 1, 2, 3, 4]);
        quoted[6] = 60;
        let embedded = of(&error6(1, &quoted)).unwrap();
        assert_eq!((embedded.tuple.src_port, embedded.tuple.protocol), (53, UDP));
        assert_eq!(usize::from(embedded.transport_offset), 62 + 56);
        // A chain that goes beyond what is quoted.
        assert_eq!(of(&error6(1, &quoted[..52])), None);
    }

    #[test]
    fn fragments_are_told_and_later_ones_have_no_ports() {
        let mut quoted = sent4();
        quoted[6] = 0x20;
        let first = of(&error4(3, &quoted)).unwrap();
        assert_eq!((first.fragment, first.tuple.src_port), (Fragment::First, 80));
        quoted[7] = 1;
        let later = of(&error4(3, &quoted)).unwrap();
        assert_eq!((later.fragment, later.tuple.src_port, later.transport_offset), (Fragment::Later, 0, 0));
    }

    #[test]
    fn what_is_behind_the_error_is_not_quoted() {
        let mut bytes = error4(3, &sent4()[..28]);
        bytes.extend([0; 20]);
        assert_eq!(of(&bytes).unwrap().end, 70);
        let mut cut = error4(3, &sent4()[..27]);
        cut.extend([0; 20]);
        assert_eq!(of(&cut), None, "Ethernet padding is no transport header");
    }

    proptest! {
        #[test]
        fn arbitrary_quotes_do_not_panic(
            quoted in proptest::collection::vec(any::<u8>(), 0..200), icmp_type in 1..=4u8, keep in 0..260usize,
            seed: u64,
        ) {
            let damaged = packets::packet(seed);
            let quotes = [&quoted[..], damaged.get(14..).unwrap_or(&[])];
            for quote in quotes {
                for bytes in [error4(icmp_type, quote), error6(icmp_type, quote)] {
                    let headers = parse(&bytes, bytes.len());
                    for data in [&bytes[..], &bytes[..keep.min(bytes.len())]] {
                        if let Some(found) = Embedded::of(data, &headers) {
                            prop_assert!(usize::from(found.end) <= data.len());
                            prop_assert!(found.transport_offset == 0 || found.transport_offset + 8 <= found.end);
                        }
                    }
                }
            }
        }
    }
}
