//! From the config's plan to what each room needs.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::IpAddr;

use super::StartError;
use crate::config::{Forward, Plan, Service, StageKind};
use crate::kernel;
use crate::kernel::filter::{KernelPlan, Place, PlanError, WhyWorker};
use crate::kernel::link::Link;
use crate::kernel::next_hops::{Answer, Unresolved};
use crate::kernel::xdp::{SteeredService, Steering, service_key};
use crate::packet::MacAddress;
use crate::pipeline::{Pipeline, PortIndex};
use crate::stages::balance::{BalanceControl, BalancePlan, BalancedService, Member, choose};
use crate::stages::bounce::Bounce;
use crate::stages::filter::FilterControl;

/// What the XDP program is told to take out of the kernel.
pub(super) fn steering(plan: &Plan, host_addresses: Vec<IpAddr>) -> Steering {
    let steering = plan.steering();
    Steering {
        all: steering.all,
        services: steering
            .services
            .iter()
            .filter(|(vip, _, ports)| vip.mapped().1 == 128 && ports.start() == ports.end())
            .map(|(vip, protocol, ports)| SteeredService::single(vip.address(), protocol.number(), *ports.start()))
            .collect(),
        host_addresses: if steering.all { host_addresses.into_iter().collect() } else { HashSet::new() },
    }
}

/// By which port a backend is reached.
#[derive(Clone, Copy, Debug)]
pub(super) struct Egress {
    pub port: PortIndex,
    pub interface: u32,
    pub source: MacAddress,
}

/// The port of every backend, by what the kernel says of its next hop.
///
/// # Errors
///
/// [`StartError`] for a backend that is not on the link of one of `links`, naming service and backend.
pub(super) fn egress(
    plan: &Plan,
    links: &[Link],
    next_hops: &BTreeMap<IpAddr, Answer>,
) -> Result<HashMap<IpAddr, Egress>, StartError> {
    let mut egress = HashMap::new();
    for service in plan.services.iter().filter(|service| is_served(service)) {
        for backend in &service.backends {
            let port = direct_port(service, backend.address, &next_hops[&backend.address], links)?;
            egress.insert(backend.address, port);
        }
    }
    Ok(egress)
}

/// Direct server return rewrites nothing but MAC addresses, so the backend must be a neighbour.
fn direct_port(
    service: &Service,
    backend: IpAddr,
    next_hop: &Answer,
    links: &[Link],
) -> Result<Egress, StartError> {
    let service = service.name.clone();
    let (interface, vlan, address) = match next_hop {
        Ok(hop) => (hop.interface, hop.vlan, hop.address),
        Err(Unresolved::NoNeighbour { interface, vlan, address, .. }) => (*interface, *vlan, *address),
        Err(Unresolved::OwnAddress) => return Err(StartError::OwnAddress { service, backend }),
        Err(Unresolved::OtherInterface { name, via }) => {
            let route = match via {
                Some(gateway) => format!("via {gateway} on {name}"),
                None => format!("by {name}"),
            };
            return Err(not_a_neighbour(service, backend, links, route));
        }
        Err(other) => {
            return Err(StartError::Unroutable { service, backend, source: Box::new(other.clone()) });
        }
    };
    let index = links.iter().position(|link| link.index == interface).expect("next hops leave by a port");
    let name = &links[index].name;
    let route = match vlan {
        None if address == backend => {
            let source = MacAddress(links[index].mac);
            return Ok(Egress { port: index as PortIndex, interface, source });
        }
        None => format!("via {address} on {name}"),
        Some(vlan) => format!("by VLAN {vlan} of {name}"),
    };
    Err(not_a_neighbour(service, backend, links, route))
}

fn not_a_neighbour(service: String, backend: IpAddr, links: &[Link], route: String) -> StartError {
    let interfaces = links.iter().map(|link| link.name.as_str()).collect::<Vec<_>>().join(", ");
    StartError::NotANeighbour { service, backend, interfaces, route }
}

/// Whether the stage can do what the service asks for yet.
fn is_served(service: &Service) -> bool {
    service.forward == Forward::Dsr && service.single_vip().is_some() && service.single_port().is_some()
}

/// The services with their tables.
pub(super) fn balance(
    plan: &Plan,
    egress: &HashMap<IpAddr, Egress>,
) -> Result<Option<BalanceControl>, StartError> {
    if !plan.stages.contains(&StageKind::Balance) {
        return Ok(None);
    }
    let served = plan.services.iter().filter(|service| is_served(service));
    let services = served.map(|service| balanced(service, egress)).collect::<Result<_, _>>()?;
    Ok(Some(BalanceControl::new(BalancePlan { services })))
}

fn balanced(service: &Service, egress: &HashMap<IpAddr, Egress>) -> Result<BalancedService, StartError> {
    let members: Vec<Member> = service
        .backends
        .iter()
        .map(|backend| Member {
            address: backend.address,
            weight: backend.share(),
            port: egress[&backend.address].port,
            source: egress[&backend.address].source,
        })
        .collect();
    let backends = members.iter().map(|member| (member.address, member.weight));
    let table = choose::table(backends, service.table_size)
        .map_err(|source| StartError::Table { service: service.name.clone(), source })?;
    Ok(BalancedService {
        name: service.name.clone(),
        key: service_key(service.vip.address(), service.protocol.number(), *service.ports.start()),
        table,
        members,
    })
}

/// Which rules of the filter run in the XDP program, and its maps.
///
/// # Errors
///
/// [`PlanError`] when the rules do not fit the maps.
pub fn kernel_plan(plan: &Plan) -> Result<KernelPlan, PlanError> {
    match plan.stages.iter().position(|stage| *stage == StageKind::Filter) {
        None => Ok(KernelPlan::default()),
        Some(0) => kernel::filter::compile(&plan.filter),
        // What an earlier stage sends on is not the filter's: in the kernel it would be.
        Some(_) => {
            let stage = plan.stages[0].to_string();
            Ok(KernelPlan::in_worker(plan.filter.len(), &WhyWorker::NotFirst { stage }))
        }
    }
}

/// The rules, compiled for the workers; they count only those that the XDP program does not.
pub(super) fn filter(plan: &Plan, kernel: &KernelPlan) -> Option<FilterControl> {
    plan.stages.contains(&StageKind::Filter).then(|| {
        let counted = kernel.places.iter().map(Place::is_worker).collect();
        FilterControl::counting(plan.filter.clone(), counted)
    })
}

/// What makes the stages of the workers.
pub(super) struct Controls {
    pub filter: Option<FilterControl>,
    /// Whether some rule runs in the worker.
    pub filter_in_worker: bool,
    pub balance: Option<BalanceControl>,
}

/// The pipeline of one worker.
pub(super) fn pipeline(plan: &Plan, controls: &mut Controls) -> Pipeline {
    let mut pipeline = Pipeline::new();
    let (mut filter, mut balance) = (controls.filter.as_mut(), controls.balance.as_mut());
    for stage in &plan.stages {
        match stage {
            StageKind::Balance => {
                if let Some(control) = balance.as_deref_mut() {
                    pipeline.push(Box::new(control.stage()));
                }
            }
            StageKind::Filter => {
                // When all rules run in the kernel there is nothing left to do.
                if let Some(control) = filter.as_deref_mut().filter(|_| controls.filter_in_worker) {
                    pipeline.push(Box::new(control.stage()));
                }
            }
            StageKind::Bounce => {
                let layer = plan.bounce.as_ref().map(|bounce| bounce.layer).unwrap_or_default();
                pipeline.push(Box::new(Bounce::new(layer)));
            }
        }
    }
    pipeline
}
