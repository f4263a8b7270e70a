//! Online backup of a data directory. The copy is a data directory that a server can start on.

use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::time::Duration;

use sqlx::sqlite::{SqliteConnectOptions, SqliteRow};
use sqlx::{ConnectOptions, Connection, Row, SqliteConnection};
use uuid::Uuid;

use super::job::Stimulus;
use super::row;
use super::run_state::RunState;
use super::table::{Table, query};

/// File name of the database.
const DATABASE: &str = "jobs.sqlite3";
/// Files of the running process, and folders that are copied according to the database.
const NOT_COPIED: [&str; 9] =
    ["lock", "alive", "reserve", ".room", "stimuli", "studies", "trainings", "jobs.sqlite3-wal", "jobs.sqlite3-shm"];

/// Failure of a backup.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The source is not a data directory.
    #[error("{0} is not a data directory: it has no jobs.sqlite3")]
    NoData(PathBuf),
    /// The output folder cannot be used.
    #[error("{path}: {why}; choose a folder that does not exist or is empty")]
    Output {
        /// The folder.
        path: PathBuf,
        /// The reason.
        why: String,
    },
    /// The database cannot be copied.
    #[error("job database: {0}")]
    Database(#[from] sqlx::Error),
    /// A file cannot be copied.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
}

/// Contents of a backup.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Backup {
    /// Number of jobs.
    pub jobs: usize,
    /// Number of studies.
    pub studies: usize,
    /// Number of trainings.
    pub trainings: usize,
    /// Number of files, not counting the database.
    pub files: u64,
    /// Their size in bytes.
    pub bytes: u64,
    /// PNGs listed in the database that were already missing.
    pub missing: Vec<PathBuf>,
}

/// Copies a data directory to `output`, whether or not a server uses it: a snapshot of the database, the PNGs,
/// studies and trainings of that snapshot, the models and all other files. Until it is complete, the copy is called `OUTPUT.part`.
///
/// # Errors
/// If the source is not a data directory, `output` is not empty, or a file cannot be read or written.
pub async fn back_up(data_dir: &Path, output: &Path) -> Result<Backup, BackupError> {
    if !data_dir.join(DATABASE).is_file() {
        return Err(BackupError::NoData(data_dir.to_owned()));
    }
    let part = create_partial(data_dir, output)?;
    let options = SqliteConnectOptions::new().busy_timeout(Duration::from_secs(30)).disable_statement_logging();
    let mut live = options.clone().filename(data_dir.join(DATABASE)).connect().await?;
    let snapshot = part.join(DATABASE);
    let name = snapshot.to_str().ok_or_else(|| unfit(output, "its path is not UTF-8"))?;
    sqlx::query("VACUUM INTO ?").bind(name).execute(&mut live).await?;
    let mut copied = options.filename(&snapshot).connect().await?;

    let mut backup = Backup::default();
    for row in sqlx::query("SELECT id, state, stimuli FROM jobs").fetch_all(&mut copied).await? {
        let id = id(&row)?;
        backup.jobs += 1;
        if row.try_get::<&str, _>("state")? != RunState::Succeeded.as_str() {
            continue;
        }
        let folder = Path::new("stimuli").join(id.to_string());
        backup.copy(&data_dir.join(&folder), &part.join(&folder))?;
        let missing: Vec<PathBuf> =
            pngs(&row).map(|png| folder.join(png)).filter(|png| !part.join(png).is_file()).collect();
        // Deleted since the snapshot: delete it in the copy, too.
        if !missing.is_empty() && !backup.still_exists(Table::Jobs, id, &mut live, &mut copied).await? {
            backup.jobs -= 1;
            backup.discard(&part.join(&folder))?;
        } else {
            backup.missing.extend(missing);
        }
    }
    for table in Table::LONG {
        for row in query!(table, "SELECT id FROM ", "").fetch_all(&mut copied).await? {
            let id = id(&row)?;
            let folder = Path::new(table.name()).join(id.to_string());
            backup.copy(&data_dir.join(&folder), &part.join(&folder))?;
            if backup.still_exists(table, id, &mut live, &mut copied).await? {
                *backup.count(table) += 1;
            } else {
                backup.discard(&part.join(&folder))?;
            }
        }
    }
    copied.close().await?;
    live.close().await?;
    sync(&snapshot)?;

    for entry in fs::read_dir(data_dir).map_err(file(data_dir))? {
        let name = entry.map_err(file(data_dir))?.file_name();
        let (from, to) = (data_dir.join(&name), part.join(&name));
        let skipped = name == DATABASE || NOT_COPIED.iter().any(|not_copied| name == *not_copied);
        if !skipped {
            backup.copy(&from, &to)?;
        }
    }
    fs::rename(&part, output).map_err(file(output))?;
    Ok(backup)
}

/// Creates the folder in which the copy is assembled.
fn create_partial(data_dir: &Path, output: &Path) -> Result<PathBuf, BackupError> {
    match fs::read_dir(output).map(|mut entries| entries.next().is_some()) {
        Ok(true) => return Err(unfit(output, "is not empty")),
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(unfit(output, error)),
        _ => {}
    }
    let Some(name) = output.file_name() else { return Err(unfit(output, "has no name")) };
    let mut part = name.to_owned();
    part.push(".part");
    let part = output.with_file_name(part);
    if let Some(parent) = part.parent() {
        fs::create_dir_all(parent).map_err(file(parent))?;
    }
    fs::create_dir(&part).map_err(|error| match error.kind() {
        ErrorKind::AlreadyExists => unfit(&part, "already exists, perhaps from an interrupted backup"),
        _ => unfit(&part, error),
    })?;
    let inside = |path: &Path| Some(path.canonicalize().ok()?.starts_with(data_dir.canonicalize().ok()?));
    if inside(&part) != Some(false) {
        fs::remove_dir(&part).map_err(file(&part))?;
        return Err(unfit(output, "is inside the data directory"));
    }
    Ok(part)
}

impl Backup {
    /// Number of copied rows of a table.
    fn count(&mut self, table: Table) -> &mut usize {
        match table {
            Table::Jobs => &mut self.jobs,
            Table::Studies => &mut self.studies,
            Table::Trainings => &mut self.trainings,
        }
    }

    /// Copies a file, or a folder recursively. Files that disappear meanwhile were deleted or renamed, and are skipped.
    fn copy(&mut self, from: &Path, to: &Path) -> Result<(), BackupError> {
        match fs::metadata(from) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            Err(source) => Err(BackupError::File { path: from.to_owned(), source }),
            Ok(found) if found.is_dir() => self.copy_folder(from, to),
            Ok(found) if found.is_file() => match fs::copy(from, to) {
                Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
                Err(source) => Err(BackupError::File { path: from.to_owned(), source }),
                Ok(bytes) => {
                    (self.files, self.bytes) = (self.files + 1, self.bytes + bytes);
                    sync(to)
                }
            },
            // A socket or device.
            Ok(_) => Ok(()),
        }
    }

    fn copy_folder(&mut self, from: &Path, to: &Path) -> Result<(), BackupError> {
        let entries = match fs::read_dir(from) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            entries => entries.map_err(file(from))?,
        };
        fs::create_dir_all(to).map_err(file(to))?;
        let names: Result<Vec<_>, _> = entries.map(|entry| entry.map(|entry| entry.file_name())).collect();
        let mut names = names.map_err(file(from))?;
        // Images are written before the row of the table that refers to them, so every row copied here has its image.
        // A training reads only its checkpoint, which is complete at any time.
        names.sort_by_key(|name| name != "runs.csv");
        for name in names {
            if !is_temporary(&name.to_string_lossy()) {
                self.copy(&from.join(&name), &to.join(&name))?;
            }
        }
        Ok(())
    }

    /// Whether a job, study or training still exists; if it was deleted since, deletes it in the copy, too.
    async fn still_exists(
        &self,
        table: Table,
        id: Uuid,
        live: &mut SqliteConnection,
        copied: &mut SqliteConnection,
    ) -> Result<bool, BackupError> {
        let select = query!(table, "SELECT 1 FROM ", " WHERE id = ?");
        if select.bind(row::key(id)).fetch_optional(live).await?.is_some() {
            return Ok(true);
        }
        query!(table, "DELETE FROM ", " WHERE id = ?").bind(row::key(id)).execute(copied).await?;
        Ok(false)
    }

    /// Removes the copied files of what was deleted.
    fn discard(&self, folder: &Path) -> Result<(), BackupError> {
        match fs::remove_dir_all(folder) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(file(folder)(error)),
            _ => Ok(()),
        }
    }
}

/// Whether a file or folder is temporary: a lock, or unfinished.
fn is_temporary(name: &str) -> bool {
    matches!(name, "lock" | ".locks" | ".workbench" | ".room") || name.ends_with(".part") || name.contains(".png#")
}

/// File names of the stimuli of a job; none if its row is damaged.
fn pngs(row: &SqliteRow) -> impl Iterator<Item = String> {
    let stimuli = row::document::<Option<Vec<Stimulus>>>(row, "stimuli").ok().flatten().unwrap_or_default();
    stimuli.into_iter().flat_map(|stimulus| {
        let animation = stimulus.animation.map(|animation| animation.sha256);
        std::iter::once(stimulus.sha256).chain(animation).map(|sha256| format!("{sha256}.png"))
    })
}

fn id(row: &SqliteRow) -> Result<Uuid, BackupError> {
    let bytes: Vec<u8> = row.try_get("id")?;
    Uuid::from_slice(&bytes).map_err(|error| sqlx::Error::Decode(error.into()).into())
}

fn sync(path: &Path) -> Result<(), BackupError> {
    File::open(path).and_then(|file| file.sync_all()).map_err(file(path))
}

fn file(path: &Path) -> impl FnOnce(io::Error) -> BackupError {
    let path = path.to_owned();
    |source| BackupError::File { path, source }
}

fn unfit(path: &Path, why: impl ToString) -> BackupError {
    BackupError::Output { path: path.to_owned(), why: why.to_string() }
}
