//! The highest rate without loss, in the manner of RFC 2544, section 26.1: by bisection, each trial at a fixed rate.
//!
//! Different from there, trials are short (a minute each would be an hour a case), and a loss below one in ten thousand passes,
//! as is usual for software: a scheduler's pause loses more. Packets that the driver refuses since the queue in front of the
//! subject is full are lost as well.

use std::time::Duration;

use xfwd_netns::trafficgen::Amount;

use super::{CURVE_ROUNDS, Case, Contestant, Reading, Unit};
use crate::bench::Bench;
use crate::offer::Traffic;
use crate::paced::Session;
use crate::subject::bare::Bare;
use crate::subject::testpmd::Testpmd;
use crate::subject::two_lines::TwoLines;
use crate::subject::xfwd::Xfwd;
use crate::subject::{Outcome, Subject};

/// What may be lost: 0.01 %.
const TOLERATED: f64 = 1e-4;
/// The interval is halved so often: to 1/128 of where it begins.
const TRIALS: u32 = 7;
/// The search begins this much above what comes back under as much as goes, where there is loss for certain, or the
/// generator's end.
const ABOVE: f64 = 1.25;
/// A trial that did not reach its rate says nothing about it.
const KEPT: f64 = 0.99;

pub(super) fn cases() -> Vec<Case> {
    let bounce = super::bounce::CONFIG;
    vec![Case {
        name: "loss-free".to_owned(),
        family: "loss-free",
        title: "Bounce with less than 0.01 % loss, one queue".to_owned(),
        unit: Unit::PacketsPerSecond,
        point: None,
        rounds: CURVE_ROUNDS,
        contestants: vec![
            contestant(Xfwd::new(bounce)),
            contestant(Bare::Bounce),
            contestant(Testpmd::Macswap),
            contestant(TwoLines::Tx),
        ],
    }]
}

fn contestant(subject: impl Subject + 'static) -> Contestant {
    Contestant::new(subject.name(), move |bench| measure(bench, &subject))
}

fn measure(bench: &Bench, subject: &dyn Subject) -> Outcome<Reading> {
    let mut session = Session::start(bench, subject, &Traffic::default(), false)?;
    let trial = (bench.settings.time / 2).max(Duration::from_millis(100));
    let most = session.offer(None, Amount::For(trial))?;
    let mut generator_bound = false;
    let mut loss = vec![(most.offered, most.lost() * 100.0)];
    let rate = highest(most.returned_pps * ABOVE, TRIALS, |rate| {
        let answer = session.offer(Some(rate), Amount::For(trial))?;
        generator_bound |= answer.offered < KEPT * rate && answer.lost() < TOLERATED;
        loss.push((answer.offered, answer.lost() * 100.0));
        Ok(answer.lost() < TOLERATED && answer.offered >= KEPT * rate)
    })?;
    session.stop()?;
    loss.sort_by(|left, right| left.0.total_cmp(&right.0));
    let mut reading = Reading::new(rate);
    reading.extra.insert("maximum_with_loss_pps", most.returned_pps);
    (reading.loss, reading.generator_bound) = (loss, generator_bound);
    reading.shares_core = subject.shares_core();
    Ok(reading)
}

/// The highest rate below `end` that passes, by halving the interval; 0 if none was found to pass.
fn highest(
    end: f64,
    trials: u32,
    mut passes: impl FnMut(f64) -> anyhow::Result<bool>,
) -> anyhow::Result<f64> {
    let (mut good, mut bad) = (0.0, end);
    for _ in 0..trials {
        let rate = f64::midpoint(good, bad);
        if passes(rate)? { good = rate } else { bad = rate }
    }
    Ok(good)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_search_ends_just_below_where_loss_begins() {
        let mut tried = Vec::new();
        let found = highest(1_000.0, 10, |rate| {
            tried.push(rate);
            Ok(rate < 700.0)
        });
        let found = found.unwrap();
        assert!(found < 700.0 && found > 699.0, "{found} of {tried:?}");
        assert_eq!(tried[..3], [500.0, 750.0, 625.0]);
    }

    #[test]
    fn a_subject_that_always_loses_has_no_rate() {
        assert_eq!(highest(1_000.0, 7, |_| Ok(false)).unwrap(), 0.0);
    }
}
