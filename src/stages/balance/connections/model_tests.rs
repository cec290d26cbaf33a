//! The table beside a model of it: a map with the same rules, that never runs out of room.

use std::collections::HashMap;
use std::time::Duration;

use proptest::prelude::*;

use super::*;

const TIMEOUTS: Timeouts = Timeouts {
    syn: Duration::from_secs(2),
    established: Duration::from_secs(8),
    closing: Duration::from_secs(3),
    udp: Duration::from_secs(4),
};

#[derive(Clone, Copy, Debug)]
enum Step {
    /// A packet: looked up, and stored if it is not there.
    Packet {
        key: u64,
        event: Event,
        value: u32,
    },
    Replace {
        key: u64,
        value: u32,
    },
    Remove {
        key: u64,
    },
    Sweep {
        buckets: usize,
    },
    Wait {
        ticks: u32,
    },
}

/// Few keys that meet often, in few buckets.
fn key() -> impl Strategy<Value = u64> {
    (0..48u64).prop_map(|number| number.wrapping_mul(0x9e37_79b9_7f4a_7c15))
}

/// A flow has one protocol: every third key is UDP.
fn event(key: u64) -> impl Strategy<Value = Event> {
    let is_udp = key.is_multiple_of(3);
    prop_oneof![Just(Event::Syn), Just(Event::Data), Just(Event::Fin)]
        .prop_map(move |event| if is_udp { Event::Udp } else { event })
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => key().prop_flat_map(|key| (Just(key), event(key), any::<u32>()))
            .prop_map(|(key, event, value)| Step::Packet { key, event, value }),
        1 => (key(), any::<u32>()).prop_map(|(key, value)| Step::Replace { key, value }),
        1 => key().prop_map(|key| Step::Remove { key }),
        1 => (1..200usize).prop_map(|buckets| Step::Sweep { buckets }),
        2 => (0..600u32).prop_map(|ticks| Step::Wait { ticks }),
    ]
}

#[derive(Clone, Copy)]
struct Flow {
    value: u32,
    state: State,
    /// In ticks that do not come round.
    seen: u64,
}

impl Flow {
    fn is_live(&self, now: u64) -> bool {
        let lifetime = match self.state {
            State::New => TIMEOUTS.syn,
            State::Established => TIMEOUTS.established,
            State::Closing => TIMEOUTS.closing,
            State::NewUdp | State::Udp => TIMEOUTS.udp,
        };
        now - self.seen < lifetime.as_secs() * 64
    }
}

fn next(state: Option<State>, event: Event) -> State {
    match (state, event) {
        (None, Event::Udp) => State::NewUdp,
        (Some(State::NewUdp | State::Udp), _) => State::Udp,
        (None, _) | (Some(State::New | State::Closing), Event::Syn) => State::New,
        (_, Event::Fin) | (Some(State::Closing), _) => State::Closing,
        (Some(_), _) => State::Established,
    }
}

proptest! {
    #[test]
    fn the_table_does_what_a_map_with_the_same_rules_does(
        steps in proptest::collection::vec(step(), 1..400),
        start in prop_oneof![Just(0u32), Just((1 << 29) - 1_000), any::<u32>()],
    ) {
        let mut table = ConnectionTable::new(1_024, TIMEOUTS);
        let mut model: HashMap<u64, Flow> = HashMap::new();
        let mut elapsed = 0u64;
        for step in steps {
            let now = Tick::from_number(start.wrapping_add(elapsed as u32));
            match step {
                Step::Wait { ticks } => elapsed += u64::from(ticks),
                Step::Packet { key, event, value } => {
                    let known = model.get(&key).copied().filter(|flow| flow.is_live(elapsed));
                    let state = next(known.map(|flow| flow.state), event);
                    let found = table.find(key, now, event);
                    prop_assert_eq!(found.map(|found| found.value), known.map(|flow| flow.value));
                    let restarts = known.is_some_and(|flow| flow.state == State::Closing) && state == State::New;
                    prop_assert_eq!(found.is_some_and(|found| found.restarted), restarts);
                    let value = known.map_or(value, |flow| flow.value);
                    if known.is_none() {
                        let stored = table.insert(key, value, now, event);
                        prop_assert!(matches!(stored, Insertion::Stored { .. }), "there is room: {:?}", stored);
                    }
                    model.insert(key, Flow { value, state, seen: elapsed });
                }
                Step::Replace { key, value } => {
                    let known = model.get_mut(&key).filter(|flow| flow.is_live(elapsed));
                    let old = known.map(|flow| std::mem::replace(&mut flow.value, value));
                    prop_assert_eq!(table.replace(key, value, now), old);
                }
                Step::Remove { key } => {
                    let known = model.remove(&key);
                    let removed = table.remove(key);
                    match known {
                        Some(flow) if flow.is_live(elapsed) => prop_assert_eq!(removed, Some(flow.value)),
                        // Expired: swept already, or not.
                        Some(flow) => prop_assert!(removed.is_none_or(|value| value == flow.value)),
                        None => prop_assert_eq!(removed, None),
                    }
                }
                Step::Sweep { buckets } => {
                    let mut freed = Vec::new();
                    table.sweep(now, buckets, |value| freed.push(value));
                    for value in freed {
                        prop_assert!(model.values().any(|flow| flow.value == value && !flow.is_live(elapsed)));
                    }
                }
            }
            let now = Tick::from_number(start.wrapping_add(elapsed as u32));
            for (&key, flow) in &model {
                let expected = flow.is_live(elapsed).then_some((flow.value, flow.state));
                prop_assert_eq!(table.peek(key, now), expected);
            }
        }
        let now = Tick::from_number(start.wrapping_add(elapsed as u32));
        table.sweep(now, usize::MAX, |_| ());
        prop_assert_eq!(table.len(), model.values().filter(|flow| flow.is_live(elapsed)).count());
        let counters = table.counters();
        let gone = counters.expired.get() + counters.removed.get();
        prop_assert_eq!((counters.inserted.get(), counters.evicted.get()), (table.len() as u64 + gone, 0));
    }
}
