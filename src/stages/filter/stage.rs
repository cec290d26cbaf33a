//! The hot path of filtering.

use std::sync::Arc;

use super::classifier::Lookups;
use super::control::{Compiled, Step, WorkerCounts};
use super::policer::{Seen, Ticks};
use super::{Action, Facts, is_exempt};
use crate::packet::Headers;
use crate::pipeline::{Batch, DropReason, Packet, Stage, Verdict};
use crate::stages::bounce::bounce_l2;

/// The stage: one instance a worker, made by [`FilterControl::stage`](super::FilterControl::stage).
///
/// A packet that a rule drops is counted as [`DropReason::Rule`]; one that no rule decides about, or that one accepts,
/// stays undecided for the next stage.
pub struct Filter {
    compiled: Arc<Compiled>,
    counts: Arc<WorkerCounts>,
    has_policers: bool,
}

impl Filter {
    pub(super) fn new(compiled: Arc<Compiled>, counts: Arc<WorkerCounts>) -> Self {
        let has_policers = compiled.policers.are_there();
        Self { compiled, counts, has_policers }
    }

    /// Rule after rule that matches.
    #[inline(never)]
    fn judge(&self, packet: &mut Packet<'_>, now: Ticks, lookups: &mut Lookups<'_>) -> Verdict {
        let Compiled { actions, counted, .. } = &*self.compiled;
        let len = packet.len() as u64;
        let (headers, bytes) = packet.headers_and_bytes();
        // These come here only if nothing at all stays in the kernel.
        if is_exempt(headers) {
            return Verdict::Continue;
        }
        let mut start = 0;
        while let Some(rule) = lookups.next_match(bytes, headers, start) {
            start = rule + 1;
            if self.has_policers && !self.acts(rule, bytes, len, headers, now) {
                continue;
            }
            if counted[rule] {
                self.counts.count(rule, len);
            }
            match actions[rule] {
                Action::Drop => return Verdict::Drop(DropReason::Rule),
                Action::Accept => return Verdict::Continue,
                Action::Bounce => return bounce_l2(bytes),
                Action::Count | Action::Continue => {}
            }
        }
        Verdict::Continue
    }

    /// Whether a rule acts on a packet that it matches: it is no policer, or the packet is above its rate.
    #[inline(never)]
    fn acts(&self, rule: usize, bytes: &[u8], len: u64, headers: &Headers, now: Ticks) -> bool {
        let policers = &self.compiled.policers;
        if !policers.is_there(rule) {
            return true;
        }
        let facts = Facts::of(bytes, headers);
        policers.acts(rule, &Seen { bytes, len, headers, facts: &facts }, now)
    }
}

impl Stage for Filter {
    fn name(&self) -> &str {
        "filter"
    }

    fn process(&mut self, batch: &mut Batch<'_>) {
        let now = if self.has_policers { self.compiled.policers.ticks(batch.now()) } else { Ticks::NONE };
        let Compiled { steps, actions, classifier, .. } = &*self.compiled;
        let mut lookups = Lookups::of(classifier, actions.len(), batch);
        for index in batch.undecided() {
            let packet = batch.packet_mut(index);
            let Step { verdict, is_final, counted_at } = steps[lookups.first(index)];
            let verdict = if is_final {
                self.counts.count(counted_at as usize, packet.len() as u64);
                verdict
            } else {
                self.judge(packet, now, &mut lookups)
            };
            batch.decide(index, verdict);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use etherparse::PacketBuilder;

    use super::super::{FilterControl, Form, Per, Rate, RateLimit, Rule};
    use super::*;
    use crate::testing::{Harness, built};

    /// A UDP packet from this source to this port.
    fn packet(source: [u8; 4], port: u16) -> Vec<u8> {
        let link = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);
        built!(link.ipv4(source, [198, 18, 10, 1], 64).udp(1000, port), b"")
    }

    fn verdicts(harness: &mut Harness<Filter>, packets: &[Vec<u8>]) -> Vec<Verdict> {
        harness.step(packets).packets.iter().map(|processed| processed.verdict).collect()
    }

    fn rule(name: &str, action: Action, change: impl FnOnce(&mut Rule)) -> Rule {
        let mut rule = Rule::new(name, action);
        change(&mut rule);
        rule
    }

    const DROPPED: Verdict = Verdict::Drop(DropReason::Rule);

    #[test]
    fn the_first_rule_that_decides_wins_and_each_counts_what_it_acted_on() {
        // The second list is too long to be compiled to vectors.
        for (switched_off, form) in [(0, Form::Vectors), (5_000, Form::Pairs)] {
            let mut rules = vec![
                rule("off", Action::Continue, |_| {}),
                rule("seen", Action::Count, |rule| rule.matches.protocol = vec![17]),
                rule("friend", Action::Accept, |rule| {
                    rule.matches.src = vec!["10.1.0.0/16".parse().unwrap()]
                }),
                rule("ten", Action::Drop, |rule| rule.matches.src = vec!["10.0.0.0/8".parse().unwrap()]),
                rule("echo", Action::Bounce, |rule| rule.matches.dst_port = vec![7..=7]),
            ];
            rules.extend((0..switched_off).map(|n| rule(&format!("off-{n}"), Action::Continue, |_| {})));
            let mut control = FilterControl::new(rules);
            let stages = [control.stage(), control.stage()];
            assert_eq!(stages[0].compiled.classifier.form(), form);
            let mut workers = stages.map(Harness::new);
            let packets = [
                packet([10, 0, 0, 1], 7),
                packet([10, 1, 0, 1], 7),
                packet([11, 0, 0, 1], 7),
                packet([11, 0, 0, 1], 8),
            ];
            let found = workers[0].step(&packets).packets;
            let verdicts: Vec<_> = found.iter().map(|processed| processed.verdict).collect();
            assert_eq!(verdicts, [DROPPED, Verdict::Continue, Verdict::Bounce, Verdict::Continue]);
            assert_eq!(found[2].bytes[..6], [2, 0, 0, 0, 0, 1], "bounced to the sender");
            workers[1].step(&packets[..2]);
            let counted: Vec<_> =
                control.counters().into_iter().take(5).map(|rule| (rule.packets, rule.bytes)).collect();
            assert_eq!(counted, [(0, 0), (6, 6 * 42), (2, 2 * 42), (2, 2 * 42), (1, 42)]);
        }
    }

    #[test]
    fn a_policer_acts_on_what_exceeds_it_and_the_rest_goes_on() {
        let rate = Rate { limit: RateLimit::PacketsPerSecond(10), burst: 3, per: Per::Whole };
        let mut control = FilterControl::new(vec![
            rule("limit", Action::Drop, |rule| rule.rate = Some(rate)),
            rule("echo", Action::Bounce, |_| {}),
        ]);
        let mut harness = Harness::new(control.stage());
        let packets: Vec<_> = (0..5).map(|_| packet([10, 0, 0, 1], 7)).collect();
        let found = verdicts(&mut harness, &packets);
        assert_eq!(found, [Verdict::Bounce, Verdict::Bounce, Verdict::Bounce, DROPPED, DROPPED]);
        harness.advance(Duration::from_millis(210));
        let later = verdicts(&mut harness, &packets);
        assert_eq!(later.iter().filter(|verdict| **verdict == DROPPED).count(), 3);
        assert_eq!(control.counters()[0].packets, 5);
        assert_eq!(control.counters()[1].packets, 5);
    }

    #[test]
    fn what_is_sent_to_a_group_is_not_bounced() {
        let mut control = FilterControl::new(vec![Rule::new("all", Action::Bounce)]);
        let mut packet = packet([10, 0, 0, 1], 7);
        packet[..6].fill(0xff);
        let found = Harness::new(control.stage()).one(&packet);
        assert_eq!(found.verdict, Verdict::Drop(DropReason::NotAnswered));
    }

    #[test]
    fn arp_and_neighbour_discovery_are_never_filtered() {
        let mut control = FilterControl::new(vec![Rule::new("all", Action::Drop)]);
        let mut harness = Harness::new(control.stage());
        let link = || PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);
        let arp = [&[0xff; 6][..], &[2; 6], &[0x08, 0x06], &[0; 28]].concat();
        let icmpv6 = |kind| built!(link().ipv6([1; 16], [2; 16], 255).icmpv6_raw(kind, 0, [0; 4]), &[0; 16]);
        let packets = [arp, icmpv6(133), icmpv6(137), icmpv6(128), packet([10, 0, 0, 1], 7)];
        let passed = [Verdict::Continue; 3];
        assert_eq!(verdicts(&mut harness, &packets), [&passed[..], &[DROPPED; 2]].concat());
        assert_eq!(control.counters()[0].packets, 2);
    }
}
