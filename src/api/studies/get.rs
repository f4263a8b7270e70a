//! `GET /v1/studies/{id}`: a study.

use axum::Json;
use axum::extract::State;

use super::document::StudyDocument;
use crate::api::Api;
use crate::api::base_path::PublicBasePath;
use crate::api::parameters::{PathParams, QueryParams};
use crate::api::problem::{ApiResult, declare_problems};

declare_problems!(Problems: InvalidParameter, UnknownStudy);

/// Get a study
#[utoipa::path(
    get, path = "/v1/studies/{id}", operation_id = "getStudy", tag = "studies",
    params(("id" = uuid::Uuid, Path, description = "The study.")),
    responses((status = 200, description = "The study.", body = StudyDocument), Problems),
)]
pub(super) async fn get(
    State(api): State<Api>,
    path: PathParams,
    query: QueryParams,
    base: PublicBasePath,
) -> ApiResult<Json<StudyDocument>> {
    query.end(&[])?;
    let study = api.study(path.study()?).await?;
    StudyDocument::of(&api, study, &base).await.map(Json)
}
