//! `proxygrad train`: trains a classifier with surrogate gradients.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use proxygrad::engine;
use proxygrad::network::catalog::{AddOptions, Models};
use proxygrad::network::trainable::Initialization;
use proxygrad::train::data;
use proxygrad::train::{
    CLASSES_FILE, Epoch, MODEL_FILE, OptimizerKind, Step, TrainError, Training, TrainingLimits, TrainingRequest,
};
use proxygrad_server::config::{CpuOptions, StorageOptions};

use super::image_reading::ImageReading;
use super::start_model;

/// Arguments of `proxygrad train`.
#[derive(Debug, Args)]
pub struct Train {
    #[command(flatten)]
    storage: StorageOptions,

    /// Images and labels: a folder with IDX files (MNIST, Fashion-MNIST), with CIFAR's binary files, or with one
    /// subfolder of PNG and JPEG images per class (optionally below train and test), or a numpy archive (.npz) with
    /// x_train, y_train, x_test and y_test.
    #[arg(long, value_name = "PATH")]
    data: PathBuf,

    /// Output folder: checkpoints, a table of epochs, and the network as ONNX: that of the epoch with the best test accuracy
    /// (model.onnx) and the last one (last.onnx). An unfinished run in this folder is resumed.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,

    /// Add the network of the best epoch to the data directory under this id.
    #[arg(long, value_name = "ID")]
    add: Option<String>,

    /// Device that trains: cpu, cuda:0, metal.
    #[arg(long, env = "PROXYGRAD_DEVICE", value_name = "DEVICE", default_value = "cpu")]
    device: String,

    #[command(flatten)]
    cpu: CpuOptions,

    #[command(flatten)]
    images: Images,

    #[command(flatten)]
    network: NetworkArgs,

    #[command(flatten)]
    optimization: Optimization,
}

/// How the images are read.
#[derive(Debug, Args)]
#[command(next_help_heading = "Images")]
struct Images {
    #[command(flatten)]
    reading: ImageReading,

    /// Train on this number of images, drawn by the seed.
    #[arg(long, value_name = "N")]
    limit: Option<usize>,

    /// Pixels by which images are padded before a random crop of their size.
    #[arg(long, value_name = "N", default_value_t = 0)]
    crop: usize,

    /// Mirror half of the images.
    #[arg(long)]
    flip: bool,
}

/// What is trained.
#[derive(Debug, Args)]
#[command(next_help_heading = "Network")]
struct NetworkArgs {
    /// Start from the weights of this model: an id, or an ONNX file. Its last layer is replaced by one for the classes of
    /// the data, unless it has the same classes; images are normalized as for this model.
    #[arg(long, value_name = "MODEL", conflicts_with_all = ["architecture", "width", "stem_stride", "leaky"])]
    model: Option<String>,

    /// Layers of --model that keep their weights: names, in which * stands for any text (layer1*). Comma-separated.
    #[arg(long, value_name = "PATTERNS", value_delimiter = ',', requires = "model")]
    freeze: Vec<String>,

    /// resnet8, resnet14, resnet20, resnet18 or resnet34 (with batch normalization unless followed by -nobn), vgg8,
    /// vgg13 or vgg16 (optionally followed by -bn), or plain2 to plain100.
    #[arg(long, value_name = "NAME", default_value = "resnet8")]
    architecture: Option<String>,

    /// Channels of the first layer; other layers have multiples of it.
    #[arg(long, value_name = "N")]
    width: Option<usize>,

    /// Stride of the first convolution.
    #[arg(long, value_name = "N")]
    stem_stride: Option<usize>,

    /// Use leaky ReLUs with this slope, in both passes.
    #[arg(long, value_name = "SLOPE", default_value_t = 0.0)]
    leaky: f32,

    /// How weights are drawn, or those of the new last layer of --model.
    #[arg(long, value_enum, default_value_t = Initialization::He)]
    initialization: Initialization,
}

/// How it is trained.
#[derive(Debug, Args)]
#[command(next_help_heading = "Optimization")]
struct Optimization {
    /// Derivative of ReLUs in the backward pass: plain, decoupled:SLOPE or true-proxy:SLOPE (ProxyGrad; followed by
    /// @SHARE, the slope fades over that share of the run), bsilu, silu, elu or selu.
    #[arg(long, value_name = "RULE", default_value = "decoupled:0.1@0.4")]
    surrogate: String,

    /// The optimizer.
    #[arg(long, value_enum, default_value_t = OptimizerKind::Sgd)]
    optimizer: OptimizerKind,

    /// Learning rate at its highest. Default: 0.1 for sgd, 0.001 for adamw; a tenth of that with --model.
    #[arg(long, value_name = "RATE")]
    learning_rate: Option<f64>,

    /// constant, cosine, or steps:SHARES:FACTOR, for example steps:0.5,0.75:0.1.
    #[arg(long, value_name = "SCHEDULE", default_value = "cosine")]
    schedule: String,

    /// Share of the run in which the learning rate rises linearly.
    #[arg(long, value_name = "SHARE", default_value_t = 0.0)]
    warm_up: f64,

    /// Momentum, or the decay of AdamW's first moment.
    #[arg(long, value_name = "FACTOR", default_value_t = 0.9)]
    momentum: f32,

    /// Weight decay of convolutions and dense layers.
    #[arg(long, value_name = "FACTOR", default_value_t = 5e-4)]
    weight_decay: f32,

    /// Largest norm of the whole gradient; 0 for no limit.
    #[arg(long, value_name = "NORM", default_value_t = 1.0)]
    clip: f32,

    /// Label smoothing.
    #[arg(long, value_name = "SHARE", default_value_t = 0.0)]
    label_smoothing: f64,

    /// Passes over the training images.
    #[arg(long, value_name = "N", default_value_t = 10)]
    epochs: usize,

    /// Images of a step.
    #[arg(long, value_name = "N", default_value_t = 64)]
    batch: usize,

    /// End the run after this number of epochs without a better test accuracy.
    #[arg(long, value_name = "N")]
    patience: Option<usize>,

    /// Seed of weights, subset, order and augmentation.
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
}

impl Train {
    /// Runs the command.
    pub fn run(self) -> anyhow::Result<()> {
        let request = self.request();
        let model = self.network.model.as_deref().map(|model| start_model::load(&self.storage, model)).transpose()?;
        let recipe = request.recipe(model.as_deref()).map_err(|invalid| as_flag(invalid.into()))?;
        let options = request.data_options(model.as_deref()).map_err(|invalid| as_flag(invalid.into()))?;
        let splits = data::load(&self.data, &options)?;
        let engine = engine::open_training(&self.device, &self.cpu.settings(&self.storage.data_dir))?;
        let training = Training::within(recipe, splits, model.as_deref(), &*engine, &TrainingLimits::NONE);
        let mut training = training.map_err(as_flag)?.in_folder(&self.out)?;
        let done = training.epochs().len();
        eprintln!(
            "{} with {} parameters, {} classes, surrogate {}{}",
            training.recipe().network(),
            training.network().parameter_count(),
            training.classes().len(),
            training.recipe().surrogate,
            if done > 0 { format!(", resumed after epoch {done}") } else { String::new() },
        );
        training.epochs().iter().for_each(print);
        let mut display = Display::new();
        loop {
            let epoch = training.epoch(&mut |step| {
                display.show(step);
                false
            });
            display.bar.finish_and_clear();
            match epoch? {
                Some(epoch) => print(epoch),
                None => break,
            }
            display = Display::new();
        }
        self.store(&training)
    }

    fn request(&self) -> TrainingRequest {
        let (images, network, optimization) = (&self.images, &self.network, &self.optimization);
        TrainingRequest {
            size: images.reading.size,
            grey: images.reading.grey.then_some(true),
            test_share: images.reading.test_share,
            limit: images.limit,
            crop: images.crop,
            flip: images.flip,
            model: network.model.clone(),
            freeze: network.freeze.clone(),
            // Its default is not a choice.
            architecture: network.architecture.clone().filter(|_| network.model.is_none()),
            width: network.width,
            stem_stride: network.stem_stride,
            leaky: network.leaky,
            initialization: network.initialization,
            surrogate: optimization.surrogate.clone(),
            optimizer: optimization.optimizer,
            learning_rate: optimization.learning_rate,
            schedule: optimization.schedule.clone(),
            warm_up: optimization.warm_up,
            momentum: optimization.momentum,
            weight_decay: optimization.weight_decay,
            clip: optimization.clip,
            label_smoothing: optimization.label_smoothing,
            epochs: optimization.epochs,
            batch: optimization.batch,
            patience: optimization.patience,
            seed: optimization.seed,
            ..TrainingRequest::default()
        }
    }

    /// Writes the network with its class names, and adds it to the data directory.
    fn store(&self, training: &Training) -> anyhow::Result<()> {
        let options = training.export(&self.out)?;
        let file = self.out.join(MODEL_FILE);
        let best = training.best().map_or(0, |best| best.epoch);
        println!("{}, the network after epoch {best} of {}", file.display(), training.epochs().len());
        match &self.add {
            Some(id) => {
                let output = training.output().to_owned();
                Models::new(self.storage.models())?.add(&file, AddOptions { id: Some(id.clone()), ..options })?;
                println!("added as {id}; for example: proxygrad maximize --model {id} --unit {output}:0");
            }
            None => println!("{}", add_command(&file, &self.out.join(CLASSES_FILE), &options)),
        }
        Ok(())
    }
}

/// The command that adds the network to the data directory.
fn add_command(file: &Path, classes: &Path, options: &AddOptions) -> String {
    let numbers = |values: &Option<Vec<f32>>| {
        let values = values.iter().flatten().map(f32::to_string);
        values.collect::<Vec<_>>().join(",")
    };
    let range =
        options.range.filter(|&range| range != 1.0).map_or_else(String::new, |range| format!(" --range {range}"));
    format!(
        "proxygrad models add {} --id ID{range} --mean {} --std {} --classes {}",
        file.display(),
        numbers(&options.mean),
        numbers(&options.std),
        classes.display()
    )
}

/// Names a setting by its flag.
fn as_flag(error: TrainError) -> anyhow::Error {
    match error {
        TrainError::Invalid(mut invalid) => {
            let name = invalid.field.trim_start_matches("surrogate.").replace('_', "-");
            invalid.field = format!("--{}", if name == "slope" || name == "fade" { "surrogate" } else { &name });
            invalid.into()
        }
        error => error.into(),
    }
}

fn print(epoch: &Epoch) {
    println!(
        "epoch {:3}  loss {:.4}  accuracy {:.2} %  test loss {:.4}  test accuracy {:.2} %  dead units {:.1} %",
        epoch.epoch,
        epoch.train_loss,
        100.0 * epoch.train_accuracy,
        epoch.test_loss,
        100.0 * epoch.test_accuracy,
        100.0 * epoch.dead,
    );
}

/// A progress bar of one epoch, if standard error is a terminal.
struct Display {
    bar: ProgressBar,
}

impl Display {
    fn new() -> Self {
        let bar = if std::io::stderr().is_terminal() { ProgressBar::new(0) } else { ProgressBar::hidden() };
        let template = "epoch {prefix} {bar:30} {pos}/{len}  {msg}  {eta} left";
        bar.set_style(ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()));
        bar.enable_steady_tick(Duration::from_millis(500));
        Self { bar }
    }

    fn show(&mut self, step: Step) {
        self.bar.set_length(step.steps as u64);
        self.bar.set_prefix(step.epoch.to_string());
        self.bar.set_message(format!("loss {:.4}  accuracy {:.2} %", step.loss, 100.0 * step.accuracy));
        self.bar.set_position(step.step as u64);
    }
}
