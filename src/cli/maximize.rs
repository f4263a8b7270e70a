//! `proxygrad maximize`: one request on this machine, without a server.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use anyhow::Context;
use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use proxygrad::Invalid;
use proxygrad::config::{CpuOptions, Places};
use proxygrad::engine;
use proxygrad::maximize::{
    Decay, Diversity, Findings, GateKind, GateRequest, Limits, Objective, Observer, OptimizerKind, OptimizerRequest,
    Outcome, Point, Request, Resolved, SearchRequest, Settings, Start, Term, Transform, maximize,
};
use proxygrad::network::{ImageSource, Model, Selection, Unit, catalog};
use serde::Serialize;

/// `proxygrad maximize`
#[derive(Debug, Args)]
pub struct Maximize {
    #[command(flatten)]
    places: Places,

    /// Id of the model; see `proxygrad models list`.
    #[arg(long, value_name = "ID")]
    model: String,

    /// What to maximize: LAYER:CHANNEL, optionally followed by @mean, @center, @max, @topFRACTION or @ROW,COLUMN;
    /// LAYER:CLASS with the name of a class; LAYER@energy; LAYER@caricature or LAYER@inversion of --image; or an objective
    /// as JSON, as in a request to the server. May be given several times: one stimulus each.
    #[arg(long = "unit", value_name = "UNIT", required = true, value_parser = objective)]
    units: Vec<Objective>,

    /// A PNG or JPEG that units compare with. Objectives as JSON name it as part:image, or as part:NAME when it is given
    /// as NAME=FILE; may be given several times then.
    #[arg(long = "image", value_name = "[NAME=]FILE", value_parser = named_file)]
    images: Vec<(String, PathBuf)>,

    /// The PNG to write; with several units a number is put behind its name (`x.png`: `x-0.png`, `x-1.png`, …).
    #[arg(long, short, value_name = "FILE")]
    output: PathBuf,

    /// Device that runs the network: cpu, cuda:0, metal; behind a GPU, +tf32 or +bf16 trades accuracy for speed.
    #[arg(long, env = "PROXYGRAD_DEVICE", value_name = "DEVICE", default_value = "cpu")]
    device: String,

    #[command(flatten)]
    cpu: CpuOptions,

    /// Print the result as JSON.
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    method: Method,
}

/// How the stimuli are found; what is left out is filled in.
#[derive(Debug, Args)]
#[command(next_help_heading = "Method")]
struct Method {
    /// Backward rule of activations.
    #[arg(long, value_name = "KIND", default_value = "decoupled")]
    gate: GateKind,

    /// Slope of the flat sides, from 0 to 1 (decoupled, true-proxy).
    #[arg(long, value_name = "SLOPE")]
    slope: Option<f32>,

    /// Width of the logistic step (soft).
    #[arg(long, value_name = "T")]
    temperature: Option<f32>,

    /// Whether T counts in units of each activation's scale, which is measured first, or of the pre-activations (soft).
    #[arg(long, value_name = "BOOL")]
    relative: Option<bool>,

    /// Share of the steps over which the gate fades to plain, from 0 to 1.
    #[arg(long, value_name = "SHARE")]
    anneal: Option<f32>,

    /// Share of plain steps at the end, from 0 to 1.
    #[arg(long, value_name = "SHARE")]
    polish: Option<f32>,

    /// A gate that competes: its kind, or a JSON object as in a request. May be given several times; several good ones
    /// with --gate auto unless given.
    #[arg(long = "arm", value_name = "GATE", value_parser = gate)]
    arms: Vec<GateRequest>,

    /// Number of starts that every gate is tried from; the best one is gone on with.
    #[arg(long, value_name = "N")]
    restarts: Option<u32>,

    /// In a search, steps of every candidate before the better half is chosen, choice by choice, such as 8,16.
    #[arg(long, value_name = "N,...", value_delimiter = ',')]
    rungs: Option<Vec<u32>>,

    /// Number of updates of the image; in a search, on all candidates together.
    #[arg(long, value_name = "N")]
    steps: Option<u32>,

    /// From a gradient to the next image.
    #[arg(long, value_name = "KIND", default_value = "l2-ascent")]
    optimizer: OptimizerKind,

    /// Step size in pixel values of range [0, 1].
    #[arg(long, value_name = "LR")]
    lr: Option<f32>,

    /// How the step size changes over the run.
    #[arg(long, value_name = "KIND", default_value = "none")]
    decay: Decay,

    /// Random view for each step: jitter:PIXELS, scale:LOW,HIGH, rotate:DEGREES or blur:SIGMA, optionally followed by
    /// @PROBABILITY. May be given several times; applied in this order.
    #[arg(long = "transform", value_name = "TRANSFORM", value_parser = parsed::<Transform>)]
    transforms: Vec<Transform>,

    /// Height and width of the stimulus in pixels, such as 224,224; the model's own input size unless given.
    #[arg(long, value_name = "H,W", value_delimiter = ',', num_args = 1)]
    size: Option<Vec<usize>>,

    /// The image before the first step.
    #[arg(long, value_name = "KIND", default_value = "grey")]
    start: Origin,

    /// Standard deviation of the noise on a start that is grey or an image, in pixel values of range [0, 1].
    #[arg(long, value_name = "SD")]
    noise: Option<f32>,

    /// The PNG or JPEG to start from, with --start image.
    #[arg(long, value_name = "FILE")]
    start_image: Option<PathBuf>,

    /// With --start image: greatest root-mean-square distance from it, in pixel values of range [0, 1].
    #[arg(long, value_name = "RADIUS")]
    leash: Option<f32>,

    /// Layer in which the stimuli of a unit are to differ, with --diversity-copies.
    #[arg(long, value_name = "LAYER", requires = "diversity_copies")]
    diversity_layer: Option<String>,

    /// Number of stimuli for every unit, with --diversity-layer.
    #[arg(long, value_name = "N", requires = "diversity_layer")]
    diversity_copies: Option<usize>,

    /// How much it counts that they differ, in units of the objective.
    #[arg(long, value_name = "WEIGHT", requires = "diversity_layer", default_value_t = 1.0)]
    diversity_weight: f32,

    /// With transforms, how many steps lie between two scores of the image as it is.
    #[arg(long, value_name = "N")]
    score_every: Option<u32>,

    /// Seed of everything random.
    #[arg(long, value_name = "SEED", default_value_t = 0)]
    seed: u64,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Origin {
    Grey,
    Uniform,
    Image,
}

/// Name of the part that a start from an image is.
const START: &str = "start-image";

impl Maximize {
    /// Runs the request and writes the PNGs.
    pub fn run(self) -> anyhow::Result<()> {
        let engine = engine::open(&self.device, &self.cpu.settings(&self.places.data_dir))?;
        let models = catalog::Models::new(self.places.models())?;
        let model = super::models::load(&models, &self.model)?;
        let mut request = self.request()?;
        request.attach(&self.files()?).map_err(|e| as_flag(&e))?;
        let resolved = request.resolve(&model, &Limits::default()).map_err(|e| as_flag(&e))?;
        let tasks = resolved.tasks();
        let mut progress = Progress::new(tasks.len(), resolved.settings.steps);
        let outcomes = maximize(engine.as_ref(), &model, &tasks, &resolved.settings, &mut progress)?;
        progress.bar.finish_and_clear();
        let several = outcomes.len() > 1;
        let mut written = Vec::new();
        for (i, outcome) in outcomes.into_iter().flatten().enumerate() {
            let path = if several { numbered(&self.output, i) } else { self.output.clone() };
            std::fs::write(&path, &outcome.png).with_context(|| format!("cannot write {}", path.display()))?;
            written.push((path, outcome));
        }
        if self.json { print_json(&model, &resolved, &written) } else { print_text(&model, &resolved, &written) }
    }

    fn request(&self) -> anyhow::Result<Request> {
        let method = &self.method;
        let (slope, temperature, relative) = (method.slope, method.temperature, method.relative);
        let (anneal, polish) = (method.anneal, method.polish);
        let start = match (method.start, method.noise) {
            (Origin::Grey, Some(noise)) => Start::Grey { noise },
            (Origin::Grey, None) => Start::default(),
            (Origin::Uniform, None) => Start::Uniform,
            (Origin::Uniform, Some(noise)) => {
                return Err(Invalid::new("--noise", noise, "nothing: --start uniform has no noise").into());
            }
            (Origin::Image, noise) => {
                let image = ImageSource::Part(START.into());
                Start::Image { image, noise: noise.unwrap_or(0.0), leash: method.leash }
            }
        };
        if let (Origin::Grey | Origin::Uniform, Some(leash)) = (method.start, method.leash) {
            return Err(Invalid::new("--leash", leash, "nothing, unless --start is image").into());
        }
        let diversity = method.diversity_layer.clone().zip(method.diversity_copies);
        let diversity = diversity.map(|(layer, copies)| Diversity { layer, copies, weight: method.diversity_weight });
        let size = method.size.as_deref().map(<[usize; 2]>::try_from);
        let size = size.transpose().map_err(|_| {
            let found = format!("{:?}", method.size.as_deref().unwrap_or_default());
            Invalid::new("--size", found, "height and width, such as 224,224")
        })?;
        Ok(Request {
            model: self.model.clone(),
            objective: None,
            objectives: Some(self.units.clone()),
            gate: Some(GateRequest { kind: method.gate, slope, temperature, relative, anneal, polish }),
            search: method.search(),
            steps: method.steps,
            optimizer: Some(OptimizerRequest { kind: method.optimizer, lr: method.lr, decay: Some(method.decay) }),
            transforms: Some(method.transforms.clone()),
            size,
            start: Some(start),
            score_every: method.score_every,
            diversity,
            seed: Some(method.seed),
        })
    }

    /// The image files by the names under which the request knows them.
    fn files(&self) -> anyhow::Result<BTreeMap<String, Arc<[u8]>>> {
        let start = self.method.start_image.iter().map(|path| (START, path));
        let images = self.images.iter().map(|(name, path)| (name.as_str(), path));
        let mut files = BTreeMap::new();
        for (name, path) in start.chain(images) {
            let file = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
            if files.insert(name.to_owned(), file.into()).is_some() {
                return Err(Invalid::new("--image", path.display(), format!("one file of the name {name}")).into());
            }
        }
        Ok(files)
    }
}

impl Method {
    fn search(&self) -> Option<SearchRequest> {
        let arms = (!self.arms.is_empty()).then(|| self.arms.clone());
        let search = SearchRequest { arms, restarts: self.restarts, rungs: self.rungs.clone() };
        (search != SearchRequest::default()).then_some(search)
    }
}

/// Reads a gate: its kind, or an object.
fn gate(text: &str) -> Result<GateRequest, String> {
    if text.trim_start().starts_with('{') {
        serde_json::from_str(text).map_err(|error| error.to_string())
    } else {
        parsed(text)
    }
}

/// Reads a value; what is wrong is told without the value, which the command line repeats itself.
fn parsed<T: FromStr<Err = Invalid>>(text: &str) -> Result<T, String> {
    text.parse().map_err(|invalid: Invalid| format!("expected {}", invalid.expected))
}

/// Reads a unit, or an objective as JSON.
fn objective(text: &str) -> Result<Objective, String> {
    let of_image = |layer: &str, selection: fn(ImageSource) -> Selection| {
        let unit = Unit { layer: layer.to_owned(), selection: selection(ImageSource::Part(IMAGE.into())) };
        Ok(Objective { terms: vec![Term { unit, weight: 1.0 }] })
    };
    if text.trim_start().starts_with('{') {
        return serde_json::from_str(text).map_err(|error| error.to_string());
    }
    if let Some(layer) = text.strip_suffix("@caricature") {
        return of_image(layer, |image| Selection::Caricature { image, cosine_power: 1.0 });
    }
    if let Some(layer) = text.strip_suffix("@inversion") {
        return of_image(layer, |image| Selection::Inversion { image });
    }
    parsed(text)
}

/// Name of an image that is given without one.
const IMAGE: &str = "image";

/// Reads `NAME=FILE` or `FILE`.
fn named_file(text: &str) -> Result<(String, PathBuf), String> {
    match text.split_once('=') {
        Some((name, file)) if !name.is_empty() && !name.contains(['/', '\\']) => Ok((name.to_owned(), file.into())),
        _ => Ok((IMAGE.to_owned(), text.into())),
    }
}

/// The request's fields as the flags that they came from: `gate.slope` is `--slope`, `objectives[0].channel` is `--unit`.
fn as_flag(invalid: &Invalid) -> Invalid {
    let field = invalid.field.split(['[', '.']).next().unwrap_or_default();
    let flag = match field {
        _ if invalid.field == "start.image" => "--start-image".to_owned(),
        "objectives" if invalid.field.ends_with(".image") => "--image".to_owned(),
        "diversity" => format!("--{}", invalid.field.replace('.', "-")),
        "objectives" => "--unit".to_owned(),
        "search" if invalid.field.contains("arms") => "--arm".to_owned(),
        "gate" | "optimizer" | "search" | "start" => format!("--{}", invalid.field.rsplit('.').next().unwrap_or(field)),
        "transforms" => "--transform".to_owned(),
        field => format!("--{}", field.replace('_', "-")),
    };
    Invalid { field: flag, ..invalid.clone() }
}

/// `x.png` and 2 make `x-2.png`.
fn numbered(path: &Path, i: usize) -> PathBuf {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let ending = path.extension().map(|ending| format!(".{}", ending.to_string_lossy())).unwrap_or_default();
    path.with_file_name(format!("{stem}-{i}{ending}"))
}

/// A progress bar that shows the best score of the first stimulus.
struct Progress {
    bar: ProgressBar,
    best: f32,
    stimuli: usize,
}

impl Progress {
    fn new(stimuli: usize, steps: u32) -> Self {
        let bar = ProgressBar::new(u64::from(steps));
        let template = "{bar:40} step {pos}/{len} {msg} ({eta} left)";
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        Self { bar, best: f32::NEG_INFINITY, stimuli }
    }
}

impl Observer for Progress {
    fn keep(&mut self, _: usize) -> bool {
        true
    }

    fn scored(&mut self, stimulus: usize, point: Point) {
        if stimulus == 0 {
            self.best = self.best.max(point.score);
            self.bar.set_position(u64::from(point.step));
            let whose = if self.stimuli > 1 { "best score of the first" } else { "best score" };
            self.bar.set_message(format!("{whose} {:.4}", self.best));
        }
    }
}

fn print_text(model: &Model, resolved: &Resolved, written: &[(PathBuf, Outcome)]) -> anyhow::Result<()> {
    for ((path, outcome), objective) in written.iter().zip(&resolved.objectives) {
        let found = &outcome.findings;
        println!("{objective} of {}{}", model.id, class_name(model, objective));
        println!("  start  {:>12.5}", found.initial_score);
        println!("  best   {:>12.5}  at step {} of {}", found.score, found.best_step, resolved.settings.steps);
        println!("  end    {:>12.5}", found.final_score);
        println!("  passes {:>6}", found.passes);
        for arm in &found.arms {
            let gate = serde_json::to_string(&arm.gate)?;
            let (score, won) = (arm.score.unwrap_or(f32::NAN), if arm.won { ", won" } else { "" });
            println!("  arm    {score:>12.5}  after {} steps from start {}{won}: {gate}", arm.steps, arm.restart);
        }
        for warning in &found.warnings {
            println!("  warning: {}", warning.meaning());
        }
        println!("  {}", path.display());
    }
    Ok(())
}

/// ` (banana)` for a class logit whose name is known.
fn class_name(model: &Model, objective: &Objective) -> String {
    let [term] = objective.terms.as_slice() else { return String::new() };
    match model.class_of(&term.unit) {
        Some(name) => format!(" ({name})"),
        None => String::new(),
    }
}

/// What `--json` prints.
#[derive(Serialize)]
struct Document<'a> {
    model: &'a str,
    model_digest: &'a str,
    settings: &'a Settings,
    seed: u64,
    stimuli: Vec<Stimulus<'a>>,
}

#[derive(Serialize)]
struct Stimulus<'a> {
    objective: &'a Objective,
    #[serde(flatten)]
    findings: &'a Findings,
    file: &'a Path,
}

fn print_json(model: &Model, resolved: &Resolved, written: &[(PathBuf, Outcome)]) -> anyhow::Result<()> {
    let stimuli = written.iter().zip(&resolved.objectives);
    let stimuli = stimuli.map(|((file, outcome), objective)| Stimulus { objective, findings: &outcome.findings, file });
    let document = Document {
        model: &model.id,
        model_digest: &model.digest,
        settings: &resolved.settings,
        seed: resolved.seed,
        stimuli: stimuli.collect(),
    };
    println!("{}", serde_json::to_string_pretty(&document)?);
    Ok(())
}
