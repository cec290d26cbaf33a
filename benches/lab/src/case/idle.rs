//! What it costs to wait for packets, and how long the first one takes after a pause.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use xfwd_netns::trafficgen::Amount;

use super::{CURVE_ROUNDS, Case, Contestant, Reading, Unit, latency};
use crate::bench::Bench;
use crate::offer::Traffic;
use crate::paced::Session;
use crate::subject::bare::Bare;
use crate::subject::testpmd::Testpmd;
use crate::subject::xfwd::Xfwd;
use crate::subject::{Failure, Outcome, Subject};

/// Ways of xfwd to wait.
const WAYS: [&str; 3] = ["adaptive", "busy", "poll"];
/// How long a subject that has had packets is left alone before its time is taken: whatever it does first is over then.
const REST: Duration = Duration::from_millis(500);
/// Shortest time over which processor time is taken.
const WATCH: Duration = Duration::from_secs(1);
/// Pauses between single packets: far longer than any loop spins before it sleeps.
const PAUSES_PER_SECOND: f64 = 20.0;
/// Single packets for a second that other cases measure: they come slowly, and a median of few is none.
const SECONDS: f64 = 4.0;
/// Fewest single packets.
const FEWEST_PACKETS: u64 = 20;

pub(super) fn cases() -> Vec<Case> {
    let case =
        |name: &'static str, title: &str, unit, measure: fn(&Bench, &dyn Subject) -> Outcome<Reading>| Case {
            name: name.to_owned(),
            family: name,
            title: title.to_owned(),
            unit,
            point: None,
            rounds: CURVE_ROUNDS,
            contestants: contestants(measure),
        };
    vec![
        case("idle-cpu", "Processor time without packets, one worker", Unit::PercentOfCore, processor_time),
        case(
            "wake",
            "Round trip of a single packet after 50 ms of silence, median",
            Unit::Microseconds,
            wake,
        ),
    ]
}

/// xfwd with each way to wait, and the peers, none of which sleeps.
fn contestants(measure: fn(&Bench, &dyn Subject) -> Outcome<Reading>) -> Vec<Contestant> {
    let contestant = |subject: Box<dyn Subject>| {
        Contestant::new(subject.name(), move |bench| measure(bench, subject.as_ref()))
    };
    let xfwd = |way: &str| -> Box<dyn Subject> {
        let config =
            format!("[dataplane]\nsteer = \"everything\"\nidle = \"{way}\"\n[bounce]\nlayer = \"l2\"\n");
        Box::new(Xfwd { name: Some(format!("xfwd {way}")), ..Xfwd::new(config) })
    };
    let peers: [Box<dyn Subject>; 2] = [Box::new(Bare::Bounce), Box::new(Testpmd::Macswap)];
    WAYS.into_iter().map(xfwd).chain(peers).map(contestant).collect()
}

fn processor_time(bench: &Bench, subject: &dyn Subject) -> Outcome<Reading> {
    let session = Session::start(bench, subject, &Traffic::default(), true)?;
    let process = session.pid().ok_or_else(|| Failure::Missing("it is no process".to_owned()))?;
    std::thread::sleep(REST);
    let (before, begun) = (ran_for(process)?, Instant::now());
    std::thread::sleep(bench.settings.time.max(WATCH));
    let (after, watched) = (ran_for(process)?, begun.elapsed());
    session.stop()?;
    Ok(Reading::new((after.saturating_sub(before)).as_secs_f64() * 100.0 / watched.as_secs_f64()))
}

/// How long all threads of a process have run, to the nanosecond: the first number of each one's `schedstat`. The ticks of
/// `stat` are 10 ms long, which a worker that sleeps most of the time never fills.
fn ran_for(process: u32) -> Result<Duration> {
    let mut ran = Duration::ZERO;
    for thread in fs::read_dir(format!("/proc/{process}/task")).context("the process has ended")? {
        let path = thread?.path().join("schedstat");
        // A thread may have ended since.
        let Ok(text) = fs::read_to_string(&path) else {
            continue;
        };
        let first = text.split_whitespace().next().context("an empty schedstat")?;
        ran += Duration::from_nanos(first.parse()?);
    }
    Ok(ran)
}

fn wake(bench: &Bench, subject: &dyn Subject) -> Outcome<Reading> {
    let mut session = Session::start(bench, subject, &Traffic::default(), true)?;
    std::thread::sleep(REST);
    let packets = (bench.settings.time.as_secs_f64() * SECONDS * PAUSES_PER_SECOND) as u64;
    let answer = session.offer(Some(PAUSES_PER_SECOND), Amount::Packets(packets.max(FEWEST_PACKETS)))?;
    session.stop()?;
    let mut reading = latency::of(&answer);
    reading.extra.insert("max_us", answer.latency.max() as f64 / 1e3);
    Ok(reading)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_works_has_run_and_one_that_sleeps_has_not() {
        let me = std::process::id();
        let before = ran_for(me).unwrap();
        let begun = Instant::now();
        while ran_for(me).unwrap() < before + Duration::from_millis(20) {
            assert!(begun.elapsed() < Duration::from_secs(20), "this thread works, and no time is counted");
        }
    }
}
