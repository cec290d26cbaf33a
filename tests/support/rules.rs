//! Random rules and lists of them, as strategies that shrink: for tests that compare two ways to evaluate a list.
//!
//! Addresses, ports and protocols are often those of the generated packets ([`super::packets`]), and prefixes nest, so
//! that rules match and get in each other's way.

use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::sync::Arc;

use proptest::collection::vec;
use proptest::option::weighted;
use proptest::prelude::*;
use proptest::sample::select;
use xfwd::stages::filter::{
    Action, FragmentKind, Match, Per, Prefix, PrefixSet, Rate, RateLimit, Rule, TcpFlags,
};

use super::packets;

/// A list of up to `most` rules. Rates are there or not, but what they let pass is up to the test.
pub fn list(most: usize) -> impl Strategy<Value = Vec<Rule>> {
    let one = (conditions(), weighted(0.15, conditions()), action(), weighted(0.1, rate()));
    // Sets are shared between rules, as files are.
    (vec(one, 0..=most), vec(vec(prefix(), 0..12), 1..4)).prop_map(|(rules, sets)| {
        let sets: Vec<_> = sets
            .into_iter()
            .enumerate()
            .map(|(n, set)| Arc::new(PrefixSet::new(format!("set-{n}"), set)))
            .collect();
        let resolve = |(mut matches, src, dst): Conditions| {
            matches.src_set = src.map(|index: usize| Arc::clone(&sets[index % sets.len()]));
            matches.dst_set = dst.map(|index: usize| Arc::clone(&sets[index % sets.len()]));
            matches
        };
        let rules = rules.into_iter().enumerate().map(|(n, (matches, not, action, rate))| Rule {
            name: format!("rule-{n}"),
            matches: resolve(matches),
            not: not.map(&resolve),
            action,
            rate,
        });
        rules.collect()
    })
}

/// A packet, perhaps damaged: one of [`packets`], with some bytes changed.
pub fn packet() -> impl Strategy<Value = Vec<u8>> {
    (any::<u64>(), vec((0usize..120, any::<u8>()), 0..3)).prop_map(|(seed, changes)| {
        let mut packet = packets::packet(seed);
        for (at, byte) in changes {
            if let Some(place) = packet.get_mut(at) {
                *place = byte;
            }
        }
        packet
    })
}

/// Conditions, and the numbers of their sets.
type Conditions = (Match, Option<usize>, Option<usize>);

fn conditions() -> impl Strategy<Value = Conditions> {
    let addresses = (some(vec(prefix(), 1..4)), some(vec(prefix(), 1..4)), set(), set());
    let ports = (some(vec(range(port()), 1..4)), some(vec(range(port()), 1..4)), weighted(0.1, tcp_flags()));
    let icmp = (some(vec(range(icmp_type()), 1..3)), some(vec(range(0u8..4), 1..3)));
    let headers = (
        some(vec(protocol(), 1..4)),
        some(vec(vlan(), 1..3)),
        weighted(0.1, range(prop_oneof![20u32..120, 20u32..1500])),
        weighted(0.1, select(FragmentKinds::ALL)),
        weighted(0.1, any::<bool>()),
        weighted(0.1, any::<bool>()),
    );
    (addresses, ports, icmp, headers).prop_map(|(addresses, ports, icmp, headers)| {
        let (src, dst, src_set, dst_set) = addresses;
        let (src_port, dst_port, tcp_flags) = ports;
        let (icmp_type, icmp_code) = icmp;
        let (protocol, vlan, length, fragment, ip_options, malformed) = headers;
        let matches = Match {
            src,
            dst,
            src_set: None,
            dst_set: None,
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
        };
        (matches, src_set, dst_set)
    })
}

struct FragmentKinds;

impl FragmentKinds {
    const ALL: &[FragmentKind] =
        &[FragmentKind::No, FragmentKind::Any, FragmentKind::First, FragmentKind::Later];
}

/// One list in five is there: rules with many conditions match nothing.
fn some<T: std::fmt::Debug + Clone>(list: impl Strategy<Value = Vec<T>>) -> impl Strategy<Value = Vec<T>> {
    weighted(0.2, list).prop_map(Option::unwrap_or_default)
}

fn set() -> impl Strategy<Value = Option<usize>> {
    weighted(0.08, 0usize..3)
}

/// A prefix of an address that packets have, or of any.
fn prefix() -> impl Strategy<Value = Prefix> {
    let ipv4 = prop_oneof![3 => select(&packets::IPV4[..]), 1 => any::<[u8; 4]>()].prop_map(IpAddr::from);
    let ipv6 = prop_oneof![3 => select(&packets::IPV6[..]), 1 => any::<[u8; 16]>()].prop_map(IpAddr::from);
    let length = |whole: u8| prop_oneof![1 => Just(whole), 1 => Just(whole / 4), 4 => 0..=whole];
    prop_oneof![
        (ipv4, length(32)).prop_map(|(address, length)| Prefix::new(address, length)),
        (ipv6, length(128)).prop_map(|(address, length)| Prefix::new(address, length)),
    ]
}

fn port() -> impl Strategy<Value = u16> + Clone {
    prop_oneof![3 => select(&packets::PORTS[..]), 1 => any::<u16>()]
}

fn range<T: Copy + Ord + std::fmt::Debug>(
    bound: impl Strategy<Value = T> + Clone,
) -> impl Strategy<Value = RangeInclusive<T>> {
    (bound.clone(), bound, any::<bool>()).prop_map(
        |(a, b, single)| {
            if single { a..=a } else { a.min(b)..=a.max(b) }
        },
    )
}

fn icmp_type() -> impl Strategy<Value = u8> + Clone {
    select(&[0u8, 3, 8, 11, 128, 129, 135][..])
}

fn protocol() -> impl Strategy<Value = u8> {
    prop_oneof![4 => select(&[1u8, 4, 6, 17, 47, 51, 58, 59, 60, 132][..]), 1 => any::<u8>()]
}

fn vlan() -> impl Strategy<Value = RangeInclusive<u16>> {
    prop_oneof![Just(0..=0), range(1u16..4095)]
}

fn tcp_flags() -> impl Strategy<Value = TcpFlags> {
    (select(&[0u8, 2, 0x10, 0x12, 4][..]), select(&[0u8, 1, 0x10, 0x20][..]))
        .prop_map(|(set, clear)| TcpFlags { set, clear: clear & !set })
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        4 => Just(Action::Drop),
        3 => Just(Action::Accept),
        1 => Just(Action::Bounce),
        2 => Just(Action::Count),
        1 => Just(Action::Continue),
    ]
}

fn rate() -> impl Strategy<Value = Rate> {
    let per = prop_oneof![Just(Per::Whole), Just(Per::Src { ipv4: 24, ipv6: 64 }), Just(Per::Flow)];
    let limit = prop_oneof![
        (1u64..100).prop_map(RateLimit::PacketsPerSecond),
        (100u64..100_000).prop_map(RateLimit::BitsPerSecond),
    ];
    (limit, 1u64..5, per).prop_map(|(limit, burst, per)| Rate { limit, burst, per })
}
