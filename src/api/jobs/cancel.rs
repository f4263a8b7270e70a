//! `POST /v1/jobs/{id}/cancel`: cancels a job.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;

use super::document::JobDocument;
use super::job_not_found;
use crate::api::Api;
use crate::api::base_path::PublicBasePath;
use crate::api::parameters::{PathParams, QueryParams};
use crate::api::problem::{ApiResult, Problem, declare_problems};

declare_problems!(Problems: InvalidParameter, UnknownJob, StorageUnavailable, NoSpace);

/// Cancel a job
///
/// A queued job is canceled immediately, a running one within one step. A job that has ended does not change.
#[utoipa::path(
    post, path = "/v1/jobs/{id}/cancel", operation_id = "cancelJob", tag = "jobs",
    params(("id" = uuid::Uuid, Path, description = "The job.")),
    responses(
        (status = 200, description = "The job, which has ended.", body = JobDocument),
        (status = 202, description = "The job, which will stop within one step.", body = JobDocument),
        Problems,
    ),
)]
pub(super) async fn cancel(
    State(api): State<Api>,
    path: PathParams,
    query: QueryParams,
    base: PublicBasePath,
) -> ApiResult<(StatusCode, Json<JobDocument>)> {
    query.end(&[])?;
    let id = path.job()?;
    let job = api.store().cancel(id).await.map_err(Problem::store)?;
    let job = job.ok_or_else(|| job_not_found(id))?;
    let status = if job.state.is_terminal() { StatusCode::OK } else { StatusCode::ACCEPTED };
    Ok((status, Json(JobDocument::new(job, &base))))
}
