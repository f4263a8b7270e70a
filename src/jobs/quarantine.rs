//! Folders of studies that the database does not know: nothing that holds results is ever removed at a start.
//!
//! Such a folder appears when an older copy of the database is put back, or a new one begun: the study is whole, only its
//! row is gone. It is moved to `set-aside/studies/`, and comes back when a database knows it again.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use uuid::Uuid;

use super::error::StoreError;
use super::store::Store;
use super::table::Table;

impl Store {
    /// Moves folders of unknown studies out of the way, and those back that are known now.
    pub(super) async fn quarantine_orphans(&self) -> Result<(), StoreError> {
        let (studies, aside) = (&self.inner.studies, self.inner.config.data_dir.join("set-aside").join("studies"));
        for id in ids(&aside)? {
            let (from, to) = (aside.join(id.to_string()), studies.join(id.to_string()));
            if self.state(Table::Studies, id).await?.is_some() && !to.exists() {
                match fs::rename(&from, &to) {
                    Ok(()) => tracing::info!(study.id = %id, "a study that was set aside is known again"),
                    Err(error) => tracing::warn!(study.id = %id, %error, "a study cannot be taken back"),
                }
            }
        }
        for id in ids(studies)? {
            if self.state(Table::Studies, id).await?.is_some() {
                continue;
            }
            let folder = studies.join(id.to_string());
            let done = match holds_results(&folder) {
                Ok(false) => fs::remove_dir_all(&folder).map(|()| None),
                // What cannot be read may be anything.
                Ok(true) | Err(_) => move_into(&folder, &aside).map(Some),
            };
            match done {
                Ok(None) => {
                    tracing::warn!(study.id = %id, "removed the empty folder of a study that is not in the database")
                }
                Ok(Some(place)) => {
                    let place = place.display();
                    tracing::warn!(study.id = %id, %place, "set aside the folder of a study that is not in the database");
                }
                Err(error) => {
                    tracing::warn!(study.id = %id, %error, "the folder of an unknown study stays where it is")
                }
            }
        }
        Ok(())
    }
}

/// The ids after which folders in `folder` are named; other names were not given here, and are left alone.
fn ids(folder: &Path) -> Result<Vec<Uuid>, StoreError> {
    let unreadable = |source| StoreError::Directory { path: folder.to_owned(), source };
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(unreadable)?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let name = entry.map_err(unreadable)?.file_name();
        found.extend(name.to_str().and_then(|name| Uuid::try_parse(name).ok().filter(|id| id.to_string() == name)));
    }
    Ok(found)
}

/// Whether anything in a study's folder took work to make: all but the plan, the lock, unfinished files, and a table of
/// runs with nothing below its head.
fn holds_results(folder: &Path) -> io::Result<bool> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let nothing = match &*name {
            "plan.json" | "lock" => true,
            "runs.csv" => fs::read_to_string(entry.path())?.lines().count() < 2,
            _ if entry.file_type()?.is_dir() => !holds_results(&entry.path())?,
            name => name.ends_with(".part"),
        };
        if !nothing {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Moves a folder into another one, under a name that is free there; gives its new place.
fn move_into(folder: &Path, aside: &Path) -> io::Result<PathBuf> {
    fs::create_dir_all(aside)?;
    let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let places = std::iter::once(aside.join(&name)).chain((2..).map(|n| aside.join(format!("{name}.{n}"))));
    for place in places {
        if !place.exists() {
            fs::rename(folder, &place)?;
            return Ok(place);
        }
    }
    Err(io::Error::other("no name is free"))
}
