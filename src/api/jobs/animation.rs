//! `GET /v1/jobs/{id}/stimuli/{n}/animation`: animated PNG of the optimization of a stimulus.

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use utoipa::ToSchema;

use super::job_not_found;
use super::stimulus::{MAX_INDEX, find_stimulus};
use crate::api::Api;
use crate::api::etag::{Conditional, IMMUTABLE, IfNoneMatch, NotModified};
use crate::api::parameters::{PathParams, QueryParams};
use crate::api::problem::{ApiResult, Kind, Problem, declare_problems};

/// An animated PNG, 8-bit greyscale or RGB.
#[derive(ToSchema)]
#[schema(value_type = String, format = Binary)]
#[expect(dead_code, reason = "only describes a response")]
struct AnimatedImage(Vec<u8>);

declare_problems!(Problems: InvalidParameter, UnknownJob, UnknownStimulus, FileGone);

/// Get an animation
///
/// Frames of the optimization of a stimulus, ending with the stimulus itself, if the request asked for an animation. It
/// never changes.
#[utoipa::path(
    get, path = "/v1/jobs/{id}/stimuli/{n}/animation", operation_id = "getAnimation", tag = "jobs",
    params(
        ("id" = uuid::Uuid, Path, description = "The job."),
        ("n" = u32, Path, minimum = 0, maximum = 65535,
            description = "Index of the stimulus, from 0, in the order of the objectives."),
        IfNoneMatch,
    ),
    responses(
        (status = 200, description = "The animation.", body = AnimatedImage, content_type = "image/apng", headers(
            ("Cache-Control" = String, description = "The response can be cached indefinitely."),
        )),
        NotModified,
        Problems,
    ),
)]
pub(super) async fn animation(
    State(api): State<Api>,
    path: PathParams,
    query: QueryParams,
    headers: HeaderMap,
) -> ApiResult<Response> {
    query.end(&[])?;
    let (id, n) = (path.job()?, path.number("n", MAX_INDEX)?);
    let Some(animation) = find_stimulus(&api, id, n).await?.animation else {
        let detail = format!("stimulus {n} of job {id} has no animation; request one with `animation`");
        return Err(Problem::new(Kind::UnknownStimulus, detail));
    };
    let conditional = Conditional::new(&headers, &animation.sha256, IMMUTABLE)?;
    if let Some(not_modified) = conditional.if_not_modified() {
        return Ok(not_modified);
    }
    let bytes = api.store().animation(id, n).await.map_err(Problem::unreadable)?;
    // The job may have been deleted in between.
    let bytes = bytes.ok_or_else(|| job_not_found(id))?;
    Ok(conditional.with_bytes("image/apng", bytes))
}
