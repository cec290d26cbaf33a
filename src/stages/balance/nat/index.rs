//! Which session a client's flow has: for what comes in where the worker's own connection table cannot help.
//!
//! An ICMP error about a reply, say "packet too big" from a router near the client, reaches any worker: the NIC
//! cannot know which flow it is about. The same holds when queues are steered anew while connections live. So each
//! worker keeps a hash table of the flows that it has opened, which it alone writes and all workers read.
//!
//! The chains of the table are linked by session number. An entry that is taken out of a chain keeps its own link, so a
//! reader that stands on it goes on; when it is put into another chain at that moment, the reader ends up there. It
//! may then miss what it looks for (the packet is treated as one of an unknown flow) but never takes a wrong session, since
//! each is held against the flow. Readers give up after [`MAX_STEPS`], so none runs in circles.
//!
//! The hash has a secret seed: no sender can make a long chain.

use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use super::session::{Session, SessionId};
use super::table::Sessions;
use crate::hints::{huge_array, prefetch};
use crate::packet::FiveTuple;

/// With one entry a chain on average, longer chains do not occur.
const MAX_STEPS: usize = 64;
/// The end of a chain.
const NONE: u32 = u32::MAX;

/// The tables of all workers.
#[derive(Debug)]
pub(super) struct Index {
    /// For each worker as many heads of chains, a power of two.
    heads: Box<[AtomicU32]>,
    heads_of_worker: usize,
    /// For each session number the next one in its chain.
    links: Box<[AtomicU32]>,
    seed: u64,
}

impl Index {
    pub(super) fn new(workers: usize, sessions: usize, seed: u64) -> Self {
        let heads_of_worker = (sessions / workers).next_power_of_two();
        let empty = |count| huge_array(count, || AtomicU32::new(NONE));
        Self { heads: empty(workers * heads_of_worker), heads_of_worker, links: empty(sessions), seed }
    }

    #[inline]
    pub(super) fn hash(&self, flow: &FiveTuple) -> u64 {
        flow.keyed_hash(self.seed)
    }

    #[inline]
    fn head(&self, worker: u32, hash: u64) -> &AtomicU32 {
        let place = hash as usize & (self.heads_of_worker - 1);
        &self.heads[worker as usize * self.heads_of_worker + place]
    }

    /// Brings the place near at which this worker looks for a flow first.
    #[inline]
    pub(super) fn ask(&self, worker: u32, hash: u64) {
        prefetch(self.head(worker, hash));
    }

    /// Brings the place near that a session takes when it is put in.
    #[inline]
    pub(super) fn ask_link(&self, id: SessionId) {
        prefetch(self.link(id));
    }

    #[inline]
    fn link(&self, id: SessionId) -> &AtomicU32 {
        &self.links[id.0 as usize]
    }

    /// Puts a session in. For the worker itself.
    pub(super) fn insert(&self, worker: u32, hash: u64, id: SessionId) {
        let head = self.head(worker, hash);
        self.link(id).store(head.load(Relaxed), Release);
        head.store(id.0, Release);
    }

    /// Takes a session out. For the worker itself.
    pub(super) fn remove(&self, worker: u32, hash: u64, id: SessionId) {
        let mut place = self.head(worker, hash);
        loop {
            let found = place.load(Relaxed);
            if found == NONE {
                return;
            }
            if found == id.0 {
                place.store(self.link(id).load(Relaxed), Release);
                return;
            }
            place = self.link(SessionId(found));
        }
    }

    /// The session that this worker has opened for a flow. For any worker.
    pub(super) fn find(
        &self,
        worker: u32,
        hash: u64,
        sessions: &Sessions,
        flow: &FiveTuple,
    ) -> Option<Session> {
        let mut at = self.head(worker, hash).load(Acquire);
        for _ in 0..MAX_STEPS {
            if at == NONE {
                return None;
            }
            let id = SessionId(at);
            if let Some(session) = sessions.read(id).filter(|session| session.flow() == *flow) {
                return Some(session);
            }
            at = self.link(id).load(Acquire);
        }
        None
    }
}
