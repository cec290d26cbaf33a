//! The Maglev tables of many services: of services that share their backends there is one, and the others are built side by side.
//!
//! A table takes half a millisecond or longer to build, so a thousand of them would be what a start or a reload consists of. Many
//! services have the same backends, such as the ports of one machine; they share a table, which also saves memory, and cache lines of the
//! workers.

use std::collections::HashMap;
use std::net::IpAddr;
use std::num::NonZero;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::thread;

use super::choose;
use super::maglev::{Table, TableError};

/// All that a table depends on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Blueprint {
    /// Address and weight, in the order of the table's indices.
    pub backends: Vec<(IpAddr, u32)>,
    /// Number of slots.
    pub size: u32,
}

/// A table, or why there is none.
pub(super) type Built = Result<Arc<Table>, TableError>;

impl Blueprint {
    fn build(&self) -> Built {
        choose::table(self.backends.iter().copied(), self.size).map(Arc::new)
    }
}

/// The tables for all that is `wanted`, in the same order. What is `known` is not built again.
pub(super) fn build(
    wanted: &[Blueprint],
    known: &HashMap<&Blueprint, &Arc<Table>>,
    threads: usize,
) -> Vec<Built> {
    // Each once, and where its result will be.
    let mut places: HashMap<&Blueprint, usize> = HashMap::new();
    let mut missing: Vec<&Blueprint> = Vec::new();
    for blueprint in wanted.iter().filter(|blueprint| !known.contains_key(blueprint)) {
        places.entry(blueprint).or_insert_with(|| {
            missing.push(blueprint);
            missing.len() - 1
        });
    }
    let built = build_all(&missing, threads);
    let table = |blueprint: &Blueprint| match known.get(blueprint) {
        Some(table) => Ok(Arc::clone(table)),
        None => built[places[blueprint]].clone(),
    };
    wanted.iter().map(table).collect()
}

/// Builds all of them on so many threads, this one among them.
fn build_all(missing: &[&Blueprint], threads: usize) -> Vec<Built> {
    let results: Vec<OnceLock<Built>> = missing.iter().map(|_| OnceLock::new()).collect();
    let next = AtomicUsize::new(0);
    let work = || {
        while let Some((blueprint, result)) = {
            let index = next.fetch_add(1, Relaxed);
            missing.get(index).zip(results.get(index))
        } {
            // Nobody else has this index.
            let _ = result.set(blueprint.build());
        }
    };
    thread::scope(|scope| {
        for _ in 1..threads.min(missing.len()) {
            // Without a thread more the others have more to do.
            let helper = thread::Builder::new().name("xfwd-tables".to_owned()).spawn_scoped(scope, work);
            if let Err(error) = helper {
                tracing::debug!("a thread to build Maglev tables: {error}");
            }
        }
        work();
    });
    let built = |(result, blueprint): (OnceLock<Built>, &&Blueprint)| {
        result.into_inner().unwrap_or_else(|| blueprint.build())
    };
    results.into_iter().zip(missing).map(built).collect()
}

/// Threads that may build tables while so many `workers` are running, one to a core: they keep theirs.
pub(super) fn threads_beside(workers: usize) -> usize {
    let cores = thread::available_parallelism().map_or(1, NonZero::get);
    cores.saturating_sub(workers).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blueprint(first: u8, weight: u32) -> Blueprint {
        let backends = (first..first + 3).map(|last| (IpAddr::from([198, 18, 0, last]), weight));
        Blueprint { backends: backends.collect(), size: 251 }
    }

    #[test]
    fn services_with_the_same_backends_share_a_table() {
        let wanted = [blueprint(1, 1), blueprint(2, 1), blueprint(1, 1), blueprint(1, 2)];
        let tables: Vec<Arc<Table>> =
            build(&wanted, &HashMap::new(), 2).into_iter().map(Result::unwrap).collect();
        assert!(Arc::ptr_eq(&tables[0], &tables[2]));
        for other in [1, 3] {
            assert!(!Arc::ptr_eq(&tables[0], &tables[other]));
        }
        for (table, blueprint) in tables.iter().zip(&wanted) {
            assert_eq!(*table, blueprint.build().unwrap());
        }
    }

    #[test]
    fn a_table_that_is_known_is_not_built_again() {
        let one = blueprint(1, 1);
        let table = one.build().unwrap();
        let known = HashMap::from([(&one, &table)]);
        let built = build(&[blueprint(2, 1), one.clone()], &known, 1);
        assert!(Arc::ptr_eq(built[1].as_ref().unwrap(), &table));
    }

    #[test]
    fn any_number_of_threads_builds_the_same_tables() {
        let wanted: Vec<Blueprint> = (0..40).map(|index| blueprint(index, u32::from(index) % 4)).collect();
        let one = build(&wanted, &HashMap::new(), 1);
        assert_eq!(one[4], Err(TableError::NoWeight));
        for threads in [2, 7, 100] {
            assert_eq!(build(&wanted, &HashMap::new(), threads), one);
        }
    }

    #[test]
    fn there_is_a_thread_even_if_every_core_has_a_worker() {
        assert_eq!(threads_beside(usize::MAX), 1);
        assert!(threads_beside(0) >= 1);
    }
}
