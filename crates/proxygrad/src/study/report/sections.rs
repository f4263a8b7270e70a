//! Section of the page for one model under one method.

use std::fmt::Write;

use super::exhibits::Exhibits;
use super::images::Images;
use super::{gallery, plots, readability};
use crate::report::html::{Cell, details, number, optional, percent, probability, table, text};
use crate::study::folder::Folder;
use crate::study::plan::types::Plan;
use crate::study::summary::{ArmSummary, Comparison, PairedComparison, Section, Summary};

/// Tables, plots and images of a comparison.
pub(super) fn comparison_section(
    folder: &Folder,
    plan: &Plan,
    summary: &Summary,
    index: usize,
    comparison: &Comparison,
) -> String {
    let options = &summary.options;
    let arms: Vec<&str> = plan.arms.iter().map(|arm| arm.name.as_str()).collect();
    let against = arms.iter().position(|arm| *arm == options.against).unwrap_or(0);
    let mut html = format!("<h2 id=\"t{index}\">{}, {}</h2>\n", text(&comparison.model), text(&comparison.method));
    let Some(all) = comparison.sections.first() else { return html };
    let _ = writeln!(
        html,
        "<p>{} units: under {} {} are live, {} mixed, {} dead.</p>",
        all.units,
        text(&options.against),
        all.live,
        all.mixed,
        all.dead
    );
    html += &arm_table("All layers", all, &options.against);
    html += &readability_table("All layers", all, &options.against);
    html += &dead_table(comparison);
    html += "<h3>Ratios by layer</h3>\n<div class=\"panels\">\n";
    for section in &comparison.sections {
        if let Some(plot) = plots::ratios(comparison, section, against) {
            let name = section.layer.as_deref().unwrap_or("all layers");
            let caption = format!("{name}: score as a multiple of {}'s, {} live units", options.against, section.live);
            let _ = writeln!(html, "<figure><figcaption>{}</figcaption>{}</figure>", text(&caption), plot.html());
        }
    }
    html += "</div>\n";
    if let Some(plot) = plots::courses(all) {
        let caption = text(plots::COURSES);
        let plot = plot.html();
        let _ =
            writeln!(html, "<h3>Course of the runs</h3>\n<figure><figcaption>{caption}</figcaption>{plot}</figure>");
    }
    html += &win_matrix(all);
    for arm in &all.arms {
        html += &winners(comparison, &arm.arm);
    }
    let layers: String = comparison
        .sections
        .iter()
        .filter_map(|section| {
            let layer = section.layer.as_ref()?;
            Some(arm_table(layer, section, &options.against) + &readability_table(layer, section, &options.against))
        })
        .collect();
    html += &details("Tables layer by layer", &layers);
    html += &images(folder, plan, summary, comparison, &arms);
    html
}

/// Table of the arms on some units.
fn arm_table(name: &str, section: &Section, against: &str) -> String {
    let heads = [
        "arm".to_owned(),
        "dead runs".to_owned(),
        "rescued runs".to_owned(),
        "median score".to_owned(),
        format!("median ratio to {against}"),
        "least ratio".to_owned(),
        "wins, ties, losses".to_owned(),
        "p, live units".to_owned(),
        "p, all units".to_owned(),
        "to 90 %".to_owned(),
        "passes the reference".to_owned(),
        "passes".to_owned(),
        "seconds".to_owned(),
    ];
    let row = |arm: &ArmSummary| {
        let paired = &arm.versus_reference;
        let is_reference = arm.arm == against;
        let other = |text: String| Cell::text(if is_reference { "–".to_owned() } else { text });
        let passing = optional(arm.passes_reference, percent);
        let after = arm.share_to_reference.map(|share| format!(", after {}", percent(share))).unwrap_or_default();
        vec![
            Cell::head(&arm.arm),
            Cell::text(format!("{} of {}", arm.dead, arm.runs)),
            other(format!("{} of {}", arm.rescued[0], arm.rescued[1])),
            Cell::text(optional(arm.median_score, number)),
            other(ratio(paired)),
            other(optional(paired.low_ratios.map(|low| low[0]), number)),
            other(format!("{}, {}, {}", paired.wins, paired.ties, paired.losses)),
            other(optional(paired.p_live, probability)),
            other(optional(paired.p_all, probability)),
            Cell::text(optional(arm.share_to_90, percent)),
            other(format!("{passing}{after}")),
            Cell::text(optional(arm.passes, number)),
            Cell::text(optional(arm.seconds, number)),
        ]
    };
    let caption = format!("{name}: {} units, {} of them live under {against}", section.units, section.live);
    table(&caption, &heads, section.arms.iter().map(row).collect())
}

/// Table of the readability of stimuli on some units; empty without judges.
fn readability_table(name: &str, section: &Section, against: &str) -> String {
    let rows = readability::rows(section, against);
    if rows.is_empty() {
        return String::new();
    }
    let row = |texts: Vec<String>| {
        let cell = |(i, text): (usize, &String)| if i == 0 { Cell::head(text) } else { Cell::text(text) };
        texts.iter().enumerate().map(cell).collect()
    };
    let caption = format!("{name}: readability of the stimuli of {} units", section.units);
    table(&caption, &readability::heads(against), rows.into_iter().map(row).collect())
}

/// Median ratio with its confidence interval.
pub(super) fn ratio(paired: &PairedComparison) -> String {
    let interval = paired.interval.map(|[low, high]| format!(" ({} to {})", number(low), number(high)));
    optional(paired.median_ratio, |ratio| number(ratio) + &interval.unwrap_or_default())
}

/// Table of the shares of dead runs by arm and layer.
fn dead_table(comparison: &Comparison) -> String {
    let names = comparison.sections.iter().map(|section| section.layer.as_deref().unwrap_or("all layers"));
    let heads: Vec<&str> = std::iter::once("arm").chain(names).collect();
    let arms = comparison.sections.first().map_or(0, |section| section.arms.len());
    let row = |arm: usize| {
        let name = comparison.sections.first().map_or("", |section| &section.arms[arm].arm);
        let cells = comparison.sections.iter().map(|section| {
            let share = section.arms[arm].dead as f64 / section.arms[arm].runs.max(1) as f64;
            Cell::text(percent(share)).bar(share)
        });
        std::iter::once(Cell::head(name)).chain(cells).collect()
    };
    table("Share of dead runs", &heads, (0..arms).map(row).collect())
}

/// Table of pairwise wins.
fn win_matrix(all: &Section) -> String {
    let names = all.arms.iter().map(|arm| arm.arm.as_str());
    let heads: Vec<&str> = std::iter::once("arm").chain(names).collect();
    let row = |(i, arm): (usize, &ArmSummary)| {
        let cell = |(j, &share): (usize, &f64)| match i == j {
            true => Cell::text(""),
            false => Cell::text(percent(share)).shade(share),
        };
        std::iter::once(Cell::head(&arm.arm)).chain(all.wins[i].iter().enumerate().map(cell)).collect()
    };
    let caption = "Share of units on which the arm of the row beats the arm of the column; ties count half";
    table(caption, &heads, all.arms.iter().enumerate().map(row).collect())
}

/// Table of the gates that won the searches of an arm, by layer; empty if its runs are not searches.
fn winners(comparison: &Comparison, arm: &str) -> String {
    let of = |section: &Section| section.arms.iter().find(|summary| summary.arm == arm).map(|arm| arm.won_by.clone());
    let by_section: Vec<_> = comparison.sections.iter().map(|section| of(section).unwrap_or_default()).collect();
    let Some(all) = by_section.first().filter(|all| !all.is_empty()) else { return String::new() };
    let names = comparison.sections.iter().map(|section| section.layer.as_deref().unwrap_or("all layers"));
    let heads: Vec<&str> = std::iter::once("gate").chain(names).collect();
    let row = |gate: &String| {
        let cells = by_section.iter().map(|won| {
            let runs = won.values().sum::<usize>().max(1) as f64;
            let share = won.get(gate).copied().unwrap_or(0) as f64 / runs;
            Cell::text(percent(share)).bar(share)
        });
        std::iter::once(Cell::head(gate)).chain(cells).collect()
    };
    table(&format!("Winning gates in the runs of {arm}"), &heads, all.keys().map(row).collect())
}

/// Images of the first units of each layer, and of the largest losses of the arm in focus.
fn images(folder: &Folder, plan: &Plan, summary: &Summary, comparison: &Comparison, arms: &[&str]) -> String {
    let focus = &summary.options.focus;
    let Exhibits { first, losses } = Exhibits::select(plan, summary, comparison);
    let kept = Images::new(folder, plan);
    let caption =
        "The units drawn first, at their first start, with the score below the image; the best of a row in bold";
    let mut html = format!("<h3>Images</h3>\n{}", gallery::grid(&kept, caption, &first, arms));
    let _ = writeln!(html, "<h3>Largest losses of {}</h3>", text(focus));
    if losses.is_empty() {
        let _ = writeln!(html, "<p>On no unit does another arm score higher.</p>");
    } else {
        let caption = format!("The units on which another arm is furthest ahead of {focus}, at their first start");
        html += &gallery::grid(&kept, &caption, &losses, arms);
    }
    html
}
