//! `proxygrad maximize`: one request on this machine, without a server.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use anyhow::Context;
use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use proxygrad::Invalid;
use proxygrad::engine;
use proxygrad::maximize::{
    Animation, Certificates, Colour, Decay, Diversity, Findings, GateKind, GateRequest, Limits, Objective, Observer,
    OptimizerKind, OptimizerRequest, Outcome, ParameterizationKind, ParameterizationRequest, Point, Preset,
    Regularizer, Request, Resolved, SearchRequest, Settings, SpectrumKind, Start, Term, TooLarge, Transform,
    maximize_within,
};
use proxygrad::network::{ImageSource, Model, Selection, Spectrum, Unit, catalog};
use proxygrad::text::without_mark;
use proxygrad_server::config::{CpuOptions, MemoryOptions, StorageOptions};
use serde::Serialize;

/// `proxygrad maximize`
#[derive(Debug, Args)]
pub struct Maximize {
    #[command(flatten)]
    storage: StorageOptions,

    /// Id of the model; see `proxygrad models list`.
    #[arg(long, value_name = "ID")]
    model: String,

    /// What to maximize: LAYER:CHANNEL, optionally followed by @mean, @center, @max, @topFRACTION or @ROW,COLUMN;
    /// LAYER:CLASS with the name of a class; LAYER@energy; LAYER@caricature or LAYER@inversion of --image; or an objective
    /// as JSON, as in a request to the server. May be given any number of times: one stimulus each.
    #[arg(long = "unit", value_name = "UNIT", required = true, value_parser = objective)]
    units: Vec<Objective>,

    /// A PNG or JPEG that units compare with. Objectives as JSON name it as part:image, or as part:NAME when it is given
    /// as NAME=FILE; may be given several times then.
    #[arg(long = "image", value_name = "[NAME=]FILE", value_parser = named_file)]
    images: Vec<(String, PathBuf)>,

    /// The PNG to write; with several units a number is put behind its name (`x.png`: `x-0.png`, `x-1.png`, …).
    #[arg(long, short, value_name = "FILE")]
    output: PathBuf,

    /// Also write an animated PNG of the run here, numbered as the PNG is.
    #[arg(long, value_name = "FILE")]
    animation: Option<PathBuf>,

    /// Device that runs the network: cpu, cuda:0, metal; behind a GPU, +tf32 or +bf16 trades accuracy for speed.
    #[arg(long, env = "PROXYGRAD_DEVICE", value_name = "DEVICE", default_value = "cpu")]
    device: String,

    #[command(flatten)]
    cpu: CpuOptions,

    #[command(flatten)]
    memory: MemoryOptions,

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
    /// What fills in the settings that are not given; readable unless given.
    #[arg(long, value_name = "PRESET")]
    preset: Option<Preset>,

    /// Backward rule of activations. Default: the preset's.
    #[arg(long, value_name = "KIND")]
    gate: Option<GateKind>,

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

    /// Number of updates of the image; in a search, on all candidates together. Default: the preset's.
    #[arg(long, value_name = "N")]
    steps: Option<u32>,

    /// From a gradient to the next image. Default: the preset's, or the usual one of the parameterization.
    #[arg(long, value_name = "KIND")]
    optimizer: Option<OptimizerKind>,

    /// Step size, in pixel values of range [0, 1], coefficients (fourier) or radians (maco).
    #[arg(long, value_name = "LR")]
    lr: Option<f32>,

    /// How the step size changes over the run.
    #[arg(long, value_name = "KIND")]
    decay: Option<Decay>,

    /// What the optimizer changes. Default: the preset's, but pixel with --start image or the regularizer blur.
    #[arg(long, value_name = "KIND")]
    parameterization: Option<ParameterizationKind>,

    /// By which power of the frequency coefficients (fourier) or amplitudes (maco) fall, from 0 to 4.
    #[arg(long, value_name = "POWER")]
    decay_power: Option<f32>,

    /// How colours hang together (fourier, maco): imagenet, none, or a matrix such as [[1,0.2],[1,-0.2]].
    #[arg(long, value_name = "COLOUR", value_parser = parsed::<Colour>)]
    colour: Option<Colour>,

    /// Where the magnitudes come from (maco): natural, measured (the model's own), or a file that `proxygrad models
    /// spectrum` wrote.
    #[arg(long, value_name = "SPECTRUM")]
    spectrum: Option<String>,

    /// Standard deviation of the colours before the logistic function (maco).
    #[arg(long, value_name = "SD")]
    contrast: Option<f32>,

    /// Random view for each step: jitter:PIXELS, scale:LOW,HIGH, rotate:DEGREES, blur:SIGMA, pad:PIXELS, crop:LOW,HIGH,
    /// noise:SD, flip or colour:STRENGTH, optionally followed by @PROBABILITY. May be given several times; applied in this
    /// order. Default: the preset's; --no-transforms for none.
    #[arg(long = "transform", value_name = "TRANSFORM", value_parser = parsed::<Transform>)]
    transforms: Vec<Transform>,

    /// Show the network the image as it is in every step.
    #[arg(long, conflicts_with = "transforms")]
    no_transforms: bool,

    /// What keeps the stimulus calm: l1:WEIGHT, l2:WEIGHT, tv:WEIGHT (relative to the gradient) or blur:SIGMA,EVERY. May be
    /// given several times.
    #[arg(long = "regularizer", value_name = "REGULARIZER", value_parser = parsed::<Regularizer>)]
    regularizers: Vec<Regularizer>,

    /// Height and width of the stimulus in pixels, such as 224,224; the model's own input size unless given.
    #[arg(long, value_name = "H,W", value_delimiter = ',', num_args = 1)]
    size: Option<Vec<usize>>,

    /// The image before the first step; grey unless a preset says otherwise, but uniform for maco.
    #[arg(long, value_name = "KIND")]
    start: Option<Origin>,

    /// Standard deviation of the noise on a start that is grey or an image, in pixel values of range [0, 1]; on a grey one
    /// in coefficients with fourier.
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

    /// Measure what else can be said about each maximum: stationarity, gain of more steps, robust score, high
    /// frequencies, share of the natural maximum.
    #[arg(long)]
    certificates: bool,

    /// Make the PNG transparent where the objective hardly looked at it.
    #[arg(long)]
    alpha: bool,

    /// How many images the animation shows.
    #[arg(long, value_name = "N", requires = "animation")]
    frames: Option<u32>,

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
        let engine = engine::open(&self.device, &self.cpu.settings(&self.storage.data_dir))?;
        let models = catalog::Models::new(self.storage.models())?;
        let model = self.model(&models)?;
        let limits = Limits::default();
        let mut request = self.request()?;
        self.method.refine(&mut request, &model, &limits);
        request.attach(&self.files()?).map_err(|e| as_flag(&e))?;
        // All of them are looked at before the first is carried out.
        let parts = parts(request).map(|part| part.resolve(&model, &limits));
        let parts = parts.collect::<Result<Vec<Resolved>, Invalid>>().map_err(|e| as_flag(&e))?;
        let several = parts.iter().map(|part| part.objectives.len()).sum::<usize>() > 1;
        let (memory, allowed) = (engine.memory_model(), self.memory.run_bytes());
        for part in &parts {
            if let Some(too_large) = part.too_large(&memory, &model, allowed)? {
                return Err(refused(too_large));
            }
        }
        let mut written = Vec::new();
        for part in &parts {
            let mut progress = Progress::new(several, part.settings.steps);
            let tasks = part.tasks_after(written.len() as u64);
            let outcomes = maximize_within(engine.as_ref(), &model, &tasks, &part.settings, allowed, &mut progress)?;
            progress.bar.finish_and_clear();
            for (outcome, objective) in outcomes.into_iter().flatten().zip(&part.objectives) {
                let file = self.write(&outcome, several.then_some(written.len()))?;
                written.push(Stimulus { objective, findings: outcome.findings, file });
            }
        }
        // There is one part at least, and all have the same settings.
        let Some(Resolved { settings, seed, .. }) = parts.first() else { return Ok(()) };
        match self.json {
            true => print_json(&model, settings, *seed, &written),
            false => print_text(&model, settings, &written),
        }
    }

    /// Writes what one stimulus is, under its number where there are several; the file of its PNG.
    fn write(&self, outcome: &Outcome, number: Option<usize>) -> anyhow::Result<PathBuf> {
        let numbered = |path: &Path| number.map_or_else(|| path.to_owned(), |number| numbered(path, number));
        let write = |path: PathBuf, bytes: &[u8]| {
            std::fs::write(&path, bytes).with_context(|| format!("cannot write {}", path.display()))?;
            anyhow::Ok(path)
        };
        if let (Some(file), Some(animation)) = (&self.animation, &outcome.animation) {
            write(numbered(file), animation)?;
        }
        write(numbered(&self.output), &outcome.png)
    }

    /// The model, with the spectrum from a file instead of its own where one is given.
    fn model(&self, models: &catalog::Models) -> anyhow::Result<Arc<Model>> {
        let model = super::models::load(models, &self.model)?;
        let named = |file: &&str| !matches!(*file, "natural" | "measured");
        let Some(file) = self.method.spectrum.as_deref().filter(named) else { return Ok(model) };
        let bytes = std::fs::read(file).with_context(|| format!("cannot read {file}"))?;
        let spectrum = Spectrum::parse(&bytes).map_err(|why| anyhow::anyhow!("{file}: {why}"))?;
        let mut model = Model::clone(&model);
        model.statistics.spectrum = Some(Arc::new(spectrum));
        Ok(Arc::new(model))
    }

    fn request(&self) -> anyhow::Result<Request> {
        let method = &self.method;
        let start = match (method.start, method.noise) {
            (Some(Origin::Grey) | None, Some(noise)) => Some(Start::Grey { noise }),
            (Some(Origin::Grey), None) => Some(Start::default()),
            (Some(Origin::Uniform), None) => Some(Start::Uniform),
            (None, None) => None,
            (Some(Origin::Uniform), Some(noise)) => {
                return Err(Invalid::new("--noise", noise, "nothing: --start uniform has no noise").into());
            }
            (Some(Origin::Image), noise) => {
                let image = ImageSource::Part(START.into());
                Some(Start::Image { image, noise: noise.unwrap_or(0.0), leash: method.leash })
            }
        };
        if let (Some(Origin::Grey | Origin::Uniform) | None, Some(leash)) = (method.start, method.leash) {
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
            preset: method.preset,
            gate: method.gate.map(Into::into),
            search: method.search(),
            steps: method.steps,
            optimizer: method.optimizer.map(Into::into),
            parameterization: method
                .parameterization
                .map(|kind| ParameterizationRequest { kind, ..ParameterizationRequest::default() }),
            transforms: if method.no_transforms { Some(Vec::new()) } else { given(&method.transforms) },
            regularizers: given(&method.regularizers),
            size,
            start,
            score_every: method.score_every,
            certificates: Some(method.certificates),
            alpha: Some(method.alpha),
            animation: self.animation.as_ref().map(|_| match method.frames {
                Some(frames) => Animation { frames },
                None => Animation::default(),
            }),
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
    /// Lays what is said of a gate, an optimizer and a parameterization over what the preset makes of the rest.
    fn refine(&self, request: &mut Request, model: &Model, limits: &Limits) {
        let mut gate = request.filled(model, limits).gate;
        let soft = self.temperature.is_some() || self.relative.is_some();
        let strengths = [self.slope, self.temperature, self.anneal, self.polish];
        if soft || strengths.iter().any(Option::is_some) {
            // A search has no strength of its own: whoever names one means a gate that has it.
            if self.gate.is_none() && gate.kind == GateKind::Auto {
                gate = if soft { GateKind::Soft.into() } else { GateKind::Decoupled.into() };
            }
            gate.slope = self.slope.or(gate.slope);
            gate.temperature = self.temperature.or(gate.temperature);
            gate.relative = self.relative.or(gate.relative);
            gate.anneal = self.anneal.or(gate.anneal);
            gate.polish = self.polish.or(gate.polish);
            request.gate = Some(gate);
        }
        let spectrum = self.spectrum.as_deref().map(|spectrum| match spectrum {
            "natural" => SpectrumKind::Natural,
            _ => SpectrumKind::Measured,
        });
        let said = self.decay_power.is_some() || self.colour.is_some();
        if said || spectrum.is_some() || self.contrast.is_some() {
            request.parameterization = Some(ParameterizationRequest {
                decay_power: self.decay_power,
                colour: self.colour.clone(),
                spectrum,
                contrast: self.contrast,
                ..request.filled(model, limits).parameterization
            });
        }
        if self.lr.is_some() || self.decay.is_some() {
            let optimizer = request.filled(model, limits).optimizer;
            request.optimizer = Some(OptimizerRequest {
                lr: self.lr.or(optimizer.lr),
                decay: self.decay.or(optimizer.decay),
                ..optimizer
            });
        }
    }

    fn search(&self) -> Option<SearchRequest> {
        let arms = (!self.arms.is_empty()).then(|| self.arms.clone());
        let search = SearchRequest { arms, restarts: self.restarts, rungs: self.rungs.clone() };
        (search != SearchRequest::default()).then_some(search)
    }
}

/// The request in parts that are small enough to be carried out at once, whole groups each where stimuli are to differ.
fn parts(request: Request) -> impl Iterator<Item = Request> {
    let copies = request.diversity.as_ref().map_or(1, |diversity| diversity.copies.max(1));
    let at_once = (Limits::default().objectives / copies).max(1);
    let mut left = request.objectives.clone().unwrap_or_default();
    std::iter::from_fn(move || {
        let rest = left.split_off(left.len().min(at_once));
        let part = std::mem::replace(&mut left, rest);
        (!part.is_empty()).then(|| Request { objectives: Some(part), ..request.clone() })
    })
}

/// A list, unless the flag was never given.
fn given<T: Clone>(list: &[T]) -> Option<Vec<T>> {
    (!list.is_empty()).then(|| list.to_vec())
}

/// Reads a gate: its kind, or an object.
fn gate(text: &str) -> Result<GateRequest, String> {
    let text = without_mark(text);
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
    let text = without_mark(text);
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
        "gate" | "optimizer" | "parameterization" | "search" | "start" | "animation" => {
            format!("--{}", invalid.field.rsplit('.').next().unwrap_or(field).replace('_', "-"))
        }
        "transforms" => "--transform".to_owned(),
        "regularizers" => "--regularizer".to_owned(),
        field => format!("--{}", field.replace('_', "-")),
    };
    Invalid { field: flag, ..invalid.clone() }
}

/// A request that takes too much memory, with the flags that could be less.
fn refused(TooLarge { needed, allowed, fields }: TooLarge) -> anyhow::Error {
    let flag = |invalid: &Invalid| match invalid.field.as_str() {
        "search" => "--arm or --restarts".to_owned(),
        "animation.frames" => "--frames".to_owned(),
        _ => as_flag(invalid).field,
    };
    let flags: Vec<String> = fields.iter().map(|invalid| format!("{} ({})", flag(invalid), invalid.expected)).collect();
    anyhow::anyhow!(
        "this would take up to {needed} bytes of memory, but --max-run-memory allows {allowed}: give a larger bound, or \
         reduce {}",
        flags.join(" or ")
    )
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
    several: bool,
}

impl Progress {
    fn new(several: bool, steps: u32) -> Self {
        let bar = ProgressBar::new(u64::from(steps));
        let template = "{bar:40} step {pos}/{len} {msg} ({eta} left)";
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        Self { bar, best: f32::NEG_INFINITY, several }
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
            let whose = if self.several { "best score of the first" } else { "best score" };
            self.bar.set_message(format!("{whose} {:.4}", self.best));
        }
    }
}

fn print_text(model: &Model, settings: &Settings, written: &[Stimulus<'_>]) -> anyhow::Result<()> {
    for Stimulus { objective, findings: found, file } in written {
        println!("{objective} of {}{}", model.id, class_name(model, objective));
        println!("  start  {:>12.5}", found.initial_score);
        println!("  best   {:>12.5}  at step {} of {}", found.score, found.best_step, settings.steps);
        println!("  end    {:>12.5}", found.final_score);
        println!("  passes {:>6}", found.passes);
        for arm in &found.arms {
            let gate = serde_json::to_string(&arm.gate)?;
            let (score, won) = (arm.score.unwrap_or(f32::NAN), if arm.won { ", won" } else { "" });
            println!("  arm    {score:>12.5}  after {} steps from start {}{won}: {gate}", arm.steps, arm.restart);
        }
        if let Some(certificates) = &found.certificates {
            print!("{}", certificate_lines(certificates));
        }
        for warning in &found.warnings {
            println!("  warning: {}", warning.meaning());
        }
        println!("  {}", file.display());
    }
    Ok(())
}

/// Certificates as lines of text; `-` stands for what is not defined.
fn certificate_lines(certificates: &Certificates) -> String {
    let number = |x: Option<f32>| x.map_or("-".to_owned(), |x| format!("{x:.5}"));
    let percent = |x: Option<f32>| x.map_or("-".to_owned(), |x| format!("{:.3} %", 100.0 * x));
    let Certificates { stationarity, gain_50, robust, .. } = certificates;
    let natural = match (certificates.natural_maximum, certificates.natural_missing) {
        (_, Some(missing)) => format!("- ({})", missing.meaning()),
        (maximum, None) => {
            let share = percent(certificates.percent_of_natural.map(|percent| percent / 100.0));
            format!("{}, of which the score is {share}", number(maximum))
        }
    };
    let lines = [
        (
            "stationarity",
            format!(
                "projected gradient {}, free share {}, gain of a step {}, of any image at most {} to first order",
                number(stationarity.projected_gradient),
                percent(stationarity.free_share),
                percent(stationarity.step_gain),
                percent(stationarity.gain_bound)
            ),
        ),
        ("50 more plain steps", format!("{} ({})", number(gain_50.absolute), percent(gain_50.relative))),
        (
            "64 views",
            format!(
                "mean {} ({}), 10th percentile {} ({}), smallest {} ({})",
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
                "{}, {} of the brightness",
                percent(certificates.high_frequency_share),
                percent(certificates.high_frequency_share_grey)
            ),
        ),
        ("natural maximum", natural),
        ("passes of certificates", certificates.passes.to_string()),
    ];
    lines.into_iter().map(|(name, value)| format!("  {name}: {value}\n")).collect()
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
    stimuli: &'a [Stimulus<'a>],
}

/// A stimulus that was written.
#[derive(Serialize)]
struct Stimulus<'a> {
    objective: &'a Objective,
    #[serde(flatten)]
    findings: Findings,
    file: PathBuf,
}

fn print_json(model: &Model, settings: &Settings, seed: u64, stimuli: &[Stimulus<'_>]) -> anyhow::Result<()> {
    let document = Document { model: &model.id, model_digest: &model.digest, settings, seed, stimuli };
    println!("{}", serde_json::to_string_pretty(&document)?);
    Ok(())
}
