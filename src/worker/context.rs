//! What a stage is told when it is made: which worker it is for, what that worker has, and where to count.

use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::sync::{Arc, Mutex, PoisonError};

use crossbeam::utils::CachePadded;

use crate::kernel::deny::DenyList;
use crate::packet::MacAddress;
use crate::pipeline::{Counter, PortIndex};

/// Counters that stages of the caller's own keep: each worker has its own, and those of a name are read as one sum.
/// Clones are the same counters.
#[derive(Clone, Default)]
pub struct Counters(Arc<Mutex<Vec<Registered>>>);

struct Registered {
    name: String,
    counter: Arc<CachePadded<Counter>>,
}

impl Counters {
    /// One more counter of this name.
    pub fn counter(&self, name: impl Into<String>) -> StageCounter {
        let counter = Arc::<CachePadded<Counter>>::default();
        let registered = Registered { name: name.into(), counter: Arc::clone(&counter) };
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(registered);
        StageCounter { counter, one_writer: PhantomData }
    }

    /// The sum by name, as it is now.
    pub fn sums(&self) -> BTreeMap<String, u64> {
        let mut sums = BTreeMap::new();
        for Registered { name, counter } in self.0.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            *sums.entry(name.clone()).or_default() += counter.get();
        }
        sums
    }
}

/// A counter of one stage in one worker, on a cache line of its own. Counting costs what adding to a plain number costs.
///
/// It can be sent to another thread but not shared: there is one writer, as [`Counter`] needs it.
///
/// ```compile_fail
/// fn shared<T: Sync>() {}
/// shared::<xfwd::StageCounter>();
/// ```
pub struct StageCounter {
    counter: Arc<CachePadded<Counter>>,
    one_writer: PhantomData<std::cell::Cell<()>>,
}

impl StageCounter {
    /// Adds to the number.
    #[inline(always)]
    pub fn add(&self, count: u64) {
        self.counter.add(count);
    }

    /// The number of this worker as it is now.
    pub fn get(&self) -> u64 {
        self.counter.get()
    }
}

/// A port of a worker: which interface it is on.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// Its MAC address.
    pub mac: MacAddress,
    /// Its MTU in bytes, when the run started.
    pub mtu: u32,
}

impl Interface {
    /// An interface.
    pub fn new(name: impl Into<String>, mac: MacAddress, mtu: u32) -> Self {
        Self { name: name.into(), mac, mtu }
    }
}

/// What a stage is told when it is made, once for each worker.
#[derive(Clone)]
pub struct WorkerContext {
    worker: usize,
    workers: usize,
    interfaces: Arc<[Interface]>,
    counters: Counters,
    deny: DenyList,
}

impl WorkerContext {
    /// That of worker `worker` of `workers`, which has these interfaces. Its [deny list](Self::deny_list) is that of no
    /// run until [`with_deny_list`](Self::with_deny_list) gives it one.
    ///
    /// # Panics
    ///
    /// When `worker` is not less than `workers`.
    pub fn new(worker: usize, workers: usize, interfaces: impl Into<Arc<[Interface]>>) -> Self {
        assert!(worker < workers, "workers are numbered from 0");
        let (interfaces, deny) = (interfaces.into(), DenyList::detached());
        Self { worker, workers, interfaces, counters: Counters::default(), deny }
    }

    /// The same, counting in `counters`.
    pub fn with_counters(self, counters: Counters) -> Self {
        Self { counters, ..self }
    }

    /// The same, with this deny list.
    pub fn with_deny_list(self, deny: DenyList) -> Self {
        Self { deny, ..self }
    }

    /// Number of the worker, from 0: the queue that it serves.
    pub fn worker(&self) -> usize {
        self.worker
    }

    /// How many workers there are.
    pub fn workers(&self) -> usize {
        self.workers
    }

    /// The interfaces, by [`PortIndex`].
    pub fn interfaces(&self) -> &[Interface] {
        &self.interfaces
    }

    /// The port on the interface of this name, if the run has it.
    pub fn port(&self, interface: &str) -> Option<PortIndex> {
        let index = self.interfaces.iter().position(|known| known.name == interface)?;
        PortIndex::try_from(index).ok()
    }

    /// A counter for the stage. Those of the same name are shown as one sum over all workers:
    /// [`Snapshot::counters`](crate::runtime::Snapshot::counters).
    pub fn counter(&self, name: impl Into<String>) -> StageCounter {
        self.counters.counter(name)
    }

    /// The counters themselves.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// The dynamic deny list of the run. Clones are the same list.
    pub fn deny_list(&self) -> &DenyList {
        &self.deny
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_of_one_name_are_read_as_one_sum() {
        let counters = Counters::default();
        let of = |worker| WorkerContext::new(worker, 2, []).with_counters(counters.clone());
        let (first, second) = (of(0).counter("echoed"), of(1).counter("echoed"));
        let other = of(1).counter("refused");
        first.add(2);
        second.add(40);
        assert_eq!(counters.sums(), BTreeMap::from([("echoed".to_owned(), 42), ("refused".to_owned(), 0)]));
        assert_eq!((first.get(), other.get()), (2, 0));
    }

    #[test]
    fn what_a_stage_that_is_gone_has_counted_stays() {
        let context = WorkerContext::new(0, 1, []);
        context.counter("echoed").add(7);
        assert_eq!(context.counters().sums()["echoed"], 7);
    }

    #[test]
    fn ports_are_found_by_the_name_of_their_interface() {
        let interface = |name: &str| Interface::new(name, MacAddress([2; 6]), 1_500);
        let context = WorkerContext::new(0, 1, [interface("eth0"), interface("eth1")]);
        assert_eq!((context.port("eth1"), context.port("eth2")), (Some(1), None));
    }
}
