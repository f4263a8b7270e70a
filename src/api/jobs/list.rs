//! `GET /v1/jobs`: jobs, newest first, page by page.

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use super::document::JobSummary;
use crate::api::Api;
use crate::api::parameters::InQuery;
use crate::api::problem::{Answer, Kind, Problem, declare_problems};
use crate::jobs::{Cursor, JobFilter, JobState};

/// Most jobs on a page.
const MOST: usize = 100;
/// Jobs on a page unless asked for.
const DEFAULT: usize = 20;

/// A page of jobs.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct JobPage {
    /// Newest first.
    jobs: Vec<JobSummary>,
    /// Value of `cursor` for the next page; null on the last one.
    #[schema(required)]
    next: Option<String>,
}

declare_problems!(Refused: InvalidParameter);

/// List jobs
///
/// Newest first. Following `next` shows every job that existed at the first page and was not deleted meanwhile once.
#[utoipa::path(
    get, path = "/v1/jobs", operation_id = "listJobs", tag = "jobs",
    params(
        ("state" = Option<JobState>, Query, description = "Only jobs in this state."),
        ("model" = Option<String>, Query, description = "Only jobs of this model."),
        ("cursor" = Option<String>, Query, pattern = "^[0-9a-f]{32}$", description = "`next` of the page before."),
        ("limit" = Option<u32>, Query, minimum = 1, maximum = 100, description = "Most jobs on the page; 20 unless given."),
    ),
    responses((status = 200, description = "A page of jobs.", body = JobPage), Refused),
)]
pub(super) async fn list(State(api): State<Api>, mut query: InQuery) -> Answer<Json<JobPage>> {
    let states = JobState::ALL.map(|state| (state.as_str(), state));
    let filter = JobFilter { state: query.take_choice("state", &states)?, model: query.take("model")? };
    let cursor = query.take("cursor")?.map(|text| text.parse::<Cursor>()).transpose();
    let cursor = cursor.map_err(|error| Problem::invalid(Kind::InvalidParameter, error))?;
    let limit = query.take_number("limit", 1, MOST)?.unwrap_or(DEFAULT);
    query.end(&["state", "model", "cursor", "limit"])?;

    let limit = u32::try_from(limit).map_err(Problem::internal)?;
    let page = api.store().list(&filter, cursor, limit).await.map_err(Problem::internal)?;
    let jobs = page.items.into_iter().map(JobSummary::from).collect();
    Ok(Json(JobPage { jobs, next: page.next.map(|cursor| cursor.to_string()) }))
}
