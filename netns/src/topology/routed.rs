//! Clients and backends on two bridges, with a router between them.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::{BACKEND_INTERFACE, INTERFACE, NAT_V4, NAT_V6, far_v4, far_v6, host, host_v4, host_v6};
use crate::{
    error::Result,
    lab::{Lab, Namespace, VethOptions},
    trafficgen::Counter,
};

/// A network of two bridges with a router between them: the client on one, backends on the other, the balancer on the
/// client's ([`tunnel`]) or on both ([`two_sided`]).
///
/// ```text
/// client ── client_switch ── router ── backend_switch ── backend1, backend2, …
///               └─────── balancer ╌╌╌╌╌╌╌╌╌╌┘
/// ```
///
/// Backends have the VIPs on `lo` and answer the client by way of the router, past the balancer. GRO is off wherever
/// packets from the balancer pass, so that they are seen as they were sent.
pub struct Routed {
    /// Has the bridge `br0` with the ports `client`, `balancer` and `router`.
    pub client_switch: Namespace,
    /// Has the bridge `br0` with the ports `router`, `backend1`, `backend2`, … and `balancer` if that has a second
    /// interface.
    pub backend_switch: Namespace,
    /// Host 1.
    pub client: Namespace,
    /// Host 2, with the VIPs on [`INTERFACE`]; also far host 2 if it has a [`BACKEND_INTERFACE`].
    pub balancer: Namespace,
    /// Host 3 on [`INTERFACE`], far host 1 on [`BACKEND_INTERFACE`].
    pub router: Namespace,
    /// Far host 11, 12, …, with the VIPs on `lo`.
    pub backends: Vec<Namespace>,
    /// Count, and pass, what the balancer sends by each of its interfaces.
    pub balancer_ports: Vec<Counter>,
    /// Owns all.
    pub lab: Lab,
}

impl Routed {
    /// Number of the client, for [`host_v4`] and [`host_v6`].
    pub const CLIENT: u8 = 1;
    /// Number of the balancer, for [`host_v4`] and [`host_v6`], and for [`far_v4`] and [`far_v6`] if it is on both sides.
    pub const BALANCER: u8 = 2;
    /// Number of the router, for [`host_v4`] and [`host_v6`].
    pub const ROUTER: u8 = 3;
    /// Number of the router, for [`far_v4`] and [`far_v6`].
    pub const FAR_ROUTER: u8 = 1;

    /// Number of backend `index`, counted from 0, for [`far_v4`] and [`far_v6`].
    ///
    /// # Panics
    ///
    /// If `index` is above 200.
    pub const fn backend(index: usize) -> u8 {
        host::backend_number(index)
    }

    /// IPv4 address of backend `index`, counted from 0.
    ///
    /// # Panics
    ///
    /// If `index` is above 200.
    pub const fn backend_v4(index: usize) -> Ipv4Addr {
        far_v4(Self::backend(index))
    }

    /// IPv6 address of backend `index`, counted from 0.
    ///
    /// # Panics
    ///
    /// If `index` is above 200.
    pub const fn backend_v6(index: usize) -> Ipv6Addr {
        far_v6(Self::backend(index))
    }
}

/// How a [`Routed`] network is made.
#[derive(Clone, Debug)]
pub struct RoutedOptions {
    /// Queues of the balancer's interfaces; all others have one.
    pub queues: u32,
    /// Number of backends, 200 at most.
    pub backends: usize,
    /// MTU of the client, in bytes. The router keeps to it, too, for packets to the client.
    pub client_mtu: u32,
    /// MTU of the balancer's interfaces and of the router on the client's side, in bytes.
    pub balancer_mtu: u32,
    /// MTU of backends and of the router on their side, in bytes. Less than `balancer_mtu`: the router refuses what is
    /// longer by an ICMP error to the balancer, or fragments it.
    pub backend_mtu: u32,
}

impl Default for RoutedOptions {
    /// One queue, one backend, MTU 1,500 for the client and 1,600 from the balancer on: room for any tunnel.
    fn default() -> Self {
        Self { queues: 1, backends: 1, client_mtu: 1500, balancer_mtu: 1600, backend_mtu: 1600 }
    }
}

/// Sets up a network whose backends are behind a router, reached by address only. The balancer's veth has `queues` queues,
/// the others one. MTUs are those of [`RoutedOptions::default`].
///
/// # Errors
///
/// If a part cannot be set up.
///
/// # Panics
///
/// If `backends` is above 200.
pub fn tunnel(queues: u32, backends: usize) -> Result<Routed> {
    tunnel_with(&RoutedOptions { queues, backends, ..RoutedOptions::default() })
}

/// As [`tunnel`], with any options.
///
/// # Errors
///
/// If a part cannot be set up.
///
/// # Panics
///
/// If there are more than 200 backends.
pub fn tunnel_with(options: &RoutedOptions) -> Result<Routed> {
    let network = routed("tunnel", options, false)?;
    host::add_nat(&network.balancer, INTERFACE)?;
    route_to_far(&network.balancer)?;
    Ok(network)
}

/// Sets up a network whose balancer has one interface with the client and another with the backends, and no bridge between
/// them. Its veths have `queues` queues each, the others one. MTUs are those of [`RoutedOptions::default`].
///
/// It serves every way to the backends: they have the VIPs on `lo` and answer the client by way of the router, and answer
/// [`NAT_V4`] and [`NAT_V6`] straight to the balancer.
///
/// # Errors
///
/// If a part cannot be set up.
///
/// # Panics
///
/// If `backends` is above 200.
pub fn two_sided(queues: u32, backends: usize) -> Result<Routed> {
    two_sided_with(&RoutedOptions { queues, backends, ..RoutedOptions::default() })
}

/// As [`two_sided`], with any options.
///
/// # Errors
///
/// If a part cannot be set up.
///
/// # Panics
///
/// If there are more than 200 backends.
pub fn two_sided_with(options: &RoutedOptions) -> Result<Routed> {
    let network = routed("two", options, true)?;
    host::add_nat(&network.balancer, BACKEND_INTERFACE)?;
    let (v4, v6) = (far_v4(Routed::BALANCER), far_v6(Routed::BALANCER));
    for backend in &network.backends {
        backend.route(&format!("{NAT_V4}/32 via {v4}"))?;
        backend.route(&format!("{NAT_V6}/128 via {v6}"))?;
    }
    Ok(network)
}

fn routed(name: &str, options: &RoutedOptions, two_sided: bool) -> Result<Routed> {
    let lab = Lab::new(name)?;
    let client_switch = lab.namespace("switch1")?;
    let backend_switch = lab.namespace("switch2")?;
    let client = lab.namespace("client")?;
    let balancer = lab.namespace("balancer")?;
    let router = lab.namespace("router")?;

    // What the client sends by XDP_REDIRECT needs GRO, or a program, at the switch; nothing else does.
    let plain = VethOptions { left_gro: false, right_gro: false, ..VethOptions::default() };
    let client_cable = VethOptions { mtu: options.client_mtu, ..VethOptions::default() };
    let balancer_cable =
        VethOptions { queues: options.queues, mtu: options.balancer_mtu, left_gro: true, ..plain.clone() };
    let router_cable = VethOptions { mtu: options.balancer_mtu, ..plain.clone() };
    let backend_cable = VethOptions { mtu: options.backend_mtu, ..plain };

    lab.veth(&client, INTERFACE, &client_switch, "client", &client_cable)?;
    host::join(&client, Routed::CLIENT)?;
    route_to_far(&client)?;
    lab.veth(&balancer, INTERFACE, &client_switch, "balancer", &balancer_cable)?;
    host::join(&balancer, Routed::BALANCER)?;
    host::add_balancer_vips(&balancer)?;
    lab.veth(&router, INTERFACE, &client_switch, "router", &router_cable)?;
    lab.veth(&router, BACKEND_INTERFACE, &backend_switch, "router", &backend_cable)?;
    set_up_router(&router, options)?;

    let mut far_ports = vec!["router".to_owned()];
    if two_sided {
        lab.veth(&balancer, BACKEND_INTERFACE, &backend_switch, "balancer", &balancer_cable)?;
        host::join_far(&balancer, BACKEND_INTERFACE, Routed::BALANCER)?;
        far_ports.push("balancer".to_owned());
    }
    let mut backends = Vec::with_capacity(options.backends);
    for index in 0..options.backends {
        let name = format!("backend{}", index + 1);
        let backend = host::backend(&lab, &name)?;
        lab.veth(&backend, INTERFACE, &backend_switch, &name, &backend_cable)?;
        host::join_far(&backend, INTERFACE, Routed::backend(index))?;
        host::add_vips(&backend, "lo")?;
        backend.route(&format!("default via {}", far_v4(Routed::FAR_ROUTER)))?;
        backend.route(&format!("default via {}", far_v6(Routed::FAR_ROUTER)))?;
        far_ports.push(name);
        backends.push(backend);
    }

    lab.bridge(&client_switch, "br0", &["client", "balancer", "router"])?;
    let far_ports: Vec<&str> = far_ports.iter().map(String::as_str).collect();
    lab.bridge(&backend_switch, "br0", &far_ports)?;
    let mut balancer_ports = vec![host::count(&client_switch, "balancer")?];
    if two_sided {
        balancer_ports.push(host::count(&backend_switch, "balancer")?);
    }
    Ok(Routed { client_switch, backend_switch, client, balancer, router, backends, balancer_ports, lab })
}

/// The router forwards, says at once and to everybody what does not fit, and knows what the client's cable carries.
fn set_up_router(router: &Namespace, options: &RoutedOptions) -> Result<()> {
    host::join(router, Routed::ROUTER)?;
    host::join_far(router, BACKEND_INTERFACE, Routed::FAR_ROUTER)?;
    for (key, value) in [
        ("net.ipv4.ip_forward", "1"),
        ("net.ipv6.conf.all.forwarding", "1"),
        ("net.ipv4.icmp_ratelimit", "0"),
        ("net.ipv6.icmp.ratelimit", "0"),
    ] {
        router.sysctl(key, value)?;
    }
    let (v4, v6, mtu) = (host_v4(Routed::CLIENT), host_v6(Routed::CLIENT), options.client_mtu);
    router.route(&format!("{v4}/32 dev {INTERFACE} mtu lock {mtu}"))?;
    router.route(&format!("{v6}/128 dev {INTERFACE} mtu lock {mtu}"))
}

/// Sends what is for backends to the router.
fn route_to_far(host: &Namespace) -> Result<()> {
    host.route(&format!("198.19.0.0/16 via {}", host_v4(Routed::ROUTER)))?;
    host.route(&format!("2001:db8:1::/48 via {}", host_v6(Routed::ROUTER)))
}
