//! `GET /v1/studies/{id}/events`: server-sent events of a study.

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;

use super::document::StudyInList;
use super::study_not_found;
use crate::api::base_path::PublicBasePath;
use crate::api::client::Client;
use crate::api::events::EventDocument;
use crate::api::parameters::{PathParams, QueryParams};
use crate::api::problem::{ApiResult, Problem, declare_problems};
use crate::api::{Api, events as sse};

declare_problems!(Problems: InvalidParameter, UnknownStudy);

/// Watch a study
///
/// Server-sent events. The first event is `study`, the summary of the study as in the study list. It is followed by
/// `state` (`{"state": "running"}`) and `progress` (`{"done": 12.5, "total": 96, "now": "fashion-resnet8 logits pixel,
/// plain, start 1"}`), beginning with recent events. `skipped` (`{"events": 40}`) replaces events that are no longer
/// available. The stream ends after the final state of the study. With `Last-Event-ID` the stream resumes after that
/// event; if no event can follow, the response is 204, which tells an `EventSource` not to reconnect.
#[utoipa::path(
    get, path = "/v1/studies/{id}/events", operation_id = "watchStudy", tag = "studies",
    params(
        ("id" = uuid::Uuid, Path, description = "The study."),
        ("Last-Event-ID" = Option<String>, Header, description = "Id of the last received event."),
    ),
    responses(
        (status = 200, description = "The event stream.", content_type = "text/event-stream", body = EventDocument),
        (status = 204, description = "The study has ended, and no events follow."),
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
    let id = path.study()?;
    let permit = sse::acquire_stream(&api, client)?;
    let last = sse::last_event_id(&headers);
    let subscribed = api.store().subscribe_study(id, last).await.map_err(Problem::internal)?;
    let subscription = subscribed.ok_or_else(|| study_not_found(id))?;
    let study = api.study(id).await?;
    let ended = study.state.is_terminal();
    sse::stream_response(&api, subscription, last, ended, ("study", &StudyInList::new(study, &base)), permit).await
}
