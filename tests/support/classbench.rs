//! Rule lists and packets as large as one likes, in the manner of ClassBench (Taylor and Turner, INFOCOM 2005).
//!
//! What it found in real access lists, and what is kept here: addresses come from few sites, so prefixes nest; pairs of prefix
//! lengths cluster (a host or a network to a service, a network to anywhere); half of the rules ask for no port, those
//! that do ask mostly for one port of the destination, some for 1024 and above or for an odd range; most rules name a
//! protocol. One rule in five is IPv6. The same for the same seed.

use std::net::IpAddr;
use std::ops::RangeInclusive;

use etherparse::PacketBuilder;
use xfwd::stages::filter::{Action, Match, Prefix, Rule};

use super::packets::Random;

/// Rules, of which no two are the same but for chance.
pub fn rules(count: usize, seed: u64) -> Vec<Rule> {
    let mut random = Random::new(seed);
    // A site for each 24 rules; hosts and networks are drawn within.
    let sites: Vec<Prefix> = (0..count / 24 + 2).map(|index| site(&mut random, index % 5 == 0)).collect();
    let mut rules: Vec<Rule> = (0..count)
        .map(|_| {
            let here = *random.of(&sites);
            let src = address(&mut random, &sites, here, &[(30, 0), (20, 16), (20, 24), (30, 32)]);
            // A rule for any address to any would be met by most packets.
            let lengths: &[(usize, u8)] = if src.is_empty() {
                &[(20, 16), (30, 24), (50, 32)]
            } else {
                &[(25, 0), (10, 16), (35, 24), (30, 32)]
            };
            let dst = address(&mut random, &sites, here, lengths);
            let protocol = match random.below(10) {
                0 => vec![],
                1 => vec![if here.ip_version() == 4 { 1 } else { 58 }],
                2..=7 => vec![6],
                _ => vec![17],
            };
            let has_ports = matches!(protocol[..], [6 | 17]);
            let mut ports = |any: usize| if has_ports { port(&mut random, any) } else { vec![] };
            let (src_port, dst_port) = (ports(90), ports(35));
            let action = *random.of(&[Action::Drop, Action::Accept]);
            let matches = Match { src, dst, protocol, src_port, dst_port, ..Match::default() };
            Rule { matches, ..Rule::new("", action) }
        })
        .collect();
    // The special comes before the general, or would never be met; but not strictly.
    let length = |prefixes: &[Prefix]| {
        prefixes.first().map_or(0, |prefix| {
            u32::from(prefix.length()) * 32 / if prefix.ip_version() == 4 { 32 } else { 128 }
        })
    };
    let mut noise = Random::new(seed + 1);
    rules.sort_by_cached_key(|rule| {
        let bits = length(&rule.matches.src) + length(&rule.matches.dst);
        let ports = u32::from(!rule.matches.dst_port.is_empty());
        std::cmp::Reverse(bits / 8 + ports + noise.below(2) as u32)
    });
    for (index, rule) in rules.iter_mut().enumerate() {
        rule.name = format!("rule-{index}");
    }
    rules
}

/// Packets, nine in ten of which meet a rule chosen at random (and often match one before it); the others come from anywhere.
pub fn packets(rules: &[Rule], count: usize, seed: u64) -> Vec<Vec<u8>> {
    let mut random = Random::new(seed);
    let everything = Match::default();
    (0..count)
        .map(|_| {
            let rule = if random.one_in(10) { &everything } else { &random.of(rules).matches };
            packet(&mut random, rule)
        })
        .collect()
}

fn site(random: &mut Random, ipv6: bool) -> Prefix {
    if ipv6 {
        let address = [0x20, *random.of(&[0x01, 0x02, 0x03]), random.byte(), random.byte(), 0, 0, 0, 0];
        let address = [address, [0; 8]].concat();
        Prefix::new(<[u8; 16]>::try_from(address).unwrap().into(), 32)
    } else {
        let length = *random.of(&[12, 14, 16, 16]);
        Prefix::new([random.byte() % 223 + 1, random.byte(), 0, 0].into(), length)
    }
}

/// A prefix of the family of `here`: within it, or, once in three, within another site. `lengths` are of IPv4, each with its share of
/// 100; 0 stands for any address.
fn address(random: &mut Random, sites: &[Prefix], here: Prefix, lengths: &[(usize, u8)]) -> Vec<Prefix> {
    let mut share = random.below(100);
    let mut length = 0;
    for (part, one) in lengths {
        length = *one;
        if share < *part {
            break;
        }
        share -= part;
    }
    if length == 0 {
        return vec![];
    }
    let other = *random.of(sites);
    let from = if random.one_in(3) && other.ip_version() == here.ip_version() { other } else { here };
    // Most networks of a site are next to each other, most hosts have a low number.
    let jitter = if length == 24 { random.below(9) as u8 } else { 0 };
    let (subnet, host) = (random.below(256).min(random.below(256)) as u8, random.byte() % 64);
    let address = match from.address() {
        IpAddr::V4(address) => {
            let [a, b, _, _] = address.octets();
            let prefix =
                Prefix::new([a, b, subnet, host].into(), if jitter < 4 { length } else { 16 + jitter });
            return vec![prefix];
        }
        IpAddr::V6(address) => address,
    };
    let mut octets = address.octets();
    (octets[5], octets[7], octets[15]) = (subnet, host % 8, host);
    let length = [32, 48, 64, 128][usize::from(length / 8).saturating_sub(1).min(3)];
    vec![Prefix::new(octets.into(), length)]
}

/// `any` in 100 rules ask for no port.
fn port(random: &mut Random, any: usize) -> Vec<RangeInclusive<u16>> {
    if random.below(100) < any {
        return vec![];
    }
    match random.below(10) {
        0 => vec![1024..=u16::MAX],
        1 => {
            let low = random.u16() % 60_000;
            vec![low..=low + random.below(2000) as u16]
        }
        _ => {
            let port =
                *random.of(&[22, 25, 53, 80, 110, 123, 143, 161, 389, 443, 445, 993, 1433, 3306, 3389, 8080]);
            vec![port..=port]
        }
    }
}

/// A packet that meets these conditions.
fn packet(random: &mut Random, matches: &Match) -> Vec<u8> {
    let within = |random: &mut Random, prefixes: &[Prefix], ipv4: bool| -> [u8; 16] {
        let any = u128::from(random.u64()) << 64 | u128::from(random.u64());
        let Some(prefix) = prefixes.first() else {
            let any = any.to_be_bytes();
            return if ipv4 {
                Prefix::new([any[0], any[1], any[2], any[3]].into(), 32).mapped().0
            } else {
                any
            };
        };
        let (first, length) = prefix.mapped();
        let free = u128::MAX.checked_shr(u32::from(length)).unwrap_or(0);
        (u128::from_be_bytes(first) | any & free).to_be_bytes()
    };
    let family = matches.src.first().or(matches.dst.first());
    let ipv4 = family.map_or(!random.one_in(5), |prefix| prefix.ip_version() == 4);
    let ipv4 = ipv4 && matches.protocol[..] != [58] || matches.protocol[..] == [1];
    let (src, dst) = (within(random, &matches.src, ipv4), within(random, &matches.dst, ipv4));
    let port = |random: &mut Random, ranges: &[RangeInclusive<u16>]| match ranges.first() {
        None => random.u16(),
        Some(range) => range.start() + random.below(usize::from(range.end() - range.start()) + 1) as u16,
    };
    let (src_port, dst_port) = (port(random, &matches.src_port), port(random, &matches.dst_port));
    let ethernet = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);
    let last4 = |address: [u8; 16]| [address[12], address[13], address[14], address[15]];
    let ip = if ipv4 { ethernet.ipv4(last4(src), last4(dst), 64) } else { ethernet.ipv6(src, dst, 64) };
    let mut bytes = Vec::new();
    match matches.protocol.first() {
        Some(1) => ip.icmpv4_echo_request(1, 1).write(&mut bytes, b"").unwrap(),
        Some(58) => ip.icmpv6_echo_request(1, 1).write(&mut bytes, b"").unwrap(),
        Some(17) => ip.udp(src_port, dst_port).write(&mut bytes, b"").unwrap(),
        _ => ip.tcp(src_port, dst_port, 1, 1024).write(&mut bytes, b"").unwrap(),
    }
    bytes
}
