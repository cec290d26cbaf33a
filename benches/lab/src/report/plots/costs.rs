//! What a packet costs against rules, flows, bytes or queues: a picture for each axis, a panel for each kind of case.

use plotters::coord::Shift;
use plotters::coord::ranged1d::{Ranged, ValueFormatter};
use plotters::prelude::*;

use super::super::{CaseReport, Report};
use super::axes::{self, Axis, Sheet};
use super::{Colours, Drawn, Plot};
use crate::case::{Unit, grouped};

const COLUMNS: usize = 4;
/// What the title says if there are such points.
const HOLLOW: &str = ". Hollow: the generator may be the limit";
/// From here on, greatest to least, the axis of costs is logarithmic too.
const WIDE: f64 = 10.0;
/// Room above the highest point, as a part of all, and what each line of the legend needs besides.
const AIR: f64 = 0.08;
const LEGEND: f64 = 0.07;

/// The pictures, one for each axis that cases of the report stand on.
pub(super) fn of(report: &Report) -> Vec<Costs> {
    let mut costs: Vec<Costs> = Vec::new();
    for case in report.cases.iter().filter(|case| case.unit == Unit::PacketsPerSecond) {
        let Some(point) = &case.point else { continue };
        let index = costs.iter().position(|plot| plot.axis == point.axis).unwrap_or_else(|| {
            costs.push(Costs::new(&point.axis));
            costs.len() - 1
        });
        costs[index].add(case, point.at);
    }
    costs
}

/// What stands above a family's panel.
fn heading(family: &str) -> &str {
    match family {
        "filter-kernel" => "Filter in the XDP program",
        "filter-worker" => "Filter in the worker",
        "receive-size" => "Receive and drop",
        "bounce-size" | "bounce-queues" => "Bounce",
        other => other,
    }
}

/// A picture: everything with one axis.
pub(super) struct Costs {
    axis: String,
    name: String,
    title: String,
    panels: Vec<Panel>,
}

struct Panel {
    title: String,
    lines: Vec<Line>,
}

struct Line {
    label: String,
    points: Vec<Cost>,
}

/// Nanoseconds a packet at one point of the axis.
struct Cost {
    at: f64,
    median: f64,
    least: f64,
    most: f64,
    /// All that was offered was handled.
    bound: bool,
}

impl Costs {
    fn new(axis: &str) -> Self {
        let name = format!("cost-{}", axis.replace(' ', "-"));
        let title = format!("Nanoseconds a packet against {axis}: median, minimum, maximum");
        Self { axis: axis.to_owned(), name, title, panels: Vec::new() }
    }

    fn sheet(&self) -> Sheet {
        Sheet::new(self.panels.len(), COLUMNS)
    }

    fn add(&mut self, case: &CaseReport, at: f64) {
        // The ways of the balancer share a panel; other families have one each.
        let (panel, prefix) = match case.family.split_once("balance-") {
            Some((_, way)) => ("Balance", format!("{way}: ")),
            None => (heading(&case.family), String::new()),
        };
        let index = self.panels.iter().position(|known| known.title == panel).unwrap_or_else(|| {
            self.panels.push(Panel { title: panel.to_owned(), lines: Vec::new() });
            self.panels.len() - 1
        });
        let lines = &mut self.panels[index].lines;
        if case.results.iter().any(|result| result.generator_bound) && !self.title.ends_with(HOLLOW) {
            self.title.push_str(HOLLOW);
        }
        for result in &case.results {
            let label = format!("{prefix}{}", result.subject);
            let line = lines.iter().position(|line| line.label == label).unwrap_or_else(|| {
                lines.push(Line { label, points: Vec::new() });
                lines.len() - 1
            });
            let nanoseconds = |rate: f64| 1e9 / rate.max(1.0);
            lines[line].points.push(Cost {
                at,
                median: nanoseconds(result.spread.median),
                least: nanoseconds(result.spread.max),
                most: nanoseconds(result.spread.min),
                bound: result.generator_bound,
            });
        }
    }
}

impl Plot for Costs {
    fn name(&self) -> &str {
        &self.name
    }

    fn title(&self) -> &str {
        &self.title
    }

    fn size(&self) -> (u32, u32) {
        self.sheet().size()
    }

    fn draw<'a, B: DrawingBackend + 'a>(&self, area: &DrawingArea<B, Shift>, scale: u32) -> Drawn<B> {
        let areas = self.sheet().split(area, &self.title, scale)?;
        for (panel, area) in self.panels.iter().zip(&areas) {
            panel.draw(area, &self.axis, scale)?;
        }
        Ok(())
    }
}

impl Panel {
    fn draw<'a, B: DrawingBackend + 'a>(
        &self,
        area: &DrawingArea<B, Shift>,
        axis: &str,
        scale: u32,
    ) -> Drawn<B> {
        let points = || self.lines.iter().flat_map(|line| &line.points);
        let first = points().fold(f64::INFINITY, |first, point| first.min(point.at));
        let least = points().fold(f64::INFINITY, |least, point| least.min(point.least));
        let last = points().fold(0.0_f64, |last, point| last.max(point.at));
        let most = points().fold(0.0_f64, |most, point| most.max(point.most));
        let mut builder = axes::chart(area, &self.title, scale);
        let mut places: Vec<f64> = points().map(|point| point.at).collect();
        places.sort_by(f64::total_cmp);
        places.dedup();
        // Every axis doubles or grows by tens.
        let room = (last / first).powf(0.08).max(1.1);
        let along = (first / room..last * room).log_scale().with_key_points(places);
        let air = AIR + LEGEND * self.lines.len() as f64;
        if most / least < WIDE {
            let chart = builder.build_cartesian_2d(along, 0.0..most * (1.0 + air))?;
            self.fill(chart, axis, scale)
        } else {
            let (least, most) = (least / 1.5, most * (most / least).powf(air));
            let up = (least..most).log_scale().with_key_points(axes::numbers(least, most));
            let chart = builder.build_cartesian_2d(along, up)?;
            self.fill(chart, axis, scale)
        }
    }

    fn fill<'a, B, X, Y>(
        &self,
        mut chart: ChartContext<'a, B, Cartesian2d<X, Y>>,
        axis: &str,
        scale: u32,
    ) -> Drawn<B>
    where
        B: DrawingBackend + 'a,
        X: Ranged<ValueType = f64> + ValueFormatter<f64>,
        Y: Ranged<ValueType = f64> + ValueFormatter<f64>,
    {
        let number = |value: &f64| grouped(value.round() as u64);
        let x = Axis { name: axis, labels: 6, label: &number };
        let y = Axis { name: "ns a packet", labels: 6, label: &number };
        axes::axes(&mut chart, &x, &y, scale)?;
        let mut colours = Colours::default();
        for line in &self.lines {
            let colour = colours.of(&line.label);
            let place = |point: &Cost| (point.at, point.median);
            axes::line(&mut chart, line.points.iter().map(place), &line.label, colour, scale)?;
            chart.draw_series(line.points.iter().map(|point| {
                PathElement::new(
                    vec![(point.at, point.least), (point.at, point.most)],
                    colour.stroke_width(scale),
                )
            }))?;
            let bound = line.points.iter().filter(|point| point.bound).map(place);
            axes::dots(&mut chart, line.points.iter().map(place), colour, scale)?;
            axes::holes(&mut chart, bound, scale)?;
        }
        axes::legend(&mut chart, SeriesLabelPosition::UpperLeft, scale)
    }
}
