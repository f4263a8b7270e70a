//! Files of `proxygrad maximize`: images and spectrum to read, PNGs and animations to write.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use proxygrad::Invalid;
use proxygrad::maximize::Outcome;
use proxygrad::network::{Model, Spectrum, catalog};

use super::arguments::Maximize;

/// Name of the part that a start from an image is.
pub(super) const START: &str = "start-image";

impl Maximize {
    /// Writes what one stimulus is, under its number where there are several; the file of its PNG.
    pub(super) fn write(&self, outcome: &Outcome, number: Option<usize>) -> anyhow::Result<PathBuf> {
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

    /// The image files by the names under which the request knows them.
    pub(super) fn files(&self) -> anyhow::Result<BTreeMap<String, Arc<[u8]>>> {
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

/// `x.png` and 2 make `x-2.png`.
fn numbered(path: &Path, i: usize) -> PathBuf {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let ending = path.extension().map(|ending| format!(".{}", ending.to_string_lossy())).unwrap_or_default();
    path.with_file_name(format!("{stem}-{i}{ending}"))
}
