//! A worker's side of NAT: opens, finds and closes sessions.

use std::sync::Arc;

use super::super::connections::{Tick, Timeouts};
use super::counters::NatCounters;
use super::free::FreeNumbers;
use super::layout::Class;
use super::pool::{NatPool, random};
use super::session::{Endpoint, Session, SessionId, destination, source};
use super::state::{Limits, State};
use super::table::Opening;
use crate::packet::protocol::TCP;
use crate::packet::{Embedded, FiveTuple};

/// How many sessions are looked at when none is free.
const LOOKS_UNDER_PRESSURE: u32 = 8;
/// 2 s: a session that was seen more recently is not taken from its flow. An answer takes less.
const MIN_IDLE_TICKS: u32 = 128;
/// How many sessions before it is opened the memory of one is asked for: as many as a worker opens while a cache line is on its way.
const OPENED_AHEAD: usize = 8;

/// The sessions as one worker sees them: it owns some and reads all.
#[derive(Debug)]
pub struct NatWorker {
    pool: Arc<NatPool>,
    worker: u32,
    /// By [`Class`].
    free: [FreeNumbers; Class::COUNT],
    /// Which of the own numbers are open: a bit for each, so that sweeping reads no closed session.
    open: Box<[u64]>,
    /// Where the sweep goes on: index into `open`.
    hand: usize,
    /// Where to look for one to evict: offset into the numbers of each class.
    victims: [u32; Class::COUNT],
    limits: Limits,
    counters: Arc<NatCounters>,
}

impl NatWorker {
    pub(super) fn new(pool: Arc<NatPool>, worker: u32, timeouts: Timeouts) -> Self {
        let layout = pool.sessions.layout();
        let free =
            std::array::from_fn(|class| FreeNumbers::new(layout.of_class(worker, Class(class)), random()));
        let open = vec![0; layout.of_worker(worker).len().div_ceil(64)].into();
        Self {
            pool,
            worker,
            free,
            open,
            hand: 0,
            victims: [0; Class::COUNT],
            limits: timeouts.into(),
            counters: Arc::default(),
        }
    }

    /// What this worker counts; to be kept by who shows it.
    pub fn counters(&self) -> &Arc<NatCounters> {
        &self.counters
    }

    /// Sets how long sessions live from now on.
    pub fn set_timeouts(&mut self, timeouts: Timeouts) {
        self.limits = timeouts.into();
    }

    /// Whether a packet to this address (IPv4 as IPv4-mapped) is for the pool: a reply, or an error about what was
    /// sent to a backend.
    #[inline]
    pub fn has_address(&self, address: &[u8; 16]) -> bool {
        self.pool.sessions.layout().has_address(address)
    }

    /// Opens a session for a flow from a client to a service: chooses an address and a port of the pool. `member` is
    /// kept in it and not looked at.
    ///
    /// When no port is free, one is taken from a session that has expired or, if there is none at hand, from one that
    /// is not in use: a connection that was not established or is over, a UDP flow that was never answered; idle for
    /// two seconds at least.
    ///
    /// A flow that has a session gets a second one here, which is what it then has; the first is left to its timeout.
    ///
    /// `None` when there is nothing to take either, which is counted, or when this cannot be translated: another
    /// protocol than TCP and UDP, or a backend of the other IP version.
    pub fn open(&mut self, now: Tick, flow: &FiveTuple, backend: Endpoint, member: u32) -> Option<SessionId> {
        let (client, service) = (source(flow), destination(flow));
        let class = Class::of(flow.protocol, client.is_ipv4())?;
        if service.is_ipv4() != client.is_ipv4() || backend.is_ipv4() != client.is_ipv4() {
            return None;
        }
        let id = match self.take(class, now) {
            Some(number) => SessionId(number),
            None => {
                self.counters.numbers().exhausted.add(1);
                return None;
            }
        };
        let numbers = self.counters.numbers();
        numbers.reused.add(u64::from(self.pool.sessions.was_used(id)));
        numbers.opened.add(1);
        numbers.open.add(1);
        let (protocol, state) = (flow.protocol, State::opened(flow.protocol == TCP));
        self.pool.sessions.open(id, &Opening { protocol, client, service, backend, member, state, now });
        self.pool.index.insert(self.worker, self.pool.index.hash(flow), id);
        let own = self.own(id);
        self.open[own / 64] |= 1 << (own % 64);
        Some(id)
    }

    /// The session with this number, if it is this flow's: what the connection table says may be out of date, or be
    /// about another flow of the same hash. One cache line is read for IPv4, two are for IPv6.
    #[inline]
    pub fn flow(&self, id: SessionId, flow: &FiveTuple) -> Option<Session> {
        self.pool.sessions.read(id).filter(|session| session.flow() == *flow)
    }

    /// Brings what [`flow`](Self::flow) reads of this number near.
    #[inline(always)]
    pub(in super::super) fn ask(&self, id: SessionId, is_ipv4: bool) {
        self.pool.sessions.ask(id, is_ipv4);
    }

    /// Brings the place near at which [`find_flow`](Self::find_flow) looks first.
    #[inline]
    pub(in super::super) fn ask_flow(&self, flow: &FiveTuple) {
        let index = &self.pool.index;
        index.ask(self.worker, index.hash(flow));
    }

    /// Brings what [`open`](Self::open) will write near for a flow that begins a little later, and says which number that one will
    /// probably get.
    #[inline]
    pub(in super::super) fn ask_next(&self, flow: &FiveTuple) -> Option<SessionId> {
        let is_ipv4 = source(flow).is_ipv4();
        let id = SessionId(self.free[Class::of(flow.protocol, is_ipv4)?.0].peek(OPENED_AHEAD)?);
        self.pool.sessions.ask(id, is_ipv4);
        self.pool.index.ask_link(id);
        Some(id)
    }

    /// The number of the session that a packet to the pool is a reply of, if it is of any.
    #[inline]
    pub(in super::super) fn number_of_reply(&self, reply: &FiveTuple) -> Option<SessionId> {
        self.pool.sessions.layout().number(reply.protocol, &destination(reply)).map(SessionId)
    }

    /// The session of a reply with this number.
    #[inline]
    pub(in super::super) fn reply(&self, id: SessionId, reply: &FiveTuple) -> Option<Session> {
        self.pool.sessions.read(id).filter(|session| session.backend == source(reply))
    }

    /// The session with this number, if it is open: for later fragments, which have no ports to verify it by.
    pub fn get(&self, id: SessionId) -> Option<Session> {
        self.pool.sessions.read(id)
    }

    /// The session of a flow from a client, whichever worker has opened it. Slower than [`flow`](Self::flow), as it
    /// asks one worker's table after the other, the own one first: for flows that the connection table does not know.
    pub fn find_flow(&self, flow: &FiveTuple) -> Option<Session> {
        let (sessions, index) = (&self.pool.sessions, &self.pool.index);
        let hash = index.hash(flow);
        let workers = sessions.layout().workers();
        (0..workers)
            .map(|offset| (self.worker + offset) % workers)
            .find_map(|worker| index.find(worker, hash, sessions, flow))
    }

    /// The session that a packet from a backend to the pool is a reply of, whichever worker has opened it. `None` also
    /// when it comes from anybody but the session's backend.
    #[inline]
    pub fn find_reply(&self, reply: &FiveTuple) -> Option<Session> {
        self.reply(self.number_of_reply(reply)?, reply)
    }

    /// The session of an ICMP error from a backend's side, about a packet that was sent to the backend.
    pub fn find_error_from_backend(&self, embedded: &Embedded) -> Option<Session> {
        self.find_reply(&embedded.flow())
    }

    /// The session of an ICMP error from a client's side, about a reply that was sent to the client.
    pub fn find_error_from_client(&self, embedded: &Embedded) -> Option<Session> {
        self.find_flow(&embedded.flow())
    }

    /// A packet from the client was seen; `tcp_flags` are 0 for UDP and for later fragments.
    #[inline]
    pub fn seen_from_client(&self, session: &Session, now: Tick, tcp_flags: u8) {
        let before = session.seen.state;
        if before.is_restarted_by(tcp_flags) {
            self.counters.numbers().restarted.add(1);
        }
        self.pool.sessions.mark(session, now, |state| state.after_client(tcp_flags));
    }

    /// A packet from the backend was seen; `tcp_flags` are 0 for UDP and for later fragments.
    #[inline]
    pub fn seen_from_backend(&self, session: &Session, now: Tick, tcp_flags: u8) {
        self.pool.sessions.mark(session, now, |state| state.after_backend(tcp_flags));
    }

    /// Ends a session, such as one whose backend has failed. `false` when it is not open or belongs to another worker,
    /// which then leaves it to its timeout.
    pub fn close(&mut self, id: SessionId) -> bool {
        let owned = self.pool.sessions.layout().of_worker(self.worker).contains(&id.0);
        let session = if owned { self.pool.sessions.read(id) } else { None };
        let Some(session) = session else { return false };
        self.release(&session);
        true
    }

    /// Closes what has expired among the next `count` numbers of this worker, rounded up to 64; returns how many
    /// sessions were. Only open ones are looked at, so an empty pool costs next to nothing.
    pub fn sweep(&mut self, now: Tick, count: usize) -> usize {
        let mut closed = 0;
        for _ in 0..count.div_ceil(64).min(self.open.len()) {
            let mut bits = self.open[self.hand];
            while bits != 0 {
                let own = self.hand * 64 + bits.trailing_zeros() as usize;
                bits &= bits - 1;
                closed += usize::from(self.expire(self.number(own), now));
            }
            self.hand = (self.hand + 1) % self.open.len();
        }
        closed
    }

    /// How many numbers this worker has: a sweep of so many looks at all.
    pub fn owned(&self) -> usize {
        self.pool.sessions.layout().of_worker(self.worker).len()
    }

    fn own(&self, id: SessionId) -> usize {
        (id.0 - self.pool.sessions.layout().of_worker(self.worker).start) as usize
    }

    fn number(&self, own: usize) -> SessionId {
        SessionId(self.pool.sessions.layout().of_worker(self.worker).start + own as u32)
    }

    /// Closes a session if it has expired.
    fn expire(&mut self, id: SessionId, now: Tick) -> bool {
        let seen = self.pool.sessions.seen(id);
        if now.since(seen.last) < seen.state.limit(&self.limits) {
            return false;
        }
        let Some(session) = self.pool.sessions.read(id) else { return false };
        self.counters.numbers().expired.add(1);
        self.release(&session);
        true
    }

    fn release(&mut self, session: &Session) {
        let (id, index) = (session.id, &self.pool.index);
        self.pool.sessions.close(id);
        index.remove(self.worker, index.hash(&session.flow()), id);
        let own = self.own(id);
        self.open[own / 64] &= !(1 << (own % 64));
        let open = &self.counters.numbers().open;
        open.set(open.get() - 1);
        if let Some(class) = Class::of(session.protocol, session.client.is_ipv4()) {
            self.free[class.0].put(id.0);
        }
    }

    #[inline]
    fn take(&mut self, class: Class, now: Tick) -> Option<u32> {
        if let Some(number) = self.free[class.0].take() {
            return Some(number);
        }
        self.make_room(class, now);
        self.free[class.0].take()
    }

    /// Closes at least one session of a class whose numbers are all open, if one of the next few may be.
    #[cold]
    fn make_room(&mut self, class: Class, now: Tick) {
        let numbers = self.pool.sessions.layout().of_class(self.worker, class);
        let count = numbers.len() as u32;
        let mut idlest: Option<(u32, SessionId)> = None;
        for _ in 0..LOOKS_UNDER_PRESSURE.min(count) {
            let id = SessionId(numbers.start + self.victims[class.0]);
            self.victims[class.0] = (self.victims[class.0] + 1) % count;
            if self.expire(id, now) {
                return;
            }
            let seen = self.pool.sessions.seen(id);
            let idle = now.since(seen.last);
            let may_go = idle >= MIN_IDLE_TICKS && !seen.state.is_in_use();
            if may_go && idlest.is_none_or(|(longest, _)| idle > longest) {
                idlest = Some((idle, id));
            }
        }
        if let Some(session) = idlest.and_then(|(_, id)| self.pool.sessions.read(id)) {
            self.counters.numbers().evicted.add(1);
            self.release(&session);
        }
    }
}

#[cfg(test)]
mod tests;
