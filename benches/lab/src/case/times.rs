//! How long it takes to start and to reload.

use std::net::Ipv4Addr;
use std::time::Instant;

use anyhow::Context;
use nix::sys::signal::Signal;
use xfwd_netns::topology::{INTERFACE, VIP_V4, host_v4};

use super::{CURVE_ROUNDS, Case, Contestant, Reading, Unit, balance, bounce, filter, grouped};
use crate::bench::Bench;
use crate::site::{Shape, Site};
use crate::subject::nftables::Nftables;
use crate::subject::testpmd::Testpmd;
use crate::subject::xfwd::{READY, Xfwd};
use crate::subject::{Outcome, PATIENCE, Subject};

const SERVICES: u16 = 1_000;
const BACKENDS: u8 = 10;
const FIRST_PORT: u16 = 1_000;
const RULES: usize = 100_000;
/// What xfwd says when a changed config has taken effect.
const RELOADED: &str = "\nreloaded ";

pub(super) fn cases(quick: bool) -> Vec<Case> {
    let (services, rules) = (grouped(SERVICES.into()), grouped(RULES as u64));
    let plain = || Xfwd::new(bounce::CONFIG);
    let mut cases = vec![
        case(
            "start-bounce",
            "start",
            "Start of a bouncer, until packets are handled".to_owned(),
            vec![start(plain()), start(crate::subject::bare::Bare::Bounce), start(Testpmd::Macswap)],
        ),
        case(
            "start-services",
            "start",
            format!("Start with {services} services of {BACKENDS} backends"),
            vec![start(Xfwd::new(services_config(1))), start(nft_services())],
        ),
        case(
            "reload-services",
            "reload",
            format!("Reload of {services} services, a weight of each changed"),
            vec![Contestant::new("xfwd", reload), Contestant::new("nftables", reload_nft)],
        ),
    ];
    if !quick {
        cases.push(case(
            "start-rules",
            "start",
            format!("Start with {rules} rules in the XDP program"),
            vec![start(Xfwd::new(filter::kernel_rules(RULES)))],
        ));
    }
    cases
}

fn case(name: &str, family: &'static str, title: String, contestants: Vec<Contestant>) -> Case {
    Case {
        name: name.to_owned(),
        family,
        title,
        unit: Unit::Milliseconds,
        point: None,
        rounds: CURVE_ROUNDS,
        contestants,
    }
}

/// From the start of the process, or command, until it handles packets.
fn start(subject: impl Subject + 'static) -> Contestant {
    Contestant::new(subject.name(), move |bench| {
        let site = site()?;
        let begun = Instant::now();
        let running = subject.start(bench, &site)?;
        let milliseconds = begun.elapsed().as_secs_f64() * 1e3;
        running.stop()?;
        Ok(Reading::new(milliseconds))
    })
}

/// A network in which the backends' MAC addresses are known.
fn site() -> Outcome<Site> {
    let site = Site::new(Shape::default())?;
    let mac = site.generator.mac(INTERFACE)?;
    for backend in backends() {
        site.subject.neighbour(INTERFACE, backend.into(), mac)?;
    }
    Ok(site)
}

fn backends() -> impl Iterator<Item = Ipv4Addr> {
    (0..BACKENDS).map(|index| host_v4(11 + index))
}

/// All services; the first backend of each has this weight.
fn services_config(weight: u8) -> String {
    let service = |index: u16| {
        let port = FIRST_PORT + index;
        let text = balance::service(&format!("service-{index}"), VIP_V4, port, "dsr", backends());
        text.replacen("\n[[service.backend]]\n", &format!("\n[[service.backend]]\nweight = {weight}\n"), 1)
    };
    (0..SERVICES).map(service).collect()
}

/// From the signal until the new config is in effect, by xfwd's own word.
fn reload(bench: &Bench) -> Outcome<Reading> {
    let site = site()?;
    let (mut child, config) = Xfwd::new(services_config(1)).spawn(bench, &site)?;
    child.wait_for(READY, PATIENCE)?;
    std::fs::write(&config, services_config(2)).context("cannot write the config")?;
    let begun = Instant::now();
    child.signal(Signal::SIGHUP)?;
    child.wait_for(RELOADED, PATIENCE)?;
    let milliseconds = begun.elapsed().as_secs_f64() * 1e3;
    child.stop(PATIENCE)?;
    Ok(Reading::new(milliseconds))
}

/// The same services for nftables: one map from a port and a number to a backend.
fn nft_services() -> Nftables {
    let elements = (0..SERVICES).flat_map(|index| {
        let port = FIRST_PORT + index;
        backends().enumerate().map(move |(number, backend)| format!("{port} . {number} : {backend}"))
    });
    let elements: Vec<String> = elements.collect();
    let ruleset = format!(
        "table ip lab\nflush table ip lab\ntable ip lab {{\n map backends {{ type inet_service . mark : ipv4_addr; elements = {{ {} }} }}\n \
         chain in {{ type nat hook prerouting priority dstnat; policy accept;\n  ip daddr {VIP_V4} meta l4proto udp meta mark set numgen \
         inc mod {BACKENDS} dnat to udp dport . meta mark map @backends\n }}\n}}\n",
        elements.join(", ")
    );
    Nftables { ruleset, routes: false }
}

/// Loads the ruleset in place of itself.
fn reload_nft(bench: &Bench) -> Outcome<Reading> {
    let site = site()?;
    let ruleset = nft_services();
    let running = ruleset.start(bench, &site)?;
    let begun = Instant::now();
    ruleset.start(bench, &site)?;
    let milliseconds = begun.elapsed().as_secs_f64() * 1e3;
    drop(running);
    Ok(Reading::new(milliseconds))
}
