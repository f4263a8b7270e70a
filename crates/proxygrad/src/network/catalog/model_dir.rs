//! The model directory: one folder per model in the data directory, with locks and staging folders.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use super::id::check_id;
use crate::network::calibration::Calibration;

/// Folder of the files that writers lock, one per id.
const LOCKS: &str = ".locks";
/// Folder of models that are not complete yet, or no longer needed.
const STAGING: &str = ".workbench";

/// `DATA/models`. Models are added and removed by renaming a folder, so readers need no lock; writers of the same id
/// exclude each other, also across processes.
#[derive(Debug)]
pub(super) struct ModelDir {
    root: PathBuf,
}

/// Exclusive write access to one model, until dropped.
pub(super) struct ModelLock<'a> {
    dir: &'a ModelDir,
    id: &'a str,
    _lock: File,
}

impl ModelDir {
    pub(super) fn new(data_dir: &Path) -> Self {
        Self { root: data_dir.join("models") }
    }

    /// The folder that holds the models.
    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// The folder of a model, whether it exists or not; `None` if `id` is not a valid id.
    pub(super) fn folder(&self, id: &str) -> Option<PathBuf> {
        check_id(id).is_ok().then(|| self.root.join(id))
    }

    /// The folder of a model's calibration, whether it exists or not; `None` if `id` is not a valid id. Calibrations of
    /// models in other folders are kept here too.
    pub(super) fn calibration(&self, id: &str) -> Option<PathBuf> {
        self.folder(id).map(|folder| folder.join(Calibration::FOLDER))
    }

    /// Waits for exclusive write access to the model `id`.
    pub(super) fn lock<'a>(&'a self, id: &'a str) -> io::Result<ModelLock<'a>> {
        check_id(id).map_err(|invalid| io::Error::new(io::ErrorKind::InvalidInput, invalid))?;
        // Ids begin with a letter or digit, so no model has this folder. Lock files are never removed: otherwise two
        // processes could hold a lock on two files of the same name.
        let locks = self.root.join(LOCKS);
        fs::create_dir_all(&locks)?;
        let lock = File::options().create(true).truncate(false).write(true).open(locks.join(id))?;
        lock.lock()?;
        Ok(ModelLock { dir: self, id, _lock: lock })
    }
}

impl ModelLock<'_> {
    /// Creates an empty staging folder for the model; removes what an interrupted attempt left there.
    pub(super) fn stage(&self) -> io::Result<PathBuf> {
        self.stage_as(self.id)
    }

    /// Creates an empty staging folder for the model's calibration.
    pub(super) fn stage_calibration(&self) -> io::Result<PathBuf> {
        // Ids contain no space, so no model has this folder.
        self.stage_as(&format!("{} calibration", self.id))
    }

    /// The folder of the model's unfinished downloads, with what an interrupted attempt left there.
    #[cfg(feature = "pull")]
    pub(super) fn downloads(&self) -> io::Result<PathBuf> {
        let folder = self.downloads_folder();
        fs::create_dir_all(&folder)?;
        Ok(folder)
    }

    /// Removes the folder of the model's unfinished downloads.
    #[cfg(feature = "pull")]
    pub(super) fn remove_downloads(&self) -> io::Result<()> {
        remove_folder(&self.downloads_folder())
    }

    #[cfg(feature = "pull")]
    fn downloads_folder(&self) -> PathBuf {
        // Ids contain no space, so no model has this folder.
        self.dir.root.join(STAGING).join(format!("{} downloads", self.id))
    }

    fn stage_as(&self, name: &str) -> io::Result<PathBuf> {
        let folder = self.dir.root.join(STAGING).join(name);
        remove_folder(&folder)?;
        fs::create_dir_all(&folder)?;
        Ok(folder)
    }

    /// Moves a staged folder to the model's place, replacing the model if it exists.
    pub(super) fn install(&self, staged: &Path) -> io::Result<()> {
        self.remove()?;
        fs::rename(staged, self.dir.root.join(self.id))
    }

    /// Moves a staged folder to the place of the model's calibration, replacing it if it exists.
    pub(super) fn install_calibration(&self, staged: &Path) -> io::Result<()> {
        let model = self.dir.root.join(self.id);
        fs::create_dir_all(&model)?;
        let folder = model.join(Calibration::FOLDER);
        self.move_and_remove(&folder)?;
        fs::rename(staged, folder)
    }

    /// Removes the model.
    pub(super) fn remove(&self) -> io::Result<()> {
        self.move_and_remove(&self.dir.root.join(self.id))
    }

    /// Removes a folder that readers may see, after renaming it.
    fn move_and_remove(&self, folder: &Path) -> io::Result<()> {
        let staging = self.dir.root.join(STAGING);
        let old = staging.join(format!("{}.old", self.id));
        remove_folder(&old)?;
        fs::create_dir_all(staging)?;
        match fs::rename(folder, &old) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(e) => Err(e),
            Ok(()) => remove_folder(&old),
        }
    }
}

fn remove_folder(folder: &Path) -> io::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
