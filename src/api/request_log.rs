//! Request log: an id, one log line and metrics per request.

use std::time::Instant;

use axum::extract::{MatchedPath, Request};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method};
use axum::middleware::Next;
use axum::response::Response;
use tracing::Instrument;
use uuid::Uuid;

pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Maximum length of a request id that a client supplies, in characters.
const MAX_ID_LENGTH: usize = 128;

/// Polled every few seconds by machines, so logged at debug level only.
pub(super) const PROBES: [&str; 3] = ["/livez", "/readyz", "/metrics"];

/// Middleware that assigns a request id (the client's own if it is a plain word), and logs and counts the response.
pub(super) async fn log_request(mut request: Request, next: Next) -> Response {
    let start = Instant::now();
    let id = client_id(request.headers()).unwrap_or_else(|| Uuid::now_v7().to_string());
    let header = HeaderValue::from_str(&id).ok();
    if let Some(header) = &header {
        request.headers_mut().insert(REQUEST_ID, header.clone());
    }
    let method = method_label(request.method());
    let path =
        request.extensions().get::<MatchedPath>().map_or_else(|| "unmatched".to_owned(), |p| p.as_str().to_owned());
    let span = tracing::info_span!("request", id, method, path);
    let mut response = next.run(request).instrument(span.clone()).await;

    let status = response.status();
    let elapsed = start.elapsed();
    let (status_code, duration_ms) = (status.as_u16(), elapsed.as_secs_f64() * 1000.0);
    span.in_scope(|| match PROBES.contains(&path.as_str()) {
        true => tracing::debug!(status = status_code, duration_ms, "request completed"),
        false => tracing::info!(status = status_code, duration_ms, "request completed"),
    });
    let labels = [("method", method.to_owned()), ("path", path.clone()), ("status", status.as_u16().to_string())];
    metrics::counter!("proxygrad_http_requests_total", &labels).increment(1);
    metrics::histogram!("proxygrad_http_request_duration_seconds", "method" => method, "path" => path)
        .record(elapsed.as_secs_f64());
    if let Some(header) = header {
        response.headers_mut().insert(REQUEST_ID, header);
    }
    response
}

/// The client's request id, if it is safe to log verbatim.
fn client_id(headers: &HeaderMap) -> Option<String> {
    let text = headers.get(REQUEST_ID)?.to_str().ok()?;
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    ((1..=MAX_ID_LENGTH).contains(&text.len()) && text.bytes().all(plain)).then(|| text.to_owned())
}

/// Metric label of a method; unknown methods share one label, which bounds the number of time series.
fn method_label(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        _ => "OTHER",
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;

    #[test]
    fn only_plain_words_are_taken_over_as_ids() {
        let id = |text: &str| client_id(&HeaderMap::from_iter([(REQUEST_ID, text.parse().unwrap())]));
        assert_eq!(id("build-7.42_a").as_deref(), Some("build-7.42_a"));
        for bad in ["", "a b", "a\"b", "a;b", &"x".repeat(129)] {
            assert_eq!(id(bad), None, "{bad:?}");
        }
    }
}
