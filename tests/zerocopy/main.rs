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

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use serde_json::Value;
use xfwd_netns::vm::{Card, Images, Kernel, QUEUES};
use xfwd_netns::{exchange, lab_or_skip};

use cases::{CASES, Case, Mode};
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
    fn virtio_bounces_and_balances_in_zero_copy_as_veth_does() {
        lab_or_skip!();
        zero_copy("newest", VIRTIO);
    }

    #[test]
    #[ignore = "boots a virtual machine: scripts/test-zerocopy"]
    fn igb_bounces_and_balances_in_zero_copy_as_veth_does() {
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
        fall_back("newest", VIRTIO_WITHOUT_IOMMU);
    }
}

/// Kernels back to Debian's oldest: copy mode.
mod matrix {
    use super::*;

    #[test]
    #[ignore = "boots a virtual machine: scripts/test-zerocopy --matrix"]
    fn oldest_kernel_bounces_in_copy_mode_and_names_what_it_lacks() {
        lab_or_skip!();
        let mut subject = fall_back("oldest", VIRTIO);
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
        let mut subject = fall_back("lts", VIRTIO);
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
    bounce_all(&mut subject, &CASES[0]);
    subject.pull_cable();
    subject.plug_cable();
    bounce_all(&mut subject, &CASES[0]);
    subject.link_down_and_up();
    bounce_all(&mut subject, &CASES[0]);
    let (status, summary, log) = subject.stop(run);
    assert_eq!(status, 0, "{log}");
    let packets = 3 * (CASES[0].frames)().len() as u64;
    assert_counts(&summary, packets, &log);
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
fn fall_back(kernel: &str, card: Card) -> VmSubject {
    let mut subject = machine(kernel, card);
    eprintln!("{}", subject.features());

    let log = subject.refused(&CASES[0], Mode::ZeroCopy);
    for part in ["eth0 queue 0", "the driver refuses zero-copy", "mode = \"auto\""] {
        assert!(log.contains(part), "{part:?} is missing in: {log}");
    }
    subject.expect_clean();
    for case in CASES {
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

/// Runs a case: every frame is answered, once, as it should be; counts agree; the interface is clean afterwards.
fn answers(subject: &mut impl Subject, case: &Case, mode: Mode, bound: &str) -> (Vec<Vec<u8>>, Value) {
    let start = Instant::now();
    let run: Run = subject.start(case, mode);
    assert_eq!(run.modes(), [bound; QUEUES as usize], "{}: {}", case.name, run.log);
    let answers = bounce_all(subject, case);
    let (status, summary, log) = subject.stop(run);
    assert_eq!(status, 0, "{}: {log}", case.name);
    assert_counts(&summary, answers.len() as u64, &log);
    let modes: BTreeSet<&str> =
        rows(&summary, "queues").map(|queue| queue["mode"].as_str().unwrap()).collect();
    assert_eq!(modes, BTreeSet::from([bound]), "as read back from the kernel for every queue: {summary:#}");
    subject.expect_clean();
    eprintln!(
        "  {}: {} packets, {bound}, {:.1} s on {}",
        case.name,
        answers.len(),
        start.elapsed().as_secs_f64(),
        subject.name()
    );
    (answers, summary)
}

/// Sends a case's frames and returns the answers, of which there is one to each.
fn bounce_all(subject: &mut impl Subject, case: &Case) -> Vec<Vec<u8>> {
    let frames = (case.frames)();
    let result = exchange(subject.outside().wire(), &frames, WINDOW, PATIENCE).unwrap();
    if result.answered() < frames.len() {
        let lost: Vec<usize> = (0..frames.len()).filter(|number| result.answers[*number].is_none()).collect();
        panic!(
            "{}: without an answer: {} of {}, the first {:?}\n{}",
            case.name,
            lost.len(),
            frames.len(),
            &lost[..lost.len().min(20)],
            subject.autopsy()
        );
    }
    assert_eq!(result.doubled, 0, "{}: frames came back twice", case.name);
    let answers: Vec<Vec<u8>> = result.answers.into_iter().flatten().collect();
    for (number, (frame, answer)) in frames.iter().zip(&answers).enumerate() {
        (case.check)(frame, answer).unwrap_or_else(|why| {
            panic!("{}: frame {number}: {why}\nsent     {frame:02x?}\nanswered {answer:02x?}", case.name)
        });
    }
    answers
}

/// xfwd has counted what was sent and came back, on both queues, and lost nothing.
fn assert_counts(summary: &Value, packets: u64, log: &str) {
    let totals = &summary["totals"];
    let verdicts = &totals["verdicts"];
    let answered = verdicts["bounce"].as_u64().unwrap() + verdicts["forward"].as_u64().unwrap();
    assert_eq!(totals["packets"], packets, "{summary:#}\n{log}");
    assert_eq!(answered, packets, "{summary:#}\n{log}");
    assert_eq!(totals["sent"], packets, "{summary:#}\n{log}");
    assert_eq!((&totals["lost"], &verdicts["drop"]), (&0.into(), &0.into()), "{summary:#}\n{log}");
    let steered: u64 = rows(summary, "interfaces").map(|row| row["steered"].as_u64().unwrap()).sum();
    assert_eq!(steered, packets, "the XDP program counts the same: {summary:#}");
    for worker in rows(summary, "workers") {
        assert_ne!(worker["rx_packets"], 0, "a queue was not used: {summary:#}");
    }
}

fn rows<'a>(summary: &'a Value, of: &str) -> impl Iterator<Item = &'a Value> {
    summary[of].as_array().unwrap().iter()
}
