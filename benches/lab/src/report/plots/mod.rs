//! Pictures of a report, each as SVG and as PNG.
//!
//! Text is set in a font that is a part of this program, so that pictures look the same on every machine. In SVG it is text still, in
//! whatever font the viewer has for `sans-serif`.

mod bars;
mod costs;
mod percentiles;

use std::path::Path;

use anyhow::{Result, anyhow};
use plotters::coord::Shift;
use plotters::prelude::*;

use super::Report;
use super::markdown::Picture;

/// The family of all text.
const FONT: &str = "sans-serif";
const INK: RGBColor = RGBColor(0x20, 0x24, 0x2a);
const FAINT: RGBColor = RGBColor(0xd8, 0xdb, 0xe0);
/// xfwd's colour.
const OURS: RGBColor = RGBColor(0xc4, 0x4e, 0x1f);
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
    fn draw<'a, B: DrawingBackend + 'a>(&self, area: &'a DrawingArea<B, Shift>, scale: u32) -> Drawn<B>;
}

type Drawn<B> = std::result::Result<(), DrawingAreaErrorKind<<B as DrawingBackend>::ErrorType>>;

/// Draws all pictures that the report has figures for.
pub fn write(report: &Report, folder: &Path) -> Result<Vec<Picture>> {
    plotters::style::register_font(FONT, FontStyle::Normal, epaint_default_fonts::UBUNTU_LIGHT)
        .map_err(|_| anyhow!("the font cannot be read"))?;
    let mut pictures = Vec::new();
    if let Some(plot) = bars::of(report) {
        pictures.push(save(&plot, folder)?);
    }
    for plot in costs::of(report) {
        pictures.push(save(&plot, folder)?);
    }
    for plot in percentiles::of(report) {
        pictures.push(save(&plot, folder)?);
    }
    Ok(pictures)
}

fn save(plot: &impl Plot, folder: &Path) -> Result<Picture> {
    let (width, height) = plot.size();
    let failed =
        |file: &Path, error: &dyn std::fmt::Display| anyhow!("cannot draw {}: {error}", file.display());
    let file = folder.join(format!("{}.svg", plot.name()));
    {
        let area = SVGBackend::new(&file, (width, height)).into_drawing_area();
        let drawn = area.fill(&WHITE).and_then(|()| plot.draw(&area, 1)).and_then(|()| area.present());
        drawn.map_err(|error| failed(&file, &error))?;
    }
    let file = folder.join(format!("{}.png", plot.name()));
    let size = (width * PNG_SCALE, height * PNG_SCALE);
    let area = BitMapBackend::new(&file, size).into_drawing_area();
    let drawn = area.fill(&WHITE).and_then(|()| plot.draw(&area, PNG_SCALE)).and_then(|()| area.present());
    drawn.map_err(|error| failed(&file, &error))?;
    Ok(Picture { title: plot.title().to_owned(), file: format!("{}.svg", plot.name()) })
}

/// The colour of contestant `index` of those in a picture.
fn colour(subject: &str, others_before: usize) -> RGBColor {
    if subject.starts_with("xfwd") { OURS } else { THEIRS[others_before % THEIRS.len()] }
}
