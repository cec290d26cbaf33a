//! Floods, and how full a table gets.

use super::*;
use crate::packet::FiveTuple;
use crate::packet::protocol::TCP;

const SEED: u64 = 0x0123_4567_89ab_cdef;

/// The key of the flow with this number: from one client each, as real flows come.
fn key(flow: u32) -> u64 {
    let mut src = [0; 16];
    src[12..].copy_from_slice(&flow.to_be_bytes());
    FiveTuple { src, dst: [1; 16], src_port: 40_000, dst_port: 443, protocol: TCP }.keyed_hash(SEED)
}

/// What the counters say about each other.
fn check_sums(table: &ConnectionTable) {
    let counters = table.counters();
    let gone = counters.expired.get() + counters.evicted.get() + counters.removed.get();
    assert_eq!(counters.inserted.get(), table.len() as u64 + gone);
}

/// Two packets of a flow. Whether it is in the table then.
fn establish(table: &mut ConnectionTable, flow: u32, now: Tick) -> bool {
    let stored = matches!(table.insert(key(flow), flow, now, Event::Syn), Insertion::Stored { .. });
    stored && table.find(key(flow), now, Event::Data).is_some()
}

#[test]
fn a_syn_flood_costs_no_established_connection_its_entry() {
    const ESTABLISHED: u32 = 100_000;
    const FLOOD: u32 = 5_000_000;
    let mut table = ConnectionTable::new(1 << 18, Timeouts::default());
    let start = Tick::from_number(0);
    assert!((0..ESTABLISHED).all(|flow| establish(&mut table, flow, start)));

    // A million a second, so every tick has 15,625; the whole takes five seconds.
    let mut refused = 0;
    for flow in 0..FLOOD {
        let now = start.after(flow / 15_625);
        refused += u64::from(table.insert(key(ESTABLISHED + flow), 0, now, Event::Syn) == Insertion::Refused);
    }
    let now = start.after(FLOOD / 15_625);
    for flow in 0..ESTABLISHED {
        assert_eq!(table.find(key(flow), now, Event::Data).map(|found| found.value), Some(flow));
    }
    check_sums(&table);
    let counters = table.counters();
    assert_eq!(counters.promoted.get(), u64::from(ESTABLISHED));
    assert_eq!(counters.inserted.get() + refused, u64::from(ESTABLISHED + FLOOD));
    assert_eq!(counters.refused.get(), refused);
    assert!(table.len() > table.capacity() * 99 / 100, "the flood took what was free: {}", table.len());

    // A minute later the flood is gone.
    let (before, mut freed) = (table.len(), 0);
    table.sweep(now.after(60 * 64), usize::MAX, |_| freed += 1);
    assert_eq!((table.len(), freed), (ESTABLISHED as usize, before - ESTABLISHED as usize));
    check_sums(&table);
}

/// In between the handshakes of real clients: the answer to the SYN comes back after a round trip.
#[test]
fn handshakes_come_through_a_syn_flood() {
    let mut table = ConnectionTable::new(1 << 16, Timeouts::default());
    let (mut flood, mut through, mut clients) = (1_000_000, 0, 0);
    for client in 0..2_000 {
        // 20 SYNs of the flood for one of a client; its next packet comes ten clients later, a table has room for thousands.
        let now = Tick::from_number(client / 10);
        table.insert(key(client), client, now, Event::Syn);
        for _ in 0..20 {
            flood += 1;
            table.insert(key(flood), 0, now, Event::Syn);
        }
        if let Some(earlier) = client.checked_sub(10) {
            clients += 1;
            through += u32::from(table.find(key(earlier), now, Event::Data).is_some());
        }
    }
    assert_eq!(through, clients);
}

#[test]
fn a_table_is_about_nine_tenths_full_before_it_refuses_a_flow() {
    for capacity in [1 << 12, 1 << 18] {
        let mut table = ConnectionTable::new(capacity, Timeouts::default());
        let now = Tick::from_number(0);
        let mut flow = 0;
        while establish(&mut table, flow, now) {
            flow += 1;
        }
        let load = table.len() as f64 / table.capacity() as f64;
        println!("{capacity} entries: refused at {load:.3}, {} moved", table.counters().moved.get());
        assert!(load > 0.88, "refused at {load:.3}");
        check_sums(&table);
        assert!((0..flow).all(|flow| table.peek(key(flow), now) == Some((flow, State::Established))));
    }
}

#[test]
fn a_search_for_room_that_failed_is_not_repeated_in_the_same_tick() {
    let mut table = ConnectionTable::new(1 << 12, Timeouts::default());
    let mut flows = 0..;
    let now = Tick::from_number(0);
    while establish(&mut table, flows.next().unwrap(), now) {}
    let mut moves_for_100 = |now| {
        let before = table.counters().moved.get();
        flows.by_ref().take(100).for_each(|flow| _ = establish(&mut table, flow, now));
        table.counters().moved.get() - before
    };
    assert_eq!(moves_for_100(now), 0);
    assert!(moves_for_100(now.after(1)) > 0);
    check_sums(&table);
}

#[test]
fn flows_in_probation_make_way_before_others_are_moved() {
    let mut table = ConnectionTable::new(1 << 12, Timeouts::default());
    for flow in 0..100_000 {
        let stored = table.insert(key(flow), flow, Tick::from_number(flow), Event::Udp);
        assert!(matches!(stored, Insertion::Stored { .. }));
    }
    assert_eq!((table.counters().moved.get(), table.len()), (0, table.capacity()));
}
