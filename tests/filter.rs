//! The classifier finds the rule that going through the list finds, in both of its forms.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use proptest::collection::vec;
use proptest::prelude::*;
use xfwd::packet::{Outcome, parse};
use xfwd::pipeline::{DropReason, Verdict};
use xfwd::stages::filter::{Action, Classifier, Facts, FilterControl, Form, Rule, linear};
use xfwd::testing::Harness;

use support::{classbench, packets, rules};

fn facts(packet: &[u8]) -> Facts {
    Facts::of(packet, &parse(packet, packet.len()))
}

/// A list in each form.
fn forms(list: &[Rule]) -> [Classifier; 2] {
    [Form::Vectors, Form::Pairs].map(|form| {
        let classifier = Classifier::with_form(list, form);
        assert_eq!(classifier.form(), form);
        classifier
    })
}

/// Every match of a packet, by repeated lookups.
fn all_matches(mut next: impl FnMut(usize) -> Option<usize>) -> Vec<usize> {
    let mut found = Vec::new();
    while let Some(rule) = next(found.last().map_or(0, |last| last + 1)) {
        found.push(rule);
    }
    found
}

proptest! {
    // 1,000 lists with 60 packets each.
    #![proptest_config(ProptestConfig { cases: 1_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_classifier_is_the_list(list in rules::list(40), packets in vec(rules::packet(), 60)) {
        let forms = forms(&list);
        for packet in &packets {
            let facts = facts(packet);
            let expected = all_matches(|start| linear::next_match(&list, &facts, start));
            for classifier in &forms {
                let found = all_matches(|start| classifier.next_match(&facts, start));
                prop_assert_eq!(&found, &expected, "{:?} {:?}", classifier.form(), facts);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() })]

    /// Long lists are where buckets are split, and where a vector has more than a chunk.
    #[test]
    fn the_classifier_is_the_list_when_it_is_long(list in rules::list(600), seed in any::<u64>()) {
        let forms = forms(&list);
        for packet in (0..500).map(|n| packets::packet(seed.wrapping_add(n))) {
            let facts = facts(&packet);
            let expected = linear::first_match(&list, &facts);
            for classifier in &forms {
                prop_assert_eq!(classifier.first_match(&facts), expected, "{:?} {:?}", classifier.form(), facts);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    /// Without addresses all rules lie in one bucket, which is split again and again.
    #[test]
    fn one_large_bucket_is_the_list(mut list in rules::list(300), seed in any::<u64>()) {
        for rule in &mut list {
            rule.matches.src.clear();
            rule.matches.dst.clear();
            (rule.matches.src_set, rule.matches.dst_set) = (None, None);
        }
        let forms = forms(&list);
        for packet in (0..200).map(|n| packets::packet(seed.wrapping_add(n))) {
            let facts = facts(&packet);
            let expected = all_matches(|start| linear::next_match(&list, &facts, start));
            for classifier in &forms {
                let found = all_matches(|start| classifier.next_match(&facts, start));
                prop_assert_eq!(&found, &expected, "{:?} {:?}", classifier.form(), facts);
            }
        }
    }
}

/// ARP and neighbour discovery, which no rule is asked about.
fn is_exempt(packet: &[u8]) -> bool {
    let headers = parse(packet, packet.len());
    (headers.outcome() == Outcome::NotIp && headers.ethertype == 0x0806)
        || (headers.ip_version == 6 && headers.protocol == 58 && (133..=137).contains(&headers.icmp_type))
}

/// Runs packets through the stage, and says the same of verdicts and counters as the list does.
fn stage_is_the_list(list: &[Rule], packets: &[Vec<u8>]) {
    let list: Vec<Rule> = list.iter().cloned().map(|rule| Rule { rate: None, ..rule }).collect();
    let mut control = FilterControl::new(list.clone());
    let found = Harness::new(control.stage()).run(packets).packets;
    let mut counted = vec![0; list.len()];
    for (packet, found) in packets.iter().zip(found) {
        let facts = facts(packet);
        let rule = match is_exempt(packet) {
            true => None,
            false => linear::decide(&list, &facts, |_| true, |rule| counted[rule] += 1),
        };
        let is_right = match rule.map(|rule| list[rule].action) {
            Some(Action::Drop) => found.verdict == Verdict::Drop(DropReason::Rule),
            Some(Action::Bounce) => matches!(
                found.verdict,
                Verdict::Bounce | Verdict::Drop(DropReason::NotAnswered | DropReason::Malformed)
            ),
            _ => found.verdict == Verdict::Continue,
        };
        assert!(is_right, "{:?} by {rule:?} of {facts:?}", found.verdict);
    }
    let counters: Vec<u64> = control.counters().iter().map(|rule| rule.packets).collect();
    assert_eq!(counters, counted);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    /// The stage looks up a batch at a time, TCP and UDP by a shorter way.
    #[test]
    fn the_stage_is_the_list(list in rules::list(40), packets in vec(rules::packet(), 100)) {
        stage_is_the_list(&list, &packets);
    }
}

/// Lists of one, two and three chunks, and one that is compiled to pairs.
#[test]
fn the_stage_is_a_list_as_operators_write_them() {
    for count in [10, 500, 1_000, 1_500, 5_000] {
        let list = classbench::rules(count, 5);
        stage_is_the_list(&list, &classbench::packets(&list, 2_000, 6));
    }
}

/// What the bench measures is right, too.
#[test]
fn a_list_as_operators_write_them() {
    for (count, seed) in [(10, 1), (100, 2), (1_000, 3), (5_000, 4)] {
        let list = classbench::rules(count, seed);
        let forms = forms(&list);
        for packet in classbench::packets(&list, 1_000, seed) {
            let facts = facts(&packet);
            let expected = linear::first_match(&list, &facts);
            for classifier in &forms {
                assert_eq!(classifier.first_match(&facts), expected, "{:?} {facts:?}", classifier.form());
            }
        }
    }
}

/// The generated rules and packets have to meet, or comparing says little.
#[test]
fn generated_rules_match_generated_packets() {
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;
    let mut runner = TestRunner::deterministic();
    let (mut matched, mut pairs, mut matches_by_rule) = (0, 0, 0);
    for _ in 0..200 {
        let list: Vec<Rule> = rules::list(40).new_tree(&mut runner).unwrap().current();
        for _ in 0..50 {
            let packet = rules::packet().new_tree(&mut runner).unwrap().current();
            let facts = facts(&packet);
            pairs += 1;
            matched += usize::from(linear::first_match(&list, &facts).is_some());
            matches_by_rule += all_matches(|start| linear::next_match(&list, &facts, start)).len();
        }
    }
    assert!(matched > pairs / 2 && matched < pairs, "{matched} of {pairs}");
    assert!(matches_by_rule > pairs, "{matches_by_rule} in {pairs}");
}
