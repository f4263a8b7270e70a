//! The OpenAPI document.

use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::http::header;
use axum::routing::get;
use serde_json::{Value, json};
use utoipa::OpenApi;

use super::Api;
use super::base::Base;
use super::observe::PROBES;
use super::problem::{Answer, Components, Kind, Problem, declared};
use proxygrad::maximize::Limits;

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
pub(super) fn render(document: &utoipa::openapi::OpenApi, limits: &Limits) -> Result<Value, serde_json::Error> {
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
    for (path, calls) in paths {
        for (method, call) in calls.as_object_mut().into_iter().flatten() {
            described(call).for_each(never_null);
            refusable(path, method, call)?;
        }
    }
    Ok(document)
}

/// Declares the answers that a call may get before it is looked at: see [`super::guard`].
fn refusable(path: &str, method: &str, call: &mut Value) -> Result<(), serde_json::Error> {
    let host = (!matches!(path, "/livez" | "/readyz")).then_some(Kind::UnknownHost);
    let site = (method != "get").then_some(Kind::CrossSiteRequest);
    let load = (!PROBES.contains(&path)).then_some(Kind::Overloaded);
    let Some(responses) = call.get_mut("responses").and_then(Value::as_object_mut) else { return Ok(()) };
    for kind in [host, site, load].into_iter().flatten() {
        let mut declared = serde_json::to_value(declared(&[kind]))?;
        let status = kind.status().as_str().to_owned();
        if let Some(Value::String(others)) = responses.get_mut(&status).and_then(|known| known.get_mut("description"))
            && let Some(Value::String(this)) = declared.get_mut("description")
        {
            *this = format!("{others}\n\n{this}");
        }
        responses.insert(status, declared);
    }
    Ok(())
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

/// `GET /openapi.json`: the document, with the path under which the client reaches the service.
pub(super) fn router(document: Value) -> Result<Router<Api>, serde_json::Error> {
    let text = Bytes::from(serde_json::to_string_pretty(&document)? + "\n");
    // Handlers are copied for every request.
    let document = Arc::new(document);
    let answer = async move |base: Base| -> Answer<_> {
        let text = match base.as_str() {
            "" => text.clone(),
            path => served_at(&document, path).map_err(Problem::internal)?,
        };
        Ok(([(header::CONTENT_TYPE, "application/json")], text))
    };
    Ok(Router::new().route(PATH, get(answer)))
}

fn served_at(document: &Value, path: &str) -> Result<Bytes, serde_json::Error> {
    let mut document = document.clone();
    if let Value::Object(document) = &mut document {
        document.insert("servers".into(), json!([{ "url": path }]));
    }
    Ok(Bytes::from(serde_json::to_string_pretty(&document)? + "\n"))
}
