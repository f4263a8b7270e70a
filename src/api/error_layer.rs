//! Error layer: problem documents for errors outside the handlers (unknown paths, wrong methods, panics).

use std::any::Any;

use axum::extract::{Request, State};
use axum::http::{Method, StatusCode, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::Api;
use super::base_path::PublicBasePath;
use super::problem::{Kind, MEDIA_TYPE, Problem};

/// Middleware that turns every other error response into a problem document, and puts the base path before the `type`
/// of every problem.
pub(super) async fn convert_errors(State(api): State<Api>, request: Request, next: Next) -> Response {
    let base = PublicBasePath::of(api.config(), request.headers(), request.extensions());
    convert_with_base(&base, request, next).await
}

async fn convert_with_base(base: &PublicBasePath, request: Request, next: Next) -> Response {
    let (method, uri) = (request.method().clone(), request.uri().clone());
    let mut response = next.run(request).await;
    let status = response.status();
    if !status.is_client_error() && !status.is_server_error() {
        return response;
    }
    if response.headers().get(header::CONTENT_TYPE).is_none_or(|value| value != MEDIA_TYPE) {
        response = problem_for(status, &method, &uri).into_response();
    }
    match response.extensions_mut().remove::<Problem>() {
        Some(problem) if !base.as_str().is_empty() => {
            response.headers_mut().remove(header::CONTENT_LENGTH);
            *response.body_mut() = problem.document(base.as_str()).into();
            response
        }
        _ => response,
    }
}

fn problem_for(status: StatusCode, method: &Method, uri: &Uri) -> Problem {
    let path: String = uri.path().chars().take(200).collect();
    match status {
        StatusCode::NOT_FOUND => Problem::new(Kind::NotFound, format!("no resource at {path}")),
        StatusCode::METHOD_NOT_ALLOWED => {
            let detail = format!("{path} does not support {method}; the Allow header lists the supported methods");
            Problem::new(Kind::MethodNotAllowed, detail)
        }
        StatusCode::PAYLOAD_TOO_LARGE => Problem::new(Kind::BodyTooLarge, "the body is too large"),
        StatusCode::REQUEST_TIMEOUT => Problem::new(Kind::RequestTimeout, "the request did not arrive in time"),
        status => Problem::internal(format!("{method} {path} failed with {status} and no problem document")),
    }
}

/// The response to a request whose handler panicked.
pub(super) fn panic_response(panic: Box<dyn Any + Send>) -> Response {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
    Problem::internal(format!("a handler panicked: {text}")).into_response()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use axum::Router;
    use axum::body::Body;
    use axum::middleware::from_fn;
    use axum::routing::get;
    use http_body_util::BodyExt;
    use tower::ServiceExt;
    use tower_http::catch_panic::CatchPanicLayer;

    use super::*;

    async fn respond(method: Method, path: &str) -> (StatusCode, serde_json::Value) {
        let router: Router = Router::new()
            .route("/panics", get(async || -> &'static str { panic!("secret of the server") }))
            .route("/fails", get(async || StatusCode::BAD_GATEWAY))
            .layer(CatchPanicLayer::custom(panic_response))
            .layer(from_fn(async |request: Request, next: Next| {
                convert_with_base(&"/xai".parse().unwrap(), request, next).await
            }));
        let request = Request::builder().method(method).uri(path).body(Body::empty()).unwrap();
        let response = router.oneshot(request).await.unwrap();
        assert_eq!(response.headers()[header::CONTENT_TYPE], MEDIA_TYPE);
        let status = response.status();
        (status, serde_json::from_slice(&response.into_body().collect().await.unwrap().to_bytes()).unwrap())
    }

    #[tokio::test]
    async fn every_error_is_a_problem_document_without_internal_details() {
        for (method, path, status) in [
            (Method::GET, "/panics", 500),
            (Method::GET, "/fails", 500),
            (Method::POST, "/panics", 405),
            (Method::GET, "/nowhere", 404),
        ] {
            let (found, problem) = respond(method, path).await;
            assert_eq!((found.as_u16(), &problem["status"]), (status, &status.into()), "{path}");
            assert!(problem["type"].as_str().unwrap().starts_with("/xai/problems/"), "{problem}");
            assert!(!problem.to_string().contains("secret"), "{problem}");
        }
    }
}
