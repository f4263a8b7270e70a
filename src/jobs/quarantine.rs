//! Quarantine for orphaned folders of studies and trainings, which have no row in the database.
//!
//! A folder is orphaned when an older database is restored or a new one is created: its content is intact, only the row
//! is missing. Folders with results are moved to `set-aside/studies/` or `set-aside/trainings/`, never removed, and moved
//! back once a database has the row again.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use uuid::Uuid;

use super::error::StoreError;
use super::store::Store;
use super::table::Table;

impl Store {
    /// Moves orphaned folders into quarantine, and those back whose study or training is known again.
    pub(super) async fn quarantine_orphans(&self) -> Result<(), StoreError> {
        for table in Table::LONG {
            self.quarantine_orphans_of(table).await?;
        }
        Ok(())
    }

    async fn quarantine_orphans_of(&self, table: Table) -> Result<(), StoreError> {
        let (folders, quarantine) =
            (self.folders(table), self.inner.config.data_dir.join("set-aside").join(table.name()));
        for id in ids(&quarantine)? {
            let (from, to) = (quarantine.join(id.to_string()), folders.join(id.to_string()));
            if self.state(table, id).await?.is_some() && !to.exists() {
                match fs::rename(&from, &to) {
                    Ok(()) => {
                        tracing::info!(kind = %table, %id, "folder restored from set-aside")
                    }
                    Err(error) => {
                        tracing::warn!(kind = %table, %id, %error, "folder could not be restored from set-aside")
                    }
                }
            }
        }
        for id in ids(&folders)? {
            if self.state(table, id).await?.is_some() {
                continue;
            }
            let folder = folders.join(id.to_string());
            let done = match holds_results(&folder) {
                Ok(false) => fs::remove_dir_all(&folder).map(|()| None),
                // An unreadable folder may hold results.
                Ok(true) | Err(_) => move_into(&folder, &quarantine).map(Some),
            };
            match done {
                Ok(None) => {
                    tracing::warn!(kind = %table, %id, "removed an orphaned folder without results")
                }
                Ok(Some(place)) => {
                    let place = place.display();
                    tracing::warn!(kind = %table, %id, %place, "moved an orphaned folder to set-aside");
                }
                Err(error) => {
                    tracing::warn!(kind = %table, %id, %error, "orphaned folder could not be moved to set-aside")
                }
            }
        }
        Ok(())
    }
}

/// Ids with a folder in `folder`; other names are ignored.
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

/// Whether a folder holds results: anything but the plan, the lock, unfinished files, and a table of runs without rows.
fn holds_results(folder: &Path) -> io::Result<bool> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let is_empty = match &*name {
            "plan.json" | "lock" => true,
            "runs.csv" => fs::read_to_string(entry.path())?.lines().count() < 2,
            _ if entry.file_type()?.is_dir() => !holds_results(&entry.path())?,
            name => name.ends_with(".part"),
        };
        if !is_empty {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Moves a folder into another one, under a free name. Returns its new path.
fn move_into(folder: &Path, into: &Path) -> io::Result<PathBuf> {
    fs::create_dir_all(into)?;
    let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let places = std::iter::once(into.join(&name)).chain((2..).map(|n| into.join(format!("{name}.{n}"))));
    for place in places {
        if !place.exists() {
            fs::rename(folder, &place)?;
            return Ok(place);
        }
    }
    Err(io::Error::other("every name is taken"))
}
