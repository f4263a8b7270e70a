//! `GET /v1/studies/{id}`: one study.

use axum::Json;
use axum::extract::State;

use super::document::StudyDocument;
use crate::api::Api;
use crate::api::base::Base;
use crate::api::parameters::{InPath, InQuery};
use crate::api::problem::{Answer, declare_problems};

declare_problems!(Refused: InvalidParameter, UnknownStudy);

/// Look at a study
#[utoipa::path(
    get, path = "/v1/studies/{id}", operation_id = "getStudy", tag = "studies",
    params(("id" = uuid::Uuid, Path, description = "The study.")),
    responses((status = 200, description = "The study.", body = StudyDocument), Refused),
)]
pub(super) async fn get(
    State(api): State<Api>,
    path: InPath,
    query: InQuery,
    base: Base,
) -> Answer<Json<StudyDocument>> {
    query.end(&[])?;
    let study = api.study(path.study()?).await?;
    StudyDocument::of(&api, study, &base).await.map(Json)
}
