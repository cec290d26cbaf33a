//! Looks at one packet in N on its way and reports it by sFlow (version 5, sflow.org/sflow_version_5.txt). The way itself stays as it was:
//! here a bouncer stands behind the sampler, as any other stage could.
//!
//! Usage, as root: `sampler INTERFACE N [QUEUES [COLLECTOR:PORT]]`, such as `sampler eth0 1000 4 198.18.0.1:6343`. Without a collector
//! samples are printed. It ends by Ctrl-C.
//!
//! Which packet is taken is left to chance: after each sample a random number of packets passes, N - 1 in the mean. Every N-th exactly would
//! see always the same packet of traffic that repeats itself. The number is drawn once a sample, so most batches cost one subtraction. Of n
//! packets about n/N are taken, give or take the root of n/3N; what a collector multiplies back by N is that good.
//!
//! A sample goes to another thread by a channel of fixed size, by value, so nothing is allocated on the way of a packet. The
//! worker never waits: a sample that finds the channel full is counted, and sFlow has a field for that number. The thread
//! looks for samples now and then instead of sleeping on the channel, or the worker would have to wake it, by a system call.

mod sflow;

use std::error::Error;
use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

use crossbeam::channel::{Receiver, Sender, TryRecvError, bounded};
use sflow::Agent;
use signal_hook::consts::TERM_SIGNALS;
use signal_hook::iterator::Signals;
use xfwd::packet::{FiveTuple, parse};
use xfwd::prelude::*;
use xfwd::stages::bounce::{Bounce, Layer};

/// Bytes of a packet that are kept: what sFlow suggests. A multiple of four, as XDR pads to.
const HEADER: usize = 128;
/// Samples that may wait for the thread, and how often it looks; a collector wants them within a second.
const WAITING: usize = 1_024;
const PAUSE: Duration = Duration::from_millis(20);

/// A sampled packet: its whole length, and its beginning.
struct Sample {
    worker: usize,
    length: usize,
    captured: usize,
    bytes: [u8; HEADER],
    /// Packets that the worker has seen up to this one, and samples that found no room.
    seen: u64,
    lost: u64,
}

struct Sampler {
    worker: usize,
    rate: u32,
    skip: u64,
    random: fastrand::Rng,
    samples: Sender<Sample>,
    seen: StageCounter,
    sampled: StageCounter,
    lost: StageCounter,
}

impl Stage for Sampler {
    fn name(&self) -> &str {
        "sampler"
    }

    fn reads_headers(&self) -> bool {
        false
    }

    /// Decides about no packet.
    fn process(&mut self, batch: &mut Batch<'_>) {
        let mut packets = batch.undecided();
        let mut left = packets.len() as u64;
        while self.skip < left
            && let Some(index) = packets.nth(self.skip as usize)
        {
            left -= self.skip + 1;
            self.seen.add(self.skip + 1);
            self.skip = next_skip(&mut self.random, self.rate);
            self.take(batch.packet(index));
        }
        self.skip -= left;
        self.seen.add(left);
    }
}

impl Sampler {
    fn take(&self, packet: &Packet<'_>) {
        let bytes = packet.bytes();
        let captured = bytes.len().min(HEADER);
        let (worker, length, seen, lost) = (self.worker, packet.len(), self.seen.get(), self.lost.get());
        let mut sample = Sample { worker, length, captured, bytes: [0; HEADER], seen, lost };
        sample.bytes[..captured].copy_from_slice(&bytes[..captured]);
        let counter = if self.samples.try_send(sample).is_ok() { &self.sampled } else { &self.lost };
        counter.add(1);
    }
}

/// How many packets pass before the next sample: `rate` - 1 in the mean.
fn next_skip(random: &mut fastrand::Rng, rate: u32) -> u64 {
    random.u64(0..=2 * (u64::from(rate) - 1))
}

/// Ends when no worker is left.
fn report(samples: &Receiver<Sample>, mut agent: Option<Agent>) -> std::io::Result<()> {
    loop {
        match (samples.try_recv(), &mut agent) {
            (Ok(sample), Some(agent)) => agent.add(&sample)?,
            (Ok(Sample { length, captured, bytes, .. }), None) => {
                let tuple = FiveTuple::of(&bytes[..captured], &parse(&bytes[..captured], length));
                match tuple.map(|flow| (flow.source(), flow.destination(), flow.protocol)) {
                    Some((from, to, protocol)) => {
                        println!("{from} to {to}, protocol {protocol}, {length} bytes")
                    }
                    None => println!("{length} bytes that are not IP"),
                }
            }
            (Err(end), agent) => {
                agent.as_mut().map_or(Ok(()), Agent::send)?;
                if end == TryRecvError::Disconnected {
                    return Ok(());
                }
                thread::sleep(PAUSE);
            }
        }
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [interface, rate, options @ ..] = &arguments[..] else {
        return Err("usage: sampler INTERFACE N [QUEUES [COLLECTOR:PORT]]".into());
    };
    let rate: u32 = rate.parse()?;
    if rate == 0 {
        return Err("one in 0 packets is none: N is 1 or more".into());
    }
    let queues = options.first().map_or(Ok(1), |queues| queues.parse())?;
    let collector: Option<SocketAddr> = options.get(1).map(|collector| collector.parse()).transpose()?;
    // Before anything is set up, so that no signal is missed.
    let mut signals = Signals::new(TERM_SIGNALS)?;

    let (sender, receiver) = bounded(WAITING);
    let sampler = move |worker: &WorkerContext| {
        let mut random = fastrand::Rng::new();
        Sampler {
            worker: worker.worker(),
            rate,
            skip: next_skip(&mut random, rate),
            random,
            samples: sender.clone(),
            seen: worker.counter("seen"),
            sampled: worker.counter("sampled"),
            lost: worker.counter("lost"),
        }
    };
    let running = Runner::new()
        .interface(interface)
        .queues(queues)
        .steer_all()
        .stage(move |worker| (sampler(worker), Bounce::new(Layer::L2)))
        .start()?;
    running.warnings().iter().for_each(|warning| eprintln!("warning: {warning}"));
    let index = running.links()[0].index;
    let agent = collector.map(|to| Agent::new(to, index, rate, queues as usize)).transpose()?;
    let reporting = thread::spawn(move || report(&receiver, agent));
    eprintln!("sampling one in {rate} on {interface}");

    signals.forever().next();
    let (snapshot, errors) = running.stop();
    // The senders are gone with the workers.
    reporting.join().expect("the thread has not panicked")?;
    let count = |name: &str| snapshot.counters[name];
    println!("{} seen, {} sampled, {} lost", count("seen"), count("sampled"), count("lost"));
    errors.into_iter().next().map_or(Ok(()), |error| Err(error.into()))
}
