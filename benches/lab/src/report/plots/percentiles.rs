//! Distributions, such as of latency, in the manner of HdrHistogram's plots: the axis of percentiles stretches towards 100, where it
//! matters.

use plotters::coord::Shift;
use plotters::prelude::*;

use super::super::{CaseReport, ContestantReport, Report};
use super::{Drawn, FAINT, FONT, INK, Plot, colour};
use crate::case::{Unit, grouped};

const PANEL: (u32, u32) = (480, 380);
const HEAD: u32 = 44;
const COLUMNS: usize = 3;
/// The last decade that is shown: 99.99 %.
const MOST_NINES: f64 = 4.0;

/// The pictures, one for each family that has distributions.
pub(super) fn of(report: &Report) -> Vec<Percentiles<'_>> {
    let mut plots: Vec<Percentiles> = Vec::new();
    let has_curve = |case: &&CaseReport| case.results.iter().any(|result| !result.curve.is_empty());
    for case in report.cases.iter().filter(has_curve) {
        match plots.iter_mut().find(|plot| plot.name == case.family) {
            Some(plot) => plot.cases.push(case),
            None => plots.push(Percentiles {
                name: case.family,
                title: format!("{} by percentile", capital(case.family)),
                cases: vec![case],
            }),
        }
    }
    plots
}

pub(super) struct Percentiles<'a> {
    name: &'a str,
    title: String,
    cases: Vec<&'a CaseReport>,
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
        let (columns, rows) = (self.cases.len().min(COLUMNS), self.cases.len().div_ceil(COLUMNS));
        (PANEL.0 * (columns as u32).max(2), PANEL.1 * rows as u32 + HEAD)
    }

    fn draw<'a, B: DrawingBackend + 'a>(&self, area: &'a DrawingArea<B, Shift>, scale: u32) -> Drawn<B> {
        let title = (FONT, 20 * scale).into_font().color(&INK);
        area.draw(&Text::new(self.title.clone(), ((24 * scale) as i32, (14 * scale) as i32), title))?;
        let (_, rest) = area.split_vertically(HEAD * scale);
        let (columns, rows) = (self.cases.len().min(COLUMNS), self.cases.len().div_ceil(COLUMNS));
        for (case, area) in self.cases.iter().zip(rest.split_evenly((rows, columns))) {
            panel(case, &area, scale)?;
        }
        Ok(())
    }
}

fn panel<'a, B: DrawingBackend + 'a>(
    case: &CaseReport,
    area: &'a DrawingArea<B, Shift>,
    scale: u32,
) -> Drawn<B> {
    let values =
        || case.results.iter().flat_map(|result| result.curve.iter().map(|(_, value)| value.max(0.1)));
    let least = values().fold(f64::INFINITY, f64::min) / 1.5;
    let most = values().fold(0.0_f64, f64::max) * 1.5;
    let text = || (FONT, 13 * scale).into_font().color(&INK);
    let mut chart = ChartBuilder::on(area)
        .margin(14 * scale)
        .margin_right(34 * scale)
        .caption(&case.title, (FONT, 14 * scale).into_font().color(&INK))
        .x_label_area_size(44 * scale)
        .y_label_area_size(64 * scale)
        .build_cartesian_2d(0.0..MOST_NINES, (least..most).log_scale())?;
    let unit = match case.unit {
        Unit::Microseconds => "µs",
        Unit::Milliseconds => "ms",
        _ => "",
    };
    let value =
        |value: &f64| if *value < 10.0 { format!("{value:.1}") } else { grouped(value.round() as u64) };
    chart
        .configure_mesh()
        .x_desc("percentile")
        .y_desc(unit)
        .x_labels(MOST_NINES as usize + 1)
        .x_label_formatter(&percent)
        .y_label_formatter(&value)
        .label_style(text())
        .axis_desc_style(text())
        .axis_style(INK.stroke_width(scale))
        .bold_line_style(FAINT.stroke_width(scale))
        .light_line_style(WHITE.stroke_width(0))
        .draw()?;
    let mut others = 0;
    let with_curve = |result: &&ContestantReport| !result.curve.is_empty();
    for result in case.results.iter().filter(with_curve) {
        let stroke = colour(&result.subject, others).stroke_width(2 * scale);
        others += usize::from(!result.subject.starts_with("xfwd"));
        let points = result.curve.iter().map(|(percentile, value)| (nines(*percentile), value.max(0.1)));
        chart
            .draw_series(LineSeries::new(points, stroke))?
            .label(result.subject.clone())
            .legend(move |(x, y)| PathElement::new(vec![(x, y), (x + (18 * scale) as i32, y)], stroke));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::LowerRight)
        .label_font(text())
        .legend_area_size(26 * scale)
        .margin(8 * scale)
        .background_style(WHITE.mix(0.8))
        .draw()
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
