//! Model discovery: the embedded model, model folders and the catalog.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::builtin::{CatalogEntry, EMBEDDED_ID, embedded_manifest};
use super::class_list::names_in;
use super::entry::{ModelEntry, ModelState};
use super::id::check_id;
use super::manifest::{Classes, Manifest};

/// A model that was found, not loaded yet.
#[derive(Debug, Clone)]
pub(super) struct FoundModel {
    pub(super) id: String,
    pub(super) location: Location,
    /// Its manifest, or why that cannot be used.
    pub(super) manifest: Result<Manifest, String>,
}

/// Where the files of a model are.
#[derive(Debug, Clone)]
pub(super) enum Location {
    /// In the program.
    Embedded,
    /// In this folder.
    Folder(PathBuf),
    /// On a package index.
    Index(Box<CatalogEntry>),
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Embedded => write!(f, "part of the program"),
            Self::Folder(folder) => write!(f, "in {}", folder.display()),
            Self::Index(entry) => write!(f, "on the package index, as {}", entry.archive),
        }
    }
}

/// Modification times and sizes of a model's files, to detect that they were replaced.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct FilesStamp(Vec<(PathBuf, Option<FileStamp>)>);

/// Modification time and size of a file.
pub(super) type FileStamp = (SystemTime, u64);

/// The stamp of a file; `None` if it does not exist.
pub(super) fn file_stamp(file: &Path) -> Option<FileStamp> {
    let metadata = fs::metadata(file).ok()?;
    Some((metadata.modified().ok()?, metadata.len()))
}

impl FilesStamp {
    fn of(files: impl IntoIterator<Item = PathBuf>) -> Self {
        Self(files.into_iter().map(|file| (file.clone(), file_stamp(&file))).collect())
    }

    /// Adds files in `folder` that the manifest does not name.
    pub(super) fn add<'n>(&mut self, folder: &Path, names: impl IntoIterator<Item = &'n String>) {
        self.0.extend(Self::of(names.into_iter().map(|name| folder.join(name))).0);
    }

    /// Whether the model still has these files, unchanged.
    pub(super) fn is_current(&self, found: &FoundModel) -> bool {
        let now = found.stamp();
        let others = self.0.get(now.0.len()..).unwrap_or_default();
        self.0.starts_with(&now.0) && others.iter().all(|(file, then)| file_stamp(file) == *then)
    }
}

impl FoundModel {
    pub(super) fn embedded() -> Self {
        let manifest = embedded_manifest().map_err(|e| e.to_string());
        Self { id: EMBEDDED_ID.into(), location: Location::Embedded, manifest }
    }

    pub(super) fn on_index(entry: &CatalogEntry) -> Self {
        let location = Location::Index(Box::new(entry.clone()));
        Self { id: entry.id.clone(), manifest: Ok(entry.manifest()), location }
    }

    /// The model in `folder`; `None` without a manifest.
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
                Ok(_) => Err(format!("{}: is not a file", manifest.file)),
                Err(why) => Err(format!("{}: {why}", manifest.file)),
            }
        });
        Some(Self { id, location: Location::Folder(folder.into()), manifest })
    }

    /// The model as listed.
    pub(super) fn entry(&self) -> ModelEntry {
        let manifest = match &self.manifest {
            Ok(manifest) => manifest,
            Err(why) => return ModelEntry { problem: Some(why.clone()), ..ModelEntry::unknown(&self.id) },
        };
        let mut entry = ModelEntry::of(&self.id, manifest);
        match (&self.location, &manifest.classes) {
            (Location::Index(catalog), _) => {
                entry.state = ModelState::Pullable;
                entry.download_bytes = Some(catalog.archive_bytes);
                entry.classes = names_in(catalog.classes).len();
            }
            (_, Classes::Names(names)) => entry.classes = names.len(),
            (Location::Folder(folder), Classes::File(_)) => match manifest.class_names(folder) {
                Ok(names) => entry.classes = names.len(),
                Err(why) => (entry.state, entry.problem) = (ModelState::Broken, Some(why.to_string())),
            },
            (Location::Embedded, Classes::File(_)) => {}
        }
        entry
    }

    /// The stamp of the manifest and of the files that it names.
    pub(super) fn stamp(&self) -> FilesStamp {
        let (Location::Folder(folder), Ok(manifest)) = (&self.location, &self.manifest) else {
            return FilesStamp::default();
        };
        let mut files = vec![Manifest::FILE, &manifest.file];
        if let Classes::File(file) = &manifest.classes {
            files.push(file);
        }
        FilesStamp::of(files.into_iter().map(|file| folder.join(file)))
    }
}

/// The models in the subfolders of `root`, ordered by folder name, or the one in `root` itself. Ignores folders whose
/// name begins with a dot.
pub(super) fn models_in(root: &Path) -> Vec<FoundModel> {
    if let Some(found) = FoundModel::in_folder(root) {
        return vec![found];
    }
    let Ok(entries) = fs::read_dir(root) else { return Vec::new() };
    let mut folders: Vec<PathBuf> = entries
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .filter(|path| path.file_name().is_some_and(|name| !name.to_string_lossy().starts_with('.')))
        .collect();
    folders.sort();
    folders.iter().filter_map(|folder| FoundModel::in_folder(folder)).collect()
}
