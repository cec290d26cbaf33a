//! The classifier finds the rule that going through the list finds, in both of its forms.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use proptest::collection::vec;
use proptest::prelude::*;
use xfwd::packet::parse;
use xfwd::stages::filter::{Classifier, Facts, Form, Rule, linear};

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
