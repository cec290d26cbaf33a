//! All hosts on one bridge.

use super::{INTERFACE, host};
use crate::{
    error::Result,
    lab::{Lab, Namespace, VethOptions},
    trafficgen::Counter,
};

/// A network whose hosts are all on one bridge, the VIPs on the balancer's interface.
pub struct Bridged {
    /// Has the bridge `br0` with the ports `client`, `balancer`, `backend1`, `backend2`, …
    pub switch: Namespace,
    /// Host 1.
    pub client: Namespace,
    /// Host 2, with the VIPs on its interface.
    pub balancer: Namespace,
    /// Host 11, 12, …
    pub backends: Vec<Namespace>,
    /// Counts, and passes, what the balancer sends. Frames that its XDP program sends by XDP_TX would not get out
    /// without an XDP program at the switch's end.
    pub balancer_port: Counter,
    /// Owns all.
    pub lab: Lab,
}

/// An L2 direct server return network ([`dsr`]).
pub type Dsr = Bridged;
/// A network for address translation ([`nat`]).
pub type Nat = Bridged;

impl Bridged {
    /// Number of the client, for [`host_v4`](super::host_v4) and [`host_v6`](super::host_v6).
    pub const CLIENT: u8 = 1;
    /// Number of the balancer.
    pub const BALANCER: u8 = 2;

    /// Number of backend `index`, counted from 0.
    ///
    /// # Panics
    ///
    /// If `index` is above 200.
    pub const fn backend(index: usize) -> u8 {
        host::backend_number(index)
    }
}

/// Sets up an L2 direct server return network: the VIPs are on the balancer and on every backend. The balancer's veth has
/// `queues` queues, the others one.
///
/// The kernel of the balancer answers ARP and neighbour discovery for the VIPs; the backends have them on `lo` and keep
/// silent, so a balancer only has to change the destination MAC address, and answers go straight to the client.
///
/// # Errors
///
/// If a part cannot be set up.
///
/// # Panics
///
/// If `backends` is above 200.
pub fn dsr(queues: u32, backends: usize) -> Result<Dsr> {
    let network = bridged("dsr", queues, backends)?;
    for backend in &network.backends {
        host::add_vips(backend, "lo")?;
    }
    Ok(network)
}

/// Sets up a network for address translation: backends know nothing of the VIPs; the balancer has
/// [`NAT_V4`](super::NAT_V4) and [`NAT_V6`](super::NAT_V6), which everybody takes to be on the link. The balancer's veth
/// has `queues` queues, the others one.
///
/// # Errors
///
/// If a part cannot be set up.
///
/// # Panics
///
/// If `backends` is above 200.
pub fn nat(queues: u32, backends: usize) -> Result<Nat> {
    let network = bridged("nat", queues, backends)?;
    host::add_nat(&network.balancer, INTERFACE)?;
    Ok(network)
}

fn bridged(name: &str, queues: u32, backends: usize) -> Result<Bridged> {
    let lab = Lab::new(name)?;
    let switch = lab.namespace("switch")?;
    let client = lab.namespace("client")?;
    let balancer = lab.namespace("balancer")?;
    let mut ports = vec!["client".to_owned(), "balancer".to_owned()];

    let cable = VethOptions::default();
    lab.veth(&client, INTERFACE, &switch, "client", &cable)?;
    host::join(&client, Bridged::CLIENT)?;
    // The counter below makes GRO unnecessary there; it would merge what the balancer sends before it is looked at.
    let balancer_cable = VethOptions { queues, right_gro: false, ..cable.clone() };
    lab.veth(&balancer, INTERFACE, &switch, "balancer", &balancer_cable)?;
    host::join(&balancer, Bridged::BALANCER)?;
    host::add_balancer_vips(&balancer)?;

    let mut hosts = Vec::with_capacity(backends);
    for index in 0..backends {
        let name = format!("backend{}", index + 1);
        let backend = host::backend(&lab, &name)?;
        lab.veth(&backend, INTERFACE, &switch, &name, &cable)?;
        host::join(&backend, Bridged::backend(index))?;
        ports.push(name);
        hosts.push(backend);
    }
    let ports: Vec<&str> = ports.iter().map(String::as_str).collect();
    lab.bridge(&switch, "br0", &ports)?;
    let balancer_port = host::count(&switch, "balancer")?;
    Ok(Bridged { switch, client, balancer, backends: hosts, balancer_port, lab })
}
