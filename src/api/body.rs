//! Request bodies: JSON or a form, with limits on size and time.

use axum::body::Bytes;
use axum::extract::{FromRequest, Request};
use axum::http::{HeaderMap, header};
use futures_util::StreamExt;

use super::Api;
use super::admission::OVERLOAD_RETRY_AFTER;
use super::problem::{Kind, Problem};
use super::server::Evicted;

/// A complete body.
pub(super) struct Body {
    pub media_type: MediaType,
    pub bytes: Bytes,
}

/// Media type of a body.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum MediaType {
    /// `application/json`
    Json,
    /// `multipart/form-data`
    Form {
        /// Delimiter of its parts.
        boundary: String,
    },
}

impl FromRequest<Api> for Body {
    type Rejection = Problem;

    async fn from_request(request: Request, api: &Api) -> Result<Self, Problem> {
        let (parts, body) = request.into_parts();
        let media_type = media_type(&parts.headers)?;
        let timeout = api.config().request_timeout;
        let late = |_| Problem::new(Kind::RequestTimeout, format!("the body did not arrive within {timeout:?}"));
        let bytes = tokio::time::timeout(timeout, read(body, api.config().body_limit)).await.map_err(late)??;
        Ok(Self { media_type, bytes })
    }
}

fn media_type(headers: &HeaderMap) -> Result<MediaType, Problem> {
    let unsupported = |found: &str| {
        let detail = format!("the body's Content-Type is {found}; expected application/json or multipart/form-data");
        Problem::new(Kind::UnsupportedMediaType, detail)
    };
    let value = headers.get(header::CONTENT_TYPE).ok_or_else(|| unsupported("missing"))?;
    let text = value.to_str().map_err(|_| unsupported("not text"))?;
    let essence = text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let suffix = essence.strip_prefix("application/").and_then(|subtype| subtype.strip_suffix("+json"));
    if essence == "application/json" || suffix.is_some_and(|name| !name.is_empty()) {
        return Ok(MediaType::Json);
    }
    if essence == "multipart/form-data" {
        let boundary = multer::parse_boundary(text);
        let boundary = boundary.map_err(|_| unsupported("multipart/form-data without a boundary"))?;
        return Ok(MediaType::Form { boundary });
    }
    Err(unsupported(&essence.chars().take(100).collect::<String>()))
}

/// Multiple of the limit that is read and discarded, so that a client that sends its whole body before it reads still
/// receives the response.
const DRAIN_FACTOR: usize = 8;

async fn read(body: axum::body::Body, limit: usize) -> Result<Bytes, Problem> {
    let mut stream = body.into_data_stream();
    let mut kept = Vec::new();
    let mut size = 0;
    while let Some(chunk) = stream.next().await {
        let chunk = chunk.map_err(interrupted)?;
        size += chunk.len();
        match size {
            size if size <= limit => kept.extend_from_slice(&chunk),
            size if size <= limit.saturating_mul(DRAIN_FACTOR) => kept = Vec::new(),
            _ => break,
        }
    }
    if size > limit {
        return Err(Problem::new(Kind::BodyTooLarge, format!("the body is larger than {limit} bytes")));
    }
    Ok(kept.into())
}

/// The problem of an incomplete body.
fn interrupted(error: axum::Error) -> Problem {
    tracing::debug!(%error, "request body was interrupted");
    let mut cause: Option<&dyn std::error::Error> = Some(&error);
    while let Some(error) = cause {
        if error.is::<Evicted>() {
            let detail = "there are too many connections, and the body of this request was incomplete; try again later";
            return Problem::new(Kind::Overloaded, detail).retry_after(OVERLOAD_RETRY_AFTER);
        }
        cause = error.source();
    }
    Problem::new(Kind::MalformedJson, "the body is incomplete")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn json_may_be_declared_in_every_usual_way() {
        let check = |text: &str| {
            let value = HeaderValue::from_str(text).unwrap();
            media_type(&HeaderMap::from_iter([(header::CONTENT_TYPE, value)]))
        };
        for good in ["application/json", "Application/JSON; charset=utf-8", "application/vnd.api+json"] {
            assert_eq!(check(good), Ok(MediaType::Json), "{good}");
        }
        let form = Ok(MediaType::Form { boundary: "x y".into() });
        assert_eq!(check("Multipart/Form-Data; charset=utf-8; boundary=\"x y\""), form);
        for bad in
            ["text/plain", "application/x-www-form-urlencoded", "application/+json", "json", "", "multipart/form-data"]
        {
            assert_eq!(check(bad).unwrap_err().kind(), Kind::UnsupportedMediaType, "{bad}");
        }
        assert_eq!(media_type(&HeaderMap::new()).unwrap_err().kind(), Kind::UnsupportedMediaType);
    }

    #[tokio::test]
    async fn a_body_may_be_as_large_as_the_limit_and_no_larger() {
        assert_eq!(read("12345".into(), 5).await.unwrap(), "12345");
        assert_eq!(read("123456".into(), 5).await.unwrap_err().kind(), Kind::BodyTooLarge);
    }
}
