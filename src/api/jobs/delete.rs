//! `DELETE /v1/jobs/{id}`: forgets a job that has ended.

use axum::extract::State;
use axum::http::StatusCode;

use super::unknown;
use crate::api::Api;
use crate::api::parameters::{InPath, InQuery};
use crate::api::problem::{Answer, Kind, Problem, declare_problems};
use crate::jobs::Deleted;

declare_problems!(Refused: InvalidParameter, UnknownJob, JobNotFinished, StorageUnavailable, NoSpace);

/// Forget a job
///
/// Its stimuli and its idempotency key go with it. Only for jobs that have ended.
#[utoipa::path(
    delete, path = "/v1/jobs/{id}", operation_id = "deleteJob", tag = "jobs",
    params(("id" = uuid::Uuid, Path, description = "The job.")),
    responses((status = 204, description = "The job is forgotten."), Refused),
)]
pub(super) async fn delete(State(api): State<Api>, path: InPath, query: InQuery) -> Answer<StatusCode> {
    query.end(&[])?;
    let id = path.job()?;
    match api.store().delete(id).await.map_err(Problem::store)? {
        Deleted::Gone => Ok(StatusCode::NO_CONTENT),
        Deleted::Unknown => Err(unknown(id)),
        Deleted::NotFinished(state) => {
            let detail = format!("job {id} is {state}; cancel it first, or wait until it has ended");
            Err(Problem::new(Kind::JobNotFinished, detail))
        }
    }
}
