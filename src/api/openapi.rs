//! OpenAPI document: metadata, limits of the server, and responses of the middleware.

use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::http::header;
use axum::routing::get;
use serde_json::{Value, json};
use utoipa::OpenApi;

use super::Api;
use super::base_path::PublicBasePath;
use super::problem::{ApiResult, Components, Kind, Problem, response_for};
use super::request_log::PROBES;
use proxygrad::maximize::Limits;

const PATH: &str = "/openapi.json";

/// Metadata of the document; operations are added by the routes.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "proxygrad",
        description = "Explains convolutional networks by activation maximization with ProxyGrad: given a model and a unit, \
                       the service returns a PNG and its score. The score is reproducible: decode the PNG and run it \
                       through the same model.\n\nEvery error is a problem document (RFC 9457, \
                       `application/problem+json`).",
    ),
    tags(
        (name = "jobs", description = "Requests for stimuli, from submission to result."),
        (name = "studies", description = "Comparisons of settings on the same units, starts and number of passes."),
        (name = "trainings", description = "Training of classifiers with surrogate gradients, on datasets of the server."),
        (name = "models", description = "Models, their layers and units."),
        (name = "operation", description = "Health probes and metrics."),
        (name = "about", description = "Documentation of problem types."),
    ),
)]
struct Metadata;

/// The document without operations.
pub(super) fn skeleton() -> utoipa::openapi::OpenApi {
    let mut document = Metadata::openapi();
    document.merge(Components::openapi());
    document
}

/// The document of a server with these limits: the schemas state the maximum values it accepts.
pub(super) fn render(document: &utoipa::openapi::OpenApi, limits: &Limits) -> Result<Value, serde_json::Error> {
    let mut document = serde_json::to_value(document)?;
    let mut set = |pointer: &str, key: &str, value: Value| {
        if let Some(Value::Object(schema)) = document.pointer_mut(&format!("/components/schemas/Request{pointer}")) {
            schema.insert(key.into(), value);
        }
    };
    set("/properties/steps", "maximum", json!(limits.steps));
    set("/properties/patience", "maximum", json!(limits.steps));
    set("/properties/score_every", "maximum", json!(limits.steps));
    set("/properties/size/items", "minimum", json!(1));
    set("/properties/size/items", "maximum", json!(limits.side));
    set("/properties/objectives", "maxItems", json!(limits.objectives));
    if let Some(Value::Object(schema)) = document.pointer_mut("/components/schemas/StudyRequest/properties/steps") {
        schema.insert("maximum".into(), json!(limits.steps));
    }
    let copies = "/components/schemas/Diversity/properties/copies";
    if let Some(Value::Object(schema)) = document.pointer_mut(copies) {
        schema.insert("maximum".into(), json!(limits.objectives));
    }
    let mut set = |pointer: &str, key: &str, value: Value| {
        if let Some(Value::Object(schema)) = document.pointer_mut(&format!("/components/schemas/Request{pointer}")) {
            schema.insert(key.into(), value);
        }
    };
    let exclusive = |given: &str, other: &str| {
        json!({
            "required": [given],
            "properties": {given: {"not": {"type": "null"}}, other: {"type": "null"}},
        })
    };
    set("", "oneOf", json!([exclusive("objective", "objectives"), exclusive("objectives", "objective")]));
    let paths = document.get_mut("paths").and_then(Value::as_object_mut).into_iter().flatten();
    for (path, operations) in paths {
        for (method, operation) in operations.as_object_mut().into_iter().flatten() {
            parameters_and_headers(operation).for_each(remove_null_type);
            add_admission_responses(path, method, operation)?;
            add_etag_header(operation);
        }
    }
    Ok(document)
}

/// Adds the problems of [`super::admission`] to an operation.
fn add_admission_responses(path: &str, method: &str, operation: &mut Value) -> Result<(), serde_json::Error> {
    let host = (!matches!(path, "/livez" | "/readyz")).then_some(Kind::UnknownHost);
    let site = (method != "get").then_some(Kind::CrossSiteRequest);
    let load = (!PROBES.contains(&path)).then_some(Kind::Overloaded);
    let Some(responses) = operation.get_mut("responses").and_then(Value::as_object_mut) else { return Ok(()) };
    for kind in [host, site, load].into_iter().flatten() {
        let mut response = serde_json::to_value(response_for(&[kind]))?;
        let status = kind.status().as_str().to_owned();
        if let Some(Value::String(others)) = responses.get_mut(&status).and_then(|known| known.get_mut("description"))
            && let Some(Value::String(this)) = response.get_mut("description")
        {
            *this = format!("{others}\n\n{this}");
        }
        responses.insert(status, response);
    }
    Ok(())
}

/// Adds `ETag` to the response of an operation that supports conditional requests: see [`super::etag`].
fn add_etag_header(operation: &mut Value) {
    let header = json!({"description": "Changes if and only if the bytes change.", "schema": {"type": "string"}});
    if operation.pointer("/responses/304").is_some()
        && let Some(Value::Object(headers)) = operation.pointer_mut("/responses/200/headers")
    {
        headers.insert("ETag".into(), header);
    }
}

/// Parameters and response headers of an operation.
fn parameters_and_headers(operation: &mut Value) -> impl Iterator<Item = &mut Value> {
    let parts = operation.as_object_mut().into_iter().flatten();
    parts.flat_map(|(name, part)| -> Box<dyn Iterator<Item = &mut Value>> {
        match (name.as_str(), part) {
            ("parameters", Value::Array(parameters)) => Box::new(parameters.iter_mut()),
            ("responses", Value::Object(responses)) => {
                let headers =
                    responses.values_mut().filter_map(|response| response.get_mut("headers")?.as_object_mut());
                Box::new(headers.flat_map(|headers| headers.values_mut()))
            }
            _ => Box::new(std::iter::empty()),
        }
    })
}

/// Removes the type `null`: an optional parameter or header is omitted, never null.
fn remove_null_type(described: &mut Value) {
    if let Some(types) = described.pointer_mut("/schema/type")
        && let Some([kind, null]) = types.as_array().map(Vec::as_slice)
        && null == "null"
    {
        *types = kind.clone();
    }
}

/// `GET /openapi.json`: the document, with the base path as the client sees it.
pub(super) fn router(document: Value) -> Result<Router<Api>, serde_json::Error> {
    let text = Bytes::from(serde_json::to_string_pretty(&document)? + "\n");
    // Handlers are cloned for every request.
    let document = Arc::new(document);
    let handler = async move |base: PublicBasePath| -> ApiResult<_> {
        let text = match base.as_str() {
            "" => text.clone(),
            path => with_server(&document, path).map_err(Problem::internal)?,
        };
        Ok(([(header::CONTENT_TYPE, "application/json")], text))
    };
    Ok(Router::new().route(PATH, get(handler)))
}

fn with_server(document: &Value, path: &str) -> Result<Bytes, serde_json::Error> {
    let mut document = document.clone();
    if let Value::Object(document) = &mut document {
        document.insert("servers".into(), json!([{ "url": path }]));
    }
    Ok(Bytes::from(serde_json::to_string_pretty(&document)? + "\n"))
}
