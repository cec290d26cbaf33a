//! Bounce on one queue: `xfwd` beside the bare xsk-rs loop of `examples/bare_xsk_bounce.rs`, in turn, in the same lab.
//!
//! ```sh
//! sudo -E cargo bench --bench bounce            # 5 rounds of 3 s each
//! sudo -E cargo bench --bench bounce -- 9 5     # 9 rounds of 5 s each
//! ```
//!
//! A generator on core 0 sends 60 byte UDP frames as fast as it can; the subject runs on core 1; what comes back is
//! counted in the kernel where the generator sends. The figures to quote are the medians' ratio and its spread, not
//! the rates: those are the machine's.

#![allow(missing_docs, reason = "a program")]

#[path = "../examples/bare_xsk_bounce.rs"]
#[allow(dead_code, reason = "only what it exports is run")]
mod bare;

use std::process::Command;
use std::time::Duration;

use xfwd_netns::topology::{self, INTERFACE, Pair};
use xfwd_netns::trafficgen::{Amount, Counter, CounterOptions, Generator, Traffic};
use xfwd_netns::{Child, Namespace};

type Error = Box<dyn std::error::Error>;

const GENERATOR_CORE: usize = 0;
const SUBJECT_CORE: usize = 1;
const PATIENCE: Duration = Duration::from_secs(20);
/// What the child is started with to be the bare loop.
const BARE: &str = "--bare-loop-on";

fn main() -> Result<(), Error> {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    if let [flag, interface] = arguments.as_slice()
        && flag == BARE
    {
        core_affinity::set_for_current(core_affinity::CoreId { id: SUBJECT_CORE });
        return bare::bounce(interface);
    }
    let number = |index: usize, default: u64| arguments.get(index).map_or(Ok(default), |text| text.parse());
    let (rounds, seconds) = (number(0, 5)?, number(1, 3)?);
    if let Err(missing) = xfwd_netns::requirements() {
        println!("SKIPPED bench bounce: {missing}");
        return Ok(());
    }
    compare(rounds, Duration::from_secs(seconds))
}

fn compare(rounds: u64, time: Duration) -> Result<(), Error> {
    let pair = topology::pair(1)?;
    let config = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/bounce.toml");
    let mut rates = [Vec::new(), Vec::new()];
    println!("bounce, one queue, 60 byte UDP frames, {} s a run, Mpps:", time.as_secs());
    println!("{:>6}  {:>8}  {:>14}  {:>6}", "round", "xfwd", "bare xsk-rs", "ratio");
    for round in 1..=rounds {
        let mut xfwd = Command::new(env!("CARGO_BIN_EXE_xfwd"));
        xfwd.args(["--iface", INTERFACE, "--queues", "1", "--quiet", "--cores", &SUBJECT_CORE.to_string(), config]);
        let mut bare = Command::new(std::env::current_exe()?);
        bare.args([BARE, INTERFACE]);
        let ours = bounced(&pair, &mut xfwd, "leaves the kernel", time)?;
        let theirs = bounced(&pair, &mut bare, "bouncing on", time)?;
        println!("{round:>6}  {ours:>8.3}  {theirs:>14.3}  {:>6.3}", ours / theirs);
        rates[0].push(ours);
        rates[1].push(theirs);
    }
    let mut ratios: Vec<f64> = rates[0].iter().zip(&rates[1]).map(|(ours, theirs)| ours / theirs).collect();
    let [ours, theirs] = rates.each_mut().map(|rates| median(rates));
    let ratio = median(&mut ratios);
    println!("{:>6}  {ours:>8.3}  {theirs:>14.3}  {ratio:>6.3}", "median");
    println!("ratio: median {ratio:.3}, from {:.3} to {:.3}", ratios[0], ratios[ratios.len() - 1]);
    Ok(())
}

/// Packets that came back, in millions a second.
fn bounced(pair: &Pair, subject: &mut Command, ready: &str, time: Duration) -> Result<f64, Error> {
    let subject: Child = pair.subject.spawn(subject)?;
    subject.wait_for(ready, PATIENCE)?;
    let rate = pair.generator.run(|| offer(&pair.subject, time).map_err(|error| error.to_string()))?;
    drop(subject);
    Ok(rate / 1e6)
}

/// Sends for some time and counts what comes back. Runs inside the generator's namespace.
fn offer(subject: &Namespace, time: Duration) -> Result<f64, Error> {
    let mut traffic =
        Traffic::udp("198.18.1.1".parse()?, topology::host_v4(200).into(), 7);
    traffic.destination_mac = subject.mac(INTERFACE)?;
    traffic.flows = 256;
    traffic.cores = vec![GENERATOR_CORE];
    let counter = Counter::attach(INTERFACE, &CounterOptions::default())?;
    let mut generator = Generator::new(INTERFACE, &traffic)?;
    // The first packets find everything cold.
    generator.run(Amount::For(Duration::from_millis(300)))?;
    let before = counter.read()?.total().packets;
    let sent = generator.run(Amount::For(time))?;
    let received = counter.read()?.total().packets - before;
    Ok(received as f64 / sent.elapsed.as_secs_f64())
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
