//! `GET /v1/jobs/{id}/events`: what happens to a job, as server-sent events (WHATWG HTML, section 9.2).

use std::convert::Infallible;
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::sse::{Event as Line, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::{Stream, StreamExt, stream};
use serde::Serialize;
use utoipa::ToSchema;

use super::document::JobSummary;
use crate::api::Api;
use crate::api::parameters::{InPath, InQuery};
use crate::api::problem::{Answer, Kind, Problem, declare_problems};
use crate::jobs::{Subscription, Update};

/// Time without events after which a comment shows that the connection lives.
const SILENCE: Duration = Duration::from_secs(15);

/// A server-sent event.
#[derive(Serialize, ToSchema)]
#[schema(as = JobEvent)]
struct EventDocument {
    /// What `data` holds.
    event: EventName,
    /// What to send as `Last-Event-ID` to go on behind this event.
    #[schema(nullable = false, pattern = "^[0-9]+$")]
    id: Option<String>,
    /// A JSON object.
    #[schema(content_media_type = "application/json")]
    data: String,
}

/// Kinds of events.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[expect(dead_code, reason = "only describes an answer")]
enum EventName {
    /// The job, as in a list.
    Job,
    /// The job went into another state.
    State,
    /// A step was scored.
    Progress,
    /// Events that came before the next one are gone.
    Skipped,
}

declare_problems!(Refused: InvalidParameter, UnknownJob);

/// Watch a job
///
/// Server-sent events. A new watcher first gets `job`, the job as in a list; then, as they happen, `state`
/// (`{"state": "running"}`) and `progress` (`{"step": 12, "steps": 256, "stimulus": 0, "score": 1.5}`), starting with
/// those that are still remembered. `skipped` (`{"events": 40}`) stands in the place of events that are not. The stream
/// ends after the state in which the job ends. A watcher that comes back with `Last-Event-ID` goes on behind that event;
/// when nothing can follow, the answer is 204, which tells an `EventSource` to stop.
#[utoipa::path(
    get, path = "/v1/jobs/{id}/events", operation_id = "watchJob", tag = "jobs",
    params(
        ("id" = uuid::Uuid, Path, description = "The job."),
        ("Last-Event-ID" = Option<String>, Header, description = "Id of the last event that the client got."),
    ),
    responses(
        (status = 200, description = "The events.", content_type = "text/event-stream", body = EventDocument),
        (status = 204, description = "The job has ended, and the client knows."),
        Refused,
    ),
)]
pub(super) async fn events(
    State(api): State<Api>,
    path: InPath,
    query: InQuery,
    headers: HeaderMap,
) -> Answer<Response> {
    query.end(&[])?;
    let id = path.job()?;
    // An id that was not given out here says nothing: the watcher starts anew, as if it had none.
    let last = headers.get("last-event-id").and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    let subscribed = api.store().subscribe(id, last).await.map_err(Problem::internal)?;
    let mut subscription = subscribed.ok_or_else(|| Problem::new(Kind::UnknownJob, format!("there is no job {id}")))?;
    let job = api.job(id).await?;

    let first = match (last, job.state.is_terminal()) {
        (None, _) => Some(line("job", &JobSummary::from(job))?),
        (Some(_), false) => None,
        // The events of a job that has ended are all there: this does not wait.
        (Some(_), true) => match subscription.next().await {
            Some(update) => Some(show(update)?),
            None => return Ok(StatusCode::NO_CONTENT.into_response()),
        },
    };
    let stop = api.ending().clone();
    let following = follow(subscription).take_until(async move { stop.cancelled().await });
    let lines = stream::iter(first).chain(following).map(Ok::<_, Infallible>);
    Ok(Sse::new(lines).keep_alive(KeepAlive::new().interval(SILENCE)).into_response())
}

fn follow(subscription: Subscription) -> impl Stream<Item = Line> {
    subscription.into_stream().filter_map(|update| async move { show(update).ok() })
}

/// An update as it goes over the wire.
fn show(update: Update) -> Result<Line, Problem> {
    #[derive(Serialize)]
    struct Skipped {
        events: u64,
    }
    match update {
        Update::Event { id, event } => Ok(line(event.name(), &event)?.id(id.to_string())),
        Update::Skipped { events } => line("skipped", &Skipped { events }),
    }
}

fn line(name: &str, data: &impl Serialize) -> Result<Line, Problem> {
    Line::default().event(name).json_data(data).map_err(Problem::internal)
}
