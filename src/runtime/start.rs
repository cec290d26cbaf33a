//! Starting a run, in an order in which a failure leaves nothing behind.

use std::net::IpAddr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use xfwd_ebpf_types::RoomMark;

use super::balance::Balancer;
use super::events::{self, EventSender};
use super::plan::{Besides, Controls};
use super::runner::WorkerParts;
use super::running::{Event, Running, Socket, WorkerSlot};
use super::{Runner, StartError, choose_cores, plan as plans};
use crate::config::{Plan, Steer};
use crate::kernel::addresses::{AddressWatcher, host_addresses};
use crate::kernel::capabilities::{self, MemlockOutcome};
use crate::kernel::deny::{DenyList, DenyTable, DenyThread};
use crate::kernel::features::Feature;
use crate::kernel::filter::KernelPlan;
use crate::kernel::link::{Link, LinkChange, LinkWatcher};
use crate::kernel::promiscuous::Promiscuous;
use crate::kernel::xdp::{XdpMode, XdpProgram, room_mark};
use crate::packet::MacAddress;
use crate::port::xsk::{
    self, Gate, MAX_PORTS, MAX_SINGLE_BUFFER_MTU, Mode, OpenRequest, Opened, QueueRequest,
};
use crate::worker::{Counters, Interface, WorkerContext};

impl Runner {
    /// Starts the run: when this returns, packets are being processed.
    ///
    /// # Errors
    ///
    /// [`StartError`]; the interfaces are as they were then.
    pub fn start(self) -> Result<Running, StartError> {
        start(self)
    }
}

fn start(mut runner: Runner) -> Result<Running, StartError> {
    let options = &runner;
    let plan = &runner.plan;
    plan.dataplane.check()?;
    let mut warnings = Vec::new();
    let cores = cores(options, &mut warnings)?;
    let links = look(options, plan, &mut warnings)?;
    let (events, receiver) = events::channel();
    let balancer = Balancer::prepare(plan, options.queues as usize, &links, &events)?;
    let kernel = plans::kernel_plan(plan)?;
    let mut controls = Controls {
        filter: plans::filter(plan, &kernel),
        filter_in_worker: kernel.needs_worker(),
        balance: balancer.as_ref().map(|balancer| Arc::clone(balancer.control())),
    };

    let mut opened = xsk::open(&open_request(options, plan, &links))?;
    warnings.extend(opened.zero_copy_refused.take().map(|why| format!("no zero-copy ({why}): copy mode")));
    if plan.dataplane.huge_pages && !opened.huge_pages {
        warnings.push("no huge pages are free: packet memory lies in ordinary pages".to_owned());
    }
    if plan.dataplane.busy_poll && opened.reports.iter().any(|report| !report.busy_poll) {
        warnings.push(
            "the kernel refuses busy polling (SO_PREFER_BUSY_POLL, since Linux 5.11): it is off".to_owned(),
        );
    }
    let besides = besides(options, plan);
    let mut programs = load(plan, &kernel, &links, &besides, &mut opened)?;
    let deny = start_deny(plan, &mut programs)?;

    let sockets = duplicate(&opened)?;
    let huge_pages = opened.huge_pages;
    let room_mark = plans::makes_room(plan, &besides).then(room_mark);
    let shared = Shared { links: &links, cores: &cores, events: &events, deny: deny.list(), room_mark };
    let (workers, counters) = start_workers(&mut runner, opened, &mut controls, &shared)?;
    let plan = runner.plan;
    let (mode, stages) = (plan.dataplane.mode, plan.stages.clone());

    let programs = Arc::new(Mutex::new(programs));
    let shared_plan = Arc::new(Mutex::new(plan));
    let mut running = Running {
        started: Instant::now(),
        warnings,
        huge_pages,
        plan: Arc::clone(&shared_plan),
        stages,
        links: links.clone(),
        sockets,
        workers,
        programs: Arc::clone(&programs),
        besides,
        promiscuous: Vec::new(),
        filter: controls.filter,
        deny,
        balancer,
        balance: controls.balance,
        counters,
        addresses: None,
        link_watcher: None,
        removed: Arc::default(),
        events: receiver,
    };
    // From here on `running` takes down again what has been set up, if something fails.
    if let Some(balancer) = &mut running.balancer {
        let warnings = balancer.start()?;
        running.warnings.extend(warnings);
    }
    running.link_watcher = Some(watch_links(&links, Arc::clone(&running.removed), events)?);
    if running.besides.iter().any(|besides| besides.steer == Steer::All) {
        running.addresses = Some(watch_addresses(&shared_plan, &running.besides, &programs)?);
    }
    for (link, besides) in links.iter().zip(&running.besides) {
        if besides.steer == Steer::Everything {
            running.promiscuous.push(Promiscuous::enter(link)?);
        }
    }
    let mode = match mode {
        Mode::Generic => XdpMode::Generic,
        _ => XdpMode::Native,
    };
    for (program, link) in running.programs().iter_mut().zip(&links) {
        program.attach(link.index, &link.name, mode)?;
    }
    running.started = Instant::now();
    Ok(running)
}

fn cores(options: &Runner, warnings: &mut Vec<String>) -> Result<Vec<Option<usize>>, StartError> {
    let usable: Vec<usize> =
        core_affinity::get_core_ids().unwrap_or_default().iter().map(|core| core.id).collect();
    let (cores, warning) = choose_cores(options.queues as usize, options.cores.as_deref(), &usable)?;
    warnings.extend(warning);
    Ok(cores)
}

/// Privileges and interfaces, before anything is touched.
fn look(options: &Runner, plan: &Plan, warnings: &mut Vec<String>) -> Result<Vec<Link>, StartError> {
    if options.interfaces.is_empty() {
        return Err(StartError::NoInterface);
    }
    if options.queues == 0 {
        return Err(StartError::NoQueue);
    }
    if options.interfaces.len() > MAX_PORTS {
        return Err(StartError::TooManyInterfaces(options.interfaces.len()));
    }
    let mut links: Vec<Link> = Vec::new();
    for (name, _) in &options.interfaces {
        let link = Link::find(name)?;
        if links.iter().any(|other| other.index == link.index) {
            return Err(StartError::InterfaceTwice(name.clone()));
        }
        warnings.extend(link.check_queues(options.queues)?.map(|warning| warning.to_string()));
        links.push(link);
    }
    capabilities::check()?;
    let memlock = capabilities::raise_memlock();
    if matches!(memlock, MemlockOutcome::Limited { .. }) {
        warnings.push(memlock.to_string());
    }
    for link in &links {
        link.check_no_xdp()?;
        if needs_multi_buffer(link) {
            Feature::MultiBuffer.check().map_err(|unsupported| StartError::Mtu {
                interface: link.name.clone(),
                mtu: link.mtu,
                largest: MAX_SINGLE_BUFFER_MTU,
                unsupported,
            })?;
        }
        if !link.up {
            warnings.push(format!("interface {} is down: `ip link set {} up`", link.name, link.name));
        }
        if plan.dataplane.mode == Mode::Generic {
            warnings.push(format!(
                "interface {}: generic mode, as asked: each packet becomes an skb first, so this is slow",
                link.name
            ));
        }
    }
    Ok(links)
}

fn needs_multi_buffer(link: &Link) -> bool {
    link.mtu > MAX_SINGLE_BUFFER_MTU
}

fn open_request(options: &Runner, plan: &Plan, links: &[Link]) -> OpenRequest {
    let dataplane = &plan.dataplane;
    let queues = links
        .iter()
        .flat_map(|link| {
            (0..options.queues).map(|queue| QueueRequest {
                interface: link.name.clone(),
                queue,
                worker: queue as usize,
            })
        })
        .collect();
    OpenRequest {
        queues,
        workers: options.queues as usize,
        mode: dataplane.mode,
        frames_per_queue: dataplane.frames_per_queue,
        ring_size: dataplane.ring_size,
        multi_buffer: links.iter().any(needs_multi_buffer),
        huge_pages: dataplane.huge_pages,
        busy_poll: dataplane.busy_poll,
    }
}

/// What leaves the kernel besides services, by each of the interfaces.
fn besides(options: &Runner, plan: &Plan) -> Vec<Besides> {
    let steers = options.interfaces.iter().map(|(_, steer)| steer.unwrap_or(plan.dataplane.steer));
    steers.map(|steer| Besides { steer, room: options.room }).collect()
}

/// One program a link, with the sockets in its XSKMAP.
fn load(
    plan: &Plan,
    kernel: &KernelPlan,
    links: &[Link],
    besides: &[Besides],
    opened: &mut Opened,
) -> Result<Vec<XdpProgram>, StartError> {
    let hosts = host_addresses()?;
    let mut programs = Vec::new();
    for (link, besides) in links.iter().zip(besides) {
        let mut program = XdpProgram::load_with(&plans::steering(plan, *besides, &hosts), kernel)?;
        for port in opened.ports.iter_mut().flatten().filter(|port| port.interface() == link.name) {
            program.insert_socket(port.queue(), &port.socket())?;
            port.set_gate(Gate::new(program.gates(), port.queue()).map_err(StartError::Gate)?);
        }
        programs.push(program);
    }
    Ok(programs)
}

/// The deny list, in the maps of every program.
fn start_deny(plan: &Plan, programs: &mut [XdpProgram]) -> Result<DenyThread, StartError> {
    let tables = programs.iter_mut().filter_map(XdpProgram::take_deny_maps);
    let tables = tables.map(|maps| Box::new(maps) as Box<dyn DenyTable>).collect();
    Ok(DenyThread::start(tables, plan.deny_file.as_deref())?)
}

/// Second handles of the sockets, to read statistics while the workers own the first ones.
fn duplicate(opened: &Opened) -> Result<Vec<Socket>, StartError> {
    opened
        .reports
        .iter()
        .map(|report| {
            let (worker, port) = opened
                .ports
                .iter()
                .enumerate()
                .flat_map(|(worker, ports)| ports.iter().map(move |port| (worker, port)))
                .find(|(_, port)| port.interface() == report.interface && port.queue() == report.queue)
                .expect("every report is of a port");
            let fd: OwnedFd = port.socket().try_clone_to_owned().map_err(StartError::Duplicate)?;
            tracing::debug!(
                interface = report.interface,
                queue = report.queue,
                fd = fd.as_raw_fd(),
                "socket"
            );
            Ok(Socket { report: report.clone(), worker, fd })
        })
        .collect()
}

/// What all workers are made with.
struct Shared<'a> {
    links: &'a [Link],
    cores: &'a [Option<usize>],
    events: &'a EventSender,
    deny: &'a DenyList,
    /// There if packets may come with room in front.
    room_mark: Option<RoomMark>,
}

fn start_workers(
    runner: &mut Runner,
    opened: Opened,
    controls: &mut Controls,
    shared: &Shared<'_>,
) -> Result<(Vec<WorkerSlot>, Counters), StartError> {
    let interface = |link: &Link| Interface::new(&link.name, MacAddress(link.mac), link.mtu);
    let interfaces: Arc<[Interface]> = shared.links.iter().map(interface).collect();
    let own_counters = Counters::default();
    let mut workers = Vec::new();
    for (index, (mut ports, pool)) in opened.ports.into_iter().zip(opened.pools).enumerate() {
        if let Some(mark) = shared.room_mark {
            ports.iter_mut().for_each(|port| port.set_room_mark(mark));
        }
        let context = WorkerContext::new(index, runner.queues as usize, Arc::clone(&interfaces))
            .with_counters(own_counters.clone())
            .with_deny_list(shared.deny.clone());
        let (core, counters, events) = (shared.cores[index], Arc::default(), shared.events.clone());
        let parts = WorkerParts {
            ports,
            pool,
            pipeline: plans::pipeline(&runner.plan, &context, controls),
            context,
            idle: runner.plan.dataplane.idle,
            counters: Arc::clone(&counters),
            core,
            on_end: Box::new(move || events.send(Event::WorkerEnded(index))),
        };
        let thread = (runner.start_worker)(parts)?;
        workers.push(WorkerSlot { thread: Some(thread), core, counters });
    }
    Ok((workers, own_counters))
}

fn watch_links(
    links: &[Link],
    removed: Arc<Mutex<Vec<String>>>,
    events: EventSender,
) -> Result<LinkWatcher, StartError> {
    let names: Vec<(u32, String)> = links.iter().map(|link| (link.index, link.name.clone())).collect();
    let indices: Vec<u32> = links.iter().map(|link| link.index).collect();
    let watcher = LinkWatcher::start(&indices, move |event| {
        let Some((_, name)) = names.iter().find(|(index, _)| *index == event.index) else { return };
        let name = name.clone();
        let event = match event.change {
            LinkChange::Removed => {
                removed.lock().unwrap_or_else(PoisonError::into_inner).push(name.clone());
                Event::InterfaceRemoved(name)
            }
            LinkChange::Carrier(up) => Event::Carrier { interface: name, up },
            _ => return,
        };
        events.send(event);
    })?;
    Ok(watcher)
}

/// With `steer = "all"` a program has to know which addresses are the host's own.
fn watch_addresses(
    plan: &Arc<Mutex<Plan>>,
    besides: &[Besides],
    programs: &Arc<Mutex<Vec<XdpProgram>>>,
) -> Result<AddressWatcher, StartError> {
    let (plan, besides, programs) = (Arc::clone(plan), besides.to_vec(), Arc::clone(programs));
    let update = move |addresses: Vec<IpAddr>| {
        let plan = plan.lock().unwrap_or_else(PoisonError::into_inner);
        let steer = |besides: &Besides| plans::steering(&plan, *besides, &addresses);
        let steerings: Vec<_> = besides.iter().map(steer).collect();
        drop(plan);
        let mut programs = programs.lock().unwrap_or_else(PoisonError::into_inner);
        for (program, steering) in programs.iter_mut().zip(&steerings) {
            if let Err(error) = program.set_steering(steering) {
                tracing::error!(
                    "a change of the host's addresses could not be told to the XDP program: {error}"
                );
            }
        }
    };
    let on_change = update.clone();
    let (watcher, initial) = AddressWatcher::start(move |change| on_change(change.all))?;
    update(initial);
    Ok(watcher)
}
