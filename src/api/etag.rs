//! Entity tags (RFC 9110, section 8.8.3) and `If-None-Match` (section 13.1.2).

use axum::body::Bytes;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::problem::{Answer, Problem};

/// For what never changes any more.
pub(super) const FOREVER: HeaderValue = HeaderValue::from_static("private, max-age=31536000, immutable");

/// A representation that a client may keep: how it is told apart, and whether the client has it.
pub(super) struct Tagged {
    headers: [(HeaderName, HeaderValue); 2],
    known: bool,
}

impl Tagged {
    /// The representation with a strong tag, given without its quotes, that may be kept as `control` says.
    pub(super) fn new(request: &HeaderMap, tag: &str, control: HeaderValue) -> Answer<Self> {
        let tag = format!("\"{tag}\"");
        let known = is_known(request, &tag);
        let tag = HeaderValue::from_str(&tag).map_err(Problem::internal)?;
        Ok(Self { headers: [(header::ETAG, tag), (header::CACHE_CONTROL, control)], known })
    }

    /// The answer to a client that has it.
    pub(super) fn if_known(&self) -> Option<Response> {
        self.known.then(|| (StatusCode::NOT_MODIFIED, self.headers.clone()).into_response())
    }

    /// The answer that holds it.
    pub(super) fn with(self, body: impl IntoResponse) -> Response {
        (self.headers, body).into_response()
    }

    /// The answer that holds it as bytes of a media type; none of them for a client that has it.
    pub(super) fn with_bytes(self, media_type: &'static str, bytes: impl Into<Bytes>) -> Response {
        let known = self.if_known();
        let headers = [(header::CONTENT_TYPE, HeaderValue::from_static(media_type))];
        known.unwrap_or_else(|| self.with((headers, bytes.into())))
    }
}

/// Whether the client already has the representation with this strong tag, quotes included.
fn is_known(headers: &HeaderMap, tag: &str) -> bool {
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
    fn a_tag_is_found_in_a_list_and_behind_a_weak_mark() {
        let known =
            |line: &str| is_known(&HeaderMap::from_iter([(header::IF_NONE_MATCH, line.parse().unwrap())]), "\"abc\"");
        for line in ["\"abc\"", "W/\"abc\"", "\"x\", \"abc\"", "*"] {
            assert!(known(line), "{line}");
        }
        for line in ["\"abcd\"", "abc", "\"x\", \"y\"", ""] {
            assert!(!known(line), "{line}");
        }
        assert!(!is_known(&HeaderMap::new(), "\"abc\""));
    }
}
