//! Random rule lists that take every form a rule has in the XDP program, and packets that come close to what rules ask for.
//!
//! [`super::packets`], with addresses and ports at the bounds of a rule patched into them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;
use std::sync::Arc;

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;
use xfwd::packet::parse;
use xfwd::stages::filter::{
    Action, FragmentKind, Match, Per, Prefix, PrefixSet, Rate, RateLimit, Rule, TcpFlags,
};

use super::packets;

/// A list of rules of every kind.
pub fn rules(most: usize) -> impl Strategy<Value = Vec<Rule>> {
    vec(rule(), 1..=most).prop_map(|mut rules| {
        for (index, rule) in rules.iter_mut().enumerate() {
            rule.name = format!("rule-{index}");
        }
        rules
    })
}

/// Rules of the plain kinds that hold for many packets, and rules of any conditions.
fn rule() -> impl Strategy<Value = Rule> {
    let action = prop_oneof![
        6 => Just(Action::Drop),
        5 => Just(Action::Accept),
        3 => Just(Action::Count),
        1 => Just(Action::Continue),
        1 => Just(Action::Bounce),
    ];
    let not = option::weighted(0.25, matches());
    let rate = option::weighted(
        0.04,
        Just(Rate { limit: RateLimit::PacketsPerSecond(1), burst: 1, per: Per::Whole }),
    );
    (action, matches(), not, rate).prop_map(|(action, matches, not, rate)| Rule {
        name: String::new(),
        matches,
        not,
        action,
        rate,
    })
}

fn matches() -> impl Strategy<Value = Match> {
    let none = Match::default;
    prop_oneof![
        3 => prefixes(4).prop_map(move |src| Match { src, ..none() }),
        2 => prefixes(4).prop_map(move |dst| Match { dst, ..none() }),
        2 => set().prop_map(move |set| Match { src_set: Some(set), ..none() }),
        1 => set().prop_map(move |set| Match { dst_set: Some(set), ..none() }),
        2 => protocols().prop_map(move |protocol| Match { protocol, ..none() }),
        3 => (ports(), maybe(protocols())).prop_map(move |(dst_port, protocol)| Match { dst_port, protocol, ..none() }),
        3 => (vec(host(), 1..3), vec(port_range(1), 1..3), maybe(protocols()))
            .prop_map(move |(dst, dst_port, protocol)| Match { dst, dst_port, protocol, ..none() }),
        2 => (host(), host(), port(), port(), maybe(protocols())).prop_map(move |(src, dst, from, to, protocol)| Match {
            src: vec![src],
            dst: vec![dst],
            src_port: vec![from..=from],
            dst_port: vec![to..=to],
            protocol,
            ..none()
        }),
        8 => anything(),
    ]
}

/// Each condition with a chance of its own.
fn anything() -> impl Strategy<Value = Match> {
    let addresses = (
        sometimes(prefixes(3)),
        sometimes(prefixes(3)),
        option::weighted(0.15, set()),
        option::weighted(0.1, set()),
    );
    let numbers = (
        sometimes(protocols()),
        sometimes(ports()),
        sometimes(ports()),
        sometimes(vec(range(select(vec![0_u16, 1, 2, 10, 100, 4094])), 1..3)),
        sometimes(vec(range(0_u8..20), 1..3)),
        sometimes(vec(range(0_u8..3), 1..2)),
    );
    let rest = (
        option::weighted(
            0.15,
            (any::<u8>(), any::<u8>()).prop_map(|(a, b)| TcpFlags { set: a & b & 0x3f, clear: !a & b }),
        ),
        option::weighted(0.15, range(select(vec![0_u32, 20, 28, 40, 41, 60, 100, 1500, 65_535]))),
        option::weighted(
            0.15,
            select(vec![FragmentKind::No, FragmentKind::Any, FragmentKind::First, FragmentKind::Later]),
        ),
        option::weighted(0.1, any::<bool>()),
        option::weighted(0.1, any::<bool>()),
    );
    (addresses, numbers, rest).prop_map(
        |(
            (src, dst, src_set, dst_set),
            (protocol, src_port, dst_port, vlan, icmp_type, icmp_code),
            (tcp_flags, length, fragment, ip_options, malformed),
        )| Match {
            src,
            dst,
            src_set,
            dst_set,
            protocol,
            src_port,
            dst_port,
            vlan,
            tcp_flags,
            icmp_type,
            icmp_code,
            length,
            fragment,
            ip_options,
            malformed,
        },
    )
}

fn sometimes<T: std::fmt::Debug>(list: impl Strategy<Value = Vec<T>>) -> impl Strategy<Value = Vec<T>> {
    option::weighted(0.15, list).prop_map(Option::unwrap_or_default)
}

fn maybe<T: std::fmt::Debug>(list: impl Strategy<Value = Vec<T>>) -> impl Strategy<Value = Vec<T>> {
    option::of(list).prop_map(Option::unwrap_or_default)
}

fn protocols() -> impl Strategy<Value = Vec<u8>> {
    vec(select(vec![6, 17, 132, 1, 58, 47, 4, 50, 0, 255]), 1..4)
}

fn port() -> impl Strategy<Value = u16> {
    prop_oneof![4 => select(packets::PORTS.to_vec()), 1 => any::<u16>(), 1 => select(vec![0, 65_535])]
}

fn port_range(width: u16) -> impl Strategy<Value = RangeInclusive<u16>> {
    (port(), 0..=width).prop_map(|(port, width)| port..=port.saturating_add(width))
}

fn ports() -> impl Strategy<Value = Vec<RangeInclusive<u16>>> {
    vec(prop_oneof![3 => port_range(2), 1 => range(any::<u16>())], 1..4)
}

fn range<T: Copy + PartialOrd + std::fmt::Debug>(
    value: impl Strategy<Value = T> + Clone,
) -> impl Strategy<Value = RangeInclusive<T>> {
    (value.clone(), value).prop_map(|(a, b)| if a < b { a..=b } else { b..=a })
}

fn address() -> impl Strategy<Value = IpAddr> {
    let v4 = prop_oneof![
        6 => select(packets::IPV4.to_vec()).prop_map(Ipv4Addr::from),
        1 => any::<u32>().prop_map(Ipv4Addr::from_bits),
    ];
    let v6 = prop_oneof![
        6 => select(packets::IPV6.to_vec()).prop_map(Ipv6Addr::from),
        1 => any::<u128>().prop_map(Ipv6Addr::from_bits),
        // An IPv6 packet from an IPv4-mapped address is an IPv6 packet.
        1 => select(packets::IPV4.to_vec()).prop_map(|octets| Ipv4Addr::from(octets).to_ipv6_mapped()),
    ];
    prop_oneof![v4.prop_map(IpAddr::V4), v6.prop_map(IpAddr::V6)]
}

fn host() -> impl Strategy<Value = Prefix> {
    address().prop_map(|address| Prefix::new(address, 128))
}

fn prefix() -> impl Strategy<Value = Prefix> {
    (address(), prop_oneof![2 => 0..=128_u8, 3 => 96..=128_u8]).prop_map(|(address, length)| match address {
        IpAddr::V4(_) => Prefix::new(address, if length >= 96 { length - 96 } else { length % 33 }),
        IpAddr::V6(_) => Prefix::new(address, length),
    })
}

fn prefixes(most: usize) -> impl Strategy<Value = Vec<Prefix>> {
    vec(prefix(), 1..=most)
}

/// Sets, some of which are dense around one network.
fn set() -> impl Strategy<Value = Arc<PrefixSet>> {
    let dense = vec((select(packets::IPV4.to_vec()), any::<u16>(), 17..=32_u8), 0..60).prop_map(|hosts| {
        let near = |([a, b, ..], low, length): ([u8; 4], u16, u8)| {
            let [c, d] = low.to_be_bytes();
            Prefix::new(Ipv4Addr::new(a, b, c, d).into(), length)
        };
        hosts.into_iter().map(near).collect::<Vec<_>>()
    });
    prop_oneof![vec(prefix(), 0..12), dense]
        .prop_map(|prefixes| Arc::new(PrefixSet::new("set.txt", prefixes)))
}

/// A packet of [`packets::packet`]; by `choice` with addresses and ports at or just beyond the bounds of one of the rules.
pub fn packet_near(rules: &[Rule], seed: u64, choice: u64) -> Vec<u8> {
    let mut packet = packets::packet(seed);
    let mut dice = Dice(choice);
    if rules.is_empty() || dice.below(4) == 0 {
        return packet;
    }
    let headers = parse(&packet, packet.len());
    let rule = &rules[dice.below(rules.len())];
    let conditions = match &rule.not {
        Some(not) if dice.below(2) == 0 => not,
        _ => &rule.matches,
    };
    let network = usize::from(headers.network_offset);
    let width = if headers.ip_version == 4 { 4 } else { 16 };
    let places = if width == 4 { [12, 16] } else { [8, 24] };
    let sides = [(&conditions.src, &conditions.src_set), (&conditions.dst, &conditions.dst_set)];
    if headers.ip_version != 0 {
        for (place, (list, set)) in places.into_iter().zip(sides) {
            let prefixes: Vec<Prefix> = list
                .iter()
                .chain(set.iter().flat_map(|set| set.prefixes()))
                .copied()
                .filter(|prefix| prefix.ip_version() == headers.ip_version)
                .collect();
            if !prefixes.is_empty() && dice.below(8) > 0 {
                let prefix = prefixes[dice.below(prefixes.len())];
                let address = at_bound(prefix, &mut dice);
                packet[network + place..][..width].copy_from_slice(&address[16 - width..]);
            }
        }
    }
    let transport = usize::from(headers.transport_offset);
    if transport != 0 && matches!(headers.protocol, 6 | 17 | 132) {
        for (place, ranges) in [(0, &conditions.src_port), (2, &conditions.dst_port)] {
            if !ranges.is_empty() && dice.below(8) > 0 {
                let range = &ranges[dice.below(ranges.len())];
                let port = match dice.below(4) {
                    0 => *range.start(),
                    1 => *range.end(),
                    2 => range.start().wrapping_sub(1),
                    _ => range.end().wrapping_add(1),
                };
                packet[transport + place..][..2].copy_from_slice(&port.to_be_bytes());
            }
        }
    }
    packet
}

/// The first or last address of a prefix, the one before or behind it, or one inside.
fn at_bound(prefix: Prefix, dice: &mut Dice) -> [u8; 16] {
    let (first, length) = prefix.mapped();
    let first = u128::from_be_bytes(first);
    let inside = u128::MAX.checked_shr(length.into()).unwrap_or(0);
    let address = match dice.below(5) {
        0 => first,
        1 => first | inside,
        2 => first.wrapping_sub(1),
        3 => (first | inside).wrapping_add(1),
        _ => first | (u128::from(dice.next()) << 64 | u128::from(dice.next())) & inside,
    };
    address.to_be_bytes()
}

/// SplitMix64 (Steele, Lea and Flood, OOPSLA 2014).
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }
}
