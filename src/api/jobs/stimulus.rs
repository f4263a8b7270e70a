//! `GET /v1/jobs/{id}/stimuli/{n}`: PNG of a stimulus.

use axum::Json;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use base64::Engine;
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::job_not_found;
use crate::api::Api;
use crate::api::etag::{Conditional, IMMUTABLE, IfNoneMatch, NotModified};
use crate::api::parameters::{PathParams, QueryParams};
use crate::api::problem::{ApiResult, Kind, Problem, declare_problems};
use crate::jobs::Stimulus;

/// Largest index of a stimulus in a path.
pub(super) const MAX_INDEX: usize = 65_535;

/// Encoding of the image in the response.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Encoding {
    Binary,
    Base64,
}

/// Encodings other than `image/png`.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[expect(dead_code, reason = "only describes a parameter")]
enum EncodingDocument {
    /// Base64 inside JSON.
    Base64,
}

/// An 8-bit PNG, greyscale or RGB.
#[derive(ToSchema)]
#[schema(value_type = String, format = Binary)]
#[expect(dead_code, reason = "only describes a response")]
pub(super) struct Image(Vec<u8>);

/// A base64-encoded image.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct EncodedStimulus {
    /// Always `image/png`.
    #[schema(examples("image/png"))]
    media_type: &'static str,
    /// The PNG in base64 (RFC 4648, section 4).
    #[schema(content_encoding = "base64", content_media_type = "image/png")]
    base64: String,
    /// SHA-256 of the PNG, lower-case hexadecimal.
    sha256: String,
}

declare_problems!(Problems: InvalidParameter, UnknownJob, UnknownStimulus, FileGone);

/// Get a stimulus
///
/// The image never changes, so it can be cached indefinitely or revalidated with `If-None-Match`.
#[utoipa::path(
    get, path = "/v1/jobs/{id}/stimuli/{n}", operation_id = "getStimulus", tag = "jobs",
    params(
        ("id" = uuid::Uuid, Path, description = "The job."),
        ("n" = u32, Path, minimum = 0, maximum = 65535,
            description = "Index of the stimulus, from 0, in the order of the objectives."),
        ("encoding" = inline(Option<EncodingDocument>), Query, description = "`base64` returns the image base64-encoded in JSON."),
        IfNoneMatch,
    ),
    responses(
        (status = 200, description = "The image.", content(
            (Image = "image/png"),
            (EncodedStimulus = "application/json"),
        ), headers(
            ("Cache-Control" = String, description = "The response can be cached indefinitely."),
        )),
        NotModified,
        Problems,
    ),
)]
pub(super) async fn stimulus(
    State(api): State<Api>,
    path: PathParams,
    mut query: QueryParams,
    headers: HeaderMap,
) -> ApiResult<Response> {
    let encoding = query.take_choice("encoding", &[("base64", Encoding::Base64)])?.unwrap_or(Encoding::Binary);
    query.end(&["encoding"])?;
    let (id, n) = (path.job()?, path.number("n", MAX_INDEX)?);
    let sha256 = find_stimulus(&api, id, n).await?.sha256;
    let conditional = match encoding {
        Encoding::Binary => Conditional::new(&headers, &sha256, IMMUTABLE),
        Encoding::Base64 => Conditional::new(&headers, &format!("{sha256}-base64"), IMMUTABLE),
    }?;
    if let Some(not_modified) = conditional.if_not_modified() {
        return Ok(not_modified);
    }
    let png = api.store().png(id, n).await.map_err(Problem::unreadable)?;
    // The job may have been deleted in between.
    let png = png.ok_or_else(|| job_not_found(id))?;
    Ok(match encoding {
        Encoding::Binary => conditional.with_bytes("image/png", png),
        Encoding::Base64 => {
            let base64 = base64::prelude::BASE64_STANDARD.encode(png);
            conditional.with_body(Json(EncodedStimulus { media_type: "image/png", base64, sha256 }))
        }
    })
}

/// Stimulus `n` of a job.
pub(super) async fn find_stimulus(api: &Api, id: Uuid, n: usize) -> ApiResult<Stimulus> {
    let mut job = api.job(id).await?;
    if n < job.stimuli.len() {
        return Ok(job.stimuli.swap_remove(n));
    }
    let detail = match job.state.is_terminal() {
        true => format!("job {id} is {} and has {} stimuli", job.state, job.stimuli.len()),
        false => format!("job {id} is {}; stimuli are available once it has succeeded", job.state),
    };
    Err(Problem::new(Kind::UnknownStimulus, detail))
}
