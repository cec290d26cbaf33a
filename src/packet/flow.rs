//! Which flow a packet belongs to: its five-tuple, and the hash of it.
//!
//! # The hash
//!
//! XXH3 (64 bits, seed 0) as its specification defines it, over 40 bytes: source address, destination address
//! (16 bytes each, IPv4 as IPv4-mapped IPv6), source port, destination port (2 bytes each), protocol, three
//! zero bytes; everything in network byte order. So the hash of a flow is the same in every process, on every
//! machine and in every version of this crate, and two balancers with the same table choose the same backend.
//!
//! XXH3 mixes five words in four multiplications that do not wait for each other, and its output has been
//! stable since xxHash 0.8. Only the case of 40 bytes is needed, which is short enough to write here; the
//! tests compare it with another implementation.
//!
//! The seed is public: who can choose the addresses and ports of many flows can choose the backend they go
//! to. A hash with a secret would take that from an attacker and the agreement between balancers from the
//! user. Tables that a sender must not be able to fill in one place take [`FiveTuple::keyed_hash`] instead,
//! the same hash with a secret seed.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use xfwd_ebpf_types::map_ipv4;

use super::protocol::{SCTP, TCP, UDP};
use super::{Fragment, Headers, Outcome};

/// Addresses, ports and protocol of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FiveTuple {
    /// Source address; IPv4 as IPv4-mapped IPv6 address.
    pub src: [u8; 16],
    /// Destination address; IPv4 as IPv4-mapped IPv6 address.
    pub dst: [u8; 16],
    /// Source port; 0 where there are no ports.
    pub src_port: u16,
    /// Destination port; 0 where there are no ports.
    pub dst_port: u16,
    /// IP protocol number.
    pub protocol: u8,
}

impl FiveTuple {
    /// The five-tuple of a packet: `data` holds at least what was parsed, `headers` is what the parser found
    /// in it.
    ///
    /// Ports are those of TCP, UDP and SCTP. For other protocols they are 0, and for every fragment, the first
    /// included, so that all fragments of a datagram belong to one flow.
    ///
    /// `None` unless the packet is well-formed IP ([`Outcome::Ip`]), or when `data` is shorter than the IP
    /// header.
    #[inline]
    pub fn of(data: &[u8], headers: &Headers) -> Option<Self> {
        let (src, dst) = addresses(data, headers)?;
        let (src_port, dst_port) = ports(headers);
        Some(Self { src, dst, src_port, dst_port, protocol: headers.protocol })
    }

    /// The five-tuple of the packets that go the other way: addresses and ports exchanged.
    #[inline]
    #[must_use]
    pub fn reversed(self) -> Self {
        Self { src: self.dst, dst: self.src, src_port: self.dst_port, dst_port: self.src_port, ..self }
    }

    /// The hash of the flow; see the documentation of this module for what it promises.
    #[inline]
    pub fn flow_hash(&self) -> u64 {
        self.keyed_hash(0)
    }

    /// XXH3 (64 bits) of the same bytes with this seed.
    ///
    /// With a random seed that stays in this process, nobody outside can choose flows that collide or that
    /// meet in one place of a table. The seed 0 gives [`flow_hash`](Self::flow_hash).
    #[inline]
    pub fn keyed_hash(&self, seed: u64) -> u64 {
        self.words().keyed_hash(seed)
    }

    #[inline(always)]
    fn words(&self) -> FlowWords {
        FlowWords {
            src: address_words(&self.src),
            dst: address_words(&self.dst),
            rest: rest_word(self.src_port, self.dst_port, self.protocol),
        }
    }

    /// Source address and port; an IPv4-mapped address as IPv4.
    pub fn source(&self) -> SocketAddr {
        SocketAddr::new(to_ip(self.src), self.src_port)
    }

    /// Destination address and port; an IPv4-mapped address as IPv4.
    pub fn destination(&self) -> SocketAddr {
        SocketAddr::new(to_ip(self.dst), self.dst_port)
    }
}

/// The hash of the flow a packet belongs to: [`FiveTuple::flow_hash`] of [`FiveTuple::of`].
#[inline]
pub fn flow_hash_of(data: &[u8], headers: &Headers) -> Option<u64> {
    FiveTuple::of(data, headers).map(|tuple| tuple.flow_hash())
}

fn to_ip(address: [u8; 16]) -> IpAddr {
    Ipv6Addr::from(address).to_canonical()
}

#[inline(always)]
fn addresses(data: &[u8], headers: &Headers) -> Option<([u8; 16], [u8; 16])> {
    if headers.outcome != Outcome::Ip as u8 {
        return None;
    }
    let header = data.get(usize::from(headers.network_offset)..)?;
    if headers.ip_version == 4 {
        let (pair, _) = header.first_chunk::<20>()?[12..].as_chunks::<4>();
        Some((map_ipv4(pair[0]), map_ipv4(pair[1])))
    } else {
        let (pair, _) = header.first_chunk::<40>()?[8..].as_chunks::<16>();
        Some((pair[0], pair[1]))
    }
}

#[inline(always)]
fn ports(headers: &Headers) -> (u16, u16) {
    if headers.fragment == Fragment::No as u8 && matches!(headers.protocol, TCP | UDP | SCTP) {
        (headers.src_port, headers.dst_port)
    } else {
        (0, 0)
    }
}

/// The first 64 bytes of XXH3's default secret, as little-endian words.
const SECRET: [u64; 8] = [
    0xbe4b_a423_396c_feb8,
    0x1cad_21f7_2c81_017c,
    0xdb97_9083_e96d_d4de,
    0x1f67_b3b7_a4a4_4072,
    0x78e5_c0cc_4ee6_79cb,
    0x2172_ffcc_7dd0_5a82,
    0x8e24_43f7_7446_08b8,
    0x4c26_3a81_e690_35e0,
];
const PRIME64_1: u64 = 0x9e37_79b1_85eb_ca87;
const PRIME_MX1: u64 = 0x1656_6791_9e37_79f9;

/// A five-tuple as the words that are hashed and compared: it stays in registers, where a [`FiveTuple`] is bytes in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FlowWords {
    /// The source address, its bytes in order from the low end.
    src: [u64; 2],
    /// The destination address.
    pub dst: [u64; 2],
    /// Ports, protocol and zeros.
    rest: u64,
}

impl FlowWords {
    /// What [`FiveTuple::of`] finds in a whole packet with ports: a fragment has none.
    #[inline(always)]
    pub fn of(data: &[u8], headers: &Headers) -> Option<Self> {
        let header = data.get(usize::from(headers.network_offset)..)?;
        let (src, dst) = if headers.ip_version == 4 {
            let header = header.first_chunk::<20>()?;
            let word =
                |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
            // IPv4-mapped: ten zero bytes, then two of ones.
            let mapped = |address: u32| [0, u64::from(address) << 32 | 0xffff_0000];
            (mapped(word(12)), mapped(word(16)))
        } else {
            let (pair, _) = header.first_chunk::<40>()?[8..].as_chunks::<16>();
            (address_words(&pair[0]), address_words(&pair[1]))
        };
        let rest = rest_word(headers.src_port, headers.dst_port, headers.protocol);
        Some(Self { src, dst, rest })
    }

    /// [`FiveTuple::keyed_hash`]: XXH3_64bits of the 40 bytes named in the documentation of this module.
    #[inline(always)]
    pub fn keyed_hash(&self, seed: u64) -> u64 {
        self.hash_with(&HashKey::new(seed))
    }

    /// [`keyed_hash`](Self::keyed_hash) with the seed of this key.
    #[inline(always)]
    pub fn hash_with(&self, key: &HashKey) -> u64 {
        let ([s0, s1], [d0, d1]) = (self.src, self.dst);
        let sum = (40u64.wrapping_mul(PRIME64_1))
            .wrapping_add(key.mix(d0, d1, 2))
            .wrapping_add(key.mix(s1, d0, 3))
            .wrapping_add(key.mix(s0, s1, 0))
            .wrapping_add(key.mix(d1, self.rest, 1));
        let sum = (sum ^ (sum >> 37)).wrapping_mul(PRIME_MX1);
        sum ^ (sum >> 32)
    }
}

/// The secret of the hash with a seed in it: for who hashes many flows with one seed.
#[derive(Clone, Copy)]
pub(crate) struct HashKey([u64; 8]);

impl HashKey {
    #[inline(always)]
    pub fn new(seed: u64) -> Self {
        let mut secret = SECRET;
        for (index, word) in secret.iter_mut().enumerate() {
            *word = if index % 2 == 0 { word.wrapping_add(seed) } else { word.wrapping_sub(seed) };
        }
        Self(secret)
    }

    /// Mixes two words with a pair of words of the secret.
    #[inline(always)]
    fn mix(&self, low: u64, high: u64, pair: usize) -> u64 {
        let product = u128::from(low ^ self.0[2 * pair]) * u128::from(high ^ self.0[2 * pair + 1]);
        product as u64 ^ (product >> 64) as u64
    }
}

#[inline(always)]
fn rest_word(src_port: u16, dst_port: u16, protocol: u8) -> u64 {
    u64::from(src_port.swap_bytes()) | u64::from(dst_port.swap_bytes()) << 16 | u64::from(protocol) << 32
}

/// An address as two words, its bytes in order from the low end.
#[inline(always)]
pub(crate) fn address_words(address: &[u8; 16]) -> [u64; 2] {
    let [a0, a1, a2, a3, a4, a5, a6, a7, b0, b1, b2, b3, b4, b5, b6, b7] = *address;
    [
        u64::from_le_bytes([a0, a1, a2, a3, a4, a5, a6, a7]),
        u64::from_le_bytes([b0, b1, b2, b3, b4, b5, b6, b7]),
    ]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

    use super::*;

    fn bytes(tuple: &FiveTuple) -> Vec<u8> {
        let mut bytes = [tuple.src, tuple.dst].concat();
        bytes.extend(tuple.src_port.to_be_bytes());
        bytes.extend(tuple.dst_port.to_be_bytes());
        bytes.extend([tuple.protocol, 0, 0, 0]);
        bytes
    }

    proptest! {
        #[test]
        fn is_xxh3(src: [u8; 16], dst: [u8; 16], src_port: u16, dst_port: u16, protocol: u8) {
            let tuple = FiveTuple { src, dst, src_port, dst_port, protocol };
            prop_assert_eq!(tuple.flow_hash(), xxh3_64(&bytes(&tuple)));
        }

        #[test]
        fn with_a_seed_it_is_xxh3_with_that_seed(
            src: [u8; 16], dst: [u8; 16], src_port: u16, dst_port: u16, protocol: u8, seed: u64,
        ) {
            let tuple = FiveTuple { src, dst, src_port, dst_port, protocol };
            prop_assert_eq!(tuple.keyed_hash(seed), xxh3_64_with_seed(&bytes(&tuple), seed));
        }
    }

    #[test]
    fn words_of_a_packet_are_those_of_its_five_tuple() {
        let mut with_ports = 0;
        for seed in 0..2_000 {
            let packet = crate::packet::packets::packet(seed);
            let headers = crate::packet::parse(&packet, packet.len());
            let has_ports =
                headers.fragment == Fragment::No as u8 && matches!(headers.protocol, TCP | UDP | SCTP);
            if let Some(tuple) = FiveTuple::of(&packet, &headers).filter(|_| has_ports) {
                assert_eq!(FlowWords::of(&packet, &headers), Some(tuple.words()));
                with_ports += 1;
            }
        }
        assert!(with_ports > 100);
    }

    fn tuple(client: u32, port: u16) -> FiveTuple {
        let src = map_ipv4((0x0a00_0000 + client).to_be_bytes());
        FiveTuple { src, dst: map_ipv4([198, 18, 10, 1]), src_port: port, dst_port: 80, protocol: TCP }
    }

    /// Changing this value would move every flow of every user: it is part of the interface.
    #[test]
    fn value_for_a_known_flow() {
        assert_eq!(tuple(1, 40_000).flow_hash(), 0x9d0f_abea_184e_0e21);
    }

    #[test]
    fn every_bit_is_even_and_neighbouring_flows_differ_in_half_of_the_bits() {
        let (mut ones, mut flips, mut flows) = ([0u32; 64], 0u32, 0u32);
        for client in 0..64 {
            for port in 32_768..33_280 {
                let hash = tuple(client, port).flow_hash();
                flips += (hash ^ tuple(client, port + 1).flow_hash()).count_ones();
                flows += 1;
                for (bit, count) in ones.iter_mut().enumerate() {
                    *count += (hash >> bit) as u32 & 1;
                }
            }
        }
        // 32,768 flows: one standard deviation is 91.
        assert!(ones.iter().all(|&count| count.abs_diff(flows / 2) < 500), "{ones:?}");
        assert!((31.5..32.5).contains(&(f64::from(flips) / f64::from(flows))));
    }

    #[test]
    fn addresses_are_shown_in_their_family() {
        let tuple = tuple(1, 40_000);
        assert_eq!(tuple.source().to_string(), "10.0.0.1:40000");
        assert_eq!(tuple.destination().to_string(), "198.18.10.1:80");
    }
}
