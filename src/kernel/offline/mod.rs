//! What the XDP program would do with a packet, without a kernel: for captures, and for the question why.
//!
//! [`OfflineProgram`] is filled from the very data that goes into the maps of
//! [`XdpProgram`](super::xdp::XdpProgram) (the filter's [`KernelPlan`], the numbered services), and asks it in the
//! order in which the program does (`ebpf/programs/src/xfwd`). The parser is that of user space, which finds in
//! every packet what the program's finds. That both do the same is tested with random configs and packets, by
//! `BPF_PROG_TEST_RUN`, in `tests/kernel_program/offline.rs`.

#![forbid(unsafe_code)]

mod deny;
mod filter;
mod lpm;
mod steering;

use std::time::Duration;

use xfwd_ebpf_types::filter::Verdict;
use xfwd_ebpf_types::{Cause, CauseClass};

use self::deny::Denied;
use self::filter::Tables;
use self::steering::Steered;
use super::deny::file::Line;
use super::filter::KernelPlan;
use super::xdp::{KernelCounters, RuleCount, Steering, XdpAction, XdpError};
use crate::packet::{Headers, Outcome};
use crate::stages::filter::{Facts, is_exempt};

/// The XDP program and its maps in user space. Every queue has a socket.
pub struct OfflineProgram {
    denied: Denied,
    filter: Tables,
    steered: Steered,
    counters: KernelCounters,
    rule_counts: Vec<RuleCount>,
    acted: Vec<u32>,
}

/// What becomes of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Ruling {
    /// The action: drop, pass or redirect.
    pub action: XdpAction,
    /// Name of the counter that says why: of a [`Cause`], or of an [`Outcome`] that is malformed.
    pub cause: &'static str,
    /// Bytes of room that a redirected packet gets in front, where the driver lets it.
    pub room: u8,
}

/// A place among the counters, and what becomes of the packet.
#[derive(Clone, Copy)]
enum Decision {
    Cause(Cause, u8),
    Malformed(Outcome),
}

impl Decision {
    fn index(self) -> u32 {
        match self {
            Self::Cause(cause, _) => cause as u32,
            Self::Malformed(outcome) => Cause::malformed_index(outcome),
        }
    }

    fn ruling(self) -> Ruling {
        match self {
            Self::Cause(cause, room) => {
                let action = match cause.class() {
                    CauseClass::Steered => XdpAction::Redirect,
                    CauseClass::Dropped | CauseClass::Lost => XdpAction::Drop,
                    CauseClass::Passed | CauseClass::Malformed => XdpAction::Pass,
                };
                Ruling { action, cause: cause.name(), room }
            }
            Self::Malformed(outcome) => Ruling { action: XdpAction::Pass, cause: outcome.name(), room: 0 },
        }
    }
}

impl OfflineProgram {
    /// The program with a deny list, rules and services. The time of deny list entries begins at 0.
    ///
    /// # Errors
    ///
    /// [`XdpError::MapFull`] for more services or addresses than the maps hold.
    pub fn new(steering: &Steering, filter: &KernelPlan, denied: &[Line]) -> Result<Self, XdpError> {
        Ok(Self {
            denied: Denied::new(denied),
            filter: Tables::new(filter),
            steered: Steered::new(steering)?,
            counters: KernelCounters::default(),
            rule_counts: vec![RuleCount::default(); filter.places.len()],
            acted: Vec::new(),
        })
    }

    /// What becomes of a packet that arrives at `at`. `linear` is what lies in its first buffer, `length` that of the whole
    /// packet, `headers` what [`parse`](crate::packet::parse) has found in it. It is counted.
    pub fn run(&mut self, linear: &[u8], length: usize, headers: &Headers, at: Duration) -> Ruling {
        self.acted.clear();
        let decision = self.decide(linear, headers, at);
        self.counters.add(decision.index());
        for rule in &self.acted {
            let count = &mut self.rule_counts[*rule as usize];
            count.packets += 1;
            count.bytes += length as u64;
        }
        decision.ruling()
    }

    /// The rules that have acted on the last packet, in the order of the list: those that count, and the one that decided.
    pub fn acted(&self) -> &[u32] {
        &self.acted
    }

    /// Packets by cause.
    pub fn counters(&self) -> &KernelCounters {
        &self.counters
    }

    /// What each rule did here, in the order of the list.
    pub fn rule_counts(&self) -> &[RuleCount] {
        &self.rule_counts
    }

    fn decide(&mut self, linear: &[u8], headers: &Headers, at: Duration) -> Decision {
        if let Some(rule) = self.filter.drops_by_source(linear) {
            self.acted.push(rule);
            return Decision::Cause(Cause::DroppedRule, 0);
        }
        if !is_exempt(headers) && (self.denied.is_any() || self.filter.is_active()) {
            let facts = Facts::of(linear, headers);
            if self.denied.holds(&facts, at) {
                return Decision::Cause(Cause::DroppedDenied, 0);
            }
            let verdict = self.filter.judge(headers, &facts, &mut self.acted);
            if verdict != Verdict::NONE {
                self.acted.push(verdict.rule());
            }
            if verdict.is_drop() {
                return Decision::Cause(Cause::DroppedRule, 0);
            }
        }
        if headers.outcome().is_malformed() && !self.steered.steers_everything() {
            return Decision::Malformed(headers.outcome());
        }
        let (cause, room) = self.steered.decide(linear, headers);
        Decision::Cause(cause, room)
    }
}
