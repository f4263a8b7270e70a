//! `GET /v1/jobs`: jobs, newest first, with pagination.

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use super::document::JobSummary;
use crate::api::Api;
use crate::api::base_path::PublicBasePath;
use crate::api::parameters::QueryParams;
use crate::api::problem::{ApiResult, Problem, declare_problems};
use crate::jobs::{JobFilter, RunState};

/// A page of jobs.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct JobPage {
    /// Newest first.
    jobs: Vec<JobSummary>,
    /// Value of `cursor` for the next page; null on the last page.
    #[schema(required)]
    next: Option<String>,
}

declare_problems!(Problems: InvalidParameter);

/// List jobs
///
/// Newest first. Following `next` lists every job that existed at the time of the first page exactly once, except
/// deleted ones.
#[utoipa::path(
    get, path = "/v1/jobs", operation_id = "listJobs", tag = "jobs",
    params(
        ("state" = Option<RunState>, Query, description = "Only jobs in this state."),
        ("model" = Option<String>, Query, description = "Only jobs of this model."),
        ("cursor" = Option<String>, Query, pattern = "^[0-9a-f]{32}$", description = "`next` of the previous page."),
        ("limit" = Option<u32>, Query, minimum = 1, maximum = 100, description = "Maximum number of jobs on the page. Default: 20."),
    ),
    responses((status = 200, description = "A page of jobs.", body = JobPage), Problems),
)]
pub(super) async fn list(
    State(api): State<Api>,
    mut query: QueryParams,
    base: PublicBasePath,
) -> ApiResult<Json<JobPage>> {
    let filter = JobFilter { state: query.take_state()?, model: query.take("model")? };
    let (cursor, limit) = query.take_page()?;
    query.end(&["state", "model", "cursor", "limit"])?;

    let page = api.store().list(&filter, cursor, limit).await.map_err(Problem::internal)?;
    let jobs = page.items.into_iter().map(|job| JobSummary::new(job, &base)).collect();
    Ok(Json(JobPage { jobs, next: page.next.map(|cursor| cursor.to_string()) }))
}
