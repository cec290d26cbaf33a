//! Link-layer addresses of backends, learned from the kernel's neighbour table and kept fresh.
//!
//! AF_XDP sends whole Ethernet frames, so somebody must know the MAC address of every next hop. The kernel does: it
//! speaks ARP and neighbour discovery, probes, and ages. But it refreshes only entries that its own stack uses, and
//! our packets go past it. So for each wanted neighbour the watcher asks the kernel to *use* the entry (`NTF_USE`,
//! what `ip neigh add ADDRESS dev IF use` does) when it is missing, failed or stale, at once and again every
//! three seconds. Entries made that way are ordinary ones: the kernel ages and collects them when xfwd is gone.
//!
//! What a state of the kernel's entry means for the address that is told:
//!
//! | entry | address told | asked to resolve |
//! |---|---|---|
//! | REACHABLE, DELAY, PROBE | the entry's | no |
//! | STALE | the entry's | yes: the kernel probes it, and says REACHABLE or FAILED |
//! | PERMANENT, NOARP | the entry's | no |
//! | INCOMPLETE, no entry, or deleted | the last one | yes |
//! | FAILED | the last one for a second, then none | yes |
//!
//! So an entry that the garbage collector takes, or `ip neigh flush` (which passes through FAILED), does not interrupt
//! traffic; a backend that no longer answers is reported when the kernel has given it up, plus the grace.
//!
//! An `NTF_USE` request turns a PERMANENT entry into a dynamic one (seen on Linux 6.18). Hence a neighbour believed
//! missing is created with `NLM_F_EXCL`, which fails on any entry; and the kernel is asked only when all notifications
//! that wait have been read, so that an entry which has just been made PERMANENT is known to be.
//!
//! Source: `neigh_add` and `__neigh_update` in `net/core/neighbour.c`, arp(7).

#![forbid(unsafe_code)]

use std::{
    collections::BTreeMap,
    io,
    net::IpAddr,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState},
    route::RouteType,
};

use super::{
    netlink::Netlink,
    watch::{Notice, Subscription, Watch},
};

/// How often the kernel is asked again about a neighbour that it does not answer for. It sends three solicitations a
/// second apart before it gives up, so asking more often would change nothing.
const ASK_AGAIN_AFTER: Duration = Duration::from_secs(3);

/// How long the last address outlives FAILED. A flush resolves again within milliseconds; a backend that is gone was
/// already probed for some eight seconds (`delay_first_probe_time` and three probes).
const FAILED_GRACE: Duration = Duration::from_secs(1);

/// How often due requests and graces are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Why neighbours cannot be watched.
#[derive(Debug, thiserror::Error)]
#[error("{call}: {source}")]
pub struct NeighbourError {
    /// The netlink request.
    pub call: &'static str,
    /// What the kernel answered.
    pub source: io::Error,
}

/// A neighbour's link-layer address became known, changed, or was given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NeighbourChange {
    /// Index of the interface that the neighbour is on.
    pub interface: u32,
    /// The neighbour.
    pub address: IpAddr,
    /// Its MAC address now; `None` when it no longer answers.
    pub mac: Option<[u8; 6]>,
}

/// Follows the MAC addresses of some neighbours, on a thread of its own, until it is dropped. Nothing is left behind
/// in the kernel but entries that age by themselves.
pub struct NeighbourWatcher {
    missing: Arc<Missing>,
    _watch: Watch,
}

impl NeighbourWatcher {
    /// Starts to follow the neighbours `wanted`, each an interface's index and an address on its link. Another set of
    /// neighbours is another watcher.
    ///
    /// `on_change` is called for those already known before this returns, and from then on, on the watcher's thread,
    /// whenever a MAC address changes and only then. Dropping the watcher waits for it.
    ///
    /// # Errors
    ///
    /// [`NeighbourError`]. That a neighbour cannot be resolved, or its interface does not exist, is not an error:
    /// [`Self::wait_resolved`] tells.
    pub fn start(
        wanted: Vec<(u32, IpAddr)>,
        on_change: impl FnMut(NeighbourChange) + Send + 'static,
    ) -> Result<Self, NeighbourError> {
        let failed = |call| move |source| NeighbourError { call, source };
        let subscription =
            Subscription::new(&[libc::RTNLGRP_NEIGH]).map_err(failed("subscribing to RTNLGRP_NEIGH"))?;
        let netlink = Netlink::open().map_err(failed("socket(NETLINK_ROUTE)"))?;
        let missing = Arc::new(Missing::default());
        let mut follower =
            Follower { table: Table::new(wanted), netlink, missing: Arc::clone(&missing), on_change };
        follower.read_all().map_err(failed("RTM_GETNEIGH dump"))?;
        follower.act();
        let watch = Watch::start("xfwd-neighbour", subscription, Some(LOOK_EVERY), move |notice| {
            follower.notice(notice)
        })
        .map_err(failed("starting the thread xfwd-neighbour"))?;
        Ok(Self { missing, _watch: watch })
    }

    /// Waits until every neighbour has a MAC address, for at most `timeout`, and returns those that have none. With a
    /// zero timeout: those that have none now.
    ///
    /// The kernel gives up after about three seconds; a neighbour that is still missing then is reported, and
    /// followed all the same.
    #[must_use]
    pub fn wait_resolved(&self, timeout: Duration) -> Vec<(u32, IpAddr)> {
        let guard = self.missing.lock();
        let (guard, _) = self
            .missing
            .changed
            .wait_timeout_while(guard, timeout, |missing| !missing.is_empty())
            .unwrap_or_else(PoisonError::into_inner);
        guard.clone()
    }
}

/// The neighbours without an address, shared with those who wait for them.
#[derive(Default)]
struct Missing {
    neighbours: Mutex<Vec<(u32, IpAddr)>>,
    changed: Condvar,
}

impl Missing {
    // The list is replaced as a whole, so a panic elsewhere cannot leave it half-written.
    fn lock(&self) -> MutexGuard<'_, Vec<(u32, IpAddr)>> {
        self.neighbours.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Brings [`Table`] and the kernel together.
struct Follower<F> {
    table: Table,
    netlink: Netlink,
    missing: Arc<Missing>,
    on_change: F,
}

impl<F: FnMut(NeighbourChange)> Follower<F> {
    fn notice(&mut self, notice: Notice) {
        match notice {
            Notice::Message(RouteNetlinkMessage::NewNeighbour(message)) => {
                self.table.observe(&message, Instant::now())
            }
            Notice::Message(RouteNetlinkMessage::DelNeighbour(message)) => {
                self.table.observe_deleted(&message)
            }
            Notice::Message(_) => {}
            Notice::Settled => self.act(),
            Notice::Lost => self.read_again(),
        }
    }

    fn read_again(&mut self) {
        if let Err(error) = self.read_all() {
            tracing::error!("the neighbour table could not be read again (RTM_GETNEIGH dump): {error}");
        }
    }

    fn read_all(&mut self) -> io::Result<()> {
        let answers = self.netlink.dump(RouteNetlinkMessage::GetNeighbour(NeighbourMessage::default()))?;
        self.table.forget_states();
        for answer in answers {
            if let RouteNetlinkMessage::NewNeighbour(message) = answer {
                self.table.observe(&message, Instant::now());
            }
        }
        Ok(())
    }

    /// Tells what changed, and asks the kernel for what is due.
    fn act(&mut self) {
        let now = Instant::now();
        self.table.take_changes(now).into_iter().for_each(&mut self.on_change);
        let unresolved = self.table.unresolved();
        let mut missing = self.missing.lock();
        if *missing != unresolved {
            *missing = unresolved;
            self.missing.changed.notify_all();
        }
        drop(missing);
        for (key, ask) in self.table.take_due(now) {
            self.ask(key, ask);
        }
    }

    fn ask(&mut self, (interface, address): Key, ask: Ask) {
        let mut request = NeighbourMessage::default();
        request.header.family = match address {
            IpAddr::V4(_) => AddressFamily::Inet,
            IpAddr::V6(_) => AddressFamily::Inet6,
        };
        request.header.ifindex = interface;
        request.header.flags = NeighbourFlags::Use;
        request.header.kind = RouteType::Unicast;
        request.attributes.push(NeighbourAttribute::Destination(address.into()));
        let flags = match ask {
            Ask::Create => NLM_F_CREATE | NLM_F_EXCL,
            Ask::Use => 0,
        };
        match self.netlink.request(RouteNetlinkMessage::NewNeighbour(request), flags) {
            Ok(()) => {}
            // What we believed of the entry was out of date: look, and decide when all is read.
            Err(error) if matches!(error.raw_os_error(), Some(libc::EEXIST | libc::ENOENT)) => {
                self.read_again()
            }
            // The interface is down or gone, or has no IPv6: told by others, and asked again all the same.
            Err(error) => {
                tracing::debug!("RTM_NEWNEIGH (use) for {address} on interface #{interface}: {error}")
            }
        }
    }
}

type Key = (u32, IpAddr);

/// How to ask the kernel to resolve.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ask {
    /// There is no entry: create one, and fail if there is one after all.
    Create,
    /// There is a dynamic entry: use it.
    Use,
}

/// What is known of the wanted neighbours; no system call.
struct Table {
    neighbours: BTreeMap<Key, Neighbour>,
}

/// One wanted neighbour.
struct Neighbour {
    state: State,
    /// The last address seen, until it is given up.
    mac: Option<[u8; 6]>,
    /// The address that was told last.
    told: Option<[u8; 6]>,
    /// Since when the entry has failed, without an answer after.
    failed_since: Option<Instant>,
    /// Not asked before.
    ask_at: Option<Instant>,
}

/// The states of a kernel entry, as far as they are told apart here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Missing,
    Incomplete,
    /// REACHABLE, DELAY, PROBE, PERMANENT, NOARP: valid, and kept so by the kernel or the administrator.
    Fresh,
    Stale,
    Failed,
}

impl State {
    fn of(state: NeighbourState) -> Self {
        match state {
            NeighbourState::Reachable
            | NeighbourState::Delay
            | NeighbourState::Probe
            | NeighbourState::Permanent
            | NeighbourState::Noarp => Self::Fresh,
            NeighbourState::Stale => Self::Stale,
            NeighbourState::Failed => Self::Failed,
            _ => Self::Incomplete,
        }
    }

    fn ask(self) -> Option<Ask> {
        match self {
            Self::Missing => Some(Ask::Create),
            Self::Incomplete | Self::Stale | Self::Failed => Some(Ask::Use),
            Self::Fresh => None,
        }
    }
}

impl Table {
    fn new(wanted: Vec<Key>) -> Self {
        let neighbour =
            || Neighbour { state: State::Missing, mac: None, told: None, failed_since: None, ask_at: None };
        Self { neighbours: wanted.into_iter().map(|key| (key, neighbour())).collect() }
    }

    /// Before the whole table is read: an entry that does not appear in it is missing.
    fn forget_states(&mut self) {
        for neighbour in self.neighbours.values_mut() {
            neighbour.state = State::Missing;
        }
    }

    fn observe(&mut self, message: &NeighbourMessage, now: Instant) {
        let Some(neighbour) = self.wanted(message) else {
            return;
        };
        let before = neighbour.state;
        neighbour.state = State::of(message.header.state);
        match neighbour.state {
            State::Fresh | State::Stale => {
                if let Some(mac) = mac(message) {
                    neighbour.mac = Some(mac);
                    neighbour.failed_since = None;
                }
            }
            State::Failed => _ = neighbour.failed_since.get_or_insert(now),
            State::Incomplete | State::Missing => {}
        }
        // A new reason to ask does not wait for the period of the last one, except that an address which nobody
        // has would otherwise be asked for without a pause.
        if matches!(
            (before, neighbour.state),
            (State::Fresh, State::Stale | State::Failed) | (State::Stale, State::Failed)
        ) {
            neighbour.ask_at = None;
        }
    }

    fn observe_deleted(&mut self, message: &NeighbourMessage) {
        if let Some(neighbour) = self.wanted(message) {
            if neighbour.mac.is_some() {
                neighbour.ask_at = None;
            }
            neighbour.state = State::Missing;
        }
    }

    fn wanted(&mut self, message: &NeighbourMessage) -> Option<&mut Neighbour> {
        let address = message.attributes.iter().find_map(|attribute| match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(address)) => Some(IpAddr::from(*address)),
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(address)) => Some(IpAddr::from(*address)),
            _ => None,
        })?;
        // An entry to answer in the name of somebody else has no address of its own.
        if message.header.flags.contains(NeighbourFlags::Proxy) {
            return None;
        }
        self.neighbours.get_mut(&(message.header.ifindex, address))
    }

    /// The addresses that differ from what was told before.
    fn take_changes(&mut self, now: Instant) -> Vec<NeighbourChange> {
        let mut changes = Vec::new();
        for (&(interface, address), neighbour) in &mut self.neighbours {
            if neighbour.failed_since.is_some_and(|since| now.duration_since(since) >= FAILED_GRACE) {
                neighbour.mac = None;
            }
            if neighbour.mac != neighbour.told {
                neighbour.told = neighbour.mac;
                changes.push(NeighbourChange { interface, address, mac: neighbour.mac });
            }
        }
        changes
    }

    fn unresolved(&self) -> Vec<Key> {
        self.neighbours.iter().filter(|(_, neighbour)| neighbour.mac.is_none()).map(|(key, _)| *key).collect()
    }

    /// Whom to ask for now; each is due again after [`ASK_AGAIN_AFTER`].
    fn take_due(&mut self, now: Instant) -> Vec<(Key, Ask)> {
        let mut due = Vec::new();
        for (key, neighbour) in &mut self.neighbours {
            if let Some(ask) = neighbour.state.ask()
                && neighbour.ask_at.is_none_or(|at| now >= at)
            {
                neighbour.ask_at = Some(now + ASK_AGAIN_AFTER);
                // The kernel does not notify that an entry became INCOMPLETE.
                if neighbour.state == State::Missing {
                    neighbour.state = State::Incomplete;
                }
                due.push((*key, ask));
            }
        }
        due
    }
}

/// The link-layer address, if it is one of Ethernet.
fn mac(message: &NeighbourMessage) -> Option<[u8; 6]> {
    message.attributes.iter().find_map(|attribute| match attribute {
        NeighbourAttribute::LinkLayerAddress(bytes) => bytes.as_slice().try_into().ok(),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: [u8; 6] = [2, 0, 0, 0, 0, 0xa];
    const B: [u8; 6] = [2, 0, 0, 0, 0, 0xb];
    const KEY: Key = (7, IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 2)));

    fn entry(state: NeighbourState, mac: Option<[u8; 6]>) -> NeighbourMessage {
        let mut message = NeighbourMessage::default();
        message.header.ifindex = KEY.0;
        message.header.state = state;
        message.attributes.push(NeighbourAttribute::Destination(KEY.1.into()));
        message.attributes.extend(mac.map(|mac| NeighbourAttribute::LinkLayerAddress(mac.to_vec())));
        message
    }

    /// A table of one neighbour and a clock that stands still unless it is moved.
    struct Play {
        table: Table,
        now: Instant,
    }

    impl Play {
        fn new() -> Self {
            Self { table: Table::new(vec![KEY]), now: Instant::now() }
        }

        fn see(&mut self, state: NeighbourState, mac: Option<[u8; 6]>) {
            self.table.observe(&entry(state, mac), self.now);
        }

        fn pass(&mut self, time: Duration) {
            self.now += time;
        }

        fn told(&mut self) -> Vec<Option<[u8; 6]>> {
            self.table.take_changes(self.now).into_iter().map(|change| change.mac).collect()
        }

        fn asked(&mut self) -> Option<Ask> {
            self.table.take_due(self.now).first().map(|(_, ask)| *ask)
        }
    }

    #[test]
    fn unknown_neighbour_is_asked_for_at_once_and_then_every_few_seconds() {
        let mut play = Play::new();
        assert_eq!(play.asked(), Some(Ask::Create));
        assert_eq!(play.asked(), None);
        play.pass(ASK_AGAIN_AFTER);
        assert_eq!(play.asked(), Some(Ask::Use));
        assert_eq!(play.table.unresolved(), [KEY]);
    }

    #[test]
    fn address_is_told_once_until_it_changes() {
        let mut play = Play::new();
        play.see(NeighbourState::Reachable, Some(A));
        assert_eq!(play.told(), [Some(A)]);
        play.see(NeighbourState::Stale, Some(A));
        play.see(NeighbourState::Delay, Some(A));
        assert_eq!(play.told(), []);
        play.see(NeighbourState::Stale, Some(B));
        assert_eq!(play.told(), [Some(B)]);
        assert_eq!(play.table.unresolved(), []);
    }

    #[test]
    fn stale_entry_is_used_at_once_and_fresh_ones_are_left_alone() {
        let mut play = Play::new();
        assert_eq!(play.asked(), Some(Ask::Create));
        for state in [
            NeighbourState::Reachable,
            NeighbourState::Permanent,
            NeighbourState::Noarp,
            NeighbourState::Probe,
        ] {
            play.see(state, Some(A));
            play.pass(10 * ASK_AGAIN_AFTER);
            assert_eq!(play.asked(), None, "{state:?}");
        }
        play.see(NeighbourState::Stale, Some(A));
        assert_eq!(play.asked(), Some(Ask::Use));
    }

    #[test]
    fn collected_entry_keeps_its_address_and_is_created_again() {
        let mut play = Play::new();
        play.see(NeighbourState::Stale, Some(A));
        assert_eq!((play.told(), play.asked()), (vec![Some(A)], Some(Ask::Use)));
        play.table.observe_deleted(&entry(NeighbourState::Stale, Some(A)));
        assert_eq!(play.asked(), Some(Ask::Create));
        play.pass(10 * FAILED_GRACE);
        assert_eq!(play.told(), []);
    }

    #[test]
    fn flush_that_resolves_again_within_the_grace_is_not_told() {
        let mut play = Play::new();
        play.see(NeighbourState::Reachable, Some(A));
        assert_eq!(play.told(), [Some(A)]);
        play.see(NeighbourState::Failed, None);
        play.table.observe_deleted(&entry(NeighbourState::Failed, None));
        assert_eq!(play.asked(), Some(Ask::Create));
        play.pass(FAILED_GRACE / 2);
        play.see(NeighbourState::Reachable, Some(A));
        play.pass(10 * FAILED_GRACE);
        assert_eq!(play.told(), []);
    }

    #[test]
    fn neighbour_that_stays_failed_is_given_up_after_the_grace() {
        let mut play = Play::new();
        play.see(NeighbourState::Probe, Some(A));
        assert_eq!(play.told(), [Some(A)]);
        play.see(NeighbourState::Failed, None);
        assert_eq!((play.told(), play.asked()), (vec![], Some(Ask::Use)));
        // Asking again and failing again does not start the grace anew.
        play.pass(FAILED_GRACE / 2);
        play.see(NeighbourState::Failed, None);
        play.pass(FAILED_GRACE / 2);
        assert_eq!(play.told(), [None]);
        assert_eq!(play.table.unresolved(), [KEY]);
        play.see(NeighbourState::Reachable, Some(B));
        assert_eq!(play.told(), [Some(B)]);
    }

    #[test]
    fn address_that_never_answers_is_not_asked_for_without_a_pause() {
        let mut play = Play::new();
        assert_eq!(play.asked(), Some(Ask::Create));
        for _ in 0..5 {
            play.see(NeighbourState::Failed, None);
            assert_eq!(play.asked(), None);
            play.table.observe_deleted(&entry(NeighbourState::Failed, None));
            assert_eq!(play.asked(), None);
        }
        assert_eq!(play.told(), []);
    }

    #[test]
    fn others_entries_and_proxies_are_not_ours() {
        let mut play = Play::new();
        let mut other = entry(NeighbourState::Reachable, Some(A));
        other.header.ifindex += 1;
        play.table.observe(&other, play.now);
        let mut proxy = entry(NeighbourState::Permanent, Some(A));
        proxy.header.flags = NeighbourFlags::Proxy;
        play.table.observe(&proxy, play.now);
        assert_eq!(play.told(), []);
    }

    #[test]
    fn address_that_is_not_of_ethernet_is_not_used() {
        let mut play = Play::new();
        let mut message = entry(NeighbourState::Reachable, None);
        message.attributes.push(NeighbourAttribute::LinkLayerAddress(vec![1; 20]));
        play.table.observe(&message, play.now);
        assert_eq!(play.told(), []);
    }
}
