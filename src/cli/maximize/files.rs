//! Input and output files of `proxygrad maximize`: images, spectrum, PNGs and animations.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use proxygrad::Invalid;
use proxygrad::maximize::Outcome;
use proxygrad::network::{Model, Spectrum, catalog};

use super::arguments::Maximize;

/// Part name of the start image.
pub(super) const START: &str = "start-image";

impl Maximize {
    /// Writes the PNG and the animation of a stimulus, with its preset and a number in their names if there are several.
    /// Returns the path of the PNG.
    pub(super) fn write(
        &self,
        outcome: &Outcome,
        preset: Option<&str>,
        number: Option<usize>,
    ) -> anyhow::Result<PathBuf> {
        let numbered = |path: &Path| {
            let path = preset.map_or_else(|| path.to_owned(), |preset| with_suffix(path, preset));
            number.map_or_else(|| path.clone(), |number| with_suffix(&path, number))
        };
        let write = |path: PathBuf, bytes: &[u8]| {
            std::fs::write(&path, bytes).with_context(|| format!("cannot write {}", path.display()))?;
            anyhow::Ok(path)
        };
        if let (Some(file), Some(animation)) = (&self.animation, &outcome.animation) {
            write(numbered(file), animation)?;
        }
        write(numbered(&self.output), &outcome.png)
    }

    /// Loads the model, and replaces its spectrum if --spectrum is a file.
    pub(super) fn model(&self, models: &catalog::Models) -> anyhow::Result<Arc<Model>> {
        let model = crate::cli::models::load(models, &self.model)?;
        let named = |file: &&str| !matches!(*file, "natural" | "measured");
        let Some(file) = self.method.spectrum.as_deref().filter(named) else { return Ok(model) };
        let bytes = std::fs::read(file).with_context(|| format!("cannot read {file}"))?;
        let spectrum = Spectrum::parse(&bytes).map_err(|why| anyhow::anyhow!("{file}: {why}"))?;
        let mut model = Model::clone(&model);
        model.statistics.spectrum = Some(Arc::new(spectrum));
        Ok(Arc::new(model))
    }

    /// Reads the image files, by the part names that the request refers to.
    pub(super) fn files(&self) -> anyhow::Result<BTreeMap<String, Arc<[u8]>>> {
        let start = self.method.start_image.iter().map(|path| (START, path));
        let images = self.images.iter().map(|(name, path)| (name.as_str(), path));
        let mut files = BTreeMap::new();
        for (name, path) in start.chain(images) {
            let file = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
            if files.insert(name.to_owned(), file.into()).is_some() {
                return Err(Invalid::new("--image", path.display(), format!("one file with the name {name}")).into());
            }
        }
        Ok(files)
    }
}

/// `x.png` and 2 make `x-2.png`.
fn with_suffix(path: &Path, suffix: impl std::fmt::Display) -> PathBuf {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let ending = path.extension().map(|ending| format!(".{}", ending.to_string_lossy())).unwrap_or_default();
    path.with_file_name(format!("{stem}-{suffix}{ending}"))
}
