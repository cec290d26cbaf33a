//! A network with servers on all backends, for each way to them, and its config.

use std::{
    any::Any,
    net::{IpAddr, SocketAddr},
    thread,
    time::{Duration, Instant},
};

use xfwd_netns::{
    Child, Namespace,
    clients::{hold, requests},
    decap::Decap,
    topology::{
        self, Bridged, INTERFACE, NAT_V4, NAT_V6, Routed, RoutedOptions, VIP_V4, VIP_V6, host_v4, host_v6,
    },
};

use crate::running::{PATIENCE, Xfwd};

pub const HTTP: u16 = 80;
/// TCP and UDP.
pub const ECHO: u16 = 7;
/// Queues of the balancer, and so workers.
pub const QUEUES: u32 = 2;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    Dsr,
    Ipip,
    Nat,
}

impl Way {
    pub fn name(self) -> &'static str {
        match self {
            Self::Dsr => "dsr",
            Self::Ipip => "ipip",
            Self::Nat => "nat",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    V4,
    V6,
}

impl Family {
    pub fn vip(self) -> IpAddr {
        match self {
            Self::V4 => VIP_V4.into(),
            Self::V6 => VIP_V6.into(),
        }
    }
}

/// A backend as the config has it.
#[derive(Clone, Copy, Debug)]
pub struct Line {
    pub index: usize,
    pub weight: u32,
    pub state: &'static str,
}

pub fn up(index: usize) -> Line {
    Line { index, weight: 1, state: "up" }
}

/// A network whose backends are all of one family.
pub struct Site {
    pub way: Way,
    pub family: Family,
    pub client: Namespace,
    pub balancer: Namespace,
    pub backends: Vec<Namespace>,
    pub addresses: Vec<IpAddr>,
    /// By backend.
    servers: Vec<Vec<Child>>,
    _decaps: Vec<Decap>,
    _network: Box<dyn Any>,
}

impl Site {
    /// Servers are running.
    pub fn new(way: Way, family: Family, backends: usize) -> Self {
        let mut site = Self::without_servers(way, family, backends);
        (0..backends).for_each(|index| site.serve(index));
        site
    }

    pub fn without_servers(way: Way, family: Family, backends: usize) -> Self {
        let network = match way {
            Way::Ipip => {
                let options = RoutedOptions { queues: QUEUES, backends, ..RoutedOptions::default() };
                return Self::routed(way, family, &options);
            }
            Way::Dsr => topology::dsr(QUEUES, backends).unwrap(),
            Way::Nat => topology::nat(QUEUES, backends).unwrap(),
        };
        Self::on_one_bridge(way, family, network)
    }

    /// On the link of the balancer, with servers.
    pub fn bridged(way: Way, family: Family, network: Bridged) -> Self {
        let mut site = Self::on_one_bridge(way, family, network);
        (0..site.backends.len()).for_each(|index| site.serve(index));
        site
    }

    fn on_one_bridge(way: Way, family: Family, network: Bridged) -> Self {
        let backends = network.backends.len();
        let address = |index| match family {
            Family::V4 => host_v4(Bridged::backend(index)).into(),
            Family::V6 => host_v6(Bridged::backend(index)).into(),
        };
        Self {
            way,
            family,
            client: network.client.clone(),
            balancer: network.balancer.clone(),
            backends: network.backends.clone(),
            addresses: (0..backends).map(address).collect(),
            servers: (0..backends).map(|_| Vec::new()).collect(),
            _decaps: Vec::new(),
            _network: Box::new(network),
        }
    }

    /// Backends behind a router. No servers are running.
    pub fn routed(way: Way, family: Family, options: &RoutedOptions) -> Self {
        let network = topology::tunnel_with(options).unwrap();
        let address = |index| match family {
            Family::V4 => Routed::backend_v4(index).into(),
            Family::V6 => Routed::backend_v6(index).into(),
        };
        let decaps = network.backends.iter().map(|backend| Decap::start(backend, &[]).unwrap());
        Self {
            way,
            family,
            client: network.client.clone(),
            balancer: network.balancer.clone(),
            backends: network.backends.clone(),
            addresses: (0..options.backends).map(address).collect(),
            servers: (0..options.backends).map(|_| Vec::new()).collect(),
            _decaps: decaps.collect(),
            _network: Box::new(network),
        }
    }

    /// Starts the servers of a backend, on its own address, and the VIP where it has that.
    pub fn serve(&mut self, index: usize) {
        let (backend, name) = (&self.backends[index], name(index));
        let own = self.addresses[index];
        let addresses = if self.way == Way::Nat { vec![own] } else { vec![own, self.family.vip()] };
        let at = |port| -> Vec<SocketAddr> {
            addresses.iter().map(|address| SocketAddr::new(*address, port)).collect()
        };
        self.servers[index] = vec![
            requests::serve_http(backend, &name, &at(HTTP)).unwrap(),
            requests::serve_udp(backend, &name, &at(ECHO)).unwrap(),
            hold::serve(backend, &name, &at(ECHO)).unwrap(),
        ];
    }

    /// Ends the servers of a backend by SIGKILL.
    pub fn kill(&mut self, index: usize) {
        self.servers[index].clear();
    }

    pub fn at(&self, port: u16) -> SocketAddr {
        SocketAddr::new(self.family.vip(), port)
    }

    /// A config of the services `tcp80`, `tcp7` and `udp7` with these backends; each has the lines `extra`.
    pub fn config(&self, backends: &[Line], extra: &str) -> String {
        let mut text = self.settings();
        for (protocol, port) in [("tcp", HTTP), ("tcp", ECHO), ("udp", ECHO)] {
            text += &self.service(&format!("{protocol}{port}"), protocol, port, backends, extra);
        }
        text
    }

    /// The tables that all services share.
    pub fn settings(&self) -> String {
        match self.way {
            Way::Nat => nat_settings(),
            _ => String::new(),
        }
    }

    /// A service on the VIP.
    pub fn service(&self, name: &str, protocol: &str, port: u16, backends: &[Line], extra: &str) -> String {
        let (way, vip) = (self.way.name(), self.family.vip());
        let mut text = format!(
            "[[service]]\nname = \"{name}\"\nvip = \"{vip}\"\nprotocol = \"{protocol}\"\nport = {port}\n\
             forward = \"{way}\"\n{extra}\n"
        );
        for Line { index, weight, state } in backends {
            let address = self.addresses[*index];
            text += &format!(
                "[[service.backend]]\naddress = \"{address}\"\nweight = {weight}\nstate = \"{state}\"\n"
            );
        }
        text
    }

    pub fn start(&self, config: &str) -> Xfwd {
        start(&self.balancer, config)
    }
}

pub fn start(balancer: &Namespace, config: &str) -> Xfwd {
    start_where(balancer, config, &[])
}

/// With these variables in its environment.
pub fn start_where(balancer: &Namespace, config: &str, environment: &[(&str, &str)]) -> Xfwd {
    let queues = QUEUES.to_string();
    Xfwd::start_where(balancer, &["--iface", INTERFACE, "--queues", &queues], config, environment)
}

/// The pool of addresses and ports that `nat` needs.
pub fn nat_settings() -> String {
    format!("[nat]\naddresses = [\"{NAT_V4}\", \"{NAT_V6}\"]\nports = \"32768-65535\"\n")
}

pub fn name(index: usize) -> String {
    format!("backend{}", index + 1)
}

/// Goes on by another config; how many milliseconds it says that took.
pub fn reload(xfwd: &Xfwd, config: &str) -> u64 {
    let said = reread(xfwd, config);
    let line = said.lines().find(|line| line.starts_with("reloaded ")).unwrap_or_else(|| panic!("{said}"));
    assert!(line.contains(&*xfwd.config().to_string_lossy()), "{line}");
    let milliseconds = line.strip_suffix(" ms").and_then(|line| line.rsplit(' ').next());
    milliseconds.and_then(|number| number.parse().ok()).unwrap_or_else(|| panic!("{line}"))
}

/// Shows it a config that it does not go on by; what it says then.
pub fn refused(xfwd: &Xfwd, config: &str) -> String {
    let said = reread(xfwd, config);
    assert!(said.contains("nothing has changed: the config that ran goes on"), "{said}");
    said
}

fn reread(xfwd: &Xfwd, config: &str) -> String {
    let mark = xfwd.said().len();
    xfwd.reload(config);
    wait_said(xfwd, mark, |said| {
        said.ends_with('\n') && (said.contains("\nnothing has changed: ") || said.contains("reloaded "))
    })
}

/// Waits until what it has said since `mark` bytes is as wanted, and returns that.
pub fn wait_said(xfwd: &Xfwd, mark: usize, is_wanted: impl Fn(&str) -> bool) -> String {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let said = xfwd.said();
        if is_wanted(&said[mark..]) {
            return said[mark..].to_owned();
        }
        assert!(Instant::now() < deadline, "not said:\n{}", &said[mark..]);
        thread::sleep(Duration::from_millis(5));
    }
}
