//! Random but plausible packets, the same for the same seed on every machine: for tests that compare two
//! parsers or throw odd input at a stage. [`strategies`](super::strategies) has them for proptest.
//!
//! VLAN tags, IPv4 options, IPv6 extension chains, fragments, TCP, UDP, SCTP, ICMP and other protocols, Ethernet
//! padding; then, in [`packet`], some are broken. Addresses and ports are often of a small set ([`IPV4`],
//! [`IPV6`], [`PORTS`]), so that packets meet the services of a test. IPv4 header checksums are right,
//! transport checksums are random unless made right by [`with_checksums`].

use crate::pipeline::Batch;

/// Addresses every second IPv4 packet is from or to.
pub const IPV4: [[u8; 4]; 4] = [[198, 18, 10, 1], [198, 18, 10, 2], [198, 18, 0, 11], [10, 0, 0, 1]];
/// Addresses every second IPv6 packet is from or to.
pub const IPV6: [[u8; 16]; 3] = [
    [0x20, 0x01, 0x0d, 0xb8, 0, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1],
    [0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1],
    [0xff, 0x02, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, 0, 0, 1],
];
/// Ports most TCP and UDP packets are from or to.
pub const PORTS: [u16; 4] = [80, 443, 53, 40_000];

/// A packet, two in five of them damaged: bytes changed among the headers, the end cut off, the payload of
/// the IP packet shorter than its headers say, or several of these. It can be as short as no byte at all.
pub fn packet(seed: u64) -> Vec<u8> {
    let mut random = Random::new(seed);
    let cut_payload = random.one_in(10);
    let mut packet = build(&mut random, cut_payload);
    if random.one_in(4) {
        for _ in 0..random.between(1, 4) {
            let reach = *random.of(&[24, 60, 110]);
            let at = random.below(packet.len().min(reach));
            packet[at] = match random.below(4) {
                0 => packet[at] ^ (1 << random.below(8)),
                1 => packet[at].wrapping_add(1),
                2 => *random.of(&[
                    0, 1, 4, 5, 6, 8, 17, 43, 44, 51, 58, 60, 0x40, 0x44, 0x45, 0x4f, 0x60, 0x81, 0xff,
                ]),
                _ => random.byte(),
            };
        }
    }
    if random.one_in(7) {
        let keep = if random.one_in(4) { packet.len() } else { packet.len().min(120) };
        packet.truncate(random.below(keep + 1));
    }
    packet
}

/// A packet as a sender would send it: every length field is right.
pub fn well_formed(seed: u64) -> Vec<u8> {
    build(&mut Random::new(seed), false)
}

/// A packet with right checksums, if it is a whole one of IP; others are as they were.
pub fn with_checksums(mut packet: Vec<u8>) -> Vec<u8> {
    let len = packet.len() as u32;
    let mut batch = Batch::new(0);
    batch.push(&mut packet, len);
    batch.parse();
    // Fragments and what is malformed have none that could be computed.
    let _ = batch.packet_mut(0).fill_checksums();
    drop(batch);
    packet
}

/// The seeds from 0 to `count`, of which Miri, being slow, gets a few.
pub fn seeds(count: u64) -> std::ops::Range<u64> {
    0..if cfg!(miri) { count / 500 } else { count }
}

const HOP_BY_HOP: u8 = 0;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;

fn build(random: &mut Random, cut_payload: bool) -> Vec<u8> {
    let mut packet = Vec::new();
    for _ in 0..2 {
        let mac = [*random.of(&[0x02, 0x02, 0x02, 0x33, 0xff]), 0, 0, 0, 0, random.byte() % 4];
        packet.extend(mac);
    }
    for _ in 0..*random.of(&[0, 0, 0, 0, 0, 1, 1, 2, 2, 3]) {
        packet.extend(random.of::<u16>(&[0x8100, 0x8100, 0x88a8]).to_be_bytes());
        packet.extend(random.u16().to_be_bytes());
    }
    match random.below(20) {
        0 => {
            packet.extend([0x08, 0x06, 0, 1, 8, 0, 6, 4, 0, 1]);
            packet.extend(random.bytes(20));
        }
        1 => {
            let ethertype = *random.of(&[0x88cc, 0x8847, 0x9100, 0x0026, 0x0801]);
            packet.extend(u16::to_be_bytes(ethertype));
            let length = random.below(64);
            packet.extend(random.bytes(length));
        }
        2..=10 => {
            packet.extend([0x08, 0x00]);
            packet.extend(ipv4(random, cut_payload));
        }
        _ => {
            packet.extend([0x86, 0xdd]);
            packet.extend(ipv6(random, cut_payload));
        }
    }
    if packet.len() < 60 && random.one_in(2) {
        packet.resize(60, 0);
    }
    packet
}

fn ipv4(random: &mut Random, cut_payload: bool) -> Vec<u8> {
    let options = if random.one_in(4) { random.below(11) * 4 } else { 0 };
    let dont_fragment = if random.one_in(2) { 0x4000 } else { 0 };
    let (fragment, later) = match random.below(10) {
        0 => (0x2000, false),
        1 => (random.between(1, 0x2000) as u16 | *random.of(&[0, 0x2000]), true),
        _ => (dont_fragment, false),
    };
    let protocol = protocol(random, 1);
    let mut payload = if later { filler(random) } else { transport(random, protocol, 1) };
    if cut_payload {
        payload.truncate(random.below(40));
    }

    let mut header = vec![0x45 + (options / 4) as u8, *random.of(&[0, 0, 0xb8])];
    header.extend(((20 + options + payload.len()) as u16).to_be_bytes());
    header.extend(random.u16().to_be_bytes());
    header.extend(u16::to_be_bytes(fragment));
    header.extend([*random.of(&[1, 64, 255]), protocol, 0, 0]);
    for _ in 0..2 {
        let any = random.u64().to_be_bytes();
        header.extend(if random.one_in(2) { *random.of(&IPV4) } else { [any[0], any[1], any[2], any[3]] });
    }
    header.resize(20 + options, 1);
    let sum: u32 = header.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1])).sum();
    let sum = (sum & 0xffff) + (sum >> 16);
    header[10..12].copy_from_slice(&(!((sum & 0xffff) + (sum >> 16)) as u16).to_be_bytes());
    header.extend(payload);
    header
}

fn ipv6(random: &mut Random, cut_payload: bool) -> Vec<u8> {
    let count = match random.below(20) {
        0..=9 => 0,
        10..=17 => random.between(1, 4),
        _ => random.between(4, 11),
    };
    let mut kinds = Vec::new();
    for position in 0..count {
        // Hop-by-hop options belong to the front.
        let kind = *random.of(&[43, FRAGMENT, AUTHENTICATION, 60, HOP_BY_HOP]);
        kinds.push(if kind == HOP_BY_HOP && position > 0 && !random.one_in(8) { 60 } else { kind });
    }
    let last = protocol(random, 58);
    let (mut chain, mut later) = (Vec::new(), false);
    for (position, &kind) in kinds.iter().enumerate() {
        let next = *kinds.get(position + 1).unwrap_or(&last);
        match kind {
            FRAGMENT => {
                let word = match random.below(3) {
                    0 => 0,
                    1 => 1,
                    _ => random.u16() & !6,
                };
                chain.extend([next, 0]);
                chain.extend(word.to_be_bytes());
                chain.extend(random.bytes(4));
                later = word & 0xfff8 != 0;
            }
            AUTHENTICATION => {
                let words = random.between(1, 7);
                chain.extend([next, words as u8]);
                chain.extend(random.bytes((words + 2) * 4 - 2));
            }
            _ => {
                let units = if random.one_in(16) { random.below(20) } else { random.below(3) };
                chain.extend([next, units as u8]);
                chain.extend(random.bytes((units + 1) * 8 - 2));
            }
        }
        if later {
            break;
        }
    }
    let headers = chain.len();
    chain.extend(if later { filler(random) } else { transport(random, last, 58) });
    if cut_payload {
        chain.truncate(random.below(headers + 40));
    }

    let mut header = vec![0x60, 0, 0, 0];
    header.extend((chain.len() as u16).to_be_bytes());
    header.extend([*kinds.first().unwrap_or(&last), *random.of(&[1, 64, 255])]);
    for _ in 0..2 {
        let any: Vec<u8> = random.bytes(16).collect();
        header.extend(if random.one_in(2) { random.of(&IPV6).to_vec() } else { any });
    }
    header.extend(chain);
    header
}

fn protocol(random: &mut Random, icmp: u8) -> u8 {
    match random.below(10) {
        0..=3 => 6,
        4..=6 => 17,
        7..=8 => icmp,
        _ => *random.of(&[1, 2, 4, 41, 47, 50, 58, 59, 89, 132, 132, 132, 135, 253]),
    }
}

fn transport(random: &mut Random, protocol: u8, icmp: u8) -> Vec<u8> {
    let payload = filler(random);
    let mut bytes = Vec::new();
    if matches!(protocol, 6 | 17 | 132) {
        for _ in 0..2 {
            let any = random.u16();
            bytes.extend(if random.one_in(4) { any } else { *random.of(&PORTS) }.to_be_bytes());
        }
    }
    match protocol {
        6 => {
            let options = if random.one_in(2) { random.below(11) * 4 } else { 0 };
            bytes.extend(random.bytes(8));
            bytes
                .extend([0x50 + (options as u8 / 4) * 16, *random.of(&[2, 0x12, 0x10, 0x18, 0x11, 4, 0xff])]);
            bytes.extend(random.bytes(6));
            bytes.resize(20 + options, 1);
        }
        17 => {
            bytes.extend((8 + payload.len() as u16).to_be_bytes());
            bytes.extend(random.bytes(2));
        }
        132 => bytes.extend(random.bytes(8)),
        _ if protocol == icmp => {
            let kind = *random.of(&[0, 3, 8, 11, 128, 129, 133, 134, 135, 136, 137, 1]);
            bytes.extend([kind, random.byte() % 3]);
            bytes.extend(random.bytes(6));
        }
        _ => {}
    }
    bytes.extend(payload);
    bytes
}

fn filler(random: &mut Random) -> Vec<u8> {
    let length = match random.below(10) {
        0..=1 => 0,
        2..=8 => random.below(64),
        _ => random.below(1200),
    };
    random.bytes(length).collect()
}

/// SplitMix64 (Steele, Lea and Flood, OOPSLA 2014).
pub struct Random(u64);

impl Random {
    /// Neighbouring seeds must not give neighbouring streams, so the seed is mixed once.
    pub fn new(seed: u64) -> Self {
        Self(Self(seed).u64())
    }

    /// 64 random bits.
    pub fn u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// 16 random bits.
    pub fn u16(&mut self) -> u16 {
        self.u64() as u16
    }

    /// 8 random bits.
    pub fn byte(&mut self) -> u8 {
        self.u64() as u8
    }

    /// 0 to `end - 1`; 0 when `end` is 0.
    pub fn below(&mut self, end: usize) -> usize {
        ((u128::from(self.u64()) * end as u128) >> 64) as usize
    }

    /// `start` to `end - 1`.
    pub fn between(&mut self, start: usize, end: usize) -> usize {
        start + self.below(end - start)
    }

    /// True once in `count` times.
    pub fn one_in(&mut self, count: usize) -> bool {
        self.below(count) == 0
    }

    /// One of them.
    pub fn of<'a, T>(&mut self, choices: &'a [T]) -> &'a T {
        &choices[self.below(choices.len())]
    }

    /// Random bytes.
    pub fn bytes(&mut self, count: usize) -> impl Iterator<Item = u8> {
        (0..count).map(|_| self.byte())
    }
}
