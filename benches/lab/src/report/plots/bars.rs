//! The cases that are no points of a curve: a bar for each contestant with its spread, a scale for each case.

use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::super::{CaseReport, Report, figure};
use super::{Colours, Drawn, FAINT, FONT, INK, Plot};
use crate::case::Unit;

const WIDTH: i32 = 960;
const MARGIN: i32 = 24;
const LABEL: i32 = 196;
const FIGURE: i32 = 220;
const HEAD: i32 = 30;
const ROW: i32 = 26;
const BAR: i32 = 16;
const GAP: i32 = 14;
/// Height of the line at the end of a spread.
const TICK: i32 = 8;

/// The pictures, as far as the report has cases for them: packets a second, and all else, of which less is better.
pub(super) fn of(report: &Report) -> Vec<Bars<'_>> {
    let (rates, others): (Vec<&CaseReport>, Vec<&CaseReport>) = report
        .cases
        .iter()
        .filter(|case| case.point.is_none() && !case.results.is_empty())
        .partition(|case| case.unit == Unit::PacketsPerSecond);
    let pictures = [
        Bars { name: "throughput", title: "Packets a second: median, minimum and maximum", cases: rates },
        Bars {
            name: "waiting",
            title: "Waking, starting, reloading, memory: median, minimum and maximum. Less is better",
            cases: others,
        },
    ];
    pictures.into_iter().filter(|picture| !picture.cases.is_empty()).collect()
}

pub(super) struct Bars<'a> {
    name: &'static str,
    title: &'static str,
    cases: Vec<&'a CaseReport>,
}

impl Plot for Bars<'_> {
    fn name(&self) -> &str {
        self.name
    }

    fn title(&self) -> &str {
        self.title
    }

    fn size(&self) -> (u32, u32) {
        let rows: i32 = self.cases.iter().map(|case| HEAD + ROW * case.results.len() as i32 + GAP).sum();
        (WIDTH as u32, (2 * MARGIN + HEAD + rows) as u32)
    }

    fn draw<'a, B: DrawingBackend + 'a>(&self, area: &DrawingArea<B, Shift>, scale: u32) -> Drawn<B> {
        let k = scale as i32;
        let at = |x: i32, y: i32| (x * k, y * k);
        let text = |size: i32, right: bool| {
            let side = if right { HPos::Right } else { HPos::Left };
            (FONT, size * k).into_font().color(&INK).pos(Pos::new(side, VPos::Center))
        };
        let mut y = MARGIN;
        area.draw(&Text::new(self.title(), at(MARGIN, y), text(20, false)))?;
        y += HEAD;
        for case in &self.cases {
            area.draw(&Text::new(case.title.clone(), at(MARGIN, y + HEAD / 2), text(15, false)))?;
            y += HEAD;
            let left = MARGIN + LABEL;
            let room = f64::from(WIDTH - MARGIN - FIGURE - left);
            let most = case.results.iter().fold(0.0_f64, |most, result| most.max(result.spread.max));
            let most = if most > 0.0 { most } else { 1.0 };
            let along = |value: f64| left + (room * value / most) as i32;
            let first = case.results.first().map_or("", |result| &result.subject);
            let mut colours = Colours::default();
            for result in &case.results {
                let (spread, middle) = (&result.spread, y + ROW / 2);
                let fill = colours.of(&result.subject);
                area.draw(&Text::new(result.subject.clone(), at(left - 8, middle), text(14, true)))?;
                let corners = [at(left, middle - BAR / 2), at(along(spread.median), middle + BAR / 2)];
                area.draw(&Rectangle::new(corners, fill.filled()))?;
                let line = INK.stroke_width(scale);
                let (low, high) = (along(spread.min), along(spread.max));
                area.draw(&PathElement::new(vec![at(low, middle), at(high, middle)], line))?;
                for end in [low, high] {
                    let ends = vec![at(end, middle - TICK / 2), at(end, middle + TICK / 2)];
                    area.draw(&PathElement::new(ends, line))?;
                }
                let ratio = case.ratios.iter().find(|ratio| ratio.to == result.subject);
                let ratio = ratio
                    .map_or(String::new(), |ratio| format!("   {:.2} × {first}", 1.0 / ratio.spread.median));
                let label = format!("{}{ratio}", figure(spread.median, case.unit));
                area.draw(&Text::new(label, at(along(spread.max) + 10, middle), text(14, false)))?;
                y += ROW;
            }
            let bottom = vec![at(left, y - ROW * case.results.len() as i32), at(left, y)];
            area.draw(&PathElement::new(bottom, FAINT.stroke_width(scale)))?;
            y += GAP;
        }
        Ok(())
    }
}
