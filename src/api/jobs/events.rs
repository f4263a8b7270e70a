//! `GET /v1/jobs/{id}/events`: server-sent events of a job.

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;

use super::document::JobSummary;
use super::job_not_found;
use crate::api::base_path::PublicBasePath;
use crate::api::client::Client;
use crate::api::events::EventDocument;
use crate::api::parameters::{PathParams, QueryParams};
use crate::api::problem::{ApiResult, Problem, declare_problems};
use crate::api::{Api, events as sse};

declare_problems!(Problems: InvalidParameter, UnknownJob);

/// Watch a job
///
/// Server-sent events. The first event is `job`, the summary of the job as in the job list. It is followed by `state`
/// (`{"state": "running"}`) and `progress` (`{"step": 12, "steps": 256, "stimulus": 0, "score": 1.5}`), beginning with
/// recent events. `skipped` (`{"events": 40}`) replaces events that are no longer available. The stream ends after the
/// final state of the job. With `Last-Event-ID` the stream resumes after that event; if no event can follow, the
/// response is 204, which tells an `EventSource` not to reconnect.
#[utoipa::path(
    get, path = "/v1/jobs/{id}/events", operation_id = "watchJob", tag = "jobs",
    params(
        ("id" = uuid::Uuid, Path, description = "The job."),
        ("Last-Event-ID" = Option<String>, Header, description = "Id of the last received event."),
    ),
    responses(
        (status = 200, description = "The event stream.", content_type = "text/event-stream", body = EventDocument),
        (status = 204, description = "The job has ended, and no events follow."),
        Problems,
    ),
)]
pub(super) async fn events(
    State(api): State<Api>,
    path: PathParams,
    query: QueryParams,
    headers: HeaderMap,
    client: Client,
    base: PublicBasePath,
) -> ApiResult<Response> {
    query.end(&[])?;
    let id = path.job()?;
    let permit = sse::acquire_stream(&api, client)?;
    let last = sse::last_event_id(&headers);
    let subscribed = api.store().subscribe(id, last).await.map_err(Problem::internal)?;
    let subscription = subscribed.ok_or_else(|| job_not_found(id))?;
    let job = api.job(id).await?;
    let ended = job.state.is_terminal();
    sse::stream_response(&api, subscription, last, ended, ("job", &JobSummary::new(job, &base)), permit).await
}
