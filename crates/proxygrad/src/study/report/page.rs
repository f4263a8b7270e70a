//! Report page `report.html`: introduction, comparisons and requests.

use std::fmt::Write;

use serde_json::Value;

use super::{readability, sections};
use crate::report::html::{Cell, details, document, number, percent, table, text};
use crate::study::folder::Folder;
use crate::study::plan::types::Plan;
use crate::study::summary::{PairedComparison, Summary};
use crate::study::toy::{self, REACHED};

/// The page as one HTML document.
pub(super) fn page(folder: &Folder, plan: &Plan, summary: &Summary) -> String {
    let title = match plan.models.as_slice() {
        [] => "A study of toy functions".to_owned(),
        models => format!("A study of {}", models.iter().map(|model| &*model.id).collect::<Vec<_>>().join(", ")),
    };
    let mut html = introduction(plan, summary);
    if !summary.tables.is_empty() {
        html += &overview(plan, summary);
        html += &glossary(plan);
    }
    for (i, table) in summary.tables.iter().enumerate() {
        html += &sections::comparison_section(folder, plan, summary, i, table);
    }
    html += &toys(plan, summary);
    html += &requests(plan);
    document(&title, &html)
}

/// What the plan asks for, and how much of it is done.
fn introduction(plan: &Plan, summary: &Summary) -> String {
    let mut html = String::from("<p>");
    let arms: Vec<String> = plan.arms.iter().map(|arm| format!("<code>{}</code>", text(&arm.name))).collect();
    if !plan.models.is_empty() {
        let units = plan.units();
        let methods: Vec<String> = plan.methods.iter().map(|m| format!("<code>{}</code>", text(&m.name))).collect();
        let _ = write!(
            html,
            "{units} units, drawn with seed {} before anything ran; {} starts each; {} steps of two passes (more \
             expensive arms get fewer steps). Arms: {}. Methods: {}. ",
            plan.seed,
            plan.repeats,
            plan.steps,
            arms.join(", "),
            methods.join(", ")
        );
        let _ = write!(html, "{} of {} runs are done", summary.made, plan.runs());
        let _ = match summary.left_out {
            0 => write!(html, ". "),
            left_out => {
                write!(
                    html,
                    "; {left_out} of them do not count yet, because not every arm has run from the same start. "
                )
            }
        };
    }
    let _ = writeln!(
        html,
        "Every score is the original network's on the delivered 8-bit image. Program {}, device {}.</p>",
        text(&plan.program),
        text(&plan.device)
    );
    html
}

/// Overview of the arm in focus.
fn overview(plan: &Plan, summary: &Summary) -> String {
    let options = &summary.options;
    let heads = [
        "model, method".to_owned(),
        "units".to_owned(),
        format!("beats {}", options.against),
        "ties, loses".to_owned(),
        "beats best rival".to_owned(),
        "ties, loses".to_owned(),
        format!("median ratio to {}, live units", options.against),
        "median ratio to best rival, live units".to_owned(),
        "dead runs".to_owned(),
        "dead where another arm is alive".to_owned(),
    ];
    let rows = summary.tables.iter().filter_map(|table| {
        let all = table.sections.first()?;
        let focus = all.arms.iter().find(|arm| arm.arm == options.focus)?;
        let won = |paired: &PairedComparison| {
            let share = paired.wins as f64 / all.units.max(1) as f64;
            Cell::text(format!("{} ({})", paired.wins, percent(share))).bar(share)
        };
        let rest = |paired: &PairedComparison| Cell::text(format!("{}, {}", paired.ties, paired.losses));
        Some(vec![
            Cell::head(format!("{}, {}", table.model, table.method)),
            Cell::text(all.units.to_string()),
            won(&all.focus_against),
            rest(&all.focus_against),
            won(&all.focus),
            rest(&all.focus),
            Cell::text(sections::ratio(&all.focus_against)),
            Cell::text(sections::ratio(&all.focus)),
            Cell::text(format!("{} of {}", focus.dead, focus.runs)),
            Cell::text(focus.needlessly_dead.to_string()),
        ])
    });
    let rivals = options.rivals.join(", ");
    let caption = format!("Overview of {}, compared with the best of its rivals on each unit: {rivals}", options.focus);
    let links: String = summary
        .tables
        .iter()
        .enumerate()
        .map(|(i, table)| format!("<li><a href=\"#t{i}\">{}, {}</a></li>", text(&table.model), text(&table.method)))
        .collect();
    let toys = if plan.toys.is_some() { "<li><a href=\"#toys\">Toy functions</a></li>" } else { "" };
    format!(
        "<nav aria-label=\"Contents\"><ul>{links}{toys}<li><a href=\"#run\">Requests</a></li></ul></nav>\n\
         <h2>Overview</h2>\n{}",
        table(&caption, &heads, rows.collect())
    )
}

/// Beginning of the glossary of the tables.
const GLOSSARY: &str = "<details><summary>How to read the tables</summary>\n<dl>\n\
<dt>dead</dt><dd>A run whose score does not rise above its start (by more than a thousandth of it).</dd>\n\
<dt>live, mixed, dead units</dt><dd>Units that come to life under the reference arm from every start, from \
some, from none.</dd>\n\
<dt>rescued</dt><dd>Runs alive under the arm where the reference stays dead from the same start.</dd>\n\
<dt>unit's score</dt><dd>The mean over its starts. Everything below is over units, so that the starts of one unit do \
not count as independent.</dd>\n\
<dt>wins, ties, losses</dt><dd>Over all units; scores within a thousandth of each other tie.</dd>\n\
<dt>median ratio</dt><dd>Median over live units with positive scores of the score relative to the reference; in \
brackets the 95 % percentile bootstrap interval.</dd>\n\
<dt>p</dt><dd>Wilcoxon's signed-rank test, two-sided, of (a - b) / (|a| + |b|), which ranks like the log ratio; \
exact up to 50 differences. Not corrected for the number of comparisons.</dd>\n\
<dt>to 90 %</dt><dd>Median share of the steps after which the score has risen 90 % of the way to \
the best of the run.</dd>\n\
<dt>passes the reference</dt><dd>Share of runs of live units that reach the final score of the reference, followed \
by the median share of the run after which they do.</dd>\n";

/// The glossary, with the words of readability if the study has judges.
fn glossary(plan: &Plan) -> String {
    let word = |(word, meaning): &(&str, &str)| format!("<dt>{}</dt><dd>{}</dd>\n", text(word), text(meaning));
    let words: String = readability::GLOSSARY.iter().filter(|_| !plan.judges.is_empty()).map(word).collect();
    format!("{GLOSSARY}{words}</dl></details>\n")
}

/// Tables of the toy functions.
fn toys(plan: &Plan, summary: &Summary) -> String {
    let Some(toys) = &plan.toys else { return String::new() };
    let mut html = String::from("<h2 id=\"toys\">Toy functions</h2>\n");
    let _ = writeln!(
        html,
        "<p>Small ReLU networks on a few grey pixels with a known optimum. {} starts each, drawn uniformly; {} networks of \
         each random kind; {} steps of two passes.</p>",
        toys.starts, toys.networks, toys.steps
    );
    if summary.toys.is_empty() {
        return html + "<p>They have not been run yet.</p>\n";
    }
    let descriptions: String = toy::descriptions()
        .iter()
        .map(|(name, description)| format!("<dt>{}</dt><dd>{}</dd>\n", text(name), text(description)))
        .collect();
    html += &details("Definitions", &format!("<dl>\n{descriptions}</dl>\n"));
    let mut kinds: Vec<&str> = summary.toys.iter().map(|toy| toy.toy.as_str()).collect();
    kinds.dedup();
    let heads: Vec<&str> = std::iter::once("arm").chain(kinds.iter().copied()).collect();
    let grid = |cell: &dyn Fn(&toy::ToySummary) -> Cell| {
        let row = |arm: &str| {
            let of = |kind: &&str| summary.toys.iter().find(|toy| toy.toy == **kind && toy.arm == arm);
            let cells = kinds.iter().map(|kind| of(kind).map_or_else(|| Cell::text("–"), cell));
            std::iter::once(Cell::head(arm)).chain(cells).collect()
        };
        toys.arms.iter().map(|arm| row(&arm.name)).collect::<Vec<Vec<Cell>>>()
    };
    let reached = grid(&|toy| Cell::text(percent(toy.reached)).bar(toy.reached));
    html += &table(&format!("Share of starts that reach {} of the optimum", percent(REACHED.into())), &heads, reached);
    let mean = grid(&|toy| Cell::text(number(toy.mean_share)).bar(toy.mean_share));
    html += &table("Mean share of the optimum", &heads, mean);
    let dead = grid(&|toy| Cell::text(percent(toy.dead)).bar(toy.dead));
    html += &table("Share of starts whose score stays at 0 or below", &heads, dead);
    let passes = grid(&|toy| Cell::text(number(toy.passes)));
    html + &details("Passes", &table("Mean number of passes of a run", &heads, passes))
}

/// The requests and units, from which every run can be repeated.
fn requests(plan: &Plan) -> String {
    let json = |value: &Value| serde_json::to_string_pretty(value).unwrap_or_default();
    let mut html = String::from(
        "<h2 id=\"run\">Requests</h2>\n\
         <p>A run is a request for one stimulus: the fields below, with the unit as <code>objective</code> and its \
         <code>seed</code> from <code>runs.csv</code>. The same request, to the service or on the command line, gives the \
         same image on the same kind of device.</p>\n",
    );
    for planned in &plan.settings {
        let name = format!("{}, {}, {}", planned.model, planned.method, planned.arm);
        let request = json(&Value::Object(planned.request.clone()));
        let body = format!(
            "<p>Request:</p><pre>{}</pre><p>Settings, with defaults filled in:</p><pre>{}</pre>",
            text(&request),
            text(&json(&planned.settings))
        );
        html += &details(&name, &body);
    }
    for model in &plan.models {
        let mut body = String::from("<dl>\n");
        for layer in &model.layers {
            let units: Vec<String> = layer
                .units
                .iter()
                .enumerate()
                .map(|(i, unit)| match layer.classes.get(i) {
                    Some(class) => format!("{unit} ({class})"),
                    None => unit.clone(),
                })
                .collect();
            let _ = writeln!(body, "<dt>{}</dt><dd>{}</dd>", text(&layer.name), text(&units.join(", ")));
        }
        let name = format!("Units of {} (weights: SHA-256 {})", model.id, model.digest);
        html += &details(&name, &format!("{body}</dl>\n"));
    }
    html
}
