//! Labs, their namespaces, and the links between them.

use std::{
    collections::BTreeMap,
    fmt, fs,
    net::IpAddr,
    os::fd::{AsFd, BorrowedFd},
    panic,
    path::PathBuf,
    process::{self, Command, Output},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    thread,
};

use nix::{
    sched::{CloneFlags, setns},
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{
    error::{Error, Result},
    ethtool::{self, Feature},
    iproute::{ip, line},
    process::{Child, enter_at_exec},
};

/// First part of the name of every namespace of every lab.
const PREFIX: &str = "xfwd";
/// Where `ip netns` keeps namespaces.
const DIRECTORY: &str = "/run/netns";

/// A set of network namespaces that are removed, with the processes inside, when it is dropped.
///
/// Names are `xfwd-<pid>-<counter>-<lab>-<namespace>`, so any number of labs can exist at once.
#[derive(Debug)]
pub struct Lab {
    name: String,
    namespaces: Mutex<Vec<String>>,
}

impl Lab {
    /// Starts an empty lab. `name` is a part of the names of its namespaces.
    ///
    /// Labs whose process has died without cleaning up (SIGKILL) are removed first.
    ///
    /// # Errors
    ///
    /// None today: the system is first touched by [`namespace`](Self::namespace).
    pub fn new(name: &str) -> Result<Self> {
        static COUNTER: AtomicU32 = AtomicU32::new(0);
        remove_orphans();
        let counter = COUNTER.fetch_add(1, Ordering::Relaxed);
        Ok(Self {
            name: format!("{PREFIX}-{}-{counter}-{name}", process::id()),
            namespaces: Mutex::default(),
        })
    }

    /// Creates a namespace, with loopback up, IPv6 duplicate address detection and router solicitations off.
    ///
    /// # Errors
    ///
    /// If `ip` fails, or `name` is taken.
    pub fn namespace(&self, name: &str) -> Result<Namespace> {
        let name = format!("{}-{name}", self.name);
        ip(["netns", "add", &name])?;
        self.namespaces
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(name.clone());
        let path = PathBuf::from(DIRECTORY).join(&name);
        let handle = fs::File::open(&path).map_err(|source| Error::System {
            call: "open",
            subject: path.display().to_string(),
            source,
        })?;
        let namespace = Namespace {
            inner: Arc::new(Inner { name, handle }),
        };
        namespace.up("lo")?;
        for scope in ["all", "default"] {
            for (key, value) in [("accept_dad", "0"), ("dad_transmits", "0"), ("accept_ra", "0")] {
                namespace.sysctl(&format!("net.ipv6.conf.{scope}.{key}"), value)?;
            }
            namespace.sysctl(&format!("net.ipv6.conf.{scope}.router_solicitations"), "0")?;
        }
        Ok(namespace)
    }

    /// Joins two namespaces by a veth pair, both ends up.
    ///
    /// Transmit checksum offload, TSO and GSO are off at both ends, so that packets on the wire are of MTU size and
    /// carry full checksums, as on a cable.
    ///
    /// # Errors
    ///
    /// If `ip` or an ethtool request fails.
    pub fn veth(
        &self,
        left: &Namespace,
        left_interface: &str,
        right: &Namespace,
        right_interface: &str,
        options: &VethOptions,
    ) -> Result<()> {
        let queues = options.queues.to_string();
        let mtu = options.mtu.to_string();
        let size = ["mtu", &mtu, "numtxqueues", &queues, "numrxqueues", &queues];
        let mut arguments = vec!["-n", left.name(), "link", "add", "name", left_interface];
        arguments.extend(size);
        arguments.extend([
            "type",
            "veth",
            "peer",
            "name",
            right_interface,
            "netns",
            right.name(),
        ]);
        arguments.extend(size);
        ip(arguments)?;
        for (namespace, interface) in [(left, left_interface), (right, right_interface)] {
            namespace.run(|| {
                let offloads = [Feature::TxChecksum, Feature::Tso, Feature::Gso];
                offloads
                    .iter()
                    .try_for_each(|feature| ethtool::set_feature(interface, *feature, false))
            })?;
            namespace.up(interface)?;
        }
        // Linux marks the other end as one that XDP can send from only if GRO is turned on while this end is up.
        left.set_gro(left_interface, options.left_gro)?;
        right.set_gro(right_interface, options.right_gro)?;
        Ok(())
    }

    /// Creates a bridge in `namespace` with these interfaces as ports, all up. It learns and forwards at once (no STP)
    /// and floods multicast, so ARP and neighbour discovery work.
    ///
    /// # Errors
    ///
    /// If `ip` fails.
    pub fn bridge(&self, namespace: &Namespace, name: &str, ports: &[&str]) -> Result<()> {
        namespace.ip([
            "link",
            "add",
            "name",
            name,
            "type",
            "bridge",
            "mcast_snooping",
            "0",
        ])?;
        for port in ports {
            namespace.ip(["link", "set", "dev", port, "master", name])?;
        }
        namespace.up(name)
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let namespaces = self.namespaces.get_mut().unwrap_or_else(PoisonError::into_inner);
        for name in namespaces.drain(..) {
            remove(&name);
        }
    }
}

/// Ends the processes in a namespace and removes it. Both may already have happened.
fn remove(name: &str) {
    if let Ok(pids) = ip(["netns", "pids", name]) {
        for pid in pids.lines().filter_map(|line| line.trim().parse().ok()) {
            if pid != process::id().cast_signed() {
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
        }
    }
    let _ = ip(["netns", "del", name]);
}

/// Removes the namespaces of labs whose process no longer exists.
fn remove_orphans() {
    let Ok(entries) = fs::read_dir(DIRECTORY) else {
        return;
    };
    for name in entries
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
    {
        if let Some(pid) = owner(&name)
            && !PathBuf::from(format!("/proc/{pid}")).exists()
        {
            remove(&name);
        }
    }
}

/// The process that a namespace of a lab belongs to, by its name.
fn owner(name: &str) -> Option<u32> {
    let mut parts = name.splitn(5, '-');
    if parts.next()? != PREFIX {
        return None;
    }
    let pid = parts.next()?.parse().ok()?;
    let _counter: u32 = parts.next()?.parse().ok()?;
    parts.next()?;
    parts.next()?;
    Some(pid)
}

/// How a veth pair is made.
#[derive(Clone, Debug)]
pub struct VethOptions {
    /// Receive and transmit queues of each end.
    pub queues: u32,
    /// MTU of both ends, in bytes.
    pub mtu: u32,
    /// GRO on the left end. An end receives frames that were sent by XDP_REDIRECT only if it has an XDP program or GRO,
    /// either of which gives it NAPI. Frames sent by XDP_TX it receives only if it has an XDP program: with GRO alone they
    /// fill its ring and stay there (seen on Linux 6.18). Frames sent by an AF_XDP socket in copy mode always arrive.
    pub left_gro: bool,
    /// GRO on the right end.
    pub right_gro: bool,
}

impl Default for VethOptions {
    /// One queue, MTU 1,500, GRO on both ends.
    fn default() -> Self {
        Self {
            queues: 1,
            mtu: 1500,
            left_gro: true,
            right_gro: true,
        }
    }
}

/// A network namespace of a [`Lab`]. Clones mean the same namespace.
#[derive(Clone, Debug)]
pub struct Namespace {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    name: String,
    handle: fs::File,
}

impl Namespace {
    /// Its name, as `ip netns list` shows it.
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// The file that `nsenter --net=` takes.
    pub fn path(&self) -> PathBuf {
        PathBuf::from(DIRECTORY).join(self.name())
    }

    /// The open namespace.
    pub(crate) fn handle(&self) -> BorrowedFd<'_> {
        self.inner.handle.as_fd()
    }

    /// Runs `ip -n <namespace>` with these arguments and returns its output.
    ///
    /// # Errors
    ///
    /// [`Error::Command`] with what `ip` said.
    pub fn ip<'a>(&'a self, arguments: impl IntoIterator<Item = &'a str>) -> Result<String> {
        ip(["-n", self.name()].into_iter().chain(arguments))
    }

    /// Brings an interface up.
    ///
    /// # Errors
    ///
    /// As [`ip`](Self::ip).
    pub fn up(&self, interface: &str) -> Result<()> {
        self.ip(["link", "set", "dev", interface, "up"]).map(drop)
    }

    /// Gives an interface an address, such as `198.18.0.2/15` or `2001:db8::2/32`.
    ///
    /// # Errors
    ///
    /// As [`ip`](Self::ip).
    pub fn address(&self, interface: &str, address: &str) -> Result<()> {
        let mut arguments = vec!["address", "add", address, "dev", interface];
        if address.contains(':') {
            arguments.push("nodad");
        }
        self.ip(arguments).map(drop)
    }

    /// Adds a route, such as `10.0.0.0/8 via 198.18.0.1`.
    ///
    /// # Errors
    ///
    /// As [`ip`](Self::ip).
    pub fn route(&self, route: &str) -> Result<()> {
        self.ip(["route", "add"].into_iter().chain(route.split_whitespace()))
            .map(drop)
    }

    /// Adds a permanent ARP or neighbour entry.
    ///
    /// # Errors
    ///
    /// As [`ip`](Self::ip).
    pub fn neighbour(&self, interface: &str, address: IpAddr, mac: MacAddress) -> Result<()> {
        let (address, mac) = (address.to_string(), mac.to_string());
        self.ip([
            "neigh",
            "replace",
            &address,
            "lladdr",
            &mac,
            "dev",
            interface,
            "nud",
            "permanent",
        ])
        .map(drop)
    }

    /// Sets a kernel parameter of this namespace, such as `net.ipv4.conf.all.arp_ignore`.
    ///
    /// # Errors
    ///
    /// [`Error::System`] if it does not exist or does not take the value.
    pub fn sysctl(&self, key: &str, value: &str) -> Result<()> {
        // In `key`, as with sysctl(8), a `/` stands for a dot inside a name.
        let path: String = key
            .chars()
            .map(|c| match c {
                '.' => '/',
                '/' => '.',
                other => other,
            })
            .collect();
        let path = format!("/proc/sys/{path}");
        // /proc/sys/net shows the namespace of the thread that looks.
        self.run(|| fs::write(&path, value))
            .map_err(|source| Error::System {
                call: "write",
                subject: path,
                source,
            })
    }

    /// MAC address of an interface.
    ///
    /// # Errors
    ///
    /// [`Error::Missing`] if there is no such interface, or it has no MAC address.
    pub fn mac(&self, interface: &str) -> Result<MacAddress> {
        self.run(|| MacAddress::of(interface))
    }

    /// The driver's own statistics of an interface, by name, as `ethtool -S` shows them.
    ///
    /// # Errors
    ///
    /// [`Error::System`] if the interface does not exist or its driver has none.
    pub fn statistics(&self, interface: &str) -> Result<BTreeMap<String, u64>> {
        self.run(|| ethtool::statistics(interface))
    }

    /// Turns GRO of an interface on or off.
    ///
    /// # Errors
    ///
    /// [`Error::System`] if the interface does not exist.
    pub fn set_gro(&self, interface: &str, on: bool) -> Result<()> {
        self.run(|| ethtool::set_feature(interface, Feature::Gro, on))
    }

    /// Runs a closure on a thread inside the namespace and returns what it returns. Sockets opened there stay in the
    /// namespace wherever they are used.
    ///
    /// # Panics
    ///
    /// If the closure does, or the kernel refuses to enter the namespace (no CAP_SYS_ADMIN).
    pub fn run<T: Send>(&self, inside: impl FnOnce() -> T + Send) -> T {
        let result = thread::scope(|scope| {
            let work = move || {
                if let Err(error) = setns(self.handle(), CloneFlags::CLONE_NEWNET) {
                    panic!("cannot enter the namespace {}: {error}", self.name());
                }
                inside()
            };
            scope.spawn(work).join()
        });
        result.unwrap_or_else(|payload| panic::resume_unwind(payload))
    }

    /// Starts a process inside the namespace, with its output captured. It is killed when the returned value is
    /// dropped.
    ///
    /// # Errors
    ///
    /// [`Error::Spawn`] if it cannot be started.
    pub fn spawn(&self, command: &mut Command) -> Result<Child> {
        Child::spawn(self, command)
    }

    /// Runs a process inside the namespace to its end.
    ///
    /// # Errors
    ///
    /// [`Error::Spawn`] if it cannot be started; how it ended is in the result.
    pub fn output(&self, command: &mut Command) -> Result<Output> {
        enter_at_exec(self, command);
        command.output().map_err(|source| Error::Spawn {
            command: line(command),
            source,
        })
    }
}

/// A MAC address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct MacAddress(pub [u8; 6]);

impl MacAddress {
    /// MAC address of an interface of the calling thread's namespace.
    ///
    /// # Errors
    ///
    /// [`Error::Missing`] if there is no such interface, or it has no MAC address.
    pub fn of(interface: &str) -> Result<Self> {
        let addresses = nix::ifaddrs::getifaddrs().map_err(|error| Error::System {
            call: "getifaddrs",
            subject: interface.to_owned(),
            source: error.into(),
        })?;
        let mut macs = addresses
            .filter(|entry| entry.interface_name == interface)
            .filter_map(|entry| entry.address?.as_link_addr()?.addr());
        let missing = || Error::Missing {
            interface: interface.to_owned(),
            what: "MAC address",
        };
        macs.next().map(Self).ok_or_else(missing)
    }
}

impl fmt::Display for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// The text is not six pairs of hexadecimal digits with colons between.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a MAC address looks like 02:00:00:00:00:01")]
pub struct ParseMacError;

impl std::str::FromStr for MacAddress {
    type Err = ParseMacError;

    fn from_str(text: &str) -> std::result::Result<Self, ParseMacError> {
        let mut bytes = [0; 6];
        let mut parts = text.split(':');
        for byte in &mut bytes {
            let part = parts.next().filter(|part| part.len() == 2).ok_or(ParseMacError)?;
            *byte = u8::from_str_radix(part, 16).map_err(|_| ParseMacError)?;
        }
        if parts.next().is_some() {
            Err(ParseMacError)
        } else {
            Ok(Self(bytes))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owner_is_read_from_lab_names_only() {
        assert_eq!(owner("xfwd-123-0-web-client"), Some(123));
        assert_eq!(owner("xfwd-123-0-web-client-2"), Some(123));
        assert_eq!(owner("xfwd-web-0-x-client"), None);
        assert_eq!(owner("xfwd-123"), None);
        assert_eq!(owner("other-123-0-web-client"), None);
    }

    #[test]
    fn mac_addresses_are_read_as_they_are_shown() {
        let text = "02:00:5e:10:00:ff";
        assert_eq!(text.parse::<MacAddress>().unwrap().to_string(), text);
        for wrong in [
            "",
            "02:00:5e:10:00",
            "02:00:5e:10:00:ff:01",
            "2:0:5e:10:0:ff",
            "zz:00:5e:10:00:ff",
        ] {
            assert_eq!(wrong.parse::<MacAddress>(), Err(ParseMacError), "{wrong}");
        }
    }
}
