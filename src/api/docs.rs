//! Documentation page under `/docs` (Swagger UI), served without third-party requests.
//!
//! All links are relative, so that the page works under any base path.

use std::sync::Arc;

use axum::Router;
use axum::extract::RawPathParams;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use utoipa_swagger_ui::Config;

use super::Api;
use super::problem::{ApiResult, Problem};

/// The OpenAPI document, relative to the page.
const DOCUMENT: &str = "../openapi.json";

/// Content security policy of the page: its own files, requests to this server, and inline images.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; \
     font-src 'self' data:; connect-src 'self'; form-action 'none'; base-uri 'none'; frame-ancestors 'none'",
);

/// The page and its files.
pub(super) fn router() -> Router<Api> {
    // The default validator is an online service.
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

fn file(name: &str, config: Arc<Config<'static>>) -> ApiResult<Response> {
    let file = utoipa_swagger_ui::serve(name, config).map_err(Problem::internal)?;
    let Some(file) = file else { return Ok(StatusCode::NOT_FOUND.into_response()) };
    let content_type = HeaderValue::from_str(&file.content_type).map_err(Problem::internal)?;
    let headers = [(header::CONTENT_TYPE, content_type), (header::CONTENT_SECURITY_POLICY, POLICY)];
    Ok((headers, file.bytes.into_owned()).into_response())
}
