//! Image grids: rows are units, columns are arms.

use base64::Engine;

use super::images::Images;
use super::readability::captions;
use crate::report::html::{Cell, link, number, table, text};
use crate::study::folder::image_path;
use crate::study::row::Row;
use crate::study::summary::UnitScores;

/// Grid with the first start of these units, each with a remark.
pub(super) fn grid(images: &Images<'_>, caption: &str, units: &[(&UnitScores, String)], arms: &[&str]) -> String {
    let heads: Vec<&str> = std::iter::once("unit").chain(arms.iter().copied()).collect();
    let rows = units.iter().map(|(unit, remark)| {
        let runs: Vec<&Row> = unit.arms.iter().filter_map(|arm| arm.runs.first()).collect();
        let best = runs.iter().map(|run| run.score).fold(f32::NEG_INFINITY, f32::max);
        let mut row = vec![Cell::head(format!("{} {remark}", unit.unit))];
        row.extend(runs.into_iter().map(|run| cell(images, run, run.score == best)));
        row
    });
    table(caption, &heads, rows.collect())
}

fn cell(images: &Images<'_>, run: &Row, best: bool) -> Cell {
    let path = image_path(&run.key);
    let score = number(run.score.into());
    let alive = if run.alive { "" } else { ", dead" };
    let alt = text(&format!("{} under {}: score {score}{alive}", run.key.unit, run.key.arm));
    let image = match images.thumbnail(run) {
        Some(png) => {
            let data = base64::engine::general_purpose::STANDARD.encode(png);
            // The link opens the full-size image while the page is in its folder.
            let link = text(&link(&path));
            format!("<a href=\"{link}\"><img src=\"data:image/png;base64,{data}\" alt=\"{alt}\"></a>")
        }
        None => "<span class=\"none\">no image kept</span>".to_owned(),
    };
    let score = if best { format!("<b>{score}</b>") } else { score };
    let said: String = captions(run).iter().map(|caption| format!("<br>{}", text(caption))).collect();
    Cell::html(format!("{image}<br>{score}{alive}{said}"))
}
