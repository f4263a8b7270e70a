//! The answer to a submission, whatever was submitted: where it is, how long was waited, whether it is new.

use std::time::{Duration, Instant};

use axum::Json;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use super::budget::Place;
use super::client::Client;
use super::problem::{Answer, Kind, Problem};
use super::{Api, prefer};
use crate::jobs::{SubmitError, Submitted};

/// Name of the header with the wait that was granted.
pub(super) const PREFERENCE_APPLIED: HeaderName = HeaderName::from_static("preference-applied");
/// Name of the header that says that this was asked for before.
pub(super) const IDEMPOTENCY_REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

/// The wait that a client gets, and its place among those who wait.
pub(super) struct Wait {
    /// What it was granted, from the arrival of its request.
    granted: Duration,
    until: Instant,
    _place: Option<Place>,
}

impl Wait {
    /// The wait, if the client asked for one and not too many wait already: a server may ignore a preference (RFC 7240,
    /// section 2), and then the client asks again. Nothing is left to wait for when what was submitted has `ended`.
    pub fn grant(api: &Api, headers: &HeaderMap, client: Client, ended: bool) -> Option<Self> {
        let granted = prefer::wait(headers)?.min(api.config().max_wait);
        let place = if ended { None } else { Some(api.waiting().take(client.key)?) };
        Some(Self { granted, until: client.since + granted, _place: place })
    }

    /// What is left of it.
    pub fn left(&self) -> Duration {
        self.until.saturating_duration_since(Instant::now())
    }
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
    wait: Option<Wait>,
    replayed: bool,
) -> Answer<Response> {
    let status = if ended { StatusCode::OK } else { StatusCode::ACCEPTED };
    let mut response = (status, Json(document)).into_response();
    let headers = response.headers_mut();
    headers.insert(header::LOCATION, HeaderValue::from_str(location).map_err(Problem::internal)?);
    if let Some(wait) = wait {
        let applied = HeaderValue::from_str(&format!("wait={}", wait.granted.as_secs())).map_err(Problem::internal)?;
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
        SubmitError::Store(error) => Problem::store(error),
    }
}
