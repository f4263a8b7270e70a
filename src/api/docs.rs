//! The page under `/docs` that shows the OpenAPI document. Nothing of it comes from another server.
//!
//! It refers to everything relatively: it works under whatever path a proxy puts it.

use std::sync::Arc;

use axum::Router;
use axum::extract::RawPathParams;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use utoipa_swagger_ui::Config;

use super::Api;
use super::problem::{Answer, Problem};

/// Where the document is, as seen from the page.
const DOCUMENT: &str = "../openapi.json";

/// What the page may do: load its own files, ask this server, and show images that it was sent.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; \
     font-src 'self' data:; connect-src 'self'; form-action 'none'; base-uri 'none'; frame-ancestors 'none'",
);

/// The page and its files.
pub(super) fn router() -> Router<Api> {
    // The default validator is a service on the internet.
    let config = Arc::new(Config::new([DOCUMENT]).validator_url("none"));
    let file = move |path: RawPathParams| {
        let config = Arc::clone(&config);
        async move {
            let name = path.iter().next().map_or("", |(_, name)| name);
            file(name, config)
        }
    };
    Router::new()
        .route("/docs", get(async || (StatusCode::TEMPORARY_REDIRECT, [(header::LOCATION, "docs/")])))
        .route("/docs/", get(file.clone()))
        .route("/docs/{*file}", get(file))
}

fn file(name: &str, config: Arc<Config<'static>>) -> Answer<Response> {
    let file = utoipa_swagger_ui::serve(name, config).map_err(Problem::internal)?;
    let Some(file) = file else { return Ok(StatusCode::NOT_FOUND.into_response()) };
    let content_type = HeaderValue::from_str(&file.content_type).map_err(Problem::internal)?;
    let headers = [(header::CONTENT_TYPE, content_type), (header::CONTENT_SECURITY_POLICY, POLICY)];
    Ok((headers, file.bytes.into_owned()).into_response())
}
