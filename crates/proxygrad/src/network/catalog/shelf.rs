//! The folder in the data directory where models are kept: one folder per id.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use super::id::check_id;
use crate::network::calibration::Calibration;

/// `DATA/models`. Models appear and vanish there in one step, so readers need no lock; writers of the same id exclude
/// each other, in this process and in others.
#[derive(Debug)]
pub(super) struct Shelf {
    root: PathBuf,
}

/// The right to change one model, until dropped.
pub(super) struct Claim<'a> {
    shelf: &'a Shelf,
    id: &'a str,
    _lock: File,
}

impl Shelf {
    pub(super) fn new(data_dir: &Path) -> Self {
        Self { root: data_dir.join("models") }
    }

    /// The folder that holds the models.
    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// The folder of a model, whether it exists or not; none when `id` is no id.
    pub(super) fn folder(&self, id: &str) -> Option<PathBuf> {
        check_id(id).is_ok().then(|| self.root.join(id))
    }

    /// The folder of a model's calibration, whether it exists or not; none when `id` is no id. A model that lies elsewhere
    /// has its calibration here as well.
    pub(super) fn calibration(&self, id: &str) -> Option<PathBuf> {
        self.folder(id).map(|folder| folder.join(Calibration::FOLDER))
    }

    /// Waits until nobody else changes the model `id`.
    pub(super) fn claim<'a>(&'a self, id: &'a str) -> io::Result<Claim<'a>> {
        check_id(id).map_err(|invalid| io::Error::new(io::ErrorKind::InvalidInput, invalid))?;
        // Ids begin with a letter or digit: folders with a dot in front are nobody's model. Locks stay behind, because
        // removing one would let two processes hold "the" lock.
        let locks = self.root.join(".locks");
        fs::create_dir_all(&locks)?;
        let lock = File::options().create(true).truncate(false).write(true).open(locks.join(id))?;
        lock.lock()?;
        Ok(Claim { shelf: self, id, _lock: lock })
    }
}

impl Claim<'_> {
    /// A new, empty folder to prepare the model in; what an interrupted attempt left there is removed.
    pub(super) fn workbench(&self) -> io::Result<PathBuf> {
        self.bench(self.id)
    }

    /// The same for the model's calibration.
    pub(super) fn calibration_bench(&self) -> io::Result<PathBuf> {
        // Ids have no space: this is no model's.
        self.bench(&format!("{} calibration", self.id))
    }

    fn bench(&self, name: &str) -> io::Result<PathBuf> {
        let folder = self.shelf.root.join(".workbench").join(name);
        remove(&folder)?;
        fs::create_dir_all(&folder)?;
        Ok(folder)
    }

    /// Puts a prepared folder in the model's place, instead of what may be there.
    pub(super) fn put(&self, prepared: &Path) -> io::Result<()> {
        self.take_away()?;
        fs::rename(prepared, self.shelf.root.join(self.id))
    }

    /// Puts a prepared calibration in the place of the model's, instead of what may be there.
    pub(super) fn put_calibration(&self, prepared: &Path) -> io::Result<()> {
        let model = self.shelf.root.join(self.id);
        fs::create_dir_all(&model)?;
        let folder = model.join(Calibration::FOLDER);
        self.take_folder_away(&folder)?;
        fs::rename(prepared, folder)
    }

    /// Removes the model.
    pub(super) fn take_away(&self) -> io::Result<()> {
        self.take_folder_away(&self.shelf.root.join(self.id))
    }

    fn take_folder_away(&self, folder: &Path) -> io::Result<()> {
        let away = self.shelf.root.join(".workbench").join(format!("{}.old", self.id));
        remove(&away)?;
        fs::create_dir_all(self.shelf.root.join(".workbench"))?;
        match fs::rename(folder, &away) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(e) => Err(e),
            Ok(()) => remove(&away),
        }
    }
}

fn remove(folder: &Path) -> io::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
