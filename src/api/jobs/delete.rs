//! `DELETE /v1/jobs/{id}`: deletes a job that has ended.

use axum::extract::State;
use axum::http::StatusCode;

use super::job_not_found;
use crate::api::Api;
use crate::api::parameters::{PathParams, QueryParams};
use crate::api::problem::{ApiResult, Kind, Problem, declare_problems};
use crate::jobs::Deleted;

declare_problems!(Problems: InvalidParameter, UnknownJob, JobNotFinished, StorageUnavailable, NoSpace);

/// Delete a job
///
/// Also deletes its stimuli and its idempotency key. The job must have ended.
#[utoipa::path(
    delete, path = "/v1/jobs/{id}", operation_id = "deleteJob", tag = "jobs",
    params(("id" = uuid::Uuid, Path, description = "The job.")),
    responses((status = 204, description = "The job was deleted."), Problems),
)]
pub(super) async fn delete(State(api): State<Api>, path: PathParams, query: QueryParams) -> ApiResult<StatusCode> {
    query.end(&[])?;
    let id = path.job()?;
    match api.store().delete(id).await.map_err(Problem::store)? {
        Deleted::Gone => Ok(StatusCode::NO_CONTENT),
        Deleted::Unknown => Err(job_not_found(id)),
        Deleted::NotFinished(state) => {
            let detail = format!("job {id} is {state}; cancel it first, or wait until it has ended");
            Err(Problem::new(Kind::JobNotFinished, detail))
        }
    }
}
