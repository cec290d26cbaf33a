//! Backends come and go, and flows stay or move.

use std::time::Duration;

use xfwd::pipeline::DropReason;
use xfwd::stages::balance::connections::Timeouts;
use xfwd::stages::balance::{Affinity, BackendState, BalancedService, Forward};

use crate::packets::{Packet, TCP, V4, V6, data, syn};
use crate::rig::{Rig, chosen, nat_options, service, web, with};

const FLOWS: std::ops::Range<u16> = 40_000..40_200;

/// Begins the flows and says which backend has each; after this they are established.
fn begin(rig: &mut Rig) -> Vec<usize> {
    let first: Vec<usize> = FLOWS.map(|port| rig.pass(&syn(V4, port).bytes()).backend()).collect();
    assert_eq!(go_on(rig), first);
    first
}

/// Which backend has each flow now.
fn go_on(rig: &mut Rig) -> Vec<usize> {
    FLOWS.map(|port| rig.pass(&data(V4, port).bytes()).backend()).collect()
}

/// Which backends new flows go to.
fn new_flows(rig: &mut Rig, from: u16) -> Vec<usize> {
    (from..from + 200).map(|port| rig.pass(&syn(V4, port).bytes()).backend()).collect()
}

fn set(rig: &Rig, service: &BalancedService, change: impl FnOnce(&mut BalancedService)) -> BalancedService {
    let mut changed = service.clone();
    change(&mut changed);
    rig.control.set_services(vec![changed.clone()]).unwrap();
    changed
}

fn state_of(rig: &Rig, service: &BalancedService, backend: usize) -> &'static str {
    rig.counters(service, V4.backend(backend)).state
}

#[test]
fn a_drained_backend_keeps_its_flows_and_gets_no_new_ones() {
    for forward in [Forward::Dsr, Forward::Nat] {
        let service = web(V4, forward);
        let mut rig = Rig::new([service.clone()]);
        let before = begin(&mut rig);
        set(&rig, &service, |service| service.backends[1].state = BackendState::Drain);
        assert_eq!(state_of(&rig, &service, 1), "drain");
        assert_eq!(go_on(&mut rig), before);
        assert!(before.contains(&1) && !new_flows(&mut rig, 50_000).contains(&1));

        let drained = set(&rig, &service, |service| service.backends[0].weight = 0);
        assert_eq!((go_on(&mut rig), state_of(&rig, &drained, 0)), (before, "drain"), "weight 0 is the same");
        assert!(!new_flows(&mut rig, 51_000).contains(&0));
    }
}

#[test]
fn flows_of_a_backend_that_is_down_or_unhealthy_move_and_no_others_do() {
    for forward in [Forward::Dsr, Forward::Nat] {
        let service = web(V4, forward);
        let mut rig = Rig::new([service.clone()]);
        let before = begin(&mut rig);
        rig.control.set_health([(&*service.name, V4.backend(1), false)]);
        let after = go_on(&mut rig);
        for (before, after) in before.iter().zip(&after) {
            assert!(if *before == 1 { *after != 1 } else { after == before }, "{before} {after}");
        }
        assert_eq!(state_of(&rig, &service, 1), "unhealthy");
        rig.control.set_health([(&*service.name, V4.backend(1), true)]);
        assert_eq!(go_on(&mut rig), after, "they stay where they are");
        assert!(new_flows(&mut rig, 50_000).contains(&1));

        let down = set(&rig, &service, |service| service.backends[2].state = BackendState::Down);
        assert_eq!(state_of(&rig, &down, 2), "down");
        assert!(!go_on(&mut rig).contains(&2));
    }
}

#[test]
fn established_flows_stay_when_weights_change_and_new_ones_go_by_the_new_table() {
    let service = web(V4, Forward::Dsr);
    let mut rig = Rig::new([service.clone()]);
    let before = begin(&mut rig);
    let changed = set(&rig, &service, |service| service.backends[0].weight = 50);
    assert_eq!(go_on(&mut rig), before);
    let expected: Vec<usize> =
        (50_000..50_200).map(|port| chosen(&changed, V4, &syn(V4, port).tuple())).collect();
    assert_eq!(new_flows(&mut rig, 50_000), expected);
    assert!(expected.iter().filter(|backend| **backend == 0).count() > 150);
}

#[test]
fn a_connection_that_is_begun_again_goes_by_the_table_of_now() {
    let service = web(V4, Forward::Dsr);
    let mut rig = Rig::new([service.clone()]);
    let before = begin(&mut rig);
    let port = 40_000 + before.iter().position(|backend| *backend == 1).unwrap() as u16;
    set(&rig, &service, |service| service.backends[1].state = BackendState::Drain);
    let fin = Packet { transport: crate::packets::Transport::Tcp("FA", None), ..data(V4, port) };
    assert_eq!(rig.pass(&fin.bytes()).backend(), 1);
    assert_eq!(rig.pass(&data(V4, port).bytes()).backend(), 1, "the last acknowledgement");
    assert_ne!(rig.pass(&syn(V4, port).bytes()).backend(), 1);
}

#[test]
fn a_removed_backend_keeps_its_flows_until_it_is_quiet_and_finds_them_when_it_is_added_again() {
    for forward in [Forward::Dsr, Forward::Ipip, Forward::Nat] {
        let service = web(V4, forward);
        let mut rig = Rig::new([service.clone()]);
        let before = begin(&mut rig);
        let remove = |rig: &Rig| set(rig, &service, |service| _ = service.backends.remove(1));
        let without = remove(&rig);
        assert_eq!(state_of(&rig, &without, 1), "removed");
        // A session that no backend has answered lives for a minute.
        for _ in 0..30 {
            rig.wait(Duration::from_secs(50));
            assert_eq!(go_on(&mut rig), before, "it is not quiet");
        }
        assert!(!new_flows(&mut rig, 50_000).contains(&1));
        assert!(rig.control.addresses().contains(&V4.backend(1)), "its next hop is still followed");
        rig.control.set_services(vec![service.clone()]).unwrap();
        assert_eq!((go_on(&mut rig), state_of(&rig, &service, 1)), (before.clone(), "up"));

        remove(&rig);
        go_on(&mut rig);
        rig.wait(Duration::ZERO);
        rig.wait(Timeouts::default().longest());
        assert_eq!(rig.control.counters().len(), 2, "it is forgotten");
        assert!(!rig.control.addresses().contains(&V4.backend(1)));
    }
}

#[test]
fn flows_of_a_forgotten_backend_are_not_those_of_the_next_one_in_its_slot() {
    // Longer than a backend is remembered, so that the table of connections still names it.
    let timeouts = Timeouts { established: Duration::from_secs(100), ..Timeouts::default() };
    let other = with(service(V6.vip(), TCP, 80, Forward::Dsr), V6, 0..2);
    let service = web(V4, Forward::Dsr);
    let mut rig = Rig::with(
        xfwd::stages::balance::BalanceOptions { timeouts, ..nat_options(1) },
        [other.clone(), service.clone()],
    );
    begin(&mut rig);
    // A service that is gone frees its slots at once.
    let next = with(service_named("next"), V4, [7, 8, 9, 10, 11]);
    rig.control.set_services(vec![other.clone(), next.clone()]).unwrap();
    let after = go_on(&mut rig);
    let expected: Vec<usize> = FLOWS.map(|port| chosen(&next, V4, &data(V4, port).tuple())).collect();
    assert_eq!(after, expected);
}

fn service_named(name: &str) -> BalancedService {
    BalancedService { name: name.to_owned(), ..service(V4.vip(), TCP, 80, Forward::Dsr) }
}

#[test]
fn by_source_affinity_all_connections_of_a_client_go_to_one_backend() {
    let services = [80, 443].map(|port| BalancedService {
        affinity: Affinity::Src,
        ..with(service(V4.vip(), TCP, port, Forward::Dsr), V4, 0..5)
    });
    let mut rig = Rig::new(services);
    let mut backends = std::collections::HashSet::new();
    for client in 1..=60 {
        let from = |port| (std::net::Ipv4Addr::new(203, 0, 113, client), port).into();
        let mut of_client = std::collections::HashSet::new();
        for port in 40_000..40_010 {
            for to in [80, 443] {
                let mut packet = Packet { from: from(port), ..syn(V4, port) };
                packet.to.set_port(to);
                of_client.insert(rig.pass(&packet.bytes()).backend());
            }
        }
        assert_eq!(of_client.len(), 1, "client {client}");
        backends.extend(of_client);
    }
    assert_eq!(backends.len(), 5);
}

#[test]
fn a_backend_that_comes_back_gets_a_tenth_of_its_share_and_then_a_tenth_more_at_a_time() {
    let service = BalancedService { slow_start: Some(Duration::from_secs(100)), ..web(V4, Forward::Dsr) };
    let by_health: fn(&Rig, &BalancedService) = |rig, service| {
        rig.control.set_health([(&*service.name, V4.backend(1), false)]);
        rig.control.set_health([(&*service.name, V4.backend(1), true)]);
    };
    let by_state: fn(&Rig, &BalancedService) = |rig, service| {
        set(rig, service, |service| service.backends[1].state = BackendState::Drain);
        set(rig, service, |_| ());
    };
    let by_weight: fn(&Rig, &BalancedService) = |rig, service| {
        set(rig, service, |service| service.backends[1].weight = 0);
        set(rig, service, |_| ());
    };
    let by_name: fn(&Rig, &BalancedService) = |rig, service| {
        set(rig, service, |service| _ = service.backends.remove(1));
        set(rig, service, |_| ());
    };
    for (what, come_back) in
        [("health", by_health), ("state", by_state), ("weight", by_weight), ("name", by_name)]
    {
        let mut rig = Rig::new([service.clone()]);
        assert_shares(&mut rig, &service, [1, 1, 1], "at first");
        come_back(&rig, &service);
        rig.now = std::time::Instant::now();
        for tenth in 1..=10 {
            assert_shares(&mut rig, &service, [10, tenth, 10], what);
            rig.wait(Duration::from_secs(10));
        }
        assert_shares(&mut rig, &service, [10, 10, 10], what);
    }
}

/// New flows go where the table of these weights says.
fn assert_shares(rig: &mut Rig, service: &BalancedService, weights: [u32; 3], what: &str) {
    let mut weighted = service.clone();
    weighted.backends.iter_mut().zip(weights).for_each(|(backend, weight)| backend.weight = weight);
    // Another range of ports each time, so that every flow is new.
    let first = 20_000 + rig.control.counters().iter().map(|row| row.connections).sum::<u64>() as u16;
    for port in first..first + 100 {
        let packet = syn(V4, port);
        let expected = chosen(&weighted, V4, &packet.tuple());
        assert_eq!(rig.pass(&packet.bytes()).backend(), expected, "{what} {weights:?}");
    }
}

#[test]
fn when_the_table_of_connections_is_full_the_maglev_table_decides() {
    let options = xfwd::stages::balance::BalanceOptions { connections: 1_024, ..nat_options(1) };
    let service = web(V4, Forward::Dsr);
    let mut rig = Rig::with(options, [service.clone()]);
    let mut ports = 10_000..12_000u16;
    for port in ports.clone() {
        for packet in [syn(V4, port), data(V4, port), data(V4, port)] {
            assert_eq!(rig.pass(&packet.bytes()).backend(), chosen(&service, V4, &packet.tuple()));
        }
    }
    let refused: u64 =
        rig.control.stage_counters().map(|side| side.connections.get().unwrap().refused.get()).sum();
    assert!(refused > 500, "{refused}");
    let counted: u64 = rig.control.counters().iter().map(|row| row.connections).sum();
    assert_eq!(counted, 2_000, "each begins once");
    // What is stored stays where it is; what is not goes with the table.
    set(&rig, &service, |service| service.backends[0].state = BackendState::Drain);
    let stays = ports.any(|port| rig.pass(&data(V4, port).bytes()).backend() == 0);
    assert!(stays);
}

#[test]
fn a_backend_without_a_next_hop_gets_nothing_and_keeps_its_flows_until_it_has_one() {
    let service = web(V4, Forward::Dsr);
    let mut rig = Rig::new([service.clone()]);
    let before = begin(&mut rig);
    rig.control.set_egress([(V4.backend(1), None)]);
    assert_eq!(state_of(&rig, &service, 1), "unreachable");
    for (port, backend) in FLOWS.zip(&before) {
        let out = rig.pass(&data(V4, port).bytes());
        if *backend == 1 {
            out.assert_dropped(DropReason::NoNeighbour)
        } else {
            assert_eq!(out.backend(), *backend)
        }
    }
    rig.control.set_egress([(V4.backend(1), Some(crate::rig::egress(V4, 1)))]);
    assert_eq!(go_on(&mut rig), before);
}
