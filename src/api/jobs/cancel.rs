//! `POST /v1/jobs/{id}/cancel`: stops a job.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;

use super::document::JobDocument;
use super::unknown;
use crate::api::Api;
use crate::api::base::Base;
use crate::api::parameters::{InPath, InQuery};
use crate::api::problem::{Answer, Problem, declare_problems};

declare_problems!(Refused: InvalidParameter, UnknownJob, StorageUnavailable, NoSpace);

/// Stop a job
///
/// A queued job is canceled at once, a running one within one step. A job that has ended stays as it is.
#[utoipa::path(
    post, path = "/v1/jobs/{id}/cancel", operation_id = "cancelJob", tag = "jobs",
    params(("id" = uuid::Uuid, Path, description = "The job.")),
    responses(
        (status = 200, description = "The job; it has ended.", body = JobDocument),
        (status = 202, description = "The job; it will stop within one step.", body = JobDocument),
        Refused,
    ),
)]
pub(super) async fn cancel(
    State(api): State<Api>,
    path: InPath,
    query: InQuery,
    base: Base,
) -> Answer<(StatusCode, Json<JobDocument>)> {
    query.end(&[])?;
    let id = path.job()?;
    let job = api.store().cancel(id).await.map_err(Problem::store)?;
    let job = job.ok_or_else(|| unknown(id))?;
    let status = if job.state.is_terminal() { StatusCode::OK } else { StatusCode::ACCEPTED };
    Ok((status, Json(JobDocument::new(job, &base))))
}
