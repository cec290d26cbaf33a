//! Round-trip latency at fixed rates, which are shares of the highest rate without loss that the same contestant had a moment before
//! with the same packets, as in RFC 2544, section 26.2: what it does under a flood is no measure, since packets that come one by one
//! cost more than those that come in a row.
//!
//! Each packet is timed from the moment when it was due, so that what is held up counts in full: nothing has to be corrected for
//! coordinated omission afterwards ([`xfwd_netns::trafficgen::latency`]).

use anyhow::anyhow;
use xfwd_netns::trafficgen::Amount;

use super::loss::{SHORTEST_TRIAL, search};
use super::{CURVE_ROUNDS, Case, Contestant, Point, Reading, Unit, bounce};
use crate::bench::Bench;
use crate::offer::Traffic;
use crate::paced::{Answer, Session, curve};
use crate::subject::bare::Bare;
use crate::subject::testpmd::Testpmd;
use crate::subject::two_lines::TwoLines;
use crate::subject::xfwd::Xfwd;
use crate::subject::{Outcome, Subject};

/// Hundredths of the highest rate without loss.
const SHARES: [u32; 3] = [10, 50, 90];
/// That rate is looked for by so many halvings: to 1/128 of where the search begins.
const HALVINGS: u32 = 7;
/// A generator that missed the rate by more than this was the one that could not keep up.
const KEPT: f64 = 0.99;
/// From so many percent lost on, the reader has to know.
const WORTH_TELLING: f64 = 0.1;

pub(super) fn cases() -> Vec<Case> {
    SHARES.into_iter().map(at_share).collect()
}

fn at_share(share: u32) -> Case {
    Case {
        name: format!("latency-{share}"),
        family: "latency",
        title: format!("Round trip of a bounce at {share} % of its loss-free rate, median"),
        unit: Unit::Microseconds,
        point: Some(Point { axis: "% of the loss-free rate", at: share.into() }),
        rounds: CURVE_ROUNDS,
        contestants: vec![
            contestant(Xfwd::new(bounce::CONFIG), share),
            contestant(Bare::Bounce, share),
            contestant(Testpmd::Macswap, share),
            contestant(TwoLines::Tx, share),
        ],
    }
}

fn contestant(subject: impl Subject + 'static, share: u32) -> Contestant {
    Contestant::new(subject.name(), move |bench| measure(bench, &subject, share))
}

fn measure(bench: &Bench, subject: &dyn Subject, share: u32) -> Outcome<Reading> {
    let mut session = Session::start(bench, subject, &Traffic::default(), true)?;
    let time = bench.settings.time;
    let most = search(&mut session, (time / 4).max(SHORTEST_TRIAL), HALVINGS)?.rate;
    if most == 0.0 {
        return Err(anyhow!("there is loss at any rate").into());
    }
    let rate = most * f64::from(share) / 100.0;
    let answer = session.offer(Some(rate), Amount::For(time))?;
    session.stop()?;
    let lost_percent = answer.lost() * 100.0;
    let mut reading = Reading {
        generator_bound: answer.offered < KEPT * rate,
        shares_core: subject.shares_core(),
        extra: [("loss_free_pps", most), ("lost_percent", lost_percent)].into(),
        ..of(&answer)
    }
    .with_percentiles(&answer);
    if reading.generator_bound {
        let reached = answer.offered / most * 100.0;
        reading.notes.push(format!("the generator reached {reached:.0} % in place of {share} %"));
    }
    if lost_percent > WORTH_TELLING {
        reading.notes.push(format!("{lost_percent:.1} % were lost, and have no time"));
    }
    Ok(reading)
}

/// The median round trip in µs, with the distribution.
pub(super) fn of(answer: &Answer) -> Reading {
    let mut reading = Reading::new(answer.latency.value_at_percentile(50.0) as f64 / 1e3);
    reading.offered = Some(answer.offered);
    reading.curve = curve(&answer.latency);
    if answer.returned == 0 {
        reading.notes.push("no packet came back".to_owned());
    }
    reading
}

impl Reading {
    /// Adds the high percentiles, and the part that the generator had in them.
    fn with_percentiles(mut self, answer: &Answer) -> Self {
        let microseconds = |percentile| answer.latency.value_at_percentile(percentile) as f64 / 1e3;
        let late = answer.lateness.value_at_percentile(99.0) as f64 / 1e3;
        let p99 = microseconds(99.0);
        self.extra.extend([
            ("p99_us", p99),
            ("p99.9_us", microseconds(99.9)),
            ("generator_late_p99_us", late),
        ]);
        self
    }
}
