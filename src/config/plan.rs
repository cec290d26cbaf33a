//! The whole file: its sections together, and what follows from them.

use std::ops::RangeInclusive;
use std::path::PathBuf;

use serde::Serialize;
use toml::Spanned;
use toml::de::DeTable;

use super::diagnostic::Diagnostic;
use super::nat::Nat;
use super::reader::{Reader, Section};
use super::registry::{CustomStage, Registry};
use super::{BalanceSettings, Bounce, Dataplane, Forward, NatSettings, Protocol, Service, StageKind, Steer};
use super::{balance, bounce, dataplane, deny, filter, nat, pipeline, service};
use crate::kernel::filter::compile;
use crate::kernel::xdp::SteeredService;
use crate::stages::balance::Services;
use crate::stages::filter::{Match, Prefix, Rule};

/// A config that has been found valid.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Plan {
    /// How packets are moved.
    pub dataplane: Dataplane,
    /// The rules of the packet filter, in order. They are about every packet that arrives on the interface, but for ARP
    /// and neighbour discovery; which of them run in the XDP program, and so see all of these, is found by
    /// [`kernel::filter::compile`](crate::kernel::filter::compile).
    pub filter: Vec<Rule>,
    /// The file of the dynamic deny list, if there is one.
    pub deny_file: Option<PathBuf>,
    /// What is balanced, in the order of the file.
    pub services: Vec<Service>,
    /// What all services share.
    pub balance: BalanceSettings,
    /// What services with `forward = "nat"` send from; there if one has that.
    pub nat: Option<NatSettings>,
    /// How packets are bounced, if that has a section.
    pub bounce: Option<Bounce>,
    /// The stages that a packet passes once it has left the kernel, in this order, each once. None when there is
    /// only a deny list.
    pub stages: Vec<StageKind>,
    /// The stages that were [registered](super::Registry) and have a section.
    pub custom: Vec<CustomStage>,
    /// What leaves the kernel besides: for registered stages, or for what was [asked
    /// for](crate::runtime::Runner::steer) otherwise.
    pub steered: Vec<SteeredService>,
    /// What can be used but was probably not meant, in the order of the file.
    pub warnings: Vec<Diagnostic>,
}

/// Which packets leave the kernel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct SteeringPlan {
    /// All but ARP, neighbour discovery and what is addressed to the host.
    pub all: bool,
    /// All, without these exceptions.
    pub everything: bool,
    /// Addresses, protocol and ports of each service that packets leave the kernel for, in the order of the file.
    pub services: Vec<(Prefix, Protocol, RangeInclusive<u16>)>,
}

impl Plan {
    /// Which packets leave the kernel: those of the services and those that stages ask for, or all, or really everything. What else the XDP program does not
    /// drop is left to the host, so that the machine stays reachable. Services whose stage is not in the pipeline are left to the host,
    /// too.
    pub fn steering(&self) -> SteeringPlan {
        let balanced = self.stages.contains(&StageKind::Balance);
        let services = self.services.iter().filter(|_| balanced);
        let services = services.map(|service| (service.vip, service.protocol, service.ports.clone()));
        let steered = self.steered.iter().filter_map(|steered| {
            let protocol = Protocol::of_number(steered.protocol)?;
            Some((steered.network, protocol, steered.ports.clone()))
        });
        let (all, everything) = match self.dataplane.steer {
            Steer::Services => (false, false),
            Steer::All => (true, false),
            Steer::Everything => (false, true),
        };
        SteeringPlan { all, everything, services: services.chain(steered).collect() }
    }

    /// Finds the service of a packet, as index into `services`. Whether the stage is in the pipeline is not asked.
    pub fn service_lookup(&self) -> Services {
        let endpoint = |service: &Service| (service.vip, service.protocol.number(), service.ports.clone());
        Services::new(self.services.iter().map(endpoint))
    }
}

pub(super) const SECTIONS: &[&str] =
    &["dataplane", "deny", "filter", "service", "balance", "nat", "bounce", "pipeline"];

/// Lists of fewer rules and prefixes together fit the XDP program's maps, however they are made: that is not tried.
const SURELY_FITS: usize = 1 << 14;

/// Reports rules that do not fit the XDP program's maps, at the rule with the most prefixes.
fn check_size(root: &Section<'_>, rules: &[Rule], reader: &mut Reader<'_>) {
    let of_match = |conditions: &Match| {
        let sets = [&conditions.src_set, &conditions.dst_set].into_iter().flatten();
        conditions.src.len() + conditions.dst.len() + sets.map(|set| set.len()).sum::<usize>()
    };
    let of_rule = |rule: &Rule| 1 + of_match(&rule.matches) + rule.not.as_ref().map_or(0, of_match);
    if rules.iter().map(of_rule).sum::<usize>() < SURELY_FITS {
        return;
    }
    let Err(error) = compile(rules) else { return };
    let largest = (0..rules.len()).max_by_key(|&index| of_rule(&rules[index])).unwrap_or_default();
    if let Some(place) = root.nth("filter", largest) {
        reader
            .error(place, "the filter is too large")
            .label(format!("the rule `{}` is the largest", rules[largest].name))
            .help(error.to_string());
    }
}

/// Warns of sections that no service makes use of.
fn unused(root: &Section<'_>, services: &[Service], reader: &mut Reader<'_>) {
    if let Some(section) = root.value("balance").filter(|_| !root.has("service")) {
        reader.warning(section.span(), "`[balance]` is not used").label("there is no `[[service]]`");
    }
    let has_nat = services.iter().any(|service| service.forward == Forward::Nat);
    if let Some(section) = root.value("nat").filter(|_| !has_nat) {
        reader.warning(section.span(), "`[nat]` is not used").label("no service has `forward = \"nat\"`");
    }
}

/// Reads a whole file; what is wrong with it in the order of the file.
pub(super) fn read(
    file: &str,
    text: &str,
    files: &filter::Files,
    registry: &Registry,
) -> Result<Plan, Vec<Diagnostic>> {
    let mut reader = Reader::new(file, text);
    let (document, errors) = DeTable::parse_recoverable(text);
    if !errors.is_empty() {
        // What could be read of a broken file would give errors that are none.
        for error in errors {
            let message = error.message().trim_end_matches(", expected nothing").to_owned();
            reader.error(error.span().unwrap_or_default(), message);
        }
        return Err(reader.finish().unwrap_or_else(|diagnostics| diagnostics));
    }
    let known: Vec<&'static str> = SECTIONS.iter().copied().chain(registry.names()).collect();
    let root = Section::open(&mut reader, "", document.get_ref(), 0..0, &known);
    let dataplane = dataplane::read(&root, &mut reader);
    let filter = filter::read(&root, &mut reader, files);
    let deny_file = deny::read(&root, &mut reader, files);
    let nat = nat::read(&root, &mut reader);
    let services = service::read(&root, &mut reader, nat.as_ref());
    let balance = balance::read(&root, &mut reader);
    unused(&root, &services, &mut reader);
    let bounce = bounce::read(&root, &mut reader);
    let custom = registry.read(&root, &mut reader);
    let stages = pipeline::read(&root, &mut reader, registry);
    let is_used = |stage: &&CustomStage| stages.contains(&StageKind::Custom(stage.name()));
    let steered: Vec<SteeredService> =
        custom.iter().filter(is_used).flat_map(CustomStage::steered).cloned().collect();
    // Without these no packet leaves the kernel.
    let leaves = dataplane.steer != Steer::Services || root.has("service") || !steered.is_empty();
    if stages.first() == Some(&StageKind::Filter) {
        check_size(&root, &filter, &mut reader);
    }
    let bounced = bounce.as_ref().map(|section| (section.span(), "bounce"));
    let custom_sections = custom.iter().filter(is_used).filter_map(|stage| {
        let section = root.value(stage.name())?;
        Some((section.span(), stage.name()))
    });
    for (place, name) in bounced.into_iter().chain(custom_sections).filter(|_| !leaves) {
        reader
            .warning(place, format!("no packet reaches `{name}`"))
            .label("all packets are left to the host")
            .help("set `steer = \"all\"` in `[dataplane]`, or add `[[service]]`");
    }
    if let Some(rule) = root.nth("filter", 0) {
        // Without packets that leave the kernel the rules there protect the host, and `xfwd check` warns of those that would
        // need a worker.
        if leaves && stages.last() == Some(&StageKind::Filter) {
            reader
                .warning(rule, "nothing follows `filter`")
                .label("what it lets through is dropped: a packet that left the kernel cannot be given back")
                .help("add `[[service]]` or `[bounce]`");
        }
    }
    if let Some(section) = root.value("deny")
        && dataplane.steer != Steer::Services
        && stages.is_empty()
    {
        let dropped = match dataplane.steer {
            Steer::Everything => "with `steer = \"everything\"` all is dropped",
            _ => "with `steer = \"all\"` all that is not for this host is dropped",
        };
        reader
            .warning(section.span(), "nothing takes the packets that leave the kernel")
            .label(dropped)
            .help("without `steer`, the deny list protects the host; or add `[[filter]]`, `[[service]]` or `[bounce]`");
    }
    let bounce = bounce.map(Spanned::into_inner);
    let nat = nat.map(Nat::settings);
    let warnings = reader.finish()?;
    Ok(Plan {
        dataplane,
        filter,
        deny_file,
        services,
        balance,
        nat,
        bounce,
        stages,
        custom,
        steered,
        warnings,
    })
}
