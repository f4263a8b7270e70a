//! Output of `proxygrad maximize`: progress bar, text and JSON.

use std::path::PathBuf;

use indicatif::{ProgressBar, ProgressStyle};
use proxygrad::judge::Verdict;
use proxygrad::maximize::{Callback, Diagnostics, Findings, Objective, Point, Preset, Settings};
use proxygrad::network::Model;
use serde::Serialize;

/// Progress bar of a batch, with the best score of the first stimulus.
pub(super) struct Progress {
    pub(super) bar: ProgressBar,
    best: f32,
    several: bool,
}

impl Progress {
    /// `several`: more than one stimulus is optimized.
    pub(super) fn new(several: bool, steps: u32) -> Self {
        let bar = ProgressBar::new(u64::from(steps));
        let template = "{bar:40} step {pos}/{len} {msg} ({eta} left)";
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        Self { bar, best: f32::NEG_INFINITY, several }
    }
}

impl Callback for Progress {
    fn on_score(&mut self, stimulus: usize, point: Point) {
        // The first stimulus may end before the others.
        self.bar.set_position(self.bar.position().max(u64::from(point.step)));
        if stimulus == 0 {
            self.best = self.best.max(point.score);
            let label = if self.several { "best score of the first stimulus" } else { "best score" };
            self.bar.set_message(format!("{label} {:.4}", self.best));
        }
    }
}

/// Prints the results as text, with their presets if there are several.
pub(super) fn print_text(model: &Model, written: &[Stimulus<'_>], several_presets: bool) -> anyhow::Result<()> {
    for Stimulus { preset, objective, findings: found, file } in written {
        let preset =
            preset.filter(|_| several_presets).map_or_else(String::new, |preset| format!(", {}", preset.name()));
        println!("{objective} of {}{}{preset}", model.id, class_name(model, objective));
        println!("  start  {:>12.5}", found.initial_score);
        println!("  best   {:>12.5}  at step {} of {}", found.score, found.best_step, found.steps);
        println!("  end    {:>12.5}", found.final_score);
        println!("  passes {:>6}", found.passes);
        for arm in &found.arms {
            let gate = serde_json::to_string(&arm.gate)?;
            let (score, won) = (arm.score.unwrap_or(f32::NAN), if arm.won { ", won" } else { "" });
            println!("  arm    {score:>12.5}  after {} steps from start {}{won}: {gate}", arm.steps, arm.restart);
        }
        if let Some(diagnostics) = &found.diagnostics {
            print!("{}", diagnostics_text(diagnostics));
        }
        for warning in &found.warnings {
            println!("  warning: {}", warning.meaning());
        }
        println!("  {}", file.display());
    }
    Ok(())
}

/// Diagnostics as text; undefined values are shown as `-`.
fn diagnostics_text(diagnostics: &Diagnostics) -> String {
    let number = |x: Option<f32>| x.map_or("-".to_owned(), |x| format!("{x:.5}"));
    let percent = |x: Option<f32>| x.map_or("-".to_owned(), |x| format!("{:.3} %", 100.0 * x));
    let Diagnostics { stationarity, gain_50, robust, .. } = diagnostics;
    let natural = match (diagnostics.natural_maximum, diagnostics.natural_missing) {
        (_, Some(missing)) => format!("- ({})", missing.meaning()),
        (maximum, None) => {
            let share = percent(diagnostics.percent_of_natural.map(|percent| percent / 100.0));
            format!("{}; the score is {share} of it", number(maximum))
        }
    };
    let lines = [
        (
            "stationarity",
            format!(
                "projected gradient {}, free share {}, gain of a step {}, first-order bound on the gain of any image {}",
                number(stationarity.projected_gradient),
                percent(stationarity.free_share),
                percent(stationarity.step_gain),
                percent(stationarity.gain_bound)
            ),
        ),
        ("50 more plain steps", format!("{} ({})", number(gain_50.absolute), percent(gain_50.relative))),
        (
            "64 random views",
            format!(
                "mean {} ({}), 10th percentile {} ({}), minimum {} ({})",
                number(robust.mean),
                percent(robust.mean_share),
                number(robust.p10),
                percent(robust.p10_share),
                number(robust.min),
                percent(robust.min_share)
            ),
        ),
        (
            "high frequencies",
            format!(
                "{}, {} of the luminance; {} above the natural spectrum",
                percent(diagnostics.high_frequency_share),
                percent(diagnostics.high_frequency_share_grey),
                percent(diagnostics.spectral_excess)
            ),
        ),
        ("natural maximum", natural),
        ("passes of diagnostics", diagnostics.passes.to_string()),
    ];
    let judge = |verdict: &Verdict| {
        let Verdict { judge, rank, probability, affinity, .. } = verdict;
        let rank = rank.map_or("-".to_owned(), |rank| rank.to_string());
        format!("  judge {judge}: rank {rank}, probability {}, affinity {}\n", percent(*probability), number(*affinity))
    };
    let lines = lines.into_iter().map(|(name, value)| format!("  {name}: {value}\n"));
    lines.chain(diagnostics.judges.iter().map(judge)).collect()
}

/// ` (banana)` if the objective is the logit of a named class, otherwise empty.
fn class_name(model: &Model, objective: &Objective) -> String {
    let [term] = objective.terms.as_slice() else { return String::new() };
    match model.class_of(&term.unit) {
        Some(name) => format!(" ({name})"),
        None => String::new(),
    }
}

/// Output of `--json`.
#[derive(Serialize)]
struct Document<'a> {
    model: &'a str,
    model_digest: &'a str,
    settings: &'a Settings,
    /// With several presets: the settings of the others.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    other_settings: &'a [&'a Settings],
    seed: u64,
    stimuli: &'a [Stimulus<'a>],
}

/// A stimulus and the path of its PNG.
#[derive(Serialize)]
pub(super) struct Stimulus<'a> {
    pub(super) preset: Option<Preset>,
    pub(super) objective: &'a Objective,
    #[serde(flatten)]
    pub(super) findings: Findings,
    pub(super) file: PathBuf,
}

/// Prints the results as JSON; `settings` of every preset.
pub(super) fn print_json(
    model: &Model,
    settings: &[&Settings],
    seed: u64,
    stimuli: &[Stimulus<'_>],
) -> anyhow::Result<()> {
    let Some((settings, other_settings)) = settings.split_first() else { return Ok(()) };
    let (id, digest) = (&model.id, &model.digest);
    let document = Document { model: id, model_digest: digest, settings, other_settings, seed, stimuli };
    println!("{}", serde_json::to_string_pretty(&document)?);
    Ok(())
}
