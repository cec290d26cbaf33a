//! Services of whole prefixes, port ranges and all ports.

use std::{
    io::{Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener},
    process::Command,
    thread,
    time::Duration,
};

use xfwd_netns::{
    Namespace,
    clients::hold,
    lab_or_skip,
    topology::{Bridged, host_v4, host_v6},
};

use crate::{
    ask,
    running::PATIENCE,
    site::{Family, Site, Way, name, start},
};

/// An address of the prefix that is routed to the balancer.
fn address(family: Family, host: u8) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::new(198, 18, 20, host).into(),
        Family::V6 => Ipv6Addr::new(0x2001, 0xdb8, 0x20, 0, 0, 0, 0, host.into()).into(),
    }
}

fn prefixes(way: Way, family: Family) {
    lab_or_skip!();
    let site = Site::without_servers(way, family, 3);
    let (full, wide, narrow, any): (_, _, _, IpAddr) = match family {
        Family::V4 => (32, 24, 25, Ipv4Addr::UNSPECIFIED.into()),
        Family::V6 => (128, 120, 121, Ipv6Addr::UNSPECIFIED.into()),
    };
    let whole = format!("{}/{wide}", address(family, 0));
    let balancer: IpAddr = match family {
        Family::V4 => host_v4(Bridged::BALANCER).into(),
        Family::V6 => host_v6(Bridged::BALANCER).into(),
    };
    site.client.route(&format!("{whole} via {balancer}")).unwrap();
    // What no service takes is the host's own, or nobody's.
    let own = |host: &Namespace, prefix: &str| host.route(&format!("local {prefix} dev lo")).unwrap();
    site.balancer.address("lo", &format!("{}/{full}", address(family, 7))).unwrap();
    let mut servers = Vec::new();
    for (index, backend) in site.backends.iter().enumerate() {
        own(backend, &whole);
        let ports = [8_000, 8_050, 8_100, 22, 65_535].map(|port| SocketAddr::new(any, port));
        servers.push(hold::serve(backend, &name(index), &ports).unwrap());
    }
    let service = |name: &str, vip: String, port: &str, backend: usize| {
        format!(
            "[[service]]\nname = \"{name}\"\nvip = \"{vip}\"\nprotocol = \"tcp\"\nport = {port}\nforward = \"{}\"\n\
             [[service.backend]]\naddress = \"{}\"\n",
            way.name(),
            site.addresses[backend]
        )
    };
    let config = [
        service("range", whole.clone(), "\"8000-8100\"", 0),
        service("upper-half", format!("{}/{narrow}", address(family, 128)), "8050", 1),
        service("all", address(family, 5).to_string(), "\"all\"", 2),
        site.settings(),
    ];
    let xfwd = start(&site.balancer, &config.concat());

    let cases = [
        (1, 8_000, 0),
        (1, 8_050, 0),
        (127, 8_100, 0),
        // The longest prefix wins where it has the port.
        (128, 8_050, 1),
        (255, 8_050, 1),
        (200, 8_000, 0),
        (5, 22, 2),
        (5, 8_050, 2),
        (5, 65_535, 2),
    ];
    for (host, port, backend) in cases {
        let to = SocketAddr::new(address(family, host), port);
        let answered = ask::tcp(&site.client, to, PATIENCE);
        assert_eq!(answered.unwrap_or_else(|error| panic!("{to}: {error}")), name(backend), "{to}");
    }
    // Ports and protocols of no service are the host's.
    for port in [7_999, 8_101, 22] {
        assert_host_answers(&site, SocketAddr::new(address(family, 7), port));
    }
    let to = SocketAddr::new(address(family, 1), 22);
    assert!(ask::tcp(&site.client, to, Duration::from_millis(300)).is_err(), "{to} is nobody's");

    // Echo requests to addresses that the host does not have.
    for host in [1, 5, 254] {
        let address = address(family, host).to_string();
        let ping = ["-c", "2", "-i", "0.1", "-W", "5", "-s", "1000", &address];
        let output = site.client.output(Command::new("ping").args(ping)).unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && text.contains(" 0% packet loss"), "{text}");
    }
    let summary = xfwd.stop().summary();
    assert_eq!(summary.number("/totals/lost"), 0, "{}", summary.0);
    let of = |service| summary.backends(service, "connections").iter().map(|(_, count)| count).sum::<u64>();
    assert_eq!((of("range"), of("upper-half"), of("all")), (4, 2, 3), "{}", summary.0);
}

fn assert_host_answers(site: &Site, to: SocketAddr) {
    let listener = site.balancer.run(|| TcpListener::bind(to)).unwrap();
    let server = thread::spawn(move || {
        let (mut stream, _) = listener.accept()?;
        stream.write_all(b"the host\n")
    });
    let mut stream = ask::connect(&site.client, ask::fresh_port(), to, PATIENCE).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "the host\n", "{to}");
    server.join().unwrap().unwrap();
}

#[test]
fn prefixes_and_port_ranges_by_dsr() {
    prefixes(Way::Dsr, Family::V4);
}

#[test]
fn prefixes_and_port_ranges_by_dsr_over_ipv6() {
    prefixes(Way::Dsr, Family::V6);
}

#[test]
fn prefixes_and_port_ranges_by_nat() {
    prefixes(Way::Nat, Family::V4);
}

#[test]
fn prefixes_and_port_ranges_by_nat_over_ipv6() {
    prefixes(Way::Nat, Family::V6);
}
