//! Real clients through a tunnel, without xfwd: a balancer of a few lines puts an outer header on every packet for a VIP, the
//! backend takes it off and answers the client directly. What arrives at the backend is well formed.
#![allow(clippy::unwrap_used)]

use std::{
    net::{IpAddr, SocketAddr},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use etherparse::{IpNumber, Ipv4Header, PacketBuilder};
use xfwd_netns::{
    Capture, MacAddress,
    clients::{
        curl, hold,
        iperf3::{self, Kind},
        requests,
    },
    commands_or_skip,
    decap::Decap,
    dissect, lab_or_skip,
    topology::{self, INTERFACE, Routed, VIP_V4, VIP_V6, host_v4},
};

const WAIT: Duration = Duration::from_secs(20);

/// Sends IP packets for the VIPs on to a backend, until told to stop.
struct Balancer {
    wire: Capture,
    own: MacAddress,
    router: MacAddress,
    gue: bool,
}

impl Balancer {
    fn new(network: &Routed, gue: bool) -> Self {
        let balancer = &network.balancer;
        // The frames as the client sent them, which its kernel must not answer.
        balancer.set_gro(INTERFACE, false).unwrap();
        for vip in [IpAddr::from(VIP_V4), VIP_V6.into()] {
            let bits = if vip.is_ipv4() { 32 } else { 128 };
            balancer.ip(["address", "del", &format!("{vip}/{bits}"), "dev", INTERFACE]).unwrap();
            network.client.neighbour(INTERFACE, vip, balancer.mac(INTERFACE).unwrap()).unwrap();
        }
        Self {
            wire: balancer.run(|| Capture::open(INTERFACE)).unwrap(),
            own: balancer.mac(INTERFACE).unwrap(),
            router: network.router.mac(INTERFACE).unwrap(),
            gue,
        }
    }

    fn run(&self, stop: &AtomicBool) {
        let vips = [&VIP_V4.octets()[..], &VIP_V6.octets()];
        while !stop.load(Ordering::Relaxed) {
            let Some(frame) = self.wire.next(Duration::from_millis(20)).unwrap() else { continue };
            let packet = &frame.bytes[14..];
            let destination = match frame.bytes[12..14] {
                [8, 0] => &packet[16..20],
                [0x86, 0xdd] => &packet[24..40],
                _ => continue,
            };
            if vips.contains(&destination) {
                let outer = self.encapsulated(packet);
                let frame = [&self.router.0[..], &self.own.0, &[8, 0], &outer].concat();
                while !self.wire.send(&frame).unwrap() {}
            }
        }
    }

    /// The packet in IPv4.
    fn encapsulated(&self, packet: &[u8]) -> Vec<u8> {
        let (from, to) = (host_v4(Routed::BALANCER).octets(), Routed::backend_v4(0).octets());
        if self.gue {
            let mut outer = Vec::new();
            PacketBuilder::ipv4(from, to, 64)
                .udp(50_000, dissect::GUE_PORT)
                .write(&mut outer, packet)
                .unwrap();
            return outer;
        }
        let protocol = if packet[0] >> 4 == 4 { IpNumber::IPV4 } else { IpNumber::IPV6 };
        let mut header = Ipv4Header::new(packet.len() as u16, 64, protocol, from, to).unwrap();
        header.header_checksum = header.calc_header_checksum();
        [&header.to_bytes()[..], packet].concat()
    }
}

fn real_clients_are_served(gue: bool, layers: [&str; 2]) {
    let network = topology::tunnel(1, 1).unwrap();
    let (client, backend) = (&network.client, &network.backends[0]);
    let decap = Decap::start(backend, &[]).unwrap();
    let balancer = Balancer::new(&network, gue);
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        // Stops when this fails, too.
        struct Stop<'a>(&'a AtomicBool);
        impl Drop for Stop<'_> {
            fn drop(&mut self) {
                self.0.store(true, Ordering::Relaxed);
            }
        }
        scope.spawn(|| balancer.run(&stop));
        let _stop = Stop(&stop);
        for (vip, layers) in [IpAddr::from(VIP_V4), VIP_V6.into()].into_iter().zip(layers) {
            let at = |port| SocketAddr::new(vip, port);
            let recording = backend.run(|| Capture::open(INTERFACE)).unwrap().record();
            let _web = requests::serve_http(backend, "backend1", &[at(80)]).unwrap();
            assert_eq!(curl::get(client, at(80), "/", WAIT).unwrap().server(), "backend1");
            let _echo = hold::serve(backend, "backend1", &[at(7)]).unwrap();
            let options = hold::Options { connections: 5, size: 4_000, ..hold::Options::default() };
            let held = hold::start(client, at(7), &options).unwrap().stop().unwrap();
            assert_eq!((held.established, held.broken.len()), (5, 0), "{held:?}");
            let dissected = dissect::assert_frames_well_formed(&recording.stop().unwrap());
            assert!(dissected.with_layers(layers).count() > 10, "{layers}");

            let _iperf3 = iperf3::serve(backend, at(5201)).unwrap();
            let kind = Kind::Tcp { connections: 1 };
            let amount = iperf3::Amount::For(Duration::from_secs(1));
            let options = iperf3::Options { kind, amount, reverse: false };
            let result = iperf3::run(client, at(5201), &options).unwrap();
            println!("gue={gue} {vip}: {result:?}");
            assert!(result.received_bytes > 1_000_000, "{result:?}");
        }
    });
    let counted = decap.stop().unwrap();
    assert!(counted.refused.is_empty(), "{counted:?}");
    let kinds: Vec<&str> = counted.received.keys().map(String::as_str).collect();
    assert_eq!(kinds, if gue { ["gue-4in4", "gue-6in4"] } else { ["4in4", "6in4"] });
}

#[test]
fn real_clients_are_served_through_ip_in_ip() {
    commands_or_skip!("tshark", "curl", "iperf3");
    lab_or_skip!();
    real_clients_are_served(false, ["ip:ip:tcp", "ip:ipv6:tcp"]);
}

#[test]
fn real_clients_are_served_through_gue() {
    commands_or_skip!("tshark", "curl", "iperf3");
    lab_or_skip!();
    real_clients_are_served(true, ["ip:udp:ip:tcp", "ip:udp:ip:ipv6:tcp"]);
}
