//! What is known of the wanted neighbours, whom to ask for, and when: no system call.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::{Duration, Instant},
};

use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};

use super::Key;
use crate::packet::MacAddress;

/// How often the kernel is asked again about a neighbour that it does not answer for. It sends three solicitations a
/// second apart before it gives up, so asking more often would change nothing.
const ASK_AGAIN_AFTER: Duration = Duration::from_secs(3);

/// How long the last address outlives FAILED. A flush resolves again within milliseconds; a backend that is gone was
/// already probed for some eight seconds (`delay_first_probe_time` and three probes).
const FAILED_GRACE: Duration = Duration::from_secs(1);

/// How long a neighbour that nobody asked for before may be silent until that is an answer too. One that is there
/// answers within milliseconds; whoever still has an older next hop can use it so long.
const ANSWER_PATIENCE: Duration = Duration::from_secs(1);

/// What is known of a neighbour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::kernel) enum Answer {
    /// Its MAC address.
    At(MacAddress),
    /// Not wanted for long enough to say.
    Asking,
    /// It does not answer.
    Silent,
}

/// How to ask the kernel to resolve.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ask {
    /// There is no entry: create one, and fail if there is one after all.
    Create,
    /// There is a dynamic entry: use it.
    Use,
}

/// What is known of the wanted neighbours; no system call.
#[derive(Default)]
pub(super) struct Table {
    neighbours: BTreeMap<Key, Neighbour>,
}

/// One wanted neighbour.
struct Neighbour {
    state: State,
    /// The last address seen, until it is given up.
    mac: Option<MacAddress>,
    wanted_since: Instant,
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
    /// `true`: some are new.
    pub(super) fn set_wanted(&mut self, wanted: &BTreeSet<Key>, now: Instant) -> bool {
        self.neighbours.retain(|key, _| wanted.contains(key));
        let kept = self.neighbours.len();
        for key in wanted {
            self.neighbours.entry(*key).or_insert(Neighbour {
                state: State::Missing,
                mac: None,
                wanted_since: now,
                failed_since: None,
                ask_at: None,
            });
        }
        self.neighbours.len() > kept
    }

    /// Before the whole table is read: an entry that does not appear in it is missing.
    pub(super) fn forget_states(&mut self) {
        for neighbour in self.neighbours.values_mut() {
            neighbour.state = State::Missing;
        }
    }

    pub(super) fn observe(&mut self, message: &NeighbourMessage, now: Instant) -> bool {
        let Some(neighbour) = self.wanted(message) else {
            return false;
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
        true
    }

    pub(super) fn observe_deleted(&mut self, message: &NeighbourMessage) -> bool {
        let Some(neighbour) = self.wanted(message) else {
            return false;
        };
        if neighbour.mac.is_some() {
            neighbour.ask_at = None;
        }
        neighbour.state = State::Missing;
        true
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

    pub(super) fn give_up(&mut self, now: Instant) -> bool {
        let mut any = false;
        for neighbour in self.neighbours.values_mut() {
            if neighbour.failed_since.is_some_and(|since| now.duration_since(since) >= FAILED_GRACE) {
                any |= neighbour.mac.take().is_some();
            }
        }
        any
    }

    pub(super) fn get(&self, key: Key, now: Instant) -> Answer {
        match self.neighbours.get(&key) {
            Some(Neighbour { mac: Some(mac), .. }) => Answer::At(*mac),
            Some(neighbour) if now.duration_since(neighbour.wanted_since) < ANSWER_PATIENCE => Answer::Asking,
            _ => Answer::Silent,
        }
    }

    /// Whom to ask for now; each is due again after [`ASK_AGAIN_AFTER`].
    pub(super) fn take_due(&mut self, now: Instant) -> Vec<(Key, Ask)> {
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
fn mac(message: &NeighbourMessage) -> Option<MacAddress> {
    message.attributes.iter().find_map(|attribute| match attribute {
        NeighbourAttribute::LinkLayerAddress(bytes) => bytes.as_slice().try_into().ok().map(MacAddress),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: MacAddress = MacAddress([2, 0, 0, 0, 0, 0xa]);
    const B: MacAddress = MacAddress([2, 0, 0, 0, 0, 0xb]);
    const KEY: Key = (7, IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 2)));

    fn entry(state: NeighbourState, mac: Option<MacAddress>) -> NeighbourMessage {
        let mut message = NeighbourMessage::default();
        message.header.ifindex = KEY.0;
        message.header.state = state;
        message.attributes.push(NeighbourAttribute::Destination(KEY.1.into()));
        message.attributes.extend(mac.map(|mac| NeighbourAttribute::LinkLayerAddress(mac.0.to_vec())));
        message
    }

    /// A table of one neighbour and a clock that stands still unless it is moved.
    struct Play {
        table: Table,
        now: Instant,
        told: Option<MacAddress>,
    }

    impl Play {
        fn new() -> Self {
            let (mut table, now) = (Table::default(), Instant::now());
            assert!(table.set_wanted(&BTreeSet::from([KEY]), now));
            Self { table, now, told: None }
        }

        fn see(&mut self, state: NeighbourState, mac: Option<MacAddress>) {
            self.table.observe(&entry(state, mac), self.now);
        }

        fn pass(&mut self, time: Duration) {
            self.now += time;
        }

        /// The address, if it is not the one that was told last.
        fn told(&mut self) -> Vec<Option<MacAddress>> {
            self.table.give_up(self.now);
            let mac = match self.table.get(KEY, self.now) {
                Answer::At(mac) => Some(mac),
                Answer::Asking | Answer::Silent => None,
            };
            let before = std::mem::replace(&mut self.told, mac);
            if before == mac { vec![] } else { vec![mac] }
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
        assert_eq!(play.table.get(KEY, play.now), Answer::Silent);
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
        assert_eq!(play.table.get(KEY, play.now), Answer::Silent);
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
    fn silence_is_an_answer_only_after_a_while() {
        let mut play = Play::new();
        assert_eq!(play.table.get(KEY, play.now), Answer::Asking);
        // What is in the kernel's table may be the outcome of a question of long ago.
        play.see(NeighbourState::Failed, None);
        assert_eq!(play.table.get(KEY, play.now), Answer::Asking);
        play.pass(ANSWER_PATIENCE);
        assert_eq!(play.table.get(KEY, play.now), Answer::Silent);
    }

    #[test]
    fn changing_the_set_keeps_what_stays() {
        let mut play = Play::new();
        play.see(NeighbourState::Reachable, Some(A));
        play.pass(10 * ANSWER_PATIENCE);
        let other = (KEY.0 + 1, KEY.1);
        assert!(play.table.set_wanted(&BTreeSet::from([KEY, other]), play.now));
        assert_eq!(play.table.get(KEY, play.now), Answer::At(A));
        assert_eq!(play.table.get(other, play.now), Answer::Asking);
        assert!(!play.table.set_wanted(&BTreeSet::from([other]), play.now));
        assert_eq!(play.table.get(KEY, play.now), Answer::Silent);
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
