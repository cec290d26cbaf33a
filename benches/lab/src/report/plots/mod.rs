//! Pictures of a report, each as SVG and as PNG.
//!
//! Text is set in a font that is a part of this program, so that pictures look the same on every machine. In SVG it is text still, in
//! whatever font the viewer has for `sans-serif`.

mod axes;
mod bars;
mod costs;
mod loss;
mod percentiles;

use std::path::Path;

use anyhow::{Result, anyhow};
use plotters::coord::Shift;
use plotters::prelude::*;

use super::Report;
use super::markdown::{self, Picture};

/// The family of all text.
const FONT: &str = "sans-serif";
const INK: RGBColor = RGBColor(0x20, 0x24, 0x2a);
const FADED: RGBColor = RGBColor(0x6a, 0x70, 0x78);
const FAINT: RGBColor = RGBColor(0xd8, 0xdb, 0xe0);
/// xfwd's colours: of xfwd itself, and of other ways to use it beside it.
const OURS: [RGBColor; 3] =
    [RGBColor(0xc4, 0x4e, 0x1f), RGBColor(0xe6, 0x9f, 0x00), RGBColor(0x7a, 0x2b, 0x0c)];
/// Those of the peers, told apart in shades of grey and by colour-blind readers too (Okabe and Ito).
const THEIRS: [RGBColor; 5] = [
    RGBColor(0x00, 0x72, 0xb2),
    RGBColor(0x00, 0x9e, 0x73),
    RGBColor(0x8a, 0x8f, 0x98),
    RGBColor(0xcc, 0x79, 0xa7),
    RGBColor(0x56, 0xb4, 0xe9),
];
/// Points of a PNG for each of an SVG: sharp on dense screens.
const PNG_SCALE: u32 = 2;

/// A picture to be drawn.
trait Plot {
    /// Name of the files, without what tells their kind.
    fn name(&self) -> &str;
    /// What it shows.
    fn title(&self) -> &str;
    /// Width and height in points.
    fn size(&self) -> (u32, u32);
    /// Draws it, everything `scale` times as large.
    fn draw<'a, B: DrawingBackend + 'a>(&self, area: &DrawingArea<B, Shift>, scale: u32) -> Drawn<B>;
}

type Drawn<B, T = ()> = std::result::Result<T, DrawingAreaErrorKind<<B as DrawingBackend>::ErrorType>>;

/// Draws all pictures that the report has figures for.
pub fn write(report: &Report, folder: &Path) -> Result<Vec<Picture>> {
    plotters::style::register_font(FONT, FontStyle::Normal, epaint_default_fonts::UBUNTU_LIGHT)
        .map_err(|_| anyhow!("the font cannot be read"))?;
    let mut pictures = Vec::new();
    let foot = format!("{}; {}", markdown::origin(report), markdown::command(report)).replace('`', "");
    for plot in bars::of(report) {
        pictures.push(save(&plot, &foot, folder)?);
    }
    for plot in costs::of(report) {
        pictures.push(save(&plot, &foot, folder)?);
    }
    for plot in percentiles::of(report) {
        pictures.push(save(&plot, &foot, folder)?);
    }
    for plot in loss::of(report) {
        pictures.push(save(&plot, &foot, folder)?);
    }
    Ok(pictures)
}

/// Height of the line at the foot.
const FOOT: u32 = 30;

/// Draws a picture, and at its foot where the figures come from.
fn draw<'a, B: DrawingBackend + 'a>(
    plot: &impl Plot,
    foot: &str,
    area: &DrawingArea<B, Shift>,
    scale: u32,
) -> Drawn<B> {
    area.fill(&WHITE)?;
    let (picture, below) = area.split_vertically(plot.size().1 * scale);
    plot.draw(&picture, scale)?;
    let style = (FONT, 12 * scale).into_font().color(&FADED);
    below.draw(&Text::new(foot.to_owned(), ((24 * scale) as i32, 0), style))?;
    area.present()
}

fn save(plot: &impl Plot, foot: &str, folder: &Path) -> Result<Picture> {
    let (width, height) = plot.size();
    let height = height + FOOT;
    let failed =
        |file: &Path, error: &dyn std::fmt::Display| anyhow!("cannot draw {}: {error}", file.display());
    let file = folder.join(format!("{}.svg", plot.name()));
    {
        let area = SVGBackend::new(&file, (width, height)).into_drawing_area();
        draw(plot, foot, &area, 1).map_err(|error| failed(&file, &error))?;
    }
    let file = folder.join(format!("{}.png", plot.name()));
    let size = (width * PNG_SCALE, height * PNG_SCALE);
    let area = BitMapBackend::new(&file, size).into_drawing_area();
    draw(plot, foot, &area, PNG_SCALE).map_err(|error| failed(&file, &error))?;
    Ok(Picture { title: plot.title().to_owned(), file: format!("{}.svg", plot.name()) })
}

/// Gives each line or bar of a picture its colour, in turn.
#[derive(Default)]
struct Colours {
    ours: usize,
    theirs: usize,
}

impl Colours {
    /// The colour of the next contestant; xfwd's are xfwd's.
    fn of(&mut self, subject: &str) -> RGBColor {
        let (used, colours) = if subject.starts_with("xfwd") {
            (&mut self.ours, &OURS[..])
        } else {
            (&mut self.theirs, &THEIRS[..])
        };
        *used += 1;
        colours[(*used - 1) % colours.len()]
    }
}
