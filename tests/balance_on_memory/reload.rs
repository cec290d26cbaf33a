//! A reload of many services.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use xfwd::packet::MacAddress;
use xfwd::stages::balance::way::LinkHeader;
use xfwd::stages::balance::{BalanceOptions, BalancedService, Egress, Forward};

use crate::packets::{Packet, TCP, V4, data, syn};
use crate::rig::{Rig, options, service};

const SERVICES: u32 = 1_000;
const BACKENDS: u32 = 10;

fn vip(service: u32) -> IpAddr {
    Ipv4Addr::from_bits(Ipv4Addr::new(198, 18, 128, 0).to_bits() + service).into()
}

fn backend(number: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(Ipv4Addr::new(198, 19, 0, 0).to_bits() + number)
}

/// Each with backends of its own.
fn services() -> Vec<BalancedService> {
    (0..SERVICES)
        .map(|index| {
            let service = BalancedService { table_size: 251, ..service(vip(index), TCP, 80, Forward::Dsr) };
            (0..BACKENDS).fold(service, |service, of| service.with(backend(index * BACKENDS + of).into(), 1))
        })
        .collect()
}

/// The number of the backend that the flow's packet is sent to.
fn reached(rig: &mut Rig, packet: Packet, service: u32) -> u32 {
    let packet = Packet { to: SocketAddr::new(vip(service), 80), ..packet };
    let out = rig.pass(&packet.bytes());
    assert_eq!(out.bytes[..2], [2, 7]);
    u32::from_be_bytes(out.bytes[2..6].try_into().unwrap())
}

#[test]
fn flows_of_a_thousand_services_stay_over_reloads_that_change_them_all() {
    // With room enough that no flow in its handshake has to make way for another.
    let options = BalanceOptions { connections: 65_536, ..options(1) };
    let mut rig = Rig::with(options, services());
    rig.control.set_egress((0..SERVICES * BACKENDS).map(|number| {
        let [a, b, c, d] = number.to_be_bytes();
        let link = LinkHeader {
            source: MacAddress([2; 6]),
            destination: MacAddress([2, 7, a, b, c, d]),
            vlan: None,
        };
        let egress = Egress { port: 0, link, mtu: 1_500, is_direct: true, source: None };
        (backend(number).into(), Some(egress))
    }));
    let flows = || (0..SERVICES).flat_map(|service| (40_000..40_003).map(move |port| (service, port)));
    let before: Vec<u32> = flows().map(|(service, port)| reached(&mut rig, syn(V4, port), service)).collect();
    assert!(before.iter().zip(flows()).all(|(number, (service, _))| number / BACKENDS == service));

    // The services in another order, their backends too, and in each one is drained, one removed, one heavier.
    let mut changed = services();
    changed.reverse();
    for service in &mut changed {
        service.backends.rotate_left(3);
        service.backends[0].weight = 0;
        service.backends.pop();
        service.backends[1].weight = 20;
    }
    rig.control.set_services(changed).unwrap();
    let go_on = |rig: &mut Rig| -> Vec<u32> {
        flows().map(|(service, port)| reached(rig, data(V4, port), service)).collect()
    };
    assert!(go_on(&mut rig) == before, "changed");

    // Half of the services are removed, and come back.
    let mut half = services();
    half.truncate(SERVICES as usize / 2);
    rig.control.set_services(half).unwrap();
    rig.control.set_services(services()).unwrap();
    let kept = before.len() / 2;
    assert!(go_on(&mut rig)[..kept] == before[..kept], "of the half that stayed");
}
