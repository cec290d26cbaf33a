//! Another list of targets while checks run.

use std::{
    net::{SocketAddr, TcpListener},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use xfwd::{
    health::{Condition, Delivery, Health, HealthKind, ServicePath, Target},
    packet::MacAddress,
};

use crate::{MS, down, next, server, start, status_of, target, up, wait};

fn named(id: u64, to: SocketAddr) -> Target {
    Target { id, ..target(HealthKind::Tcp, to) }
}

fn refused() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

#[test]
fn target_that_stays_keeps_state_and_count() {
    let to = server("127.0.0.1", drop);
    let (health, changes) = start(vec![named(1, to), named(2, to)]);
    assert_eq!((next(&changes), next(&changes)), (up("connected"), up("connected")));
    wait("some checks", || status_of(&health, 1).checks >= 3);
    let before = status_of(&health, 1);
    health.set_targets(vec![named(1, to)]).unwrap();
    let after = health.status();
    assert_eq!(after.len(), 1);
    assert_eq!((after[0].condition, after[0].since), (Condition::Up, before.since));
    assert!(after[0].checks >= before.checks);
    wait("checks to go on", || status_of(&health, 1).checks > before.checks);
}

#[test]
fn target_that_is_new_starts_unknown_and_is_checked() {
    let (health, changes) = start(vec![]);
    assert_eq!(health.status(), []);
    let mut new = named(7, refused());
    new.check.interval = Duration::from_secs(1);
    health.set_targets(vec![new]).unwrap();
    assert!(status_of(&health, 7).condition.serves());
    assert_eq!(next(&changes), down("connection refused"));
}

#[test]
fn changed_target_keeps_its_condition_and_counts_anew() {
    let (health, changes) = start(vec![named(1, refused())]);
    assert_eq!(next(&changes), down("connection refused"));
    wait("some checks", || status_of(&health, 1).checks >= 5);
    let since = status_of(&health, 1).since;

    let mut changed = named(1, server("127.0.0.1", drop));
    changed.check.interval = 400 * MS;
    changed.check.rise = 2;
    health.set_targets(vec![changed]).unwrap();
    let status = status_of(&health, 1);
    assert_eq!((status.condition, status.since), (Condition::Down, since));
    assert!(status.checks <= 1, "{status:?}");
    assert_eq!(next(&changes), up("connected"));
    // One good check was not enough.
    assert!(status_of(&health, 1).checks >= 2);
}

#[test]
fn another_next_hop_does_not_restart_the_count() {
    let to = server("127.0.0.1", drop);
    let with_mac = |last| {
        let (from, to_mac) = (MacAddress([2, 0, 0, 0, 0, 1]), MacAddress([2, 0, 0, 0, 0, last]));
        let delivery = Delivery::Frame { interface: 1, from, to: to_mac };
        Target { path: Some(ServicePath { vip: to, source: to.ip(), delivery }), ..named(1, to) }
    };
    let (health, changes) = start(vec![with_mac(2)]);
    assert_eq!(next(&changes), up("connected"));
    wait("some checks", || status_of(&health, 1).checks >= 3);
    health.set_targets(vec![with_mac(3)]).unwrap();
    let after = status_of(&health, 1);
    assert!(after.checks >= 3 && after.consecutive >= 3, "{after:?}");
    wait("checks to go on", || status_of(&health, 1).checks > after.checks);
}

#[test]
fn removed_target_is_checked_no_more() {
    let count = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&count);
    let gone = server("127.0.0.1", move |_| _ = counted.fetch_add(1, Ordering::Relaxed));
    let stays = server("127.0.0.1", drop);
    let (health, _changes) = start(vec![named(1, gone), named(2, stays)]);
    wait("the first checks", || health.status().iter().all(|status| status.checks >= 2));
    health.set_targets(vec![named(2, stays)]).unwrap();
    // One may have been under way.
    let (before, checks) = (count.load(Ordering::Relaxed), status_of(&health, 2).checks);
    wait("more checks of the other", || status_of(&health, 2).checks >= checks + 5);
    assert!(count.load(Ordering::Relaxed) <= before + 1);
}

#[test]
fn list_that_makes_no_sense_changes_nothing() {
    let to = server("127.0.0.1", drop);
    let (health, changes) = start(vec![named(1, to)]);
    assert_eq!(next(&changes), up("connected"));
    let mut wrong = named(2, to);
    wrong.check.fall = 0;
    health.set_targets(vec![wrong]).unwrap_err();
    let checks = status_of(&health, 1).checks;
    wait("checks to go on", || status_of(&health, 1).checks > checks);
    assert_eq!(health.status().len(), 1);
}

#[test]
fn health_can_be_dropped_by_what_it_tells() {
    let slot: Arc<std::sync::Mutex<Option<Health>>> = Arc::default();
    let (inside, (sender, dropped)) = (Arc::clone(&slot), std::sync::mpsc::channel());
    let mut held = slot.lock().unwrap();
    *held = Some(
        Health::start(vec![named(1, refused())], move |_| {
            drop(inside.lock().unwrap().take());
            sender.send(()).unwrap();
        })
        .unwrap(),
    );
    drop(held);
    dropped.recv_timeout(crate::PATIENCE).unwrap();
}
