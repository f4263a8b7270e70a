//! The model registry: list, load, pull, add and remove models by id.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::add::{self, AddOptions, Assumption, Described, PreparedModel};
use super::builtin::{CatalogEntry, EMBEDDED_ID};
use super::calibrations::{calibration_stamp, with_calibration};
use super::discovery::{FileStamp, FilesStamp, FoundModel, Location, models_in};
use super::entry::{ModelEntry, ModelState};
use super::error::ModelError;
#[cfg(feature = "pull")]
use super::hub;
use super::hub::{Hub, HubAddress};
use super::id::{check_id, suggest_id};
use super::load::ModelFiles;
use super::model_dir::{ModelDir, ModelLock};
use super::package_index::{PackageIndex, Progress};
use super::pull;
#[cfg(not(feature = "pull"))]
use super::pull_error::PullError;
use crate::Invalid;
use crate::network::calibration::Calibration;
use crate::network::{Model, Unavailable};

/// Sources of models.
#[derive(Debug, Clone)]
pub struct ModelsConfig {
    /// The data directory; models are stored in its folder `models`.
    pub data_dir: PathBuf,
    /// Further, read-only folders with one folder per model, each with a `model.toml`.
    pub folders: Vec<PathBuf>,
    /// Package index that catalog models are pulled from.
    pub index: PackageIndex,
    /// Where repositories of the Hugging Face Hub are.
    pub hub: Hub,
    /// Models that can be pulled.
    pub catalog: Vec<CatalogEntry>,
}

impl ModelsConfig {
    /// The built-in catalog and the public index, with models stored in `data_dir`.
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        Self {
            data_dir: data_dir.into(),
            folders: Vec::new(),
            index: PackageIndex::default(),
            hub: Hub::default(),
            catalog: CatalogEntry::builtin(),
        }
    }
}

/// Result of [`Models::pull`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pulled {
    /// The model was present and intact.
    AlreadyHere,
    /// The model was downloaded.
    Fetched,
}

/// Result of [`Models::add`].
#[derive(Debug, Clone)]
pub struct Added {
    /// The new model.
    pub entry: ModelEntry,
    /// Values that neither the caller nor a manifest specified.
    pub assumed: Vec<Assumption>,
    /// The nodes of the file that have no layer.
    pub unavailable: Vec<Unavailable>,
    /// Inputs of a file without a manifest that no node reads.
    pub ignored_inputs: Vec<String>,
}

/// The registry of models: the embedded one, those in folders, and those of the catalog.
///
/// An id is looked up in this order: the embedded model, the data directory, the other folders in their order, the
/// catalog. Folders are read again each time, so a model that another process adds appears without a restart.
/// All calls block; calls for different models do not wait for each other.
///
/// # Examples
/// ```
/// use proxygrad::network::catalog::{Models, ModelsConfig};
///
/// let models = Models::new(ModelsConfig::new("proxygrad-data"))?;
/// // This model is embedded in the library.
/// let model = models.load("fashion-resnet8")?;
/// let unit = model.resolve_class(&"logits:sneaker".parse()?)?;
/// assert_eq!(unit.to_string(), "logits:7");
/// assert_eq!(model.class_of(&unit), Some("Sneaker"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Models {
    dir: ModelDir,
    folders: Vec<PathBuf>,
    index: PackageIndex,
    hub: Hub,
    catalog: Vec<CatalogEntry>,
    load_states: Mutex<HashMap<String, Arc<LoadState>>>,
}

/// The cached model of one id, and its locks.
#[derive(Debug)]
struct LoadState {
    /// Held while the model is pulled or loaded, so that this happens once.
    busy: Mutex<()>,
    /// Stamp of the calibration that the model was loaded with.
    calibration: Mutex<Option<FileStamp>>,
    /// Result of loading its files.
    loaded: Mutex<Option<(FilesStamp, LoadResult)>>,
    /// Time of the last request for the model.
    last_used: Mutex<Instant>,
}

impl Default for LoadState {
    fn default() -> Self {
        Self {
            busy: Mutex::default(),
            calibration: Mutex::default(),
            loaded: Mutex::default(),
            last_used: Instant::now().into(),
        }
    }
}

/// A model, or what is wrong with its files.
type LoadResult = Result<Arc<Model>, String>;

impl Models {
    /// Opens the models of a data directory: those that were added or pulled there, the embedded one, and the catalog.
    ///
    /// # Errors
    /// As [`Models::new`].
    pub fn open(data_dir: impl Into<PathBuf>) -> Result<Self, ModelError> {
        Self::new(ModelsConfig::new(data_dir))
    }

    /// Opens the registry. Nothing is pulled or loaded yet, and a broken model is not an error: it is listed as broken.
    ///
    /// # Errors
    /// When a folder of [`ModelsConfig::folders`] cannot be read.
    pub fn new(config: ModelsConfig) -> Result<Self, ModelError> {
        for folder in &config.folders {
            std::fs::read_dir(folder).map_err(ModelError::folder(folder))?;
        }
        let ModelsConfig { data_dir, folders, index, hub, catalog } = config;
        let (dir, load_states) = (ModelDir::new(&data_dir), Mutex::default());
        let models = Self { dir, folders, index, hub, catalog, load_states };
        let mut locations: BTreeMap<String, Location> = BTreeMap::new();
        for FoundModel { id, location, .. } in models.discover() {
            match (locations.get(&id), &location) {
                (Some(first), Location::Folder(folder)) => {
                    let folder = folder.display();
                    tracing::warn!(model = id, %folder, "ignored: another model has the same id, {first}");
                }
                (Some(_), _) => {}
                (None, _) => drop(locations.insert(id, location)),
            }
        }
        Ok(models)
    }

    /// All models, ordered by id.
    pub fn list(&self) -> Vec<ModelEntry> {
        let mut entries = BTreeMap::new();
        for found in self.discover() {
            entries.entry(found.id.clone()).or_insert(found);
        }
        entries.values().map(|found| self.entry_of(found)).collect()
    }

    /// The model with this id.
    pub fn entry(&self, id: &str) -> Option<ModelEntry> {
        self.find(id).map(|found| self.entry_of(&found))
    }

    /// Loads the model with this id, pulling it first if necessary. A model that is already loaded and whose files have
    /// not changed is shared. Blocks; concurrent calls for one model cause one download.
    ///
    /// # Errors
    /// [`ModelError::Unknown`], [`ModelError::Unavailable`] when it cannot be pulled, [`ModelError::Broken`] when its
    /// files cannot be used.
    pub fn load(&self, id: &str) -> Result<Arc<Model>, ModelError> {
        let state = self.load_state(self.find(id).ok_or_else(|| self.unknown(id))?.id);
        let _busy = lock(&state.busy);
        let mut found = self.find(id).ok_or_else(|| self.unknown(id))?;
        if let Location::Index(entry) = &found.location {
            self.fetch(entry, &mut |_, _| {})?;
            found = self.find(id).ok_or_else(|| self.unknown(id))?;
        }
        let broken = |why: String| ModelError::Broken { id: id.into(), why };
        *lock(&state.last_used) = Instant::now();
        let folder = self.dir.calibration(id);
        let calibration = calibration_stamp(folder.as_deref());
        let cached = lock(&state.loaded).clone().filter(|(stamp, _)| stamp.is_current(&found));
        let (stamp, loaded) = match cached {
            Some((stamp, loaded)) if loaded.is_err() || *lock(&state.calibration) == calibration => (stamp, loaded),
            // The weights are shared: only the calibration is new.
            Some((stamp, loaded)) => {
                let with = |model: Arc<Model>| Arc::new(with_calibration((*model).clone(), folder.as_deref()));
                (stamp, loaded.map(with))
            }
            None => {
                // Not cached: a read error may be temporary, unlike an error in the content.
                let files = ModelFiles::read(&found).map_err(|why| broken(self.with_remedy(&found, why)))?;
                let stamp = files.stamp.clone();
                let model = files.assemble(&found);
                (stamp, model.map(|model| Arc::new(with_calibration(model, folder.as_deref()))))
            }
        };
        *lock(&state.calibration) = calibration;
        *lock(&state.loaded) = Some((stamp, loaded.clone()));
        loaded.map_err(|why| broken(self.with_remedy(&found, why)))
    }

    /// Replaces the calibration of an existing model by what `write` puts into an empty folder. The old one is kept
    /// until that is complete; models loaded from then on have the new one.
    ///
    /// # Errors
    /// [`ModelError::Unknown`], [`ModelError::Folder`], or the error of `write`.
    pub fn install_calibration<E: From<ModelError>>(
        &self,
        id: &str,
        write: impl FnOnce(&Path) -> Result<(), E>,
    ) -> Result<(), E> {
        let folder = |why| ModelError::folder(self.dir.root())(why);
        self.find(id).ok_or_else(|| self.unknown(id))?;
        let lock = self.dir.lock(id).map_err(folder)?;
        let staged = lock.stage_calibration().map_err(folder)?;
        write(&staged)?;
        lock.install_calibration(&staged).map_err(folder)?;
        Ok(())
    }

    /// The PNG of an image that a model's calibration keeps; `None` if it does not exist.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn natural_image(&self, id: &str, image: usize) -> std::io::Result<Option<Vec<u8>>> {
        let Some(folder) = self.dir.calibration(id) else { return Ok(None) };
        match std::fs::read(folder.join(Calibration::image_file(image))) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            read => read.map(Some),
        }
    }

    /// Downloads a catalog model unless an intact copy is present; replaces a broken copy in the data directory. Does
    /// nothing for local models that are not in the catalog. `progress` is called with the bytes received and expected.
    ///
    /// # Errors
    /// [`ModelError::Unknown`] or [`ModelError::Unavailable`].
    pub fn pull(&self, id: &str, progress: &mut Progress<'_>) -> Result<Pulled, ModelError> {
        let state = self.load_state(self.find(id).ok_or_else(|| self.unknown(id))?.id);
        let _busy = lock(&state.busy);
        let found = self.find(id).ok_or_else(|| self.unknown(id))?;
        if let Location::Index(entry) = &found.location {
            return self.fetch(entry, progress);
        }
        let Err(why) = load_found(&found) else { return Ok(Pulled::AlreadyHere) };
        match self.catalog.iter().find(|entry| entry.id == id) {
            Some(entry) if self.is_in_data_dir(&found) => self.fetch(entry, progress),
            _ => Err(ModelError::Broken { id: id.into(), why }),
        }
    }

    /// Copies the network in the file `path` into the data directory: an ONNX file with its external data, or a weight
    /// file of a named architecture. A `model.toml` next to it, or in the folder `path`, describes it; without one, the
    /// manifest is derived, and [`Added::assumed`] lists the assumptions.
    ///
    /// # Errors
    /// [`ModelError::Broken`] when the network cannot be imported, [`ModelError::Invalid`] when an option does not fit
    /// it or the id is taken.
    pub fn add(&self, path: &Path, options: AddOptions) -> Result<Added, ModelError> {
        let (id, prepared) = add::prepare(path, options, Described::default())?;
        let lock = self.dir.lock(&id).map_err(ModelError::folder(self.dir.root()))?;
        self.check_free(&id)?;
        self.install(&id, &prepared, lock)
    }

    /// Downloads a network from a repository of the Hugging Face Hub: its ONNX file with external data, or weights of a
    /// named architecture. Preprocessing, input size and class names are those of the repository's configuration, as
    /// far as `options` do not say otherwise. An interrupted download is continued by the next call. `progress` is
    /// called for each file with the bytes received and expected.
    ///
    /// # Errors
    /// [`ModelError::Unavailable`] when the repository or its network cannot be downloaded, otherwise as
    /// [`Models::add`].
    pub fn add_from_hub(
        &self,
        address: &HubAddress,
        options: AddOptions,
        progress: &mut Progress<'_>,
    ) -> Result<Added, ModelError> {
        let id = options.id.clone().unwrap_or_else(|| suggest_id(address.name()));
        check_id(&id)?;
        let lock = self.dir.lock(&id).map_err(ModelError::folder(self.dir.root()))?;
        self.check_free(&id)?;
        let (prepared, lock) = self.prepare_from_hub(&id, address, options, lock, progress)?;
        self.install(&id, &prepared, lock)
    }

    #[cfg(feature = "pull")]
    fn prepare_from_hub<'l>(
        &self,
        id: &str,
        address: &HubAddress,
        options: AddOptions,
        lock: ModelLock<'l>,
        progress: &mut Progress<'_>,
    ) -> Result<(PreparedModel, ModelLock<'l>), ModelError> {
        let unavailable = |why| ModelError::Unavailable { id: id.into(), why };
        let folder = lock.downloads().map_err(ModelError::folder(self.dir.root()))?;
        let fetched = hub::fetch(&self.hub, address, &folder, progress).map_err(unavailable)?;
        let options = AddOptions { id: Some(id.into()), ..options };
        let (_, prepared) = add::prepare(&fetched.file, options, fetched.facts)?;
        lock.remove_downloads().map_err(ModelError::folder(folder))?;
        Ok((prepared, lock))
    }

    #[cfg(not(feature = "pull"))]
    fn prepare_from_hub<'l>(
        &self,
        id: &str,
        address: &HubAddress,
        _options: AddOptions,
        _lock: ModelLock<'l>,
        _progress: &mut Progress<'_>,
    ) -> Result<(PreparedModel, ModelLock<'l>), ModelError> {
        let (url, archive) = (format!("{:?}", self.hub), address.to_string());
        Err(ModelError::Unavailable { id: id.into(), why: PullError::NotBuilt { url, archive } })
    }

    /// Checks that no model has this id.
    fn check_free(&self, id: &str) -> Result<(), Invalid> {
        match self.find(id) {
            None => Ok(()),
            Some(_) => {
                let expected = "an id that no model has; remove that model first, or choose another id";
                Err(Invalid::new("id", id, expected))
            }
        }
    }

    fn install(&self, id: &str, prepared: &PreparedModel, lock: ModelLock<'_>) -> Result<Added, ModelError> {
        prepared.install(&lock)?;
        drop(lock);
        let entry = self.entry(id).ok_or_else(|| self.unknown(id))?;
        let unavailable = prepared.model.network.unavailable().to_vec();
        let (assumed, ignored_inputs) = (prepared.assumed.clone(), prepared.ignored_inputs.clone());
        Ok(Added { entry, assumed, unavailable, ignored_inputs })
    }

    /// Loads the network in the file `path` as [`Models::add`] does, without adding it. Also returns the assumptions.
    ///
    /// # Errors
    /// As [`Models::add`], except that the id may be taken.
    pub fn load_file(path: &Path, options: AddOptions) -> Result<(Model, Vec<Assumption>), ModelError> {
        let (_, prepared) = add::prepare(path, options, Described::default())?;
        Ok((prepared.model, prepared.assumed))
    }

    /// Removes a model from the data directory. A catalog model can be pulled again.
    ///
    /// # Errors
    /// [`ModelError::Unknown`], or [`ModelError::Invalid`] when the model is not in the data directory.
    pub fn remove(&self, id: &str) -> Result<(), ModelError> {
        let found = self.find(id).ok_or_else(|| self.unknown(id))?;
        if !self.is_in_data_dir(&found) {
            let expected = format!("a model in the data directory; this one is {}", found.location);
            return Err(Invalid::new("id", id, expected).into());
        }
        let model_lock = self.dir.lock(id).map_err(ModelError::folder(self.dir.root()))?;
        model_lock.remove().map_err(ModelError::folder(self.dir.root()))?;
        lock(&self.load_states).remove(id);
        Ok(())
    }

    /// Loads every local model once, and drops it again unless it was already loaded. Afterwards [`Models::list`] shows
    /// which models are broken. Takes time and, temporarily, memory.
    pub fn check(&self) {
        for entry in self.list().into_iter().filter(|entry| entry.state == ModelState::Ready) {
            let state = self.load_state(entry.id.clone());
            let cached = lock(&state.loaded).is_some();
            if self.load(&entry.id).is_ok() && !cached {
                *lock(&state.loaded) = None;
            }
        }
    }

    /// Evicts loaded models whose files were removed or have changed, and those that are not in use and were not
    /// requested for `idle`. Holders of an evicted model keep it. Returns the number of evicted models.
    pub fn release_unused(&self, idle: Duration) -> usize {
        let states: Vec<(String, Arc<LoadState>)> =
            lock(&self.load_states).iter().map(|(id, state)| (id.clone(), Arc::clone(state))).collect();
        states.into_iter().filter(|(id, state)| self.release(id, state, idle)).count()
    }

    fn release(&self, id: &str, state: &LoadState, idle: Duration) -> bool {
        // It is being loaded.
        let Ok(_busy) = state.busy.try_lock() else { return false };
        let found = self.find(id).filter(|found| !matches!(found.location, Location::Index(_)));
        let mut cached = lock(&state.loaded);
        let Some((stamp, loaded)) = &*cached else { return false };
        let is_current = found.is_some_and(|found| stamp.is_current(&found));
        let in_use = loaded.as_ref().is_ok_and(|model| Arc::strong_count(model) > 1);
        if is_current && (in_use || lock(&state.last_used).elapsed() < idle) {
            return false;
        }
        let is_model = loaded.is_ok();
        // An error of current files stays cached: finding it took reading them.
        if is_current && !is_model {
            return false;
        }
        *cached = None;
        is_model
    }

    /// All models in the order of precedence; an id may occur more than once.
    fn discover(&self) -> Vec<FoundModel> {
        let mut found = vec![FoundModel::embedded()];
        for root in std::iter::once(self.dir.root()).chain(self.folders.iter().map(PathBuf::as_path)) {
            found.extend(models_in(root));
        }
        found.extend(self.catalog.iter().map(FoundModel::on_index));
        found
    }

    fn find(&self, id: &str) -> Option<FoundModel> {
        if id == EMBEDDED_ID {
            return Some(FoundModel::embedded());
        }
        let local = self.dir.folder(id).and_then(|folder| FoundModel::in_folder(&folder));
        let local = local.filter(|found| found.id == id);
        local.or_else(|| self.discover().into_iter().find(|found| found.id == id))
    }

    fn fetch(&self, entry: &CatalogEntry, progress: &mut Progress<'_>) -> Result<Pulled, ModelError> {
        let id = &entry.id;
        let unavailable = |why| ModelError::Unavailable { id: id.clone(), why };
        let lock = self.dir.lock(id).map_err(|e| unavailable(e.into()))?;
        // Another process may have been faster.
        let is_intact = |found: FoundModel| matches!(found.location, Location::Folder(_)) && load_found(&found).is_ok();
        if self.find(id).is_some_and(is_intact) {
            return Ok(Pulled::AlreadyHere);
        }
        pull::pull(entry, &self.index, &lock, progress).map_err(unavailable)?;
        Ok(Pulled::Fetched)
    }

    fn entry_of(&self, found: &FoundModel) -> ModelEntry {
        let mut entry = found.entry();
        let state = lock(&self.load_states).get(&found.id).cloned();
        let loaded = state.and_then(|state| lock(&state.loaded).clone());
        match loaded {
            Some((stamp, Ok(model))) if stamp.is_current(found) => entry.digest = Some(model.digest.clone()),
            Some((stamp, Err(why))) if stamp.is_current(found) && entry.state == ModelState::Ready => {
                entry.state = ModelState::Broken;
                entry.problem = Some(self.with_remedy(found, why));
            }
            _ => {}
        }
        entry
    }

    fn is_in_data_dir(&self, found: &FoundModel) -> bool {
        matches!(&found.location, Location::Folder(folder) if Some(folder) == self.dir.folder(&found.id).as_ref())
    }

    /// The load state of an existing model.
    fn load_state(&self, id: String) -> Arc<LoadState> {
        Arc::clone(lock(&self.load_states).entry(id).or_default())
    }

    /// Adds how to repair a broken model, if it can be pulled.
    fn with_remedy(&self, found: &FoundModel, why: String) -> String {
        let pulled = self.catalog.iter().any(|entry| entry.id == found.id);
        if pulled && self.is_in_data_dir(found) { format!("{why}; pull it again") } else { why }
    }

    fn unknown(&self, id: &str) -> ModelError {
        ModelError::Unknown { id: id.into(), known: self.list().into_iter().map(|entry| entry.id).collect() }
    }
}

fn load_found(found: &FoundModel) -> Result<Model, String> {
    ModelFiles::read(found)?.assemble(found)
}

/// Ignores poisoning: the data in these locks is replaced as a whole, so a panic cannot leave it inconsistent.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
