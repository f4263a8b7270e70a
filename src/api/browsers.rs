//! What answers tell browsers: which pages may read them (CORS, Fetch standard section 3.2), and what they may not be
//! used for.

use std::time::Duration;

use axum::extract::Request;
use axum::http::{HeaderName, HeaderValue, Method, header};
use axum::middleware::Next;
use axum::response::Response;
use tower_http::cors::{AllowOrigin, CorsLayer};

use super::accepted::{IDEMPOTENCY_REPLAYED, PREFERENCE_APPLIED};
use super::observe::REQUEST_ID;
use crate::config::Origin;

/// Answers preflights and names the origins that may read answers; nothing without origins.
pub(super) fn cors(origins: &[Origin]) -> Option<CorsLayer> {
    let allowed = match origins {
        [] => return None,
        origins if origins.contains(&Origin::Any) => AllowOrigin::any(),
        origins => {
            let origins = origins.to_vec();
            AllowOrigin::predicate(move |origin, _| {
                origin.to_str().is_ok_and(|origin| origins.iter().any(|known| known.matches(origin)))
            })
        }
    };
    let sent = [
        header::CONTENT_TYPE,
        header::IF_NONE_MATCH,
        header::CACHE_CONTROL,
        HeaderName::from_static("prefer"),
        HeaderName::from_static("idempotency-key"),
        HeaderName::from_static("last-event-id"),
        REQUEST_ID,
    ];
    let read = [
        header::LOCATION,
        header::ETAG,
        header::RETRY_AFTER,
        header::ALLOW,
        PREFERENCE_APPLIED,
        IDEMPOTENCY_REPLAYED,
        REQUEST_ID,
    ];
    let layer = CorsLayer::new().allow_origin(allowed).allow_headers(sent).expose_headers(read);
    let methods = [Method::GET, Method::HEAD, Method::POST, Method::DELETE];
    Some(layer.allow_methods(methods).max_age(Duration::from_secs(3600)))
}

/// For everything that is no page: nothing in it may be run or shown in a frame.
const DATA: HeaderValue = HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'");

/// Says that an answer is what its `Content-Type` says and belongs into no frame. Pages bring their own policy.
pub(super) async fn protect(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
    headers.entry(header::CONTENT_SECURITY_POLICY).or_insert(DATA);
    response
}
