//! A flood that a deny list of 100,000 addresses drops: in the XDP program of xfwd, in a bare XDP program that drops
//! everything, and in nftables at ingress; in turn, in the same lab.
//!
//! ```sh
//! sudo -E cargo bench --bench kernel_drop            # 5 rounds of 2 s each
//! sudo -E cargo bench --bench kernel_drop -- 9 4     # 9 rounds of 4 s each
//! ```
//!
//! A generator on core 1 sends 60 byte UDP frames from 100,000 addresses in turn. On a veth the packet is made, handed
//! over and dropped on one core, so a rate is that of all three, and 1 / rate - 1 / rate of the bare program is what the
//! list costs. The lists:
//!
//! * `dense`: exactly the addresses of the flood, of which every other one is on another list, so that no two neighbours
//!   can be joined and every packet takes the longest way through the map;
//! * `scattered`: 100,000 prefixes all over the address space, of which one covers the flood;
//! * `rule`: one rule with one prefix, beside an empty deny list;
//! * `deny`: the addresses of the flood on the dynamic deny list, and no rule.

#![allow(missing_docs, reason = "a program")]
#![allow(clippy::unwrap_used, reason = "a program for one purpose may end by panicking")]

#[path = "../tests/support/xdp.rs"]
mod bare;

use std::net::Ipv4Addr;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use xfwd::kernel::deny::{DenyEntry, DenyThread};
use xfwd::kernel::filter::compile;
use xfwd::kernel::xdp::{Steering, XdpMode, XdpProgram};
use xfwd::stages::filter::{Action, Prefix, PrefixSet, Rule};
use xfwd_netns::topology::{self, INTERFACE, Pair};
use xfwd_netns::trafficgen::{Amount, Generator, Traffic};

type Error = Box<dyn std::error::Error>;

const CORE: usize = 1;
const FLOOD: u32 = 0x0a00_0000;
const ADDRESSES: u32 = 100_000;

fn main() -> Result<(), Error> {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let number = |index: usize, default: u64| arguments.get(index).map_or(Ok(default), |text| text.parse());
    let (rounds, seconds) = (number(0, 5)?, number(1, 2)?);
    if let Err(missing) = xfwd_netns::requirements() {
        println!("SKIPPED bench kernel_drop: {missing}");
        return Ok(());
    }
    let time = Duration::from_secs(seconds);
    let nft = Command::new("nft").arg("--version").output().is_ok_and(|output| output.status.success());
    if !nft {
        println!("without nftables: there is no `nft`");
    }
    let (dense, scattered) = (dense(), scattered());
    let rule = [deny("flood", vec![Prefix::new(Ipv4Addr::from_bits(FLOOD).into(), 8)])];
    println!("{ADDRESSES} addresses, 60 byte UDP frames, {seconds} s a run, Mpps dropped:");
    println!(
        "{:>6}  {:>8}  {:>8}  {:>10}  {:>8}  {:>8}  {:>8}",
        "round", "bare", "dense", "scattered", "rule", "deny", "nftables"
    );
    let mut rates: [Vec<f64>; 6] = Default::default();
    for round in 1..=rounds {
        let pair = topology::pair(1)?;
        let row = [
            bare_drop(&pair, time)?,
            filtered(&pair, &dense, time)?,
            filtered(&pair, &scattered, time)?,
            filtered(&pair, &rule, time)?,
            denied(&pair, time)?,
            if nft { nftables(&pair, time)? } else { f64::NAN },
        ];
        print(&format!("{round}"), &row);
        for (rates, rate) in rates.iter_mut().zip(row) {
            rates.push(rate);
        }
    }
    let ratios =
        |of: usize| -> Vec<f64> { rates[of].iter().zip(&rates[0]).map(|(rate, bare)| rate / bare).collect() };
    let mut ratios: [_; 5] = std::array::from_fn(|of| ratios(of + 1));
    let medians = rates.each_mut().map(|rates| median(rates));
    print("median", &medians);
    for (name, (ratios, rate)) in
        ["dense", "scattered", "rule", "deny", "nftables"].iter().zip(ratios.iter_mut().zip(&medians[1..]))
    {
        let middle = median(ratios);
        let nanoseconds = 1e3 / rate - 1e3 / medians[0];
        println!(
            "{name} to bare: median {middle:.3}, from {:.3} to {:.3}; {nanoseconds:.0} ns a packet more",
            ratios[0],
            ratios[ratios.len() - 1]
        );
    }
    Ok(())
}

fn print(name: &str, row: &[f64; 6]) {
    println!(
        "{name:>6}  {:>8.3}  {:>8.3}  {:>10.3}  {:>8.3}  {:>8.3}  {:>8.3}",
        row[0], row[1], row[2], row[3], row[4], row[5]
    );
}

/// The flood's addresses on two lists.
fn dense() -> Vec<Rule> {
    let list = |odd: u32| {
        let addresses = (0..ADDRESSES).filter(|index| index % 2 == odd);
        addresses.map(|index| Prefix::new(Ipv4Addr::from_bits(FLOOD + index).into(), 32)).collect()
    };
    vec![deny("even", list(0)), deny("odd", list(1))]
}

fn scattered() -> Vec<Rule> {
    let mut state = 1_u64;
    let mut random = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 32) as u32
    };
    let mut prefixes: Vec<Prefix> = (1..ADDRESSES)
        .map(|_| Prefix::new(Ipv4Addr::from_bits(random()).into(), [32, 32, 24, 22][(random() % 4) as usize]))
        .collect();
    prefixes.push(Prefix::new(Ipv4Addr::from_bits(FLOOD).into(), 8));
    vec![deny("deny", prefixes)]
}

fn deny(name: &str, prefixes: Vec<Prefix>) -> Rule {
    let mut rule = Rule::new(name, Action::Drop);
    rule.matches.src_set = Some(Arc::new(PrefixSet::new("deny.txt", prefixes)));
    rule
}

fn bare_drop(pair: &Pair, time: Duration) -> Result<f64, Error> {
    let program = bare::load_returning(bare::DROP);
    let _link = pair.subject.run(|| bare::attach_by_link(&program, index(), bare::Mode::Native));
    flood(pair, time)
}

fn filtered(pair: &Pair, rules: &[Rule], time: Duration) -> Result<f64, Error> {
    let start = Instant::now();
    let plan = compile(rules)?;
    let mut program = XdpProgram::load_with(&Steering::default(), &plan)?;
    let loaded = start.elapsed();
    if loaded > Duration::from_secs(1) {
        println!("loading took {loaded:?}");
    }
    pair.subject.run(|| program.attach(index(), INTERFACE, XdpMode::Native))?;
    let rate = flood(pair, time)?;
    assert_dropped(&program, "dropped-rule")?;
    Ok(rate)
}

fn denied(pair: &Pair, time: Duration) -> Result<f64, Error> {
    let mut program = XdpProgram::load(&Steering::default())?;
    let maps = program.take_deny_maps().ok_or("no deny list")?;
    let thread = DenyThread::start(vec![Box::new(maps)], None)?;
    for index in 0..ADDRESSES {
        let source = Prefix::new(Ipv4Addr::from_bits(FLOOD + index).into(), 32);
        thread.list().add(DenyEntry::Source(source), Duration::from_secs(3_600))?;
    }
    pair.subject.run(|| program.attach(index(), INTERFACE, XdpMode::Native))?;
    let rate = flood(pair, time)?;
    assert_dropped(&program, "dropped-denied")?;
    Ok(rate)
}

fn assert_dropped(program: &XdpProgram, cause: &str) -> Result<(), Error> {
    let counters = program.counters()?;
    let passed: u64 = counters.iter().filter(|(_, name, _)| *name != cause).map(|counter| counter.2).sum();
    // Neighbour discovery and the like.
    assert!(passed < 1_000, "{:?}", counters.iter().filter(|counter| counter.2 > 0).collect::<Vec<_>>());
    Ok(())
}

fn nftables(pair: &Pair, time: Duration) -> Result<f64, Error> {
    let file = std::env::temp_dir().join(format!("xfwd-kernel-drop-{}.nft", std::process::id()));
    let addresses: Vec<String> =
        (0..ADDRESSES).map(|index| Ipv4Addr::from_bits(FLOOD + index).to_string()).collect();
    let rules = format!(
        "table netdev lab {{\n set deny {{ type ipv4_addr; elements = {{ {} }} }}\n chain in {{ type filter hook ingress device \
         {INTERFACE} priority -500; policy accept; ip saddr @deny drop; }}\n}}\n",
        addresses.join(", ")
    );
    std::fs::write(&file, rules)?;
    let output = pair.subject.output(Command::new("nft").arg("-f").arg(&file))?;
    std::fs::remove_file(&file)?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into());
    }
    // Without an XDP program frames arrive only with GRO.
    pair.subject.set_gro(INTERFACE, true)?;
    let rate = flood(pair, time);
    pair.subject.set_gro(INTERFACE, false)?;
    pair.subject.output(Command::new("nft").args(["delete", "table", "netdev", "lab"]))?;
    rate
}

/// Millions of packets a second that the interface took.
fn flood(pair: &Pair, time: Duration) -> Result<f64, Error> {
    let mut traffic = Traffic::udp(Ipv4Addr::from_bits(FLOOD).into(), topology::host_v4(2).into(), 9);
    traffic.destination_mac = pair.subject.mac(INTERFACE)?;
    traffic.flows = ADDRESSES;
    traffic.source_addresses = ADDRESSES;
    traffic.cores = vec![CORE];
    let sent = pair.generator.run(|| {
        let mut generator = Generator::new(INTERFACE, &traffic)?;
        // The first packets find everything cold.
        generator.run(Amount::For(Duration::from_millis(300)))?;
        generator.run(Amount::For(time))
    })?;
    Ok((sent.packets - sent.refused.unwrap_or(0)) as f64 / sent.elapsed.as_secs_f64() / 1e6)
}

fn index() -> u32 {
    nix::net::if_::if_nametoindex(INTERFACE).unwrap()
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
