//! Request bodies: JSON or a form, of bounded size and duration.

use axum::body::Bytes;
use axum::extract::{FromRequest, Request};
use axum::http::{HeaderMap, header};
use futures_util::StreamExt;

use super::Api;
use super::guard::ROOM;
use super::problem::{Kind, Problem};
use super::server::Displaced;

/// A body that has arrived.
pub(super) struct Body {
    pub media_type: MediaType,
    pub bytes: Bytes,
}

/// What a body is declared as.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum MediaType {
    /// `application/json`
    Json,
    /// `multipart/form-data`
    Form {
        /// What stands between its parts.
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
    let refused = |found: &str| {
        let detail = format!("the body's Content-Type is {found}; expected application/json or multipart/form-data");
        Problem::new(Kind::UnsupportedMediaType, detail)
    };
    let value = headers.get(header::CONTENT_TYPE).ok_or_else(|| refused("missing"))?;
    let text = value.to_str().map_err(|_| refused("not text"))?;
    let essence = text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let suffix = essence.strip_prefix("application/").and_then(|subtype| subtype.strip_suffix("+json"));
    if essence == "application/json" || suffix.is_some_and(|name| !name.is_empty()) {
        return Ok(MediaType::Json);
    }
    if essence == "multipart/form-data" {
        let boundary = multer::parse_boundary(text);
        let boundary = boundary.map_err(|_| refused("multipart/form-data without a boundary"))?;
        return Ok(MediaType::Form { boundary });
    }
    Err(refused(&essence.chars().take(100).collect::<String>()))
}

/// How many times the limit is read and thrown away, so that a client that only looks at the answer after it has sent
/// everything gets to see it.
const DRAINED: usize = 8;

async fn read(body: axum::body::Body, limit: usize) -> Result<Bytes, Problem> {
    let mut stream = body.into_data_stream();
    let mut kept = Vec::new();
    let mut size = 0;
    while let Some(chunk) = stream.next().await {
        let chunk = chunk.map_err(broken)?;
        size += chunk.len();
        match size {
            size if size <= limit => kept.extend_from_slice(&chunk),
            size if size <= limit.saturating_mul(DRAINED) => kept = Vec::new(),
            _ => break,
        }
    }
    if size > limit {
        return Err(Problem::new(Kind::BodyTooLarge, format!("the body is larger than {limit} bytes")));
    }
    Ok(kept.into())
}

/// Why a body broke off.
fn broken(error: axum::Error) -> Problem {
    tracing::debug!(%error, "a body broke off");
    let mut cause: Option<&dyn std::error::Error> = Some(&error);
    while let Some(error) = cause {
        if error.is::<Displaced>() {
            let detail = "there are too many connections, and the body of this one had not arrived; try again later";
            return Problem::new(Kind::Overloaded, detail).retry_after(ROOM);
        }
        cause = error.source();
    }
    Problem::new(Kind::MalformedJson, "the body broke off")
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
