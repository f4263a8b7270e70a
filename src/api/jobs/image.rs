//! `GET /v1/jobs/{id}/images/{sha256}`: an image uploaded with a job, resized to the stimulus.

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;

use super::stimulus::Image;
use crate::api::Api;
use crate::api::etag::{Conditional, IMMUTABLE, IfNoneMatch, NotModified};
use crate::api::parameters::{PathParams, QueryParams, invalid_parameter};
use crate::api::problem::{ApiResult, Kind, Problem, declare_problems};

declare_problems!(Problems: InvalidParameter, UnknownJob, UnknownImage);

/// Get an uploaded image
///
/// The image of an objective or a start, resized to the stimuli. It is needed to recompute the score.
#[utoipa::path(
    get, path = "/v1/jobs/{id}/images/{sha256}", operation_id = "getImage", tag = "jobs",
    params(
        ("id" = uuid::Uuid, Path, description = "The job."),
        ("sha256" = String, Path, pattern = "^[0-9a-f]{64}$", description = "SHA-256 of the image's PNG."),
        IfNoneMatch,
    ),
    responses(
        (status = 200, description = "The image.", body = Image, content_type = "image/png", headers(
            ("Cache-Control" = String, description = "The response can be cached indefinitely."),
        )),
        NotModified,
        Problems,
    ),
)]
pub(super) async fn image(
    State(api): State<Api>,
    path: PathParams,
    query: QueryParams,
    headers: HeaderMap,
) -> ApiResult<Response> {
    query.end(&[])?;
    let id = path.job()?;
    let sha256 = path.text("sha256");
    if sha256.len() != 64 || !sha256.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
        return Err(invalid_parameter("sha256", sha256, "64 lower-case hexadecimal digits"));
    }
    api.job(id).await?;
    let png = api.store().image(id, sha256).await.map_err(Problem::internal)?;
    let png = png.ok_or_else(|| Problem::new(Kind::UnknownImage, format!("job {id} has no image {sha256}")))?;
    Ok(Conditional::new(&headers, sha256, IMMUTABLE)?.with_bytes("image/png", png))
}
