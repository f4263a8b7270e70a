//! The answer to a submission, whatever was submitted: where it is, how long was waited, whether it is new.

use std::time::Duration;

use axum::Json;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use super::problem::{Answer, Kind, Problem};
use super::{Api, prefer};
use crate::jobs::{SubmitError, Submitted};

const PREFERENCE_APPLIED: HeaderName = HeaderName::from_static("preference-applied");
const IDEMPOTENCY_REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

/// The wait that the client gets, if it asked for one.
pub(super) fn granted(api: &Api, headers: &HeaderMap) -> Option<Duration> {
    prefer::wait(headers).map(|wait| wait.min(api.config().max_wait))
}

/// What was submitted, and whether that was before.
pub(super) fn taken<T>(submitted: Result<Submitted<T>, SubmitError>) -> Answer<(T, bool)> {
    match submitted.map_err(refused)? {
        Submitted::Created(new) => Ok((new, false)),
        Submitted::Replayed(known) => Ok((known, true)),
    }
}

/// The answer: 200 once it has ended, 202 until then.
pub(super) fn answer(
    ended: bool,
    document: impl Serialize,
    location: &str,
    wait: Option<Duration>,
    replayed: bool,
) -> Answer<Response> {
    let status = if ended { StatusCode::OK } else { StatusCode::ACCEPTED };
    let mut response = (status, Json(document)).into_response();
    let headers = response.headers_mut();
    headers.insert(header::LOCATION, HeaderValue::from_str(location).map_err(Problem::internal)?);
    if let Some(wait) = wait {
        let applied = HeaderValue::from_str(&format!("wait={}", wait.as_secs())).map_err(Problem::internal)?;
        headers.insert(PREFERENCE_APPLIED, applied);
    }
    if replayed {
        headers.insert(IDEMPOTENCY_REPLAYED, HeaderValue::from_static("true"));
    }
    Ok(response)
}

/// Seconds after which a full queue has probably moved.
const QUEUE_MOVES: u32 = 5;

fn refused(error: SubmitError) -> Problem {
    match error {
        SubmitError::QueueFull { .. } => Problem::new(Kind::QueueFull, error.to_string()).retry_after(QUEUE_MOVES),
        SubmitError::KeyReused => Problem::new(Kind::IdempotencyKeyReused, error.to_string()),
        SubmitError::Store(error) => Problem::internal(error),
    }
}
