//! Report of a study of training: `summary.csv`, `summary.json`, the self-contained page `report.html`, and `report.md` with
//! its `figures`.

use std::fmt::Write;

use super::maxima::{MaximaPlan, MaximumRow};
use super::plan::TrainingPlan;
use super::row::TrainingRow;
use super::summary::{LEARNED, TrainingSummary, TrainingTable, summarize};
use super::{plots, tables};
use crate::Invalid;
use crate::report::html::{Cell, details, document, link, table, text};
use crate::report::markdown;
use crate::study::error::StudyError;
use crate::study::folder::{Folder, escape_name};
use crate::study::json::pretty;

/// Summarizes the runs in a folder.
///
/// # Errors
/// If the folder holds no study of training.
pub fn training_summary(folder: &Folder) -> Result<TrainingSummary, StudyError> {
    let maxima = match folder.read_plan::<MaximumRow>()? {
        Some(plan) => Some((plan, folder.read_rows::<MaximumRow>()?)),
        None => None,
    };
    let maxima = maxima.as_ref().map(|(plan, rows)| (plan, &rows[..]));
    Ok(summarize(&planned(folder)?, &folder.read_rows::<TrainingRow>()?, maxima))
}

/// Writes the summary, the page and the Markdown report with its figures into the folder.
///
/// # Errors
/// If the folder holds no study of training or cannot be written.
pub fn training_report(folder: &Folder, summary: &TrainingSummary) -> Result<(), StudyError> {
    let plan = planned(folder)?;
    let maxima = folder.read_plan::<MaximumRow>()?;
    folder.write("summary.csv", summary.to_csv().as_bytes())?;
    if maxima.is_some() {
        folder.write("maxima-summary.csv", summary.maxima_to_csv().as_bytes())?;
    }
    folder.write("summary.json", pretty(summary, &folder.file("summary.json"))?.as_bytes())?;
    folder.write("report.md", markdown(folder, &plan, maxima.as_ref(), summary)?.as_bytes())?;
    folder.write("report.html", page(&plan, maxima.as_ref(), summary).as_bytes())
}

fn planned(folder: &Folder) -> Result<TrainingPlan, StudyError> {
    let none =
        || Invalid::new("out", folder.file("").display(), "the folder of a study of training, with its plan.json");
    Ok(folder.read_plan::<TrainingRow>()?.ok_or_else(none)?)
}

/// What the plan asks for, and how much of it is done.
fn introduction(plan: &TrainingPlan, summary: &TrainingSummary) -> String {
    let data: Vec<String> = plan
        .data
        .iter()
        .map(|data| format!("{} ({} images for training, {} for testing)", data.name, data.train, data.test))
        .collect();
    let mut words = format!(
        "Networks trained on {}, with seeds from {} on. Runs with the same seed have the same training images, order and, \
         with the same initialization, the same initial weights. {} of {} runs are done",
        data.join(", "),
        plan.first_seed,
        summary.made,
        summary.planned
    );
    if summary.left_out > 0 {
        let _ =
            write!(words, "; {} do not count yet, because another arm has not run with their seed", summary.left_out);
    }
    let _ = write!(
        words,
        ". Program {}, device {}. A network has learned if its test accuracy is more than {:.0} points above that of the most \
         frequent class; a diverged run counts with the accuracy of that class. Intervals are 95 % bootstrap intervals of the \
         median. Differences are to {}, seed by seed. p-values are two-sided and exact up to 50 seeds: Wilcoxon's signed-rank \
         test and the sign test of accuracies, McNemar's test of what learned, the signed-rank test of dead units; after the \
         slash corrected by Holm's method for the {} comparisons of this study.",
        plan.program,
        plan.device,
        100.0 * LEARNED,
        summary.against,
        summary.comparisons
    );
    words
}

/// How units were maximized.
fn introduction_of_maxima(plan: &MaximaPlan, summary: &TrainingSummary) -> String {
    let layers = match &plan.layers[..] {
        [] => "every activation with feature maps".to_owned(),
        layers => layers.join(", "),
    };
    let reduced = match &*plan.reduce {
        "mean" => "mean over positions",
        "center" => "value at the centre",
        _ => "largest value",
    };
    format!(
        "Maxima: up to {} units of {layers}, drawn by the seed of the run and the same for all arms of a seed, were \
         maximized in {} steps from one start; the value of a unit is its channel's {reduced}. Maxima of two networks \
         have different scales, so each is divided by the unit's natural maximum, its largest value on the test images. A \
         network counts with the median over its units. A unit stays at its start if no stimulus scores higher than that by \
         more than 0.1 %; it is woken if no test image activates it and the stimulus does. Maxima are compared in all \
         networks that did not diverge, also in those that have not learned; p-values are those of the signed-rank test, after \
         the slash corrected for the {} comparisons of maxima.",
        plan.units, plan.steps, summary.maxima_comparisons
    )
}

fn heading(table: &TrainingTable) -> String {
    format!("{} on {}", table.network, table.data)
}

/// The page as one HTML document.
fn page(plan: &TrainingPlan, maxima: Option<&MaximaPlan>, summary: &TrainingSummary) -> String {
    let mut html = format!("<p>{}</p>\n", text(&introduction(plan, summary)));
    if let Some(maxima) = maxima {
        let _ = writeln!(html, "<p>{}</p>", text(&introduction_of_maxima(maxima, summary)));
    }
    for own in &summary.tables {
        let _ = writeln!(html, "<h2>{}</h2>", text(&heading(own)));
        for shown in tables::all(own, &summary.against) {
            let row = |cells: Vec<String>| {
                let mut cells = cells.into_iter();
                let head = cells.next().map(Cell::head);
                head.into_iter().chain(cells.map(Cell::text)).collect()
            };
            html += &table(&shown.caption, &shown.heads, shown.rows.into_iter().map(row).collect());
        }
        html += "<div class=\"panels\">\n";
        for (_, caption, plot) in plots::all(own, &summary.against) {
            let _ = writeln!(html, "<figure><figcaption>{}</figcaption>{}</figure>", text(&caption), plot.html());
        }
        html += "</div>\n";
    }
    html += "<h2>Recipes</h2>\n";
    for planned in &plan.recipes {
        let json = serde_json::to_string_pretty(&planned.recipe).unwrap_or_default();
        html += &details(&format!("{}, {}", planned.network, planned.arm), &format!("<pre>{}</pre>\n", text(&json)));
    }
    document("A study of training", &html)
}

/// The report as Markdown; writes its figures.
fn markdown(
    folder: &Folder,
    plan: &TrainingPlan,
    maxima: Option<&MaximaPlan>,
    summary: &TrainingSummary,
) -> Result<String, StudyError> {
    let mut words = format!("# A study of training\n\n{}\n\n", markdown::cell(&introduction(plan, summary)));
    if let Some(maxima) = maxima {
        let _ = writeln!(words, "{}\n", markdown::cell(&introduction_of_maxima(maxima, summary)));
    }
    for own in &summary.tables {
        let _ = writeln!(words, "## {}\n", markdown::cell(&heading(own)));
        for shown in tables::all(own, &summary.against) {
            let row = |cells: Vec<String>| {
                let mut cells = cells.into_iter();
                let head = cells.next().map(|name| markdown::code(&name));
                head.into_iter().chain(cells.map(|cell| markdown::cell(&cell))).collect()
            };
            let heads: Vec<String> = shown.heads.iter().map(|head| markdown::cell(head)).collect();
            let _ = writeln!(words, "{}:\n", markdown::cell(&shown.caption));
            words += &markdown::table(&heads, shown.rows.into_iter().map(row));
        }
        let figures = format!("figures/{}/{}", escape_name(&own.data), escape_name(&own.network));
        for (name, caption, plot) in plots::all(own, &summary.against) {
            let path = format!("{figures}/{name}.svg");
            folder.write(&path, plot.file().as_bytes())?;
            let _ =
                writeln!(words, "{}:\n\n![{}]({})\n", markdown::cell(&caption), markdown::cell(&plot.alt), link(&path));
        }
    }
    Ok(words)
}
