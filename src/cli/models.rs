//! `proxygrad models`: lists, downloads, inspects, adds, calibrates and removes models.

mod calibrate;
mod spectrum;
mod table;

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context;
use calibrate::CalibrateArgs;
use clap::{Args, Subcommand, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use proxygrad::network::catalog::{AddOptions, HubAddress, ModelEntry, ModelState, Models, Progress, Pulled};
use proxygrad::network::{ChannelOrder, Layer, Model, Preprocessing, Unavailable};
use proxygrad_server::config::StorageOptions;
use serde::Serialize;
use spectrum::SpectrumArgs;
use table::Table;

/// Subcommands of `proxygrad models`.
#[derive(Debug, Subcommand)]
pub enum ModelsCommand {
    /// List all models and their state
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Download models of the catalog now instead of on first use
    Pull {
        /// Ids of models
        #[arg(required = true, value_name = "ID")]
        ids: Vec<String>,
    },
    /// Show details of a model
    Show {
        /// Id of the model
        id: String,
        /// Print JSON, including all class names
        #[arg(long)]
        json: bool,
    },
    /// List the layers of a model
    Layers {
        /// Id of the model
        id: String,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Add your own network
    Add(Box<AddArgs>),
    /// Measure the activations of a model's units on natural images
    Calibrate(Box<CalibrateArgs>),
    /// Measure the magnitude spectrum and colour statistics of images, for the parameterizations fourier and maco
    Spectrum(SpectrumArgs),
    /// Remove a model from the data directory
    Remove {
        /// Id of the model
        id: String,
    },
}

/// Arguments of `proxygrad models add`.
#[derive(Debug, Args)]
pub struct AddArgs {
    /// ONNX file; weights of a named architecture (.safetensors, .pth); a folder with a model.toml and its weight file;
    /// or a repository of the Hugging Face Hub: `hf://OWNER/NAME[@REVISION][/FILE]`
    file: PathBuf,
    /// Id of the model [default: the file name]
    #[arg(long)]
    id: Option<String>,
    /// Channel order of the network's input [default: rgb, or grey for one channel]
    #[arg(long, value_enum)]
    channels: Option<Channels>,
    /// Value of a white pixel before normalization, usually 1 or 255 [default: 1]
    #[arg(long)]
    range: Option<f32>,
    /// Mean to subtract: one number, or one per channel [default: 0]
    #[arg(long, value_delimiter = ',', allow_negative_numbers = true)]
    mean: Option<Vec<f32>>,
    /// Standard deviation to divide by: one number, or one per channel [default: 1]
    #[arg(long, value_delimiter = ',')]
    std: Option<Vec<f32>>,
    /// Input size, if the file does not specify it
    #[arg(long, value_name = "HEIGHT,WIDTH", value_parser = size)]
    size: Option<[usize; 2]>,
    /// File with class names: one per line, or JSON (a list or an index)
    #[arg(long, value_name = "FILE")]
    classes: Option<PathBuf>,
    /// One-sentence description of the model
    #[arg(long)]
    description: Option<String>,
    /// Licence of the weights
    #[arg(long)]
    licence: Option<String>,
    /// Value of an input besides the image, such as keep_prob=1; may be repeated
    #[arg(long = "constant", value_name = "NAME=VALUE", value_parser = constant, allow_hyphen_values = true)]
    constants: Vec<(String, f64)>,
    /// Architecture, for weight files that are not ONNX [default: the one whose tensors they are]
    #[arg(long, value_name = "NAME")]
    architecture: Option<String>,
}

/// Order of channels.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Channels {
    /// Greyscale
    Grey,
    /// Red, green, blue
    Rgb,
    /// Blue, green, red
    Bgr,
}

/// Runs a subcommand. Results go to standard output, progress and warnings to standard error.
///
/// # Errors
/// If a model is unknown, cannot be downloaded or is broken, or an option is not valid for it.
pub fn run(command: ModelsCommand, storage: &StorageOptions, models: &Models) -> anyhow::Result<()> {
    let done = dispatch(command, storage, models);
    // The reader of a pipe may stop early, like `head`.
    let broken_pipe = |error: &std::io::Error| error.kind() == std::io::ErrorKind::BrokenPipe;
    match done {
        Err(error) if error.downcast_ref::<std::io::Error>().is_some_and(broken_pipe) => Ok(()),
        done => done,
    }
}

fn dispatch(command: ModelsCommand, storage: &StorageOptions, models: &Models) -> anyhow::Result<()> {
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    match command {
        ModelsCommand::List { json } => list(&mut out, models, json),
        ModelsCommand::Pull { ids } => {
            ids.iter().try_for_each(|id| pull(&mut out, models, id).and_then(|()| Ok(out.flush()?)))
        }
        ModelsCommand::Show { id, json } => show(&mut out, models, &id, json),
        ModelsCommand::Layers { id, json } => layers(&mut out, models, &id, json),
        ModelsCommand::Add(args) => add(&mut out, models, *args),
        ModelsCommand::Calibrate(args) => calibrate::run(&mut out, storage, models, *args),
        ModelsCommand::Spectrum(args) => spectrum::run(&mut out, &args),
        ModelsCommand::Remove { id } => {
            models.remove(&id)?;
            writeln!(out, "removed {id}")?;
            Ok(())
        }
    }?;
    Ok(out.flush()?)
}

fn list(out: &mut impl Write, models: &Models, json: bool) -> anyhow::Result<()> {
    models.check();
    let entries = models.list();
    if json {
        return print_json(out, &entries);
    }
    let mut table = Table::new(["ID", "STATE", "INPUT", "CLASSES", "LICENCE", "DESCRIPTION"]);
    for entry in &entries {
        let remark = entry.problem.as_ref().unwrap_or(&entry.description);
        let input = entry.input.map(|[c, h, w]| format!("{c}x{h}x{w}")).unwrap_or_default();
        let classes = entry.classes.to_string();
        table.row([&entry.id, state(entry.state), &input, &classes, &entry.licence, remark]);
    }
    table.print(out)?;
    Ok(())
}

/// Loads a model for another command; downloads it with a progress bar if necessary.
pub fn load(models: &Models, id: &str) -> anyhow::Result<Arc<Model>> {
    if models.entry(id).is_some_and(|entry| entry.state == ModelState::Pullable) {
        download(models, id)?;
    }
    Ok(models.load(id)?)
}

fn pull(out: &mut impl Write, models: &Models, id: &str) -> anyhow::Result<()> {
    let remark = match download(models, id)? {
        Pulled::Fetched => "pulled",
        Pulled::AlreadyHere => "already here",
    };
    writeln!(out, "{id}: {remark}")?;
    Ok(())
}

fn download(models: &Models, id: &str) -> anyhow::Result<Pulled> {
    Ok(with_progress(id, |progress| models.pull(id, progress))?)
}

/// Shows the progress of a download on standard error, if that is a terminal.
fn with_progress<T>(what: &str, download: impl FnOnce(&mut Progress<'_>) -> T) -> T {
    let bar = ProgressBar::no_length().with_prefix(what.to_owned()).with_style(
        ProgressStyle::with_template("{prefix} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta}")
            .unwrap_or_else(|_| ProgressStyle::default_bar()),
    );
    let result = download(&mut |done, total| {
        total.into_iter().for_each(|total| bar.set_length(total));
        bar.set_position(done);
    });
    bar.finish_and_clear();
    result
}

/// Output of `show --json`.
#[derive(Serialize)]
struct Shown {
    #[serde(flatten)]
    entry: ModelEntry,
    #[serde(skip_serializing_if = "Option::is_none")]
    class_names: Option<Vec<String>>,
}

fn show(out: &mut impl Write, models: &Models, id: &str, json: bool) -> anyhow::Result<()> {
    let mut entry = find(models, id)?;
    let mut class_names = None;
    // Loading checks the files, but must not start a download.
    if entry.state == ModelState::Ready {
        class_names = models.load(id).ok().map(|model| model.classes.clone());
        entry = find(models, id)?;
    }
    if json {
        return print_json(out, &Shown { entry, class_names });
    }
    let mut table = Table::new(["id", &entry.id]);
    let mut row = |name: &str, value: &str| {
        if !value.is_empty() {
            table.row([name, value]);
        }
    };
    row("state", state(entry.state));
    row("problem", entry.problem.as_deref().unwrap_or_default());
    row("description", &entry.description);
    row("input", &entry.input.map(|[c, h, w]| format!("{c} channels, {h} x {w} pixels")).unwrap_or_default());
    row("preprocessing", &entry.preprocessing.as_ref().map(formula).unwrap_or_default());
    row("classes", &entry.classes.to_string());
    row("architecture", entry.architecture.as_deref().unwrap_or_default());
    row("digest", entry.digest.as_deref().unwrap_or_default());
    row("licence", &entry.licence);
    row("source", &entry.source);
    row("download", &entry.download_bytes.map(|bytes| format!("{bytes} bytes")).unwrap_or_default());
    table.print(out)?;
    Ok(())
}

fn layers(out: &mut impl Write, models: &Models, id: &str, json: bool) -> anyhow::Result<()> {
    #[derive(Serialize)]
    struct Line<'a> {
        name: &'a str,
        op: &'a str,
        shape: &'a [usize],
        units: usize,
        #[serde(skip_serializing_if = "<[String]>::is_empty")]
        tokens: &'a [String],
        #[serde(skip_serializing_if = "<[String]>::is_empty")]
        modules: &'a [String],
    }
    let model = models.load(id)?;
    let lines = model.network.layers().map(|Layer { name, op, shape, tokens, modules }| Line {
        name,
        op,
        shape,
        units: shape.channels(),
        tokens,
        modules,
    });
    if json {
        return print_json(out, &lines.collect::<Vec<_>>());
    }
    let mut table = Table::new(["LAYER", "OP", "SHAPE", "UNITS", "MODULES"]);
    for Line { name, op, shape, units, tokens, modules } in lines {
        let mut shape = match shape {
            [] => "1".to_owned(),
            shape => shape.iter().map(usize::to_string).collect::<Vec<_>>().join("x"),
        };
        // 384x14x14+@class
        shape.extend(tokens.iter().map(|token| format!("+@{token}")));
        table.row([name, op, &shape, &units.to_string(), &modules.join(" ")]);
    }
    table.print(out)?;
    for unavailable in model.network.unavailable() {
        writeln!(out, "unavailable: {unavailable}")?;
    }
    Ok(())
}

fn add(out: &mut impl Write, models: &Models, args: AddArgs) -> anyhow::Result<()> {
    let options = AddOptions {
        id: args.id,
        size: args.size,
        channels: args.channels.map(|order| match order {
            Channels::Grey => ChannelOrder::Grey,
            Channels::Rgb => ChannelOrder::Rgb,
            Channels::Bgr => ChannelOrder::Bgr,
        }),
        range: args.range,
        mean: args.mean,
        std: args.std,
        classes: args.classes,
        description: args.description,
        licence: args.licence,
        architecture: args.architecture,
        constants: args.constants.into_iter().collect(),
    };
    let address = args.file.to_str().filter(|file| file.starts_with(HubAddress::SCHEME));
    let added = match address {
        Some(address) => {
            let parsed: HubAddress = address.parse()?;
            with_progress(address, |progress| models.add_from_hub(&parsed, options, progress))
        }
        None => models.add(&args.file, options),
    };
    let added = added.with_context(|| format!("cannot add {}", args.file.display()))?;
    let entry = &added.entry;
    writeln!(out, "added {}", entry.id)?;
    if let Some(architecture) = &entry.architecture {
        writeln!(out, "architecture: {architecture}")?;
    }
    if let Some(preprocessing) = &entry.preprocessing {
        writeln!(out, "preprocessing: {}", formula(preprocessing))?;
    }
    for line in Unavailable::summary(&added.unavailable) {
        writeln!(out, "unavailable: {line}")?;
    }
    for input in &added.ignored_inputs {
        writeln!(out, "ignored: input {input}, which no node reads")?;
    }
    for assumed in &added.assumed {
        writeln!(
            out,
            "assumed: {} {} ({}); change with --{}",
            assumed.field, assumed.value, assumed.why, assumed.field
        )?;
    }
    Ok(())
}

fn find(models: &Models, id: &str) -> anyhow::Result<ModelEntry> {
    match models.entry(id) {
        Some(entry) => Ok(entry),
        None => Err(models.load(id).err().map_or_else(|| anyhow::anyhow!("unknown model {id:?}"), Into::into)),
    }
}

fn state(state: ModelState) -> &'static str {
    match state {
        ModelState::Ready => "ready",
        ModelState::Pullable => "pullable",
        ModelState::Broken => "broken",
    }
}

/// `rgb, (pixel * 255 / 255 - [127, 127, 127]) / [128, 128, 128]`
fn formula(preprocessing: &Preprocessing) -> String {
    let Preprocessing { channels, range, mean, std } = preprocessing;
    let order = match channels {
        ChannelOrder::Grey => "grey",
        ChannelOrder::Rgb => "rgb",
        ChannelOrder::Bgr => "bgr",
    };
    format!("{order}, (pixel * {range} / 255 - {mean:?}) / {std:?}")
}

fn size(text: &str) -> Result<[usize; 2], String> {
    let sides = text.split_once([',', 'x']).and_then(|(h, w)| Some([h.trim().parse().ok()?, w.trim().parse().ok()?]));
    sides.ok_or_else(|| "expected HEIGHT,WIDTH in pixels, such as 224,224".into())
}

/// `keep_prob=0.5`, `training=false`
fn constant(text: &str) -> Result<(String, f64), String> {
    let value = |text: &str| match text.trim() {
        "true" => Some(1.0),
        "false" => Some(0.0),
        number => number.parse().ok().filter(|value: &f64| value.is_finite()),
    };
    // Names in files of TensorFlow contain colons, and may contain anything else.
    let parts = text.rsplit_once('=').filter(|(name, _)| !name.is_empty());
    let parts = parts.and_then(|(name, text)| Some((name.to_owned(), value(text)?)));
    parts.ok_or_else(|| "expected NAME=VALUE with a number, true or false, such as keep_prob=1".into())
}

fn print_json(out: &mut impl Write, value: &impl Serialize) -> anyhow::Result<()> {
    if std::io::stdout().is_terminal() {
        serde_json::to_writer_pretty(&mut *out, value)?;
    } else {
        serde_json::to_writer(&mut *out, value)?;
    }
    writeln!(out)?;
    Ok(())
}
