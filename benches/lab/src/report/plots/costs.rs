//! What a packet costs against rules, flows, bytes or queues: a picture for each axis, a panel for each kind of case.

use plotters::coord::Shift;
use plotters::coord::ranged1d::Ranged;
use plotters::prelude::*;

use super::super::{CaseReport, Report};
use super::{Drawn, FAINT, FONT, INK, Plot, colour};
use crate::case::{Unit, grouped};

const PANEL: (u32, u32) = (480, 380);
const HEAD: u32 = 44;
/// Room above the highest point, as a part of all, and what each line of the legend needs besides.
const AIR: f64 = 0.08;
const LEGEND: f64 = 0.07;

/// The pictures, one for each axis that cases of the report stand on.
pub(super) fn of(report: &Report) -> Vec<Costs> {
    let mut costs: Vec<Costs> = Vec::new();
    for case in report.cases.iter().filter(|case| case.unit == Unit::PacketsPerSecond) {
        let Some(point) = case.point else { continue };
        let index = costs.iter().position(|plot| plot.axis == point.axis).unwrap_or_else(|| {
            costs.push(Costs::new(point.axis));
            costs.len() - 1
        });
        costs[index].add(case, point.at);
    }
    costs
}

/// What stands above a family's panel.
fn heading(family: &'static str) -> &'static str {
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
    axis: &'static str,
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
    ours: bool,
    points: Vec<Cost>,
}

/// Nanoseconds a packet at one point of the axis.
struct Cost {
    at: f64,
    median: f64,
    least: f64,
    most: f64,
}

impl Costs {
    fn new(axis: &'static str) -> Self {
        let name = format!("cost-{}", axis.replace(' ', "-"));
        let title = format!("Nanoseconds a packet against {axis}: median, minimum and maximum");
        Self { axis, name, title, panels: Vec::new() }
    }

    fn add(&mut self, case: &CaseReport, at: f64) {
        // The ways of the balancer share a panel; other families have one each.
        let (panel, prefix) = match case.family.split_once("balance-") {
            Some((_, way)) => ("Balance", format!("{way}: ")),
            None => (heading(case.family), String::new()),
        };
        let index = self.panels.iter().position(|known| known.title == panel).unwrap_or_else(|| {
            self.panels.push(Panel { title: panel.to_owned(), lines: Vec::new() });
            self.panels.len() - 1
        });
        let lines = &mut self.panels[index].lines;
        for result in &case.results {
            let label = format!("{prefix}{}", result.subject);
            let line = lines.iter().position(|line| line.label == label).unwrap_or_else(|| {
                let ours = result.subject.starts_with("xfwd") && prefix.is_empty();
                lines.push(Line { label, ours, points: Vec::new() });
                lines.len() - 1
            });
            let nanoseconds = |rate: f64| 1e9 / rate.max(1.0);
            lines[line].points.push(Cost {
                at,
                median: nanoseconds(result.spread.median),
                least: nanoseconds(result.spread.max),
                most: nanoseconds(result.spread.min),
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
        // Two panels wide at least, for the title.
        (PANEL.0 * (self.panels.len() as u32).max(2), PANEL.1 + HEAD)
    }

    fn draw<'a, B: DrawingBackend + 'a>(&self, area: &'a DrawingArea<B, Shift>, scale: u32) -> Drawn<B> {
        let title = (FONT, 20 * scale).into_font().color(&INK);
        area.draw(&Text::new(self.title.clone(), ((24 * scale) as i32, (14 * scale) as i32), title))?;
        let (_, rest) = area.split_vertically(HEAD * scale);
        for (panel, area) in self.panels.iter().zip(rest.split_evenly((1, self.panels.len()))) {
            panel.draw(&area, self.axis, scale)?;
        }
        Ok(())
    }
}

impl Panel {
    fn draw<'a, B: DrawingBackend + 'a>(
        &self,
        area: &'a DrawingArea<B, Shift>,
        axis: &str,
        scale: u32,
    ) -> Drawn<B> {
        let points = || self.lines.iter().flat_map(|line| &line.points);
        let first = points().fold(f64::INFINITY, |first, point| first.min(point.at));
        let last = points().fold(0.0_f64, |last, point| last.max(point.at));
        let air = 1.0 + AIR + LEGEND * self.lines.len() as f64;
        let most = points().fold(0.0_f64, |most, point| most.max(point.most)) * air;
        let mut builder = ChartBuilder::on(area);
        builder
            .margin(14 * scale)
            .caption(&self.title, (FONT, 16 * scale).into_font().color(&INK))
            .x_label_area_size(44 * scale)
            .y_label_area_size(64 * scale);
        // Rules and flows go over decades.
        if last / first >= 100.0 {
            let chart = builder.build_cartesian_2d((first / 1.5..last * 1.5).log_scale(), 0.0..most)?;
            self.fill(chart, axis, scale)
        } else {
            let room = ((last - first) * 0.08).max(0.25);
            let chart = builder.build_cartesian_2d((first - room).max(0.0)..last + room, 0.0..most)?;
            self.fill(chart, axis, scale)
        }
    }

    fn fill<
        'a,
        B: DrawingBackend + 'a,
        X: Ranged<ValueType = f64> + plotters::coord::ranged1d::ValueFormatter<f64>,
    >(
        &self,
        mut chart: ChartContext<'a, B, Cartesian2d<X, plotters::coord::types::RangedCoordf64>>,
        axis: &str,
        scale: u32,
    ) -> Drawn<B> {
        let number = |value: &f64| grouped(value.round() as u64);
        // There is no queue and a half.
        let whole = |value: &f64| if value.fract() == 0.0 { number(value) } else { String::new() };
        let text = || (FONT, 13 * scale).into_font().color(&INK);
        chart
            .configure_mesh()
            .x_desc(axis)
            .y_desc("ns a packet")
            .x_labels(6)
            .y_labels(6)
            .x_label_formatter(&whole)
            .y_label_formatter(&number)
            .label_style(text())
            .axis_desc_style(text())
            .axis_style(INK.stroke_width(scale))
            .bold_line_style(FAINT.stroke_width(scale))
            .light_line_style(WHITE.stroke_width(0))
            .draw()?;
        let mut others = 0;
        for line in &self.lines {
            let colour = if line.ours { colour("xfwd", 0) } else { colour("", others) };
            others += usize::from(!line.ours);
            let medians = line.points.iter().map(|point| (point.at, point.median));
            let stroke = colour.stroke_width(2 * scale);
            chart.draw_series(LineSeries::new(medians.clone(), stroke))?.label(line.label.clone()).legend(
                move |(x, y)| {
                    let long = (18 * scale) as i32;
                    PathElement::new(vec![(x, y), (x + long, y)], stroke)
                },
            );
            chart.draw_series(medians.map(|at| Circle::new(at, 3 * scale, colour.filled())))?;
            chart.draw_series(line.points.iter().map(|point| {
                PathElement::new(
                    vec![(point.at, point.least), (point.at, point.most)],
                    colour.stroke_width(scale),
                )
            }))?;
        }
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::UpperLeft)
            .label_font(text())
            .legend_area_size(26 * scale)
            .margin(8 * scale)
            .background_style(WHITE.mix(0.8))
            .draw()
    }
}
