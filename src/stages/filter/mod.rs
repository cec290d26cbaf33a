//! Filter: a list of rules, of which the first that matches decides.
//!
//! * [`rule`] is what a list is made of, and what every field of a rule means.
//! * [`Facts`] are everything a rule can look at, taken from a packet once.
//! * [`Classifier`] finds the rule that matches, without looking at every rule; [`Filter`] is the stage, of which
//!   [`FilterControl`] makes one for each worker and sums up what they count.
//! * [`linear`] is the meaning of a list: rule after rule. Whatever else evaluates a list (the classifier in the
//!   worker, the XDP program) is tested against it.
//!
//! The list is about every packet that arrives on the interface, but for ARP and neighbour discovery, which are never
//! filtered: the machine stays reachable. Rules that run in the XDP program act on all of these packets, host traffic
//! included; rules that must run in a worker see only packets that leave the kernel.
//! [`kernel::filter`](crate::kernel::filter) says which run where.

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

pub use classifier::{Classifier, Form};
pub use control::{FilterControl, RuleCounters};
pub use facts::Facts;
pub(crate) use facts::{is_exempt, is_neighbour_discovery};
pub use prefix::{ParsePrefixError, Prefix};
pub use rule::{Action, FragmentKind, Match, Per, Rate, RateLimit, Rule, TcpFlags};
pub use set::{MAX_SET_PREFIXES, PrefixSet};
pub use stage::Filter;
