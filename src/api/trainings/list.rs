//! `GET /v1/trainings`: trainings, newest first, with pagination.

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use super::document::TrainingInList;
use crate::api::Api;
use crate::api::base_path::PublicBasePath;
use crate::api::parameters::QueryParams;
use crate::api::problem::{ApiResult, Problem, declare_problems};
use crate::jobs::RunState;

/// A page of trainings.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct TrainingPage {
    /// Newest first.
    trainings: Vec<TrainingInList>,
    /// Value of `cursor` for the next page; null on the last page.
    #[schema(required)]
    next: Option<String>,
}

declare_problems!(Problems: InvalidParameter);

/// List trainings
///
/// Newest first. Following `next` lists every training that existed at the time of the first page exactly once, except
/// deleted ones.
#[utoipa::path(
    get, path = "/v1/trainings", operation_id = "listTrainings", tag = "trainings",
    params(
        ("state" = Option<RunState>, Query, description = "Only trainings in this state."),
        ("dataset" = Option<String>, Query, description = "Only trainings on this dataset."),
        ("cursor" = Option<String>, Query, pattern = "^[0-9a-f]{32}$", description = "`next` of the previous page."),
        ("limit" = Option<u32>, Query, minimum = 1, maximum = 100,
            description = "Maximum number of trainings on the page. Default: 20."),
    ),
    responses((status = 200, description = "A page of trainings.", body = TrainingPage), Problems),
)]
pub(super) async fn list(
    State(api): State<Api>,
    mut query: QueryParams,
    base: PublicBasePath,
) -> ApiResult<Json<TrainingPage>> {
    let state = query.take_state()?;
    let dataset = query.take("dataset")?;
    let (cursor, limit) = query.take_page()?;
    query.end(&["state", "dataset", "cursor", "limit"])?;

    let page = api.store().trainings(state, dataset, cursor, limit).await.map_err(Problem::internal)?;
    let trainings = page.items.into_iter().map(|training| TrainingInList::new(training, &base)).collect();
    Ok(Json(TrainingPage { trainings, next: page.next.map(|cursor| cursor.to_string()) }))
}
