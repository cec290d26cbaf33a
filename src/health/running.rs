//! The threads, and the table of what is known.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc},
    thread::{self, JoinHandle},
    time::Instant,
};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::{
    runtime::{self, Handle},
    sync::{Semaphore, oneshot},
    task::AbortHandle,
    time::sleep_until,
};

use super::{
    Change, HealthError, Status, Target,
    history::{History, Outcome},
    probe::{Probe, Resources},
    rhythm::Rhythm,
};

/// Descriptors left to everything else in this process: AF_XDP sockets, maps, watchers.
const DESCRIPTORS_OF_OTHERS: usize = 256;

/// Checks that may run at once even where that leaves less to the others.
const FEWEST_AT_ONCE: usize = 64;

/// Checks of backends, running until this is dropped.
///
/// Dropping it ends the checks under way, kills the commands among them, and waits for both threads; a call of the
/// closure that runs at that moment is waited for.
pub struct Health {
    shared: Arc<Shared>,
    resources: Mutex<Resources>,
    handle: Handle,
    epoch: Instant,
    stop: Option<oneshot::Sender<()>>,
    checker: Option<JoinHandle<()>>,
    teller: Option<JoinHandle<()>>,
}

impl Health {
    /// Starts to check `targets`, in the network namespace of the calling thread.
    ///
    /// `on_change` is told every change of a condition, on a thread of its own, in the order of the changes; several at
    /// once if they have come up during its last call. A change of a target that has just been removed may still come.
    ///
    /// # Errors
    ///
    /// [`HealthError`]: a check that makes no sense, raw sockets without CAP_NET_RAW, no trusted certificates to verify by, or
    /// threads or sockets that the kernel refuses. That a backend does not answer is not an error.
    pub fn start(
        targets: Vec<Target>,
        on_change: impl Fn(&[Change]) + Send + 'static,
    ) -> Result<Self, HealthError> {
        let failed = |call| move |source| HealthError::System { call, source };
        let runtime = runtime::Builder::new_current_thread()
            .enable_io()
            .enable_time()
            .build()
            .map_err(failed("epoll_create or eventfd"))?;
        let handle = runtime.handle().clone();
        let (changes, told) = mpsc::channel();
        let shared = Arc::new(Shared {
            table: Mutex::new(Table {
                targets: BTreeMap::new(),
                changes: Some(changes),
                generation: 0,
                descriptors_allowed: 0,
            }),
            descriptors: Semaphore::new(0),
        });
        let resources = Resources::default();
        let commands = resources.commands();
        let mut health = Self {
            shared,
            resources: Mutex::new(resources),
            handle,
            epoch: Instant::now(),
            stop: None,
            checker: None,
            teller: None,
        };
        let teller = thread::Builder::new()
            .name("xfwd-health-tell".to_owned())
            .spawn(move || tell(&told, &on_change))
            .map_err(failed("starting the thread xfwd-health-tell"))?;
        health.teller = Some(teller);
        let (stop, stopped) = oneshot::channel();
        let shared = Arc::clone(&health.shared);
        let checker = thread::Builder::new()
            .name("xfwd-health".to_owned())
            .spawn(move || {
                runtime.block_on(async {
                    // Told to stop, or the sender is gone: the same.
                    let _ = stopped.await;
                    shared.abort_all();
                    commands.all_gone().await;
                });
            })
            .map_err(failed("starting the thread xfwd-health"))?;
        health.stop = Some(stop);
        health.checker = Some(checker);
        health.set_targets(targets)?;
        Ok(health)
    }

    /// Checks `targets` from now on. One with the id of an old one keeps its condition; it keeps its count of results too, and a check
    /// under way, if nothing about it has changed (its count even if only [`Target::path`] has). Others are unknown at first.
    ///
    /// # Errors
    ///
    /// As [`Self::start`]; the old targets then go on as before.
    pub fn set_targets(&self, targets: Vec<Target>) -> Result<(), HealthError> {
        let mut resources = self.resources.lock().unwrap_or_else(PoisonError::into_inner);
        let mut prepared = BTreeMap::new();
        {
            // Sockets register with the runtime.
            let _runtime = self.handle.enter();
            for target in targets {
                let probe = resources.prepare(&target)?;
                let id = target.id;
                if prepared.insert(id, (Arc::new(target), probe)).is_some() {
                    return Err(HealthError::TwiceTheSameId(id));
                }
            }
        }
        let most = prepared.values().map(|(_, probe)| probe.descriptors() as usize).sum();
        self.shared.allow_at_once(most);

        let now = Instant::now();
        let mut table = self.shared.lock();
        table.targets.retain(|id, watched| {
            let stays = prepared.contains_key(id);
            if !stays {
                watched.task.abort();
            }
            stays
        });
        for (id, (target, probe)) in prepared {
            let rhythm = Rhythm::new(self.epoch, id, target.check.interval);
            let (history, due) = match table.targets.entry(id) {
                Entry::Vacant(_) => (History::new(now), rhythm.first(now)),
                Entry::Occupied(old) => {
                    let old = old.get();
                    if old.target == target {
                        continue;
                    }
                    old.task.abort();
                    let same_but_path =
                        Target { path: old.target.path.clone(), ..Target::clone(&target) } == *old.target;
                    let history = if same_but_path { old.history.clone() } else { old.history.restarted() };
                    (history, rhythm.next(now))
                }
            };
            table.generation += 1;
            let generation = table.generation;
            let following =
                follow(Arc::clone(&self.shared), Arc::clone(&target), generation, probe, rhythm, due);
            let task = self.handle.spawn(following).abort_handle();
            table.targets.insert(id, Watched { target, generation, history, task });
        }
        Ok(())
    }

    /// What is known of every target, by ascending id.
    pub fn status(&self) -> Vec<Status> {
        self.shared.lock().targets.iter().map(|(id, watched)| watched.history.status(*id)).collect()
    }
}

impl Drop for Health {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            // Refused only if the thread has ended already.
            let _ = stop.send(());
        }
        join(self.checker.take());
        self.shared.lock().changes = None;
        join(self.teller.take());
    }
}

impl std::fmt::Debug for Health {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Health").field("targets", &self.shared.lock().targets.len()).finish_non_exhaustive()
    }
}

fn join(thread: Option<JoinHandle<()>>) {
    if let Some(thread) = thread
        // The closure may own what it is told by, and drop it: a thread cannot wait for itself.
        && thread.thread().id() != thread::current().id()
        && thread.join().is_err()
    {
        tracing::error!("a thread of the health checks had panicked");
    }
}

/// Calls the closure with all changes that wait, until nobody can send any more.
fn tell(told: &mpsc::Receiver<Change>, on_change: &impl Fn(&[Change])) {
    while let Ok(first) = told.recv() {
        let mut changes = vec![first];
        changes.extend(told.try_iter());
        on_change(&changes);
    }
}

/// What the checks and those who ask for their results share.
struct Shared {
    table: Mutex<Table>,
    /// Descriptors that checks may have open at the same time.
    descriptors: Semaphore,
}

struct Table {
    targets: BTreeMap<u64, Watched>,
    /// `None` once the checks are being stopped.
    changes: Option<mpsc::Sender<Change>>,
    generation: u64,
    /// Permits ever given to [`Shared::descriptors`].
    descriptors_allowed: usize,
}

struct Watched {
    target: Arc<Target>,
    /// Tells the results of this task from those of the one before, which may be under way when it is aborted.
    generation: u64,
    history: History,
    task: AbortHandle,
}

impl Shared {
    // What is changed under the lock is whole after every statement, so a panic elsewhere leaves it sound.
    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn abort_all(&self) {
        for watched in self.lock().targets.values() {
            watched.task.abort();
        }
    }

    /// Enters a result, and passes on what follows from it.
    fn take(&self, target: &Target, generation: u64, outcome: Outcome) {
        let mut table = self.lock();
        let table = &mut *table;
        let Some(watched) =
            table.targets.get_mut(&target.id).filter(|watched| watched.generation == generation)
        else {
            return;
        };
        let reason = outcome.reason.clone();
        let (rise, fall) = (target.check.rise, target.check.fall);
        let Some(from) = watched.history.take(outcome, rise, fall, Instant::now()) else {
            return;
        };
        let change = Change { id: target.id, from, to: watched.history.condition(), reason };
        if let Some(changes) = &table.changes {
            // The receiver lives as long as the sender, but for a closure that has panicked.
            let _ = changes.send(change);
        }
    }

    /// Makes room for `most` descriptors at once, as far as the kernel lets us.
    fn allow_at_once(&self, most: usize) {
        let allowed = match raise_limit(most + DESCRIPTORS_OF_OTHERS) {
            Ok(limit) => limit.saturating_sub(DESCRIPTORS_OF_OTHERS).max(FEWEST_AT_ONCE),
            Err(error) => {
                tracing::debug!("RLIMIT_NOFILE: {error}");
                FEWEST_AT_ONCE
            }
        };
        let mut table = self.lock();
        // Never taken back: a limit is not lowered.
        let more = allowed.saturating_sub(table.descriptors_allowed);
        table.descriptors_allowed += more;
        self.descriptors.add_permits(more);
    }
}

/// The soft limit of descriptors, raised if it is below `wanted` and the hard limit allows more.
fn raise_limit(wanted: usize) -> io::Result<usize> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    let wanted = wanted as u64;
    let limit = if soft < wanted && soft < hard {
        let raised = wanted.min(hard);
        setrlimit(Resource::RLIMIT_NOFILE, raised, hard)?;
        raised
    } else {
        soft
    };
    // More than the machine has addresses for cannot be open either.
    Ok(usize::try_from(limit).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS))
}

/// Checks one target until it is aborted.
async fn follow(
    shared: Arc<Shared>,
    target: Arc<Target>,
    generation: u64,
    probe: Probe,
    rhythm: Rhythm,
    mut due: Instant,
) {
    loop {
        sleep_until(due.into()).await;
        // Refused only when the semaphore is closed, which nobody does.
        let Ok(permits) = shared.descriptors.acquire_many(probe.descriptors()).await else {
            return;
        };
        let started = Instant::now();
        let answer = probe.run(started + target.check.timeout).await;
        drop(permits);
        let ended = Instant::now();
        let (good, reason) = match answer {
            Ok(reason) => (true, reason),
            Err(reason) => (false, reason),
        };
        let outcome = Outcome { good, reason, duration: ended.duration_since(started) };
        shared.take(&target, generation, outcome);
        due = rhythm.next(ended);
    }
}
