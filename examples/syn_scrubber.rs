//! A router that lets only those who are really there open TCP connections to a server behind it (RFC 4987).
//!
//! Usage, as root: `syn_scrubber OUTSIDE INSIDE ADDRESS:PORT [QUEUES]`, such as `syn_scrubber eth0 eth1 198.19.0.11:80 4`: clients
//! come in by the interface OUTSIDE, the server's address is reached by INSIDE. The host routes between them
//! (`net.ipv4.ip_forward`, `net.ipv6.conf.all.forwarding`), and its kernel does so with everything but what clients send to this port:
//! that leaves the kernel, is scrubbed and forwarded to the server here. It cannot stand on the server itself, since what has left a
//! kernel is not given back to it. It ends by Ctrl-C and says what it did.
//!
//! A SYN is small, and the server remembers each: a flood of them, with sources made up, fills its memory. So a source that is not
//! known is asked a question that costs no memory: a SYN-ACK that acknowledges a number the client has not sent. Who has sent the
//! SYN, and only they, know that this is wrong, and answer with a RST that repeats the number (RFC 9293, section 3.5.2). The number is
//! a keyed hash of addresses, ports and time, a *cookie*, so the RST proves that somebody is at that address. From then on its
//! SYNs are let through; the client sends the one that was not answered again (Linux at once, others after a second), and
//! client and server agree on all options between themselves, of which a proxy that answers SYNs would have to know. All
//! other segments go to the server as they come: there they find a connection, or cost a RST.
//!
//! Sources that send SYNs and answer no question, and known ones that send far too many, get on the deny list for a while: the
//! XDP program drops what they send, before it is looked at. Whoever can guess the address of a client can have it denied for
//! that time, hence it is short, and the limits are high (`syn_scrubber/sources.rs`). What a real scrubber does in addition:
//! other questions for clients behind firewalls that swallow the odd SYN-ACK, ICMP errors for what expires here or is
//! too long for INSIDE, one table of sources for all workers instead of one each, and limits for the server as a whole.

#[path = "syn_scrubber/sources.rs"]
mod sources;

use std::error::Error;
use std::hash::{BuildHasher, RandomState};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use signal_hook::consts::TERM_SIGNALS;
use signal_hook::iterator::Signals;
use sources::{Sources, Standing};
use xfwd::DenyList;
use xfwd::kernel::deny::DenyEntry;
use xfwd::kernel::link::Link;
use xfwd::kernel::next_hops::NextHops;
use xfwd::packet::{FiveTuple, Tcp};
use xfwd::pipeline::EditError;
use xfwd::prelude::*;
use xfwd::stages::filter::Prefix;

/// Index of the interface with the server.
const INSIDE: u8 = 1;
/// A source in IPv6 is a network of 64 bits, in which a host takes what addresses it likes; in IPv4 it is an address.
const SOURCE_BITS: u8 = 64;
/// How long a source is denied.
const DENIED: Duration = Duration::from_secs(5);
/// A cookie is good for as many seconds, or up to twice as many.
const COOKIE_SECONDS: u32 = 8;
/// Hops that a question may take (the default of RFC 1700).
const HOPS: u8 = 64;

struct Scrubber {
    /// Of cookies, the same in all workers: SipHash with a random key.
    key: RandomState,
    started: Instant,
    /// Seconds since then.
    now: u32,
    sources: Sources,
    deny: DenyList,
    inside: MacAddress,
    /// The MAC address of the next hop to the server as a number, which another thread keeps up to date.
    next_hop: Arc<AtomicU64>,
    challenged: StageCounter,
    admitted: StageCounter,
    forwarded: StageCounter,
    refused: StageCounter,
}

impl Stage for Scrubber {
    fn name(&self) -> &str {
        "syn-scrubber"
    }

    fn process(&mut self, batch: &mut Batch<'_>) {
        self.now = batch.now().duration_since(self.started).as_secs() as u32;
        batch.each_undecided(|packet| {
            let Some(flow) = FiveTuple::of(packet.bytes(), packet.headers()) else {
                return Verdict::Drop(DropReason::Malformed);
            };
            let (flags, sequence) = packet.tcp().map_or((0, 0), |tcp| (tcp.flags(), tcp.sequence()));
            match flags & (Tcp::SYN | Tcp::ACK | Tcp::RST) {
                Tcp::SYN => self.scrub(packet, &flow),
                Tcp::RST if [0, 1].iter().any(|age| sequence == self.cookie(&flow, *age)) => {
                    self.admit(&flow)
                }
                _ => self.forward(packet),
            }
        });
    }
}

impl Scrubber {
    /// The number that only somebody knows who gets what is sent to this flow's source; with an `age`, that of some time ago.
    fn cookie(&self, flow: &FiveTuple, age: u32) -> u32 {
        self.key.hash_one((flow, (self.now / COOKIE_SECONDS).wrapping_sub(age))) as u32
    }

    fn scrub(&mut self, packet: &mut Packet<'_>, flow: &FiveTuple) -> Verdict {
        let source = source(flow);
        match self.sources.syn(source, self.now) {
            Standing::Admitted => self.forward(packet),
            Standing::Unknown => match challenge(packet, self.cookie(flow, 0)) {
                Ok(()) => {
                    self.challenged.add(1);
                    Verdict::Bounce
                }
                Err(_) => Verdict::Drop(DropReason::NotAnswered),
            },
            Standing::Excessive { first } => {
                // Not for each that comes before the kernel knows.
                if first {
                    self.deny.enqueue(DenyEntry::Source(source), DENIED);
                }
                self.refused.add(1);
                Verdict::Drop(DropReason::Rule)
            }
        }
    }

    /// The source has answered. The RST was for us.
    fn admit(&mut self, flow: &FiveTuple) -> Verdict {
        self.sources.admit(source(flow), self.now);
        self.admitted.add(1);
        Verdict::Drop(DropReason::Rule)
    }

    /// Routes it to the server.
    fn forward(&self, packet: &mut Packet<'_>) -> Verdict {
        let hops = packet.ipv4().map(|ip| ip.ttl()).or_else(|| packet.ipv6().map(|ip| ip.hop_limit()));
        let Some(hops) = hops.filter(|hops| *hops > 1) else { return Verdict::Drop(DropReason::Expired) };
        let [_, _, next_hop @ ..] = self.next_hop.load(Relaxed).to_be_bytes();
        if packet.set_hop_limit(hops - 1).is_err() {
            return Verdict::Drop(DropReason::Malformed);
        }
        if let Some(mut ethernet) = packet.ethernet_mut() {
            ethernet.set_destination(MacAddress(next_hop));
            ethernet.set_source(self.inside);
        }
        self.forwarded.add(1);
        Verdict::Forward(INSIDE)
    }
}

fn source(flow: &FiveTuple) -> Prefix {
    Prefix::new(flow.source().ip(), SOURCE_BITS)
}

/// Makes of a SYN the SYN-ACK that acknowledges the cookie, without options and data.
fn challenge(packet: &mut Packet<'_>, cookie: u32) -> Result<(), EditError> {
    let data_offset = usize::from(packet.headers().transport_offset) + 12;
    *packet.bytes_mut().get_mut(data_offset).ok_or(EditError::NoHeader)? = 5 << 4;
    packet.reparse();
    packet.resize_payload(0)?;
    packet.turn_around()?;
    packet.set_hop_limit(HOPS)?;
    let mut tcp = packet.tcp_mut().ok_or(EditError::NoHeader)?;
    tcp.set_flags(Tcp::SYN | Tcp::ACK);
    tcp.set_sequence(0);
    tcp.set_acknowledgement(cookie);
    packet.fill_checksums()
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [outside, inside, server, queues @ ..] = &arguments[..] else {
        return Err("usage: syn_scrubber OUTSIDE INSIDE ADDRESS:PORT [QUEUES]".into());
    };
    let server: SocketAddr = server.parse()?;
    let queues = queues.first().map_or(Ok(1), |queues| queues.parse())?;
    // Before anything is set up, so that no signal is missed.
    let mut signals = Signals::new(TERM_SIGNALS)?;

    // The kernel knows where the server is, and tells when that changes.
    let next_hop = Arc::new(AtomicU64::new(0));
    let shared = Arc::clone(&next_hop);
    let next_hops = NextHops::start(vec![Link::find(inside)?.index], vec![server.ip()], move |changes| {
        for change in changes.iter().filter_map(|change| change.next_hop.as_ref().ok()) {
            let [a, b, c, d, e, f] = change.destination.0;
            shared.store(u64::from_be_bytes([0, 0, a, b, c, d, e, f]), Relaxed);
        }
    })?;
    if let Some((_, reason)) = next_hops.wait_resolved(Duration::from_secs(3)).pop() {
        return Err(reason.into());
    }

    let (key, started) = (RandomState::new(), Instant::now());
    let running = Runner::new()
        .interfaces([outside, inside])
        .queues(queues)
        .steer(SteeredService::tcp(server))
        .stage(move |worker| Scrubber {
            key: key.clone(),
            started,
            now: 0,
            sources: Sources::new(),
            deny: worker.deny_list().clone(),
            inside: worker.interfaces()[usize::from(INSIDE)].mac,
            next_hop: Arc::clone(&next_hop),
            challenged: worker.counter("challenged"),
            admitted: worker.counter("admitted"),
            forwarded: worker.counter("forwarded"),
            refused: worker.counter("refused"),
        })
        .start()?;
    running.warnings().iter().for_each(|warning| eprintln!("warning: {warning}"));
    eprintln!("scrubbing {server}");

    signals.forever().next();
    let (snapshot, errors) = running.stop();
    for (name, count) in &snapshot.counters {
        println!("{name}: {count}");
    }
    println!("sources denied: {}", snapshot.deny.added);
    println!("dropped by the XDP program: {}", snapshot.interfaces[0].dropped);
    errors.into_iter().next().map_or(Ok(()), |error| Err(error.into()))
}
