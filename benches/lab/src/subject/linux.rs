//! The host's own ways to forward between two ports: a bridge, and routing.
//!
//! Without more, the kernel forwards on the core on which the packet came in, which is the generator's; a user-space subject has a
//! core of its own. So receive packet steering (RPS, Documentation/networking/scaling.rst) brings packets to the subject's.

use std::process::Command;

use anyhow::{Result, ensure};
use xfwd_netns::MacAddress;
use xfwd_netns::topology::{BACKEND_INTERFACE, INTERFACE, VIP_V4};

use super::{Outcome, Own, Running, Subject};
use crate::bench::Bench;
use crate::site::{SINK, Site};

const BRIDGE: &str = "br0";

/// How Linux forwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Linux {
    /// By a bridge with both ports.
    Bridge,
    /// By a route.
    Routing,
}

impl Subject for Linux {
    fn name(&self) -> String {
        match self {
            Self::Bridge => "Linux bridge",
            Self::Routing => "Linux routing",
        }
        .to_owned()
    }

    /// A bridge sends on what is not for itself.
    fn destination(&self, site: &Site) -> Result<MacAddress> {
        let sink = site.sink.as_ref().filter(|_| *self == Self::Bridge);
        Ok(sink.unwrap_or(&site.subject).mac(INTERFACE)?)
    }

    fn start(&self, bench: &Bench, site: &Site) -> Outcome<Box<dyn Running>> {
        steer_to_subject(bench, site)?;
        match self {
            Self::Bridge => {
                site.subject.ip(["link", "add", "name", BRIDGE, "type", "bridge", "mcast_snooping", "0"])?;
                for port in [INTERFACE, BACKEND_INTERFACE] {
                    site.subject.ip(["link", "set", "dev", port, "master", BRIDGE])?;
                }
                site.subject.up(BRIDGE)?;
            }
            Self::Routing => {
                site.subject.sysctl("net.ipv4.ip_forward", "1")?;
                if let Some(sink) = &site.sink {
                    site.subject.neighbour(BACKEND_INTERFACE, SINK.into(), sink.mac(INTERFACE)?)?;
                    site.subject.route(&format!("{VIP_V4}/32 via {SINK}"))?;
                }
            }
        }
        Ok(Box::new(SetUp))
    }
}

/// Has the subject's core handle what arrives at the first interface.
pub fn steer_to_subject(bench: &Bench, site: &Site) -> Result<()> {
    let mask = bench.cores.subject.iter().fold(0_u64, |mask, core| mask | 1 << (core % 64));
    // `ip netns exec` shows the namespace's own /sys.
    let script =
        format!("for f in /sys/class/net/{INTERFACE}/queues/rx-*/rps_cpus; do echo {mask:x} > $f; done");
    let output =
        Command::new("ip").args(["netns", "exec", site.subject.name(), "sh", "-c", &script]).output()?;
    ensure!(output.status.success(), "cannot set rps_cpus: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// It works by itself and goes with the namespace.
struct SetUp;

impl Running for SetUp {
    fn stop(self: Box<Self>) -> Result<Own> {
        Ok(Own::default())
    }
}
