//! Counts what arrives at an interface, by the XDP program `count`.

use aya::{
    Ebpf, EbpfLoader,
    maps::{MapData, PerCpuArray},
    programs::{XdpMode, links::FdLink},
};
use hdrhistogram::Histogram;
use xfwd_ebpf_types::trafficgen::{Class, ClassCounters, CounterVerdict};

use super::{
    latency::Latencies,
    object::{failed, load, take_map, xdp_mut},
};
use crate::error::{Error, Result};

/// Name of the program.
const PROGRAM: &str = "count";
/// Name of its map.
const CLASSES: &str = "CLASSES";
/// Name of its histogram.
const LATENCY: &str = "LATENCY";

/// How to count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CounterOptions {
    /// What becomes of packets that were counted. Control packets (ARP, neighbour discovery, multicast) always pass.
    pub verdict: CounterVerdict,
    /// Verify the checksums of IPv4, UDP, TCP and ICMP, of packets up to 1,500 bytes.
    pub validate: bool,
    /// TCP counts as a generator's if it goes to or comes from this port; `None`: all of it.
    pub tcp_port: Option<u16>,
    /// Keep how long ago each packet was due, of traffic that is [stamped](super::Traffic::stamped). A packet of a generator
    /// that does not stamp would be taken for one that does.
    pub latency: bool,
}

/// An XDP program that counts what arrives at an interface, until it is dropped.
///
/// It is attached natively and by a bpf_link, so that it is gone however the process ends.
pub struct Counter {
    classes: PerCpuArray<MapData, [u64; ClassCounters::WORDS]>,
    latency: Latencies,
    _link: FdLink,
    _ebpf: Ebpf,
}

impl Counter {
    /// Attaches to `interface` of the calling thread's network namespace.
    ///
    /// # Errors
    ///
    /// If the interface does not exist, has an XDP program already, or its driver knows no native XDP. A veth answers
    /// ENOSPC if it has fewer receive queues than the other end has transmit queues.
    pub fn attach(interface: &str, options: &CounterOptions) -> Result<Self> {
        let verdict = options.verdict as u32;
        let validate = u32::from(options.validate);
        let tcp_port = options.tcp_port.map_or(0, u32::from);
        let stamped = u32::from(options.latency);
        let mut loader = EbpfLoader::new();
        loader
            .override_global("STAMPED", &stamped, true)
            .override_global("VERDICT", &verdict, true)
            .override_global("VALIDATE", &validate, true)
            .override_global("TCP_PORT", &tcp_port, true);
        let mut ebpf = load(PROGRAM, &mut loader)?;
        let classes = take_map(&mut ebpf, CLASSES)?;
        let latency = Latencies::take(&mut ebpf, LATENCY)?;
        let what = || format!("attach the counter to {interface}");
        let program = xdp_mut(&mut ebpf, PROGRAM)?;
        let link = program
            .attach(interface, XdpMode::Driver)
            .and_then(|id| program.take_link(id))
            .map_err(|source| failed(what(), source))?;
        // aya falls back to an attachment that outlives the process; dropping the value detaches that as well.
        let link = FdLink::try_from(link).map_err(|_| Error::NoLink { interface: interface.to_owned() })?;
        Ok(Self { classes, latency, _link: link, _ebpf: ebpf })
    }

    /// How long packets took from the time when they were due until they were counted, in nanoseconds, since
    /// [`CounterOptions::latency`] began or they were last [cleared](Self::clear_latency). See the
    /// [module](super::latency) for what is measured.
    ///
    /// # Errors
    ///
    /// If the kernel does not let the map be read.
    pub fn latency(&self) -> Result<Histogram<u64>> {
        self.latency.read()
    }

    /// Forgets all latencies, while no packets arrive.
    ///
    /// # Errors
    ///
    /// If the kernel does not let the map be written.
    pub fn clear_latency(&mut self) -> Result<()> {
        self.latency.clear()
    }

    /// What has been counted so far, of all CPUs.
    ///
    /// # Errors
    ///
    /// If the kernel does not let the map be read.
    pub fn read(&self) -> Result<Counts> {
        let mut counts = Counts::default();
        for class in Class::ALL {
            let values = self
                .classes
                .get(&(*class as u32), 0)
                .map_err(|source| Error::Map { map: CLASSES, source: Box::new(source) })?;
            let sum = &mut counts.classes[*class as usize];
            for value in values.iter() {
                let value = ClassCounters::from_words(*value);
                sum.packets += value.packets;
                sum.bytes += value.bytes;
                sum.ours += value.ours;
                sum.bad_checksum += value.bad_checksum;
            }
        }
        Ok(counts)
    }
}

/// What a [`Counter`] has counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    classes: [ClassCounters; Class::ALL.len()],
}

impl Counts {
    /// Counters of one class.
    pub fn class(&self, class: Class) -> ClassCounters {
        self.classes[class as usize]
    }

    /// Every class with its counters.
    pub fn iter(&self) -> impl Iterator<Item = (Class, ClassCounters)> + '_ {
        Class::ALL.iter().map(|class| (*class, self.class(*class)))
    }

    /// Sum of all classes except [`Class::Control`].
    pub fn total(&self) -> ClassCounters {
        let mut total = ClassCounters::default();
        for (_, counters) in self.iter().filter(|(class, _)| *class != Class::Control) {
            total.packets += counters.packets;
            total.bytes += counters.bytes;
            total.ours += counters.ours;
            total.bad_checksum += counters.bad_checksum;
        }
        total
    }
}
