//! `proxygrad study`: compares settings on the same units, starts and number of passes.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, bail};
use clap::Args;
use proxygrad::Invalid;
use proxygrad::engine;
use proxygrad::network::{Model, catalog};
use proxygrad::study::{
    ComparisonOptions, DEFAULTS, Design, Folder, Plan, Progress, RunOptions, StudyError, StudyRequest, Summary, Toys,
    Variant, Variants, render_exhibits, report, run, summary,
};
use proxygrad::text;
use proxygrad_server::config::{CpuOptions, MemoryOptions, StorageOptions};

use super::progress_display::ProgressDisplay;

/// Arguments of `proxygrad study`.
#[derive(Debug, Args)]
pub struct Study {
    #[command(flatten)]
    storage: StorageOptions,

    /// Output folder. An unfinished study in this folder is resumed.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,

    /// Device that runs the networks: cpu, cuda:0, metal. The suffix +bf16 trades accuracy for speed, +tf32 on
    /// CUDA too.
    #[arg(long, env = "PROXYGRAD_DEVICE", value_name = "DEVICE", default_value = "cpu")]
    device: String,

    #[command(flatten)]
    cpu: CpuOptions,

    #[command(flatten)]
    memory: MemoryOptions,

    /// Maximum number of stimuli in a batch. Does not affect scores.
    #[arg(long, value_name = "N", default_value = "8", value_parser = clap::value_parser!(u32).range(1..=1024))]
    batch: u32,

    /// Number of units per layer whose images are kept, for the first start.
    #[arg(long, value_name = "N", default_value_t = DEFAULTS.images)]
    images: usize,

    /// Keep the images of all runs.
    #[arg(long)]
    keep_images: bool,

    /// Only regenerate the report from the runs in the folder.
    #[arg(long)]
    report: bool,

    /// TOML or JSON file with the whole study, as in POST /v1/studies, instead of flags for units and comparison.
    #[arg(long, value_name = "FILE", conflicts_with_all = REQUESTED)]
    request: Option<PathBuf>,

    #[command(flatten)]
    units: Units,

    #[command(flatten)]
    compared: Compared,

    #[command(flatten)]
    toys: ToyOptions,
}

/// Flags whose values a request sets.
const REQUESTED: [&str; 13] = [
    "models",
    "layers",
    "units_per_layer",
    "logits",
    "reduce",
    "seed",
    "seeds",
    "arms",
    "methods",
    "steps",
    "plan",
    "judges",
    "images",
];

/// The units to maximize.
#[derive(Debug, Args)]
#[command(next_help_heading = "Units")]
struct Units {
    /// Ids of the models, comma-separated.
    #[arg(long, value_name = "IDS", value_delimiter = ',')]
    models: Vec<String>,

    /// Layers to sample units from: LAYER,LAYER for one model, MODEL=LAYER,LAYER (repeated for each model) for several.
    /// A layer may have its own @center, @mean, @max or @topFRACTION. Default: four activations at different depths.
    #[arg(long, value_name = "[MODEL=]LAYERS")]
    layers: Vec<String>,

    /// Number of units sampled per layer.
    #[arg(long, value_name = "N", default_value_t = DEFAULTS.units)]
    units_per_layer: usize,

    /// Number of class logits sampled per model.
    #[arg(long, value_name = "N", default_value_t = DEFAULTS.units)]
    logits: usize,

    /// Reduction of a channel to one number: mean, center, max or topFRACTION.
    #[arg(long, value_name = "HOW", default_value = DEFAULTS.reduce)]
    reduce: String,

    /// Seed for sampling units and starts.
    #[arg(long, value_name = "SEED", default_value_t = DEFAULTS.seed, value_parser = clap::value_parser!(u64).range(..1 << 52))]
    seed: u64,

    /// Number of starts per unit.
    #[arg(long, value_name = "N", default_value_t = DEFAULTS.seeds)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=1000))]
    seeds: u32,
}

/// The settings to compare.
#[derive(Debug, Args)]
#[command(next_help_heading = "Comparison")]
struct Compared {
    /// Arms to compare: plain, redirect, decoupled, slope:P (fixed), anneal:P, soft, soft+polish, identity, true-proxy,
    /// true-proxy:P (fixed), auto, preset:NAME, or arms of the plan file. Comma-separated.
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    #[arg(default_value = DEFAULTS.arms)]
    arms: Vec<String>,

    /// Optimization methods, each with its own tables: pixel, fourier, maco, transforms and preset:NAME, combined with
    /// +, or methods of the plan file. Comma-separated.
    #[arg(long, value_name = "NAMES", value_delimiter = ',', default_value = DEFAULTS.methods)]
    methods: Vec<String>,

    /// Number of steps of an arm whose steps cost two passes. Arms with more expensive steps get fewer, for the same
    /// total number of passes.
    #[arg(long, value_name = "N", default_value_t = DEFAULTS.steps)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    steps: u32,

    /// TOML or JSON file with custom arms and methods: tables `arms` and `methods`, each with `name` and `request` (fields
    /// of a request), and `base` (fields of all requests).
    #[arg(long, value_name = "FILE")]
    plan: Option<PathBuf>,

    /// Models that judge the readability of every stimulus: the rank and probability of its class, and its affinity to
    /// natural images of its unit. Comma-separated ids.
    #[arg(long, value_name = "IDS", value_delimiter = ',')]
    judges: Vec<String>,

    /// Reference arm that all others are compared with. Default: plain, or else the first arm.
    #[arg(long, value_name = "ARM")]
    against: Option<String>,

    /// Arm that is compared with the best of its rivals. Default: auto, or else the last arm.
    #[arg(long, value_name = "ARM")]
    focus: Option<String>,

    /// The rivals, comma-separated. Default: all other arms.
    #[arg(long, value_name = "ARMS", value_delimiter = ',')]
    rivals: Vec<String>,
}

/// Toy functions with a known maximum.
#[derive(Debug, Args)]
#[command(next_help_heading = "Toy functions")]
struct ToyOptions {
    /// Number of starts per toy function; 0 disables toy functions.
    #[arg(long = "toys", value_name = "STARTS", default_value = "0", value_parser = clap::value_parser!(u32).range(..=10_000))]
    starts: u32,

    /// Number of random networks per random toy function.
    #[arg(long, value_name = "N", default_value = "5", value_parser = clap::value_parser!(u32).range(1..=1000))]
    toy_networks: u32,

    /// Arms to compare on the toy functions, comma-separated.
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    #[arg(
        default_value = "plain,redirect,slope:0.01,slope:0.03,slope:0.1,slope:0.3,slope:1,true-proxy:0.1,decoupled,soft"
    )]
    toy_arms: Vec<String>,

    /// Number of steps on a toy function, for an arm whose steps cost two passes.
    #[arg(long, value_name = "N", default_value = "256", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    toy_steps: u32,
}

impl ToyOptions {
    fn toys(&self, variants: &Variants) -> Result<Option<Toys>, Invalid> {
        let arms = self.toy_arms.iter().map(|name| variants.arm(name));
        let arms = arms.collect::<Result<_, _>>().map_err(|invalid| Invalid { field: "toy_arms".into(), ..invalid })?;
        let toys = Toys { networks: self.toy_networks, starts: self.starts, steps: self.toy_steps, arms };
        Ok((self.starts > 0).then_some(toys))
    }
}

impl Study {
    /// Runs the missing runs and writes the report.
    pub fn run(self) -> anyhow::Result<()> {
        let folder = Folder::new(&self.out);
        let summary = if self.report { self.summary(&folder)? } else { self.run_plan(&folder)? };
        report(&folder, &summary)?;
        print(&summary);
        println!("{}", folder.file("report.html").display());
        Ok(())
    }

    fn summary(&self, folder: &Folder) -> anyhow::Result<Summary> {
        let arms = folder.plan()?.map(|plan| plan.arms).unwrap_or_default();
        summary(folder, Some(&self.options(&arms))).map_err(|error| match error {
            StudyError::Invalid(invalid) => as_flag(&invalid).into(),
            error => error.into(),
        })
    }

    /// The default options, overridden by the flags given.
    fn options(&self, arms: &[Variant]) -> ComparisonOptions {
        let Compared { against, focus, rivals, .. } = &self.compared;
        let usual = ComparisonOptions::for_arms(arms);
        let (against, focus) = (against.clone().unwrap_or(usual.against), focus.clone().unwrap_or(usual.focus));
        let rivals =
            if rivals.is_empty() { ComparisonOptions::rivals_of(arms, &against, &focus) } else { rivals.clone() };
        ComparisonOptions { against, focus, rivals, ..usual }
    }

    fn run_plan(&self, folder: &Folder) -> anyhow::Result<Summary> {
        let models = catalog::Models::new(self.storage.models())?;
        let request = self.request.as_deref().map(request).transpose()?;
        let design = match &request {
            Some(request) => requested(request, &self.device, &models)?,
            None => self.design(&models)?,
        };
        if design.models.is_empty() && design.toys.is_none() {
            return Err(Invalid::new("--models", "nothing", "model ids, or --toys with a number of starts").into());
        }
        let plan = Plan::new(&design).map_err(|invalid| if request.is_some() { invalid } else { as_flag(&invalid) })?;
        let engine = engine::open(&self.device, &self.cpu.settings(&self.storage.data_dir))?;
        let images = request.map_or(self.images, |request| request.images);
        let (batch, images) = (self.batch as usize, (!self.keep_images).then_some(images));
        let options = RunOptions { batch, images, memory: self.memory.run_bytes() };
        let compared = design.models.iter().map(|(model, _)| model);
        let loaded: Vec<Arc<Model>> = compared.chain(&design.judges).cloned().collect();
        let mut display = ProgressDisplay::new(plan.runs());
        // Reports errors before the first run.
        self.options(&plan.arms).check(&plan.arms).map_err(|invalid| as_flag(&invalid))?;
        let mut watch = |progress: Progress<'_>| display.show(&progress);
        run(folder, &plan, &loaded, engine.as_ref(), &options, &mut watch)?;
        let summary = self.summary(folder)?;
        render_exhibits(folder, &plan, &loaded, engine.as_ref(), options.memory, &summary, &mut watch)?;
        display.bar.finish_and_clear();
        Ok(summary)
    }

    fn design(&self, models: &catalog::Models) -> anyhow::Result<Design> {
        let variants = match &self.compared.plan {
            None => Variants::default(),
            Some(file) => {
                let text = text::read(file).with_context(|| format!("cannot read {}", file.display()))?;
                Variants::parse(&text).map_err(|why| anyhow::anyhow!("{}: {why}", file.display()))?
            }
        };
        let arms = self.compared.arms.iter().map(|name| variants.arm(name)).collect::<Result<_, _>>();
        let methods = self.compared.methods.iter().map(|name| variants.method(name)).collect::<Result<_, _>>();
        let mut layers = self.units.layers(&self.units.models)?;
        let mut loaded = Vec::with_capacity(self.units.models.len());
        for id in &self.units.models {
            loaded.push((super::models::load(models, id)?, layers.remove(id).unwrap_or_default()));
        }
        Ok(Design {
            models: loaded,
            units_per_layer: self.units.units_per_layer,
            logits: self.units.logits,
            reduce: self.units.reduce.clone(),
            seed: self.units.seed,
            repeats: self.units.seeds,
            steps: self.compared.steps,
            base: variants.base.clone(),
            arms: arms.map_err(|invalid| as_flag(&invalid))?,
            methods: methods.map_err(|invalid| as_flag(&invalid))?,
            device: self.device.clone(),
            toys: self.toys.toys(&variants).map_err(|invalid| as_flag(&invalid))?,
            judges: self.compared.judges.iter().map(|id| super::models::load(models, id)).collect::<Result<_, _>>()?,
        })
    }
}

/// The request in a file.
fn request(file: &Path) -> anyhow::Result<StudyRequest> {
    let text = text::read(file).with_context(|| format!("cannot read {}", file.display()))?;
    StudyRequest::parse(&text).map_err(|why| anyhow::anyhow!("{}: {why}", file.display()))
}

/// The design of a request, with its models and judges.
fn requested(request: &StudyRequest, device: &str, models: &catalog::Models) -> anyhow::Result<Design> {
    let mut design = request.design(device)?;
    for choice in &request.models {
        design.models.push((super::models::load(models, choice.id())?, choice.layers().to_vec()));
    }
    for judge in &request.judges {
        design.judges.push(super::models::load(models, judge)?);
    }
    Ok(design)
}

impl Units {
    /// Layers by model id.
    fn layers(&self, models: &[String]) -> anyhow::Result<std::collections::BTreeMap<String, Vec<String>>> {
        let mut layers = std::collections::BTreeMap::new();
        for text in &self.layers {
            let (model, names) = match (text.split_once('='), models) {
                (Some((model, names)), models) if models.iter().any(|id| id == model) => (model, names),
                (_, [model]) => (model.as_str(), text.as_str()),
                _ => {
                    let expected = format!("MODEL=LAYER,LAYER with a model of {}", models.join(", "));
                    return Err(Invalid::new("--layers", text, expected).into());
                }
            };
            let names = names.split(',').map(str::to_owned).collect();
            if layers.insert(model.to_owned(), names).is_some() {
                bail!("--layers: {model} is given twice");
            }
        }
        Ok(layers)
    }
}

/// Replaces the field of an error by its flag.
fn as_flag(invalid: &Invalid) -> Invalid {
    let of_model = |field: &&str| field.starts_with("models[") && field.contains("].layers[");
    let field = Some(&*invalid.field).filter(|field| !of_model(field)).unwrap_or("layers");
    let end = field.find(['[', '.']).unwrap_or(field.len());
    let (name, rest) = field.split_at(end);
    match !name.is_empty() && name.chars().all(|c| c.is_ascii_lowercase() || c == '_') {
        true => Invalid { field: format!("--{}{rest}", name.replace('_', "-")), ..invalid.clone() },
        false => invalid.clone(),
    }
}

/// Prints the overall tables.
fn print(summary: &Summary) {
    for toy in &summary.toys {
        let (reached, dead) = (100.0 * toy.reached, 100.0 * toy.dead);
        println!(
            "{:<10} {:<16} {reached:>5.1} % of {} starts reach the maximum, {dead:.1} % stay dead",
            toy.toy, toy.arm, toy.starts
        );
    }
    for table in &summary.tables {
        let Some(all) = table.sections.first() else { continue };
        println!(
            "{}, {}: {} units, {} of them live under {}",
            table.model, table.method, all.units, all.live, summary.options.against
        );
        println!("  {:<16} {:>11} {:>7} {:>22} {:>16}", "arm", "dead runs", "ratio", "95 %", "wins/ties/losses");
        for arm in &all.arms {
            let paired = &arm.versus_reference;
            let ratio = paired.median_ratio.map_or_else(|| "-".into(), |ratio| format!("{ratio:.3}"));
            let interval = paired.interval.map_or_else(String::new, |[low, high]| format!("{low:.3} to {high:.3}"));
            let counts = format!("{}/{}/{}", paired.wins, paired.ties, paired.losses);
            let dead = format!("{} of {}", arm.dead, arm.runs);
            println!("  {:<16} {dead:>11} {ratio:>7} {interval:>22} {counts:>16}", arm.arm);
        }
        let paired = &all.focus;
        let (wins, ties, losses) = (paired.wins, paired.ties, paired.losses);
        println!(
            "  {} against the best of {}: {wins}/{ties}/{losses}",
            summary.options.focus,
            summary.options.rivals.join(", ")
        );
    }
}
