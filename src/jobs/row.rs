//! Jobs as rows of the database.

use sqlx::Row;
use sqlx::sqlite::SqliteRow;
use time::OffsetDateTime;
use uuid::Uuid;

use super::error::StoreError;
use super::job::{Job, JobState, Progress};
use crate::maximize::Resolved;

/// The columns that make a [`Job`], for `SELECT`.
macro_rules! columns {
    () => {
        "id, state, model, model_digest, request, created_at, started_at, finished_at, attempts, cancel_requested, \
         step, stimuli, problem"
    };
}
pub(super) use columns;

/// The time now, to the millisecond, as it is stored.
pub(super) fn now() -> i64 {
    let nanoseconds = OffsetDateTime::now_utc().unix_timestamp_nanos();
    i64::try_from(nanoseconds / 1_000_000).unwrap_or(i64::MAX)
}

/// A stored time.
pub(super) fn time(milliseconds: i64) -> Result<OffsetDateTime, time::error::ComponentRange> {
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(milliseconds) * 1_000_000)
}

/// Milliseconds from one time to another, 0 when the clock was set back between them.
pub(super) fn milliseconds(from: OffsetDateTime, to: Option<OffsetDateTime>) -> u64 {
    to.map_or(0, |to| u64::try_from((to - from).whole_milliseconds()).unwrap_or(0))
}

/// An id as it is stored.
pub(super) fn key(id: Uuid) -> Vec<u8> {
    id.into_bytes().to_vec()
}

/// The id of the row, which every other error names.
pub(super) fn id(row: &SqliteRow) -> Result<Uuid, StoreError> {
    let bytes: Vec<u8> = row.try_get("id")?;
    Uuid::from_slice(&bytes).map_err(|error| sqlx::Error::Decode(error.into()).into())
}

/// Reads a job from its row.
pub(super) fn job(row: &SqliteRow) -> Result<Job, StoreError> {
    let id = id(row)?;
    let damaged = |column: &str, why: &dyn std::fmt::Display| {
        let why = format!("{column}: {why}");
        StoreError::Damaged { id, why }
    };
    let state = row.try_get::<&str, _>("state")?.parse::<JobState>().map_err(|e| damaged("state", &e))?;
    let request: &str = row.try_get("request")?;
    let Resolved { objectives, settings, seed, .. } =
        serde_json::from_str(request).map_err(|e| damaged("request", &e))?;
    let stimuli = match row.try_get::<Option<&str>, _>("stimuli")? {
        Some(json) => serde_json::from_str(json).map_err(|e| damaged("stimuli", &e))?,
        None => Vec::new(),
    };
    let problem = match row.try_get::<Option<&str>, _>("problem")? {
        Some(json) => Some(serde_json::from_str(json).map_err(|e| damaged("problem", &e))?),
        None => None,
    };
    let moment = |column: &str| -> Result<Option<OffsetDateTime>, StoreError> {
        let milliseconds: Option<i64> = row.try_get(column)?;
        milliseconds.map(time).transpose().map_err(|e| damaged(column, &e))
    };
    let progress = Progress { step: row.try_get("step")?, ..Progress::none(objectives.len(), &settings) };
    Ok(Job {
        id,
        state,
        model: row.try_get("model")?,
        model_digest: row.try_get("model_digest")?,
        created_at: moment("created_at")?.ok_or_else(|| damaged("created_at", &"is missing"))?,
        started_at: moment("started_at")?,
        finished_at: moment("finished_at")?,
        attempts: row.try_get("attempts")?,
        cancel_requested: row.try_get("cancel_requested")?,
        objectives,
        settings,
        seed,
        progress,
        stimuli,
        problem,
    })
}

/// A document as the text of a column.
pub(super) fn json(document: &impl serde::Serialize) -> Result<String, StoreError> {
    serde_json::to_string(document).map_err(|error| sqlx::Error::Encode(error.into()).into())
}
