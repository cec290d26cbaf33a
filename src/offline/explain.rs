//! Who decided: the rule, the service, the backend.
//!
//! Stages do not say; they count. So each packet is run alone, and the counters that have moved tell.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};

use super::engine::{Stages, Watch};
use super::next_hops::Options;
use crate::config::{Plan, StageKind};
use crate::packet::protocol::{ICMP, ICMPV6, TCP, UDP};
use crate::packet::{Embedded, FiveTuple, Fragment, Headers, parse};
use crate::stages::balance::{OfVip, Services};
use crate::stages::filter::Facts;

/// What was found out about a packet.
#[derive(Default)]
pub(super) struct Explanation {
    /// Rules that acted on it, by their places.
    pub rules: Vec<usize>,
    pub backend: Option<IpAddr>,
    pub by: Option<By>,
}

#[derive(Clone, Copy)]
pub(super) enum By {
    Rule(usize),
    Service(usize),
}

/// What is known of a packet before the stages change it.
pub(super) struct Asked {
    /// The service that it is for.
    service: Option<usize>,
    source: [u8; 16],
    decided: Option<StageKind>,
}

impl Watch for Asked {
    fn decided(&mut self, stage: Option<StageKind>) {
        self.decided = stage;
    }
}

/// Knows the names, and what the counters said last.
pub(super) struct Explainer {
    lookup: Services,
    services: Vec<String>,
    rules: Vec<String>,
    /// Whether a rule ends the list.
    decides: Vec<bool>,
    /// Backends by the MAC address that they are sent to, with their services.
    backends: HashMap<[u8; 6], Vec<(usize, IpAddr)>>,
    /// Packets by service and backend.
    sent: HashMap<(usize, IpAddr), u64>,
    /// Packets by rule, of those that the worker counts.
    acted: Vec<u64>,
}

impl Explainer {
    pub fn new(plan: &Plan, options: &Options) -> Self {
        let mut backends: HashMap<[u8; 6], Vec<(usize, IpAddr)>> = HashMap::new();
        for (index, service) in plan.services.iter().enumerate() {
            for backend in &service.backends {
                let mac = options.mac_of(backend.address).octets();
                backends.entry(mac).or_default().push((index, backend.address));
            }
        }
        Self {
            lookup: plan.service_lookup(),
            services: plan.services.iter().map(|service| service.name.clone()).collect(),
            rules: plan.filter.iter().map(|rule| rule.name.clone()).collect(),
            decides: plan.filter.iter().map(|rule| rule.action.decides()).collect(),
            backends,
            sent: HashMap::new(),
            acted: vec![0; plan.filter.len()],
        }
    }

    /// The name of who decided.
    pub fn name(&self, explanation: &Explanation) -> Option<&str> {
        Some(match explanation.by? {
            By::Rule(rule) => &self.rules[rule],
            By::Service(service) => &self.services[service],
        })
    }

    /// To be asked of a packet as it came.
    pub fn ask(&self, bytes: &[u8], headers: &Headers, facts: &Facts) -> Asked {
        Asked { service: self.service(bytes, headers, facts), source: facts.src, decided: None }
    }

    fn service(&self, bytes: &[u8], headers: &Headers, facts: &Facts) -> Option<usize> {
        let by_address = |protocol| match self.lookup.find_fragment(&facts.dst, protocol) {
            OfVip::One(service) => Some(service),
            _ => None,
        };
        match headers.protocol {
            TCP | UDP => match facts.ports {
                Some((_, port)) => self.lookup.find(&facts.dst, headers.protocol, port),
                None if headers.fragment() == Fragment::Later => by_address(headers.protocol),
                None => None,
            },
            ICMP | ICMPV6 => match Embedded::of(bytes, headers) {
                Some(embedded) => {
                    let flow: FiveTuple = embedded.flow();
                    self.lookup.find(&flow.dst, flow.protocol, flow.dst_port)
                }
                None => by_address(TCP).or_else(|| by_address(UDP)),
            },
            _ => None,
        }
    }

    /// What the XDP program decided: rules are known.
    pub fn explain_kernel(&self, explanation: &mut Explanation) {
        explanation.by = self.deciding(&explanation.rules);
    }

    /// The rule that ended the list, be it by an accept.
    fn deciding(&self, rules: &[usize]) -> Option<By> {
        rules.last().filter(|rule| self.decides[**rule]).map(|rule| By::Rule(*rule))
    }

    /// What the stages decided; `sent` is the packet as it left.
    pub fn explain(
        &mut self,
        stages: &Stages,
        asked: &Asked,
        sent: Option<&[u8]>,
        explanation: &mut Explanation,
    ) {
        if let Some(filter) = &stages.filter {
            for (rule, before) in self.acted.iter_mut().enumerate() {
                let now = filter.packets(rule);
                if now != *before {
                    explanation.rules.push(rule);
                    *before = now;
                }
            }
            explanation.rules.sort_unstable();
        }
        explanation.by = self.deciding(&explanation.rules);
        if asked.decided != Some(StageKind::Balance) {
            return;
        }
        let found = sent.and_then(|sent| self.sent_to(stages, sent).or_else(|| self.reply(asked, sent)));
        explanation.backend = found.map(|(_, backend)| backend);
        explanation.by = found.map(|(service, _)| service).or(asked.service).map(By::Service);
    }

    /// The backend whose counter has moved.
    fn sent_to(&mut self, stages: &Stages, sent: &[u8]) -> Option<(usize, IpAddr)> {
        let candidates = self.backends.get(sent.first_chunk::<6>()?)?;
        let control = stages.balance.as_ref()?;
        let mut found = None;
        for candidate in candidates {
            let (service, backend) = *candidate;
            let now = control.packets(&self.services[service], backend)?;
            let before = self.sent.entry(*candidate).or_default();
            if now != *before {
                *before = now;
                found = Some(*candidate);
            }
        }
        found
    }

    /// A reply that was translated back: it is from the service now, and was from the backend.
    fn reply(&self, asked: &Asked, sent: &[u8]) -> Option<(usize, IpAddr)> {
        let headers = parse(sent, sent.len());
        let tuple = FiveTuple::of(sent, &headers)?;
        if asked.service.is_some() || tuple.src == asked.source {
            return None;
        }
        let service = self.lookup.find(&tuple.src, tuple.protocol, tuple.src_port)?;
        let backend = Ipv6Addr::from(asked.source).to_canonical();
        Some((service, backend))
    }
}
