//! What happens to a job or a study, as server-sent events (WHATWG HTML, section 9.2).

use std::convert::Infallible;
use std::time::Duration;

use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::sse::{Event as Line, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::{Stream, StreamExt, stream};
use serde::Serialize;
use utoipa::ToSchema;

use super::Api;
use super::budget::Place;
use super::client::Client;
use super::guard::ROOM;
use super::problem::{Answer, Kind, Problem};
use crate::jobs::{Subscription, Update};

/// Time without events after which a comment shows that the connection lives.
const SILENCE: Duration = Duration::from_secs(15);

/// A server-sent event.
#[derive(Serialize, ToSchema)]
#[schema(as = Event)]
pub(super) struct EventDocument {
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
    /// The study, as in a list.
    Study,
    /// It went into another state.
    State,
    /// It has come further.
    Progress,
    /// Events that came before the next one are gone.
    Skipped,
}

/// The last event that a client got. An id that was not given out here says nothing: the watcher starts anew, as if it had
/// none.
pub(super) fn last(headers: &HeaderMap) -> Option<u64> {
    headers.get("last-event-id").and_then(|value| value.to_str().ok()?.parse().ok())
}

/// Tells nginx, and proxies that follow it, to pass on every event at once instead of collecting them in a buffer.
const NO_BUFFER: (HeaderName, HeaderValue) =
    (HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));

/// A place for a stream of events, as long as there are not too many.
pub(super) fn place(api: &Api, client: Client) -> Answer<Place> {
    api.streams().take(client.key).ok_or_else(|| {
        let detail = "as many streams of events are open as this server, or this client, may have; try again later";
        Problem::new(Kind::Overloaded, detail).retry_after(ROOM)
    })
}

/// The events behind `last`; for a new watcher behind what is watched itself, given with its name. Nothing when it has
/// ended and the client knows.
pub(super) async fn answer(
    api: &Api,
    mut subscription: Subscription,
    last: Option<u64>,
    ended: bool,
    (name, watched): (&str, &impl Serialize),
    place: Place,
) -> Answer<Response> {
    let first = match (last, ended) {
        (None, _) => Some(line(name, watched)?),
        (Some(_), false) => None,
        // The events of what has ended are all there: this does not wait.
        (Some(_), true) => match subscription.next().await {
            Some(update) => Some(show(update)?),
            None => return Ok(StatusCode::NO_CONTENT.into_response()),
        },
    };
    let stop = api.ending().clone();
    let following = follow(subscription).take_until(async move { stop.cancelled().await });
    let lines = stream::iter(first).chain(following).map(move |line| {
        // The place is free again when the stream is.
        let _place = &place;
        Ok::<_, Infallible>(line)
    });
    Ok(([NO_BUFFER], Sse::new(lines).keep_alive(KeepAlive::new().interval(SILENCE))).into_response())
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
