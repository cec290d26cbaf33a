//! A VXLAN tunnel endpoint (RFC 7348): joins a local Ethernet segment to one behind another endpoint, over an IPv4 network.
//!
//! Usage, as root: `vxlan_gateway LOCAL UNDERLAY VNI REMOTE [QUEUES]`, such as `vxlan_gateway eth1 eth0 42 198.18.0.9 4`: what comes in by
//! eth1 goes as VXLAN number 42 to the endpoint 198.18.0.9, by eth0, and back, until Ctrl-C. The other end may be another of
//! these, a switch, or Linux: `ip link add vx0 type vxlan id 42 local 198.18.0.9 remote 198.18.0.2 dstport 4789`.
//!
//! LOCAL belongs to the gateway as a whole: every frame there leaves the kernel, and goes into the tunnel. It needs no
//! address and must not be the interface that your SSH session comes by. Of UNDERLAY only VXLAN to this host leaves the kernel, which
//! keeps its addresses, answers ARP, and tells where the remote endpoint is reached (`kernel::next_hops`): a stage asks nobody, it
//! is told. With a single remote endpoint there is nothing to learn and nothing to choose.
//!
//! 50 bytes go in front of each frame. The XDP program has made room for them (`Runner::room`), so nothing is copied on the way out; on
//! the way back the frame moves to the front of its buffer, where AF_XDP sends from. The UDP source port comes from the hash of the inner flow, so that routers and NICs on the way, which look at outer headers only, spread
//! flows and keep each in order. The UDP checksum is 0, "none", as RFC 7348 wants it over IPv4: the inner packet has its own.
//!
//! Endpoints must not fragment (section 4.3), so give the underlay an MTU that is 50 bytes larger, or the hosts one that is 50 bytes
//! smaller. What does not fit is dropped and counted: a bridge has no address to complain from. Frames with a VLAN
//! tag are refused in both directions (section 6.1).

use std::error::Error;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use crossbeam::queue::ArrayQueue;
use signal_hook::consts::TERM_SIGNALS;
use signal_hook::iterator::Signals;
use xfwd::kernel::link::Link;
use xfwd::kernel::next_hops::{NextHop, NextHops};
use xfwd::packet::{Ethernet, Fragment, Ipv4, Udp, flow_hash_of, protocol};
use xfwd::pipeline::{NoRoom, PortIndex};
use xfwd::prelude::*;

const PORT: u16 = 4_789;
const LOCAL: PortIndex = 0;
const UNDERLAY: PortIndex = 1;
/// Bytes of an Ethernet header.
const LINK: usize = 14;
/// Bytes of all outer headers: Ethernet, IPv4, UDP, VXLAN.
const OUTER: usize = LINK + 20 + 8 + 8;
/// "The VNI is valid", the one flag that there is.
const VNI_FLAG: u8 = 0x08;

/// The stage. Each worker has its own.
struct Gateway {
    here: Ipv4Addr,
    there: Ipv4Addr,
    vni: u32,
    /// What the kernel says of the way to the other end; the newest only.
    inbox: Arc<ArrayQueue<Option<NextHop>>>,
    hop: Option<NextHop>,
    longest_local: usize,
    encapsulated: StageCounter,
    decapsulated: StageCounter,
    too_long: StageCounter,
}

impl Gateway {
    fn encapsulate(&self, frame: &mut Packet<'_>) -> Result<Verdict, DropReason> {
        let hop = self.hop.ok_or(DropReason::NoNeighbour)?;
        let inner = frame.len();
        if frame.headers().vlan_count > 0 {
            return Err(DropReason::Rule);
        }
        if inner + OUTER - LINK > hop.mtu as usize {
            self.too_long.add(1);
            return Err(DropReason::TooBig);
        }
        // ARP and the like, with no flow to hash, are one flow.
        let hash = flow_hash_of(frame.bytes(), frame.headers()).unwrap_or_default();
        frame.push_front(OUTER).map_err(|NoRoom| DropReason::NoRoom)?;
        let headers = frame.bytes_mut().first_chunk_mut().ok_or(DropReason::NoRoom)?;
        self.write(headers, &hop, inner, hash).ok_or(DropReason::NoRoom)?;
        self.encapsulated.add(1);
        Ok(Verdict::Forward(UNDERLAY))
    }

    /// Writes the outer headers. They are long enough, so this never ends early.
    fn write(&self, bytes: &mut [u8; OUTER], hop: &NextHop, inner: usize, hash: u64) -> Option<()> {
        *bytes = [0; OUTER];
        let mut ethernet = Ethernet::new_checked(&mut bytes[..]).ok()?;
        ethernet.set_destination(hop.destination);
        ethernet.set_source(hop.source);
        ethernet.set_ethertype(protocol::ETHERTYPE_IPV4);
        // Version 4, and a header of five words.
        bytes[14] = 0x45;
        let mut ip = Ipv4::new_checked(&mut bytes[14..]).ok()?;
        ip.set_total_bytes((inner + OUTER - 14) as u16);
        ip.set_dont_fragment(true);
        ip.set_ttl(64);
        ip.set_protocol(protocol::UDP);
        ip.set_source(self.here);
        ip.set_destination(self.there);
        ip.fill_checksum();
        let mut udp = Udp::new_checked(&mut bytes[34..]).ok()?;
        // 49,152 to 65,535: the dynamic ports.
        udp.set_source_port(0xc000 | (hash >> 50) as u16);
        udp.set_destination_port(PORT);
        udp.set_length_bytes((inner + OUTER - 34) as u16);
        bytes[42] = VNI_FLAG;
        bytes[46..].copy_from_slice(&(self.vni << 8).to_be_bytes());
        Some(())
    }

    fn decapsulate(&self, packet: &mut Packet<'_>) -> Result<Verdict, DropReason> {
        let (start, end) = self.inner(packet).ok_or(DropReason::Rule)?;
        // What is behind the datagram is padding.
        if packet.len() > end {
            packet.resize(end).map_err(|NoRoom| DropReason::NoRoom)?;
        }
        packet.pull_front(start).map_err(|NoRoom| DropReason::NoRoom)?;
        packet.reparse();
        if packet.len() < LINK || packet.headers().vlan_count > 0 {
            return Err(DropReason::Rule);
        }
        if packet.len() > self.longest_local {
            self.too_long.add(1);
            return Err(DropReason::TooBig);
        }
        self.decapsulated.add(1);
        Ok(Verdict::Forward(LOCAL))
    }

    /// Where the inner frame lies, if the packet is from the other end and of our network.
    fn inner(&self, packet: &Packet<'_>) -> Option<(usize, usize)> {
        let (headers, ip) = (packet.headers(), packet.ipv4()?);
        let (start, end) = (usize::from(headers.payload_offset), headers.end as usize);
        let vxlan: &[u8; 8] = packet.bytes().get(start..)?.first_chunk()?;
        let is_ours = headers.fragment() == Fragment::No
            && (headers.protocol, headers.dst_port) == (protocol::UDP, PORT)
            && (ip.source(), ip.destination()) == (self.there, self.here)
            && ip.has_valid_checksum()
            && vxlan[0] & VNI_FLAG != 0
            && vxlan[4..7] == self.vni.to_be_bytes()[1..];
        (is_ours && start + vxlan.len() <= end).then_some((start + vxlan.len(), end))
    }
}

impl Stage for Gateway {
    fn name(&self) -> &str {
        "vxlan-gateway"
    }

    fn housekeeping(&mut self) {
        if let Some(hop) = self.inbox.pop() {
            self.hop = hop;
        }
    }

    fn process(&mut self, batch: &mut Batch<'_>) {
        let from = batch.port();
        batch.each_undecided(|packet| {
            let done = if from == LOCAL { self.encapsulate(packet) } else { self.decapsulate(packet) };
            done.unwrap_or_else(Verdict::Drop)
        });
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [local, underlay, vni, remote, queues @ ..] = &arguments[..] else {
        return Err("usage: vxlan_gateway LOCAL UNDERLAY VNI REMOTE [QUEUES]".into());
    };
    let (vni, there): (u32, Ipv4Addr) = (vni.parse()?, remote.parse()?);
    if vni >> 24 != 0 {
        return Err("a VNI has 24 bits".into());
    }
    let queues: u32 = queues.first().map_or(Ok(1), |queues| queues.parse())?;
    // Before anything is set up, so that no signal is missed.
    let mut signals = Signals::new(TERM_SIGNALS)?;

    // One message for each worker: a newer one takes the place of one that was not read.
    let inboxes: Vec<_> = (0..queues).map(|_| Arc::new(ArrayQueue::new(1))).collect();
    let told = inboxes.clone();
    let next_hops = NextHops::start(vec![Link::find(underlay)?.index], vec![there.into()], move |changes| {
        // Headers with a VLAN tag would be four bytes longer.
        let hop =
            changes.last().and_then(|change| change.next_hop.clone().ok()).filter(|hop| hop.vlan.is_none());
        told.iter().for_each(|inbox| _ = inbox.force_push(hop));
    })?;
    if let Some((_, why)) = next_hops.wait_resolved(Duration::from_secs(5)).pop() {
        return Err(why.into());
    }
    let hop = next_hops.current().remove(&there.into()).ok_or("no next hop")??;
    let (Some(IpAddr::V4(here)), None) = (hop.preferred_source, hop.vlan) else {
        return Err("the underlay needs an IPv4 address, and no VLAN".into());
    };
    let needed = Link::find(local)?.mtu as usize + OUTER;
    if needed > hop.mtu as usize {
        eprintln!(
            "warning: an MTU of {needed} is needed towards {remote}, it is {}: full frames are dropped",
            hop.mtu
        );
    }

    let running = Runner::new()
        .interface_with(local, Steer::Everything)
        .interface(underlay)
        .room(OUTER as u8)
        .queues(queues)
        .steer(SteeredService::udp(SocketAddr::new(here.into(), PORT)))
        .stage(move |worker| Gateway {
            here,
            there,
            vni,
            inbox: Arc::clone(&inboxes[worker.worker()]),
            hop: None,
            longest_local: worker.interfaces()[usize::from(LOCAL)].mtu as usize + LINK,
            encapsulated: worker.counter("encapsulated"),
            decapsulated: worker.counter("decapsulated"),
            too_long: worker.counter("too long"),
        })
        .start()?;
    running.warnings().iter().for_each(|warning| eprintln!("warning: {warning}"));
    eprintln!("tunnelling {local} to {remote}");

    signals.forever().next();
    let (snapshot, errors) = running.stop();
    let counts = ["encapsulated", "decapsulated", "too long"]
        .map(|name| format!("{} {name}", snapshot.counters[name]));
    println!("{}, {} dropped in all", counts.join(", "), snapshot.totals.verdicts.drop);
    errors.into_iter().next().map_or(Ok(()), |error| Err(error.into()))
}
