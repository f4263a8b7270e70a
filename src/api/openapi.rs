//! The OpenAPI document and the page that shows it.

use axum::http::header;
use axum::response::IntoResponse;
use serde_json::{Value, json};
use utoipa::OpenApi;
use utoipa_swagger_ui::{Config, SwaggerUi};

use super::problem::Components;
use crate::maximize::Limits;

const PATH: &str = "/openapi.json";

/// What the document says beside the calls themselves.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "proxygrad",
        description = "Explains convolutional networks by activation maximization with ProxyGrad: name a model and a \
                       unit, and get back a PNG and a number; anybody who decodes that PNG and runs it through the same \
                       model gets that number.\n\nEvery error is a problem document (RFC 9457, \
                       `application/problem+json`).",
    ),
    tags(
        (name = "jobs", description = "Requests for stimuli, from submission to result."),
        (name = "studies", description = "Requests that compare settings on the same units, starts and passes."),
        (name = "models", description = "What can be looked into."),
        (name = "operation", description = "Probes and metrics."),
        (name = "about", description = "Documentation."),
    ),
)]
struct Frame;

/// The frame that the calls are added to.
pub(super) fn frame() -> utoipa::openapi::OpenApi {
    let mut frame = Frame::openapi();
    frame.merge(Components::openapi());
    frame
}

/// The document as it is served by a server with these limits: what the schemas allow is what the server accepts.
pub(super) fn render(document: &utoipa::openapi::OpenApi, limits: &Limits) -> Result<String, serde_json::Error> {
    let mut document = serde_json::to_value(document)?;
    let mut set = |pointer: &str, key: &str, value: Value| {
        if let Some(Value::Object(schema)) = document.pointer_mut(&format!("/components/schemas/Request{pointer}")) {
            schema.insert(key.into(), value);
        }
    };
    set("/properties/steps", "maximum", json!(limits.steps));
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
    let alone = |given: &str, other: &str| {
        json!({
            "required": [given],
            "properties": {given: {"not": {"type": "null"}}, other: {"type": "null"}},
        })
    };
    set("", "oneOf", json!([alone("objective", "objectives"), alone("objectives", "objective")]));
    let paths = document.get_mut("paths").and_then(Value::as_object_mut).into_iter().flatten();
    for (_, call) in paths.flat_map(|(_, path)| path.as_object_mut()).flatten() {
        described(call).for_each(never_null);
    }
    Ok(serde_json::to_string_pretty(&document)? + "\n")
}

/// Parameters and answers' headers of a call.
fn described(call: &mut Value) -> impl Iterator<Item = &mut Value> {
    let parts = call.as_object_mut().into_iter().flatten();
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

/// An optional parameter or header is left out; unlike a field of a document it is never null.
fn never_null(described: &mut Value) {
    if let Some(types) = described.pointer_mut("/schema/type")
        && let Some([kind, null]) = types.as_array().map(Vec::as_slice)
        && null == "null"
    {
        *types = kind.clone();
    }
}

/// The page under `/docs`. Nothing of it comes from another server.
pub(super) fn page() -> SwaggerUi {
    // The default validator is a service on the internet.
    SwaggerUi::new("/docs").config(Config::new([PATH]).validator_url("none"))
}

/// The document as an answer.
pub(super) fn answer(text: bytes::Bytes) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json")], text)
}
