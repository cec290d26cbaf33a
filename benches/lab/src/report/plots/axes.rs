//! What all charts of lines have in common: a sheet with a title and panels, axes, lines, a legend.

use plotters::coord::Shift;
use plotters::coord::ranged1d::{Ranged, ValueFormatter};
use plotters::prelude::*;

use super::{Drawn, FAINT, FONT, INK};

/// Width and height of a panel, in points.
const PANEL: (u32, u32) = (480, 380);
/// Height of the title above the panels.
const HEAD: u32 = 44;
const TITLE: u32 = 20;
const CAPTION: u32 = 15;
const LABEL: u32 = 13;
/// Length of a line in the legend.
const LEGEND_LINE: i32 = 18;
/// What a decade of a logarithmic axis is divided by.
const STEPS: [f64; 3] = [1.0, 2.0, 5.0];

/// Panels under a title.
pub(super) struct Sheet {
    columns: usize,
    rows: usize,
    panel: (u32, u32),
}

impl Sheet {
    /// For so many panels, at most so many beside one another.
    pub fn new(panels: usize, most_columns: usize) -> Self {
        let (columns, rows) = (panels.clamp(1, most_columns), panels.div_ceil(most_columns).max(1));
        Self { columns, rows, panel: PANEL }
    }

    /// With one panel, twice as wide.
    pub fn wide() -> Self {
        Self { columns: 1, rows: 1, panel: (2 * PANEL.0, PANEL.1 + HEAD) }
    }

    /// Width and height in points; two panels wide at least, for the title.
    pub fn size(&self) -> (u32, u32) {
        ((self.panel.0 * self.columns as u32).max(2 * PANEL.0), self.panel.1 * self.rows as u32 + HEAD)
    }

    /// Writes the title, and returns the panels' areas row by row.
    pub fn split<'a, B: DrawingBackend + 'a>(
        &self,
        area: &DrawingArea<B, Shift>,
        title: &str,
        scale: u32,
    ) -> Drawn<B, Vec<DrawingArea<B, Shift>>> {
        let style = (FONT, TITLE * scale).into_font().color(&INK);
        area.draw(&Text::new(title.to_owned(), ((24 * scale) as i32, (14 * scale) as i32), style))?;
        let (_, rest) = area.split_vertically(HEAD * scale);
        Ok(rest.split_evenly((self.rows, self.columns)))
    }
}

/// Small text.
pub(super) fn label_style(scale: u32) -> TextStyle<'static> {
    (FONT, LABEL * scale).into_font().color(&INK)
}

/// A chart with a caption, and room for its axes.
pub(super) fn chart<'a, 'b, B: DrawingBackend>(
    area: &'a DrawingArea<B, Shift>,
    caption: &str,
    scale: u32,
) -> ChartBuilder<'a, 'b, B> {
    let mut builder = ChartBuilder::on(area);
    builder
        .margin(14 * scale)
        .margin_right(34 * scale)
        .caption(caption, (FONT, CAPTION * scale).into_font().color(&INK))
        .x_label_area_size(44 * scale)
        .y_label_area_size(64 * scale);
    builder
}

/// An axis: what it shows, about how many numbers stand at it, and how they are written.
pub(super) struct Axis<'a> {
    pub name: &'a str,
    pub labels: usize,
    pub label: &'a dyn Fn(&f64) -> String,
}

/// Draws the axes, and a faint line at each number.
pub(super) fn axes<'a, B, X, Y>(
    chart: &mut ChartContext<'a, B, Cartesian2d<X, Y>>,
    x: &Axis<'_>,
    y: &Axis<'_>,
    scale: u32,
) -> Drawn<B>
where
    B: DrawingBackend + 'a,
    X: Ranged<ValueType = f64> + ValueFormatter<f64>,
    Y: Ranged<ValueType = f64> + ValueFormatter<f64>,
{
    chart
        .configure_mesh()
        .x_desc(x.name)
        .y_desc(y.name)
        .x_labels(x.labels)
        .y_labels(y.labels)
        .x_label_formatter(x.label)
        .y_label_formatter(y.label)
        .label_style(label_style(scale))
        .axis_desc_style(label_style(scale))
        .axis_style(INK.stroke_width(scale))
        .bold_line_style(FAINT.stroke_width(scale))
        .light_line_style(WHITE.stroke_width(0))
        .draw()
}

/// Draws a line that has a place in the legend.
pub(super) fn line<'a, B, X, Y>(
    chart: &mut ChartContext<'a, B, Cartesian2d<X, Y>>,
    points: impl Iterator<Item = (f64, f64)>,
    label: &str,
    colour: RGBColor,
    scale: u32,
) -> Drawn<B>
where
    B: DrawingBackend + 'a,
    X: Ranged<ValueType = f64>,
    Y: Ranged<ValueType = f64>,
{
    let stroke = colour.stroke_width(2 * scale);
    let long = LEGEND_LINE * scale as i32;
    chart
        .draw_series(LineSeries::new(points, stroke))?
        .label(label)
        .legend(move |(x, y)| PathElement::new(vec![(x, y), (x + long, y)], stroke));
    Ok(())
}

/// Draws a dot at each point.
pub(super) fn dots<'a, B, X, Y>(
    chart: &mut ChartContext<'a, B, Cartesian2d<X, Y>>,
    points: impl Iterator<Item = (f64, f64)>,
    colour: RGBColor,
    scale: u32,
) -> Drawn<B>
where
    B: DrawingBackend + 'a,
    X: Ranged<ValueType = f64>,
    Y: Ranged<ValueType = f64>,
{
    chart.draw_series(points.map(|at| Circle::new(at, 3 * scale, colour.filled()))).map(drop)
}

/// Makes rings of dots.
pub(super) fn holes<'a, B, X, Y>(
    chart: &mut ChartContext<'a, B, Cartesian2d<X, Y>>,
    points: impl Iterator<Item = (f64, f64)>,
    scale: u32,
) -> Drawn<B>
where
    B: DrawingBackend + 'a,
    X: Ranged<ValueType = f64>,
    Y: Ranged<ValueType = f64>,
{
    chart.draw_series(points.map(|at| Circle::new(at, 2 * scale, WHITE.filled()))).map(drop)
}

/// Round numbers from `least` to `most` for a logarithmic axis: 1, 2, 5, 10, 20, …
pub(super) fn numbers(least: f64, most: f64) -> Vec<f64> {
    let decades = least.log10().floor() as i32..=most.log10().ceil() as i32;
    let numbers = decades.flat_map(|decade| STEPS.map(|step| step * 10_f64.powi(decade)));
    numbers.filter(|number| (least..=most).contains(number)).collect()
}

/// Draws the legend of all lines.
pub(super) fn legend<'a, B, X, Y>(
    chart: &mut ChartContext<'a, B, Cartesian2d<X, Y>>,
    position: SeriesLabelPosition,
    scale: u32,
) -> Drawn<B>
where
    B: DrawingBackend + 'a,
    X: Ranged<ValueType = f64>,
    Y: Ranged<ValueType = f64>,
{
    chart
        .configure_series_labels()
        .position(position)
        .label_font(label_style(scale))
        .legend_area_size(26 * scale)
        .margin(8 * scale)
        .background_style(WHITE.mix(0.8))
        .draw()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_logarithmic_axis_has_round_numbers_and_none_beyond_its_ends() {
        assert_eq!(numbers(0.4, 12.0), [0.5, 1.0, 2.0, 5.0, 10.0]);
        assert_eq!(numbers(30.0, 40.0), [] as [f64; 0]);
    }

    #[test]
    fn a_sheet_has_room_for_every_panel() {
        assert_eq!(Sheet::new(1, 3).size(), (2 * PANEL.0, PANEL.1 + HEAD));
        assert_eq!(Sheet::new(4, 3).size(), (3 * PANEL.0, 2 * PANEL.1 + HEAD));
    }
}
