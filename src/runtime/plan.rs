//! From the config's plan to what each room needs.

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::Arc;

use crate::config::{Forward, NatSettings, Plan, Service, StageKind, Steer};
use crate::kernel;
use crate::kernel::filter::{KernelPlan, Place, PlanError, WhyWorker};
use crate::kernel::xdp::{SteeredKind, SteeredService, Steering};
use crate::packet::protocol::{TCP, UDP};
use crate::pipeline::Pipeline;
use crate::stages::balance::BalanceControl;
use crate::stages::bounce::Bounce;
use crate::stages::filter::{FilterControl, Prefix};
use crate::worker::WorkerContext;

/// What leaves the kernel by one interface, besides services, and how.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Besides {
    pub steer: Steer,
    /// Bytes of room in front of it.
    pub room: u8,
}

/// What the XDP program of an interface is told to take out of the kernel.
pub(crate) fn steering(plan: &Plan, besides: Besides, host_addresses: &[IpAddr]) -> Steering {
    let all = besides.steer == Steer::All;
    let balanced = plan.stages.contains(&StageKind::Balance);
    let services = plan.services.iter().filter(|_| balanced);
    let mut steered: Vec<SteeredService> = services.map(steered_service).collect();
    if balanced {
        steered.extend(plan.nat.iter().flat_map(steered_nat));
    }
    steered.extend(plan.steered.iter().cloned());
    Steering {
        all,
        everything: besides.steer == Steer::Everything,
        room: besides.room,
        services: steered,
        host_addresses: if all { host_addresses.iter().copied().collect() } else { HashSet::new() },
    }
}

/// Whether packets may come with room in front of them: now, or with services that a reload brings.
pub(super) fn makes_room(plan: &Plan, besides: &[Besides]) -> bool {
    besides.iter().any(|besides| besides.room > 0)
        || plan.steered.iter().any(|service| service.room > 0)
        || plan.stages.contains(&StageKind::Balance)
}

fn steered_service(service: &Service) -> SteeredService {
    SteeredService {
        network: service.vip,
        protocol: service.protocol.number(),
        ports: service.ports.clone(),
        room: room(service),
        kind: SteeredKind::Vip,
    }
}

/// Bytes of the outer headers that most backends of a service need. For the others the packet is moved within its frame.
fn room(service: &Service) -> u8 {
    let ipv4 = service.backends.iter().filter(|backend| backend.address.is_ipv4()).count();
    let ip = if 2 * ipv4 >= service.backends.len() { 20 } else { 40 };
    match service.forward {
        Forward::Ipip => ip,
        Forward::Gue => ip + 8,
        _ => 0,
    }
}

/// Replies of backends, and ICMP errors about what was sent to them.
fn steered_nat(nat: &NatSettings) -> impl Iterator<Item = SteeredService> {
    nat.addresses.iter().flat_map(|address| {
        [TCP, UDP].map(|protocol| SteeredService {
            network: Prefix::new(*address, u8::MAX),
            protocol,
            ports: nat.ports.clone(),
            room: 0,
            kind: SteeredKind::Host,
        })
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
pub(crate) fn filter(plan: &Plan, kernel: &KernelPlan) -> Option<FilterControl> {
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
    pub balance: Option<Arc<BalanceControl>>,
}

/// The pipeline of one worker.
pub(super) fn pipeline(plan: &Plan, context: &WorkerContext, controls: &mut Controls) -> Pipeline {
    let mut pipeline = Pipeline::new();
    let mut filter = controls.filter.as_mut();
    for stage in &plan.stages {
        match stage {
            StageKind::Balance => {
                if let Some(control) = &controls.balance {
                    pipeline.push(Box::new(control.stage(context.worker())));
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
            StageKind::Custom(name) => {
                if let Some(custom) = plan.custom.iter().find(|custom| custom.name() == *name) {
                    pipeline.push(custom.make(context));
                }
            }
        }
    }
    pipeline
}
