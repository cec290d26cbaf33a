use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::thread;

use super::super::NatSnapshot;
use super::super::packets::*;
use super::*;
use crate::packet::Tcp;
use crate::packet::protocol::UDP;

const BACKEND: &str = "198.18.0.11:8080";

/// A flow of the client with this number to the IPv4 service.
fn numbered(protocol: u8, number: u32) -> FiveTuple {
    let [_, a, b, c] = number.to_be_bytes();
    let client = SocketAddr::from(([10, a, b, c], 40_000));
    flow(protocol, client, world(true).service)
}

fn open(worker: &mut NatWorker, now: Tick, flow: &FiveTuple) -> Option<Session> {
    let id = worker.open(now, flow, socket(BACKEND).into(), 7)?;
    Some(worker.flow(id, flow).unwrap())
}

/// Opens a connection and has both sides use it.
fn established(worker: &mut NatWorker, now: Tick, flow: &FiveTuple) -> Session {
    let session = open(worker, now, flow).unwrap();
    worker.seen_from_backend(&session, now, Tcp::SYN | Tcp::ACK);
    worker.seen_from_client(&worker.flow(session.id, flow).unwrap(), now, Tcp::ACK);
    session
}

fn snapshot(worker: &NatWorker) -> NatSnapshot {
    worker.counters().snapshot()
}

#[test]
fn a_session_that_one_worker_opens_is_found_by_every_other() {
    for (protocol, is_ipv4) in
        PROTOCOLS.into_iter().flat_map(|protocol| FAMILIES.map(|is_ipv4| (protocol, is_ipv4)))
    {
        let (world, mut workers) = (world(is_ipv4), workers(1_024..=65_535, 3));
        let client_flow = flow(protocol, world.client, world.service);
        for opener in 0..3 {
            let id = workers[opener].open(at(0), &client_flow, world.backend.into(), opener as u32).unwrap();
            let session = workers[opener].flow(id, &client_flow).unwrap();
            assert_eq!((session.member, session.flow()), (opener as u32, client_flow));
            let reply = flow(protocol, world.backend, session.nat.into());
            assert_eq!(session.reply(), reply);
            for worker in &workers {
                assert!(worker.has_address(&reply.dst));
                assert_eq!(worker.find_reply(&reply), Some(session));
                assert_eq!(worker.find_flow(&client_flow), Some(session), "also from the client's side");
                assert_eq!(worker.flow(id, &client_flow), Some(session));
            }
            assert!(workers[opener].close(id));
            for worker in &workers {
                assert_eq!((worker.find_reply(&reply), worker.find_flow(&client_flow)), (None, None));
            }
        }
    }
}

#[test]
fn an_error_is_found_from_either_side() {
    let (world, mut workers) = (world(false), workers(1_024..=65_535, 2));
    let client_flow = flow(UDP, world.client, world.service);
    let id = workers[1].open(at(0), &client_flow, world.backend.into(), 7).unwrap();
    let session = workers[1].flow(id, &client_flow);
    let nat = SocketAddr::from(session.unwrap().nat);
    let embedded = |from: SocketAddr, to: SocketAddr| {
        let quoted = packet(UDP, from, to, b"hello").split_off(NETWORK);
        let bytes = error(world.router, from.ip(), &quoted);
        Embedded::of(&bytes, &crate::packet::parse(&bytes, bytes.len())).unwrap()
    };
    for worker in &workers {
        assert_eq!(worker.find_error_from_backend(&embedded(nat, world.backend)), session);
        assert_eq!(worker.find_error_from_client(&embedded(world.service, world.client)), session);
        assert_eq!(worker.find_error_from_backend(&embedded(nat, world.client)), None, "sent to nobody");
        assert_eq!(worker.find_error_from_client(&embedded(world.service, nat)), None);
    }
}

#[test]
fn a_reply_of_a_wrong_backend_is_nobodys() {
    let mut worker = workers(1_024..=2_047, 1).remove(0);
    let session = open(&mut worker, at(0), &numbered(TCP, 1)).unwrap();
    let right = session.reply();
    assert_eq!(worker.find_reply(&right), Some(session));
    let mut address = right.src;
    address[15] ^= 1;
    for wrong in [
        FiveTuple { src: address, ..right },
        FiveTuple { src_port: right.src_port + 1, ..right },
        FiveTuple { protocol: UDP, ..right },
        FiveTuple { dst: address, ..right },
        FiveTuple { dst_port: right.dst_port ^ 1, ..right },
    ] {
        assert_eq!(worker.find_reply(&wrong), None);
    }
}

#[test]
fn a_number_that_has_become_another_flows_is_not_taken() {
    let mut worker = workers(1_024..=2_047, 1).remove(0);
    let mine = numbered(TCP, 1);
    let session = open(&mut worker, at(0), &mine).unwrap();
    for other in [
        numbered(TCP, 2),
        numbered(UDP, 1),
        FiveTuple { src_port: 1, ..mine },
        FiveTuple { dst_port: 1, ..mine },
    ] {
        assert_eq!(worker.flow(session.id, &other), None);
    }
    assert_eq!(worker.flow(SessionId(u32::MAX), &mine), None);
}

#[test]
fn what_cannot_be_translated_gets_no_session() {
    let (four, six) = (world(true), world(false));
    let mut worker = workers(1_024..=2_047, 1).remove(0);
    let flow4 = flow(TCP, four.client, four.service);
    assert_eq!(worker.open(at(0), &flow4, six.backend.into(), 7), None, "a backend of the other family");
    assert_eq!(worker.open(at(0), &FiveTuple { protocol: 132, ..flow4 }, four.backend.into(), 7), None);
    assert_eq!(snapshot(&worker), NatSnapshot::default());
    let pool = super::super::NatPool::new(&[four.backend.ip()], 1_024..=2_047, 1).unwrap();
    let mut ipv4_only = pool.workers(TIMEOUTS).remove(0);
    let flow6 = flow(TCP, six.client, six.service);
    assert_eq!(ipv4_only.open(at(0), &flow6, six.backend.into(), 7), None);
    assert_eq!(snapshot(&ipv4_only).exhausted, 1, "no address of that family");
}

#[test]
fn one_address_has_64512_sessions_of_each_protocol_and_then_no_more_until_some_expire() {
    let mut worker = workers(1_024..=65_535, 1).remove(0);
    let mut ends = HashSet::new();
    for protocol in PROTOCOLS {
        for number in 0..64_512 {
            let session = open(&mut worker, at(0), &numbered(protocol, number)).unwrap();
            assert!(session.nat.port >= 1_024);
            assert!(ends.insert((protocol, session.nat)), "{:?} is given twice", session.nat);
        }
        assert_eq!(open(&mut worker, at(0), &numbered(protocol, 64_512)), None);
    }
    let expected = NatSnapshot { open: 129_024, opened: 129_024, exhausted: 2, ..NatSnapshot::default() };
    assert_eq!(snapshot(&worker), expected);
    for number in (0..64_512).step_by(999) {
        let flow = numbered(UDP, number);
        assert_eq!(worker.find_flow(&flow).unwrap().flow(), flow);
    }

    // UDP lives for 30 s, a half-open connection for 60 s. The pool of the other family counts for a sweep as well.
    let all = worker.owned();
    assert_eq!(all, 2 * 129_024);
    assert_eq!(worker.sweep(at(29), all), 0);
    assert_eq!(worker.sweep(at(30), all), 64_512);
    assert_eq!(snapshot(&worker).open, 64_512);
    assert_eq!(worker.sweep(at(60), all), 64_512);
    let expected = NatSnapshot { open: 0, expired: 129_024, ..expected };
    assert_eq!(snapshot(&worker), expected);
    for protocol in PROTOCOLS {
        for number in 0..64_512 {
            let flow = numbered(protocol, number);
            assert_eq!(worker.find_flow(&flow), None);
            assert!(open(&mut worker, at(61), &flow).is_some());
        }
    }
    assert_eq!(snapshot(&worker).reused, 129_024);
}

#[test]
fn sessions_expire_by_their_state() {
    let mut worker = workers(1_024..=2_047, 1).remove(0);
    let all = worker.owned();
    let half_open = open(&mut worker, at(0), &numbered(TCP, 1)).unwrap();
    let in_use = established(&mut worker, at(0), &numbered(TCP, 2));
    let reset = established(&mut worker, at(0), &numbered(TCP, 3));
    worker.seen_from_backend(&worker.find_flow(&reset.flow()).unwrap(), at(0), Tcp::RST);
    let ended = established(&mut worker, at(0), &numbered(TCP, 4));
    worker.seen_from_client(&worker.find_flow(&ended.flow()).unwrap(), at(0), Tcp::FIN | Tcp::ACK);
    worker.seen_from_backend(&worker.find_reply(&ended.reply()).unwrap(), at(0), Tcp::FIN | Tcp::ACK);
    let udp = open(&mut worker, at(0), &numbered(UDP, 5)).unwrap();
    for (session, seconds) in [(udp, 30), (half_open, 60), (reset, 120), (in_use, 900)] {
        assert_eq!(worker.sweep(at(seconds - 1), all), 0, "{seconds} s");
        assert!(worker.flow(session.id, &session.flow()).is_some());
        assert_eq!(worker.sweep(at(seconds), all), if seconds == 120 { 2 } else { 1 }, "{seconds} s");
        assert_eq!(worker.flow(session.id, &session.flow()), None);
        assert_eq!(worker.find_reply(&session.reply()), None);
    }
    assert_eq!(worker.find_flow(&ended.flow()), None);
}

#[test]
fn replies_that_another_worker_gets_keep_a_session_alive() {
    let mut workers = workers(1_024..=2_047, 2);
    let [owner, other] = &mut workers[..] else { unreachable!() };
    let all = owner.owned();
    let session = open(owner, at(0), &numbered(UDP, 1)).unwrap();
    for seconds in (0..300).step_by(20) {
        other.seen_from_backend(&other.find_reply(&session.reply()).unwrap(), at(seconds), 0);
        assert_eq!(owner.sweep(at(seconds + 29), all), 0);
    }
    assert_eq!(other.sweep(at(1_000), all), 0, "only the owner closes it");
    assert!(!other.close(session.id));
    assert_eq!(owner.sweep(at(280 + 30), all), 1);
}

#[test]
fn a_sweep_goes_on_where_the_last_one_ended() {
    let mut worker = workers(1_024..=2_047, 1).remove(0);
    for number in 0..1_024 {
        open(&mut worker, at(0), &numbered(UDP, number)).unwrap();
    }
    let mut closed = Vec::new();
    for _ in 0..worker.owned() / 64 {
        closed.push(worker.sweep(at(100), 1));
    }
    assert!(closed.iter().all(|&closed| closed == 64 || closed == 0), "{closed:?}");
    assert_eq!(closed.iter().sum::<usize>(), 1_024);
}

#[test]
fn a_port_rests_until_all_others_were_used() {
    let mut worker = workers(1_024..=1_087, 1).remove(0);
    let mut order = Vec::new();
    for number in 0..128 {
        let session = open(&mut worker, at(0), &numbered(TCP, number)).unwrap();
        order.push(session.nat.port);
        assert!(worker.close(session.id));
    }
    assert_eq!(order[..64], order[64..]);
    assert_eq!(order[..64].iter().collect::<HashSet<_>>().len(), 64);
    assert_ne!(order[..64], (1_024..1_088).collect::<Vec<_>>(), "and the order is not the obvious one");
    assert_eq!(snapshot(&worker).reused, 64);
}

#[test]
fn a_full_pool_takes_ports_from_half_open_connections_but_not_from_those_in_use() {
    let mut worker = workers(1_024..=1_151, 1).remove(0);
    let in_use: Vec<_> =
        (0..64).map(|number| established(&mut worker, at(0), &numbered(TCP, number))).collect();
    for number in 64..128 {
        open(&mut worker, at(0), &numbered(TCP, number)).unwrap();
    }
    assert_eq!(open(&mut worker, at(1), &numbered(TCP, 1_000)), None, "they are too young");
    let got = (0..200).filter(|number| open(&mut worker, at(3), &numbered(TCP, 2_000 + number)).is_some());
    let got = got.count();
    assert!((33..=64).contains(&got), "{got} of 64 places");
    for session in &in_use {
        assert!(worker.find_flow(&session.flow()).is_some());
    }
    let counts = snapshot(&worker);
    assert_eq!((counts.open, counts.evicted, counts.expired), (128, got as u64, 0));
    assert_eq!(counts.exhausted, 1 + 200 - got as u64);

    // What has expired comes first, in use or not.
    assert!(open(&mut worker, at(900), &numbered(TCP, 5_000)).is_some());
    assert_eq!((snapshot(&worker).evicted, snapshot(&worker).expired), (got as u64, 1));
}

#[test]
fn a_connection_begins_anew_in_the_session_of_the_last_one() {
    let mut worker = workers(1_024..=2_047, 1).remove(0);
    let all = worker.owned();
    let session = established(&mut worker, at(0), &numbered(TCP, 1));
    let now = |worker: &NatWorker| worker.flow(session.id, &session.flow()).unwrap();
    worker.seen_from_client(&now(&worker), at(1), Tcp::SYN);
    assert_eq!(snapshot(&worker).restarted, 0, "it is in use");
    assert!(!now(&worker).is_restarted_by(Tcp::SYN));
    worker.seen_from_backend(&now(&worker), at(1), Tcp::RST);
    assert!(now(&worker).is_restarted_by(Tcp::SYN) && !now(&worker).is_restarted_by(Tcp::ACK));
    worker.seen_from_client(&now(&worker), at(1), Tcp::SYN);
    assert_eq!(snapshot(&worker).restarted, 1);
    assert_eq!(worker.sweep(at(61), all), 1, "half open, again");
}

#[test]
fn timeouts_can_change_while_sessions_are_open() {
    let mut worker = workers(1_024..=2_047, 1).remove(0);
    let all = worker.owned();
    open(&mut worker, at(0), &numbered(UDP, 1)).unwrap();
    assert_eq!(worker.sweep(at(10), all), 0);
    worker.set_timeouts(Timeouts { udp: std::time::Duration::from_secs(5), ..TIMEOUTS });
    assert_eq!(worker.sweep(at(10), all), 1);
}

/// One worker opens and closes sessions, another looks for them from both sides: it finds the right one or none.
#[test]
fn who_looks_while_sessions_come_and_go_finds_the_right_one_or_none() {
    const FLOWS: u32 = 500;
    const ENOUGH: usize = if cfg!(miri) { 10 } else { 100_000 };
    let mut workers = workers(1_024..=1_151, 2);
    let reader = workers.pop().unwrap();
    let mut writer = workers.pop().unwrap();
    let (done, found) = (AtomicBool::new(false), AtomicUsize::new(0));
    let member = |flow: &FiveTuple| u32::from_be_bytes([0, flow.src[13], flow.src[14], flow.src[15]]);
    thread::scope(|scope| {
        let reading = scope.spawn(|| {
            let mut port = 1_024;
            while !done.load(Relaxed) {
                for number in 0..FLOWS {
                    if let Some(session) = reader.find_flow(&numbered(TCP, number)) {
                        assert_eq!((session.flow(), session.member), (numbered(TCP, number), number));
                        found.fetch_add(1, Relaxed);
                    }
                    port = if port == 1_151 { 1_024 } else { port + 1 };
                    let nat = Endpoint::from(SocketAddr::from(([198, 18, 0, 2], port)));
                    let reply = flow(TCP, socket(BACKEND), nat.into());
                    if let Some(session) = reader.find_reply(&reply) {
                        assert_eq!((session.reply(), session.member), (reply, member(&session.flow())));
                        reader.seen_from_backend(&session, at(0), Tcp::SYN | Tcp::ACK);
                        found.fetch_add(1, Relaxed);
                    }
                }
            }
        });
        let mut opened = std::collections::VecDeque::new();
        let mut number = 0;
        while found.load(Relaxed) < ENOUGH && !reading.is_finished() {
            number = (number + 1) % FLOWS;
            if opened.len() == 60 {
                assert!(writer.close(opened.pop_front().unwrap()));
            }
            opened.push_back(
                writer.open(at(0), &numbered(TCP, number), socket(BACKEND).into(), number).unwrap(),
            );
        }
        done.store(true, Relaxed);
    });
    assert_eq!(snapshot(&writer).open, 60);
}

#[test]
fn a_flow_that_gets_a_second_session_has_that_one_until_it_ends() {
    let mut worker = workers(1_024..=2_047, 1).remove(0);
    let flow = numbered(UDP, 1);
    let first = open(&mut worker, at(0), &flow).unwrap();
    let second = open(&mut worker, at(10), &flow).unwrap();
    assert_ne!(first.nat, second.nat);
    assert_eq!(worker.find_flow(&flow), Some(second));
    assert_eq!(worker.find_reply(&first.reply()), Some(first), "replies to the first are still its own");
    let all = worker.owned();
    assert_eq!(worker.sweep(at(30), all), 1);
    assert_eq!(worker.find_flow(&flow), Some(second));
    assert_eq!(worker.sweep(at(40), all), 1);
    assert_eq!(worker.find_flow(&flow), None);
}
