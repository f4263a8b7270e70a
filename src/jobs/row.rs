//! Conversion between database rows and jobs, studies or trainings.

use serde::de::DeserializeOwned;
use sqlx::Row;
use sqlx::sqlite::SqliteRow;
use time::OffsetDateTime;
use uuid::Uuid;

use super::error::StoreError;
use super::job::{Job, Progress};
use super::run_state::RunState;
use super::study::{Study, StudyProgress};
use super::training::{Training, TrainingOrder, TrainingProgress};
use proxygrad::maximize::Resolved;

/// Columns of a [`Job`], for `SELECT`.
macro_rules! columns {
    () => {
        "id, state, model, model_digest, request, created_at, started_at, finished_at, attempts, cancel_requested, \
         step, stimuli, problem"
    };
}
pub(super) use columns;

/// Columns of a [`Study`], for `SELECT`.
macro_rules! study_columns {
    () => {
        "id, state, models, total, done, images, created_at, started_at, finished_at, cancel_requested, problem"
    };
}
pub(super) use study_columns;

/// Columns of a [`Training`], for `SELECT`.
macro_rules! training_columns {
    () => {
        "id, state, dataset, model, recipe, data, total, done, last, best, created_at, started_at, finished_at, \
         cancel_requested, problem"
    };
}
pub(super) use training_columns;

/// The current time as stored: milliseconds since 1970.
pub(super) fn now() -> i64 {
    let nanoseconds = OffsetDateTime::now_utc().unix_timestamp_nanos();
    i64::try_from(nanoseconds / 1_000_000).unwrap_or(i64::MAX)
}

/// A stored time.
pub(super) fn time(milliseconds: i64) -> Result<OffsetDateTime, time::error::ComponentRange> {
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(milliseconds) * 1_000_000)
}

/// Milliseconds between two times, 0 if the clock was set back in between.
pub(super) fn milliseconds(from: OffsetDateTime, to: Option<OffsetDateTime>) -> u64 {
    to.map_or(0, |to| u64::try_from((to - from).whole_milliseconds()).unwrap_or(0))
}

/// An id as stored.
pub(super) fn key(id: Uuid) -> Vec<u8> {
    id.into_bytes().to_vec()
}

/// Id of a row; errors about the row name it.
pub(super) fn id(row: &SqliteRow) -> Result<Uuid, StoreError> {
    let bytes: Vec<u8> = row.try_get("id")?;
    Uuid::from_slice(&bytes).map_err(|error| sqlx::Error::Decode(error.into()).into())
}

/// Reads a job from its row.
pub(super) fn job(row: &SqliteRow) -> Result<Job, StoreError> {
    let id = id(row)?;
    let resolved: Resolved = document(row, "request")?;
    let progress = Progress { step: row.try_get("step")?, ..Progress::none(&resolved) };
    let Resolved { objectives, settings, other_settings, seed, .. } = resolved;
    Ok(Job {
        id,
        state: state(row)?,
        model: row.try_get("model")?,
        model_digest: row.try_get("model_digest")?,
        created_at: created_at(row)?,
        started_at: moment(row, "started_at")?,
        finished_at: moment(row, "finished_at")?,
        attempts: row.try_get("attempts")?,
        cancel_requested: row.try_get("cancel_requested")?,
        objectives,
        settings,
        other_settings,
        seed,
        progress,
        stimuli: document::<Option<_>>(row, "stimuli")?.unwrap_or_default(),
        problem: document(row, "problem")?,
    })
}

/// Reads a study from its row.
pub(super) fn study(row: &SqliteRow) -> Result<Study, StoreError> {
    let count = |column: &str| row.try_get::<i64, _>(column).map(|count| usize::try_from(count).unwrap_or(0));
    Ok(Study {
        id: id(row)?,
        state: state(row)?,
        models: document(row, "models")?,
        created_at: created_at(row)?,
        started_at: moment(row, "started_at")?,
        finished_at: moment(row, "finished_at")?,
        cancel_requested: row.try_get("cancel_requested")?,
        images: count("images")?,
        progress: StudyProgress { done: count("done")? as f64, total: count("total")?, now: None },
        problem: document(row, "problem")?,
    })
}

/// Reads a training from its row.
pub(super) fn training(row: &SqliteRow) -> Result<Training, StoreError> {
    let count = |column: &str| row.try_get::<i64, _>(column).map(|count| usize::try_from(count).unwrap_or(0));
    let order = TrainingOrder {
        dataset: row.try_get("dataset")?,
        data: document(row, "data")?,
        recipe: document(row, "recipe")?,
        add: row.try_get("model")?,
    };
    Ok(Training {
        id: id(row)?,
        state: state(row)?,
        order,
        created_at: created_at(row)?,
        started_at: moment(row, "started_at")?,
        finished_at: moment(row, "finished_at")?,
        cancel_requested: row.try_get("cancel_requested")?,
        progress: TrainingProgress { epochs_done: count("done")?, epochs: count("total")?, now: None },
        last: document(row, "last")?,
        best: document(row, "best")?,
        problem: document(row, "problem")?,
    })
}

/// Error about a column of a row.
fn damaged(row: &SqliteRow, column: &str, why: impl std::fmt::Display) -> StoreError {
    match id(row) {
        Ok(id) => StoreError::Damaged { id, why: format!("{column}: {why}") },
        Err(error) => error,
    }
}

/// State of a row that also has the column `id`.
pub(super) fn state(row: &SqliteRow) -> Result<RunState, StoreError> {
    row.try_get::<&str, _>("state")?.parse().map_err(|error| damaged(row, "state", error))
}

/// Reads a column that holds JSON; NULL counts as `null`.
pub(super) fn document<T: DeserializeOwned>(row: &SqliteRow, column: &str) -> Result<T, StoreError> {
    let json: Option<&str> = row.try_get(column)?;
    serde_json::from_str(json.unwrap_or("null")).map_err(|error| damaged(row, column, error))
}

fn moment(row: &SqliteRow, column: &str) -> Result<Option<OffsetDateTime>, StoreError> {
    let milliseconds: Option<i64> = row.try_get(column)?;
    milliseconds.map(time).transpose().map_err(|error| damaged(row, column, error))
}

fn created_at(row: &SqliteRow) -> Result<OffsetDateTime, StoreError> {
    moment(row, "created_at")?.ok_or_else(|| damaged(row, "created_at", "is missing"))
}

/// A document as JSON for a column.
pub(super) fn json(document: &impl serde::Serialize) -> Result<String, StoreError> {
    serde_json::to_string(document).map_err(|error| sqlx::Error::Encode(error.into()).into())
}
