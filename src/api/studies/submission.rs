//! Request body of a study: JSON, whose parts are validated as parts of job requests.

use axum::extract::FromRequest;
use serde_json::Value;

use crate::api::body::{Body, MediaType};
use crate::api::problem::{Kind, Problem};
use crate::api::{Api, json_error};
use proxygrad::Invalid;
use proxygrad::maximize::{Request, Start};
use proxygrad::study::{Fields, StudyRequest, VariantChoice};

/// A validated request for a study.
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
                if let VariantChoice::Custom(variant) = choice {
                    check(&format!("{field}[{i}].request"), &variant.request)?;
                }
            }
        }
        Ok(Self(request))
    }
}

/// Maximum size of a part in bytes of JSON: the plan stores one part per combination of arm and method.
const MAX_PART_SIZE: usize = 16 * 1024;

/// Checks that these are fields of a job request. They are resolved for the models later.
fn check(path: &str, fields: &Fields) -> Result<(), Problem> {
    let mut document = fields.clone();
    document.insert("model".into(), Value::String(String::new()));
    let text = serde_json::to_vec(&document).map_err(Problem::internal)?;
    let invalid = |error: Invalid| Problem::invalid(Kind::InvalidRequest, error.within(path));
    if text.len() > MAX_PART_SIZE {
        let error = Invalid::new(path, format!("{} bytes of JSON", text.len()), format!("at most {MAX_PART_SIZE}"));
        return Err(Problem::invalid(Kind::InvalidRequest, error));
    }
    match json_error::parse::<Request>(&text) {
        // The plan would store a copy per combination of arm and method.
        Ok(request) if matches!(request.start, Some(Start::Image { .. })) => {
            Err(invalid(Invalid::new("start.kind", "image", "another start: images are not supported in a study")))
        }
        Ok(_) => Ok(()),
        Err(problem) => Err(problem.errors().first().cloned().map_or(problem, invalid)),
    }
}
