//! `proxygrad models calibrate`: what natural images do to the units of a model.

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

/// A model and a folder of natural images.
#[derive(Debug, Args)]
pub struct CalibrateArgs {
    /// Id of the model
    id: String,
    /// Folder with PNG and JPEG files, also in folders below it; each is scaled until it just covers the model's input,
    /// and its middle is shown to the network
    #[arg(long, value_name = "DIR")]
    images: PathBuf,
    /// Layers whose units are measured, separated by commas [default: all]
    #[arg(long, value_name = "LAYERS", value_delimiter = ',')]
    layers: Vec<String>,
    /// How many images are kept for each unit: 1 to 100
    #[arg(long, value_name = "N", default_value_t = Options::default().top)]
    top: usize,
    /// Device that runs the network: cpu, cuda:0, metal
    #[arg(long, env = "PROXYGRAD_DEVICE", value_name = "DEVICE", default_value = "cpu")]
    device: String,
    #[command(flatten)]
    cpu: CpuOptions,
}

/// Measures, and puts the result in the place of what was measured before.
pub fn run(out: &mut impl Write, storage: &StorageOptions, models: &Models, args: CalibrateArgs) -> anyhow::Result<()> {
    let root = args.images;
    let files = images_in(&root).with_context(|| format!("cannot read {}", root.display()))?;
    if files.is_empty() {
        let expected = "a folder with PNG or JPEG files, in it or below it";
        return Err(Invalid::new("--images", root.display(), expected).into());
    }
    let engine = engine::open(&args.device, &args.cpu.settings(&storage.data_dir))?;
    let model = super::load(models, &args.id)?;
    let bar = ProgressBar::new(files.len() as u64).with_style(
        ProgressStyle::with_template("{wide_bar} {pos}/{len} images, {eta} left")
            .unwrap_or_else(|_| ProgressStyle::default_bar()),
    );
    let options = Options { layers: args.layers, top: args.top };
    let watch = &mut |done: usize| bar.set_position(done as u64);
    let Calibrated { calibration, skipped } =
        calibrate(engine.as_ref(), &model, &root, &files, &options, watch).map_err(as_flag)?;
    bar.finish_and_clear();
    for skipped in &skipped {
        eprintln!("skipped {}: {}", skipped.file.display(), skipped.why);
    }
    models.put_calibration::<CalibrateError>(&args.id, |folder| write(&calibration, &model, &root, folder))?;
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

/// The option's name as a flag.
fn as_flag(error: CalibrateError) -> CalibrateError {
    match error {
        CalibrateError::Invalid(invalid) => Invalid { field: format!("--{}", invalid.field), ..invalid }.into(),
        error => error,
    }
}
