//! The network of the demonstration: who is in it, and what xfwd is told about it.

use std::any::Any;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::Result;
use clap::ValueEnum;
use xfwd_netns::clients::{hold, requests};
use xfwd_netns::decap::Decap;
use xfwd_netns::topology::{self, Bridged, NAT_V4, Routed, VIP_V4, host_v4};
use xfwd_netns::{Child, Namespace};

/// Backends, by weight.
const WEIGHTS: [u32; 3] = [2, 1, 1];
/// Port of the pages.
pub const PAGES: u16 = 80;
/// Port of the connections that are held.
pub const ECHO: u16 = 7;

/// Between two health checks of a backend.
const INTERVAL: Duration = Duration::from_secs(1);
/// How long a check may take.
const TIMEOUT: Duration = Duration::from_millis(500);
/// Failures in a row after which a backend gets no new connections.
const FALL: u32 = 2;

/// Way from the balancer to the backends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Way {
    /// Another MAC address; backends on the link answer the client themselves.
    Dsr,
    /// Addresses rewritten there and back; nothing is set up on the backends.
    Nat,
    /// IP in IP; backends behind a router answer the client themselves.
    Ipip,
}

/// A backend, with its servers running.
pub struct Backend {
    pub name: String,
    pub address: IpAddr,
    pub weight: u32,
    pub is_drained: bool,
    servers: Vec<Child>,
    _decap: Option<Decap>,
}

/// Everybody, each in a network namespace.
pub struct Site {
    pub client: Namespace,
    pub balancer: Namespace,
    pub backends: Vec<Backend>,
    way: Way,
    /// The last to go.
    _network: Box<dyn Any>,
}

impl Site {
    /// Sets it up; the servers listen when it returns.
    pub fn new(way: Way, queues: u32) -> Result<Self> {
        let count = WEIGHTS.len();
        let (client, balancer, hosts, network): (_, _, _, Box<dyn Any>) = match way {
            Way::Dsr | Way::Nat => {
                let make = if way == Way::Dsr { topology::dsr } else { topology::nat };
                let network = make(queues, count)?;
                let hosts = network.backends.clone();
                (network.client.clone(), network.balancer.clone(), hosts, Box::new(network))
            }
            Way::Ipip => {
                let network = topology::tunnel(queues, count)?;
                let hosts = network.backends.clone();
                (network.client.clone(), network.balancer.clone(), hosts, Box::new(network))
            }
        };
        let mut backends = Vec::with_capacity(count);
        for (index, (host, weight)) in hosts.iter().zip(WEIGHTS).enumerate() {
            let name = format!("backend{}", index + 1);
            let address: IpAddr = match way {
                Way::Ipip => Routed::backend_v4(index).into(),
                Way::Dsr | Way::Nat => host_v4(Bridged::backend(index)).into(),
            };
            let decap = if way == Way::Ipip { Some(Decap::start(host, &[])?) } else { None };
            // Clients come by the VIP, health checks by the backend's own address.
            let vip = (way != Way::Nat).then_some(VIP_V4.into());
            let at = |port| -> Vec<SocketAddr> {
                [Some(address), vip].into_iter().flatten().map(|ip| SocketAddr::new(ip, port)).collect()
            };
            let servers =
                vec![requests::serve_http(host, &name, &at(PAGES))?, hold::serve(host, &name, &at(ECHO))?];
            backends.push(Backend { name, address, weight, is_drained: false, servers, _decap: decap });
        }
        Ok(Self { client, balancer, backends, way, _network: network })
    }

    /// How the hosts are connected.
    pub fn picture(&self, queues: u32) -> String {
        let balancer = format!("balancer ({queues} queues, VIP {VIP_V4})");
        match self.way {
            Way::Ipip => format!(
                "client ── bridge ─┬─ {balancer}\n                  \
                 └─ router ── bridge ── backend1, backend2, backend3: HTTP and echo servers\n"
            ),
            Way::Dsr | Way::Nat => format!(
                "client ── bridge ─┬─ {balancer}\n                  \
                 └─ backend1, backend2, backend3: HTTP and echo servers\n"
            ),
        }
    }

    /// What xfwd is told now.
    pub fn config(&self) -> String {
        let way = match self.way {
            Way::Dsr => "dsr",
            Way::Nat => "nat",
            Way::Ipip => "ipip",
        };
        let mut text = String::new();
        for (name, port, check) in [("pages", PAGES, "http"), ("echo", ECHO, "tcp")] {
            text += &format!(
                "[[service]]\nname = \"{name}\"\nvip = \"{VIP_V4}\"\nprotocol = \"tcp\"\nport = {port}\nforward = \"{way}\"\n\n\
                 [service.health]\ntype = \"{check}\"\ninterval = \"{}ms\"\ntimeout = \"{}ms\"\nrise = 2\nfall = {FALL}\n\n",
                INTERVAL.as_millis(),
                TIMEOUT.as_millis(),
            );
            for backend in &self.backends {
                let state = if backend.is_drained { "state = \"drain\"\n" } else { "" };
                text += &format!(
                    "[[service.backend]]\naddress = \"{}\"\nweight = {}\n{state}\n",
                    backend.address, backend.weight
                );
            }
        }
        if self.way == Way::Nat {
            text += &format!("[nat]\naddresses = [\"{NAT_V4}\"]\n");
        }
        text
    }

    /// Ends the servers of a backend at once, as if they had crashed.
    pub fn kill(&mut self, backend: usize) {
        self.backends[backend].servers.clear();
    }

    /// Number of a backend by what its servers call themselves.
    pub fn index_of(&self, name: &str) -> Option<usize> {
        self.backends.iter().position(|backend| backend.name == name)
    }
}

/// How long it may take until a backend that has died gets no new connections.
pub fn fall_time() -> Duration {
    INTERVAL * FALL + TIMEOUT
}
