//! Response to a submission of a job, study or training: location, granted wait, idempotent replay.

use std::time::{Duration, Instant};

use axum::Json;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::IntoParams;

use super::client::Client;
use super::concurrency_limit::ConcurrencyPermit;
use super::problem::{ApiResult, Kind, Problem};
use super::{Api, prefer};
use crate::jobs::{SubmitError, Submitted};
use proxygrad::Invalid;

/// Declares the request headers of a submission.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "only describes parameters")]
pub(super) struct SubmissionHeaders {
    /// `wait=N` delays the response until the result is ready, for at most N seconds (and at most 50 unless configured
    /// otherwise; not at all while too many requests are waiting).
    #[param(rename = "Prefer")]
    prefer: Option<String>,
    /// Chosen by the client, such as a UUID. A repeated request with the same key creates nothing and returns the
    /// resource of the first request.
    #[param(rename = "Idempotency-Key", min_length = 1, max_length = 255, pattern = "^[!-~]([ -~]{0,253}[!-~])?$")]
    idempotency_key: Option<String>,
}

pub(super) const PREFERENCE_APPLIED: HeaderName = HeaderName::from_static("preference-applied");
pub(super) const IDEMPOTENCY_REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

/// The wait granted to a client, and its permit for waiting.
pub(super) struct Wait {
    /// Counted from the arrival of the request.
    granted: Duration,
    until: Instant,
    _permit: Option<ConcurrencyPermit>,
}

impl Wait {
    /// Grants a wait if the client asked for one and not too many requests are waiting: a server may ignore a
    /// preference (RFC 7240, section 2). If the resource has `ended`, no permit is needed.
    pub fn grant(api: &Api, headers: &HeaderMap, client: Client, ended: bool) -> Option<Self> {
        let granted = prefer::wait(headers)?.min(api.config().max_wait);
        let permit = if ended { None } else { Some(api.waiting().try_acquire(client.key)?) };
        Some(Self { granted, until: client.received_at + granted, _permit: permit })
    }

    /// Remaining time.
    pub fn remaining(&self) -> Duration {
        self.until.saturating_duration_since(Instant::now())
    }
}

/// The submitted resource, and whether this is a replay of an earlier submission.
pub(super) fn created_or_replayed<T>(submitted: Result<Submitted<T>, SubmitError>) -> ApiResult<(T, bool)> {
    match submitted.map_err(submit_problem)? {
        Submitted::Created(new) => Ok((new, false)),
        Submitted::Replayed(known) => Ok((known, true)),
    }
}

/// The response: 200 if the resource has ended, otherwise 202.
pub(super) fn respond(
    ended: bool,
    document: impl Serialize,
    location: &str,
    wait: Option<Wait>,
    replayed: bool,
) -> ApiResult<Response> {
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

/// `Retry-After` of a full queue, in seconds.
const QUEUE_RETRY_AFTER: u32 = 5;

fn submit_problem(error: SubmitError) -> Problem {
    match error {
        SubmitError::QueueFull { .. } => {
            Problem::new(Kind::QueueFull, error.to_string()).retry_after(QUEUE_RETRY_AFTER)
        }
        SubmitError::ModelReserved { model } => {
            let expected = "an id that no other training will use";
            Problem::invalid(Kind::InvalidRequest, Invalid::new("add", model, expected))
        }
        SubmitError::KeyReused => Problem::new(Kind::IdempotencyKeyReused, error.to_string()),
        SubmitError::Store(error) => Problem::store(error),
    }
}
