//! Runs the XDP program `generate` on live frames.

use std::{
    thread,
    time::{Duration, Instant},
};

use aya::{
    Ebpf, EbpfLoader,
    maps::{MapData, PerCpuArray, PerCpuValues},
    programs::{
        LinkOrder, SchedClassifier, Xdp,
        tc::{SchedClassifierLink, TcAttachOptions, TcAttachType},
    },
};
use hdrhistogram::Histogram;
use nix::{
    sched::{CpuSet, sched_getcpu, sched_setaffinity},
    unistd::Pid,
};
use xfwd_ebpf_types::trafficgen::{
    GeneratorState, Length, MAX_HEADER_LENGTH, MAX_LENGTHS, MAX_TURNS, MIN_FRAME_LENGTH, PACING_FRACTION_BITS,
};

use super::{
    call::{Call, run_on_live_frames},
    latency::Latencies,
    object::{failed, load, take_map, xdp},
    statistics::{Way, accepted, transmit_queues},
    template::Template,
    traffic::{MAX_FRAME_LENGTH, SpecError, Traffic},
};
use crate::error::{Error, Result};

/// Name of the program.
const PROGRAM: &str = "generate";
/// Name of the program that chooses queues.
const SPREAD: &str = "spread";
/// Where frames come in that the generator gives to the host stack.
const LOOPBACK: &str = "lo";
/// Name of its map.
const STATE: &str = "STATE";
/// Name of the histogram of how late packets left.
const LATE: &str = "LATE";
/// Frames between two flushes: what a veth's NAPI handles in one poll, and a quarter of its ring.
const BATCH: u32 = 64;
/// The same where times are measured, since a packet that is due waits for the flush behind it: the least, and above that
/// as many as are due in 4 µs, since small batches cannot keep high rates.
const LEAST_BATCH_OF_STAMPED: u64 = 4;
/// Packets per second of a core that make one packet in 4 µs.
const RATE_OF_A_FRAME: u64 = 250_000;
/// How often it is looked whether a paced run has sent everything.
const LOOK_EVERY: Duration = Duration::from_millis(1);
const NANOSECONDS: u64 = 1_000_000_000;

/// How much to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Amount {
    /// Exactly this many packets.
    Packets(u64),
    /// As many as go in this time.
    For(Duration),
}

/// What was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sent {
    /// Packets given to the interface.
    pub packets: u64,
    /// How many of them the interface did not pass on, by the statistics of its driver (a veth does not if the ring of
    /// the other end is full, or it has neither XDP program nor GRO); `None` if the driver has no such statistics.
    pub refused: Option<u64>,
    /// How long it took, from the first packet to the last.
    pub elapsed: Duration,
}

impl Sent {
    /// Packets per second.
    pub fn pps(&self) -> f64 {
        self.packets as f64 / self.elapsed.as_secs_f64()
    }
}

/// Sends [`Traffic`] to an interface.
pub struct Generator {
    ebpf: Ebpf,
    state: PerCpuArray<MapData, [u64; GeneratorState::WORDS]>,
    late: Latencies,
    _spread: Option<SchedClassifierLink>,
    frame: Vec<u8>,
    interface: String,
    cores: Vec<usize>,
    rate_pps: Option<u64>,
    batch: u32,
    way: Way,
}

impl Generator {
    /// Gets ready to send from `interface` of the calling thread's network namespace.
    ///
    /// # Errors
    ///
    /// If the traffic cannot be made as asked, the interface does not exist, or the kernel refuses the program.
    pub fn new(interface: &str, traffic: &Traffic) -> Result<Self> {
        let index = nix::net::if_::if_nametoindex(interface).map_err(|error| Error::System {
            call: "if_nametoindex",
            subject: interface.to_owned(),
            source: error.into(),
        })?;
        if traffic.longest_frame() > MAX_FRAME_LENGTH {
            return Err(SpecError::TooLong(traffic.longest_frame()).into());
        }
        let template = Template::new(traffic, traffic.source_mac_on(interface)?)?;
        let cores = if traffic.cores.is_empty() {
            let core = sched_getcpu().map_err(|error| Error::System {
                call: "getcpu",
                subject: interface.to_owned(),
                source: error.into(),
            })?;
            vec![core]
        } else {
            traffic.cores.clone()
        };
        let rate = traffic.rate_pps.map(|rate| rate.div_ceil(cores.len() as u64));
        let interval = rate.map_or(0, |rate| ((NANOSECONDS << PACING_FRACTION_BITS) / rate).max(1));

        let mut headers = [0u8; MAX_HEADER_LENGTH];
        let copied = template.frame.len().min(MAX_HEADER_LENGTH);
        headers[..copied].copy_from_slice(&template.frame[..copied]);
        let first_port = u32::from(template.first_port);
        // Offsets are below MAX_HEADER_LENGTH.
        let at = |offset: usize| offset as u32;
        let (header_length, address_at, port_at) =
            (at(template.header_length), at(template.address_at), at(template.port_at));
        let (sequence_at, ip_checksum_at, checksum_at) =
            (at(template.sequence_at), at(template.ip_checksum_at), at(template.checksum_at));
        let (ip_sum, sum) = (u32::from(template.ip_sum), u32::from(template.sum));
        let sum_has_address = u32::from(template.sum_has_address);
        let (ip_length_at, transport_length_at) =
            (at(template.ip_length_at), at(template.transport_length_at));
        let (is_udp, stamp_at) = (u32::from(template.is_udp), at(template.stamp_at));
        let mut lengths = [[0u32; Length::WORDS]; MAX_LENGTHS];
        for (to, length) in lengths.iter_mut().zip(&template.lengths) {
            *to = length.to_words();
        }
        let lengths = lengths.as_flattened();
        let mut order = [0u8; MAX_TURNS];
        order[..template.order.len()].copy_from_slice(&template.order);
        let turns = template.order.len() as u64;
        let (spread, queues) = (u32::from(traffic.spread.is_some()), traffic.spread.unwrap_or(1));
        let mut loader = EbpfLoader::new();
        loader
            .override_global("TEMPLATE", &headers, true)
            .override_global("HEADER_LENGTH", &header_length, true)
            .override_global("IFINDEX", &index, true)
            .override_global("FLOWS", &template.flows, true)
            .override_global("ADDRESSES", &template.addresses, true)
            .override_global("FIRST_ADDRESS", &template.first_address, true)
            .override_global("FIRST_PORT", &first_port, true)
            .override_global("ADDRESS_AT", &address_at, true)
            .override_global("PORT_AT", &port_at, true)
            .override_global("SEQUENCE_AT", &sequence_at, true)
            .override_global("IP_CHECKSUM_AT", &ip_checksum_at, true)
            .override_global("IP_SUM", &ip_sum, true)
            .override_global("CHECKSUM_AT", &checksum_at, true)
            .override_global("SUM", &sum, true)
            .override_global("SUM_HAS_ADDRESS", &sum_has_address, true)
            .override_global("IS_UDP", &is_udp, true)
            .override_global("INTERVAL", &interval, true)
            .override_global("STAMP_AT", &stamp_at, true)
            .override_global("TURNS", &turns, true)
            .override_global("ORDER", &order, true)
            .override_global("LENGTHS", lengths, true)
            .override_global("IP_LENGTH_AT", &ip_length_at, true)
            .override_global("TRANSPORT_LENGTH_AT", &transport_length_at, true)
            .override_global("SPREAD", &spread, true)
            .override_global("QUEUES", &queues, true);
        let mut ebpf = load(PROGRAM, &mut loader)?;
        let state = take_map(&mut ebpf, STATE)?;
        let late = Latencies::take(&mut ebpf, LATE)?;
        let link = traffic.spread.map(|queues| attach_spread(&mut ebpf, interface, queues)).transpose()?;
        Ok(Self {
            ebpf,
            state,
            late,
            frame: template.frame,
            interface: interface.to_owned(),
            cores,
            rate_pps: traffic.rate_pps,
            batch: match rate {
                Some(rate) if traffic.stamped => {
                    let due = (rate / RATE_OF_A_FRAME).clamp(LEAST_BATCH_OF_STAMPED, BATCH.into());
                    u32::try_from(due).unwrap_or(BATCH)
                }
                _ => BATCH,
            },
            way: if link.is_some() { Way::Stack } else { Way::Xdp },
            _spread: link,
        })
    }

    /// Sends, from the flow after the last one of the run before. The calling thread must be in the namespace of the
    /// interface; it is not itself bound to a core.
    ///
    /// # Errors
    ///
    /// If the kernel refuses to run the program, or a core cannot be used.
    pub fn run(&mut self, amount: Amount) -> Result<Sent> {
        let before = self.prepare(amount)?;
        let accepted_before = accepted(&self.interface, self.way);
        let program = xdp(&self.ebpf, PROGRAM)?;
        let calls: Vec<Call> = self.cores.iter().map(|_| Call::default()).collect();
        let start = Instant::now();
        thread::scope(|scope| {
            let senders: Vec<_> = self
                .cores
                .iter()
                .zip(&calls)
                .map(|(core, call)| scope.spawn(|| self.send_from(program, *core, call)))
                .collect();
            let watched = self.watch(amount, start, &calls);
            let results = senders.into_iter().map(|sender| match sender.join() {
                Ok(result) => result,
                Err(payload) => std::panic::resume_unwind(payload),
            });
            let sent: Result<Vec<()>> = results.collect::<Vec<_>>().into_iter().collect();
            sent.and(watched)
        })?;
        let wall = start.elapsed();
        let accepted_after = accepted(&self.interface, self.way);
        let packets = self.sent()? - before;
        let accepted = accepted_after.zip(accepted_before).map(|(after, before)| after - before);
        Ok(Sent {
            packets,
            refused: accepted.map(|accepted| packets.saturating_sub(accepted)),
            elapsed: self.sending_time()?.unwrap_or(wall),
        })
    }

    /// How much later than they were due packets have left since the generator was made, in nanoseconds: stamped and paced
    /// ones only. It is part of their latency.
    ///
    /// # Errors
    ///
    /// If the kernel does not let the map be read.
    pub fn lateness(&self) -> Result<Histogram<u64>> {
        self.late.read()
    }

    /// Ends the runs of all cores when the time is over, or everything is sent; returns when all have ended.
    fn watch(&self, amount: Amount, start: Instant, calls: &[Call]) -> Result<()> {
        let rate = self.rate_pps.map(|rate| rate as f64);
        // When there is nothing left to wait for: when time is over, or when a paced run should be ready.
        let (until, is_limit) = match (amount, rate) {
            (Amount::For(time), _) => (Some(start + time), rate.is_none()),
            (Amount::Packets(packets), Some(rate)) => {
                (Some(start + Duration::from_secs_f64(packets as f64 / rate)), false)
            }
            (Amount::Packets(_), None) => (None, false),
        };
        let result = loop {
            if calls.iter().all(Call::has_ended) {
                return Ok(());
            }
            match until.map(|until| until.saturating_duration_since(Instant::now())) {
                Some(Duration::ZERO) if is_limit => break Ok(()),
                Some(Duration::ZERO) => match self.is_done() {
                    Ok(false) if !matches!(amount, Amount::For(time) if start.elapsed() > time + GRACE) => {
                        thread::sleep(LOOK_EVERY);
                    }
                    done => break done.map(drop),
                },
                Some(left) => thread::sleep(left.min(LOOK_EVERY * 20)),
                // The runs end by themselves.
                None => return Ok(()),
            }
        };
        while !calls.iter().all(Call::has_ended) {
            calls.iter().for_each(Call::interrupt);
            thread::sleep(LOOK_EVERY);
        }
        result
    }

    /// Whether all packets of all cores are sent.
    fn is_done(&self) -> Result<bool> {
        let values = self.state.get(&0, 0).map_err(map_failed)?;
        Ok(self.cores.iter().all(|core| GeneratorState::from_words(values[*core]).remaining == 0))
    }

    /// Runs the program on one core until it has sent all it may, or is told to end.
    fn send_from(&self, program: &Xdp, core: usize, call: &Call) -> Result<()> {
        let sent = self.send_all_from(program, core, call);
        call.end();
        sent
    }

    fn send_all_from(&self, program: &Xdp, core: usize, call: &Call) -> Result<()> {
        let mut set = CpuSet::new();
        set.set(core)
            .and_then(|()| sched_setaffinity(Pid::from_raw(0), &set))
            .map_err(|_| SpecError::Core(core))?;
        let read = || -> Result<u64> {
            Ok(GeneratorState::from_words(self.state.get(&0, 0).map_err(map_failed)?[core]).remaining)
        };
        let mut remaining = read()?;
        while remaining > 0 && !call.is_ending() {
            // Pacing recycles frames whose time has not come, so a run has more frames than it sends packets.
            let frames = if self.rate_pps.is_some() { u64::MAX } else { remaining };
            call.run(program, &self.frame, u32::try_from(frames).unwrap_or(u32::MAX), self.batch)?;
            let after = read()?;
            if self.rate_pps.is_none() && after == remaining && !call.is_ending() {
                return Err(Error::Stalled);
            }
            remaining = after;
        }
        Ok(())
    }

    /// From the first packet of this run to the last, of all cores; `None` if there are not enough to tell.
    fn sending_time(&self) -> Result<Option<Duration>> {
        let values = self.state.get(&0, 0).map_err(map_failed)?;
        let states = self.cores.iter().map(|core| GeneratorState::from_words(values[*core]));
        let ran = states.filter(|state| state.first_ns != 0).map(|state| (state.first_ns, state.latest_ns));
        let span = ran.reduce(|one, other| (one.0.min(other.0), one.1.max(other.1)));
        Ok(span
            .filter(|(first, latest)| latest > first)
            .map(|(first, latest)| Duration::from_nanos(latest - first)))
    }

    /// Tells the program on each core how many packets to send, and returns how many have been sent so far.
    fn prepare(&mut self, amount: Amount) -> Result<u64> {
        let cores = self.cores.len() as u64;
        let packets = match (amount, self.rate_pps) {
            (Amount::Packets(packets), _) => Some(packets),
            (Amount::For(duration), Some(rate)) => {
                Some((rate as f64 * duration.as_secs_f64()).round() as u64)
            }
            (Amount::For(_), None) => None,
        };
        let mut values: Vec<_> = self.state.get(&0, 0).map_err(map_failed)?.to_vec();
        for (index, core) in self.cores.iter().enumerate() {
            let value = values.get_mut(*core).ok_or(SpecError::Core(*core))?;
            let remaining = packets
                .map_or(u64::MAX, |packets| packets / cores + u64::from((index as u64) < packets % cores));
            let state = GeneratorState::from_words(*value);
            let fresh = GeneratorState { remaining, start_ns: 0, due: 0, next: 0, ..state };
            *value = GeneratorState { first_ns: 0, latest_ns: 0, ..fresh }.to_words();
        }
        let values = PerCpuValues::try_from(values).map_err(|source| Error::System {
            call: "bpf_map_update_elem",
            subject: STATE.to_owned(),
            source,
        })?;
        self.state.set(0, values, 0).map_err(map_failed)?;
        self.sent()
    }

    /// Packets sent since the program was loaded.
    fn sent(&self) -> Result<u64> {
        let values = self.state.get(&0, 0).map_err(map_failed)?;
        Ok(values.iter().map(|value| GeneratorState::from_words(*value).sent).sum())
    }
}

/// How long after its time a paced run may still send what is left.
const GRACE: Duration = Duration::from_millis(2);

/// Attaches the program that takes frames from the host stack and sends them on the queue of their flow.
fn attach_spread(ebpf: &mut Ebpf, interface: &str, queues: u32) -> Result<SchedClassifierLink> {
    let available = transmit_queues(interface)?;
    if queues == 0 || queues > available {
        return Err(SpecError::Queues(queues, available).into());
    }
    let what = || format!("attach {SPREAD} to {LOOPBACK} (Linux 6.6 or later is needed)");
    let program = ebpf.program_mut(SPREAD).ok_or(Error::Object(SPREAD))?;
    let program: &mut SchedClassifier =
        program.try_into().map_err(|source| failed(format!("use {SPREAD}"), source))?;
    program.load().map_err(|source| failed(format!("load {SPREAD}"), source))?;
    program
        .attach_with_options(LOOPBACK, TcAttachType::Ingress, TcAttachOptions::TcxOrder(LinkOrder::default()))
        .and_then(|id| program.take_link(id))
        .map_err(|source| failed(what(), source))
}

/// Tries to load both programs and to run one on a live frame, which it drops.
pub(crate) fn probe() -> Result<()> {
    let ebpf = load(PROGRAM, &mut EbpfLoader::new())?;
    run_on_live_frames(xdp(&ebpf, PROGRAM)?, &[0; MIN_FRAME_LENGTH], 1, BATCH)
}

fn map_failed(source: aya::maps::MapError) -> Error {
    Error::Map { map: STATE, source: Box::new(source) }
}
