//! Events of jobs, studies and trainings as server-sent events (WHATWG HTML, section 9.2).

use std::convert::Infallible;
use std::time::Duration;

use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::sse::{Event as SseEvent, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::{Stream, StreamExt, stream};
use serde::Serialize;
use utoipa::ToSchema;

use super::Api;
use super::admission::OVERLOAD_RETRY_AFTER;
use super::client::Client;
use super::concurrency_limit::ConcurrencyPermit;
use super::problem::{ApiResult, Kind, Problem};
use crate::jobs::{Subscription, Update};

/// Interval of the comments that keep an idle connection alive.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// A server-sent event.
#[derive(Serialize, ToSchema)]
#[schema(as = Event)]
pub(super) struct EventDocument {
    /// Type of the event.
    event: EventName,
    /// Value of `Last-Event-ID` that resumes after this event.
    #[schema(nullable = false, pattern = "^[0-9]+$")]
    id: Option<String>,
    /// The event's JSON object.
    #[schema(content_media_type = "application/json")]
    data: String,
}

/// Kinds of events.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[expect(dead_code, reason = "only describes a response")]
enum EventName {
    /// Summary of the job, as in the job list.
    Job,
    /// Summary of the study, as in the study list.
    Study,
    /// Summary of the training, as in the list of trainings.
    Training,
    /// The state changed.
    State,
    /// Progress was made.
    Progress,
    /// An epoch of a training has ended.
    Epoch,
    /// Earlier events are no longer available.
    Skipped,
}

/// `Last-Event-ID`; `None` for an id in another format, so that the stream starts from the beginning.
pub(super) fn last_event_id(headers: &HeaderMap) -> Option<u64> {
    headers.get("last-event-id").and_then(|value| value.to_str().ok()?.parse().ok())
}

/// Disables response buffering in nginx and compatible proxies.
const NO_BUFFERING: (HeaderName, HeaderValue) =
    (HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));

/// A permit for an event stream.
///
/// # Errors
/// [`Kind::Overloaded`] if the server or the client has too many open streams.
pub(super) fn acquire_stream(api: &Api, client: Client) -> ApiResult<ConcurrencyPermit> {
    api.streams().try_acquire(client.key).ok_or_else(|| {
        let detail = "the server or this client has too many open event streams; try again later";
        Problem::new(Kind::Overloaded, detail).retry_after(OVERLOAD_RETRY_AFTER)
    })
}

/// Streams the events after `last`. A new client first receives the resource itself, as the event `name`. The response
/// is 204 if the resource has ended and no event follows `last`.
pub(super) async fn stream_response(
    api: &Api,
    mut subscription: Subscription,
    last: Option<u64>,
    ended: bool,
    (name, resource): (&str, &impl Serialize),
    permit: ConcurrencyPermit,
) -> ApiResult<Response> {
    let first = match (last, ended) {
        (None, _) => Some(sse_event(name, resource)?),
        (Some(_), false) => None,
        // All events of an ended resource exist already, so this does not wait.
        (Some(_), true) => match subscription.next().await {
            Some(update) => Some(from_update(update)?),
            None => return Ok(StatusCode::NO_CONTENT.into_response()),
        },
    };
    let shutdown = api.shutdown().clone();
    let following = follow(subscription).take_until(async move { shutdown.cancelled().await });
    let events = stream::iter(first).chain(following).map(move |event| {
        // Releases the permit when the stream is dropped.
        let _permit = &permit;
        Ok::<_, Infallible>(event)
    });
    Ok(([NO_BUFFERING], Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE))).into_response())
}

fn follow(subscription: Subscription) -> impl Stream<Item = SseEvent> {
    subscription.into_stream().filter_map(|update| async move { from_update(update).ok() })
}

fn from_update(update: Update) -> Result<SseEvent, Problem> {
    #[derive(Serialize)]
    struct Skipped {
        events: u64,
    }
    match update {
        Update::Event { id, event } => Ok(sse_event(event.name(), &event)?.id(id.to_string())),
        Update::Skipped { events } => sse_event("skipped", &Skipped { events }),
    }
}

fn sse_event(name: &str, data: &impl Serialize) -> Result<SseEvent, Problem> {
    SseEvent::default().event(name).json_data(data).map_err(Problem::internal)
}
