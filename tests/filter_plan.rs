//! The part of a filter that runs in the kernel, as a plan: looked up in plain Rust, it gives the verdict and the rules
//! of the list read one after another. That the XDP program does the same is tested in `kernel_program`.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, in its helper functions too")]

mod support;

use proptest::prelude::*;
use xfwd::kernel::filter::compile;
use xfwd::packet::parse;
use xfwd::stages::filter::Facts;

use support::{interpret, kernel_rules, reference, rules};

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, max_shrink_iters: 20_000, ..ProptestConfig::default() })]

    #[test]
    fn a_plan_means_what_its_rules_mean(
        rules in prop_oneof![kernel_rules::rules(12), rules::list(40)],
        packets in prop::collection::vec(any::<(u64, u64)>(), 60),
    ) {
        let plan = compile(&rules).unwrap();
        for (seed, choice) in packets {
            let packet = kernel_rules::packet_near(&rules, seed, choice);
            let headers = parse(&packet, packet.len());
            let facts = Facts::of(&packet, &headers);
            let expected = reference::judge(&rules, &plan.places, &headers, &facts);
            prop_assert_eq!(interpret::judge(&plan, &headers, &facts), expected, "{:?}", headers);
        }
    }
}
