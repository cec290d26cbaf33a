//! Which rules of a filter run in the XDP program, and as what.
//!
//! [`compile`] makes a [`KernelPlan`] of a list of rules: plain data, no system call. A rule may run in the kernel
//! when it can be judged there ([`Place`]) and every earlier rule that acts and may match the same packet runs there
//! as well: then the part of the list that is in the kernel decides what the whole list would. The worker, if any rule is
//! left for it, evaluates the whole list again, so that an `accept` of the kernel, which the packet does not carry along,
//! is found again; it counts only its own rules.
//!
//! The list is about every packet that arrives on the interface, but for ARP and neighbour discovery, which are
//! never filtered, so that the machine stays reachable. Rules in the kernel act on all of them, also on what is left
//! to the host. Rules in the worker see only what leaves the kernel.
//!
//! # The forms a rule takes
//!
//! | the rule asks for | form | cost |
//! |---|---|---|
//! | source, or destination, prefixes (a list or a set) | words by IPv4 address, LPM trie of IPv6 prefixes ([`xfwd_ebpf_types::filter`]) | the same for a rule as for a hundred thousand |
//! | protocols | words by protocol | one load |
//! | TCP, UDP, SCTP destination ports | words by port | one load |
//! | destination hosts, protocols, ports, all single | hash table of endpoints | one lookup |
//! | single 5-tuples | hash table of flows | one lookup |
//! | anything else, also `count` | entries of a short table, in order | some nanoseconds an entry |
//!
//! Each of the first five holds the smallest rule for its key; the smallest of all answers is looked for among the
//! entries of the table that stand before it. Prefix lists of more than one prefix that stand beside other conditions
//! become *sets*: words by address tell which sets an address is in, and an entry asks for bits of it.

#![forbid(unsafe_code)]

mod addresses;
mod compile;
mod entries;
mod lines;
mod overlap;
mod place;

pub use addresses::Prefixes;
pub use compile::{KernelPlan, PlanError, compile};
pub use overlap::may_overlap;
pub use place::{Place, WhyWorker};
