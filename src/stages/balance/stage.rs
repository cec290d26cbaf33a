//! The hot path of balancing: what one worker does with its packets.
//!
//! A packet is gone through twice: first its flow is found ([`look`](super::look)) and its places in the connection table are asked for;
//! it is judged when some more packets were looked at, and those cache lines are near. One by one: a core has room for a dozen or
//! two of cache lines on their way, and a batch of flows that nobody has seen for a while asks for 128. For `nat` what the connection table
//! has is a session, which is somewhere else again: such a packet is looked at once more in between ([`approach`](Balance::approach)).

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use crossbeam::utils::CachePadded;

use super::answers::{AnswerCounters, Answerer};
use super::connections::{Clock, ConnectionCounters, ConnectionTable, Tick};
use super::control::{Mailbox, Settings};
use super::fragments::{DEFAULT_CAPACITY, FragmentCounters, FragmentTable};
use super::last_hop::LastHops;
use super::look::{Kind, Looked};
use super::nat::{NatCounters, NatWorker, SessionId};
use super::state::WorkerState;
use super::way::Identification;
use crate::packet::HashKey;
use crate::pipeline::{BATCH_SIZE, Batch, Counter, PortIndex, Stage, Verdict};

/// Buckets of the connection table that are looked at in a sweep. With a sweep every 64th of a second, a table for a million flows
/// is gone through in about ten seconds.
const SWEPT_BUCKETS: usize = 512;
/// Sessions that are looked at in a sweep.
const SWEPT_SESSIONS: usize = 512;

/// How many packets are looked at before the first one is judged.
const AHEAD: usize = 16;
/// How far ahead packets of `nat` are looked at for the second time.
const NEAR: usize = 8;

/// The stage: one instance a worker.
pub struct Balance {
    pub(super) worker: usize,
    pub(super) state: WorkerState,
    mailbox: Mailbox,
    pub(super) counters: Arc<StageCounters>,
    pub(super) connections: ConnectionTable,
    pub(super) fragments: FragmentTable,
    pub(super) nat: Option<Nat>,
    pub(super) answers: Answerer,
    pub(super) identification: Identification,
    /// Secret, so that nobody can send flows that meet in one place of the tables.
    pub(super) seed: u64,
    /// Of `seed`, for flows.
    pub(super) flow_key: HashKey,
    clock: Clock,
    /// Of the batch at hand, as the next two.
    pub(super) now: Tick,
    pub(super) instant: Instant,
    pub(super) port: PortIndex,
    swept: Tick,
    /// Since housekeeping last.
    has_processed: bool,
    pub(super) looked: Box<[Looked; BATCH_SIZE]>,
    /// Packets that are to be looked at once more before they are judged, a bit for each.
    pub(super) to_approach: u64,
}

const _: () = assert!(BATCH_SIZE <= u64::BITS as usize);

/// What `nat` needs besides.
#[derive(Debug)]
pub(super) struct Nat {
    pub sessions: NatWorker,
    pub last_hops: Arc<LastHops>,
}

/// What a stage counts besides backends.
#[derive(Debug, Default)]
pub struct StageCounters {
    /// Of the connection table.
    pub connections: OnceLock<Arc<CachePadded<ConnectionCounters>>>,
    /// Of the fragment table.
    pub fragments: OnceLock<Arc<FragmentCounters>>,
    /// Of NAT, if there is any.
    pub nat: OnceLock<Arc<NatCounters>>,
    /// What was answered.
    pub answers: AnswerCounters,
    /// Packets from backends that were translated back.
    pub replies: Counter,
}

impl Balance {
    pub(super) fn new(
        worker: usize,
        state: WorkerState,
        mailbox: Mailbox,
        counters: Arc<StageCounters>,
        settings: &Settings,
        nat: Option<Nat>,
    ) -> Self {
        let connections = ConnectionTable::new(settings.connections, settings.timeouts);
        let fragments = FragmentTable::new(DEFAULT_CAPACITY);
        // Each is set once, here.
        _ = counters.connections.set(Arc::clone(connections.counters()));
        _ = counters.fragments.set(Arc::clone(fragments.counters()));
        if let Some(nat) = &nat {
            _ = counters.nat.set(Arc::clone(nat.sessions.counters()));
        }
        let clock = Clock::new(settings.epoch);
        let instant = Instant::now();
        let seed = RandomState::new().hash_one(worker);
        Self {
            worker,
            state,
            mailbox,
            connections,
            fragments,
            nat,
            answers: Answerer::new(settings.answers_per_second),
            counters,
            identification: Identification::new(worker as u16, settings.workers as u16),
            seed,
            flow_key: HashKey::new(seed),
            now: clock.tick(instant),
            swept: clock.tick(instant),
            instant,
            clock,
            has_processed: false,
            port: 0,
            looked: Box::new([Looked::default(); BATCH_SIZE]),
            to_approach: 0,
        }
    }
}

impl Stage for Balance {
    fn name(&self) -> &str {
        "balance"
    }

    fn process(&mut self, batch: &mut Batch<'_>) {
        self.instant = batch.now();
        self.now = self.clock.tick(self.instant);
        self.port = batch.port();
        self.has_processed = true;
        // Held here, since `self` is changed meanwhile.
        let state = Arc::clone(&self.state);
        let (mut to_look_at, mut to_judge) = (batch.undecided(), batch.undecided());
        let mut ahead = 0;
        loop {
            if let Some(index) = to_look_at.next() {
                self.look(&state, index, batch.packet(index));
                ahead += 1;
                if ahead <= AHEAD {
                    continue;
                }
            }
            let Some(index) = to_judge.next() else { break };
            while self.to_approach != 0 && (self.to_approach.trailing_zeros() as usize) < index + NEAR {
                let near = self.to_approach.trailing_zeros() as usize;
                self.to_approach &= self.to_approach - 1;
                self.approach(near, batch.packet(near));
            }
            let Looked { kind, number, asked } = self.looked[index];
            let packet = batch.packet_mut(index);
            let verdict = match kind {
                Kind::Flow => self.flow(&state, packet, number, asked),
                Kind::Nothing => continue,
                Kind::NatFlow => self.nat_flow(packet, number, asked),
                Kind::Reply => self.reply(packet, SessionId(number)),
                Kind::Fragment => self.fragment(packet),
                Kind::Icmp => self.icmp(packet),
            };
            batch.decide(index, verdict);
        }
    }

    fn housekeeping(&mut self) {
        if let Some(news) = self.mailbox.news.pop() {
            let used = std::mem::replace(&mut self.state, news);
            if !Arc::ptr_eq(&used.lookup, &self.state.lookup) {
                // It names services by their place.
                self.fragments.clear();
            }
            // To be freed elsewhere. There is room, as the queue is emptied before there are news.
            _ = self.mailbox.used.push(used);
        }
        // Without packets nobody has looked at the clock.
        if !std::mem::take(&mut self.has_processed) {
            self.now = self.clock.tick(Instant::now());
        }
        if self.now.since(self.swept) > 0 {
            self.swept = self.now;
            self.connections.sweep(self.now, SWEPT_BUCKETS, |_| ());
            if let Some(nat) = &mut self.nat {
                nat.sessions.sweep(self.now, SWEPT_SESSIONS);
            }
        }
    }
}

impl Balance {
    /// The verdict that sends a packet out of a port.
    #[inline(always)]
    pub(super) fn out_of(&self, port: PortIndex) -> Verdict {
        if port == self.port { Verdict::Bounce } else { Verdict::Forward(port) }
    }
}
