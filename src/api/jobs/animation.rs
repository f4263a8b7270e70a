//! `GET /v1/jobs/{id}/stimuli/{n}/animation`: how a stimulus came to be.

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use utoipa::ToSchema;

use super::stimulus::{LARGEST, find};
use super::unknown;
use crate::api::Api;
use crate::api::etag::{FOREVER, Tagged};
use crate::api::parameters::{InPath, InQuery};
use crate::api::problem::{Answer, Kind, Problem, declare_problems};

/// An animated PNG, 8 bit, grey or RGB.
#[derive(ToSchema)]
#[schema(value_type = String, format = Binary)]
#[expect(dead_code, reason = "only describes an answer")]
struct AnimatedImage(Vec<u8>);

declare_problems!(Refused: InvalidParameter, UnknownJob, UnknownStimulus, FileGone);

/// Get an animation
///
/// How a stimulus came to be, where the request asked for an animation: images along the run, and in the end the stimulus.
/// It never changes.
#[utoipa::path(
    get, path = "/v1/jobs/{id}/stimuli/{n}/animation", operation_id = "getAnimation", tag = "jobs",
    params(
        ("id" = uuid::Uuid, Path, description = "The job."),
        ("n" = u32, Path, minimum = 0, maximum = 65535,
            description = "The stimulus, counted from 0 in the order of the objectives."),
        ("If-None-Match" = Option<String>, Header, description = "`ETag` of an answer that the client has."),
    ),
    responses(
        (status = 200, description = "The animation.", body = AnimatedImage, content_type = "image/apng", headers(
            ("ETag" = String, description = "Changes exactly with the bytes."),
            ("Cache-Control" = String, description = "The answer may be kept for good."),
        )),
        (status = 304, description = "The client has it."),
        Refused,
    ),
)]
pub(super) async fn animation(
    State(api): State<Api>,
    path: InPath,
    query: InQuery,
    headers: HeaderMap,
) -> Answer<Response> {
    query.end(&[])?;
    let (id, n) = (path.job()?, path.number("n", LARGEST)?);
    let Some(animation) = find(&api, id, n).await?.animation else {
        let detail = format!("stimulus {n} of job {id} has no animation; ask for one with `animation` in the request");
        return Err(Problem::new(Kind::UnknownStimulus, detail));
    };
    let tagged = Tagged::new(&headers, &animation.sha256, FOREVER)?;
    if let Some(known) = tagged.if_known() {
        return Ok(known);
    }
    let bytes = api.store().animation(id, n).await.map_err(Problem::unreadable)?;
    // Between the two looks somebody may have deleted the job.
    let bytes = bytes.ok_or_else(|| unknown(id))?;
    Ok(tagged.with_bytes("image/apng", bytes))
}
