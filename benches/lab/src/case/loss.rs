//! The highest rate without loss, in the manner of RFC 2544, section 26.1: by bisection, each trial at a fixed rate.
//!
//! Different from there, trials are short (a minute each would be an hour a case), a loss below one in ten thousand passes, as is
//! usual for software, and a rate that fails is tried again: a pause of the machine, which a ring of two thousand packets cannot
//! bridge, comes and goes, and what a subject cannot do it cannot do each time. Packets that the driver refuses since the queue in
//! front of the subject is full are lost as well.

use std::time::Duration;

use xfwd_netns::trafficgen::Amount;

use super::{CURVE_ROUNDS, Case, Contestant, Reading, TOLERATED_LOSS, Unit};
use crate::bench::Bench;
use crate::offer::Traffic;
use crate::paced::Session;
use crate::subject::bare::Bare;
use crate::subject::testpmd::Testpmd;
use crate::subject::two_lines::TwoLines;
use crate::subject::xfwd::Xfwd;
use crate::subject::{Outcome, Subject};

/// The interval is halved so often: to 1/256 of where it begins.
const TRIALS: u32 = 8;
/// A rate that fails this often is too high.
const TRIES: usize = 3;
/// Where loss is measured beyond the search, as multiples of what comes back under as much as goes: for the curve.
const BEYOND: [f64; 3] = [1.5, 2.0, 4.0];
/// The search begins this much above what comes back under as much as goes: some do better when they are not flooded, by a third.
const ABOVE: f64 = 2.0;
/// Shortest trial.
pub(super) const SHORTEST_TRIAL: Duration = Duration::from_millis(100);
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
    let trial = (bench.settings.time / 2).max(SHORTEST_TRIAL);
    let mut found = search(&mut session, trial, TRIALS)?;
    for times in BEYOND {
        let answer = session.offer(Some(found.flooded * times), Amount::For(trial))?;
        found.loss.push((answer.offered, answer.lost() * 100.0));
    }
    session.stop()?;
    found.loss.sort_by(|left, right| left.0.total_cmp(&right.0));
    let mut reading = Reading::new(found.rate);
    reading.extra.insert("maximum_with_loss_pps", found.flooded);
    (reading.loss, reading.generator_bound) = (found.loss, found.generator_bound);
    reading.shares_core = subject.shares_core();
    Ok(reading)
}

/// What a search has found.
pub(super) struct Found {
    /// The highest rate without loss, packets a second; 0 if there is loss at any.
    pub rate: f64,
    /// What comes back a second under as much as goes.
    pub flooded: f64,
    /// The generator did not reach a rate without loss.
    generator_bound: bool,
    /// Packets a second offered, and how many percent of them were lost.
    loss: Vec<(f64, f64)>,
}

/// Looks for the highest rate without loss, by this many halvings.
pub(super) fn search(session: &mut Session<'_>, trial: Duration, halvings: u32) -> anyhow::Result<Found> {
    let most = session.offer(None, Amount::For(trial))?;
    let flooded = most.returned_pps;
    let (mut generator_bound, mut loss) = (false, vec![(most.offered, most.lost() * 100.0)]);
    let rate = highest(flooded * ABOVE, halvings, |rate| {
        let mut least = None;
        for _ in 0..TRIES {
            let answer = session.offer(Some(rate), Amount::For(trial))?;
            if answer.offered < KEPT * rate {
                continue;
            }
            least = Some(answer.lost().min(least.unwrap_or(1.0)));
            if answer.lost() < TOLERATED_LOSS {
                break;
            }
        }
        generator_bound |= least.is_none();
        loss.extend(least.map(|least| (rate, least * 100.0)));
        Ok(least.is_some_and(|least| least < TOLERATED_LOSS))
    })?;
    Ok(Found { rate, flooded, generator_bound, loss })
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
