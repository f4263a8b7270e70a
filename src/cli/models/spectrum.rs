//! `proxygrad models spectrum`: measures the magnitude spectrum of images.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Args;
use proxygrad::network::Spectrum;

/// Arguments of `proxygrad models spectrum`.
#[derive(Debug, Args)]
pub struct SpectrumArgs {
    /// Folder with PNG files of natural images
    #[arg(long, value_name = "DIR")]
    images: PathBuf,
    /// Safetensors file to write
    #[arg(long, short, value_name = "FILE")]
    output: PathBuf,
    /// Side of the center crops in pixels; must be even
    #[arg(long, value_name = "PIXELS", default_value_t = 256)]
    side: usize,
    /// Measure luminance, for models with greyscale input
    #[arg(long)]
    grey: bool,
}

/// Measures the images of a folder, writes the spectrum, and prints the lines for a `model.toml`.
pub fn run(out: &mut impl Write, args: &SpectrumArgs) -> anyhow::Result<()> {
    let files = images(&args.images)?;
    let channels = if args.grey { 1 } else { 3 };
    let spectrum = Spectrum::of_images(&files, channels, args.side)?;
    spectrum.save(&args.output).map_err(|why| anyhow::anyhow!("cannot write {}: {why}", args.output.display()))?;
    let name = args.output.file_name().unwrap_or_default().to_string_lossy();
    writeln!(out, "# measured on {} images; SHA-256 of the values {}", files.len(), spectrum.digest())?;
    writeln!(out, "spectrum = {name:?}\n\n[colour]\nmatrix = {:?}", spectrum.colour().rows())?;
    Ok(())
}

fn images(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let cannot = || format!("cannot read {}", folder.display());
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).with_context(cannot)? {
        let path = entry.with_context(cannot)?.path();
        if image::ImageFormat::from_path(&path).is_ok_and(|format| format.reading_enabled()) {
            files.push(path);
        }
    }
    // Sums depend on the order, which must not depend on the file system.
    files.sort();
    Ok(files)
}
