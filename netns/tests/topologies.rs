//! The networks of the lab carry packets by plain routing, along the ways that they promise.

use std::{
    io,
    net::{IpAddr, SocketAddr, UdpSocket},
    time::Duration,
};

use xfwd_netns::{
    Capture, Namespace, lab_or_skip,
    topology::{
        self, BACKEND_INTERFACE, Bridged, INTERFACE, NAT_V4, NAT_V6, Routed, RoutedOptions, VIP_V4, VIP_V6,
        far_v4, far_v6, host_v4, host_v6,
    },
};

type TestResult = Result<(), Box<dyn std::error::Error>>;

const WAIT: Duration = Duration::from_secs(10);

fn bind(host: &Namespace, address: IpAddr, port: u16) -> io::Result<UdpSocket> {
    let socket = host.run(|| UdpSocket::bind((address, port)))?;
    socket.set_read_timeout(Some(WAIT))?;
    Ok(socket)
}

/// Exchanges a datagram of `bytes` bytes between two addresses, there and back.
fn exchange(client: (&Namespace, IpAddr), server: (&Namespace, IpAddr), bytes: usize) -> io::Result<()> {
    // A port that the kernel chooses: for a moment, a process that another test starts still holds the socket that was closed here.
    let (listener, socket) = (bind(server.0, server.1, 0)?, bind(client.0, client.1, 0)?);
    let server = listener.local_addr()?;
    let question = vec![b'?'; bytes];
    let mut buffer = vec![0; bytes + 1];
    socket.send_to(&question, server)?;
    let (length, from) = listener.recv_from(&mut buffer)?;
    assert_eq!(length, bytes);
    listener.send_to(&buffer[..length], from)?;
    assert_eq!(socket.recv_from(&mut buffer)?, (bytes, server));
    Ok(())
}

fn hosts(host: u8) -> [IpAddr; 2] {
    [host_v4(host).into(), host_v6(host).into()]
}

fn far(host: u8) -> [IpAddr; 2] {
    [far_v4(host).into(), far_v6(host).into()]
}

#[test]
fn backends_behind_the_router_are_reached_by_client_and_balancer() -> TestResult {
    lab_or_skip!();
    let network = topology::tunnel(1, 2)?;
    for (host, number) in [(&network.client, Routed::CLIENT), (&network.balancer, Routed::BALANCER)] {
        for (index, backend) in network.backends.iter().enumerate() {
            for (from, to) in hosts(number).into_iter().zip(far(Routed::backend(index))) {
                exchange((host, from), (backend, to), 100)?;
            }
        }
    }
    Ok(())
}

/// A backend says something to the client in a VIP's name, and the client gets it although it never asked there.
fn assert_answers_past_the_balancer(network: &Routed) -> TestResult {
    let capture = network.balancer.run(|| Capture::open(INTERFACE))?;
    for (vip, client) in [IpAddr::from(VIP_V4), VIP_V6.into()].into_iter().zip(hosts(Routed::CLIENT)) {
        let (server, socket) = (bind(&network.backends[0], vip, 7)?, bind(&network.client, client, 4_000)?);
        server.send_to(b"answer", (client, 4_000))?;
        let mut buffer = [0; 16];
        assert_eq!(socket.recv_from(&mut buffer)?, (6, SocketAddr::new(vip, 7)));
    }
    while let Some(frame) = capture.next(Duration::from_millis(50))? {
        assert!(!frame.bytes.windows(6).any(|window| window == b"answer"), "{frame:?}");
    }
    Ok(())
}

#[test]
fn backends_answer_in_the_name_of_a_vip_past_the_balancer() -> TestResult {
    lab_or_skip!();
    assert_answers_past_the_balancer(&topology::tunnel(1, 1)?)?;
    assert_answers_past_the_balancer(&topology::two_sided(1, 1)?)
}

#[test]
fn the_balancer_alone_is_asked_for_the_vips_in_every_network() -> TestResult {
    lab_or_skip!();
    for network in [topology::tunnel(1, 1)?, topology::two_sided(2, 1)?] {
        for (vip, client) in [IpAddr::from(VIP_V4), VIP_V6.into()].into_iter().zip(hosts(Routed::CLIENT)) {
            exchange((&network.client, client), (&network.balancer, vip), 100)?;
        }
    }
    let network = topology::nat(1, 1)?;
    for (vip, client) in [IpAddr::from(VIP_V4), VIP_V6.into()].into_iter().zip(hosts(Bridged::CLIENT)) {
        exchange((&network.client, client), (&network.balancer, vip), 100)?;
        assert!(bind(&network.backends[0], vip, 7).is_err(), "backends know nothing of {vip}");
    }
    Ok(())
}

#[test]
fn backends_answer_the_addresses_for_translation_straight_to_the_balancer() -> TestResult {
    lab_or_skip!();
    let addresses = [IpAddr::from(NAT_V4), NAT_V6.into()];
    let bridged = topology::nat(1, 2)?;
    for (from, to) in addresses.into_iter().zip(hosts(Bridged::backend(1))) {
        exchange((&bridged.balancer, from), (&bridged.backends[1], to), 100)?;
    }
    let two_sided = topology::two_sided(1, 2)?;
    let capture = two_sided.router.run(|| Capture::open(BACKEND_INTERFACE))?;
    for (from, to) in addresses.into_iter().zip(far(Routed::backend(1))) {
        exchange((&two_sided.balancer, from), (&two_sided.backends[1], to), 100)?;
    }
    while let Some(frame) = capture.next(Duration::from_millis(50))? {
        assert!(!frame.bytes.windows(100).any(|window| window == [b'?'; 100]), "by way of the router");
    }
    let tunnel = topology::tunnel(1, 2)?;
    for (from, to) in addresses.into_iter().zip(far(Routed::backend(1))) {
        exchange((&tunnel.balancer, from), (&tunnel.backends[1], to), 100)?;
    }
    Ok(())
}

/// Largest UDP payload that fits a path, by the client's kernel after it was told.
fn learned_mtu(host: &Namespace, to: IpAddr) -> TestResultOf<u32> {
    let output = host.ip(["route", "get", &to.to_string()])?;
    let words: Vec<&str> = output.split_whitespace().collect();
    let mtu = words.windows(2).find(|pair| pair[0] == "mtu").ok_or("no mtu learned")?[1].parse()?;
    Ok(mtu)
}

type TestResultOf<T> = Result<T, Box<dyn std::error::Error>>;

#[test]
fn a_tunnel_fits_between_balancer_and_backend_and_full_packets_reach_the_client() -> TestResult {
    lab_or_skip!();
    let network = topology::tunnel(1, 1)?;
    for (index, headers) in [(0, 28), (1, 48)] {
        let (balancer, client) = (hosts(Routed::BALANCER)[index], hosts(Routed::CLIENT)[index]);
        let backend = far(Routed::backend(0))[index];
        exchange((&network.balancer, balancer), (&network.backends[0], backend), 1600 - headers)?;
        exchange((&network.client, client), (&network.backends[0], backend), 1500 - headers)?;
    }
    Ok(())
}

#[test]
fn the_router_tells_the_balancer_and_the_backends_what_does_not_fit() -> TestResult {
    lab_or_skip!();
    let options = RoutedOptions { balancer_mtu: 1600, backend_mtu: 1400, ..RoutedOptions::default() };
    let narrow_backends = topology::tunnel_with(&options)?;
    let narrow_client = topology::tunnel(1, 1)?;
    for index in 0..2 {
        let (balancer, backend) = (hosts(Routed::BALANCER)[index], far(Routed::backend(0))[index]);
        assert_told(&narrow_backends.balancer, balancer, backend, 1400)?;
        let (backend, client) = (far(Routed::backend(0))[index], hosts(Routed::CLIENT)[index]);
        assert_told(&narrow_client.backends[0], backend, client, 1500)?;
    }
    Ok(())
}

/// A packet as long as the link takes is refused by the router, and the sender's kernel learns the MTU.
fn assert_told(host: &Namespace, from: IpAddr, to: IpAddr, mtu: u32) -> TestResult {
    let socket = bind(host, from, 0)?;
    let deadline = std::time::Instant::now() + WAIT;
    let headers = if from.is_ipv4() { 28 } else { 48 };
    loop {
        // Fails once the sender knows.
        let _ = socket.send_to(&vec![0; 1600 - headers], (to, 9));
        match learned_mtu(host, to) {
            Ok(learned) => {
                assert_eq!(learned, mtu, "{from} to {to}");
                return Ok(());
            }
            Err(error) if std::time::Instant::now() > deadline => return Err(error),
            Err(_) => std::thread::sleep(Duration::from_millis(10)),
        }
    }
}

#[test]
fn what_a_program_of_the_balancer_sends_back_crosses_both_switches() -> TestResult {
    use xfwd_netns::trafficgen::{
        Amount, Class, Counter, CounterOptions, CounterVerdict, Generator, Traffic,
    };
    lab_or_skip!();
    let network = topology::two_sided(2, 1)?;
    let reflect = CounterOptions { verdict: CounterVerdict::Reflect, ..CounterOptions::default() };
    let count = CounterOptions::default();
    for (sender, address, interface, to, port) in [
        (&network.client, host_v4(Routed::CLIENT), INTERFACE, VIP_V4, 0),
        (&network.backends[0], Routed::backend_v4(0), BACKEND_INTERFACE, far_v4(Routed::BALANCER), 1),
    ] {
        // Backends send by a kernel's stack only; here a program does.
        network.backend_switch.set_gro("backend1", true)?;
        let _reflector = network.balancer.run(|| Counter::attach(interface, &reflect))?;
        let back = sender.run(|| Counter::attach(INTERFACE, &count))?;
        let traffic = Traffic {
            destination_mac: network.balancer.mac(interface)?,
            rate_pps: Some(20_000),
            ..Traffic::udp(address.into(), to.into(), 80)
        };
        let sent = sender.run(|| Generator::new(INTERFACE, &traffic)?.run(Amount::Packets(2_000)))?;
        assert_eq!(sent.refused, Some(0), "{interface}");
        let deadline = std::time::Instant::now() + WAIT;
        while back.read()?.class(Class::Ipv4Udp).ours < 2_000 && std::time::Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(10));
        }
        assert_eq!(back.read()?.class(Class::Ipv4Udp).ours, 2_000, "{interface}");
        assert_eq!(network.balancer_ports[port].read()?.class(Class::Ipv4Udp).ours, 2_000, "{interface}");
    }
    Ok(())
}
