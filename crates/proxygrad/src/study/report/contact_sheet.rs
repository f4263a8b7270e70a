//! The gallery: all units whose images are kept, their arms side by side, as Markdown with small JPEGs.

use std::fmt::Write;

use super::exhibits::remarks;
use super::images::Images;
use super::readability::captions;
use crate::report::html::{link, number};
use crate::report::markdown::{cell, code, table};
use crate::study::error::StudyError;
use crate::study::folder::{Folder, escape_name};
use crate::study::plan::types::{Plan, PlannedPart};
use crate::study::row::Row;
use crate::study::summary::{Comparison, Summary};

/// Writes `gallery.md` and the folder `gallery`, unless no image is kept.
pub(super) fn write(folder: &Folder, plan: &Plan, summary: &Summary) -> Result<(), StudyError> {
    let images = Images::new(folder, plan);
    let mut text = String::new();
    let mut number = 0;
    for comparison in &summary.tables {
        text += &section(folder, plan, comparison, &images, &mut number)?;
    }
    match number {
        0 => Ok(()),
        units => folder.write("gallery.md", (introduction(plan, units) + &text).as_bytes()),
    }
}

fn introduction(plan: &Plan, units: usize) -> String {
    let judges: Vec<String> = plan.judges.iter().map(|judge| code(&judge.id)).collect();
    let mut text = String::from("# Gallery\n\n");
    let _ = write!(
        text,
        "{units} units, drawn with seed {} before anything ran, each at its first start. Below a unit, for every arm: the \
         score of the original network on the image, the highest in bold",
        plan.seed
    );
    if !judges.is_empty() {
        let _ = write!(
            text,
            "; the rank and the probability of the class, and the affinity to natural images of the unit, by {}",
            judges.join(", ")
        );
    }
    text + ". Where the unit sees only a part of the image, that part is shown, enlarged.\n\n"
}

/// The units of a model under a method; counts them.
fn section(
    folder: &Folder,
    plan: &Plan,
    comparison: &Comparison,
    images: &Images<'_>,
    count: &mut usize,
) -> Result<String, StudyError> {
    let remark = remarks(plan, comparison);
    let place = format!("gallery/{}/{}", escape_name(&comparison.model), escape_name(&comparison.method));
    let mut rows = Vec::new();
    for unit in &comparison.units {
        let runs: Vec<&Row> = unit.arms.iter().filter_map(|arm| arm.runs.first()).collect();
        let Some(jpeg) = images.gallery_strip(runs.iter().copied()) else { continue };
        let path = format!("{place}/{}.jpg", escape_name(&unit.unit));
        folder.write(&path, &jpeg)?;
        let names: Vec<&str> = plan.arms.iter().map(|arm| arm.name.as_str()).collect();
        let alt = cell(&format!("{} under {}, from left to right", unit.unit, names.join(", ")));
        let best = runs.iter().map(|run| run.score).fold(f32::NEG_INFINITY, f32::max);
        let mut lines = vec![format!("{} {}", code(&unit.unit), cell(&remark(unit)))];
        lines.extend(part(plan, comparison, &unit.layer).map(|part| cell(&part.to_string())));
        for run in &runs {
            let score = number(run.score.into());
            let score = if run.score == best { format!("**{score}**") } else { score };
            let dead = if run.alive { "" } else { ", dead" };
            let said: String = captions(run).iter().map(|caption| format!("; {}", cell(caption))).collect();
            lines.push(format!("{} {score}{dead}{said}", code(&run.key.arm)));
        }
        rows.push(vec![lines.join("<br>"), format!("![{alt}]({})", link(&path))]);
    }
    *count += rows.len();
    if rows.is_empty() {
        return Ok(String::new());
    }
    let names: Vec<String> = plan.arms.iter().map(|arm| code(&arm.name)).collect();
    let title = format!("## {}, {}\n\n", cell(&comparison.model), cell(&comparison.method));
    Ok(title + &table(&["unit", &names.join(", ")], rows.into_iter()))
}

fn part<'a>(plan: &'a Plan, comparison: &Comparison, layer: &str) -> Option<&'a PlannedPart> {
    let model = plan.models.iter().find(|model| model.id == comparison.model)?;
    model.layers.iter().find(|planned| planned.name == layer)?.part.as_ref()
}
