//! Runs the XDP program `generate` on live frames.

use std::{
    thread,
    time::{Duration, Instant},
};

use aya::{
    Ebpf, EbpfLoader,
    maps::{MapData, PerCpuArray, PerCpuValues},
    programs::{ProgramError, TestRun as _, TestRunAttrs, TestRunOptions, Xdp},
};
use nix::{
    sched::{CpuSet, sched_getcpu, sched_setaffinity},
    time::{ClockId, clock_gettime},
    unistd::Pid,
};
use xfwd_ebpf_types::trafficgen::{
    GeneratorState, MAX_HEADER_LENGTH, MIN_FRAME_LENGTH, PACING_FRACTION_BITS,
};

use super::{
    object::{failed, load, take_map, xdp},
    traffic::{Protocol, SpecError, Template, Traffic},
};
use crate::{
    error::{Error, Result},
    ethtool,
    lab::MacAddress,
};

/// Name of the program.
const PROGRAM: &str = "generate";
/// Name of its map.
const STATE: &str = "STATE";
/// Most frames of one call. Every call sets up and tears down a page pool, which takes some 20 ms: as long as a hundred
/// thousand packets.
const MAX_FRAMES_PER_CALL: u64 = 1 << 20;
/// Fewest frames of one call, and those of the first one when time counts: it shows how many go in a second.
const MIN_FRAMES_PER_CALL: u64 = 1 << 16;
/// Most frames of one call while pacing: all but a few of them are recycled unsent, at 10 to 20 million per second.
const MAX_PACED_FRAMES_PER_CALL: u64 = 1 << 24;
/// Frames between two flushes: what a veth's NAPI handles in one poll, and a quarter of its ring.
const BATCH: u32 = 64;
const NANOSECONDS: u64 = 1_000_000_000;

/// How much to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Amount {
    /// Exactly this many packets.
    Packets(u64),
    /// As many as go in this time. The end is met to some 10 ms.
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
    /// How long it took.
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
    frame: Vec<u8>,
    interface: String,
    cores: Vec<usize>,
    rate_pps: Option<u64>,
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
        let interface_mac = match traffic.source_mac {
            Some(mac) => mac,
            None => MacAddress::of(interface)?,
        };
        let template = Template::new(traffic, interface_mac)?;
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
        let (header_length, address_at, port_at) = (
            at(template.header_length),
            at(template.address_at),
            at(template.port_at),
        );
        let (sequence_at, ip_checksum_at, checksum_at) = (
            at(template.sequence_at),
            at(template.ip_checksum_at),
            at(template.checksum_at),
        );
        let (ip_sum, sum) = (u32::from(template.ip_sum), u32::from(template.sum));
        let sum_has_address = u32::from(template.sum_has_address);
        let is_udp = u32::from(traffic.protocol == Protocol::Udp);
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
            .override_global("INTERVAL", &interval, true);
        let mut ebpf = load(PROGRAM, &mut loader)?;
        let state = take_map(&mut ebpf, STATE)?;
        let (interface, rate_pps) = (interface.to_owned(), traffic.rate_pps);
        Ok(Self {
            ebpf,
            state,
            frame: template.frame,
            interface,
            cores,
            rate_pps,
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
        let deadline = match amount {
            Amount::Packets(_) => None,
            Amount::For(duration) => Some(Instant::now() + duration),
        };
        let accepted_before = accepted(&self.interface);
        let program = xdp(&self.ebpf, PROGRAM)?;
        let (state, frame) = (&self.state, &self.frame[..]);
        let rate = self.rate_pps.map(|rate| rate.div_ceil(self.cores.len() as u64));
        let start = Instant::now();
        thread::scope(|scope| {
            let run = |core| move || send_from(program, state, frame, core, deadline, rate);
            let threads: Vec<_> = self.cores.iter().map(|core| scope.spawn(run(*core))).collect();
            let results = threads.into_iter().map(|thread| match thread.join() {
                Ok(result) => result,
                Err(payload) => std::panic::resume_unwind(payload),
            });
            results
                .collect::<Vec<_>>()
                .into_iter()
                .collect::<Result<Vec<()>>>()
        })?;
        let elapsed = start.elapsed();
        let accepted_after = accepted(&self.interface);
        let packets = self.sent()? - before;
        let accepted = accepted_after
            .zip(accepted_before)
            .map(|(after, before)| after - before);
        Ok(Sent {
            packets,
            refused: accepted.map(|accepted| packets.saturating_sub(accepted)),
            elapsed,
        })
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
        let start_ns = monotonic_ns()?;
        let mut values: Vec<_> = self.state.get(&0, 0).map_err(map_failed)?.to_vec();
        for (index, core) in self.cores.iter().enumerate() {
            let value = values.get_mut(*core).ok_or(SpecError::Core(*core))?;
            let remaining = packets.map_or(u64::MAX, |packets| {
                packets / cores + u64::from((index as u64) < packets % cores)
            });
            let state = GeneratorState::from_words(*value);
            *value = GeneratorState {
                remaining,
                start_ns,
                due: 0,
                last: 0,
                ..state
            }
            .to_words();
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
        Ok(values
            .iter()
            .map(|value| GeneratorState::from_words(*value).sent)
            .sum())
    }
}

/// Runs the program on one core until it has sent all it may, or the deadline is over. The rate is that of this core.
fn send_from(
    program: &Xdp,
    state: &PerCpuArray<MapData, [u64; GeneratorState::WORDS]>,
    frame: &[u8],
    core: usize,
    deadline: Option<Instant>,
    rate_pps: Option<u64>,
) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(core)
        .and_then(|()| sched_setaffinity(Pid::from_raw(0), &set))
        .map_err(|_| SpecError::Core(core))?;
    let read = || -> Result<GeneratorState> {
        Ok(GeneratorState::from_words(
            state.get(&0, 0).map_err(map_failed)?[core],
        ))
    };
    let mut now = read()?;
    let mut frames = MIN_FRAMES_PER_CALL;
    while now.remaining > 0 {
        // Pacing recycles frames whose time has not come, so a call has more frames than it sends packets.
        let time_left = match (deadline, rate_pps) {
            (Some(deadline), _) => Some(deadline.saturating_duration_since(Instant::now()).as_secs_f64()),
            (None, Some(rate)) => Some(now.remaining as f64 / rate as f64),
            (None, None) => None,
        };
        if deadline.is_some() && time_left.is_some_and(|seconds| seconds <= 0.0) {
            break;
        }
        if time_left.is_none() {
            frames = MAX_FRAMES_PER_CALL;
        }
        if rate_pps.is_none() {
            frames = frames.min(now.remaining);
        }
        let begun = Instant::now();
        run_on_live_frames(program, frame, u32::try_from(frames).unwrap_or(u32::MAX))?;
        let frames_per_second = frames as f64 / begun.elapsed().as_secs_f64();
        let after = read()?;
        if rate_pps.is_none() && after.remaining == now.remaining {
            return Err(Error::Stalled);
        }
        now = after;
        // `as` saturates. Where time counts, the next call ends shortly before it is over, or after a second.
        let most = if rate_pps.is_some() {
            MAX_PACED_FRAMES_PER_CALL
        } else {
            MAX_FRAMES_PER_CALL
        };
        let seconds = time_left.unwrap_or(1.0) - begun.elapsed().as_secs_f64();
        frames = ((frames_per_second * seconds.min(1.0)) as u64).clamp(MIN_FRAMES_PER_CALL, most);
    }
    Ok(())
}

/// One `BPF_PROG_RUN`. A signal may end it early, which is no error: what was sent is counted by the program.
fn run_on_live_frames(program: &Xdp, frame: &[u8], frames: u32) -> Result<()> {
    let options = TestRunOptions {
        data_in: Some(frame),
        repeat: frames,
        attrs: TestRunAttrs::new().xdp_live_frames(BATCH),
        ..TestRunOptions::new()
    };
    match program.test_run(options) {
        Ok(_) => Ok(()),
        Err(ProgramError::SyscallError(error)) if error.io_error.raw_os_error() == Some(libc::EINTR) => {
            Ok(())
        }
        Err(error) => Err(failed("run on live frames".to_owned(), error)),
    }
}

/// Tries to load both programs and to run one on a live frame, which it drops.
pub(crate) fn probe() -> Result<()> {
    let ebpf = load(PROGRAM, &mut EbpfLoader::new())?;
    run_on_live_frames(xdp(&ebpf, PROGRAM)?, &[0; MIN_FRAME_LENGTH], 1)
}

/// Frames sent by XDP that the driver of the interface has passed on, of all queues since it exists.
fn accepted(interface: &str) -> Option<u64> {
    let statistics = ethtool::statistics(interface).ok()?;
    let mut queues = statistics
        .into_iter()
        .filter(|(name, _)| name.starts_with("tx_queue_") && name.ends_with("_xdp_xmit"))
        .map(|(_, value)| value)
        .peekable();
    queues.peek()?;
    Some(queues.sum())
}

/// The clock of `bpf_ktime_get_ns`.
fn monotonic_ns() -> Result<u64> {
    let time = clock_gettime(ClockId::CLOCK_MONOTONIC).map_err(|error| Error::System {
        call: "clock_gettime",
        subject: "CLOCK_MONOTONIC".to_owned(),
        source: error.into(),
    })?;
    Ok(Duration::from(time).as_nanos() as u64)
}

fn map_failed(source: aya::maps::MapError) -> Error {
    Error::Map {
        map: STATE,
        source: Box::new(source),
    }
}
