//! From the config's plan to what each room needs.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

use super::StartError;
use crate::config::{Plan, Service, StageKind};
use crate::kernel;
use crate::kernel::filter::{KernelPlan, Place, PlanError, WhyWorker};
use crate::kernel::link::Link;
use crate::kernel::routes::{Route, RouteKind, route_to};
use crate::kernel::xdp::{SteeredKind, SteeredService, Steering, service_key};
use crate::packet::MacAddress;
use crate::pipeline::{Pipeline, PortIndex};
use crate::stages::balance::{BalanceControl, BalancePlan, BalancedService, Member, maglev};
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
            .map(|(vip, protocol, port)| SteeredService {
                // No stage answers pings yet: they are left to the host.
                kind: SteeredKind::Nat,
                ..SteeredService::single(*vip, protocol.number(), *port)
            })
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

/// Asks the kernel's routing table for every backend.
///
/// # Errors
///
/// [`StartError`] for a backend that is not on the link of one of `links`, naming service and backend.
pub(super) fn egress(plan: &Plan, links: &[Link]) -> Result<HashMap<IpAddr, Egress>, StartError> {
    let mut egress = HashMap::new();
    for service in &plan.services {
        for backend in &service.backends {
            let route = route_to(backend.address).map_err(|source| StartError::Unroutable {
                service: service.name.clone(),
                backend: backend.address,
                source,
            })?;
            let port = direct_port(service, &route, links)?;
            egress.insert(backend.address, port);
        }
    }
    Ok(egress)
}

/// Direct server return rewrites nothing but MAC addresses, so the backend must be a neighbour.
fn direct_port(service: &Service, route: &Route, links: &[Link]) -> Result<Egress, StartError> {
    let position = links.iter().position(|link| link.index == route.interface);
    if route.kind == RouteKind::Local {
        return Err(StartError::OwnAddress { service: service.name.clone(), backend: route.destination });
    }
    match (position, route.gateway) {
        (Some(index), None) => Ok(Egress {
            port: index as PortIndex,
            interface: route.interface,
            source: MacAddress(links[index].mac),
        }),
        (_, gateway) => Err(StartError::NotANeighbour {
            service: service.name.clone(),
            backend: route.destination,
            interfaces: links.iter().map(|link| link.name.as_str()).collect::<Vec<_>>().join(", "),
            route: match (gateway, Link::by_index(route.interface)) {
                (Some(gateway), Ok(link)) => format!("via {gateway} on {}", link.name),
                (Some(gateway), Err(_)) => format!("via {gateway}"),
                (None, Ok(link)) => format!("by {}", link.name),
                (None, Err(_)) => format!("by interface {}", route.interface),
            },
        }),
    }
}

/// The services with their tables.
pub(super) fn balance(
    plan: &Plan,
    egress: &HashMap<IpAddr, Egress>,
) -> Result<Option<BalanceControl>, StartError> {
    if !plan.stages.contains(&StageKind::Balance) {
        return Ok(None);
    }
    let services = plan.services.iter().map(|service| balanced(service, egress)).collect::<Result<_, _>>()?;
    Ok(Some(BalanceControl::new(BalancePlan { services })))
}

fn balanced(service: &Service, egress: &HashMap<IpAddr, Egress>) -> Result<BalancedService, StartError> {
    let members: Vec<Member> = service
        .backends
        .iter()
        .map(|backend| Member {
            address: backend.address,
            weight: backend.weight,
            port: egress[&backend.address].port,
            source: egress[&backend.address].source,
        })
        .collect();
    let table = maglev_table(&members)
        .map_err(|source| StartError::Table { service: service.name.clone(), source })?;
    Ok(BalancedService {
        name: service.name.clone(),
        key: service_key(service.vip, service.protocol.number(), service.port),
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

/// A backend is known by its address, whatever its place in the file, so every balancer builds the same table.
fn maglev_table(members: &[Member]) -> Result<maglev::Table, maglev::TableError> {
    let octets = |address| match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    };
    let keyed: Vec<(Vec<u8>, u32)> =
        members.iter().map(|member| (octets(member.address), member.weight)).collect();
    maglev::Table::build(&keyed, maglev::DEFAULT_SIZE)
}
