//! `GET /v1/studies`: studies, newest first, with pagination.

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use super::document::StudyInList;
use crate::api::Api;
use crate::api::base_path::PublicBasePath;
use crate::api::parameters::QueryParams;
use crate::api::problem::{ApiResult, Problem, declare_problems};
use crate::jobs::RunState;

/// A page of studies.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct StudyPage {
    /// Newest first.
    studies: Vec<StudyInList>,
    /// Value of `cursor` for the next page; null on the last page.
    #[schema(required)]
    next: Option<String>,
}

declare_problems!(Problems: InvalidParameter);

/// List studies
///
/// Newest first. Following `next` lists every study that existed at the time of the first page exactly once, except
/// deleted ones.
#[utoipa::path(
    get, path = "/v1/studies", operation_id = "listStudies", tag = "studies",
    params(
        ("state" = Option<RunState>, Query, description = "Only studies in this state."),
        ("cursor" = Option<String>, Query, pattern = "^[0-9a-f]{32}$", description = "`next` of the previous page."),
        ("limit" = Option<u32>, Query, minimum = 1, maximum = 100,
            description = "Maximum number of studies on the page. Default: 20."),
    ),
    responses((status = 200, description = "A page of studies.", body = StudyPage), Problems),
)]
pub(super) async fn list(
    State(api): State<Api>,
    mut query: QueryParams,
    base: PublicBasePath,
) -> ApiResult<Json<StudyPage>> {
    let state = query.take_state()?;
    let (cursor, limit) = query.take_page()?;
    query.end(&["state", "cursor", "limit"])?;

    let page = api.store().studies(state, cursor, limit).await.map_err(Problem::internal)?;
    let studies = page.items.into_iter().map(|study| StudyInList::new(study, &base)).collect();
    Ok(Json(StudyPage { studies, next: page.next.map(|cursor| cursor.to_string()) }))
}
