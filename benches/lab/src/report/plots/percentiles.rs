//! Distributions, such as of latency, in the manner of HdrHistogram's plots: the axis of percentiles stretches towards 100, where it
//! matters.

use plotters::coord::Shift;
use plotters::prelude::*;

use super::super::{CaseReport, ContestantReport, Report};
use super::axes::{self, Axis, Sheet};
use super::{Colours, Drawn, Plot};
use crate::case::{Unit, grouped};

const COLUMNS: usize = 3;
/// The last decade that is shown: 99.99 %.
const MOST_NINES: f64 = 4.0;

/// The pictures, one for each family that has distributions.
pub(super) fn of(report: &Report) -> Vec<Percentiles<'_>> {
    let mut plots: Vec<Percentiles> = Vec::new();
    let has_curve = |case: &&CaseReport| case.results.iter().any(has_curve);
    for case in report.cases.iter().filter(has_curve) {
        match plots.iter_mut().find(|plot| plot.name == case.family) {
            Some(plot) => plot.cases.push(case),
            None => plots.push(Percentiles {
                name: &case.family,
                title: format!("{} by percentile", capital(&case.family)),
                cases: vec![case],
            }),
        }
    }
    plots
}

/// Whether a curve goes far enough to be looked at; few packets have percentiles of the middle only.
fn has_curve(result: &ContestantReport) -> bool {
    result.curve.last().is_some_and(|(percentile, _)| *percentile >= 90.0)
}

pub(super) struct Percentiles<'a> {
    name: &'a str,
    title: String,
    cases: Vec<&'a CaseReport>,
}

impl Percentiles<'_> {
    fn sheet(&self) -> Sheet {
        Sheet::new(self.cases.len(), COLUMNS)
    }
}

fn capital(word: &str) -> String {
    let mut letters = word.chars();
    letters.next().map_or(String::new(), |first| first.to_uppercase().chain(letters).collect())
}

/// Where a percentile stands: how many nines it has.
fn nines(percentile: f64) -> f64 {
    -(1.0 - percentile / 100.0).max(10_f64.powf(-MOST_NINES)).log10()
}

/// What stands at so many nines: 0 %, 90 %, 99 %, …
fn percent(nines: &f64) -> String {
    let percent = 100.0 - 100.0 * 10_f64.powf(-nines.round());
    format!("{percent} %")
}

impl Plot for Percentiles<'_> {
    fn name(&self) -> &str {
        self.name
    }

    fn title(&self) -> &str {
        &self.title
    }

    fn size(&self) -> (u32, u32) {
        self.sheet().size()
    }

    fn draw<'a, B: DrawingBackend + 'a>(&self, area: &DrawingArea<B, Shift>, scale: u32) -> Drawn<B> {
        let areas = self.sheet().split(area, &self.title, scale)?;
        for (case, area) in self.cases.iter().zip(&areas) {
            panel(case, area, scale)?;
        }
        Ok(())
    }
}

fn panel<'a, B: DrawingBackend + 'a>(
    case: &CaseReport,
    area: &DrawingArea<B, Shift>,
    scale: u32,
) -> Drawn<B> {
    let values =
        || case.results.iter().flat_map(|result| result.curve.iter().map(|(_, value)| value.max(0.1)));
    let least = values().fold(f64::INFINITY, f64::min) / 1.5;
    let most = values().fold(0.0_f64, f64::max) * 1.5;
    let mut chart = axes::chart(area, &case.title, scale)
        .build_cartesian_2d(0.0..MOST_NINES, (least..most).log_scale())?;
    let unit = match case.unit {
        Unit::Microseconds => "µs",
        Unit::Milliseconds => "ms",
        _ => "",
    };
    let value =
        |value: &f64| if *value < 10.0 { format!("{value:.1}") } else { grouped(value.round() as u64) };
    let (x, y) = (
        Axis { name: "percentile", labels: MOST_NINES as usize + 1, label: &percent },
        Axis { name: unit, labels: 6, label: &value },
    );
    axes::axes(&mut chart, &x, &y, scale)?;
    let mut colours = Colours::default();
    for result in case.results.iter().filter(|result| has_curve(result)) {
        let colour = colours.of(&result.subject);
        let points = result.curve.iter().map(|(percentile, value)| (nines(*percentile), value.max(0.1)));
        axes::line(&mut chart, points, &result.subject, colour, scale)?;
    }
    axes::legend(&mut chart, SeriesLabelPosition::LowerRight, scale)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_nine_is_as_wide_as_the_one_before() {
        assert_eq!(nines(0.0), 0.0);
        assert!((nines(90.0) - 1.0).abs() < 1e-9 && (nines(99.9) - 3.0).abs() < 1e-9);
        assert_eq!(nines(100.0), MOST_NINES);
        assert_eq!(["0 %", "90 %", "99.9 %"], [0.0, 1.0, 3.0].map(|nines| percent(&nines)));
    }
}
