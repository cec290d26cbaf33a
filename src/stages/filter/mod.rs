//! Filter: a list of rules, of which the first that matches decides.
//!
//! * [`rule`] is what a list is made of, and what every field of a rule means.
//! * [`Facts`] are everything a rule can look at, taken from a packet once.
//! * [`linear`] is the meaning of a list: rule after rule. Whatever else evaluates a list (the classifier in the
//!   worker, the XDP program) is tested against it.
//!
//! The list judges the packets that are steered to a worker, wherever it runs: what is left to the host's network
//! stack is not filtered, so that no rule can lock the operator out.

#![forbid(unsafe_code)]

mod classifier;
mod describe;
mod facts;
pub mod fields;
pub mod linear;
mod prefix;
pub mod rule;
mod set;

pub use classifier::Classifier;
pub use facts::Facts;
pub use prefix::{ParsePrefixError, Prefix};
pub use rule::{Action, FragmentKind, Match, Per, Rate, RateLimit, Rule, TcpFlags};
pub use set::{MAX_SET_PREFIXES, PrefixSet};
