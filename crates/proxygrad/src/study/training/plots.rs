//! Plots of a report of training.

use super::summary::{Course, TrainingArm, TrainingTable};
use crate::report::chart::{Axis, Dots, Line, dots, extent, lines};
use crate::report::svg::Drawing;

/// The plots of one network: name, caption and drawing.
pub(super) fn all(table: &TrainingTable, against: &str) -> Vec<(&'static str, String, Drawing)> {
    let percent = |share: f64| format!("{:.0} %", 100.0 * share);
    let course = |what: &str, of: fn(&Course) -> &Vec<f64>, label: fn(f64) -> String| {
        let epochs = table.arms.iter().map(|arm| of(&arm.course).len()).max()?;
        let points =
            |arm: &TrainingArm| (1..).zip(of(&arm.course)).map(|(epoch, &value)| [f64::from(epoch), value]).collect();
        let arms: Vec<Line<'_>> = table.arms.iter().map(|arm| Line { name: &arm.arm, points: points(arm) }).collect();
        let [low, high] = extent(arms.iter().flat_map(|line| &line.points).map(|point| point[1]))?;
        let x = Axis::round([1.0, epochs.max(2) as f64], |epoch| format!("{epoch}"));
        let mut drawing = lines(&x, "epoch", &Axis::round([low.min(0.0), high], label), &arms);
        let last = arms.iter().filter_map(|line| Some(format!("{} {}", line.name, label(line.points.last()?[1]))));
        drawing.alt = format!("{what} in the last epoch: {}.", last.collect::<Vec<_>>().join("; "));
        Some(drawing)
    };
    let caption = |what: &str| format!("{what} after every epoch, median over seeds");
    let courses = [
        ("loss", "Training loss", course("Training loss", |course| &course.loss, |loss| format!("{loss:.2}"))),
        ("accuracy", "Test accuracy", course("Test accuracy", |course| &course.accuracy, percent)),
        ("dead", "Dead units", course("Dead units", |course| &course.dead, percent)),
    ];
    let mut plots: Vec<_> =
        courses.into_iter().filter_map(|(name, what, drawing)| Some((name, caption(what), drawing?))).collect();
    if let Some(drawing) = differences(table, against) {
        plots.push((
            "differences",
            format!("Test accuracy minus that of {against} with the same seed, in points"),
            drawing,
        ));
    }
    plots
}

/// Differences of accuracies to the reference: a row of dots for every other arm.
fn differences(table: &TrainingTable, against: &str) -> Option<Drawing> {
    let reference = table.arms.iter().find(|arm| arm.arm == against)?;
    let row = |(entry, arm): (usize, &'_ TrainingArm)| {
        let pairs = arm.accuracies.iter().zip(&reference.accuracies).zip(&table.seeds);
        let dot = |((a, b), seed): ((&f64, &f64), &u64)| {
            let points = 100.0 * (a - b);
            (points, format!("seed {seed}: {points:+.2}"))
        };
        (entry, pairs.map(dot).collect::<Vec<_>>())
    };
    let rows = table.arms.iter().enumerate().filter(|(_, arm)| arm.arm != against).map(row);
    let rows: Vec<Dots<'_>> =
        rows.map(|(entry, values)| Dots { name: &table.arms[entry].arm, entry, values }).collect();
    let values = rows.iter().flat_map(|row| row.values.iter().map(|(value, _)| *value));
    let [low, high] = extent(values)?;
    let axis = Axis::round([low.min(0.0), high.max(0.0)], |points| format!("{points:+}").replace("+0", "0"));
    let mut drawing = dots(&axis, 0.0, &rows);
    let medians = table
        .arms
        .iter()
        .filter_map(|arm| Some(format!("{} {:+.2}", arm.arm, 100.0 * arm.versus.as_ref()?.difference.median?)));
    drawing.alt = format!("Median difference to {against} in points: {}.", medians.collect::<Vec<_>>().join("; "));
    Some(drawing)
}
