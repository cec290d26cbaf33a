//! Networks that are used more than once.
//!
//! Addresses are from the ranges set aside for benchmarks (198.18.0.0/15, RFC 2544) and documentation (2001:db8::/32,
//! RFC 3849).

use std::net::{Ipv4Addr, Ipv6Addr};

use crate::{
    error::Result,
    lab::{Lab, Namespace, VethOptions},
    trafficgen::{Counter, CounterOptions, CounterVerdict},
};

/// Name of the interface that every host of a topology has.
pub const INTERFACE: &str = "eth0";

/// IPv4 VIP of [`dsr`].
pub const VIP_V4: Ipv4Addr = Ipv4Addr::new(198, 18, 10, 1);
/// IPv6 VIP of [`dsr`].
pub const VIP_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x10, 0, 0, 0, 0, 1);

/// Address number `host` in 198.18.0.0/15.
pub const fn host_v4(host: u8) -> Ipv4Addr {
    Ipv4Addr::new(198, 18, 0, host)
}

/// Address number `host` in 2001:db8::/32, which reads as the number does: host 11 has 2001:db8::11.
pub const fn host_v6(host: u8) -> Ipv6Addr {
    let host = host as u16;
    let digits = (host / 100) << 8 | (host / 10 % 10) << 4 | host % 10;
    Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, digits)
}

/// Two hosts on one cable.
#[derive(Debug)]
pub struct Pair {
    /// Host 1: 198.18.0.1 and 2001:db8::1.
    pub generator: Namespace,
    /// Host 2: 198.18.0.2 and 2001:db8::2.
    pub subject: Namespace,
    /// Owns both.
    pub lab: Lab,
}

impl Pair {
    /// Number of the host [`generator`](Self::generator), for [`host_v4`] and [`host_v6`].
    pub const GENERATOR: u8 = 1;
    /// Number of the host [`subject`](Self::subject).
    pub const SUBJECT: u8 = 2;
}

/// A generator and a subject joined by one veth pair with this many queues on each end, MTU 1,500.
///
/// # Errors
///
/// If a part cannot be set up.
pub fn pair(queues: u32) -> Result<Pair> {
    pair_with(&VethOptions {
        queues,
        ..VethOptions::default()
    })
}

/// As [`pair`], with any options (left is the generator).
///
/// # Errors
///
/// If a part cannot be set up.
pub fn pair_with(options: &VethOptions) -> Result<Pair> {
    let lab = Lab::new("pair")?;
    let generator = lab.namespace("generator")?;
    let subject = lab.namespace("subject")?;
    lab.veth(&generator, INTERFACE, &subject, INTERFACE, options)?;
    join(&generator, Pair::GENERATOR)?;
    join(&subject, Pair::SUBJECT)?;
    Ok(Pair {
        generator,
        subject,
        lab,
    })
}

/// An L2 direct server return network: all hosts on one bridge, the VIP on the balancer and on every backend.
///
/// The kernel of the balancer answers ARP and neighbour discovery for the VIPs; the backends have them on `lo` and keep
/// silent, so a balancer only has to change the destination MAC address, and answers go straight to the client.
pub struct Dsr {
    /// Has the bridge `br0` with the ports `client`, `balancer`, `backend1`, `backend2`, …
    pub switch: Namespace,
    /// Host 1.
    pub client: Namespace,
    /// Host 2, with the VIPs on its interface.
    pub balancer: Namespace,
    /// Host 11, 12, …, with the VIPs on `lo`.
    pub backends: Vec<Namespace>,
    /// Counts, and passes, what the balancer sends. Frames that its XDP program sends by XDP_TX would not get out
    /// without an XDP program at the switch's end.
    pub balancer_port: Counter,
    /// Owns all.
    pub lab: Lab,
}

impl Dsr {
    /// Number of the client, for [`host_v4`] and [`host_v6`].
    pub const CLIENT: u8 = 1;
    /// Number of the balancer.
    pub const BALANCER: u8 = 2;

    /// Number of backend `index`, counted from 0.
    ///
    /// # Panics
    ///
    /// If `index` is above 200.
    pub const fn backend(index: usize) -> u8 {
        assert!(index <= 200);
        11 + index as u8
    }
}

/// Sets up a [`Dsr`] network. The balancer's veth has `queues` queues, the others one.
///
/// # Errors
///
/// If a part cannot be set up.
///
/// # Panics
///
/// If `backends` is above 200.
pub fn dsr(queues: u32, backends: usize) -> Result<Dsr> {
    let lab = Lab::new("dsr")?;
    let switch = lab.namespace("switch")?;
    let client = lab.namespace("client")?;
    let balancer = lab.namespace("balancer")?;
    let vips = [format!("{VIP_V4}/32"), format!("{VIP_V6}/128")];
    let mut ports = vec!["client".to_owned(), "balancer".to_owned()];

    let cable = VethOptions::default();
    lab.veth(&client, INTERFACE, &switch, "client", &cable)?;
    join(&client, Dsr::CLIENT)?;
    lab.veth(
        &balancer,
        INTERFACE,
        &switch,
        "balancer",
        &VethOptions {
            queues,
            ..cable.clone()
        },
    )?;
    join(&balancer, Dsr::BALANCER)?;
    for vip in &vips {
        balancer.address(INTERFACE, vip)?;
    }

    let mut hosts = Vec::with_capacity(backends);
    for index in 0..backends {
        let name = format!("backend{}", index + 1);
        let backend = lab.namespace(&name)?;
        for scope in ["all", "default"] {
            // Answer ARP only for addresses of the interface that was asked, and ask in their name only.
            backend.sysctl(&format!("net.ipv4.conf.{scope}.arp_ignore"), "1")?;
            backend.sysctl(&format!("net.ipv4.conf.{scope}.arp_announce"), "2")?;
        }
        lab.veth(&backend, INTERFACE, &switch, &name, &cable)?;
        join(&backend, Dsr::backend(index))?;
        for vip in &vips {
            // Neighbour discovery answers for addresses of the interface that was asked anyway.
            backend.address("lo", vip)?;
        }
        ports.push(name);
        hosts.push(backend);
    }
    let ports: Vec<&str> = ports.iter().map(String::as_str).collect();
    lab.bridge(&switch, "br0", &ports)?;
    let pass = CounterOptions {
        verdict: CounterVerdict::Pass,
        ..CounterOptions::default()
    };
    let balancer_port = switch.run(|| Counter::attach("balancer", &pass))?;
    Ok(Dsr {
        switch,
        client,
        balancer,
        backends: hosts,
        balancer_port,
        lab,
    })
}

/// Gives a host its addresses, and takes packets from wherever they come.
fn join(namespace: &Namespace, host: u8) -> Result<()> {
    for scope in ["all", "default", INTERFACE] {
        namespace.sysctl(&format!("net.ipv4.conf.{scope}.rp_filter"), "0")?;
    }
    namespace.address(INTERFACE, &format!("{}/15", host_v4(host)))?;
    namespace.address(INTERFACE, &format!("{}/32", host_v6(host)))
}
