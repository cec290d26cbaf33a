//! A transparent bridge between two interfaces that learns who is where (IEEE 802.1D, clause 7).
//!
//! Usage, as root: `l2_bridge IF1 IF2 [QUEUES]`, such as `l2_bridge eth1 eth2 4`. Hosts on either side then reach each other as on one
//! segment: ARP, neighbour discovery, broadcast and all. It ends by Ctrl-C and says what it did.
//!
//! A bridge has no address; it has to see every frame, whoever it is for. That is what `Runner::steer_everything` asks for: ARP
//! too, and what is addressed to this machine, which **cannot be reached by these two interfaces** while the bridge runs. They
//! are promiscuous for as long, since a NIC otherwise takes only frames to its own MAC address. Never name the
//! interface that your SSH session comes by.
//!
//! From each frame the bridge learns that its source address is on the port it came in by. A frame to an address that is known to be
//! on that same port has arrived already, and goes no further; all others go to the other port. With two ports
//! that is all of "flooding": no frame is ever copied. With more of them a stage would make copies (`Batch::allocate`).
//!
//! Every worker has a table of its own, without a lock: it learns from the frames of its queue. What one worker does not know, since
//! the NIC hashed the frames of that host to another, costs a frame sent in vain and breaks nothing. The table has a
//! fixed size: a sender that invents addresses pushes out others, and makes the bridge forward more than it must, which is
//! what any switch does then.
//!
//! There is no spanning tree protocol here, so do not build loops; but its frames pass, so that switches which speak it find a
//! loop through this bridge.

use std::error::Error;
use std::time::{Duration, Instant};

use signal_hook::consts::TERM_SIGNALS;
use signal_hook::iterator::Signals;
use xfwd::packet::Ethernet;
use xfwd::pipeline::PortIndex;
use xfwd::prelude::*;

/// How long a silent host is remembered (802.1D, table 7-5).
pub const AGEING: Duration = Duration::from_secs(300);
/// Sets of the table: a power of two. With four ways, 4,096 hosts.
const SETS: usize = 1 << 10;
const WAYS: usize = 4;
/// Bytes of an Ethernet header with one VLAN tag; the MTU does not count them.
const LINK_BYTES: usize = Ethernet::<&[u8]>::HEADER_BYTES + 4;

/// Where a host was seen last, and when.
#[derive(Clone, Copy)]
struct Station {
    mac: MacAddress,
    port: PortIndex,
    seen: Instant,
}

/// The stations, in sets by a hash of their address.
struct Stations(Box<[[Option<Station>; WAYS]]>);

impl Stations {
    fn new() -> Self {
        Self(vec![[None; WAYS]; SETS].into_boxed_slice())
    }

    fn set(&mut self, mac: MacAddress) -> &mut [Option<Station>; WAYS] {
        let [a, b, c, d, e, f] = mac.octets();
        // Fibonacci hashing: the product's upper bits depend on all of the address.
        let number = u64::from_be_bytes([0, 0, a, b, c, d, e, f]).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        &mut self.0[(number >> 54) as usize % SETS]
    }

    /// Notes that a host is on this port, in place of what was known of it, or else of whom nothing was heard for longest.
    fn learn(&mut self, station: Station) {
        let set = self.set(station.mac);
        let known = set.iter().position(|way| way.is_some_and(|known| known.mac == station.mac));
        let oldest = || (0..WAYS).min_by_key(|&way| set[way].map(|known| known.seen));
        let way = known.or_else(oldest).unwrap_or_default();
        set[way] = Some(station);
    }

    fn port_of(&mut self, mac: MacAddress, now: Instant) -> Option<PortIndex> {
        let station = self.set(mac).iter().flatten().find(|known| known.mac == mac)?;
        (now.duration_since(station.seen) < AGEING).then_some(station.port)
    }
}

/// The stage: a worker's half of the bridge.
pub struct Bridge {
    stations: Stations,
    /// Longest frames that the ports send, in bytes.
    longest: Vec<usize>,
    forwarded: StageCounter,
    flooded: StageCounter,
    filtered: StageCounter,
}

impl Bridge {
    /// The stage of a worker with two ports.
    pub fn new(worker: &WorkerContext) -> Self {
        let longest = worker.interfaces().iter().map(|port| port.mtu as usize + LINK_BYTES).collect();
        let [forwarded, flooded, filtered] =
            ["forwarded", "flooded", "filtered"].map(|name| worker.counter(name));
        Self { stations: Stations::new(), longest, forwarded, flooded, filtered }
    }

    fn judge(&mut self, frame: &Packet<'_>, from: PortIndex, now: Instant) -> Verdict {
        let Ok(ethernet) = Ethernet::new_checked(frame.bytes()) else {
            return Verdict::Drop(DropReason::Malformed);
        };
        let (source, destination) = (ethernet.source(), ethernet.destination());
        // Nobody sends in the name of a group.
        if !source.is_unicast() {
            return Verdict::Drop(DropReason::Malformed);
        }
        self.stations.learn(Station { mac: source, port: from, seen: now });
        let to = 1 - from;
        let place = self.stations.port_of(destination, now);
        if place == Some(from) || ends_here(destination) {
            self.filtered.add(1);
            return Verdict::Drop(DropReason::Rule);
        }
        // A bridge cannot say so to the sender: both sides need one MTU.
        if frame.len() > self.longest[usize::from(to)] {
            return Verdict::Drop(DropReason::TooBig);
        }
        if place.is_some() { &self.forwarded } else { &self.flooded }.add(1);
        Verdict::Forward(to)
    }
}

/// Groups that no bridge forwards (802.1D, table 7-10), such as pause frames, LACP and LLDP: they are between two neighbours. All but the
/// one of the spanning tree protocol, in which this bridge has no part.
fn ends_here(destination: MacAddress) -> bool {
    let [group @ .., last] = destination.octets();
    group == [0x01, 0x80, 0xc2, 0, 0] && (1..=0x0f).contains(&last)
}

impl Stage for Bridge {
    fn name(&self) -> &str {
        "l2-bridge"
    }

    /// MAC addresses are always in the same place: nothing has to be parsed.
    fn reads_headers(&self) -> bool {
        false
    }

    fn process(&mut self, batch: &mut Batch<'_>) {
        let (from, now) = (batch.port(), batch.now());
        batch.each_undecided(|frame| self.judge(frame, from, now));
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [first, second, queues @ ..] = &arguments[..] else {
        return Err("usage: l2_bridge IF1 IF2 [QUEUES]".into());
    };
    let queues = queues.first().map_or(Ok(1), |queues| queues.parse())?;
    // Before anything is set up, so that no signal is missed.
    let mut signals = Signals::new(TERM_SIGNALS)?;

    let running = Runner::new()
        .interfaces([first, second])
        .queues(queues)
        .steer_everything()
        .stage(Bridge::new)
        .start()?;
    running.warnings().iter().for_each(|warning| eprintln!("warning: {warning}"));
    eprintln!("bridging {first} and {second}");

    signals.forever().next();
    let (snapshot, errors) = running.stop();
    let count = |name| snapshot.counters[name];
    println!(
        "{} forwarded, {} flooded, {} filtered",
        count("forwarded"),
        count("flooded"),
        count("filtered")
    );
    errors.into_iter().next().map_or(Ok(()), |error| Err(error.into()))
}
