//! `DELETE /v1/trainings/{id}`: deletes a training that has ended.

use axum::extract::State;
use axum::http::StatusCode;

use super::training_not_found;
use crate::api::Api;
use crate::api::parameters::{PathParams, QueryParams};
use crate::api::problem::{ApiResult, Kind, Problem, declare_problems};
use crate::jobs::Deleted;

declare_problems!(Problems: InvalidParameter, UnknownTraining, TrainingNotFinished, StorageUnavailable, NoSpace);

/// Delete a training
///
/// Also deletes its checkpoints, its files and its idempotency key. The model that it became stays. The training must have
/// ended.
#[utoipa::path(
    delete, path = "/v1/trainings/{id}", operation_id = "deleteTraining", tag = "trainings",
    params(("id" = uuid::Uuid, Path, description = "The training.")),
    responses((status = 204, description = "The training was deleted."), Problems),
)]
pub(super) async fn delete(State(api): State<Api>, path: PathParams, query: QueryParams) -> ApiResult<StatusCode> {
    query.end(&[])?;
    let id = path.training()?;
    match api.store().delete_training(id).await.map_err(Problem::store)? {
        Deleted::Gone => Ok(StatusCode::NO_CONTENT),
        Deleted::Unknown => Err(training_not_found(id)),
        Deleted::NotFinished(state) => {
            let detail = format!("training {id} is {state}; cancel it first, or wait until it has ended");
            Err(Problem::new(Kind::TrainingNotFinished, detail))
        }
    }
}
