//! The other side of filtering: the compiled list that workers share, and what they have counted.

use std::sync::Arc;

use crossbeam::utils::CachePadded;

use super::policer::Policers;
use super::{Action, Classifier, Filter, Rule};
use crate::pipeline::{Counter, DropReason, Verdict};

/// A compiled list; the same for all workers, and read only, but for the policers.
#[derive(Debug)]
pub(super) struct Compiled {
    pub actions: Vec<Action>,
    /// Rules that are counted here: the others were counted in the XDP program.
    pub counted: Vec<bool>,
    /// By what was found for a packet ahead ([`Lookups::first`](super::classifier::Lookups::first)), one for each rule and two more.
    pub steps: Vec<Step>,
    pub classifier: Classifier,
    pub policers: Policers,
}

/// What becomes of a packet by what was found for it ahead.
#[derive(Clone, Copy, Debug)]
pub(super) struct Step {
    pub verdict: Verdict,
    /// Whether that is all: no other rule has to be asked, nothing else to be done.
    pub is_final: bool,
    /// Where it is counted.
    pub counted_at: u32,
}

/// One for each rule, one for packets without, and one for those of which nothing is known.
fn steps(rules: &[Rule], counted: &[bool], classifier: &Classifier) -> Vec<Step> {
    let nowhere = rules.len() as u32;
    let step = |verdict, is_final| Step { verdict, is_final, counted_at: nowhere };
    let of_rules = rules.iter().enumerate().map(|(index, rule)| {
        let (verdict, decides) = match rule.action {
            Action::Drop => (Verdict::Drop(DropReason::Rule), true),
            Action::Accept => (Verdict::Continue, true),
            _ => (Verdict::Continue, false),
        };
        let counted_at = if counted[index] { index as u32 } else { nowhere };
        Step {
            verdict,
            is_final: decides && rule.rate.is_none() && classifier.says_all_of(index),
            counted_at,
        }
    });
    of_rules.chain([step(Verdict::Continue, true), step(Verdict::Continue, false)]).collect()
}

/// What the rules did in one worker, and behind them what nobody wants to know.
#[derive(Debug)]
pub(super) struct WorkerCounts(CachePadded<Vec<Counts>>);

#[derive(Debug, Default)]
struct Counts {
    packets: Counter,
    bytes: Counter,
}

impl WorkerCounts {
    #[inline(always)]
    pub fn count(&self, rule: usize, bytes: u64) {
        let counts = &self.0[rule];
        counts.packets.add(1);
        counts.bytes.add(bytes);
    }
}

/// What one rule did, over all workers: the packets that it acted on, so of a policer those above its rate.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct RuleCounters {
    /// Name of the rule.
    pub name: String,
    /// What it does.
    pub action: Action,
    /// Packets.
    pub packets: u64,
    /// Bytes, without frame check sequence.
    pub bytes: u64,
}

/// Compiles a list, makes the workers' stages, and reads what they have counted.
#[derive(Debug)]
pub struct FilterControl {
    rules: Vec<Rule>,
    /// Of `rules`, as it is said of [`Compiled`].
    counted: Vec<bool>,
    /// Made for the first worker: where all rules run in the XDP program there is none.
    compiled: Option<Arc<Compiled>>,
    workers: Vec<Arc<WorkerCounts>>,
}

impl FilterControl {
    /// Control of the stages that filter by `rules`.
    pub fn new(rules: Vec<Rule>) -> Self {
        let counted = vec![true; rules.len()];
        Self::counting(rules, counted)
    }

    /// As [`new`](Self::new), but only rules that are `counted`, by their places in the list, are counted: the others run
    /// in the XDP program, too, and were counted there.
    ///
    /// # Panics
    ///
    /// If there are not as many as rules.
    pub fn counting(rules: Vec<Rule>, counted: Vec<bool>) -> Self {
        assert_eq!(rules.len(), counted.len(), "one for each rule");
        Self { rules, counted, compiled: None, workers: Vec::new() }
    }

    /// The rules.
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// Makes the stage of one more worker. For the first one the list is compiled.
    pub fn stage(&mut self) -> Filter {
        let Self { rules, counted, compiled, workers } = self;
        let compiled = compiled.get_or_insert_with(|| {
            let classifier = Classifier::new(rules);
            Arc::new(Compiled {
                steps: steps(rules, counted, &classifier),
                counted: counted.clone(),
                classifier,
                policers: Policers::new(rules.iter().map(|rule| rule.rate.as_ref())),
                actions: rules.iter().map(|rule| rule.action).collect(),
            })
        });
        let counts = (0..=rules.len()).map(|_| Counts::default()).collect();
        let counts = Arc::new(WorkerCounts(CachePadded::new(counts)));
        workers.push(Arc::clone(&counts));
        Filter::new(Arc::clone(compiled), counts)
    }

    /// Packets that one rule, by its place in the list, acted on so far.
    ///
    /// # Panics
    ///
    /// When there is no such rule.
    pub fn packets(&self, rule: usize) -> u64 {
        assert!(rule < self.rules.len(), "there are fewer rules");
        self.workers.iter().map(|worker| worker.0[rule].packets.get()).sum()
    }

    /// What each rule did so far, in the order of the list.
    pub fn counters(&self) -> Vec<RuleCounters> {
        let sum = |index: usize, of: fn(&Counts) -> &Counter| {
            self.workers.iter().map(|worker| of(&worker.0[index]).get()).sum()
        };
        let counters = |(index, rule): (usize, &Rule)| RuleCounters {
            name: rule.name.clone(),
            action: rule.action,
            packets: sum(index, |counts| &counts.packets),
            bytes: sum(index, |counts| &counts.bytes),
        };
        self.rules.iter().enumerate().map(counters).collect()
    }
}
