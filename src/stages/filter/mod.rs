//! Filter: a list of rules, of which the first that matches decides.
//!
//! * [`rule`] is what a list is made of, and what every field of a rule means.
//! * [`Facts`] are everything a rule can look at, taken from a packet once.
//! * [`Classifier`] finds the rule that matches, without looking at every rule; [`Filter`] is the stage, of which
//!   [`FilterControl`] makes one for each worker and sums up what they count.
//! * [`linear`] is the meaning of a list: rule after rule. Whatever else evaluates a list (the classifier in the
//!   worker, the XDP program) is tested against it.
//!
//! The list judges the packets that are steered to a worker, wherever it runs: what is left to the host's network
//! stack is not filtered, so that no rule can lock the operator out.

#![forbid(unsafe_code)]

mod classifier;
mod control;
mod describe;
mod facts;
pub mod fields;
pub mod linear;
mod policer;
mod prefix;
pub mod rule;
mod set;
mod stage;

pub use classifier::Classifier;
pub use control::{FilterControl, RuleCounters};
pub use facts::Facts;
pub use prefix::{ParsePrefixError, Prefix};
pub use rule::{Action, FragmentKind, Match, Per, Rate, RateLimit, Rule, TcpFlags};
pub use set::{MAX_SET_PREFIXES, PrefixSet};
pub use stage::Filter;
