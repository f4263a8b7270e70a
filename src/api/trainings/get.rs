//! `GET /v1/trainings/{id}`: a training.

use axum::Json;
use axum::extract::State;

use super::document::TrainingDocument;
use crate::api::Api;
use crate::api::base_path::PublicBasePath;
use crate::api::parameters::{PathParams, QueryParams};
use crate::api::problem::{ApiResult, declare_problems};

declare_problems!(Problems: InvalidParameter, UnknownTraining);

/// Get a training
#[utoipa::path(
    get, path = "/v1/trainings/{id}", operation_id = "getTraining", tag = "trainings",
    params(("id" = uuid::Uuid, Path, description = "The training.")),
    responses((status = 200, description = "The training.", body = TrainingDocument), Problems),
)]
pub(super) async fn get(
    State(api): State<Api>,
    path: PathParams,
    query: QueryParams,
    base: PublicBasePath,
) -> ApiResult<Json<TrainingDocument>> {
    query.end(&[])?;
    let training = api.training(path.training()?).await?;
    Ok(Json(TrainingDocument::new(training, &base)))
}
