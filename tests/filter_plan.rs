//! The part of a filter that runs in the kernel, as a plan: looked up in user space, it gives the verdict and the rules
//! of the list read one after another. That the XDP program does the same is tested in `kernel_program`.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, in its helper functions too")]

mod support;

use std::time::Duration;

use proptest::prelude::*;
use xfwd::kernel::filter::compile;
use xfwd::kernel::offline::OfflineProgram;
use xfwd::kernel::xdp::{Steering, XdpAction};
use xfwd::packet::parse;
use xfwd::stages::filter::Facts;

use support::reference::{self, Judgement};
use support::{kernel_rules, rules};

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, max_shrink_iters: 20_000, ..ProptestConfig::default() })]

    #[test]
    fn a_plan_means_what_its_rules_mean(
        rules in prop_oneof![kernel_rules::rules(12), rules::list(40)],
        packets in prop::collection::vec(any::<(u64, u64)>(), 60),
    ) {
        let plan = compile(&rules).unwrap();
        let mut program = OfflineProgram::new(&Steering::default(), &plan, &[]).unwrap();
        for (seed, choice) in packets {
            let packet = kernel_rules::packet_near(&rules, seed, choice);
            let headers = parse(&packet, packet.len());
            let facts = Facts::of(&packet, &headers);
            let expected = reference::judge(&rules, &plan.places, &headers, &facts);
            let ruling = program.run(&packet, packet.len(), &headers, Duration::ZERO);
            let judgement = Judgement {
                dropped: ruling.action == XdpAction::Drop,
                acted: program.acted().iter().map(|rule| *rule as usize).collect(),
            };
            prop_assert_eq!(judgement, expected, "{:?}", headers);
        }
    }
}
