//! What to run, and on what: the builder of a run.

use std::path::PathBuf;
use std::sync::Arc;

use crate::config::{Dataplane, Plan, StageKind, Steer};
use crate::kernel::xdp::SteeredService;
use crate::pipeline::{Pipeline, Stage};
use crate::port::FramePool;
use crate::port::xsk::{Mode, XskFrame, XskPort};
use crate::stages::filter::Rule;
use crate::worker::{Idle, Worker, WorkerContext, WorkerCounters, WorkerEnd, WorkerThread};

/// A run to be: interfaces, what leaves the kernel, and the stages. [`start`](Self::start) makes it one.
///
/// # From code
///
/// ```no_run
/// use xfwd::prelude::*;
///
/// /// Sends every packet back as it came, and counts.
/// struct Mirror {
///     seen: StageCounter,
/// }
///
/// impl Stage for Mirror {
///     fn name(&self) -> &str {
///         "mirror"
///     }
///     fn reads_headers(&self) -> bool {
///         false
///     }
///     fn process(&mut self, batch: &mut Batch<'_>) {
///         self.seen.add(batch.undecided().len() as u64);
///         batch.each_undecided(|packet| match xfwd::packet::Ethernet::new_checked(packet.bytes_mut()) {
///             Ok(mut ethernet) => {
///                 ethernet.swap_addresses();
///                 Verdict::Bounce
///             }
///             Err(_) => Verdict::Drop(DropReason::Malformed),
///         });
///     }
/// }
///
/// let running = Runner::new()
///     .interface("ens1f0")
///     .queues(4)
///     .idle(Idle::Adaptive)
///     .steer_all()
///     .stage(|worker| Mirror { seen: worker.counter("mirrored") })
///     .start()?;
/// std::thread::sleep(std::time::Duration::from_secs(10));
/// let (snapshot, errors) = running.stop();
/// println!("{} packets mirrored, {} errors", snapshot.counters["mirrored"], errors.len());
/// # Ok::<(), xfwd::runtime::StartError>(())
/// ```
///
/// # State
///
/// The closure of [`stage`](Self::stage) is called once for each worker, so what it makes belongs to that worker alone. What
/// other threads have to tell goes through handles of the caller's own, which the closure clones: a lock-free queue that the
/// stage empties in [`housekeeping`](Stage::housekeeping), or an atomic number that it reads there.
///
/// ```no_run
/// use std::sync::Arc;
/// use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
///
/// use xfwd::prelude::*;
///
/// struct Longest {
///     setting: Arc<AtomicU64>,
///     bytes: usize,
/// }
///
/// impl Stage for Longest {
///     fn name(&self) -> &str {
///         "longest"
///     }
///     fn housekeeping(&mut self) {
///         self.bytes = self.setting.load(Relaxed) as usize;
///     }
///     fn process(&mut self, batch: &mut Batch<'_>) {
///         batch.each_undecided(|packet| match packet.len() > self.bytes {
///             true => Verdict::Drop(DropReason::Rule),
///             false => Verdict::Bounce,
///         });
///     }
/// }
///
/// let setting = Arc::new(AtomicU64::new(1_514));
/// let shared = Arc::clone(&setting);
/// let running = Runner::new()
///     .interface("ens1f0")
///     .steer_all()
///     .stage(move |_| Longest { setting: Arc::clone(&shared), bytes: 0 })
///     .start()?;
/// setting.store(200, Relaxed); // Taken over by every worker between two batches.
/// # drop(running);
/// # Ok::<(), xfwd::runtime::StartError>(())
/// ```
///
/// # From a config file
///
/// [`with_plan`](Self::with_plan) takes what [`config::load`](crate::config::load) gives; this is what the `xfwd` command
/// does.
pub struct Runner {
    /// Each with what leaves the kernel there, if that is not what the plan says.
    pub(super) interfaces: Vec<(String, Option<Steer>)>,
    /// Bytes of room in front of what leaves besides services.
    pub(super) room: u8,
    pub(super) queues: u32,
    pub(super) cores: Option<Vec<usize>>,
    pub(super) plan: Plan,
    pub(super) start_worker: Box<StartWorker>,
}

/// Makes a worker's stage and starts its loop. A closure, so that the loop is compiled for the stage's own type.
type StartWorker = dyn FnMut(WorkerParts) -> Result<WorkerThread, WorkerEnd> + Send;

/// What a worker is made of, but for its stage.
pub(super) struct WorkerParts {
    pub ports: Vec<XskPort>,
    pub pool: FramePool<XskFrame>,
    /// The stages of the plan.
    pub pipeline: Pipeline,
    pub context: WorkerContext,
    pub idle: Idle,
    pub counters: Arc<WorkerCounters>,
    pub core: Option<usize>,
    pub on_end: Box<dyn FnOnce() + Send>,
}

impl WorkerParts {
    fn start(self, stage: impl Stage + 'static) -> Result<WorkerThread, WorkerEnd> {
        let worker = Worker::new(self.ports, self.pool, stage, self.idle, self.counters);
        WorkerThread::start(self.context.worker(), worker, self.core, self.on_end)
    }

    fn start_pipeline(mut self) -> Result<WorkerThread, WorkerEnd> {
        let pipeline = std::mem::take(&mut self.pipeline);
        self.start(pipeline)
    }

    fn start_stage(mut self, stage: impl Stage + 'static) -> Result<WorkerThread, WorkerEnd> {
        if self.pipeline.stage_names().next().is_none() {
            return self.start(stage);
        }
        let pipeline = std::mem::take(&mut self.pipeline);
        self.start((pipeline, stage))
    }
}

impl Default for Runner {
    fn default() -> Self {
        Self::with_plan(Plan::default())
    }
}

impl Runner {
    /// A run of nothing yet: no interface, one queue, no packet leaves the kernel.
    pub fn new() -> Self {
        Self::default()
    }

    /// A run of what a config file says.
    pub fn with_plan(plan: Plan) -> Self {
        Self {
            interfaces: Vec::new(),
            room: 0,
            queues: 1,
            cores: None,
            plan,
            start_worker: Box::new(WorkerParts::start_pipeline),
        }
    }

    /// One more interface. Each is a port of every worker: the first has [`PortIndex`](crate::pipeline::PortIndex) 0.
    pub fn interface(mut self, name: impl Into<String>) -> Self {
        self.interfaces.push((name.into(), None));
        self
    }

    /// One more interface, as by [`interface`](Self::interface), on which something else leaves the kernel than on the others: the
    /// inner side of a gateway, say, that takes [everything](Steer::Everything) there, and on the outer side one service
    /// only.
    pub fn interface_with(mut self, name: impl Into<String>, steer: Steer) -> Self {
        self.interfaces.push((name.into(), Some(steer)));
        self
    }

    /// More interfaces, as by [`interface`](Self::interface).
    pub fn interfaces<N: Into<String>>(mut self, names: impl IntoIterator<Item = N>) -> Self {
        self.interfaces.extend(names.into_iter().map(|name| (name.into(), None)));
        self
    }

    /// Number of queues of each interface that are served, from queue 0: one worker a queue. 1 if nothing is said.
    pub fn queues(mut self, queues: u32) -> Self {
        self.queues = queues;
        self
    }

    /// Cores for the workers, in order. If nothing is said: all that this process may use but the first, if there are enough.
    pub fn cores(mut self, cores: impl IntoIterator<Item = usize>) -> Self {
        self.cores = Some(cores.into_iter().collect());
        self
    }

    /// How packets get from the driver to user space.
    pub fn mode(mut self, mode: Mode) -> Self {
        self.plan.dataplane.mode = mode;
        self
    }

    /// What a worker does when there is nothing to do.
    pub fn idle(mut self, idle: Idle) -> Self {
        self.plan.dataplane.idle = idle;
        self
    }

    /// All that [`mode`](Self::mode) and [`idle`](Self::idle) say, and sizes, at once. What leaves the kernel is one of
    /// its fields, too: call this first.
    pub fn dataplane(mut self, dataplane: Dataplane) -> Self {
        self.plan.dataplane = dataplane;
        self
    }

    /// Everything leaves the kernel but ARP, neighbour discovery and what is addressed to the host.
    pub fn steer_all(mut self) -> Self {
        self.plan.dataplane.steer = Steer::All;
        self
    }

    /// Every frame leaves the kernel: also ARP, neighbour discovery, what is malformed, and what is addressed to the host, which **cannot
    /// be reached by these interfaces** while the run lasts; it hears nothing of them. The interfaces are promiscuous for as
    /// long: frames to other MAC addresses come, too. For a bridge, a tap, or a tester. Frames for a queue without a worker
    /// still go to the host.
    pub fn steer_everything(mut self) -> Self {
        self.plan.dataplane.steer = Steer::Everything;
        self
    }

    /// Room for so many bytes of outer headers in front of each packet that leaves by [`steer_all`](Self::steer_all) or
    /// [`steer_everything`](Self::steer_everything), where the driver lets it: then
    /// [`Packet::push_front`](crate::pipeline::Packet::push_front) copies nothing. 0 for none, else at least
    /// [`MIN_ROOM`](xfwd_ebpf_types::MIN_ROOM) and at most [`MAX_ROOM`](xfwd_ebpf_types::MAX_ROOM). A packet that is sent with less in
    /// front of it than there is room is copied, so ask for what the headers take. A service has its own:
    /// [`SteeredService::room`].
    pub fn room(mut self, bytes: u8) -> Self {
        self.room = bytes;
        self
    }

    /// The packets of this service leave the kernel, also when they are addressed to the host.
    pub fn steer(mut self, service: SteeredService) -> Self {
        self.plan.steered.push(service);
        self
    }

    /// The rules that are asked first, in the kernel as far as they can be judged there, instead of those of the plan.
    pub fn filter(mut self, rules: impl IntoIterator<Item = Rule>) -> Self {
        self.plan.filter = rules.into_iter().collect();
        if !self.plan.stages.contains(&StageKind::Filter) {
            self.plan.stages.insert(0, StageKind::Filter);
        }
        self
    }

    /// The file of the dynamic deny list, which is followed while running. [`Running::deny_list`](super::Running::deny_list)
    /// is there without it, too.
    pub fn deny_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.plan.deny_file = Some(path.into());
        self
    }

    /// What becomes of the packets that the filter lets through, or, after [`with_plan`](Self::with_plan), that the plan's
    /// stages leave undecided. `make` is called for each worker on the thread that calls [`start`](Self::start).
    ///
    /// Several stages are one as a tuple: `(First, Second, Third)`. The worker's loop is compiled for this very type: there is no
    /// dynamic call on a packet's way, but for one a batch when rules of the filter, or other stages of a plan, run in the
    /// worker.
    ///
    /// Called again, it replaces what was given before.
    pub fn stage<S: Stage + 'static>(
        mut self,
        mut make: impl FnMut(&WorkerContext) -> S + Send + 'static,
    ) -> Self {
        self.start_worker = Box::new(move |parts: WorkerParts| {
            let stage = make(&parts.context);
            parts.start_stage(stage)
        });
        self
    }
}
