//! What hosts of several topologies have in common.

use std::net::IpAddr;

use super::{INTERFACE, NAT_V4, NAT_V6, VIP_V4, VIP_V6, far_v4, far_v6, host_v4, host_v6};
use crate::{
    error::Result,
    lab::{Lab, Namespace},
    trafficgen::{Counter, CounterOptions, CounterVerdict},
};

/// Gives a host its addresses, and takes packets from wherever they come.
pub(super) fn join(host: &Namespace, number: u8) -> Result<()> {
    take_from_anywhere(host, INTERFACE)?;
    host.address(INTERFACE, &format!("{}/15", host_v4(number)))?;
    host.address(INTERFACE, &format!("{}/32", host_v6(number)))
}

/// As [`join`], behind the router.
pub(super) fn join_far(host: &Namespace, interface: &str, number: u8) -> Result<()> {
    take_from_anywhere(host, interface)?;
    host.address(interface, &format!("{}/16", far_v4(number)))?;
    host.address(interface, &format!("{}/48", far_v6(number)))
}

/// No reverse path filter: answers and questions need not take the same way.
fn take_from_anywhere(host: &Namespace, interface: &str) -> Result<()> {
    for scope in ["all", "default", interface] {
        host.sysctl(&format!("net.ipv4.conf.{scope}.rp_filter"), "0")?;
    }
    Ok(())
}

/// A backend that is not on a cable yet. It answers ARP only for addresses of the interface that was asked, and asks in
/// their name only; neighbour discovery does that anyway.
pub(super) fn backend(lab: &Lab, name: &str) -> Result<Namespace> {
    let backend = lab.namespace(name)?;
    for scope in ["all", "default"] {
        backend.sysctl(&format!("net.ipv4.conf.{scope}.arp_ignore"), "1")?;
        backend.sysctl(&format!("net.ipv4.conf.{scope}.arp_announce"), "2")?;
    }
    Ok(backend)
}

/// Gives the balancer the VIPs. What it sends itself is to come from its own addresses, but a VIP of 128 bits can be nearer to a
/// backend's address than they are (RFC 6724, rule 8): so the VIP is deprecated (rule 3).
pub(super) fn add_balancer_vips(balancer: &Namespace) -> Result<()> {
    add_vips(balancer, INTERFACE)?;
    let vip = format!("{VIP_V6}/128");
    balancer.ip(["address", "change", &vip, "dev", INTERFACE, "nodad", "preferred_lft", "0"]).map(drop)
}

/// Gives an interface the VIPs.
pub(super) fn add_vips(host: &Namespace, interface: &str) -> Result<()> {
    add(host, interface, [VIP_V4.into(), VIP_V6.into()])
}

/// Gives an interface the addresses for translation.
pub(super) fn add_nat(host: &Namespace, interface: &str) -> Result<()> {
    add(host, interface, [NAT_V4.into(), NAT_V6.into()])
}

fn add(host: &Namespace, interface: &str, addresses: [IpAddr; 2]) -> Result<()> {
    addresses.iter().try_for_each(|address| {
        let bits = if address.is_ipv4() { 32 } else { 128 };
        host.address(interface, &format!("{address}/{bits}"))
    })
}

/// Counts, and passes, what arrives at an interface of a switch. Frames that an XDP program at the other end of the cable
/// sends by XDP_TX would not arrive without a program here.
pub(super) fn count(switch: &Namespace, port: &str) -> Result<Counter> {
    let pass = CounterOptions { verdict: CounterVerdict::Pass, ..CounterOptions::default() };
    switch.run(|| Counter::attach(port, &pass))
}

/// Number of backend `index`, counted from 0.
pub(super) const fn backend_number(index: usize) -> u8 {
    assert!(index <= 200);
    11 + index as u8
}
