//! Image grids: rows are units, columns are arms.

use std::io::Cursor;
use std::path::Path;

use base64::Engine;
use image::imageops::{FilterType, replace, resize};
use image::{DynamicImage, ImageFormat, RgbImage};

use crate::report::html::{Cell, link, number, table, text};
use crate::study::folder::{Folder, image_path};
use crate::study::row::Row;
use crate::study::summary::UnitScores;

/// Limit of the longer side of an image in the page, in pixels; the folder has full-size images.
const MAX_SIDE: u32 = 88;

/// Grid with the first start of these units, each with a remark.
pub(super) fn grid(folder: &Folder, caption: &str, units: &[(&UnitScores, String)], arms: &[&str]) -> String {
    let heads: Vec<&str> = std::iter::once("unit").chain(arms.iter().copied()).collect();
    let rows = units.iter().map(|(unit, remark)| {
        let runs: Vec<&Row> = unit.arms.iter().filter_map(|arm| arm.runs.first()).collect();
        let best = runs.iter().map(|run| run.score).fold(f32::NEG_INFINITY, f32::max);
        let mut row = vec![Cell::head(format!("{} {remark}", unit.unit))];
        row.extend(runs.into_iter().map(|run| cell(folder, run, run.score == best)));
        row
    });
    table(caption, &heads, rows.collect())
}

fn cell(folder: &Folder, run: &Row, best: bool) -> Cell {
    let path = image_path(&run.key);
    let score = number(run.score.into());
    let alive = if run.alive { "" } else { ", dead" };
    let alt = text(&format!("{} under {}: score {score}{alive}", run.key.unit, run.key.arm));
    let image = match thumbnail(&folder.file(&path)) {
        Some(png) => {
            let data = base64::engine::general_purpose::STANDARD.encode(png);
            // The link opens the full-size image while the page is in its folder.
            let link = text(&link(&path));
            format!("<a href=\"{link}\"><img src=\"data:image/png;base64,{data}\" alt=\"{alt}\"></a>")
        }
        None => "<span class=\"none\">no image kept</span>".to_owned(),
    };
    let score = if best { format!("<b>{score}</b>") } else { score };
    Cell::html(format!("{image}<br>{score}{alive}"))
}

/// The images of a unit's first start side by side, arm by arm, as a PNG; white where there is none. `None` when there
/// is no image at all.
pub(super) fn strip(folder: &Folder, unit: &UnitScores) -> Option<Vec<u8>> {
    const GAP: u32 = 2;
    let runs = unit.arms.iter().filter_map(|arm| arm.runs.first());
    let images: Vec<Option<RgbImage>> =
        runs.map(|run| Some(small(&folder.file(&image_path(&run.key)))?.to_rgb8())).collect();
    let height = images.iter().flatten().map(RgbImage::height).max()?;
    let width = images.iter().flatten().map(RgbImage::width).max()?;
    let mut strip = RgbImage::from_pixel((width + GAP) * images.len() as u32 - GAP, height, image::Rgb([255; 3]));
    for (column, image) in images.iter().enumerate() {
        if let Some(image) = image {
            replace(&mut strip, image, i64::from(width + GAP) * column as i64, 0);
        }
    }
    encoded(&strip.into())
}

/// The image at this path as a PNG no larger than [`MAX_SIDE`]; `None` if it cannot be read.
fn thumbnail(path: &Path) -> Option<Vec<u8>> {
    encoded(&small(path)?)
}

/// The image at this path, scaled down to at most [`MAX_SIDE`].
fn small(path: &Path) -> Option<DynamicImage> {
    let bytes = std::fs::read(path).ok()?;
    let image = image::load_from_memory_with_format(&bytes, ImageFormat::Png).ok()?;
    let longest = image.width().max(image.height());
    if longest <= MAX_SIDE {
        return Some(image);
    }
    let side = |side: u32| (side * MAX_SIDE).div_ceil(longest);
    let (width, height) = (side(image.width()), side(image.height()));
    Some(match image {
        DynamicImage::ImageLuma8(grey) => resize(&grey, width, height, FilterType::Triangle).into(),
        image => resize(&image.to_rgb8(), width, height, FilterType::Triangle).into(),
    })
}

fn encoded(image: &DynamicImage) -> Option<Vec<u8>> {
    let mut png = Cursor::new(Vec::new());
    image.write_to(&mut png, ImageFormat::Png).ok()?;
    Some(png.into_inner())
}
