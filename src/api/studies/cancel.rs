//! `POST /v1/studies/{id}/cancel`: cancels a study.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;

use super::document::StudyDocument;
use super::study_not_found;
use crate::api::Api;
use crate::api::base_path::PublicBasePath;
use crate::api::parameters::{PathParams, QueryParams};
use crate::api::problem::{ApiResult, Problem, declare_problems};

declare_problems!(Problems: InvalidParameter, UnknownStudy, StorageUnavailable, NoSpace);

/// Cancel a study
///
/// A queued study is canceled immediately, a running one within one step. Finished runs are kept. A study that has
/// ended does not change.
#[utoipa::path(
    post, path = "/v1/studies/{id}/cancel", operation_id = "cancelStudy", tag = "studies",
    params(("id" = uuid::Uuid, Path, description = "The study.")),
    responses(
        (status = 200, description = "The study, which has ended.", body = StudyDocument),
        (status = 202, description = "The study, which will stop within one step.", body = StudyDocument),
        Problems,
    ),
)]
pub(super) async fn cancel(
    State(api): State<Api>,
    path: PathParams,
    query: QueryParams,
    base: PublicBasePath,
) -> ApiResult<(StatusCode, Json<StudyDocument>)> {
    query.end(&[])?;
    let id = path.study()?;
    let study = api.store().cancel_study(id).await.map_err(Problem::store)?.ok_or_else(|| study_not_found(id))?;
    let status = if study.state.is_terminal() { StatusCode::OK } else { StatusCode::ACCEPTED };
    Ok((status, Json(StudyDocument::of(&api, study, &base).await?)))
}
