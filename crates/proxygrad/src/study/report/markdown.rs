//! Report as Markdown, with plots and images as separate files.

use std::fmt::Write;

use super::exhibits::Exhibits;
use super::images::Images;
use super::readability::captions;
use super::sections::ratio;
use super::{plots, readability};
use crate::report::html::{link, number, optional, percent, probability};
use crate::report::markdown::{cell, code, table};
use crate::study::error::StudyError;
use crate::study::folder::{Folder, escape_name};
use crate::study::plan::types::Plan;
use crate::study::summary::{ArmSummary, Comparison, PairedComparison, Section, Summary, UnitScores};

/// Writes `report.md` and the folder `figures`.
pub(super) fn write(folder: &Folder, plan: &Plan, summary: &Summary) -> Result<(), StudyError> {
    let mut text = introduction(plan, summary);
    for comparison in &summary.tables {
        text += &comparison_section(folder, plan, summary, comparison)?;
    }
    text += &toys(summary);
    folder.write("report.md", text.as_bytes())
}

/// What the plan asks for, and how much of it is done.
fn introduction(plan: &Plan, summary: &Summary) -> String {
    let mut text = String::from("# A study\n\n");
    if !plan.models.is_empty() {
        let _ = writeln!(
            text,
            "{} units drawn with seed {} before anything ran, {} each, {} steps of two passes; {} of {} runs are done, \
             {} of them do not count yet because another arm has not run from the same start. Every score is the \
             original network's on the delivered 8-bit image. *Dead*: the score does not rise above its start by a thousandth. \
             *Ratio*: median over live units of the score relative to the reference, with a 95 % bootstrap interval. \
             Scores within a thousandth tie. *p*: Wilcoxon's signed-rank test over live units.\n",
            plan.units(),
            plan.seed,
            starts(plan.repeats as usize),
            plan.steps,
            summary.made,
            plan.runs(),
            summary.left_out
        );
    }
    text
}

/// Section of one model under one method.
fn comparison_section(
    folder: &Folder,
    plan: &Plan,
    summary: &Summary,
    comparison: &Comparison,
) -> Result<String, StudyError> {
    let options = &summary.options;
    let Some(all) = comparison.sections.first() else { return Ok(String::new()) };
    let most = comparison.units.iter().flat_map(|unit| &unit.arms).map(|arm| arm.runs.len()).max().unwrap_or(0);
    let mut text = format!("## {}, {}\n\n", cell(&comparison.model), cell(&comparison.method));
    let _ = writeln!(
        text,
        "{} units with up to {}: under {} {} are live, {} mixed, {} dead.\n",
        all.units,
        starts(most),
        code(&options.against),
        all.live,
        all.mixed,
        all.dead
    );
    text += &arms(all, &options.against);
    text += &focus(comparison, summary);
    text += &readability_tables(comparison, &options.against);
    let images = Images::new(folder, plan);
    let figures = format!("figures/{}/{}", escape_name(&comparison.model), escape_name(&comparison.method));
    let against = plan.arms.iter().position(|arm| arm.name == options.against).unwrap_or(0);
    let plots = [
        (
            "ratios",
            format!("Scores relative to {}, by unit", code(&options.against)),
            plots::ratios(comparison, all, against),
        ),
        ("courses", plots::COURSES.to_owned(), plots::courses(all)),
    ];
    for (name, caption, plot) in plots {
        let Some(plot) = plot else { continue };
        let path = format!("{figures}/{name}.svg");
        folder.write(&path, plot.file().as_bytes())?;
        let _ = writeln!(text, "{caption}:\n\n![{}]({})\n", cell(&plot.alt), link(&path));
    }
    let Exhibits { first, losses } = Exhibits::select(plan, summary, comparison);
    let names: Vec<String> = plan.arms.iter().map(|arm| code(&arm.name)).collect();
    let _ = writeln!(text, "The units drawn first, with the arms {} from left to right:\n", names.join(", "));
    text += &gallery_table(folder, &images, &figures, &first)?;
    let _ = writeln!(text, "Largest losses of {}:\n", code(&options.focus));
    match losses.as_slice() {
        [] => text += "On no unit does another arm score higher.\n\n",
        losses => text += &gallery_table(folder, &images, &figures, losses)?,
    }
    Ok(text)
}

/// Table of the arms on some units.
fn arms(section: &Section, against: &str) -> String {
    let heads = ["arm", "dead runs", "rescued", "ratio", "least", "wins / ties / losses", "p", "passes", "seconds"];
    let row = |arm: &ArmSummary| {
        let other = |text: String| if arm.arm == against { "–".to_owned() } else { text };
        vec![
            code(&arm.arm),
            format!("{} of {}", arm.dead, arm.runs),
            other(format!("{} of {}", arm.rescued[0], arm.rescued[1])),
            other(ratio(&arm.versus_reference)),
            other(optional(arm.versus_reference.low_ratios.map(|low| low[0]), number)),
            other(outcomes(&arm.versus_reference)),
            other(optional(arm.versus_reference.p_live, probability)),
            optional(arm.passes, number),
            optional(arm.seconds, number),
        ]
    };
    table(&heads, section.arms.iter().map(row))
}

/// Table of the arm in focus by layer.
fn focus(comparison: &Comparison, summary: &Summary) -> String {
    let options = &summary.options;
    let rivals: Vec<String> = options.rivals.iter().map(|arm| code(arm)).collect();
    let heads = [
        "layer".to_owned(),
        "units (live)".to_owned(),
        format!("{} against {}", code(&options.focus), code(&options.against)),
        "ratio".to_owned(),
        format!("{} against the best of {}", code(&options.focus), rivals.join(", ")),
        "ratio".to_owned(),
    ];
    let won = |paired: &PairedComparison, units: usize| {
        let share = paired.wins as f64 / units.max(1) as f64;
        format!("{} ({} won)", outcomes(paired), percent(share))
    };
    let row = |section: &Section| {
        vec![
            section.layer.as_ref().map_or_else(|| "all".to_owned(), |layer| code(layer)),
            format!("{} ({})", section.units, section.live),
            won(&section.focus_against, section.units),
            ratio(&section.focus_against),
            won(&section.focus, section.units),
            ratio(&section.focus),
        ]
    };
    table(&heads, comparison.sections.iter().map(row))
}

/// Tables of readability over all layers and by layer; empty without judges.
fn readability_tables(comparison: &Comparison, against: &str) -> String {
    let heads: Vec<String> = readability::heads(against).iter().map(|head| cell(head)).collect();
    let of_section = |section: &Section| {
        let rows = readability::rows(section, against);
        if rows.is_empty() {
            return String::new();
        }
        let layer = section.layer.as_ref().map_or_else(|| "all layers".to_owned(), |layer| code(layer));
        let rows = rows.into_iter().map(|row| row.iter().map(|text| cell(text)).collect());
        format!("Readability, {layer}:\n\n{}", table(&heads, rows))
    };
    comparison.sections.iter().map(of_section).collect()
}

fn starts(count: usize) -> String {
    format!("{count} start{}", if count == 1 { "" } else { "s" })
}

fn outcomes(paired: &PairedComparison) -> String {
    format!("{} / {} / {}", paired.wins, paired.ties, paired.losses)
}

/// Table of units with the scores and images of their first start.
fn gallery_table(
    folder: &Folder,
    images: &Images<'_>,
    figures: &str,
    units: &[(&UnitScores, String)],
) -> Result<String, StudyError> {
    let mut rows = Vec::with_capacity(units.len());
    for (unit, remark) in units {
        let runs: Vec<_> = unit.arms.iter().filter_map(|arm| arm.runs.first()).collect();
        let best = runs.iter().map(|run| run.score).fold(f32::NEG_INFINITY, f32::max);
        let scores = runs.iter().map(|run| match number(run.score.into()) {
            score if !run.alive => format!("{score} (dead)"),
            score if run.score == best => format!("**{score}**"),
            score => score,
        });
        let scores: Vec<String> = scores.collect();
        let image = match images.strip(runs.iter().copied()) {
            Some(png) => {
                let path = format!("{figures}/{}.png", escape_name(&unit.unit));
                folder.write(&path, &png)?;
                format!("![{}]({})", cell(&format!("{} under each arm", unit.unit)), link(&path))
            }
            None => "no image kept".to_owned(),
        };
        let said: Vec<String> = runs.iter().map(|run| captions(run).join(", ")).collect();
        let said =
            if said.iter().all(String::is_empty) { String::new() } else { format!("<br>{}", cell(&said.join(" · "))) };
        rows.push(vec![format!("{} {}", code(&unit.unit), cell(remark)), scores.join(" · ") + &said, image]);
    }
    Ok(table(&["unit", "scores", "images"], rows.into_iter()))
}

/// Table of the toy functions.
fn toys(summary: &Summary) -> String {
    if summary.toys.is_empty() {
        return String::new();
    }
    let row = |toy: &crate::study::toy::ToySummary| {
        vec![
            cell(&toy.toy),
            code(&toy.arm),
            percent(toy.reached),
            number(toy.mean_share),
            percent(toy.dead),
            number(toy.passes),
        ]
    };
    let reached = format!("starts that reach {} of the optimum", percent(crate::study::toy::REACHED.into()));
    let heads = ["function", "arm", &*reached, "mean share of the optimum", "starts that stay at 0 or below", "passes"];
    format!("## Toy functions\n\n{}", table(&heads, summary.toys.iter().map(row)))
}
