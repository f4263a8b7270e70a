//! Which models there are, and where.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::builtin::CatalogEntry;
use super::embedded;
use super::entry::{ModelEntry, ModelState};
use super::id::check_id;
use super::manifest::{Classes, Manifest, names_in};

/// A model that was found.
#[derive(Debug, Clone)]
pub(super) struct Found {
    pub(super) id: String,
    pub(super) place: Place,
    /// What it says about itself, or why that cannot be read.
    pub(super) manifest: Result<Manifest, String>,
}

/// Where a model is.
#[derive(Debug, Clone)]
pub(super) enum Place {
    /// In the program.
    Embedded,
    /// In a folder.
    Folder(PathBuf),
    /// On a package index.
    Index(Box<CatalogEntry>),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Embedded => write!(f, "part of the program"),
            Self::Folder(folder) => write!(f, "in {}", folder.display()),
            Self::Index(entry) => write!(f, "on the package index, as {}", entry.archive),
        }
    }
}

/// What would change if somebody replaced a model's files: their times and sizes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Stamp(Vec<(PathBuf, State)>);

/// When a file was written last and how long it is, if it is there.
type State = Option<(SystemTime, u64)>;

impl Stamp {
    /// Adds files in `folder` that the manifest does not name.
    pub(super) fn add<'n>(&mut self, folder: &Path, names: impl IntoIterator<Item = &'n String>) {
        self.0.extend(names.into_iter().map(|name| state(folder.join(name))));
    }

    /// Whether all files are as they were.
    pub(super) fn holds(&self, found: &Found) -> bool {
        let now = found.stamp();
        let others = self.0.get(now.0.len()..).unwrap_or_default();
        self.0.starts_with(&now.0) && others.iter().all(|(file, then)| state(file.clone()).1 == *then)
    }
}

fn state(file: PathBuf) -> (PathBuf, State) {
    let read = || {
        let file = fs::metadata(&file).ok()?;
        Some((file.modified().ok()?, file.len()))
    };
    let state = read();
    (file, state)
}

impl Found {
    pub(super) fn embedded() -> Self {
        let manifest = embedded::manifest().map_err(|e| e.to_string());
        Self { id: embedded::ID.into(), place: Place::Embedded, manifest }
    }

    pub(super) fn on_index(entry: &CatalogEntry) -> Self {
        Self { id: entry.id.clone(), manifest: Ok(entry.manifest()), place: Place::Index(Box::new(entry.clone())) }
    }

    /// The model in `folder`, if there is a manifest.
    pub(super) fn in_folder(folder: &Path) -> Option<Self> {
        if !folder.join(Manifest::FILE).exists() {
            return None;
        }
        let name = folder.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let manifest = Manifest::read(folder).map_err(|e| e.to_string());
        let id = manifest.as_ref().ok().and_then(|manifest| manifest.id.clone()).unwrap_or(name);
        let manifest = manifest.and_then(|manifest| {
            check_id(&id).map_err(|invalid| invalid.to_string())?;
            match fs::metadata(folder.join(&manifest.file)) {
                Ok(file) if file.is_file() => Ok(manifest),
                Ok(_) => Err(format!("{}: is no file", manifest.file)),
                Err(why) => Err(format!("{}: {why}", manifest.file)),
            }
        });
        Some(Self { id, place: Place::Folder(folder.into()), manifest })
    }

    /// The model as it is shown.
    pub(super) fn entry(&self) -> ModelEntry {
        let manifest = match &self.manifest {
            Ok(manifest) => manifest,
            Err(why) => return ModelEntry { problem: Some(why.clone()), ..ModelEntry::unknown(&self.id) },
        };
        let mut entry = ModelEntry::of(&self.id, manifest);
        match (&self.place, &manifest.classes) {
            (Place::Index(catalog), _) => {
                entry.state = ModelState::Pullable;
                entry.download_bytes = Some(catalog.archive_bytes);
                entry.classes = names_in(catalog.classes).len();
            }
            (_, Classes::Names(names)) => entry.classes = names.len(),
            (Place::Folder(folder), Classes::File(_)) => match manifest.class_names(folder) {
                Ok(names) => entry.classes = names.len(),
                Err(why) => (entry.state, entry.problem) = (ModelState::Broken, Some(why.to_string())),
            },
            (Place::Embedded, Classes::File(_)) => {}
        }
        entry
    }

    /// The state of the files that the manifest names, and of its own.
    pub(super) fn stamp(&self) -> Stamp {
        let (Place::Folder(folder), Ok(manifest)) = (&self.place, &self.manifest) else { return Stamp::default() };
        let mut files = vec![Manifest::FILE, &manifest.file];
        if let Classes::File(file) = &manifest.classes {
            files.push(file);
        }
        Stamp(files.into_iter().map(|file| state(folder.join(file))).collect())
    }
}

/// The models in the folders of `root`, or in `root` itself if that is the folder of one model; by folder name.
/// Folders with a dot in front are nobody's model.
pub(super) fn folders(root: &Path) -> Vec<Found> {
    if let Some(found) = Found::in_folder(root) {
        return vec![found];
    }
    let Ok(entries) = fs::read_dir(root) else { return Vec::new() };
    let mut folders: Vec<PathBuf> = entries
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .filter(|path| path.file_name().is_some_and(|name| !name.to_string_lossy().starts_with('.')))
        .collect();
    folders.sort();
    folders.iter().filter_map(|folder| Found::in_folder(folder)).collect()
}
