//! `proxygrad models calibrate`: measures the activations of units on natural images.

use std::io::Write;
use std::path::PathBuf;

use anyhow::Context;
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use proxygrad::Invalid;
use proxygrad::calibrate::{CalibrateError, Calibrated, Options, calibrate, images_in, write};
use proxygrad::engine;
use proxygrad::network::catalog::Models;
use proxygrad_server::config::{CpuOptions, StorageOptions};

/// Arguments of `proxygrad models calibrate`.
#[derive(Debug, Args)]
pub struct CalibrateArgs {
    /// Id of the model
    id: String,
    /// Folder with PNG and JPEG files, searched recursively; images are scaled and center-cropped to the model's input
    #[arg(long, value_name = "DIR")]
    images: PathBuf,
    /// Layers to measure, comma-separated [default: all]
    #[arg(long, value_name = "LAYERS", value_delimiter = ',')]
    layers: Vec<String>,
    /// Number of top images to keep per unit: 1 to 100
    #[arg(long, value_name = "N", default_value_t = Options::default().top)]
    top: usize,
    /// Device that runs the network: cpu, cuda:0, metal
    #[arg(long, env = "PROXYGRAD_DEVICE", value_name = "DEVICE", default_value = "cpu")]
    device: String,
    #[command(flatten)]
    cpu: CpuOptions,
}

/// Calibrates the model; replaces an earlier calibration.
pub fn run(out: &mut impl Write, storage: &StorageOptions, models: &Models, args: CalibrateArgs) -> anyhow::Result<()> {
    let root = args.images;
    let files = images_in(&root).with_context(|| format!("cannot read {}", root.display()))?;
    if files.is_empty() {
        let expected = "a folder with PNG or JPEG files";
        return Err(Invalid::new("--images", root.display(), expected).into());
    }
    let engine = engine::open(&args.device, &args.cpu.settings(&storage.data_dir))?;
    let model = super::load(models, &args.id)?;
    let bar = ProgressBar::new(files.len() as u64).with_style(
        ProgressStyle::with_template("{wide_bar} {pos}/{len} images, {eta} left")
            .unwrap_or_else(|_| ProgressStyle::default_bar()),
    );
    let options = Options { layers: args.layers, top: args.top };
    let on_progress = &mut |done: usize| bar.set_position(done as u64);
    let Calibrated { calibration, skipped } =
        calibrate(engine.as_ref(), &model, &root, &files, &options, on_progress).map_err(as_flag)?;
    bar.finish_and_clear();
    for skipped in &skipped {
        eprintln!("skipped {}: {}", skipped.file.display(), skipped.why);
    }
    models.install_calibration::<CalibrateError>(&args.id, |folder| write(&calibration, &model, &root, folder))?;
    let units: usize = calibration.layers.values().map(|layer| layer.units.len()).sum();
    writeln!(
        out,
        "calibrated {}: {} images ({} skipped, {} kept), {} layers, {units} units",
        args.id,
        calibration.images,
        skipped.len(),
        calibration.kept.len(),
        calibration.layers.len(),
    )?;
    Ok(())
}

/// Replaces the option name in an error by its flag.
fn as_flag(error: CalibrateError) -> CalibrateError {
    match error {
        CalibrateError::Invalid(invalid) => Invalid { field: format!("--{}", invalid.field), ..invalid }.into(),
        error => error,
    }
}
