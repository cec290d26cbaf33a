//! From rules to maps.

use std::collections::BTreeMap;

use xfwd_ebpf_types::filter::{
    Class, EndpointKey, Entry, FilterSettings, FlowKey, Line, MAX_CLASSES, MAX_ENDPOINTS, MAX_ENTRIES,
    MAX_FILTER_PREFIXES, MAX_FLOWS, MAX_LINES, MAX_RULES, MAX_SETS, Verdict,
};

use super::addresses::{Classes, Prefixes, Said};
use super::entries::{self, Sets, inline};
use super::lines::Lines;
use super::overlap::may_overlap;
use super::place::{Place, WhyWorker};
use crate::packet::protocol::{SCTP, TCP, UDP};
use crate::stages::filter::{Action, Match, Prefix, Rule};

/// With how many earlier rules of the worker a rule is compared. What comes behind more of them runs in the worker, too:
/// comparing all would take a time that grows with the square of the list.
const MAX_COMPARED: usize = 1_024;
/// Most keys of the hash tables that one rule takes; with more it is looked for in the table.
const MAX_KEYS_OF_RULE: usize = 4_096;
/// The protocols that have ports.
const WITH_PORTS: [u8; 3] = [TCP, UDP, SCTP];

/// Content of the filter's maps, and where each rule runs. The default is no filter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct KernelPlan {
    /// Where each rule runs, in the order of the list.
    pub places: Vec<Place>,
    /// Which rules drop in the XDP program, in the order of the list.
    pub drops: Vec<bool>,
    /// Where things are.
    pub settings: FilterSettings,
    /// Words by IPv4 address, protocol and port.
    pub lines: Vec<Line>,
    /// IPv6 source prefixes.
    pub src_v6: Prefixes,
    /// IPv6 destination prefixes.
    pub dst_v6: Prefixes,
    /// Classes that words name.
    pub classes: Vec<Class>,
    /// Exact endpoints.
    pub endpoints: BTreeMap<EndpointKey, Verdict>,
    /// Exact 5-tuples.
    pub flows: BTreeMap<FlowKey, Verdict>,
    /// The table.
    pub entries: Vec<Entry>,
}

/// A list that is too large for the XDP program's maps.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PlanError {
    /// The IPv4 addresses of all rules together.
    #[error(
        "the IPv4 prefixes of the filter take {lines} lines of the XDP program's map, which holds {MAX_LINES} (enough for \
         a million scattered addresses): join neighbouring prefixes, or split the list between machines"
    )]
    TooManyIpv4 {
        /// Lines that they take.
        lines: usize,
    },
    /// The IPv6 prefixes of one direction.
    #[error(
        "{prefixes} IPv6 {direction} prefixes are too many for the XDP program's map, which holds {MAX_FILTER_PREFIXES}"
    )]
    TooManyIpv6 {
        /// `source` or `destination`.
        direction: &'static str,
        /// How many there are.
        prefixes: usize,
    },
    /// Ways in which prefix lists overlap.
    #[error(
        "prefix lists that rules combine with other conditions overlap the prefixes of other rules in {classes} ways, \
         and the XDP program's map holds {MAX_CLASSES}"
    )]
    TooManyClasses {
        /// How many there are.
        classes: usize,
    },
    /// The rules.
    #[error("{rules} rules are too many: at most {MAX_RULES} can be numbered")]
    TooManyRules {
        /// How many there are.
        rules: usize,
    },
}

impl KernelPlan {
    /// The plan for `rules` rules that all have to run in the worker, for the same reason.
    pub fn in_worker(rules: usize, why: &WhyWorker) -> Self {
        Self { places: vec![Place::Worker(why.clone()); rules], ..Self::default() }
    }

    /// Whether some rule runs in the worker.
    pub fn needs_worker(&self) -> bool {
        self.places.iter().any(Place::is_worker)
    }

    /// Whether some rule runs in the XDP program.
    pub fn is_active(&self) -> bool {
        self.settings.active != 0
    }
}

/// Decides for each rule where it runs, and fills the maps.
///
/// ```
/// use xfwd::kernel::filter::{Place, compile};
/// use xfwd::stages::filter::{Action, Rule};
///
/// let mut telnet = Rule::new("telnet", Action::Drop);
/// telnet.matches.dst_port = vec![23..=23];
/// let mut bogons = Rule::new("bogons", Action::Bounce);
/// bogons.matches.src = vec!["240.0.0.0/4".parse()?];
/// let plan = compile(&[telnet, bogons])?;
/// assert_eq!(plan.places[0], Place::Kernel);
/// assert!(plan.places[1].is_worker());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
///
/// [`PlanError`] when the rules do not fit the maps.
pub fn compile(rules: &[Rule]) -> Result<KernelPlan, PlanError> {
    if rules.len() > MAX_RULES as usize {
        return Err(PlanError::TooManyRules { rules: rules.len() });
    }
    let mut compiler = Compiler::default();
    let mut places = Vec::with_capacity(rules.len());
    let mut in_worker: Vec<usize> = Vec::new();
    for (index, rule) in rules.iter().enumerate() {
        let place = if rule.action == Action::Continue {
            Place::Nowhere
        } else {
            let behind =
                in_worker.iter().take(MAX_COMPARED).find(|&&earlier| may_overlap(&rules[earlier], rule));
            let result = match rule.action {
                _ if rule.rate.is_some() => Err(WhyWorker::Rate),
                Action::Bounce => Err(WhyWorker::Bounce),
                _ => match behind {
                    Some(&earlier) => Err(WhyWorker::Behind { rule: rules[earlier].name.clone() }),
                    None if in_worker.len() > MAX_COMPARED => {
                        Err(WhyWorker::BehindMany { compared: MAX_COMPARED })
                    }
                    None => compiler.add(index as u32, rule),
                },
            };
            result.map_or_else(Place::Worker, |()| Place::Kernel)
        };
        if place.is_worker() {
            in_worker.push(index);
        }
        places.push(place);
    }
    let drops_there = |(rule, place): (&Rule, &Place)| rule.action == Action::Drop && *place == Place::Kernel;
    let drops = rules.iter().zip(&places).map(drops_there).collect();
    Ok(KernelPlan { drops, ..compiler.finish(places)? })
}

/// The forms of the rules that run in the kernel.
#[derive(Default)]
struct Compiler {
    /// The first rule that is not found by its source address alone.
    first_other: Option<u32>,
    src: Said,
    dst: Said,
    /// Number of sets, of both directions.
    src_sets: u32,
    dst_sets: u32,
    protocols: Vec<(u32, Verdict)>,
    /// Of each of `WITH_PORTS`.
    ports: [Vec<(u32, Verdict)>; 3],
    endpoints: BTreeMap<EndpointKey, Verdict>,
    flows: BTreeMap<FlowKey, Verdict>,
    entries: Vec<Entry>,
}

impl Compiler {
    /// Puts a rule where it can be found fastest.
    fn add(&mut self, index: u32, rule: &Rule) -> Result<(), WhyWorker> {
        let verdict = Verdict::new(index, rule.action == Action::Drop);
        let Match { src, src_set, .. } = &rule.matches;
        let only_src = Match { src: src.clone(), src_set: src_set.clone(), ..Match::default() };
        if rule.matches != only_src
            || rule.not.is_some()
            || !rule.action.decides()
            || src.is_empty() == src_set.is_none()
        {
            self.first_other.get_or_insert(index);
        }
        if rule.action.decides()
            && rule.not.is_none()
            && (self.by_address(&rule.matches, verdict)
                || self.by_number(&rule.matches, verdict)
                || self.by_key(&rule.matches, verdict))
        {
            return Ok(());
        }
        self.by_table(rule, verdict)
    }

    /// Source prefixes and nothing else, or destination prefixes and nothing else.
    fn by_address(&mut self, conditions: &Match, verdict: Verdict) -> bool {
        let only_src = Match { src: Vec::new(), src_set: None, ..conditions.clone() } == Match::default();
        let only_dst = Match { dst: Vec::new(), dst_set: None, ..conditions.clone() } == Match::default();
        let (said, list, set) = match (only_src, only_dst) {
            (true, false) => (&mut self.src, &conditions.src, &conditions.src_set),
            (false, true) => (&mut self.dst, &conditions.dst, &conditions.dst_set),
            _ => return false,
        };
        match (list.is_empty(), set) {
            (false, None) => said.rule(list.iter().copied(), verdict),
            (true, Some(set)) => said.rule(set.prefixes().iter().copied(), verdict),
            // In both at once.
            _ => return false,
        }
        true
    }

    /// Protocols and nothing else, or destination ports with or without protocols.
    fn by_number(&mut self, conditions: &Match, verdict: Verdict) -> bool {
        let Match { protocol, dst_port, .. } = conditions;
        let rest = Match { protocol: Vec::new(), dst_port: Vec::new(), ..conditions.clone() };
        if rest != Match::default() || (protocol.is_empty() && dst_port.is_empty()) {
            return false;
        }
        if dst_port.is_empty() {
            self.protocols.extend(protocol.iter().map(|number| (u32::from(*number), verdict)));
            return true;
        }
        for (ports, number) in self.ports.iter_mut().zip(WITH_PORTS) {
            if protocol.is_empty() || protocol.contains(&number) {
                ports.extend(dst_port.iter().cloned().flatten().map(|port| (u32::from(port), verdict)));
            }
        }
        true
    }

    /// Single addresses and ports.
    fn by_key(&mut self, conditions: &Match, verdict: Verdict) -> bool {
        let Match { src, dst, protocol, src_port, dst_port, .. } = conditions;
        let rest = Match {
            src: Vec::new(),
            dst: Vec::new(),
            protocol: Vec::new(),
            src_port: Vec::new(),
            dst_port: Vec::new(),
            ..conditions.clone()
        };
        let is_host = |prefix: &Prefix| prefix.length() == if prefix.ip_version() == 4 { 32 } else { 128 };
        let ports =
            |ranges: &[std::ops::RangeInclusive<u16>]| ranges.iter().map(ExactSizeIterator::len).sum();
        if rest != Match::default() || dst.is_empty() || dst_port.is_empty() || !dst.iter().all(is_host) {
            return false;
        }
        let protocols: Vec<u8> = WITH_PORTS
            .into_iter()
            .filter(|number| protocol.is_empty() || protocol.contains(number))
            .collect();
        let keys =
            |counts: &[usize]| counts.iter().fold(1_usize, |product, count| product.saturating_mul(*count));
        if src.is_empty() && src_port.is_empty() {
            let keys = keys(&[dst.len(), protocols.len(), ports(dst_port)]);
            if keys > MAX_KEYS_OF_RULE || self.endpoints.len() + keys > MAX_ENDPOINTS as usize {
                return false;
            }
            for prefix in dst {
                for &protocol in &protocols {
                    for port in dst_port.iter().cloned().flatten() {
                        let key = endpoint_key(*prefix, protocol, port);
                        // Rules come in order: who is there stays.
                        self.endpoints.entry(key).or_insert(verdict);
                    }
                }
            }
            return true;
        }
        if src.is_empty() || src_port.is_empty() || !src.iter().all(is_host) {
            return false;
        }
        let keys = keys(&[src.len(), dst.len(), protocols.len(), ports(src_port), ports(dst_port)]);
        if keys > MAX_KEYS_OF_RULE || self.flows.len() + keys > MAX_FLOWS as usize {
            return false;
        }
        for (from, to) in src.iter().flat_map(|from| dst.iter().map(move |to| (*from, *to))) {
            if from.ip_version() != to.ip_version() {
                continue;
            }
            for &protocol in &protocols {
                for src_port in src_port.iter().cloned().flatten() {
                    for dst_port in dst_port.iter().cloned().flatten() {
                        let key = flow_key(from, src_port, to, dst_port, protocol);
                        self.flows.entry(key).or_insert(verdict);
                    }
                }
            }
        }
        true
    }

    /// Anything.
    fn by_table(&mut self, rule: &Rule, verdict: Verdict) -> Result<(), WhyWorker> {
        let needed = entries::count(rule);
        let free = MAX_ENTRIES as usize - self.entries.len();
        if needed > free {
            return Err(WhyWorker::Table { needed, free });
        }
        let matches = [Some(&rule.matches), rule.not.as_ref()].into_iter().flatten();
        let (mut src, mut dst) = (0, 0);
        for conditions in matches {
            src += sets_needed(&conditions.src, conditions.src_set.is_some());
            dst += sets_needed(&conditions.dst, conditions.dst_set.is_some());
        }
        if self.src_sets + src > MAX_SETS || self.dst_sets + dst > MAX_SETS {
            return Err(WhyWorker::Sets { capacity: MAX_SETS as usize });
        }
        let sets = self.sets(&rule.matches);
        let sets_of_not = rule.not.as_ref().map(|not| self.sets(not)).unwrap_or_default();
        let first = self.entries.len() as u32;
        self.entries.extend(entries::entries(rule, verdict, sets, sets_of_not, first));
        Ok(())
    }

    /// Makes sets of the prefix lists that do not fit an entry.
    fn sets(&mut self, conditions: &Match) -> Sets {
        let mut sets = Sets::default();
        let Match { src, dst, src_set, dst_set, .. } = conditions;
        for (said, list, set, next, bits) in [
            (&mut self.src, src, src_set, &mut self.src_sets, &mut sets.src),
            (&mut self.dst, dst, dst_set, &mut self.dst_sets, &mut sets.dst),
        ] {
            if list.len() > 1 {
                said.set(list.iter().copied(), *next);
                *bits |= 1 << *next;
                *next += 1;
            }
            if let Some(set) = set {
                said.set(set.prefixes().iter().copied(), *next);
                *bits |= 1 << *next;
                *next += 1;
            }
        }
        sets
    }

    fn finish(self, places: Vec<Place>) -> Result<KernelPlan, PlanError> {
        let mut lines = Lines::new();
        let mut classes = Classes::default();
        let src_v4 = lines.by_address(&self.src.v4_ranges(&mut classes));
        let dst_v4 = lines.by_address(&self.dst.v4_ranges(&mut classes));
        let src_v6 = self.src.v6_prefixes(&mut classes);
        let dst_v6 = self.dst.v6_prefixes(&mut classes);
        for (direction, prefixes) in [("source", &src_v6), ("destination", &dst_v6)] {
            if prefixes.len() > MAX_FILTER_PREFIXES as usize {
                return Err(PlanError::TooManyIpv6 { direction, prefixes: prefixes.len() });
            }
        }
        if classes.overflow() {
            return Err(PlanError::TooManyClasses { classes: classes.list.len() });
        }
        let mut by_number = |bits, verdicts: Vec<(u32, Verdict)>| {
            if verdicts.is_empty() { 0 } else { lines.by_number(bits, verdicts.into_iter()) }
        };
        let protocols = by_number(8, self.protocols);
        let [tcp_ports, udp_ports, sctp_ports] = self.ports.map(|ports| by_number(16, ports));
        if lines.list.len() > MAX_LINES as usize {
            return Err(PlanError::TooManyIpv4 { lines: lines.list.len() });
        }
        let settings = FilterSettings {
            active: u32::from(places.contains(&Place::Kernel)),
            src_v4,
            dst_v4,
            src_v6: src_v6.len() as u32,
            dst_v6: dst_v6.len() as u32,
            protocols,
            tcp_ports,
            udp_ports,
            sctp_ports,
            endpoints: self.endpoints.len() as u32,
            flows: self.flows.len() as u32,
            entries: self.entries.len() as u32,
            src_rules: self.first_other.unwrap_or(places.len() as u32),
        };
        Ok(KernelPlan {
            places,
            drops: Vec::new(),
            settings,
            lines: lines.list,
            src_v6,
            dst_v6,
            classes: classes.list,
            endpoints: self.endpoints,
            flows: self.flows,
            entries: self.entries,
        })
    }
}

/// How many sets the prefix lists of a match take.
fn sets_needed(list: &[Prefix], set: bool) -> u32 {
    u32::from(!list.is_empty() && inline(list).is_none()) + u32::from(set)
}

fn endpoint_key(prefix: Prefix, protocol: u8, port: u16) -> EndpointKey {
    EndpointKey {
        address: prefix.mapped().0,
        port: port.to_be_bytes(),
        protocol,
        ip_version: prefix.ip_version(),
    }
}

/// The key of a 5-tuple; both addresses are hosts of one family.
pub(crate) fn flow_key(src: Prefix, src_port: u16, dst: Prefix, dst_port: u16, protocol: u8) -> FlowKey {
    FlowKey {
        src: src.mapped().0,
        dst: dst.mapped().0,
        src_port: src_port.to_be_bytes(),
        dst_port: dst_port.to_be_bytes(),
        protocol,
        ip_version: src.ip_version(),
        zero: [0; 2],
    }
}
