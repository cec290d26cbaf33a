//! The addresses and ports that sessions are made of, and what all workers know of them.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::sync::Arc;

use super::super::connections::Timeouts;
use super::index::Index;
use super::layout::{Layout, PoolError};
use super::table::Sessions;
use super::worker::NatWorker;

/// The pool of addresses and ports, with room for every session that these allow.
#[derive(Debug)]
pub struct NatPool {
    pub(super) sessions: Sessions,
    pub(super) index: Index,
}

impl NatPool {
    /// A pool of these addresses, each with all of these ports, shared equally by this many workers. All memory that
    /// sessions need is allocated here: 72 to 76 bytes for each, 16 more where one of the addresses is IPv6. An
    /// address with the ports 1024 to 65535 has 129,024 sessions (TCP and UDP): about 10 MB.
    ///
    /// What is left of the ports when they are divided by the workers is not used.
    ///
    /// # Errors
    ///
    /// [`PoolError`] says what is wrong with the addresses, or that the ports are too few for the workers.
    pub fn new(addresses: &[IpAddr], ports: RangeInclusive<u16>, workers: usize) -> Result<Self, PoolError> {
        let layout = Layout::new(addresses, ports, workers)?;
        let index = Index::new(workers, layout.sessions() as usize, random());
        Ok(Self { sessions: Sessions::new(layout), index })
    }

    /// How many sessions of one protocol and address a worker can have: its share of the ports.
    pub fn ports_per_worker(&self) -> usize {
        self.sessions.layout().slice() as usize
    }

    /// How many sessions all workers together can have.
    pub fn capacity(&self) -> usize {
        self.sessions.layout().sessions() as usize
    }

    /// The workers' sides, in order. The pool can be divided only once, so each session has one owner.
    pub fn workers(self, timeouts: Timeouts) -> Vec<NatWorker> {
        let pool = Arc::new(self);
        let count = pool.sessions.layout().workers();
        (0..count).map(|worker| NatWorker::new(Arc::clone(&pool), worker, timeouts)).collect()
    }
}

/// A number that nobody outside knows; another one with each call.
pub(super) fn random() -> u64 {
    RandomState::new().hash_one(0)
}
