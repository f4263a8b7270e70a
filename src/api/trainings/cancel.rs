//! `POST /v1/trainings/{id}/cancel`: cancels a training.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;

use super::document::TrainingDocument;
use super::training_not_found;
use crate::api::Api;
use crate::api::base_path::PublicBasePath;
use crate::api::parameters::{PathParams, QueryParams};
use crate::api::problem::{ApiResult, Problem, declare_problems};

declare_problems!(Problems: InvalidParameter, UnknownTraining, StorageUnavailable, NoSpace);

/// Cancel a training
///
/// A queued training is canceled immediately, a running one within one step. The epochs done and their table are
/// kept. A training that has ended does not change.
#[utoipa::path(
    post, path = "/v1/trainings/{id}/cancel", operation_id = "cancelTraining", tag = "trainings",
    params(("id" = uuid::Uuid, Path, description = "The training.")),
    responses(
        (status = 200, description = "The training, which has ended.", body = TrainingDocument),
        (status = 202, description = "The training, which will stop within one step.", body = TrainingDocument),
        Problems,
    ),
)]
pub(super) async fn cancel(
    State(api): State<Api>,
    path: PathParams,
    query: QueryParams,
    base: PublicBasePath,
) -> ApiResult<(StatusCode, Json<TrainingDocument>)> {
    query.end(&[])?;
    let id = path.training()?;
    let training =
        api.store().cancel_training(id).await.map_err(Problem::store)?.ok_or_else(|| training_not_found(id))?;
    let status = if training.state.is_terminal() { StatusCode::OK } else { StatusCode::ACCEPTED };
    Ok((status, Json(TrainingDocument::new(training, &base))))
}
