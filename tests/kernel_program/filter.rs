//! The filter in the XDP program: verdicts and counts are those of the list read one rule after another.

use std::cell::RefCell;
use std::time::{Duration, Instant};
use xfwd_netns::lab_or_skip;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use xfwd::kernel::filter::{KernelPlan, compile};
use xfwd::kernel::xdp::{Steering, XdpAction, XdpProgram};
use xfwd::packet::parse;
use xfwd::stages::filter::{Action, Classifier, Facts, Match, Prefix, PrefixSet, Rule};
use xfwd_ebpf_types::Cause;

use crate::packets::*;
use crate::support::{kernel_rules, reference, rules};

fn load(plan: &KernelPlan) -> XdpProgram {
    XdpProgram::load_with(&Steering::default(), plan).unwrap_or_else(|error| panic!("{error:?}"))
}

fn rule(name: &str, action: Action, matches: Match) -> Rule {
    Rule { matches, ..Rule::new(name, action) }
}

fn prefixes(texts: &[&str]) -> Vec<Prefix> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

/// Random lists against random packets and packets at the bounds of the rules. Loading a program takes some
/// milliseconds, so a list meets many packets.
#[test]
fn the_program_means_what_its_rules_mean() {
    lab_or_skip!();
    const PACKETS: usize = 250;
    let seen = RefCell::new([0_usize; 3]);
    let mut runner = TestRunner::new(Config { cases: 100, max_shrink_iters: 1_000, ..Config::default() });
    let cases = (
        prop_oneof![3 => kernel_rules::rules(12), 1 => rules::list(40)],
        prop::collection::vec(any::<(u64, u64)>(), PACKETS),
    );
    let result = runner.run(&cases, |(rules, packets)| {
        let plan = compile(&rules).unwrap();
        let program = load(&plan);
        let classifier = Classifier::new(&rules);
        let mut expected_counts = vec![(0, 0); rules.len()];
        for (seed, choice) in packets {
            let packet = kernel_rules::packet_near(&rules, seed, choice);
            // The kernel runs no shorter ones.
            if packet.len() < 14 {
                continue;
            }
            let headers = parse(&packet, packet.len());
            let facts = Facts::of(&packet, &headers);
            let expected = reference::judge(&rules, &plan.places, &headers, &facts);
            let dropped = program.test_run(&packet).unwrap() == XdpAction::Drop;
            prop_assert_eq!(dropped, expected.dropped, "{:?} {:?}", headers, expected);
            if let [rule, ..] = expected.acted[..] {
                let decisive = |index: &usize| rules[*index].action != Action::Continue;
                let mut matches = std::iter::successors(classifier.first_match(&facts), |last| {
                    classifier.next_match(&facts, last + 1)
                });
                prop_assert_eq!(matches.find(decisive), Some(rule));
            }
            for &rule in &expected.acted {
                expected_counts[rule].0 += 1;
                expected_counts[rule].1 += packet.len() as u64;
            }
            let mut seen = seen.borrow_mut();
            seen[0] += 1;
            seen[1] += usize::from(expected.dropped);
            seen[2] += usize::from(!expected.acted.is_empty());
        }
        // Verdicts alone would not tell which rule it was.
        let counts: Vec<_> =
            program.rule_counts().unwrap().iter().map(|count| (count.packets, count.bytes)).collect();
        prop_assert_eq!(counts, expected_counts);
        Ok(())
    });
    if let Err(error) = result {
        panic!("{error}");
    }
    let [packets, dropped, acted] = seen.into_inner();
    println!("{packets} packets, {acted} with a rule that acts, {dropped} dropped");
    assert!(packets > 20_000 && acted * 5 > packets && dropped * 20 > packets, "the packets miss the rules");
}

#[test]
fn a_packet_is_counted_by_its_rule_and_as_dropped() {
    lab_or_skip!();
    let rules = [
        rule("friends", Action::Accept, Match { src: prefixes(&["198.51.100.7"]), ..Match::default() }),
        rule("web", Action::Drop, Match { dst_port: vec![PORT..=PORT], ..Match::default() }),
    ];
    let mut strangers = rules.clone();
    strangers[0].matches.src = prefixes(&["203.0.113.0/24"]);
    let frame = frame4(&ipv4(VIP4, TCP, &tcp(PORT, 0, b"x")));
    for (rules, dropped) in [(rules, false), (strangers, true)] {
        let program = load(&compile(&rules).unwrap());
        let action = program.test_run(&frame).unwrap();
        assert_eq!(action == XdpAction::Drop, dropped);
        let counts: Vec<_> = program.rule_counts().unwrap().iter().map(|count| count.packets).collect();
        assert_eq!(counts, if dropped { [0, 1] } else { [1, 0] });
        assert_eq!(program.counters().unwrap().get(Cause::DroppedRule), u64::from(dropped));
    }
}

#[test]
fn arp_and_neighbour_discovery_are_never_filtered() {
    lab_or_skip!();
    let program = load(&compile(&[Rule::new("everything", Action::Drop)]).unwrap());
    for (kept, frame) in [
        (true, ethernet(&[], ARP, &arp())),
        (true, ethernet(&[(VLAN, 7)], ARP, &arp())),
        (true, frame6(&ipv6(HOST6, ICMPV6, &icmp(135, 0, &[0; 16])))),
        (true, frame6(&ipv6(HOST6, ICMPV6, &icmp(134, 0, &[0; 16])))),
        (false, frame6(&ipv6(HOST6, ICMPV6, &icmp(128, 0, b"ping")))),
        (false, ethernet(&[], 0x88cc, &[0; 46])),
        (false, frame4(&[0x45])),
        (false, frame4(&ipv4(HOST4, TCP, &tcp(22, 0, b"")))),
    ] {
        assert_eq!(program.test_run(&frame).unwrap() != XdpAction::Drop, kept, "{frame:02x?}");
    }
}

#[test]
fn a_hundred_thousand_prefixes_load_in_under_a_second_and_are_found() {
    lab_or_skip!();
    // Spread over all of IPv4, with clusters, of which some need every form of a line.
    let mut dice = 1_u64;
    let mut random = || {
        dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (dice >> 32) as u32
    };
    let mut list: Vec<Prefix> = Vec::new();
    while list.len() < 100_000 {
        let address = if random() % 4 == 0 { 0xc633_0000 | random() & 0xffff } else { random() };
        let length = [32, 32, 32, 24, 24, 28, 20, 16][(random() % 8) as usize];
        list.push(Prefix::new(std::net::Ipv4Addr::from_bits(address).into(), length));
    }
    let set = std::sync::Arc::new(PrefixSet::new("deny.txt", list));
    let matches = Match { src_set: Some(std::sync::Arc::clone(&set)), ..Match::default() };
    let rules = [rule("deny", Action::Drop, matches)];
    let start = Instant::now();
    let plan = compile(&rules).unwrap();
    let compiled = start.elapsed();
    let program = load(&plan);
    let loaded = start.elapsed();
    println!(
        "{} prefixes: compiled in {compiled:?}, in the kernel after {loaded:?}, {} lines",
        set.len(),
        plan.lines.len()
    );
    assert!(loaded < Duration::from_secs(1));
    for _ in 0..20_000 {
        let inside = set.prefixes()[random() as usize % set.len()].address();
        let std::net::IpAddr::V4(inside) = inside else { unreachable!() };
        let address = match random() % 3 {
            0 => inside,
            1 => std::net::Ipv4Addr::from_bits(inside.to_bits().wrapping_sub(1)),
            _ => std::net::Ipv4Addr::from_bits(random()),
        };
        let mut packet = ipv4(VIP4, UDP, &udp(PORT, b"x"));
        packet[12..16].copy_from_slice(&address.octets());
        let is_in = set.prefixes().binary_search(&Prefix::new(address.into(), 32)).is_ok()
            || (0..32)
                .any(|length| set.prefixes().binary_search(&Prefix::new(address.into(), length)).is_ok());
        assert_eq!(program.test_run(&frame4(&packet)).unwrap() == XdpAction::Drop, is_in, "{address}");
    }
}

/// Rules that are found by the source address, and by something else: both ways count what was received, in all its buffers and with
/// what follows the IP packet.
#[test]
fn a_drop_counts_the_bytes_of_the_whole_frame() {
    lab_or_skip!();
    let by_source = Match { src: prefixes(&["198.51.100.0/24"]), ..Match::default() };
    let by_port = Match { dst_port: vec![PORT..=PORT], ..Match::default() };
    let packet = |payload: usize| ipv4(VIP4, UDP, &udp(PORT, &vec![0; payload]));
    for matches in [by_source, by_port] {
        let program = load(&compile(&[rule("drop", Action::Drop, matches)]).unwrap());
        let mut counted = 0;
        for (ip, padding) in [
            (packet(1), 0),
            (packet(1), 17),
            (packet(900), 0),
            (packet(1_400), 0),
            (packet(1), 2_000),
            // Several buffers: by what the IP packet says itself, and behind it.
            (packet(8_000), 0),
            (packet(1), 8_000),
        ] {
            let frame = [frame4(&ip), vec![0; padding]].concat();
            assert_eq!(program.test_run(&frame).unwrap(), XdpAction::Drop);
            let bytes = program.rule_counts().unwrap()[0].bytes;
            assert_eq!(bytes - counted, frame.len() as u64);
            counted = bytes;
        }
        // An IP packet that is said to be longer than the frame.
        let mut cut = frame4(&packet(500));
        cut.truncate(60);
        let dropped = program.test_run(&cut).unwrap() == XdpAction::Drop;
        let bytes = program.rule_counts().unwrap()[0].bytes - counted;
        assert_eq!(bytes, if dropped { 60 } else { 0 });
    }
}

/// Every form that a word for the upper half of an address can have, with a rule in front that accepts and one behind that drops.
#[test]
fn a_rule_by_source_decides_whatever_the_form_of_its_word() {
    lab_or_skip!();
    let list = |texts: &[&str]| Match { src: prefixes(texts), ..Match::default() };
    let hosts = |step: usize| (0..=255).step_by(step).map(|last| format!("198.51.100.{last}"));
    let few: Vec<String> = hosts(64).chain(["198.51.100.7".to_owned()]).collect();
    let many: Vec<String> = hosts(2).chain(["198.51.100.7".to_owned()]).collect();
    let [few, many] = [&few, &many].map(|list| list.iter().map(String::as_str).collect::<Vec<_>>());
    let frame = frame4(&ipv4(VIP4, UDP, &udp(PORT, b"x")));
    let behind = rule("behind", Action::Drop, Match { dst_port: vec![PORT..=PORT], ..Match::default() });
    for (form, matches) in
        [("verdict", list(&["198.51.0.0/16"])), ("ranges", list(&few)), ("dense", list(&many))]
    {
        for (action, expected) in [(Action::Drop, [1, 0]), (Action::Accept, [1, 0])] {
            let rules = [rule("source", action, matches.clone()), behind.clone()];
            let program = load(&compile(&rules).unwrap());
            let result = program.test_run(&frame).unwrap();
            assert_eq!(result == XdpAction::Drop, action == Action::Drop, "{form}");
            let counts: Vec<_> = program.rule_counts().unwrap().iter().map(|count| count.packets).collect();
            assert_eq!(counts, expected, "{form} {action:?}");
        }
        let mut elsewhere = matches.clone();
        elsewhere.src.retain(|prefix| *prefix != "198.51.100.7".parse().unwrap() && prefix.length() == 32);
        if !elsewhere.src.is_empty() {
            let rules = [rule("source", Action::Drop, elsewhere), behind.clone()];
            let program = load(&compile(&rules).unwrap());
            assert_eq!(program.test_run(&frame).unwrap(), XdpAction::Drop, "{form}");
            let counts: Vec<_> = program.rule_counts().unwrap().iter().map(|count| count.packets).collect();
            assert_eq!(counts, [0, 1], "{form}: the address is not on the list");
        }
    }
}

/// What the verifier has to follow is what an older one may give up on (a million instructions), and what loading takes.
#[test]
fn the_verifier_follows_the_program_in_a_fraction_of_what_it_allows() {
    lab_or_skip!();
    let table = Match { length: Some(100..=200), ..Match::default() };
    let by_source = Match { src: prefixes(&["198.51.100.0/24"]), ..Match::default() };
    let rules = [rule("source", Action::Drop, by_source), rule("table", Action::Drop, table)];
    for (what, rules, limit) in [("without rules", &rules[..0], 150_000), ("with rules", &rules[..], 500_000)]
    {
        let program = load(&compile(rules).unwrap());
        let id = program.id().unwrap();
        let info = aya::programs::loaded_programs().flatten().find(|info| info.id() == id).unwrap();
        let followed = info.verified_instruction_count().unwrap();
        println!("{what}: {followed} instructions");
        assert!((1..limit).contains(&followed), "{what}: {followed}");
    }
}
