//! NAT there and back.

use std::time::Duration;

use xfwd::pipeline::{DropReason, Verdict};
use xfwd::stages::balance::Forward;

use crate::packets::{
    CLIENT_MAC, FAMILIES, PORTS, Packet, TCP, Transport, UDP, V4, data, from_client, relinked, syn, tuple,
};
use crate::rig::{Rig, mac, nat_options, service, web, with};

/// What a backend says to a packet that was translated for it.
pub fn reply_to(translated: &[u8], transport: Transport) -> Packet {
    let tuple = tuple(translated);
    Packet {
        macs: (mac(translated[5].into()), PORTS[usize::from(translated[5]) % 2]),
        vlan: None,
        from: tuple.destination(),
        to: tuple.source(),
        hops: 64,
        transport,
        payload: b"what the client says".to_vec(),
    }
}

#[test]
fn a_reply_goes_back_by_the_way_that_the_client_came() {
    for family in FAMILIES {
        for (protocol, to_port, transport) in
            [(TCP, 80, Transport::Tcp("A", None)), (UDP, 53, Transport::Udp)]
        {
            let service = with(service(family.vip(), protocol, to_port, Forward::Nat), family, 0..4);
            let mut rig = Rig::new([service]);
            for port in 40_000..40_040u16 {
                // Clients behind either port, some in a VLAN, by routers of their own.
                let came_by = usize::from(port) % 2;
                let router = [2, 0, 0, 0, 8, port as u8];
                let vlan = (port % 3 == 0).then_some(port % 5 + 2);
                let packet = Packet {
                    macs: (router, PORTS[came_by]),
                    vlan,
                    ..from_client(family, port, to_port, transport.clone())
                };
                let there = rig.pass_at(0, came_by as u8, 0, &packet.bytes());
                let backend = there.backend();
                let left_by = if backend % 2 == came_by {
                    Verdict::Bounce
                } else {
                    Verdict::Forward((backend % 2) as u8)
                };
                assert_eq!(there.verdict, left_by);

                let reply = reply_to(&there.bytes, transport.clone());
                let back = rig.pass_at(0, (backend % 2) as u8, 0, &reply.bytes());
                let returns_by =
                    if backend % 2 == came_by { Verdict::Bounce } else { Verdict::Forward(came_by as u8) };
                assert_eq!(back.verdict, returns_by);
                let expected = Packet { from: packet.to, to: packet.from, hops: 63, ..reply.clone() };
                assert_eq!(back.bytes, relinked(&expected.ip(), PORTS[came_by], router, vlan));
            }
            let replies: u64 = rig.control.stage_counters().map(|side| side.replies.get()).sum();
            assert_eq!(replies, 40);
        }
    }
}

#[test]
fn a_reply_at_another_worker_finds_the_session_and_so_does_a_flow_that_moved() {
    for family in FAMILIES {
        let mut rig = Rig::with(nat_options(2), [web(family, Forward::Nat)]);
        for port in 40_000..40_050 {
            let there = rig.pass_at(0, 0, 0, &syn(family, port).bytes());
            let reply = reply_to(&there.bytes, Transport::Tcp("SA", None));
            let back = rig.pass_at(1, (there.backend() % 2) as u8, 0, &reply.bytes());
            let expected =
                Packet { from: syn(family, port).to, to: syn(family, port).from, hops: 63, ..reply };
            assert_eq!(back.bytes, relinked(&expected.ip(), PORTS[0], CLIENT_MAC, None));
            // The NIC's spreading changed: the same session, by the same pool port.
            let moved = rig.pass_at(1, 0, 0, &data(family, port).bytes());
            assert_eq!(tuple(&moved.bytes), tuple(&there.bytes));
        }
        let opened = |worker: usize| {
            let counters = rig.control.stage_counters().nth(worker).unwrap();
            counters.nat.get().unwrap().snapshot().opened
        };
        assert_eq!((opened(0), opened(1)), (50, 0));
    }
}

#[test]
fn a_flow_whose_session_here_is_over_is_found_at_the_other_worker() {
    // Worker 1 has an expired session of its own in the table when it gets the flow that worker 0 has opened.
    let mut rig = Rig::with(nat_options(2), [web(V4, Forward::Nat)]);
    rig.pass_at(1, 0, 0, &data(V4, 40_000).bytes());
    rig.pass_at(1, 0, 0, &data(V4, 40_000).bytes());
    rig.wait(Duration::from_secs(61));
    // Any batch lets the worker sweep: often enough for all sessions.
    for _ in 0..100 {
        rig.now += Duration::from_millis(100);
        rig.pass_at(1, 0, 0, &[0; 60]);
    }
    let there = rig.pass_at(0, 0, 0, &data(V4, 40_000).bytes());
    for _ in 0..3 {
        assert_eq!(tuple(&rig.pass_at(1, 0, 0, &data(V4, 40_000).bytes()).bytes), tuple(&there.bytes));
    }
}

#[test]
fn what_is_for_the_pool_and_of_no_session_is_dropped() {
    for family in FAMILIES {
        let mut rig = Rig::new([web(family, Forward::Nat)]);
        let there = rig.pass(&syn(family, 40_000).bytes());
        let reply = reply_to(&there.bytes, Transport::Tcp("SA", None));
        let mut stranger = reply.clone();
        stranger.from.set_ip(family.router());
        rig.pass(&stranger.bytes()).assert_dropped(DropReason::NoSession);
        let mut other_port = reply;
        other_port.to.set_port(other_port.to.port() ^ 1);
        rig.pass(&other_port.bytes()).assert_dropped(DropReason::NoSession);
    }
}

#[test]
fn in_a_full_batch_each_packet_gets_its_own_session_whatever_stands_beside_it() {
    for family in FAMILIES {
        let mut rig = Rig::new([web(family, Forward::Nat)]);
        let known: Vec<Vec<u8>> =
            (40_000..40_016).map(|port| rig.pass(&data(family, port).bytes()).bytes).collect();
        let mut no_session = reply_to(&known[0], Transport::Tcp("A", None));
        no_session.to.set_port(80);
        // In turn: a flow that is known, a reply, a flow that is new, a reply to nobody.
        let batch: Vec<Vec<u8>> = (0..64u16)
            .map(|index| match index % 4 {
                0 => data(family, 40_000 + index / 4).bytes(),
                1 => reply_to(&known[usize::from(index / 4)], Transport::Tcp("A", None)).bytes(),
                2 => syn(family, 41_000 + index / 4).bytes(),
                _ => no_session.bytes(),
            })
            .collect();
        let out = rig.pass_batch(&batch);
        for (four, (of_flow, known)) in out.chunks(4).zip(&known).enumerate() {
            assert_eq!(tuple(&of_flow[0].bytes), tuple(known), "the session that it had");
            let client = tuple(&data(family, 40_000 + four as u16).bytes());
            assert_eq!(tuple(&of_flow[1].bytes).destination(), client.source());
            let new = tuple(&of_flow[2].bytes);
            let again = rig.pass(&syn(family, 41_000 + four as u16).bytes());
            assert_eq!(tuple(&again.bytes), new, "the session that it got");
            of_flow[3].assert_dropped(DropReason::NoSession);
        }
    }
}

#[test]
fn the_port_of_a_backend_may_be_another_than_that_of_the_service() {
    let mut service = web(V4, Forward::Nat);
    service.backends.iter_mut().for_each(|backend| backend.port = Some(8_080));
    let mut rig = Rig::new([service]);
    let there = rig.pass(&syn(V4, 40_000).bytes());
    assert_eq!(tuple(&there.bytes).dst_port, 8_080);
    let back = rig.pass(&reply_to(&there.bytes, Transport::Tcp("SA", None)).bytes());
    assert_eq!((tuple(&back.bytes).src_port, tuple(&back.bytes).dst_port), (80, 40_000));
}

#[test]
fn when_all_ports_are_in_use_a_new_flow_is_dropped_and_old_ones_go_on() {
    let mut rig = Rig::new([web(V4, Forward::Nat)]);
    let establish = |rig: &mut Rig, port| {
        let there = rig.pass(&syn(V4, port).bytes());
        rig.pass(&reply_to(&there.bytes, Transport::Tcp("SA", None)).bytes());
        rig.pass(&data(V4, port).bytes()).backend();
    };
    (10_000..11_024).for_each(|port| establish(&mut rig, port));
    rig.pass(&syn(V4, 9_999).bytes()).assert_dropped(DropReason::NoSession);
    (10_000..11_024).for_each(|port| _ = rig.pass(&data(V4, port).bytes()).backend());
    let counted: u64 = rig.control.counters().iter().map(|row| row.connections).sum();
    assert_eq!(counted, 1_024);
}

#[test]
fn replies_reach_the_client_after_the_service_was_removed() {
    let mut rig = Rig::new([web(V4, Forward::Nat)]);
    let there = rig.pass(&syn(V4, 40_000).bytes());
    rig.control.set_services(vec![web(FAMILIES[1], Forward::Nat)]).unwrap();
    let back = rig.pass(&reply_to(&there.bytes, Transport::Tcp("SA", None)).bytes());
    assert_eq!(tuple(&back.bytes), syn(V4, 40_000).tuple().reversed());
}

#[test]
fn a_service_that_comes_to_be_nat_and_back_mixes_up_nothing() {
    let [dsr, nat] = [Forward::Dsr, Forward::Nat].map(|forward| web(V4, forward));
    let mut rig = Rig::new([dsr.clone()]);
    for round in 0..3 {
        for port in 40_000..40_100 {
            let out = rig.pass(&data(V4, port).bytes());
            assert_eq!(tuple(&out.bytes), data(V4, port).tuple(), "round {round}");
        }
        rig.control.set_services(vec![nat.clone()]).unwrap();
        for port in 40_000..40_100 {
            let out = rig.pass(&data(V4, port).bytes());
            assert_eq!(tuple(&out.bytes).source().ip(), V4.ours(), "round {round}");
        }
        rig.control.set_services(vec![dsr.clone()]).unwrap();
    }
}
