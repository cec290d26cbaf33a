//! ICMP errors go to whom they concern.

use std::net::IpAddr;

use xfwd::pipeline::{DropReason, Verdict};
use xfwd::stages::balance::{BackendState, Forward};

use crate::packets::{FAMILIES, Family, Packet, Transport, data, icmp, read_icmp, relinked, syn, tuple};
use crate::rig::{Rig, egress, mac, nat_options, web};

/// "Too big" from a router, about a packet that it quotes.
fn too_big(family: Family, to: IpAddr, quoted: &Packet) -> Vec<u8> {
    let kind = if family.is_ipv4 { (3, 4) } else { (2, 0) };
    icmp(family.router(), to, kind, 1_400, &quoted.ip())
}

/// What a backend has sent to the client by itself.
fn from_vip(family: Family, port: u16) -> Packet {
    let asked = data(family, port);
    Packet { from: asked.to, to: asked.from, ..asked }
}

#[test]
fn an_error_about_what_a_backend_sent_goes_to_the_backend_of_the_flow() {
    for family in FAMILIES {
        for forward in [Forward::Dsr, Forward::Ipip, Forward::Gue] {
            let mut service = web(family, forward);
            let mut rig = Rig::new([service.clone()]);
            let owners: Vec<usize> =
                (40_000..40_050).map(|port| rig.pass(&syn(family, port).bytes()).backend()).collect();
            // So that the table chooses others than those that have the flows.
            service.backends[0].state = BackendState::Drain;
            rig.control.set_services(vec![service]).unwrap();
            for (port, owner) in (40_000..).zip(&owners) {
                let error = too_big(family, family.vip(), &from_vip(family, port));
                let out = rig.pass(&error);
                assert_eq!(out.backend(), *owner, "{forward:?}");
                if forward == Forward::Dsr {
                    let link = egress(family, *owner).link;
                    assert_eq!(out.bytes, relinked(&error[14..], link.source.0, mac(*owner), link.vlan));
                } else {
                    assert!(out.bytes.ends_with(&error[family.ip_bytes() + 14..]), "it is within");
                }
            }
            assert!(owners.contains(&0));
        }
    }
}

#[test]
fn an_error_about_an_unknown_flow_goes_where_the_table_says() {
    for family in FAMILIES {
        let service = web(family, Forward::Dsr);
        let mut rig = Rig::new([service.clone()]);
        for port in 40_000..40_050 {
            let out = rig.pass(&too_big(family, family.vip(), &from_vip(family, port)));
            assert_eq!(out.backend(), crate::rig::chosen(&service, family, &data(family, port).tuple()));
        }
        assert_eq!(rig.counters(&service, family.backend(0)).connections, 0, "an error begins no connection");
    }
}

#[test]
fn an_error_is_for_the_backend_that_has_the_fragments_of_a_client() {
    for family in FAMILIES {
        let mut service = web(family, Forward::Dsr);
        let mut rig = Rig::new([service.clone()]);
        let packet = Packet { payload: vec![1; 400], ..data(family, 40_000) };
        let owner = rig.pass(&packet.fragments(7, 200)[0]).backend();
        service.backends[owner].state = BackendState::Drain;
        rig.control.set_services(vec![service]).unwrap();
        let error = too_big(family, family.vip(), &from_vip(family, 40_000));
        assert_eq!(rig.pass(&error).backend(), owner);
    }
}

#[test]
fn with_nat_errors_are_translated_both_ways() {
    for family in FAMILIES {
        let mut rig = Rig::with(nat_options(2), [web(family, Forward::Nat)]);
        for port in 40_000..40_020 {
            let asked = syn(family, port);
            let there = rig.pass_at(0, 0, 0, &asked.bytes());
            let (backend, translated) = (there.backend(), tuple(&there.bytes));
            let kind = if family.is_ipv4 { (3, 4) } else { (2, 0) };

            // From the client's side, about what the service has sent: to the backend, about what it has sent.
            let out = rig.pass_at(1, 0, 0, &too_big(family, family.vip(), &from_vip(family, port)));
            assert_eq!(out.backend(), backend);
            let sent =
                Packet { from: translated.destination(), to: translated.source(), ..from_vip(family, port) };
            let expected = (family.router(), family.backend(backend), kind, 1_400, sent.ip());
            assert_eq!(read_icmp(&out.bytes), expected);

            // From the backend's side, about what was sent to it: to the client, about what that has sent.
            let quoted =
                Packet { from: translated.source(), to: translated.destination(), hops: 63, ..asked.clone() };
            let out = rig.pass_at(1, 0, 0, &too_big(family, family.ours(), &quoted));
            out.assert_answered();
            let quoted = Packet { hops: 63, ..asked };
            assert_eq!(read_icmp(&out.bytes), (family.vip(), family.client(), kind, 1_400, quoted.ip()));
        }
    }
}

#[test]
fn with_nat_errors_of_no_session_are_dropped() {
    for family in FAMILIES {
        let mut rig = Rig::new([web(family, Forward::Nat)]);
        let error = too_big(family, family.vip(), &from_vip(family, 40_000));
        rig.pass(&error).assert_dropped(DropReason::NoSession);
        let mut quoted = from_vip(family, 40_000);
        quoted.from.set_ip(family.ours());
        rig.pass(&too_big(family, family.ours(), &quoted)).assert_dropped(DropReason::NoSession);
    }
}

#[test]
fn an_error_to_another_than_it_quotes_is_not_ours() {
    for family in FAMILIES {
        let mut rig = Rig::new([web(family, Forward::Dsr)]);
        let error = too_big(family, family.backend(0), &from_vip(family, 40_000));
        assert_eq!(rig.pass(&error).verdict, Verdict::Continue);
        let other = Packet { transport: Transport::Udp, ..from_vip(family, 40_000) };
        assert_eq!(rig.pass(&too_big(family, family.vip(), &other)).verdict, Verdict::Continue);
    }
}
