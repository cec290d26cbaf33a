//! xfwd on network cards whose drivers have zero-copy, in virtual machines, and on older kernels.
//!
//! `scripts/test-zerocopy` fetches what these tests boot, builds what they run, and runs them; by themselves they are
//! ignored. Every machine runs the `xfwd` of this build on two queues, and the test sends it packets through the cable of
//! its network card. The same packets go through the same `xfwd` on veth, and every answer must be the same.
//!
//! Counts are asserted, never rates: emulated time is slow and uneven.
#![allow(missing_docs, clippy::unwrap_used)]

mod cases;
mod subject;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use serde_json::Value;
use xfwd_netns::vm::{Card, Images, Kernel, QUEUES};
use xfwd_netns::{exchange, lab_or_skip};

use cases::{Answers, CASES, Case, Fate, Mode, TO_A_VLAN};
use subject::{Run, Subject, VethSubject, VmSubject};

/// Frames under way at a time: less than the smallest queue on the way, igb's receive ring of 256.
const WINDOW: usize = 64;
/// Longest wait for the next answer. A network card that resets takes half a second.
const PATIENCE: Duration = Duration::from_secs(10);

const VIRTIO: Card = Card::Virtio { iommu_platform: true };
const VIRTIO_WITHOUT_IOMMU: Card = Card::Virtio { iommu_platform: false };

/// The newest kernel: what every change must pass.
mod newest {
    use super::*;

    #[test]
    #[ignore = "boots a virtual machine: scripts/test-zerocopy"]
    fn virtio_bounces_filters_and_balances_in_zero_copy_as_veth_does() {
        lab_or_skip!();
        zero_copy("newest", VIRTIO);
    }

    #[test]
    #[ignore = "boots a virtual machine: scripts/test-zerocopy"]
    fn igb_bounces_filters_and_balances_in_zero_copy_as_veth_does() {
        lab_or_skip!();
        let mut subject = zero_copy("newest", Card::Igb);
        // This driver gives a packet less than a page.
        subject.set_mtu(3400);
        let log = subject.refused(&CASES[0], Mode::Auto);
        assert!(log.contains("MTU of 3400 is too large"), "{log}");
        subject.expect_clean();
    }

    #[test]
    #[ignore = "boots a virtual machine: scripts/test-zerocopy"]
    fn card_without_zero_copy_falls_back_to_copy_and_says_so() {
        lab_or_skip!();
        fall_back("newest", VIRTIO_WITHOUT_IOMMU, |_| true);
    }
}

/// Kernels back to Debian's oldest: copy mode.
mod matrix {
    use super::*;

    #[test]
    #[ignore = "boots a virtual machine: scripts/test-zerocopy --matrix"]
    fn oldest_kernel_bounces_in_copy_mode_and_names_what_it_lacks() {
        lab_or_skip!();
        // Its verifier gives up on the XDP program with filter rules (`XdpError::RulesRefused`), after a minute of trying
        // in emulation, so that is not waited for here; without rules everything runs.
        let mut subject = fall_back("oldest", VIRTIO, |case| case.name != "filter");
        let missing = ["6.3: NETDEV_CMD_DEV_GET", "6.6: XDP_USE_SG", "6.17: XDP_MAX_TX_SKB_BUDGET"];
        assert_eq!(subject.missing_features(), missing.map(|feature| format!("needs Linux {feature}")));
        // A feature that is needed after all stops xfwd, by name.
        subject.set_mtu(9000);
        let log = subject.refused(&CASES[0], Mode::Auto);
        let why = "multi-buffer AF_XDP (XDP_USE_SG) needs Linux 6.6; this is Linux 6.1";
        assert!(log.contains(why), "{log}");
        subject.expect_clean();
    }

    #[test]
    #[ignore = "boots a virtual machine: scripts/test-zerocopy --matrix"]
    fn long_term_kernel_bounces_in_copy_mode_and_names_what_it_lacks() {
        lab_or_skip!();
        let mut subject = fall_back("lts", VIRTIO, |_| true);
        assert_eq!(subject.missing_features(), ["needs Linux 6.17: XDP_MAX_TX_SKB_BUDGET"]);
        // Packets of several buffers are copied where the driver has no zero-copy for them.
        subject.set_mtu(9000);
        answers_as_on_veth(&mut subject, &CASES[0], Mode::Auto, "copy");
    }
}

/// A machine with a card, on the kernel that has this role, and the outside of its cable.
fn machine(kernel: &str, card: Card) -> VmSubject {
    let images = Images::from_environment().expect(
        "XFWD_VM names the directory that scripts/zerocopy-images has filled: run scripts/test-zerocopy",
    );
    let kernel: Kernel = images.kernel(kernel).unwrap();
    let start = Instant::now();
    let subject = VmSubject::boot(&images, &kernel, card);
    eprintln!("{card} on Linux {}: booted in {:.1} s", kernel.release(), start.elapsed().as_secs_f64());
    subject
}

/// Everything that is asked of a card with zero-copy, on one machine.
fn zero_copy(kernel: &str, card: Card) -> VmSubject {
    let mut subject = machine(kernel, card);
    eprintln!("{}", subject.features());

    for case in CASES {
        let summary = answers_as_on_veth(&mut subject, case, Mode::Auto, "zero-copy");
        assert_eq!(summary["queues"].as_array().unwrap().len(), QUEUES as usize);
    }
    subject.add_vlan();
    answers(&mut subject, &TO_A_VLAN, Mode::Auto, "zero-copy");
    // The host stays reachable beside zero-copy sockets, and the cable can come and go.
    let run = subject.start(&CASES[0], Mode::ZeroCopy);
    assert_eq!(run.modes(), ["zero-copy", "zero-copy"]);
    if card == Card::Igb {
        // It resets when the program is attached, and xfwd lives through it.
        assert!(
            run.log.contains("eth0: carrier lost") && run.log.contains("eth0: carrier back"),
            "{}",
            run.log
        );
    }
    subject.outside().expect_host_answers();
    exchange_all(&mut subject, &CASES[0]);
    subject.pull_cable();
    subject.plug_cable();
    exchange_all(&mut subject, &CASES[0]);
    subject.link_down_and_up();
    exchange_all(&mut subject, &CASES[0]);
    let (status, summary, log) = subject.stop(run);
    assert_eq!(status, 0, "{log}");
    assert_counts(&summary, &CASES[0], 3, &log);
    subject.expect_clean();

    // A process that is killed leaves the interface to the host, and its queues to the next.
    let run = subject.start(&CASES[0], Mode::Auto);
    subject.kill(run);
    subject.expect_clean();
    subject.outside().expect_host_answers();
    answers_as_on_veth(&mut subject, &CASES[0], Mode::Copy, "copy");
    subject
}

/// What is asked of a card, or a kernel, without zero-copy.
fn fall_back(kernel: &str, card: Card, runs: impl Fn(&Case) -> bool) -> VmSubject {
    let mut subject = machine(kernel, card);
    eprintln!("{}", subject.features());

    let log = subject.refused(&CASES[0], Mode::ZeroCopy);
    for part in ["eth0 queue 0", "the driver refuses zero-copy", "mode = \"auto\""] {
        assert!(log.contains(part), "{part:?} is missing in: {log}");
    }
    subject.expect_clean();
    for case in CASES.iter().filter(|case| runs(case)) {
        answers_as_on_veth(&mut subject, case, Mode::Auto, "copy");
    }
    let run = subject.start(&CASES[0], Mode::Auto);
    assert!(
        run.log.contains("warning: no zero-copy (eth0 queue 0"),
        "the fall-back is not told: {}",
        run.log
    );
    let (status, _, log) = subject.stop(run);
    assert_eq!(status, 0, "{log}");
    subject.expect_clean();
    subject
}

/// Runs a case and checks its answers, by themselves and against those of veth; its counters; and what it leaves behind.
fn answers_as_on_veth(subject: &mut impl Subject, case: &Case, mode: Mode, bound: &str) -> Value {
    let frames = (case.frames)();
    let (answers, summary) = answers(subject, case, mode, bound);
    let on_veth = cases::on_veth(case, || {
        let mut veth = VethSubject::new();
        self::answers(&mut veth, case, Mode::Auto, "copy").0
    });
    for (number, (answer, on_veth)) in answers.iter().zip(on_veth).enumerate() {
        assert_eq!(
            answer, on_veth,
            "{}: frame {number} is answered differently on veth: {:02x?}",
            case.name, frames[number]
        );
    }
    summary
}

/// Runs a case: what is to be answered is answered, once, as it should be, and nothing else; counts agree; the interface is
/// clean afterwards.
fn answers(subject: &mut impl Subject, case: &Case, mode: Mode, bound: &str) -> (Answers, Value) {
    let start = Instant::now();
    let run: Run = subject.start(case, mode);
    assert_eq!(run.modes(), [bound; QUEUES as usize], "{}: {}", case.name, run.log);
    let answers = exchange_all(subject, case);
    let (status, summary, log) = subject.stop(run);
    assert_eq!(status, 0, "{}: {log}", case.name);
    assert_counts(&summary, case, 1, &log);
    let modes: BTreeSet<&str> =
        rows(&summary, "queues").map(|queue| queue["mode"].as_str().unwrap()).collect();
    assert_eq!(modes, BTreeSet::from([bound]), "as read back from the kernel for every queue: {summary:#}");
    subject.expect_clean();
    eprintln!(
        "  {}: {} packets, {} answered, {bound}, {:.1} s on {}",
        case.name,
        answers.len(),
        answers.iter().flatten().count(),
        start.elapsed().as_secs_f64(),
        subject.name()
    );
    (answers, summary)
}

/// Sends a case's frames and returns the answers, of which there is one to each that is not dropped.
fn exchange_all(subject: &mut impl Subject, case: &Case) -> Answers {
    let frames = (case.frames)();
    let is_due = |number: usize| (case.fate)(number as u32, &frames[number]).0 == Fate::Answered;
    let result = exchange(subject.outside().wire(), &frames, is_due, WINDOW, PATIENCE).unwrap();
    let wrong = |number: &usize| result.answers[*number].is_some() != is_due(*number);
    let wrong: Vec<usize> = (0..frames.len()).filter(wrong).collect();
    if !wrong.is_empty() {
        let (unanswered, undropped): (Vec<usize>, Vec<usize>) =
            wrong.into_iter().partition(|number| is_due(*number));
        panic!(
            "{}: of {} frames {} are without an answer, the first {:?}; and {} came back that had to be dropped, the first \
             {:?}\n{}",
            case.name,
            frames.len(),
            unanswered.len(),
            &unanswered[..unanswered.len().min(20)],
            undropped.len(),
            &undropped[..undropped.len().min(20)],
            subject.autopsy()
        );
    }
    assert_eq!(result.doubled, 0, "{}: frames came back twice", case.name);
    for (number, (frame, answer)) in frames.iter().zip(&result.answers).enumerate() {
        let Some(answer) = answer else { continue };
        (case.check)(frame, answer).unwrap_or_else(|why| {
            panic!("{}: frame {number}: {why}\nsent     {frame:02x?}\nanswered {answer:02x?}", case.name)
        });
    }
    result.answers
}

/// xfwd has counted what was sent, `times` over, and what became of it, on both queues, and lost nothing.
fn assert_counts(summary: &Value, case: &Case, times: u64, log: &str) {
    let (mut answered, mut dropped_by_kernel, mut dropped_by_worker) = (0, 0, 0);
    let mut rules = BTreeMap::<&str, (u64, u64)>::new();
    for (number, frame) in (case.frames)().iter().enumerate() {
        let (fate, counted_by) = (case.fate)(number as u32, frame);
        *match fate {
            Fate::Answered => &mut answered,
            Fate::DroppedByKernel => &mut dropped_by_kernel,
            Fate::DroppedByWorker => &mut dropped_by_worker,
        } += times;
        for rule in counted_by {
            let (packets, bytes) = rules.entry(rule).or_default();
            *packets += times;
            *bytes += times * frame.len() as u64;
        }
    }
    let (totals, verdicts) = (&summary["totals"], &summary["totals"]["verdicts"]);
    let count = |value: &Value| value.as_u64().unwrap();
    assert_eq!(totals["packets"], answered + dropped_by_worker, "{summary:#}\n{log}");
    assert_eq!(count(&verdicts["bounce"]) + count(&verdicts["forward"]), answered, "{summary:#}\n{log}");
    assert_eq!(totals["sent"], answered, "{summary:#}\n{log}");
    assert_eq!(verdicts["drop"], dropped_by_worker, "{summary:#}\n{log}");
    assert_eq!(totals["lost"], 0, "{summary:#}\n{log}");
    let by_program = |what: &str| rows(summary, "interfaces").map(|row| count(&row[what])).sum::<u64>();
    assert_eq!(
        by_program("steered"),
        answered + dropped_by_worker,
        "the XDP program counts the same: {summary:#}"
    );
    assert_eq!(by_program("dropped"), dropped_by_kernel, "{summary:#}");
    let counted: BTreeMap<&str, (u64, u64)> = rows(summary, "rules")
        .map(|row| (row["name"].as_str().unwrap(), (count(&row["packets"]), count(&row["bytes"]))))
        .collect();
    assert_eq!(counted, rules, "packets and bytes of each rule: {summary:#}");
    for worker in rows(summary, "workers") {
        assert_ne!(worker["rx_packets"], 0, "a queue was not used: {summary:#}");
    }
}

fn rows<'a>(summary: &'a Value, of: &str) -> impl Iterator<Item = &'a Value> {
    summary[of].as_array().unwrap().iter()
}
