//! Command line arguments of `proxygrad maximize`, and the parsers of their values.

use std::path::PathBuf;
use std::str::FromStr;

use clap::{Args, ValueEnum};
use proxygrad::Invalid;
use proxygrad::maximize::{
    Colour, Decay, GateKind, GateRequest, Objective, OptimizerKind, ParameterizationKind, Preset, Regularizer, Term,
    Transform,
};
use proxygrad::network::{ImageSource, Selection, Unit};
use proxygrad::text::without_mark;
use proxygrad_server::config::{CpuOptions, MemoryOptions, StorageOptions};

/// `proxygrad maximize`
#[derive(Debug, Args)]
pub struct Maximize {
    #[command(flatten)]
    pub(super) storage: StorageOptions,

    /// Id of the model; see `proxygrad models list`.
    #[arg(long, value_name = "ID")]
    pub(super) model: String,

    /// What to maximize: LAYER:CHANNEL, optionally followed by @mean, @center, @max, @topFRACTION or @ROW,COLUMN;
    /// LAYER:CLASS with the name of a class; LAYER@energy; LAYER@caricature or LAYER@inversion of --image; or an objective
    /// as JSON, as in a request to the server. May be given any number of times: one stimulus each.
    #[arg(long = "unit", value_name = "UNIT", required = true, value_parser = objective)]
    pub(super) units: Vec<Objective>,

    /// A PNG or JPEG that units compare with. Objectives as JSON name it as part:image, or as part:NAME when it is given
    /// as NAME=FILE; may be given several times then.
    #[arg(long = "image", value_name = "[NAME=]FILE", value_parser = named_file)]
    pub(super) images: Vec<(String, PathBuf)>,

    /// The PNG to write; with several units a number is put behind its name (`x.png`: `x-0.png`, `x-1.png`, …).
    #[arg(long, short, value_name = "FILE")]
    pub(super) output: PathBuf,

    /// Also write an animated PNG of the run here, numbered as the PNG is.
    #[arg(long, value_name = "FILE")]
    pub(super) animation: Option<PathBuf>,

    /// Device that runs the network: cpu, cuda:0, metal; behind a GPU, +tf32 or +bf16 trades accuracy for speed.
    #[arg(long, env = "PROXYGRAD_DEVICE", value_name = "DEVICE", default_value = "cpu")]
    pub(super) device: String,

    #[command(flatten)]
    pub(super) cpu: CpuOptions,

    #[command(flatten)]
    pub(super) memory: MemoryOptions,

    /// Print the result as JSON.
    #[arg(long)]
    pub(super) json: bool,

    #[command(flatten)]
    pub(super) method: Method,
}

/// How the stimuli are found; what is left out is filled in.
#[derive(Debug, Args)]
#[command(next_help_heading = "Method")]
pub(super) struct Method {
    /// What fills in the settings that are not given; readable unless given.
    #[arg(long, value_name = "PRESET")]
    pub(super) preset: Option<Preset>,

    /// Backward rule of activations. Default: the preset's.
    #[arg(long, value_name = "KIND")]
    pub(super) gate: Option<GateKind>,

    /// Slope of the flat sides, from 0 to 1 (decoupled, true-proxy).
    #[arg(long, value_name = "SLOPE")]
    pub(super) slope: Option<f32>,

    /// Width of the logistic step (soft).
    #[arg(long, value_name = "T")]
    pub(super) temperature: Option<f32>,

    /// Whether T counts in units of each activation's scale, which is measured first, or of the pre-activations (soft).
    #[arg(long, value_name = "BOOL")]
    pub(super) relative: Option<bool>,

    /// Share of the steps over which the gate fades to plain, from 0 to 1.
    #[arg(long, value_name = "SHARE")]
    pub(super) anneal: Option<f32>,

    /// Share of plain steps at the end, from 0 to 1.
    #[arg(long, value_name = "SHARE")]
    pub(super) polish: Option<f32>,

    /// A gate that competes: its kind, or a JSON object as in a request. May be given several times; several good ones
    /// with --gate auto unless given.
    #[arg(long = "arm", value_name = "GATE", value_parser = gate)]
    pub(super) arms: Vec<GateRequest>,

    /// Number of starts that every gate is tried from; the best one is gone on with.
    #[arg(long, value_name = "N")]
    pub(super) restarts: Option<u32>,

    /// In a search, steps of every candidate before the better half is chosen, choice by choice, such as 8,16.
    #[arg(long, value_name = "N,...", value_delimiter = ',')]
    pub(super) rungs: Option<Vec<u32>>,

    /// Number of updates of the image; in a search, on all candidates together. Default: the preset's.
    #[arg(long, value_name = "N")]
    pub(super) steps: Option<u32>,

    /// From a gradient to the next image. Default: the preset's, or the usual one of the parameterization.
    #[arg(long, value_name = "KIND")]
    pub(super) optimizer: Option<OptimizerKind>,

    /// Step size, in pixel values of range [0, 1], coefficients (fourier) or radians (maco).
    #[arg(long, value_name = "LR")]
    pub(super) lr: Option<f32>,

    /// How the step size changes over the run.
    #[arg(long, value_name = "KIND")]
    pub(super) decay: Option<Decay>,

    /// What the optimizer changes. Default: the preset's, but pixel with --start image or the regularizer blur.
    #[arg(long, value_name = "KIND")]
    pub(super) parameterization: Option<ParameterizationKind>,

    /// By which power of the frequency coefficients (fourier) or amplitudes (maco) fall, from 0 to 4.
    #[arg(long, value_name = "POWER")]
    pub(super) decay_power: Option<f32>,

    /// How colours hang together (fourier, maco): imagenet, none, or a matrix such as [[1,0.2],[1,-0.2]].
    #[arg(long, value_name = "COLOUR", value_parser = parsed::<Colour>)]
    pub(super) colour: Option<Colour>,

    /// Where the magnitudes come from (maco): natural, measured (the model's own), or a file that `proxygrad models
    /// spectrum` wrote.
    #[arg(long, value_name = "SPECTRUM")]
    pub(super) spectrum: Option<String>,

    /// Standard deviation of the colours before the logistic function (maco).
    #[arg(long, value_name = "SD")]
    pub(super) contrast: Option<f32>,

    /// Random view for each step: jitter:PIXELS, scale:LOW,HIGH, rotate:DEGREES, blur:SIGMA, pad:PIXELS, crop:LOW,HIGH,
    /// noise:SD, flip or colour:STRENGTH, optionally followed by @PROBABILITY. May be given several times; applied in this
    /// order. Default: the preset's; --no-transforms for none.
    #[arg(long = "transform", value_name = "TRANSFORM", value_parser = parsed::<Transform>)]
    pub(super) transforms: Vec<Transform>,

    /// Show the network the image as it is in every step.
    #[arg(long, conflicts_with = "transforms")]
    pub(super) no_transforms: bool,

    /// What keeps the stimulus calm: l1:WEIGHT, l2:WEIGHT, tv:WEIGHT (relative to the gradient) or blur:SIGMA,EVERY. May be
    /// given several times.
    #[arg(long = "regularizer", value_name = "REGULARIZER", value_parser = parsed::<Regularizer>)]
    pub(super) regularizers: Vec<Regularizer>,

    /// Height and width of the stimulus in pixels, such as 224,224; the model's own input size unless given.
    #[arg(long, value_name = "H,W", value_delimiter = ',', num_args = 1)]
    pub(super) size: Option<Vec<usize>>,

    /// The image before the first step; grey unless a preset says otherwise, but uniform for maco.
    #[arg(long, value_name = "KIND")]
    pub(super) start: Option<StartKind>,

    /// Standard deviation of the noise on a start that is grey or an image, in pixel values of range [0, 1]; on a grey one
    /// in coefficients with fourier.
    #[arg(long, value_name = "SD")]
    pub(super) noise: Option<f32>,

    /// The PNG or JPEG to start from, with --start image.
    #[arg(long, value_name = "FILE")]
    pub(super) start_image: Option<PathBuf>,

    /// With --start image: greatest root-mean-square distance from it, in pixel values of range [0, 1].
    #[arg(long, value_name = "RADIUS")]
    pub(super) leash: Option<f32>,

    /// Layer in which the stimuli of a unit are to differ, with --diversity-copies.
    #[arg(long, value_name = "LAYER", requires = "diversity_copies")]
    pub(super) diversity_layer: Option<String>,

    /// Number of stimuli for every unit, with --diversity-layer.
    #[arg(long, value_name = "N", requires = "diversity_layer")]
    pub(super) diversity_copies: Option<usize>,

    /// How much it counts that they differ, in units of the objective.
    #[arg(long, value_name = "WEIGHT", requires = "diversity_layer", default_value_t = 1.0)]
    pub(super) diversity_weight: f32,

    /// With transforms, how many steps lie between two scores of the image as it is.
    #[arg(long, value_name = "N")]
    pub(super) score_every: Option<u32>,

    /// Measure what else can be said about each maximum: stationarity, gain of more steps, robust score, high
    /// frequencies, share of the natural maximum.
    #[arg(long)]
    pub(super) certificates: bool,

    /// Make the PNG transparent where the objective hardly looked at it.
    #[arg(long)]
    pub(super) alpha: bool,

    /// How many images the animation shows.
    #[arg(long, value_name = "N", requires = "animation")]
    pub(super) frames: Option<u32>,

    /// Seed of everything random.
    #[arg(long, value_name = "SEED", default_value_t = 0)]
    pub(super) seed: u64,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(super) enum StartKind {
    Grey,
    Uniform,
    Image,
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

/// Name of an image that is given without a name.
const IMAGE: &str = "image";

/// Reads `NAME=FILE` or `FILE`.
fn named_file(text: &str) -> Result<(String, PathBuf), String> {
    match text.split_once('=') {
        Some((name, file)) if !name.is_empty() && !name.contains(['/', '\\']) => Ok((name.to_owned(), file.into())),
        _ => Ok((IMAGE.to_owned(), text.into())),
    }
}
