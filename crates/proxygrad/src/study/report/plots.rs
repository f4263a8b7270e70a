//! Plots of a comparison.

use super::html::number;
use super::svg::{Drawing, Scale};
use crate::study::row::COURSE;
use crate::study::statistics::quantile;
use crate::study::summary::{Comparison, Section, UnitScores};

/// CSS class of the colour of an arm.
pub(super) fn colour(arm: usize) -> String {
    format!("c{}", arm % 10)
}

/// Ratios to the reference by unit: for every other arm a row of dots, with a box from the lower to the upper quartile.
/// Only live units with positive scores have a ratio.
pub(super) fn ratios(table: &Comparison, section: &Section, against: usize) -> Option<Drawing> {
    const LEFT: f64 = 110.0;
    const WIDTH: f64 = 470.0;
    const ROW: f64 = 24.0;
    let of_layer = |unit: &&UnitScores| section.layer.as_ref().is_none_or(|layer| unit.layer == *layer);
    let arms: Vec<(usize, Vec<(f64, &str)>)> = (0..section.arms.len())
        .filter(|&arm| arm != against)
        .map(|arm| {
            let units = table.units.iter().filter(of_layer);
            (arm, units.filter_map(|unit| Some((ratio(unit, arm, against)?.log2(), &*unit.unit))).collect())
        })
        .collect();
    let sizes: Vec<f64> = arms.iter().flat_map(|(_, ratios)| ratios.iter().map(|(log, _)| log.abs())).collect();
    let most = quantile(&sizes, 0.95)?;
    let reach = [0.25, 0.5, 1.0, 2.0, 3.0].into_iter().find(|reach| most <= *reach).unwrap_or(4.0);
    let scale = Scale { from: [-reach, reach], to: [LEFT, WIDTH - 16.0] };
    let bottom = ROW * arms.len() as f64 + 6.0;
    let mut drawing = Drawing::new(WIDTH, bottom + 22.0);
    for tick in ticks(reach) {
        let x = scale.at(f64::log2(tick));
        drawing.line(if tick == 1.0 { "even" } else { "grid" }, [x, 4.0], [x, bottom]);
        drawing.label("middle", [x, bottom + 15.0], &format!("{tick}"));
    }
    let mut descriptions = Vec::new();
    for (row, (arm, ratios)) in arms.iter().enumerate() {
        let (name, colour) = (&section.arms[*arm].arm, colour(*arm));
        let middle = ROW * row as f64 + ROW / 2.0 + 4.0;
        drawing.label("end", [LEFT - 8.0, middle + 4.0], name);
        let logs: Vec<f64> = ratios.iter().map(|(log, _)| *log).collect();
        let quartiles = [0.25, 0.5, 0.75].map(|q| quantile(&logs, q));
        let [Some(low), Some(median), Some(high)] = quartiles else { continue };
        drawing.rectangle("box", [scale.at(low), middle - 8.0], [scale.at(high) - scale.at(low), 16.0]);
        for (i, (log, unit)) in ratios.iter().enumerate() {
            // Vertical jitter, so that equal dots do not overlap.
            let spread = (i * 7 % 11) as f64 - 5.0;
            drawing.dot(&colour, [scale.at(*log), middle + spread], &format!("{unit}: {}", number(log.exp2())));
        }
        drawing.line("median", [scale.at(median), middle - 8.0], [scale.at(median), middle + 8.0]);
        descriptions.push(format!(
            "{name} median {}, quartiles {} to {}",
            number(median.exp2()),
            number(low.exp2()),
            number(high.exp2())
        ));
    }
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
    const LEFT: f64 = 44.0;
    const BOTTOM: f64 = 240.0;
    const WIDTH: f64 = 620.0;
    // Legend: the arms with their colours, in rows below.
    const KEY: f64 = 18.0;
    const KEYS: usize = 4;
    section.arms.iter().find(|arm| arm.course.len() == COURSE)?;
    let x = Scale { from: [0.0, (COURSE - 1) as f64], to: [LEFT, WIDTH - 24.0] };
    let y = Scale { from: [0.0, 1.0], to: [BOTTOM, 8.0] };
    let mut drawing = Drawing::new(WIDTH, BOTTOM + 40.0 + KEY * section.arms.len().div_ceil(KEYS) as f64);
    for share in [0.0, 0.25, 0.5, 0.75, 1.0] {
        drawing.line("grid", [LEFT, y.at(share)], [WIDTH - 24.0, y.at(share)]);
        drawing.label("end", [LEFT - 6.0, y.at(share) + 4.0], &format!("{share}"));
        let along = share * (COURSE - 1) as f64;
        drawing.label("middle", [x.at(along), BOTTOM + 16.0], &format!("{:.0} %", 100.0 * share));
    }
    drawing.label("middle", [(LEFT + WIDTH) / 2.0, BOTTOM + 32.0], "share of the run's steps");
    let mut descriptions = Vec::new();
    for (arm, summary) in section.arms.iter().enumerate() {
        let points: Vec<[f64; 2]> =
            summary.course.iter().enumerate().map(|(i, &share)| [x.at(i as f64), y.at(share)]).collect();
        let class = format!("{} course", colour(arm));
        drawing.path(&class, &points);
        let key = [LEFT + (arm % KEYS) as f64 * 140.0, BOTTOM + 50.0 + KEY * (arm / KEYS) as f64];
        drawing.path(&class, &[[key[0], key[1] - 4.0], [key[0] + 20.0, key[1] - 4.0]]);
        drawing.label("start", [key[0] + 26.0, key[1]], &summary.arm);
        let at = |i: usize| summary.course.get(i).copied().unwrap_or(0.0);
        descriptions.push(format!(
            "{} at a quarter {:.2}, half {:.2}, end {:.2}",
            summary.arm,
            at(COURSE / 4),
            at(COURSE / 2),
            at(COURSE - 1)
        ));
    }
    drawing.alt = format!("Best score so far relative to the best of any arm: {}.", descriptions.join("; "));
    Some(drawing)
}
