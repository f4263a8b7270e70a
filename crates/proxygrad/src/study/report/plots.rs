//! Plots of a comparison.

use crate::report::chart::{Axis, Dots, Line, dots, lines};
use crate::report::html::number;
use crate::report::svg::Drawing;
use crate::statistics::quantile;
use crate::study::row::COURSE;
use crate::study::summary::{Comparison, Section, UnitScores};

/// Ratios to the reference by unit: for every other arm a row of dots, with a box from the lower to the upper quartile.
/// Only live units with positive scores have a ratio.
pub(super) fn ratios(table: &Comparison, section: &Section, against: usize) -> Option<Drawing> {
    let of_layer = |unit: &&UnitScores| section.layer.as_ref().is_none_or(|layer| unit.layer == *layer);
    let rows: Vec<Dots<'_>> = (0..section.arms.len())
        .filter(|&arm| arm != against)
        .map(|arm| {
            let units = table.units.iter().filter(of_layer);
            let dot = |unit: &UnitScores| {
                let ratio = ratio(unit, arm, against)?;
                Some((ratio.log2(), format!("{}: {}", unit.unit, number(ratio))))
            };
            Dots { name: &section.arms[arm].arm, entry: arm, values: units.filter_map(dot).collect() }
        })
        .collect();
    let sizes: Vec<f64> = rows.iter().flat_map(|row| row.values.iter().map(|(log, _)| log.abs())).collect();
    let most = quantile(&sizes, 0.95)?;
    let reach = [0.25, 0.5, 1.0, 2.0, 3.0].into_iter().find(|reach| most <= *reach).unwrap_or(4.0);
    let ticks = ticks(reach).map(|tick| (tick.log2(), format!("{tick}"))).collect();
    let mut drawing = dots(&Axis { range: [-reach, reach], ticks }, 0.0, &rows);
    let descriptions = rows.iter().filter_map(|row| {
        let logs: Vec<f64> = row.values.iter().map(|(log, _)| *log).collect();
        let at = |q| quantile(&logs, q).map(|log| number(log.exp2()));
        Some(format!("{} median {}, quartiles {} to {}", row.name, at(0.5)?, at(0.25)?, at(0.75)?))
    });
    let descriptions: Vec<String> = descriptions.collect();
    let reference = &section.arms[against].arm;
    drawing.alt = format!("Ratios of scores to {reference}: {}.", descriptions.join("; "));
    Some(drawing)
}

/// Ratio of the scores of a live unit.
fn ratio(unit: &UnitScores, arm: usize, against: usize) -> Option<f64> {
    let live = unit.arms[against].runs.iter().all(|run| run.alive);
    let (score, reference) = (unit.arms[arm].score, unit.arms[against].score);
    (live && score > 0.0 && reference > 0.0).then(|| score / reference)
}

fn ticks(reach: f64) -> impl Iterator<Item = f64> {
    let fine: &[f64] = match reach {
        reach if reach <= 0.5 => &[0.75, 0.85, 1.0, 1.15, 1.3],
        reach if reach <= 1.0 => &[0.5, 0.7, 1.0, 1.4, 2.0],
        _ => &[0.0625, 0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0],
    };
    fine.iter().copied().filter(move |tick| tick.log2().abs() <= reach)
}

/// Caption of [`courses`].
pub(super) const COURSES: &str =
    "Best score so far, relative to the best of any arm from the same start: median over runs of live units";

/// Scores over a run: medians over runs of live units, as shares of the best score of any arm.
pub(super) fn courses(section: &Section) -> Option<Drawing> {
    section.arms.iter().find(|arm| arm.course.len() == COURSE)?;
    let along = |i: usize| i as f64 / (COURSE - 1) as f64;
    let points = |course: &[f64]| course.iter().enumerate().map(|(i, &share)| [along(i), share]).collect();
    let arms: Vec<Line<'_>> =
        section.arms.iter().map(|arm| Line { name: &arm.arm, points: points(&arm.course) }).collect();
    let percent = Axis::quarters(|share| format!("{:.0} %", 100.0 * share));
    let shares = Axis::quarters(|share| format!("{share}"));
    let mut drawing = lines(&percent, "share of the run's steps", &shares, &arms);
    let descriptions = section.arms.iter().map(|summary| {
        let at = |i: usize| summary.course.get(i).copied().unwrap_or(0.0);
        format!(
            "{} at a quarter {:.2}, half {:.2}, end {:.2}",
            summary.arm,
            at(COURSE / 4),
            at(COURSE / 2),
            at(COURSE - 1)
        )
    });
    let descriptions: Vec<String> = descriptions.collect();
    drawing.alt = format!("Best score so far relative to the best of any arm: {}.", descriptions.join("; "));
    Some(drawing)
}
