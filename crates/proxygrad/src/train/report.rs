//! Report of a run: one self-contained page with its course, dead units and settings.

use super::metrics::Epoch;
use super::recipe::Recipe;
use crate::report::chart::{Axis, Line, extent, lines};
use crate::report::html::{Cell, details, document, number, percent, table, text};
use crate::report::svg::Drawing;

/// The page `report.html` of a run with these epochs.
pub fn report(recipe: &Recipe, epochs: &[Epoch]) -> String {
    let mut html = format!("<p>{}</p>\n<div class=\"panels\">\n", text(&introduction(recipe, epochs)));
    let percentage = |share: f64| format!("{:.0} %", 100.0 * share);
    let plots = [
        (
            "Loss",
            chart(epochs, &[("training", |epoch| epoch.train_loss), ("test", |epoch| epoch.test_loss)], |loss| {
                number(loss)
            }),
        ),
        (
            "Accuracy",
            chart(
                epochs,
                &[("training", |epoch| epoch.train_accuracy), ("test", |epoch| epoch.test_accuracy)],
                percentage,
            ),
        ),
        ("Units that are positive on no test image", chart(epochs, &[("dead units", |epoch| epoch.dead)], percentage)),
        ("Learning rate at the end of the epoch", chart(epochs, &[("rate", |epoch| epoch.learning_rate)], number)),
    ];
    for (caption, plot) in plots {
        let plot = plot.map_or_else(String::new, |plot| plot.html());
        html += &format!("<figure><figcaption>{}</figcaption>{plot}</figure>\n", text(caption));
    }
    html += "</div>\n";
    html += &epoch_table(epochs);
    html += &layer_table(epochs);
    let settings = serde_json::to_string_pretty(recipe).unwrap_or_default();
    html += &details("Settings", &format!("<pre>{}</pre>\n", text(&settings)));
    document(&format!("Training of {}", recipe.network()), &html)
}

fn introduction(recipe: &Recipe, epochs: &[Epoch]) -> String {
    let best = epochs.iter().rev().max_by(|a, b| a.test_accuracy.total_cmp(&b.test_accuracy));
    let best = best.map_or_else(String::new, |best| {
        format!(" Best test accuracy: {:.2} % after epoch {}.", 100.0 * best.test_accuracy, best.epoch)
    });
    format!(
        "Surrogate {}, seed {}; {} of {} epochs are done.{best} Training loss and accuracy are measured before each update, \
         those of the test images after the epoch.",
        recipe.surrogate,
        recipe.seed,
        epochs.len(),
        recipe.epochs
    )
}

type Value = fn(&Epoch) -> f64;

/// Values by epoch; `None` without epochs.
fn chart(epochs: &[Epoch], values: &[(&'static str, Value)], label: impl Fn(f64) -> String) -> Option<Drawing> {
    let last = epochs.last()?;
    let line = |&(name, value): &(&'static str, Value)| Line {
        name,
        points: epochs.iter().map(|epoch| [epoch.epoch as f64, value(epoch)]).collect(),
    };
    let all: Vec<Line<'_>> = values.iter().map(line).collect();
    let [low, high] = extent(all.iter().flat_map(|line| &line.points).map(|point| point[1]))?;
    let x = Axis::round([1.0, (last.epoch as f64).max(2.0)], |epoch| format!("{epoch}"));
    let mut drawing = lines(&x, "epoch", &Axis::round([low.min(0.0), high], &label), &all);
    let ends = values.iter().map(|(name, value)| format!("{name} {}", label(value(last))));
    drawing.alt = format!("In the last epoch: {}.", ends.collect::<Vec<_>>().join(", "));
    Some(drawing)
}

fn epoch_table(epochs: &[Epoch]) -> String {
    let heads = ["epoch", "training loss", "training accuracy", "test loss", "test accuracy", "dead units"];
    let row = |epoch: &Epoch| {
        vec![
            Cell::head(epoch.epoch.to_string()),
            Cell::text(number(epoch.train_loss)),
            Cell::text(format!("{:.2} %", 100.0 * epoch.train_accuracy)),
            Cell::text(number(epoch.test_loss)),
            Cell::text(format!("{:.2} %", 100.0 * epoch.test_accuracy)),
            Cell::text(percent(epoch.dead)).bar(epoch.dead),
        ]
    };
    table("Epochs", &heads, epochs.iter().map(row).collect())
}

/// Dead units of every layer after the last epoch.
fn layer_table(epochs: &[Epoch]) -> String {
    let Some(last) = epochs.last() else { return String::new() };
    let row = |layer: &super::metrics::Layer| {
        let share = layer.dead as f64 / layer.channels.max(1) as f64;
        vec![
            Cell::head(&layer.name),
            Cell::text(layer.channels.to_string()),
            Cell::text(layer.dead.to_string()).bar(share),
        ]
    };
    table("Dead units after the last epoch", &["layer", "units", "dead"], last.layers.iter().map(row).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::Layer;

    #[test]
    fn the_page_shows_the_course_and_the_dead_units() {
        let epoch = |number: usize| Epoch {
            epoch: number,
            train_loss: 2.0 / number as f64,
            train_accuracy: 0.2 * number as f64,
            test_loss: 1.5,
            test_accuracy: 0.75,
            learning_rate: 0.1,
            dead: 0.25,
            layers: vec![Layer { name: "relu<1>".into(), channels: 8, dead: 2 }],
        };
        let page = report(&Recipe::default(), &[epoch(1), epoch(2), epoch(3)]);
        assert!(page.contains("Best test accuracy: 75.00 % after epoch 1."), "{page}");
        assert_eq!(page.matches("<svg").count(), 4);
        assert!(page.contains("relu&lt;1&gt;") && page.contains("training 0.6667, test 1.500"), "{page}");
        assert!(!page.contains("http"), "the page needs nothing else");
        assert_eq!(report(&Recipe::default(), &[]).matches("<svg").count(), 0);
    }
}
