//! Command line arguments of `proxygrad maximize`, and the parsers of their values.

use std::convert::Infallible;
use std::path::PathBuf;
use std::str::FromStr;

use clap::{Args, ValueEnum};
use proxygrad::Invalid;
use proxygrad::maximize::{
    Colour, Decay, GateKind, GateRequest, Objective, OptimizerKind, ParameterizationKind, Preset, Regularizer, Term,
    Transform,
};
use proxygrad::network::{ImageSource, Selection, Unit};
use proxygrad::text::without_bom;
use proxygrad_server::config::{CpuOptions, MemoryOptions, StorageOptions};

/// Arguments of `proxygrad maximize`.
#[derive(Debug, Args)]
pub struct Maximize {
    #[command(flatten)]
    pub(super) storage: StorageOptions,

    /// Id of the model (see `proxygrad models list`).
    #[arg(long, value_name = "ID")]
    pub(super) model: String,

    /// Unit to maximize: LAYER:CHANNEL, optionally with @mean, @center, @max, @topFRACTION, @ROW,COLUMN or, in a
    /// transformer, @class; LAYER:CLASS with a class name; LAYER@energy; LAYER@caricature or LAYER@inversion of
    /// --image; or an objective as JSON, as in a request to the server. Repeatable; each unit gets its own stimulus.
    #[arg(long = "unit", value_name = "UNIT", required = true, value_parser = objective)]
    pub(super) units: Vec<Objective>,

    /// PNG or JPEG for caricatures and inversions. Objectives as JSON refer to it as part:image, or as part:NAME if
    /// given as NAME=FILE. Repeatable with different names.
    #[arg(long = "image", value_name = "[NAME=]FILE", value_parser = named_file)]
    pub(super) images: Vec<(String, PathBuf)>,

    /// PNG file to write. With several stimuli, numbered files are written: `x-0.png`, `x-1.png`, … for `x.png`.
    /// With several presets, each file has its preset before that: `x-readable.png` or `x-readable-0.png`.
    #[arg(long, short, value_name = "FILE")]
    pub(super) output: PathBuf,

    /// Also write an animated PNG of the optimization, numbered like --output.
    #[arg(long, value_name = "FILE")]
    pub(super) animation: Option<PathBuf>,

    /// Device that runs the network: cpu, cuda:0, metal. The suffix +bf16 trades accuracy for speed, +tf32 on
    /// CUDA too.
    #[arg(long, env = "PROXYGRAD_DEVICE", value_name = "DEVICE", default_value = "cpu")]
    pub(super) device: String,

    #[command(flatten)]
    pub(super) cpu: CpuOptions,

    #[command(flatten)]
    pub(super) memory: MemoryOptions,

    /// Print the results as JSON.
    #[arg(long)]
    pub(super) json: bool,

    #[command(flatten)]
    pub(super) method: Method,
}

/// Settings of the optimization.
#[derive(Debug, Args)]
#[command(next_help_heading = "Method")]
pub(super) struct Method {
    /// Defaults for all settings that are not given. Two to four presets, repeated or comma-separated, make a stimulus
    /// of each unit under each, such as readable,maximum. Default: readable.
    #[arg(long = "preset", value_name = "PRESET", value_delimiter = ',')]
    pub(super) presets: Vec<Preset>,

    /// Backward rule (surrogate gradient) of activations. Default: from the preset.
    #[arg(long, value_name = "KIND")]
    pub(super) gate: Option<GateKind>,

    /// Slope in the flat parts of an activation, from 0 to 1 (decoupled, true-proxy).
    #[arg(long, value_name = "SLOPE")]
    pub(super) slope: Option<f32>,

    /// Width of the sigmoid that replaces the step function (soft).
    #[arg(long, value_name = "T")]
    pub(super) temperature: Option<f32>,

    /// Whether T is relative to the measured scale of each activation, or in units of the pre-activations (soft).
    #[arg(long, value_name = "BOOL")]
    pub(super) relative: Option<bool>,

    /// Fraction of the steps over which the gate is annealed to plain, from 0 to 1.
    #[arg(long, value_name = "SHARE")]
    pub(super) anneal: Option<f32>,

    /// Fraction of final steps with the plain gradient, from 0 to 1.
    #[arg(long, value_name = "SHARE")]
    pub(super) polish: Option<f32>,

    /// Candidate gate of the search: its kind, or a JSON object as in a request. Repeatable. Default: a built-in
    /// selection with --gate auto.
    #[arg(long = "arm", value_name = "GATE", value_parser = gate)]
    pub(super) arms: Vec<GateRequest>,

    /// Number of random restarts per gate; the best is continued.
    #[arg(long, value_name = "N")]
    pub(super) restarts: Option<u32>,

    /// Rungs of the search (successive halving): steps per candidate before each selection of the better half, such as
    /// 8,16.
    #[arg(long, value_name = "N,...", value_delimiter = ',')]
    pub(super) rungs: Option<Vec<u32>>,

    /// Number of steps, in a search over all candidates. Default: from the preset.
    #[arg(long, value_name = "N")]
    pub(super) steps: Option<u32>,

    /// Early stopping: finish a stimulus when its best score has not improved by 1 % within this many steps. They are
    /// counted after the coarse stage, when the gate no longer changes, and in a search for the winner. Default: none.
    #[arg(long, value_name = "STEPS")]
    pub(super) patience: Option<u32>,

    /// Optimizer. Default: from the preset, or the default of the parameterization.
    #[arg(long, value_name = "KIND")]
    pub(super) optimizer: Option<OptimizerKind>,

    /// Step size: in pixel values of range [0, 1], coefficients (fourier) or radians (maco).
    #[arg(long, value_name = "LR")]
    pub(super) lr: Option<f32>,

    /// Decay of the step size over the run.
    #[arg(long, value_name = "KIND")]
    pub(super) decay: Option<Decay>,

    /// Image parameterization. Default: from the preset, but pixel with --start image or the regularizer blur.
    #[arg(long, value_name = "KIND")]
    pub(super) parameterization: Option<ParameterizationKind>,

    /// Exponent of the decay of coefficients (fourier) or amplitudes (maco) with frequency, from 0 to 4.
    #[arg(long, value_name = "POWER")]
    pub(super) decay_power: Option<f32>,

    /// Colour decorrelation matrix (fourier, maco): imagenet, none, or a matrix such as [[1,0.2],[1,-0.2]].
    #[arg(long, value_name = "COLOUR", value_parser = parsed::<Colour>)]
    pub(super) colour: Option<Colour>,

    /// Magnitude spectrum (maco): natural, measured (from the model), or a file written by `proxygrad models spectrum`.
    #[arg(long, value_name = "SPECTRUM")]
    pub(super) spectrum: Option<String>,

    /// Standard deviation of the colours before the sigmoid (maco).
    #[arg(long, value_name = "SD")]
    pub(super) contrast: Option<f32>,

    /// Random transform in each step: jitter:PIXELS, scale:LOW,HIGH, rotate:DEGREES, blur:SIGMA, pad:PIXELS,
    /// crop:LOW,HIGH, noise:SD, flip or colour:STRENGTH, optionally with @PROBABILITY. Repeatable, applied in order.
    /// Default: from the preset.
    #[arg(long = "transform", value_name = "TRANSFORM", value_parser = parsed::<Transform>)]
    pub(super) transforms: Vec<Transform>,

    /// Disable transforms.
    #[arg(long, conflicts_with = "transforms")]
    pub(super) no_transforms: bool,

    /// Regularizer: l1:WEIGHT, l2:WEIGHT, tv:WEIGHT (relative to the gradient) or blur:SIGMA,EVERY. Repeatable.
    #[arg(long = "regularizer", value_name = "REGULARIZER", value_parser = parsed::<Regularizer>)]
    pub(super) regularizers: Vec<Regularizer>,

    /// Coarse stage: share of the steps that come first, on a smaller image, from 0 (no coarse stage) to 0.95. Default:
    /// from the preset, unless transforms, regularizers or another parameterization are given.
    #[arg(long, value_name = "SHARE")]
    pub(super) coarse_share: Option<f32>,

    /// Coarse stage: size of the image relative to the stimulus, from 0.25 to 1.
    #[arg(long, value_name = "SCALE")]
    pub(super) coarse_scale: Option<f32>,

    /// Coarse stage: step size.
    #[arg(long, value_name = "LR")]
    pub(super) coarse_lr: Option<f32>,

    /// Coarse stage: random transform, as for --transform. Repeatable.
    #[arg(long = "coarse-transform", value_name = "TRANSFORM", value_parser = parsed::<Transform>)]
    pub(super) coarse_transforms: Vec<Transform>,

    /// Coarse stage: regularizer, as for --regularizer. Repeatable.
    #[arg(long = "coarse-regularizer", value_name = "REGULARIZER", value_parser = parsed::<Regularizer>)]
    pub(super) coarse_regularizers: Vec<Regularizer>,

    /// Height and width of the stimulus in pixels, such as 224,224. Default: the model's input size.
    #[arg(long, value_name = "H,W", value_delimiter = ',', num_args = 1)]
    pub(super) size: Option<Vec<usize>>,

    /// Initial image. Default: from the preset, or grey; uniform for maco.
    #[arg(long, value_name = "KIND")]
    pub(super) start: Option<StartKind>,

    /// Standard deviation of the noise added to a grey start or a start image, in pixel values of range [0, 1]; for a
    /// grey start with fourier, in coefficients.
    #[arg(long, value_name = "SD")]
    pub(super) noise: Option<f32>,

    /// PNG or JPEG to start from, with --start image.
    #[arg(long, value_name = "FILE")]
    pub(super) start_image: Option<PathBuf>,

    /// With --start image: maximum root-mean-square distance from it, in pixel values of range [0, 1].
    #[arg(long, value_name = "RADIUS")]
    pub(super) max_rms_distance: Option<f32>,

    /// Layer whose activations are diversified between the stimuli of a unit, with --diversity-copies.
    #[arg(long, value_name = "LAYER", requires = "diversity_copies")]
    pub(super) diversity_layer: Option<String>,

    /// Number of stimuli per unit, with --diversity-layer.
    #[arg(long, value_name = "N", requires = "diversity_layer")]
    pub(super) diversity_copies: Option<usize>,

    /// Weight of the diversity term, in units of the objective.
    #[arg(long, value_name = "WEIGHT", requires = "diversity_layer", default_value_t = 1.0)]
    pub(super) diversity_weight: f32,

    /// With transforms: number of steps between scores of the untransformed image.
    #[arg(long, value_name = "N")]
    pub(super) score_every: Option<u32>,

    /// Measure diagnostics of each stimulus: stationarity, gain of more steps, robustness to transforms, share of high
    /// frequencies, ratio to the natural maximum.
    #[arg(long)]
    pub(super) diagnostics: bool,

    /// Models that judge each stimulus, in addition to the diagnostics: the rank and probability of its class, and its
    /// affinity to natural images of its unit. Comma-separated ids.
    #[arg(long, value_name = "IDS", value_delimiter = ',')]
    pub(super) judges: Vec<String>,

    #[arg(long = "certificates", hide = true, num_args = 0..=1, default_missing_value = "", value_parser = now_diagnostics)]
    _certificates: Option<Infallible>,

    #[arg(long = "leash", hide = true, value_parser = now_max_rms_distance)]
    _leash: Option<Infallible>,

    /// Add an alpha channel: pixels with small gradients become transparent.
    #[arg(long)]
    pub(super) alpha: bool,

    /// Number of frames of the animation.
    #[arg(long, value_name = "N", requires = "animation")]
    pub(super) frames: Option<u32>,

    /// Seed of the random number generators.
    #[arg(long, value_name = "SEED", default_value_t = 0)]
    pub(super) seed: u64,
}

fn now_diagnostics(_: &str) -> Result<Infallible, &'static str> {
    Err("--certificates is now called --diagnostics")
}

fn now_max_rms_distance(_: &str) -> Result<Infallible, &'static str> {
    Err("--leash is now called --max-rms-distance")
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(super) enum StartKind {
    Grey,
    Uniform,
    Image,
}

/// Parses a gate: its kind, or a JSON object.
fn gate(text: &str) -> Result<GateRequest, String> {
    let text = without_bom(text);
    if text.trim_start().starts_with('{') {
        serde_json::from_str(text).map_err(|error| error.to_string())
    } else {
        parsed(text)
    }
}

/// Parses a value. The error does not contain the value, which clap reports itself.
fn parsed<T: FromStr<Err = Invalid>>(text: &str) -> Result<T, String> {
    text.parse().map_err(|invalid: Invalid| format!("expected {}", invalid.expected))
}

/// Parses a unit, or an objective as JSON.
fn objective(text: &str) -> Result<Objective, String> {
    let of_image = |layer: &str, selection: fn(ImageSource) -> Selection| {
        let unit = Unit { layer: layer.to_owned(), selection: selection(ImageSource::Part(IMAGE.into())) };
        Ok(Objective { terms: vec![Term { unit, weight: 1.0 }] })
    };
    let text = without_bom(text);
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

/// Name of an image given without a name.
const IMAGE: &str = "image";

/// Parses `NAME=FILE` or `FILE`.
fn named_file(text: &str) -> Result<(String, PathBuf), String> {
    match text.split_once('=') {
        Some((name, file)) if !name.is_empty() && !name.contains(['/', '\\']) => Ok((name.to_owned(), file.into())),
        _ => Ok((IMAGE.to_owned(), text.into())),
    }
}
