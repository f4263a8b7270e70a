//! Entity tags (RFC 9110, section 8.8.3) and `If-None-Match` (section 13.1.2).

use axum::body::Bytes;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use utoipa::{IntoParams, IntoResponses};

use super::problem::{ApiResult, Problem};

/// Declares the request header of a conditional request.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "only describes a parameter")]
pub(super) struct IfNoneMatch {
    /// `ETag` of a cached response.
    #[param(rename = "If-None-Match")]
    if_none_match: Option<String>,
}

/// The cached response is current.
#[derive(IntoResponses)]
#[response(status = 304)]
pub(super) struct NotModified;

/// `Cache-Control` of content that never changes.
pub(super) const IMMUTABLE: HeaderValue = HeaderValue::from_static("private, max-age=31536000, immutable");

/// A conditional response: the validators of a representation, and whether the client's cached copy is current.
pub(super) struct Conditional {
    headers: [(HeaderName, HeaderValue); 2],
    not_modified: bool,
}

impl Conditional {
    /// Compares `If-None-Match` with a strong `tag`, given without quotes.
    pub(super) fn new(request: &HeaderMap, tag: &str, cache_control: HeaderValue) -> ApiResult<Self> {
        let tag = format!("\"{tag}\"");
        let not_modified = matches_if_none_match(request, &tag);
        let tag = HeaderValue::from_str(&tag).map_err(Problem::internal)?;
        Ok(Self { headers: [(header::ETAG, tag), (header::CACHE_CONTROL, cache_control)], not_modified })
    }

    /// 304 if the client's copy is current.
    pub(super) fn if_not_modified(&self) -> Option<Response> {
        self.not_modified.then(|| (StatusCode::NOT_MODIFIED, self.headers.clone()).into_response())
    }

    /// The response with this body.
    pub(super) fn with_body(self, body: impl IntoResponse) -> Response {
        (self.headers, body).into_response()
    }

    /// The response with these bytes, or 304 without them.
    pub(super) fn with_bytes(self, media_type: &'static str, bytes: impl Into<Bytes>) -> Response {
        let not_modified = self.if_not_modified();
        let headers = [(header::CONTENT_TYPE, HeaderValue::from_static(media_type))];
        not_modified.unwrap_or_else(|| self.with_body((headers, bytes.into())))
    }
}

/// Whether `If-None-Match` lists this strong tag, quotes included.
fn matches_if_none_match(headers: &HeaderMap, tag: &str) -> bool {
    let lines = headers.get_all(header::IF_NONE_MATCH).into_iter().filter_map(|line| line.to_str().ok());
    // The comparison is weak: `W/` makes no difference.
    lines
        .flat_map(|line| line.split(','))
        .map(str::trim)
        .any(|known| known == "*" || known.strip_prefix("W/").unwrap_or(known) == tag)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;

    #[test]
    fn a_tag_is_found_in_a_list_and_after_a_weak_mark() {
        let known = |line: &str| {
            matches_if_none_match(&HeaderMap::from_iter([(header::IF_NONE_MATCH, line.parse().unwrap())]), "\"abc\"")
        };
        for line in ["\"abc\"", "W/\"abc\"", "\"x\", \"abc\"", "*"] {
            assert!(known(line), "{line}");
        }
        for line in ["\"abcd\"", "abc", "\"x\", \"y\"", ""] {
            assert!(!known(line), "{line}");
        }
        assert!(!matches_if_none_match(&HeaderMap::new(), "\"abc\""));
    }
}
