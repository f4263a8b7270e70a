//! CORS: which origins may read responses from a browser (Fetch standard, section 3.2).

use std::time::Duration;

use axum::http::{HeaderName, Method, header};
use tower_http::cors::{AllowOrigin, CorsLayer};

use super::request_log::REQUEST_ID;
use super::submission_response::{IDEMPOTENCY_REPLAYED, PREFERENCE_APPLIED};
use crate::config::Origin;

/// Layer that answers preflight requests and allows `origins`; `None` if there are no origins.
pub(super) fn layer(origins: &[Origin]) -> Option<CorsLayer> {
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
    let request_headers = [
        header::CONTENT_TYPE,
        header::IF_NONE_MATCH,
        header::CACHE_CONTROL,
        HeaderName::from_static("prefer"),
        HeaderName::from_static("idempotency-key"),
        HeaderName::from_static("last-event-id"),
        REQUEST_ID,
    ];
    let response_headers = [
        header::LOCATION,
        header::ETAG,
        header::RETRY_AFTER,
        header::ALLOW,
        PREFERENCE_APPLIED,
        IDEMPOTENCY_REPLAYED,
        REQUEST_ID,
    ];
    let layer = CorsLayer::new().allow_origin(allowed).allow_headers(request_headers).expose_headers(response_headers);
    let methods = [Method::GET, Method::HEAD, Method::POST, Method::DELETE];
    Some(layer.allow_methods(methods).max_age(Duration::from_secs(3600)))
}
