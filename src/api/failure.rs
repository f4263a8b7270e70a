//! Errors that no handler made: unknown paths, wrong methods, panics. They are problem documents too.

use std::any::Any;

use axum::extract::Request;
use axum::http::{Method, StatusCode, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::problem::{Kind, MEDIA_TYPE, Problem};

/// Turns every error answer that is not a problem document yet into one.
pub(super) async fn uniform(request: Request, next: Next) -> Response {
    let (method, uri) = (request.method().clone(), request.uri().clone());
    let response = next.run(request).await;
    let status = response.status();
    let is_error = status.is_client_error() || status.is_server_error();
    if !is_error || response.headers().get(header::CONTENT_TYPE).is_some_and(|value| value == MEDIA_TYPE) {
        return response;
    }
    translate(status, &method, &uri).into_response()
}

fn translate(status: StatusCode, method: &Method, uri: &Uri) -> Problem {
    let path: String = uri.path().chars().take(200).collect();
    match status {
        StatusCode::NOT_FOUND => Problem::new(Kind::NotFound, format!("there is no {path}")),
        StatusCode::METHOD_NOT_ALLOWED => {
            let detail = format!("{path} has no method {method}; the Allow header lists those it has");
            Problem::new(Kind::MethodNotAllowed, detail)
        }
        StatusCode::PAYLOAD_TOO_LARGE => Problem::new(Kind::BodyTooLarge, "the body is too large"),
        StatusCode::REQUEST_TIMEOUT => Problem::new(Kind::RequestTimeout, "the request did not arrive in time"),
        status => Problem::internal(format!("{method} {path} was answered with {status} and no reason")),
    }
}

/// The answer of a handler that panicked.
pub(super) fn panicked(panic: Box<dyn Any + Send>) -> Response {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
    Problem::internal(format!("a handler panicked: {text}")).into_response()
}
