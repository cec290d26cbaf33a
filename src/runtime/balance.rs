//! The balancer of a run: next hops and health checks are followed, and told to the workers' stages by
//! [`BalanceControl`].

use std::collections::{HashMap, HashSet};
use std::hash::BuildHasher;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam::channel::{RecvTimeoutError, Sender, bounded};
use foldhash::fast::FixedState;

use super::StartError;
use super::events::EventSender;
use super::running::Event;
use crate::config::{BackendState, Forward, NatSettings, Plan, Service, StageKind};
use crate::health::{self, Delivery, Health, HealthKind, ServicePath, Target, Through};
use crate::kernel::addresses::host_addresses;
use crate::kernel::link::Link;
use crate::kernel::local_ports;
use crate::kernel::next_hops::{Answer, Change, NextHop, NextHops, Unresolved};
use crate::packet::MacAddress;
use crate::pipeline::PortIndex;
use crate::stages::balance::connections::Timeouts;
use crate::stages::balance::nat::NatPool;
use crate::stages::balance::{
    BalanceControl, BalanceOptions, BalancedBackend, BalancedService, Egress, ServiceError,
};

/// How long to wait for the backends' MAC addresses before going on without them.
const NEIGHBOUR_PATIENCE: Duration = Duration::from_secs(1);
/// How often slow starts go on and removed backends are looked at.
const PERIOD: Duration = Duration::from_millis(100);
/// Backends without a next hop that a warning names; of the others it says how many they are.
const NAMED_AT_MOST: usize = 8;

/// The balancer of a run, until it is dropped.
pub(super) struct Balancer {
    control: Arc<BalanceControl>,
    shared: Arc<Shared>,
    next_hops: NextHops,
    /// Found before the start.
    warnings: Vec<String>,
    health: Arc<Mutex<Option<Health>>>,
    /// Closed to end the ticker.
    stop: Option<Sender<()>>,
    ticker: Option<JoinHandle<()>>,
}

/// What the threads of the kernel's and of the backends' news share.
struct Shared {
    links: Vec<Link>,
    events: EventSender,
    told: Mutex<Told>,
    /// A next hop has changed that checks through the path go by.
    paths_changed: AtomicBool,
}

#[derive(Default)]
struct Told {
    /// Source addresses of outer headers, by the config.
    tunnel_sources: Vec<IpAddr>,
    services: Vec<Service>,
    /// Service and backend by the id of their check.
    checked: HashMap<u64, (String, IpAddr)>,
    hops: HashMap<IpAddr, NextHop>,
}

impl Shared {
    fn told(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// News of the kernel.
    fn changed(&self, control: &BalanceControl, changes: &[Change]) {
        let mut told = self.told();
        let mut hops = Vec::with_capacity(changes.len());
        for Change { backend, next_hop } in changes {
            let before = match next_hop {
                Ok(hop) => told.hops.insert(*backend, *hop),
                Err(_) => told.hops.remove(backend),
            };
            let hop = next_hop.as_ref().ok();
            let mac = hop.map(|hop| hop.destination);
            if before.map(|hop| hop.destination) != mac {
                self.events.send(Event::Neighbour { address: *backend, mac });
            }
            hops.push((*backend, hop.and_then(|hop| self.hop(&told, *backend, hop))));
        }
        drop(told);
        control.set_egress(hops);
        self.paths_changed.store(true, Relaxed);
    }

    /// A next hop as stages take it.
    fn hop(&self, told: &Told, backend: IpAddr, next_hop: &NextHop) -> Option<Egress> {
        let port = self.links.iter().position(|link| link.index == next_hop.interface)?;
        let source = told.tunnel_sources.iter().find(|source| source.is_ipv4() == backend.is_ipv4()).copied();
        Some(Egress {
            port: port as PortIndex,
            link: crate::stages::balance::way::LinkHeader {
                source: next_hop.source,
                destination: next_hop.destination,
                vlan: next_hop.vlan,
            },
            mtu: next_hop.mtu,
            is_direct: next_hop.address == backend,
            source: source.or(next_hop.preferred_source),
        })
    }

    /// News of health checks.
    fn checked(&self, control: &BalanceControl, changes: &[health::Change]) {
        let told = self.told();
        let known: Vec<_> = changes
            .iter()
            .filter_map(|change| Some((told.checked.get(&change.id)?.clone(), change)))
            .collect();
        // Told before anybody else says what is checked.
        control.set_health(
            known.iter().map(|((service, address), change)| (service.as_str(), *address, change.to.serves())),
        );
        drop(told);
        for ((service, address), change) in known {
            // That a backend is up at once is no news.
            if change.from.serves() != change.to.serves() {
                self.events.send(Event::Health {
                    service,
                    address,
                    healthy: change.to.serves(),
                    reason: change.reason.clone(),
                });
            }
        }
    }

    /// A warning when health checks would come from a VIP, to which the answers do not come back.
    fn warn_of_vip_source(&self) -> Option<String> {
        let told = self.told();
        if told.services.iter().all(|service| service.health.is_none()) {
            return None;
        }
        // Few, however many backends there are.
        let mut sources: HashMap<IpAddr, IpAddr> = HashMap::new();
        for (backend, hop) in &told.hops {
            sources.extend(hop.preferred_source.map(|source| (source, *backend)));
        }
        sources.into_iter().find_map(|(source, backend)| {
            let service = told.services.iter().find(|service| service.vip.contains(source))?;
            Some(format!(
                "this host sends to backend {backend} from {source}, which is of service {}: health checks will hear \
                 nothing; give the host an address that is nearer to its backends, or {source} `preferred_lft 0` (IPv6)",
                service.name
            ))
        })
    }

    /// A backend that is no longer checked is taken to be healthy, whatever was said of it last.
    fn trust_unchecked(&self, control: &BalanceControl) {
        let told = self.told();
        let checked: HashSet<(&str, IpAddr)> =
            told.checked.values().map(|(service, address)| (service.as_str(), *address)).collect();
        let all = told.services.iter().flat_map(|service| {
            service.backends.iter().map(|backend| (service.name.as_str(), backend.address))
        });
        let unchecked = all.filter(|backend| !checked.contains(backend));
        control.set_health(unchecked.map(|(service, address)| (service, address, true)));
    }

    /// What is to be checked.
    fn targets(&self) -> Vec<Target> {
        let mut told = self.told();
        let told = &mut *told;
        let mut targets = Vec::new();
        told.checked.clear();
        for service in &told.services {
            let Some(check) = &service.health else { continue };
            for backend in service.backends.iter().filter(|backend| backend.state != BackendState::Down) {
                let id = FixedState::default().hash_one((&service.name, backend.address));
                told.checked.insert(id, (service.name.clone(), backend.address));
                let path = (check.through == Through::Path && check.kind == HealthKind::Tcp)
                    .then(|| path(service, backend.address, &told.hops, &told.tunnel_sources))
                    .flatten();
                targets.push(Target {
                    id,
                    service: service.name.clone(),
                    address: backend.address,
                    // Only checks that need none get by without.
                    port: service.health_port(backend).unwrap_or(0),
                    check: check.clone(),
                    path,
                });
            }
        }
        targets
    }
}

/// The way of a check that goes as the service's packets go.
fn path(
    service: &Service,
    backend: IpAddr,
    hops: &HashMap<IpAddr, NextHop>,
    tunnel_sources: &[IpAddr],
) -> Option<ServicePath> {
    let hop = hops.get(&backend)?;
    let vip = service.single_vip()?;
    let port = service.health.as_ref()?.port.or(service.single_port())?;
    let from = tunnel_sources.iter().find(|source| source.is_ipv4() == backend.is_ipv4()).copied();
    let delivery = match service.forward {
        Forward::Dsr => Delivery::Frame { interface: hop.interface, from: hop.source, to: hop.destination },
        Forward::Ipip => Delivery::Ipip { from },
        Forward::Gue => Delivery::Gue { from, port: service.gue_port },
        _ => return None,
    };
    let source = hop.preferred_source.filter(|source| source.is_ipv4() == vip.is_ipv4())?;
    Some(ServicePath { vip: SocketAddr::new(vip, port), source, delivery })
}

impl Balancer {
    /// Looks where the backends are, and makes what the workers' stages are made by. `None` when nothing is balanced.
    ///
    /// # Errors
    ///
    /// [`StartError`], naming service and backend.
    pub fn prepare(
        plan: &Plan,
        workers: usize,
        links: &[Link],
        events: &EventSender,
    ) -> Result<Option<Self>, StartError> {
        if !plan.stages.contains(&StageKind::Balance) {
            return Ok(None);
        }
        let settings = &plan.balance;
        let options = options(plan, workers, links.iter().map(|link| MacAddress(link.mac)).collect())?;
        let control = Arc::new(BalanceControl::new(options, services(plan))?);
        let told = Told {
            tunnel_sources: settings.tunnel_sources.clone(),
            services: plan.services.clone(),
            ..Told::default()
        };
        let shared = Arc::new(Shared {
            links: links.to_vec(),
            events: events.clone(),
            told: Mutex::new(told),
            paths_changed: AtomicBool::new(false),
        });
        let ports = links.iter().map(|link| link.index).collect();
        let on_change = {
            let (shared, control) = (Arc::clone(&shared), Arc::clone(&control));
            move |changes: &[Change]| shared.changed(&control, changes)
        };
        let next_hops = NextHops::start(ports, wanted(plan).collect(), on_change)?;
        let warnings =
            plan.nat.iter().flat_map(|nat| shared_ports(nat).into_iter().chain(foreign(nat))).collect();
        let balancer =
            Self { control, shared, next_hops, warnings, health: Arc::default(), stop: None, ticker: None };
        balancer.check(plan)?;
        Ok(Some(balancer))
    }

    /// What the workers' stages are made and told by.
    pub fn control(&self) -> &Arc<BalanceControl> {
        &self.control
    }

    /// Whether every backend can be reached by its service's way, as far as routes say.
    fn check(&self, plan: &Plan) -> Result<(), StartError> {
        let current = self.next_hops.current();
        for service in &plan.services {
            for backend in &service.backends {
                if let Some(answer) = current.get(&backend.address) {
                    check_backend(service, backend.address, answer, &self.shared.links)?;
                }
            }
        }
        Ok(())
    }

    /// Waits a moment for the neighbours, and begins with health checks. Returns warnings.
    pub fn start(&mut self) -> Result<Vec<String>, StartError> {
        let mut warnings = std::mem::take(&mut self.warnings);
        warnings.extend(unresolved(&self.next_hops.wait_resolved(NEIGHBOUR_PATIENCE)));
        warnings.extend(self.shared.warn_of_vip_source());
        let on_change = {
            let (shared, control) = (Arc::clone(&self.shared), Arc::clone(&self.control));
            move |changes: &[health::Change]| shared.checked(&control, changes)
        };
        *lock(&self.health) = Some(Health::start(self.shared.targets(), on_change)?);
        self.shared.paths_changed.store(false, Relaxed);

        let (stop, stopped) = bounded::<()>(0);
        let (control, shared, health) =
            (Arc::clone(&self.control), Arc::clone(&self.shared), Arc::clone(&self.health));
        let ticker = move || {
            while stopped.recv_timeout(PERIOD) == Err(RecvTimeoutError::Timeout) {
                control.tick(Instant::now());
                if shared.paths_changed.swap(false, Relaxed)
                    && let Some(health) = &*lock(&health)
                    && let Err(error) = health.set_targets(shared.targets())
                {
                    tracing::error!("{error}");
                }
            }
        };
        let thread = std::thread::Builder::new().name("xfwd-balance".to_owned()).spawn(ticker);
        self.ticker = Some(thread.map_err(StartError::Thread)?);
        self.stop = Some(stop);
        Ok(warnings)
    }

    /// Balances by another plan from now on: what is wrong with it is found before anything changes. Returns warnings.
    ///
    /// # Errors
    ///
    /// [`StartError`]; the old plan goes on.
    pub fn reload(&self, plan: &Plan) -> Result<Vec<String>, StartError> {
        let next: HashSet<IpAddr> = wanted(plan).collect();
        // Backends that were removed may have flows for long.
        let running = self.control.addresses();
        self.next_hops.set_wanted(next.union(&running).copied().collect());
        // Backends that had no next hop before are no reason to wait.
        let mut missing =
            self.next_hops.wait_resolved_of(NEIGHBOUR_PATIENCE, |backend| !running.contains(backend));
        missing.retain(|(backend, _)| next.contains(backend));
        let applied = self.check(plan).and_then(|()| self.balance(&plan.services));
        if let Err(error) = applied {
            self.next_hops.set_wanted(running.into_iter().collect());
            return Err(error);
        }
        let kept = self.control.addresses();
        self.shared.told().hops.retain(|address, _| kept.contains(address));
        let gone = running.difference(&kept).map(|address| (*address, None));
        self.control.set_egress(gone);
        self.next_hops.set_wanted(kept.into_iter().collect());
        Ok(unresolved(&missing).into_iter().chain(self.shared.warn_of_vip_source()).collect())
    }

    /// Balances and checks these services from now on, or, with an error, goes on as before.
    fn balance(&self, services: &[Service]) -> Result<(), StartError> {
        self.control.set_services(services.iter().map(balanced).collect())?;
        let before = std::mem::replace(&mut self.shared.told().services, services.to_vec());
        let health = lock(&self.health);
        let Some(checks) = &*health else { return Ok(()) };
        if let Err(error) = checks.set_targets(self.shared.targets()) {
            // Both were so a moment ago.
            self.shared.told().services.clone_from(&before);
            self.control.set_services(before.iter().map(balanced).collect())?;
            checks.set_targets(self.shared.targets())?;
            return Err(error.into());
        }
        self.shared.trust_unchecked(&self.control);
        Ok(())
    }
}

impl Drop for Balancer {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(ticker) = self.ticker.take()
            && ticker.join().is_err()
        {
            tracing::error!("the thread xfwd-balance had panicked");
        }
        *lock(&self.health) = None;
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn wanted(plan: &Plan) -> impl Iterator<Item = IpAddr> {
    plan.services.iter().flat_map(|service| &service.backends).map(|backend| backend.address)
}

/// What the services of a config share, as the stages of so many workers take it.
pub(crate) fn options(
    plan: &Plan,
    workers: usize,
    ports: Vec<MacAddress>,
) -> Result<BalanceOptions, StartError> {
    let settings = &plan.balance;
    let nat = plan.nat.as_ref().map(|nat| {
        nat.check_workers(workers as u32)?;
        NatPool::new(&nat.addresses, nat.ports.clone(), workers).map_err(StartError::Nat)
    });
    Ok(BalanceOptions {
        workers,
        ports,
        connections: settings.connections as usize,
        timeouts: Timeouts {
            syn: settings.syn_timeout,
            established: settings.established_timeout,
            closing: settings.closing_timeout,
            udp: settings.udp_timeout,
        },
        answers_per_second: settings.icmp_rate,
        nat: nat.transpose()?,
    })
}

/// The services of a config as the stage takes them.
pub(crate) fn services(plan: &Plan) -> Vec<BalancedService> {
    plan.services.iter().map(balanced).collect()
}

fn balanced(service: &Service) -> BalancedService {
    let backend = |backend: &crate::config::Backend| BalancedBackend {
        address: backend.address,
        port: backend.port,
        weight: backend.weight,
        state: backend.state,
    };
    BalancedService {
        name: service.name.clone(),
        network: service.vip,
        protocol: service.protocol.number(),
        ports: service.ports.clone(),
        forward: service.forward,
        gue_port: service.gue_port,
        affinity: service.affinity,
        table_size: service.table_size,
        no_backend: service.no_backend,
        slow_start: service.slow_start,
        mss: service.mss,
        backends: service.backends.iter().map(backend).collect(),
    }
}

/// Direct server return rewrites nothing but MAC addresses, so its backends must be neighbours; for the other ways a route is enough.
fn check_backend(
    service: &Service,
    backend: IpAddr,
    answer: &Answer,
    links: &[Link],
) -> Result<(), StartError> {
    let name = || service.name.clone();
    let is_direct = service.forward == Forward::Dsr;
    let not_a_neighbour = |route| StartError::NotANeighbour {
        service: name(),
        backend,
        interfaces: links.iter().map(|link| link.name.as_str()).collect::<Vec<_>>().join(", "),
        route,
    };
    let (interface, vlan, gateway) = match answer {
        Ok(hop) => (hop.interface, hop.vlan, hop.address),
        Err(Unresolved::NoNeighbour { interface, vlan, address, .. }) => (*interface, *vlan, *address),
        Err(Unresolved::OwnAddress) => return Err(StartError::OwnAddress { service: name(), backend }),
        Err(Unresolved::OtherInterface { name, via }) if is_direct => {
            return Err(not_a_neighbour(match via {
                Some(gateway) => format!("via {gateway} on {name}"),
                None => format!("by {name}"),
            }));
        }
        Err(other) => {
            let source = Box::new(other.clone());
            return Err(StartError::Unroutable { service: name(), backend, source });
        }
    };
    if !is_direct || gateway == backend {
        return Ok(());
    }
    let link = links.iter().find(|link| link.index == interface);
    let link = link.map_or("another interface", |link| link.name.as_str());
    Err(not_a_neighbour(match vlan {
        None => format!("via {gateway} on {link}"),
        Some(vlan) => format!("via {gateway} by VLAN {vlan} of {link}"),
    }))
}

/// A warning if connections of this host may use what `nat` uses.
fn shared_ports(nat: &NatSettings) -> Option<String> {
    let taken = local_ports::taken_of(&nat.ports)?;
    let hosts = host_addresses().ok()?;
    let shared = nat.addresses.iter().find(|address| hosts.contains(address))?;
    Some(format!(
        "nat: this host may take the ports {} to {} of {shared} for connections of its own, and would not get their answers: \
         give `[nat]` other `ports`, an address of its own, or set net.ipv4.ip_local_reserved_ports",
        taken.start(),
        taken.end()
    ))
}

/// A warning about addresses that nobody may answer ARP for. It is none of an error: they can be routed here.
fn foreign(nat: &NatSettings) -> Option<String> {
    let hosts = host_addresses().ok()?;
    let foreign: Vec<String> =
        nat.addresses.iter().filter(|address| !hosts.contains(address)).map(ToString::to_string).collect();
    (!foreign.is_empty()).then(|| {
        format!(
            "nat: this host does not have {}: the answers of backends only arrive if they are routed here; \
             `ip address add` gives an interface the address",
            foreign.join(" and ")
        )
    })
}

/// Warnings about backends that have no next hop yet.
fn unresolved(missing: &[(IpAddr, Unresolved)]) -> Vec<String> {
    let mut warnings: Vec<String> = missing
        .iter()
        .take(NAMED_AT_MOST)
        .map(|(address, why)| match why {
            Unresolved::NoNeighbour { address: asked, .. } if asked == address => format!(
                "backend {address} does not answer ARP or neighbour discovery yet: packets for it are dropped until it does"
            ),
            why => format!("backend {address} has no next hop yet, and packets for it are dropped: {why}"),
        })
        .collect();
    if missing.len() > NAMED_AT_MOST {
        warnings.push(format!("{} more backends have no next hop yet", missing.len() - NAMED_AT_MOST));
    }
    warnings
}

impl From<ServiceError> for StartError {
    fn from(error: ServiceError) -> Self {
        Self::Table { service: error.service, source: error.source }
    }
}
