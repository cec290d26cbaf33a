//! Bounce on one queue: `xfwd` beside the bare xsk-rs loop of `examples/bare_xsk_bounce.rs`, in turn, in the same lab.
//!
//! ```sh
//! sudo -E cargo bench --bench bounce            # 5 rounds of 3 s each
//! sudo -E cargo bench --bench bounce -- 9 5     # 9 rounds of 5 s each
//! ```
//!
//! A generator on core 0 sends 60 byte UDP frames as fast as it can; the subject runs on core 1; what comes back is
//! counted in the kernel where the generator sends. The figures to quote are the ratios' median and spread, not the
//! rates: those are the machine's. Where other things run beside it, the packets of a second of the subject's own CPU
//! time say more than those of a second.

#![allow(missing_docs, reason = "a program")]

#[path = "../examples/bare_xsk_bounce.rs"]
#[allow(dead_code, reason = "only what it exports is run")]
mod bare;

use std::process::Command;
use std::time::Duration;

use xfwd_netns::Child;
use xfwd_netns::topology::{self, INTERFACE, Pair};
use xfwd_netns::trafficgen::{Amount, Counter, CounterOptions, Generator, Traffic};

type Error = Box<dyn std::error::Error>;

const GENERATOR_CORE: usize = 0;
const SUBJECT_CORE: usize = 1;
/// `USER_HZ`, the same on every Linux.
const TICKS_A_SECOND: f64 = 100.0;
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
    let mut ratios = [Vec::new(), Vec::new()];
    println!("bounce, one queue, 60 byte UDP frames, {} s a run; millions of packets", time.as_secs());
    println!("{:>8}{:^32}{:^32}", "", "a second", "a second of CPU time");
    let heads = ["xfwd", "bare xsk-rs", "ratio"].map(|head| format!("{head:>11}")).join("");
    println!("{:>8}{heads}{heads}", "round");
    for round in 1..=rounds {
        let mut xfwd = Command::new(env!("CARGO_BIN_EXE_xfwd"));
        xfwd.args([
            "--iface",
            INTERFACE,
            "--queues",
            "1",
            "--quiet",
            "--cores",
            &SUBJECT_CORE.to_string(),
            config,
        ]);
        let mut bare = Command::new(std::env::current_exe()?);
        bare.args([BARE, INTERFACE]);
        let ours = bounced(&pair, &mut xfwd, "leaves the kernel", time)?;
        let theirs = bounced(&pair, &mut bare, "bouncing on", time)?;
        // libxdp attaches its program by netlink: it outlives the process.
        pair.subject.ip(["link", "set", "dev", INTERFACE, "xdp", "off"])?;
        print!("{round:>8}");
        for (index, ratios) in ratios.iter_mut().enumerate() {
            print!("{:>11.3}{:>11.3}{:>11.3}", ours[index], theirs[index], ours[index] / theirs[index]);
            ratios.push(ours[index] / theirs[index]);
        }
        println!();
    }
    for (name, ratios) in ["a second", "a second of CPU time"].iter().zip(&mut ratios) {
        ratios.sort_by(f64::total_cmp);
        let (median, last) = (ratios[ratios.len() / 2], ratios[ratios.len() - 1]);
        println!("xfwd / bare, packets {name}: median {median:.3}, from {:.3} to {last:.3}", ratios[0]);
    }
    Ok(())
}

/// Packets that came back, in millions: a second, and a second of the subject's CPU time.
fn bounced(pair: &Pair, subject: &mut Command, ready: &str, time: Duration) -> Result<[f64; 2], Error> {
    // The queue that the last subject had is busy for a moment, and the bare loop does not try again.
    std::thread::sleep(Duration::from_millis(500));
    let subject: Child = pair.subject.spawn(subject)?;
    subject.wait_for(ready, PATIENCE)?;
    let offered = pair.generator.run(|| offer(pair, &subject, time).map_err(|error| error.to_string()))?;
    drop(subject);
    Ok(offered.map(|rate| rate / 1e6))
}

/// CPU time that a process has used, in seconds (proc(5), fields 14 and 15 of `stat`).
fn cpu_seconds(process: u32) -> Result<f64, Error> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat"))?;
    let (_, fields) = stat.rsplit_once(") ").ok_or("no name in stat")?;
    let ticks: Result<Vec<u64>, _> = fields.split(' ').skip(11).take(2).map(str::parse).collect();
    Ok(ticks?.iter().sum::<u64>() as f64 / TICKS_A_SECOND)
}

/// Sends for some time and counts what comes back. Runs inside the generator's namespace.
fn offer(pair: &Pair, subject: &Child, time: Duration) -> Result<[f64; 2], Error> {
    let mut traffic = Traffic::udp("198.18.1.1".parse()?, topology::host_v4(200).into(), 7);
    traffic.destination_mac = pair.subject.mac(INTERFACE)?;
    traffic.flows = 256;
    traffic.cores = vec![GENERATOR_CORE];
    let counter = Counter::attach(INTERFACE, &CounterOptions::default())?;
    let mut generator = Generator::new(INTERFACE, &traffic)?;
    // The first packets find everything cold.
    generator.run(Amount::For(Duration::from_millis(300)))?;
    let (before, cpu_before) = (counter.read()?.total().packets, cpu_seconds(subject.pid())?);
    let sent = generator.run(Amount::For(time))?;
    let received = (counter.read()?.total().packets - before) as f64;
    let cpu = cpu_seconds(subject.pid())? - cpu_before;
    Ok([received / sent.elapsed.as_secs_f64(), received / cpu])
}
