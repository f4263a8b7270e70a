//! `DELETE /v1/studies/{id}`: deletes a study that has ended.

use axum::extract::State;
use axum::http::StatusCode;

use super::study_not_found;
use crate::api::Api;
use crate::api::parameters::{PathParams, QueryParams};
use crate::api::problem::{ApiResult, Kind, Problem, declare_problems};
use crate::jobs::Deleted;

declare_problems!(Problems: InvalidParameter, UnknownStudy, StudyNotFinished, StorageUnavailable, NoSpace);

/// Delete a study
///
/// Also deletes its runs, its images and its idempotency key. The study must have ended.
#[utoipa::path(
    delete, path = "/v1/studies/{id}", operation_id = "deleteStudy", tag = "studies",
    params(("id" = uuid::Uuid, Path, description = "The study.")),
    responses((status = 204, description = "The study was deleted."), Problems),
)]
pub(super) async fn delete(State(api): State<Api>, path: PathParams, query: QueryParams) -> ApiResult<StatusCode> {
    query.end(&[])?;
    let id = path.study()?;
    match api.store().delete_study(id).await.map_err(Problem::store)? {
        Deleted::Gone => Ok(StatusCode::NO_CONTENT),
        Deleted::Unknown => Err(study_not_found(id)),
        Deleted::NotFinished(state) => {
            let detail = format!("study {id} is {state}; cancel it first, or wait until it has ended");
            Err(Problem::new(Kind::StudyNotFinished, detail))
        }
    }
}
