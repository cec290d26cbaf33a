//! Traffic, and what is counted of it: one measurement of packets a second.
//!
//! Everything is counted in the kernel: what is sent by the generator's program, what comes back or arrives at the sink by the XDP
//! program of a [`Counter`] there, what is handed to AF_XDP sockets or dropped by XDP by the driver of the subject's interface. What a
//! subject has counted itself is held against that.

use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, Ipv4Addr};

use anyhow::{Context, Result, anyhow};
use xfwd_netns::topology::{INTERFACE, host_v4};
use xfwd_netns::trafficgen::{
    Amount, Counter, CounterOptions, Generator, MAX_FRAME_LENGTH, Pace, Replay, Sent, Traffic as Sending,
};
use xfwd_netns::{MacAddress, Namespace};

use crate::bench::Bench;
use crate::case::Reading;
use crate::site::{Shape, Site};
use crate::subject::two_lines::TwoLines;
use crate::subject::{Outcome, Subject};

/// Below this share of what was offered, a subject was the one that could not keep up.
const GENERATOR_BOUND: f64 = 0.98;
/// A subject's own count may differ from the kernel's by so much: what is still in its rings at the end.
const OWN_TOLERANCE: f64 = 0.01;
/// From so many flows on, all of them are sent before anything is counted: tables are to be full, not filling.
const MANY_FLOWS: u64 = 100_000;
/// Which part of what a subject handles under as much as goes it is sent then: nearly all gets through, while of a flood most would be lost.
const EASY: f64 = 0.6;
/// And at least so many packets a second, whatever it handles.
const SLOWEST: u64 = 200_000;
/// How many times: a flow that was lost gets through the next time.
const SIGHTS_OF_A_FLOW: u64 = 2;
/// `USER_HZ`, the same on every Linux.
const TICKS_A_SECOND: f64 = 100.0;

/// Where a frame's FCS would be; lengths of frames in the literature count it, the generator does not.
pub const FCS_BYTES: usize = 4;

/// What is sent: UDP.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Traffic {
    /// Bytes of a frame without FCS.
    pub frame_length: usize,
    /// Number of flows, which take turns.
    pub flows: u32,
    /// Addresses that the flows share.
    pub source_addresses: u32,
    /// First source address.
    pub source: Ipv4Addr,
    /// Destination address.
    pub destination: Ipv4Addr,
    /// Destination port.
    pub port: u16,
    /// Packets take the way through the generator's host stack: as those for several queues must, since what XDP redirects to a
    /// veth arrives on the queue of the core that sends.
    pub through_stack: bool,
    /// In what kind of network.
    pub shape: Shape,
}

impl Default for Traffic {
    /// 60 bytes (64 with FCS), 256 flows to an address that is no host's.
    fn default() -> Self {
        Self {
            frame_length: 60,
            flows: 256,
            source_addresses: 256,
            source: Ipv4Addr::new(198, 18, 1, 1),
            destination: host_v4(200),
            port: 7,
            through_stack: false,
            shape: Shape::default(),
        }
    }
}

impl Traffic {
    /// Whether frames are longer than a page, so that the generator cannot make them, and XDP programs get them in pieces.
    pub fn is_jumbo(&self) -> bool {
        self.frame_length > MAX_FRAME_LENGTH
    }

    /// What the generator is told.
    pub fn sending(&self, bench: &Bench, to: MacAddress) -> Sending {
        let mut sending = Sending::udp(IpAddr::V4(self.source), IpAddr::V4(self.destination), self.port);
        sending.destination_mac = to;
        sending.flows = self.flows;
        sending.source_addresses = self.source_addresses;
        sending.frame_length = self.frame_length;
        sending.cores = vec![bench.cores.generator];
        sending.spread = (self.through_stack || self.shape.queues > 1).then_some(self.shape.queues);
        sending
    }
}

/// Which packets count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counted {
    /// Those that come back to the generator.
    Returned,
    /// Those that arrive at the sink.
    AtSink,
    /// Those that are handed to AF_XDP sockets.
    Delivered,
    /// Those that the interface takes, all of which are dropped there.
    Taken,
}

/// Packets a second of `subject` under as much of `traffic` as goes.
///
/// # Errors
///
/// If the subject is missing or fails.
pub fn throughput(
    bench: &Bench,
    subject: &dyn Subject,
    traffic: &Traffic,
    counted: Counted,
) -> Outcome<Reading> {
    // The program that drops everything takes frames of one buffer only.
    let limit = (!traffic.is_jumbo()).then(|| limit(bench, traffic)).transpose()?;
    let mut reading = measure(bench, subject, traffic, counted)?;
    reading.generator_limit = limit;
    let kept_up = reading.offered.is_some_and(|offered| reading.value >= GENERATOR_BOUND * offered);
    // What is dropped in the kernel is dropped on the generator's core: it is always offered as much as it takes.
    reading.shares_core = counted == Counted::Taken || subject.shares_core();
    reading.generator_bound = kept_up && !reading.shares_core;
    Ok(reading)
}

/// What the generator can do at most, into a program that drops everything. Measured once for each kind of traffic.
fn limit(bench: &Bench, traffic: &Traffic) -> Outcome<f64> {
    if let Some(limit) = bench.limits.borrow().get(traffic) {
        return Ok(*limit);
    }
    let limit = measure(bench, &TwoLines::Drop, traffic, Counted::Taken)?.value;
    bench.limits.borrow_mut().insert(traffic.clone(), limit);
    Ok(limit)
}

fn measure(bench: &Bench, subject: &dyn Subject, traffic: &Traffic, counted: Counted) -> Outcome<Reading> {
    let site = Site::new(traffic.shape)?;
    let running = subject.start(bench, &site)?;
    let to = subject.destination(&site)?;
    let back = site.generator.run(|| Counter::attach(INTERFACE, &CounterOptions::default()))?;
    let sink = site
        .sink
        .as_ref()
        .map(|sink| sink.run(|| Counter::attach(INTERFACE, &CounterOptions::default())))
        .transpose()?;
    let count = |sent: u64| -> Result<u64> {
        match counted {
            Counted::Returned => Ok(back.read()?.total().packets),
            Counted::AtSink => Ok(sink.as_ref().context("a network with a sink")?.read()?.total().packets),
            Counted::Delivered => driver_count(&site.subject, INTERFACE, "xdp_redirect"),
            Counted::Taken => Ok(sent),
        }
    };
    let sending = traffic.sending(bench, to);
    let mut sender = Sender::new(&site, &sending)?;
    let taken = |sent: &Sent| sent.packets - sent.refused.unwrap_or(0);

    let started = count(0)?;
    let first = sender.send(&site, Amount::For(bench.settings.warm_up()))?;
    let mut warm = taken(&first);
    let flows = u64::from(traffic.flows);
    if flows >= MANY_FLOWS {
        let handled = (count(warm)? - started) as f64 / first.elapsed.as_secs_f64();
        let easy = Sending { rate_pps: Some(((handled * EASY) as u64).max(SLOWEST)), ..sending };
        warm += taken(&Sender::new(&site, &easy)?.send(&site, Amount::Packets(flows * SIGHTS_OF_A_FLOW))?);
    }
    let before = count(warm)?;
    let cpu_before = running.pid().map(cpu_seconds).transpose()?;
    let sent = sender.send(&site, Amount::For(bench.settings.time))?;
    let after = count(warm + taken(&sent))?;
    let cpu_after = running.pid().map(cpu_seconds).transpose()?;
    let seconds = sent.elapsed.as_secs_f64();
    let counted_packets = (after - before) as f64;

    let mut reading = Reading::new(counted_packets / seconds);
    reading.offered = Some(sent.pps());
    if let (Some(before), Some(after)) = (cpu_before, cpu_after)
        && counted_packets > 0.0
    {
        reading.extra.insert("cpu_ns_per_packet", (after - before) * 1e9 / counted_packets);
    }
    let own = running.stop()?;
    let own = match counted {
        Counted::Returned | Counted::AtSink => own.sent,
        Counted::Delivered | Counted::Taken => own.received,
    };
    let in_all = count(warm + taken(&sent))?;
    if let Some(own) = own.filter(|_| in_all > 0) {
        let share = own as f64 / in_all as f64;
        reading.extra.insert("own_count_share", share);
        if (share - 1.0).abs() > OWN_TOLERANCE {
            reading.notes.push(format!("its own count is {own}, the kernel's {in_all}"));
        }
    }
    Ok(reading)
}

/// What sends: the generator, and for frames that it cannot make a packet socket.
enum Sender {
    Generator(Box<Generator>),
    Replay(Replay),
}

impl Sender {
    fn new(site: &Site, traffic: &Sending) -> Result<Self> {
        Ok(site.generator.run(|| {
            if traffic.frame_length > MAX_FRAME_LENGTH {
                Replay::of_traffic(INTERFACE, traffic).map(Self::Replay)
            } else {
                Generator::new(INTERFACE, traffic).map(|generator| Self::Generator(Box::new(generator)))
            }
        })?)
    }

    fn send(&mut self, site: &Site, amount: Amount) -> Result<Sent> {
        Ok(site.generator.run(|| match self {
            Self::Generator(generator) => generator.run(amount),
            Self::Replay(replay) => replay.run(Pace::Unlimited, amount),
        })?)
    }
}

/// One of the driver's counters of what XDP did with packets received, summed over the queues of an interface.
///
/// # Errors
///
/// If the driver has none of this name: only veth's names are known here.
pub fn driver_count(namespace: &Namespace, interface: &str, what: &str) -> Result<u64> {
    let statistics: BTreeMap<String, u64> = namespace.statistics(interface)?;
    let is_wanted = |name: &str| {
        let name = name.strip_prefix("rx_queue_").and_then(|name| name.split_once('_'));
        name.is_some_and(|(_, counter)| counter == what)
    };
    let mut found = statistics.iter().filter(|(name, _)| is_wanted(name)).map(|(_, count)| *count).peekable();
    found.peek().with_context(|| format!("{interface} has no counter {what}"))?;
    Ok(found.sum())
}

/// CPU time that a process has used, in seconds (proc(5), fields 14 and 15 of `stat`).
pub fn cpu_seconds(process: u32) -> Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat"))?;
    let (_, fields) =
        stat.rsplit_once(") ").ok_or_else(|| anyhow!("no name in the stat of process {process}"))?;
    let ticks: Result<Vec<u64>, _> = fields.split(' ').skip(11).take(2).map(str::parse).collect();
    Ok(ticks?.iter().sum::<u64>() as f64 / TICKS_A_SECOND)
}
