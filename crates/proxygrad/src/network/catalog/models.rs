//! The registry: every model by its id.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::add::{self, AddOptions, Assumption};
use super::builtin::CatalogEntry;
use super::calibrations;
use super::embedded;
use super::entry::{ModelEntry, ModelState};
use super::error::ModelError;
use super::load::Files;
use super::package_index::{PackageIndex, Progress};
use super::pull;
use super::shelf::Shelf;
use super::survey::{Found, Place, Stamp, folders};
use crate::Invalid;
use crate::network::calibration::Calibration;
use crate::network::{Model, Unavailable};

/// Where models come from.
#[derive(Debug, Clone)]
pub struct ModelsConfig {
    /// The service's data directory; models live in its folder `models`.
    pub data_dir: PathBuf,
    /// More folders with one folder per model, each with a `model.toml`; never written to.
    pub folders: Vec<PathBuf>,
    /// Where catalog models are pulled from.
    pub index: PackageIndex,
    /// What can be pulled.
    pub catalog: Vec<CatalogEntry>,
}

impl ModelsConfig {
    /// The built-in catalog from the public index, kept in `data_dir`.
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        Self {
            data_dir: data_dir.into(),
            folders: Vec::new(),
            index: PackageIndex::default(),
            catalog: CatalogEntry::builtin(),
        }
    }
}

/// What [`Models::pull`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pulled {
    /// The model was here and intact.
    AlreadyHere,
    /// The model was fetched.
    Fetched,
}

/// What [`Models::add`] did.
#[derive(Debug, Clone)]
pub struct Added {
    /// The new model.
    pub entry: ModelEntry,
    /// Values that neither the caller nor a manifest gave.
    pub assumed: Vec<Assumption>,
    /// The nodes of the file that have no layer.
    pub unavailable: Vec<Unavailable>,
}

/// The registry of models: the embedded one, those in folders, and those of the catalog.
///
/// An id is looked up in this order: the embedded model, the data directory, the other folders in their order, the
/// catalog. Folders are looked at anew each time, so a model that another process adds appears without a restart.
/// All calls block; calls for different models do not wait for each other.
#[derive(Debug)]
pub struct Models {
    shelf: Shelf,
    folders: Vec<PathBuf>,
    index: PackageIndex,
    catalog: Vec<CatalogEntry>,
    slots: Mutex<HashMap<String, Arc<Slot>>>,
}

/// What is known about one model.
#[derive(Debug)]
struct Slot {
    /// Held while the model is pulled or loaded, so that this happens once.
    busy: Mutex<()>,
    /// The state of the calibration's files that the model was loaded with.
    calibration: Mutex<calibrations::Stamp>,
    /// How loading its files ended.
    outcome: Mutex<Option<(Stamp, Outcome)>>,
    /// When somebody asked for the model last.
    used: Mutex<Instant>,
}

impl Default for Slot {
    fn default() -> Self {
        Self {
            busy: Mutex::default(),
            calibration: Mutex::default(),
            outcome: Mutex::default(),
            used: Instant::now().into(),
        }
    }
}

/// A model, or what is wrong with its files.
type Outcome = Result<Arc<Model>, String>;

impl Models {
    /// Opens the models of a data directory: those that were added or pulled there, the embedded one, and the catalog.
    ///
    /// # Errors
    /// As [`Models::new`].
    pub fn open(data_dir: impl Into<PathBuf>) -> Result<Self, ModelError> {
        Self::new(ModelsConfig::new(data_dir))
    }

    /// Opens the registry. Nothing is pulled or loaded yet, and a broken model is no error: it is shown as broken.
    ///
    /// # Errors
    /// When a folder of [`ModelsConfig::folders`] cannot be read.
    pub fn new(config: ModelsConfig) -> Result<Self, ModelError> {
        for folder in &config.folders {
            std::fs::read_dir(folder).map_err(ModelError::folder(folder))?;
        }
        let ModelsConfig { data_dir, folders, index, catalog } = config;
        let models = Self { shelf: Shelf::new(&data_dir), folders, index, catalog, slots: Mutex::default() };
        let mut places: BTreeMap<String, Place> = BTreeMap::new();
        for Found { id, place, .. } in models.found() {
            match (places.get(&id), &place) {
                (Some(first), Place::Folder(folder)) => {
                    tracing::warn!(model = id, folder = %folder.display(), "hidden by the model of the same id {first}");
                }
                (Some(_), _) => {}
                (None, _) => drop(places.insert(id, place)),
            }
        }
        Ok(models)
    }

    /// All models, ordered by id.
    pub fn list(&self) -> Vec<ModelEntry> {
        let mut entries = BTreeMap::new();
        for found in self.found() {
            entries.entry(found.id.clone()).or_insert(found);
        }
        entries.values().map(|found| self.entry_of(found)).collect()
    }

    /// The model with this id.
    pub fn entry(&self, id: &str) -> Option<ModelEntry> {
        self.find(id).map(|found| self.entry_of(&found))
    }

    /// Loads the model with this id, pulling it first if need be. A model that is loaded already, and whose files did
    /// not change since, is shared. Blocks; several calls for one model at once cause one download.
    ///
    /// # Errors
    /// [`ModelError::Unknown`], [`ModelError::Unavailable`] when it cannot be pulled, [`ModelError::Broken`] when its
    /// files cannot be used.
    pub fn load(&self, id: &str) -> Result<Arc<Model>, ModelError> {
        let slot = self.slot(self.find(id).ok_or_else(|| self.unknown(id))?.id);
        let _busy = lock(&slot.busy);
        let mut found = self.find(id).ok_or_else(|| self.unknown(id))?;
        if let Place::Index(entry) = &found.place {
            self.fetch(entry, &mut |_, _| {})?;
            found = self.find(id).ok_or_else(|| self.unknown(id))?;
        }
        let broken = |why: String| ModelError::Broken { id: id.into(), why };
        *lock(&slot.used) = Instant::now();
        let folder = self.shelf.calibration(id);
        let calibrated = calibrations::stamp(folder.as_deref());
        let known = lock(&slot.outcome).clone().filter(|(stamp, _)| stamp.holds(&found));
        let (stamp, outcome) = match known {
            Some((stamp, outcome)) if outcome.is_err() || *lock(&slot.calibration) == calibrated => (stamp, outcome),
            // The weights are shared: only the calibration is new.
            Some((stamp, outcome)) => {
                let with = |model: Arc<Model>| Arc::new(calibrations::with((*model).clone(), folder.as_deref()));
                (stamp, outcome.map(with))
            }
            None => {
                // That a file cannot be read may pass; what is in it stays as it is.
                let files = Files::read(&found).map_err(|why| broken(self.with_remedy(&found, why)))?;
                let stamp = files.stamp.clone();
                let model = files.assemble(&found);
                (stamp, model.map(|model| Arc::new(calibrations::with(model, folder.as_deref()))))
            }
        };
        *lock(&slot.calibration) = calibrated;
        *lock(&slot.outcome) = Some((stamp, outcome.clone()));
        outcome.map_err(|why| broken(self.with_remedy(&found, why)))
    }

    /// Replaces the calibration of a model that exists by what `write` puts into an empty folder. Until that is complete,
    /// the old one stays; models that are loaded from then on carry the new one.
    ///
    /// # Errors
    /// [`ModelError::Unknown`], [`ModelError::Folder`], or that of `write`.
    pub fn put_calibration<E: From<ModelError>>(
        &self,
        id: &str,
        write: impl FnOnce(&Path) -> Result<(), E>,
    ) -> Result<(), E> {
        let folder = |why| ModelError::folder(self.shelf.root())(why);
        self.find(id).ok_or_else(|| self.unknown(id))?;
        let claim = self.shelf.claim(id).map_err(folder)?;
        let bench = claim.calibration_bench().map_err(folder)?;
        write(&bench)?;
        claim.put_calibration(&bench).map_err(folder)?;
        Ok(())
    }

    /// The PNG of one of the images that a model's calibration keeps; nothing when it is not there.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn natural_image(&self, id: &str, image: usize) -> std::io::Result<Option<Vec<u8>>> {
        let Some(folder) = self.shelf.calibration(id) else { return Ok(None) };
        match std::fs::read(folder.join(Calibration::image_file(image))) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            read => read.map(Some),
        }
    }

    /// Fetches a model of the catalog unless it is here and intact; a broken copy in the data directory is replaced.
    /// A model that is not in the catalog, but here, counts as here. `progress` is told bytes done and bytes to do.
    ///
    /// # Errors
    /// [`ModelError::Unknown`] or [`ModelError::Unavailable`].
    pub fn pull(&self, id: &str, progress: &mut Progress<'_>) -> Result<Pulled, ModelError> {
        let slot = self.slot(self.find(id).ok_or_else(|| self.unknown(id))?.id);
        let _busy = lock(&slot.busy);
        let found = self.find(id).ok_or_else(|| self.unknown(id))?;
        if let Place::Index(entry) = &found.place {
            return self.fetch(entry, progress);
        }
        let Err(why) = load_found(&found) else { return Ok(Pulled::AlreadyHere) };
        match self.catalog.iter().find(|entry| entry.id == id) {
            Some(entry) if self.is_on_shelf(&found) => self.fetch(entry, progress),
            _ => Err(ModelError::Broken { id: id.into(), why }),
        }
    }

    /// Copies the network in the file `path` into the data directory: an ONNX file, or a weight file of a named
    /// architecture; with the files next to an ONNX file that it stores tensors in. A `model.toml` next to it, or in the folder `path`, describes it; without one, the manifest is
    /// derived, and [`Added::assumed`] says how.
    ///
    /// # Errors
    /// [`ModelError::Broken`] when the network cannot be imported, [`ModelError::Invalid`] when an option does not fit
    /// it or the id is taken.
    pub fn add(&self, path: &Path, options: AddOptions) -> Result<Added, ModelError> {
        let (id, prepared) = add::prepare(path, options)?;
        let claim = self.shelf.claim(&id).map_err(ModelError::folder(self.shelf.root()))?;
        if self.find(&id).is_some() {
            let expected = "an id that no model has; remove that model first, or give another id";
            return Err(Invalid::new("id", id, expected).into());
        }
        prepared.put(&claim)?;
        drop(claim);
        let entry = self.entry(&id).ok_or_else(|| self.unknown(&id))?;
        Ok(Added { entry, assumed: prepared.assumed, unavailable: prepared.unavailable })
    }

    /// Removes a model from the data directory. One of the catalog can be pulled again.
    ///
    /// # Errors
    /// [`ModelError::Unknown`], or [`ModelError::Invalid`] when the model is not in the data directory.
    pub fn remove(&self, id: &str) -> Result<(), ModelError> {
        let found = self.find(id).ok_or_else(|| self.unknown(id))?;
        if !self.is_on_shelf(&found) {
            let expected = format!("a model in the data directory; this one is {}", found.place);
            return Err(Invalid::new("id", id, expected).into());
        }
        let claim = self.shelf.claim(id).map_err(ModelError::folder(self.shelf.root()))?;
        claim.take_away().map_err(ModelError::folder(self.shelf.root()))?;
        lock(&self.slots).remove(id);
        Ok(())
    }

    /// Loads every model that is here once, and forgets it again unless it was loaded already: afterwards
    /// [`Models::list`] shows which are broken. Takes time and, for a moment, memory.
    pub fn check(&self) {
        for entry in self.list().into_iter().filter(|entry| entry.state == ModelState::Ready) {
            let slot = self.slot(entry.id.clone());
            let known = lock(&slot.outcome).is_some();
            if self.load(&entry.id).is_ok() && !known {
                *lock(&slot.outcome) = None;
            }
        }
    }

    /// Forgets models that were loaded but are no longer here, whose files have changed, or that nobody uses and nobody
    /// asked for during `idle`. Who holds one keeps it. Gives how many were forgotten.
    pub fn release_unused(&self, idle: Duration) -> usize {
        let slots: Vec<(String, Arc<Slot>)> =
            lock(&self.slots).iter().map(|(id, slot)| (id.clone(), Arc::clone(slot))).collect();
        slots.into_iter().filter(|(id, slot)| self.release(id, slot, idle)).count()
    }

    fn release(&self, id: &str, slot: &Slot, idle: Duration) -> bool {
        // Somebody loads it right now.
        let Ok(_busy) = slot.busy.try_lock() else { return false };
        let found = self.find(id).filter(|found| !matches!(found.place, Place::Index(_)));
        let mut outcome = lock(&slot.outcome);
        let Some((stamp, loaded)) = &*outcome else { return false };
        let stays = found.is_some_and(|found| stamp.holds(&found));
        let in_use = loaded.as_ref().is_ok_and(|model| Arc::strong_count(model) > 1);
        if stays && (in_use || lock(&slot.used).elapsed() < idle) {
            return false;
        }
        let held = loaded.is_ok();
        // What is wrong with files that are still there is worth remembering: it was found by reading them.
        if stays && !held {
            return false;
        }
        *outcome = None;
        held
    }

    /// Everything there is, in the order of precedence; an id may occur more than once.
    fn found(&self) -> Vec<Found> {
        let mut found = vec![Found::embedded()];
        for root in std::iter::once(self.shelf.root()).chain(self.folders.iter().map(PathBuf::as_path)) {
            found.extend(folders(root));
        }
        found.extend(self.catalog.iter().map(Found::on_index));
        found
    }

    fn find(&self, id: &str) -> Option<Found> {
        if id == embedded::ID {
            return Some(Found::embedded());
        }
        let here = self.shelf.folder(id).and_then(|folder| Found::in_folder(&folder)).filter(|found| found.id == id);
        here.or_else(|| self.found().into_iter().find(|found| found.id == id))
    }

    fn fetch(&self, entry: &CatalogEntry, progress: &mut Progress<'_>) -> Result<Pulled, ModelError> {
        let id = &entry.id;
        let unavailable = |why| ModelError::Unavailable { id: id.clone(), why };
        let claim = self.shelf.claim(id).map_err(|e| unavailable(e.into()))?;
        // Another process may have been faster.
        if self.find(id).is_some_and(|found| matches!(found.place, Place::Folder(_)) && load_found(&found).is_ok()) {
            return Ok(Pulled::AlreadyHere);
        }
        pull::pull(entry, &self.index, &claim, progress).map_err(unavailable)?;
        Ok(Pulled::Fetched)
    }

    fn entry_of(&self, found: &Found) -> ModelEntry {
        let mut entry = found.entry();
        let slot = lock(&self.slots).get(&found.id).cloned();
        let outcome = slot.and_then(|slot| lock(&slot.outcome).clone());
        match outcome {
            Some((stamp, Ok(model))) if stamp.holds(found) => entry.digest = Some(model.digest.clone()),
            Some((stamp, Err(why))) if stamp.holds(found) && entry.state == ModelState::Ready => {
                entry.state = ModelState::Broken;
                entry.problem = Some(self.with_remedy(found, why));
            }
            _ => {}
        }
        entry
    }

    fn is_on_shelf(&self, found: &Found) -> bool {
        matches!(&found.place, Place::Folder(folder) if Some(folder) == self.shelf.folder(&found.id).as_ref())
    }

    /// The slot of a model that exists.
    fn slot(&self, id: String) -> Arc<Slot> {
        Arc::clone(lock(&self.slots).entry(id).or_default())
    }

    /// Adds how a broken model can be mended, where there is a way.
    fn with_remedy(&self, found: &Found, why: String) -> String {
        let pulled = self.catalog.iter().any(|entry| entry.id == found.id);
        if pulled && self.is_on_shelf(found) { format!("{why}; pull it again") } else { why }
    }

    fn unknown(&self, id: &str) -> ModelError {
        ModelError::Unknown { id: id.into(), known: self.list().into_iter().map(|entry| entry.id).collect() }
    }
}

fn load_found(found: &Found) -> Result<Model, String> {
    Files::read(found)?.assemble(found)
}

/// The data behind these locks is replaced in one step: a panic elsewhere cannot leave it half done.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
