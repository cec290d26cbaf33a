//! Loss against offered rate, in the manner of RFC 2544, section 26.3: a line for each contestant, and one where the search for the highest
//! rate without loss draws it.

use plotters::coord::Shift;
use plotters::coord::ranged1d::{Ranged, ValueFormatter};
use plotters::prelude::*;

use super::super::{CaseReport, Report};
use super::axes::{self, Axis, Sheet};
use super::{Colours, Drawn, INK, Plot};
use crate::case::TOLERATED_LOSS;

/// What is less, none above all, stands at the foot of the axis: a logarithm has no zero.
const FOOT: f64 = 0.001;
/// Where numbers stand at the axis of loss, in percent.
const PERCENTS: [f64; 6] = [FOOT, 0.01, 0.1, 1.0, 10.0, 100.0];

/// The pictures, one for each case with rates and losses.
pub(super) fn of(report: &Report) -> Vec<Loss<'_>> {
    let has_losses = |case: &&CaseReport| case.results.iter().any(|result| !result.loss.is_empty());
    report
        .cases
        .iter()
        .filter(has_losses)
        .map(|case| Loss { case, name: format!("loss-{}", case.name) })
        .collect()
}

pub(super) struct Loss<'a> {
    case: &'a CaseReport,
    name: String,
}

impl Plot for Loss<'_> {
    fn name(&self) -> &str {
        &self.name
    }

    fn title(&self) -> &str {
        "Loss against the rate that was offered"
    }

    fn size(&self) -> (u32, u32) {
        Sheet::wide().size()
    }

    fn draw<'a, B: DrawingBackend + 'a>(&self, area: &DrawingArea<B, Shift>, scale: u32) -> Drawn<B> {
        let areas = Sheet::wide().split(area, self.title(), scale)?;
        let rates = || self.case.results.iter().flat_map(|result| result.loss.iter().map(|(rate, _)| *rate));
        let least = rates().fold(f64::INFINITY, f64::min) / 1.2;
        let most = rates().fold(0.0_f64, f64::max) * 1.2;
        for area in &areas {
            let chart = axes::chart(area, &self.case.title, scale).build_cartesian_2d(
                (least..most).log_scale().with_key_points(axes::numbers(least, most)),
                (FOOT..PERCENTS[5]).log_scale().with_key_points(PERCENTS.to_vec()),
            )?;
            self.fill(chart, (least, most), scale)?;
        }
        Ok(())
    }
}

impl Loss<'_> {
    fn fill<'a, B, X, Y>(
        &self,
        mut chart: ChartContext<'a, B, Cartesian2d<X, Y>>,
        (least, most): (f64, f64),
        scale: u32,
    ) -> Drawn<B>
    where
        B: DrawingBackend + 'a,
        X: Ranged<ValueType = f64> + ValueFormatter<f64>,
        Y: Ranged<ValueType = f64> + ValueFormatter<f64>,
    {
        let percent =
            |percent: &f64| if *percent <= FOOT { "none".to_owned() } else { format!("{percent} %") };
        let millions = |rate: &f64| format!("{}", rate / 1e6);
        let x = Axis { name: "million packets a second offered", labels: 6, label: &millions };
        let y = Axis { name: "lost", labels: PERCENTS.len(), label: &percent };
        axes::axes(&mut chart, &x, &y, scale)?;
        let tolerated = TOLERATED_LOSS * 100.0;
        let (long, gap) = (6 * scale, 4 * scale);
        let ends = [(least, tolerated), (most, tolerated)].into_iter();
        chart.draw_series(DashedLineSeries::new(ends, long, gap, INK.stroke_width(scale)))?;
        let mut colours = Colours::default();
        for result in &self.case.results {
            let colour = colours.of(&result.subject);
            let points = || result.loss.iter().map(|(rate, percent)| (*rate, percent.max(FOOT)));
            axes::line(&mut chart, points(), &result.subject, colour, scale)?;
            axes::dots(&mut chart, points(), colour, scale)?;
        }
        axes::legend(&mut chart, SeriesLabelPosition::MiddleRight, scale)
    }
}
