//! `GET /v1/trainings/{id}/events`: server-sent events of a training.

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;

use super::document::TrainingInList;
use super::training_not_found;
use crate::api::base_path::PublicBasePath;
use crate::api::client::Client;
use crate::api::events::EventDocument;
use crate::api::parameters::{PathParams, QueryParams};
use crate::api::problem::{ApiResult, Problem, declare_problems};
use crate::api::{Api, events as sse};

declare_problems!(Problems: InvalidParameter, UnknownTraining);

/// Watch a training
///
/// Server-sent events. The first event is `training`, the summary of the training as in the list of trainings. It is
/// followed by `state` (`{"state": "running"}`), `progress` (`{"epochs_done": 3, "epochs": 10, "now": {"epoch": 4, "step":
/// 120, "steps": 937, "loss": 0.412, "accuracy": 0.861}}`) and, after every epoch, `epoch` with its measurements as in
/// `last` of the training, beginning with recent events. `skipped` (`{"events": 40}`) replaces events that are no longer
/// available. The stream ends after the final state of the training. With `Last-Event-ID` the stream resumes after that
/// event; if no event can follow, the response is 204, which tells an `EventSource` not to reconnect.
#[utoipa::path(
    get, path = "/v1/trainings/{id}/events", operation_id = "watchTraining", tag = "trainings",
    params(
        ("id" = uuid::Uuid, Path, description = "The training."),
        ("Last-Event-ID" = Option<String>, Header, description = "Id of the last received event."),
    ),
    responses(
        (status = 200, description = "The event stream.", content_type = "text/event-stream", body = EventDocument),
        (status = 204, description = "The training has ended, and no events follow."),
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
    let id = path.training()?;
    let permit = sse::acquire_stream(&api, client)?;
    let last = sse::last_event_id(&headers);
    let subscribed = api.store().subscribe_training(id, last).await.map_err(Problem::internal)?;
    let subscription = subscribed.ok_or_else(|| training_not_found(id))?;
    let training = api.training(id).await?;
    let ended = training.state.is_terminal();
    sse::stream_response(&api, subscription, last, ended, ("training", &TrainingInList::new(training, &base)), permit)
        .await
}
