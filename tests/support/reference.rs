//! What the kernel's part of a filter should do with a packet, by the linear meaning of the list.

use xfwd::kernel::filter::Place;
use xfwd::packet::{Headers, Outcome};
use xfwd::stages::filter::{Action, Facts, Rule, linear};

/// What became of a packet: whether it was dropped, and the rules that acted on it, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Judgement {
    pub dropped: bool,
    pub acted: Vec<usize>,
}

/// ARP and neighbour discovery, which are never filtered.
pub fn is_exempt(headers: &Headers) -> bool {
    let arp = headers.outcome() == Outcome::NotIp && headers.ethertype == 0x0806;
    let neighbour_discovery =
        headers.ip_version == 6 && headers.protocol == 58 && (133..=137).contains(&headers.icmp_type);
    arp || neighbour_discovery
}

/// The rules that run in the kernel, one after another: those in the worker are looked at as well, and what stands
/// behind one that may have acted must not be in the kernel.
pub fn judge(rules: &[Rule], places: &[Place], headers: &Headers, facts: &Facts) -> Judgement {
    let mut judgement = Judgement::default();
    if is_exempt(headers) {
        return judgement;
    }
    let mut worker_acts = None;
    for (index, rule) in rules.iter().enumerate() {
        if rule.action == Action::Continue || !linear::matches(rule, facts) {
            continue;
        }
        if places[index].is_worker() {
            worker_acts = Some(index);
            continue;
        }
        assert_eq!(
            worker_acts, None,
            "rule {index} is in the kernel, and this rule of the worker matches first"
        );
        judgement.acted.push(index);
        if rule.action.decides() {
            judgement.dropped = rule.action == Action::Drop;
            break;
        }
    }
    judgement
}
