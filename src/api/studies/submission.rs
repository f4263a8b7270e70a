//! What a client submits: a request for a study, as JSON.

use axum::extract::FromRequest;
use serde_json::Value;

use crate::api::body::{Body, MediaType};
use crate::api::problem::{Kind, Problem};
use crate::api::{Api, json_error};
use proxygrad::Invalid;
use proxygrad::maximize::{Request, Start};
use proxygrad::study::{Fields, StudyRequest, VariantChoice};

/// A request for a study whose parts are parts of requests.
pub(super) struct Submission(pub StudyRequest);

impl FromRequest<Api> for Submission {
    type Rejection = Problem;

    async fn from_request(request: axum::extract::Request, api: &Api) -> Result<Self, Problem> {
        let Body { media_type, bytes } = Body::from_request(request, api).await?;
        if media_type != MediaType::Json {
            let detail = "the body's Content-Type is multipart/form-data; expected application/json";
            return Err(Problem::new(Kind::UnsupportedMediaType, detail));
        }
        let request: StudyRequest = json_error::parse(&bytes)?;
        check("base", &request.base)?;
        for (field, choices) in [("arms", &request.arms), ("methods", &request.methods)] {
            for (i, choice) in choices.iter().enumerate() {
                if let VariantChoice::Own(variant) = choice {
                    check(&format!("{field}[{i}].request"), &variant.request)?;
                }
            }
        }
        Ok(Self(request))
    }
}

/// Longest part of a request in bytes of JSON: a plan has one for every arm under every method.
const LONGEST_PART: usize = 16 * 1024;

/// Checks that these are fields of a request, in themselves: what they mean for a model is seen later.
fn check(place: &str, fields: &Fields) -> Result<(), Problem> {
    let mut document = fields.clone();
    document.insert("model".into(), Value::String(String::new()));
    let text = serde_json::to_vec(&document).map_err(Problem::internal)?;
    let invalid = |error: Invalid| Problem::invalid(Kind::InvalidRequest, error.within(place));
    if text.len() > LONGEST_PART {
        let error = Invalid::new(place, format!("{} bytes of JSON", text.len()), format!("at most {LONGEST_PART}"));
        return Err(Problem::invalid(Kind::InvalidRequest, error));
    }
    match json_error::parse::<Request>(&text) {
        // Every arm under every method would keep one.
        Ok(request) if matches!(request.start, Some(Start::Image { .. })) => {
            Err(invalid(Invalid::new("start.kind", "image", "another start: a study brings no images")))
        }
        Ok(_) => Ok(()),
        Err(problem) => Err(problem.errors().first().cloned().map_or(problem, invalid)),
    }
}
