//! Problem details (RFC 9457): the document of every error response, and the table of problem types.

use std::collections::BTreeMap;

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa::openapi::{ContentBuilder, HeaderBuilder, Ref, RefOr, Response as OpenApiResponse, ResponseBuilder};

use crate::jobs::{StorageFault, StoreError};
use proxygrad::Invalid;

/// Media type of error responses.
pub const MEDIA_TYPE: &str = "application/problem+json";

/// Defines [`Kind`] and its table: one row of status, name, slug, title and description per kind, sorted by status.
macro_rules! problem_kinds {
    ($($status:ident $name:ident $slug:literal $title:literal $description:literal)*) => {
        /// Kinds of problems. Their `type` is stable; [`Kind::ALL`] lists them.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Kind {
            $(#[doc = $title] $name,)*
        }

        impl Kind {
            /// All kinds, sorted by status.
            pub const ALL: [Self; [$(Self::$name),*].len()] = [$(Self::$name),*];

            /// The row of the table.
            const fn entry(self) -> Entry {
                match self {
                    $(Self::$name => Entry {
                        slug: $slug,
                        status: StatusCode::$status,
                        title: $title,
                        description: $description,
                    },)*
                }
            }
        }
    };
}

/// A row of the table of problems.
struct Entry {
    /// Last part of the `type`.
    slug: &'static str,
    status: StatusCode,
    title: &'static str,
    /// For people: what the problem means and how to solve it.
    description: &'static str,
}

problem_kinds! {
    BAD_REQUEST InvalidParameter "invalid-parameter" "Invalid parameter"
        "A path, query or header parameter is not valid. `errors` names the parameter, the value found and what was \
         expected."

    BAD_REQUEST MalformedJson "malformed-json" "The body is not valid JSON"
        "The body cannot be parsed as JSON. `detail` gives the position of the error."

    BAD_REQUEST MalformedForm "malformed-form" "The body is not a valid form"
        "The body is declared as multipart/form-data (RFC 7578) but cannot be parsed. `detail` gives the reason."

    FORBIDDEN CrossSiteRequest "cross-site-request" "Cross-site request not allowed"
        "According to its Origin or Sec-Fetch-Site header, the request comes from a page of another origin, and it would \
         change something. Only pages of this server and of the origins configured with --cors-origin may do that."

    FORBIDDEN TrainingsDisabled "trainings-disabled" "This server does not train"
        "Trainings need a folder of datasets, and this server has none. Its operator can name one with --datasets."

    NOT_FOUND NotFound "not-found" "Not found"
        "This service has no resource at this path. /openapi.json lists all operations."

    NOT_FOUND UnknownJob "unknown-job" "Job not found"
        "No job has this id: it was never accepted, or it was deleted."

    NOT_FOUND UnknownStudy "unknown-study" "Study not found"
        "No study has this id: it was never accepted, or it was deleted."

    NOT_FOUND UnknownTraining "unknown-training" "Training not found"
        "No training has this id: it was never accepted, or it was deleted."

    NOT_FOUND UnknownStimulus "unknown-stimulus" "Stimulus not found"
        "The job has no stimulus with this index. Stimuli are numbered from 0 in the order of the objectives, and exist \
         once the job has succeeded."

    NOT_FOUND UnknownImage "unknown-image" "Image not found"
        "No image with this digest was uploaded with the job. The job's objectives and start list the digests of its \
         images."

    NOT_FOUND UnknownModel "unknown-model" "Model not found"
        "No model has this id. /v1/models lists all models."

    NOT_FOUND UnknownLayer "unknown-layer" "Layer not found"
        "The model has no layer with this name. /v1/models/{id}/layers lists all layers; in a path, `/` in a name is \
         encoded as `%2F`."

    NOT_FOUND UnknownUnit "unknown-unit" "Unit not found"
        "The layer has no unit with this index. Units are its channels or neurons, numbered from 0."

    NOT_FOUND UnknownPatch "unknown-patch" "Patch not found"
        "The unit has no natural image patch with this index, or the model is not calibrated: run `proxygrad models \
         calibrate`."

    METHOD_NOT_ALLOWED MethodNotAllowed "method-not-allowed" "Method not allowed"
        "The path exists, but does not support this method. The Allow header lists the supported methods."

    REQUEST_TIMEOUT RequestTimeout "request-timeout" "The request body did not arrive in time"
        "The body took too long to arrive. Send the request again."

    CONFLICT JobNotFinished "job-not-finished" "The job has not ended"
        "Only a job that has ended can be deleted. Cancel it first, or wait."

    CONFLICT StudyNotFinished "study-not-finished" "The study has not ended"
        "Only a study that has ended can be deleted. Cancel it first, or wait."

    CONFLICT TrainingNotFinished "training-not-finished" "The training has not ended"
        "Only a training that has ended can be deleted. Cancel it first, or wait."

    CONFLICT NoResultYet "no-result-yet" "The training has no such result yet"
        "The table of epochs exists once the first epoch has ended, the trained network once the training has \
         succeeded. `detail` gives its state."

    CONFLICT NoRunsYet "no-runs-yet" "The study has no finished runs yet"
        "There are no results to show: none of the study's runs has finished. `detail` gives its state."

    GONE FileGone "file-gone" "The file is missing"
        "The job, study or training exists, but one of its files is missing or damaged: it was removed, or the data directory was \
         only partly restored. The same request with the same seed produces the same image again."

    PAYLOAD_TOO_LARGE BodyTooLarge "body-too-large" "The request body is too large"
        "The body exceeds the limit of this server. Send fewer objectives at a time, or smaller images."

    UNSUPPORTED_MEDIA_TYPE UnsupportedMediaType "unsupported-media-type" "Unsupported media type"
        "The body must be JSON, declared as Content-Type: application/json. A request for stimuli may also be \
         multipart/form-data."

    MISDIRECTED_REQUEST UnknownHost "unknown-host" "Host not accepted"
        "The server does not accept requests for this host. It accepts loopback names, IP addresses if it does not \
         listen on loopback only, and the hosts configured with --allowed-host."

    UNPROCESSABLE_ENTITY InvalidRequest "invalid-request" "Invalid request"
        "The body is JSON, but a field is missing, unknown, out of range, of the wrong type or not valid for the model. \
         `errors` names the field, the value found and what was expected."

    UNPROCESSABLE_ENTITY TooMuchMemory "too-much-memory" "The request needs too much memory"
        "Running the request, or decoding one of its images, would exceed the memory limit of this server. `detail` gives \
         the estimated and the allowed number of bytes, `errors` the fields that could be reduced. Nothing was run."

    UNPROCESSABLE_ENTITY IdempotencyKeyReused "idempotency-key-reused" "Idempotency key already used"
        "The same Idempotency-Key was sent before with a different request. Use a new key for a new request."

    INTERNAL_SERVER_ERROR Internal "internal" "Internal server error"
        "An error occurred in the server. The server's log has the details, under the X-Request-Id of the response."

    INTERNAL_SERVER_ERROR BrokenModel "broken-model" "The model is broken"
        "The model's files exist but cannot be loaded as a network. `detail` gives the reason; the operator of the server \
         has to repair or remove them."

    SERVICE_UNAVAILABLE QueueFull "queue-full" "The queue is full"
        "The server's queue of jobs, of studies or of trainings is full. Send the request again after the time in Retry-After."

    SERVICE_UNAVAILABLE ModelUnavailable "model-unavailable" "The model is not available yet"
        "The model has to be downloaded first, and the download has failed or is still running. `detail` gives the \
         reason. Send the request again after the time in Retry-After."

    SERVICE_UNAVAILABLE NotReady "not-ready" "The server is not ready"
        "The server is running, but cannot run or store jobs yet, or is shutting down. `reasons` lists why."

    SERVICE_UNAVAILABLE Overloaded "overloaded" "The server is overloaded"
        "There are too many connections or event streams. Send the request again after the time in Retry-After."

    SERVICE_UNAVAILABLE StorageUnavailable "storage-unavailable" "The storage is unavailable"
        "The server cannot write to its data directory: the disk fails or is read-only, or another program has locked the \
         database. `detail` says which. The request had no effect; send it again after the time in Retry-After."

    INSUFFICIENT_STORAGE NoSpace "no-space" "The disk is full"
        "The disk with the server's data directory is full (RFC 4918, section 11.5). The request had no effect. Delete \
         jobs, studies or trainings, or ask the operator of the server to free space, and send it again after the time in \
         Retry-After."
}

impl Kind {
    /// Last part of the `type`.
    pub const fn slug(self) -> &'static str {
        self.entry().slug
    }

    /// The kind with this slug.
    pub fn find(slug: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.slug() == slug)
    }

    /// The `type` of the problem: path of its documentation page on this server.
    pub fn uri(self) -> String {
        format!("/problems/{}", self.slug())
    }

    /// HTTP status of the response.
    pub const fn status(self) -> StatusCode {
        self.entry().status
    }

    /// Short summary of the kind.
    pub const fn title(self) -> &'static str {
        self.entry().title
    }

    /// What the problem means and how to solve it.
    pub const fn description(self) -> &'static str {
        self.entry().description
    }

    /// OpenAPI responses of an operation for these kinds and [`Kind::Internal`], one per status.
    pub fn responses(kinds: &[Self]) -> BTreeMap<String, RefOr<OpenApiResponse>> {
        let mut by_status: BTreeMap<StatusCode, Vec<Self>> = BTreeMap::new();
        for &kind in kinds.iter().chain(&[Self::Internal]) {
            by_status.entry(kind.status()).or_default().push(kind);
        }
        by_status
            .into_iter()
            .map(|(status, kinds)| (status.as_u16().to_string(), response_for(&kinds).into()))
            .collect()
    }
}

/// OpenAPI response for kinds of the same status.
pub(super) fn response_for(kinds: &[Kind]) -> OpenApiResponse {
    let lines: Vec<String> = kinds.iter().map(|kind| format!("`{}`: {}.", kind.uri(), kind.title())).collect();
    let schema = Ref::from_schema_name(Document::name());
    let content = ContentBuilder::new().schema(Some(schema)).build();
    let mut response = ResponseBuilder::new().description(lines.join("\n\n")).content(MEDIA_TYPE, content);
    let temporary =
        [Kind::QueueFull, Kind::ModelUnavailable, Kind::Overloaded, Kind::StorageUnavailable, Kind::NoSpace];
    if kinds.iter().any(|kind| temporary.contains(kind)) {
        let description = Some("Seconds to wait before the next attempt.");
        let seconds = utoipa::openapi::ObjectBuilder::new().schema_type(utoipa::openapi::Type::Integer).build();
        response =
            response.header("Retry-After", HeaderBuilder::new().schema(Some(seconds)).description(description).build());
    }
    response.build()
}

/// Declares a type for `#[utoipa::path(responses(...))]` with the problems of an operation.
macro_rules! declare_problems {
    ($name:ident: $($kind:ident),*) => {
        struct $name;

        impl utoipa::IntoResponses for $name {
            fn responses() -> std::collections::BTreeMap<String, utoipa::openapi::RefOr<utoipa::openapi::Response>> {
                $crate::api::problem::Kind::responses(&[$($crate::api::problem::Kind::$kind),*])
            }
        }
    };
}
pub(super) use declare_problems;

/// An error response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    kind: Kind,
    detail: String,
    errors: Vec<Invalid>,
    reasons: Vec<String>,
    /// Seconds.
    retry_after: Option<u32>,
}

/// `Retry-After` of storage problems, in seconds.
const STORAGE_RETRY_AFTER: u32 = 5;

/// Result of a handler.
pub type ApiResult<T> = Result<T, Problem>;

impl Problem {
    /// A problem with an explanation of this occurrence.
    pub fn new(kind: Kind, detail: impl Into<String>) -> Self {
        Self { kind, detail: detail.into(), errors: Vec::new(), reasons: Vec::new(), retry_after: None }
    }

    /// An invalid input.
    pub fn invalid(kind: Kind, error: Invalid) -> Self {
        Self { errors: vec![error.clone()], ..Self::new(kind, error.to_string()) }
    }

    /// A request beyond a limit; `errors` lists the fields that could be reduced.
    pub fn too_large(kind: Kind, detail: impl Into<String>, errors: Vec<Invalid>) -> Self {
        Self { errors, ..Self::new(kind, detail) }
    }

    /// An internal error. The cause is logged and not sent to the client.
    pub fn internal(cause: impl std::fmt::Display) -> Self {
        tracing::error!(cause = %cause, "request failed");
        Self::new(Kind::Internal, "An internal error occurred; the server's log has the details.")
    }

    /// A failed read of a file; [`Kind::FileGone`] if the file is missing or damaged.
    pub fn unreadable(error: StoreError) -> Self {
        match error {
            StoreError::Lost { id, file, why } => {
                tracing::warn!(%id, file, why, "job file is missing or damaged");
                Self::new(Kind::FileGone, format!("the file {file} of job {id} {why} on this server"))
            }
            error => Self::internal(error),
        }
    }

    /// A failed write to the store: [`Kind::NoSpace`], [`Kind::StorageUnavailable`] or [`Kind::Internal`].
    pub fn store(error: StoreError) -> Self {
        let Some(fault) = error.fault() else { return Self::internal(error) };
        tracing::error!(cause = %error, "request failed");
        let kind = if fault == StorageFault::NoSpace { Kind::NoSpace } else { Kind::StorageUnavailable };
        Self::new(kind, format!("{fault}; the request had no effect")).retry_after(STORAGE_RETRY_AFTER)
    }

    /// The same problem, with `Retry-After`.
    #[must_use]
    pub fn retry_after(self, seconds: u32) -> Self {
        Self { retry_after: Some(seconds), ..self }
    }

    /// The same problem, with the reasons why the server is not ready.
    #[must_use]
    pub fn with_reasons(self, reasons: Vec<String>) -> Self {
        Self { reasons, ..self }
    }

    /// The kind of the problem.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The explanation of this occurrence.
    pub fn detail(&self) -> &str {
        &self.detail
    }

    /// The JSON document, with `base` before the `type`.
    pub(super) fn document(&self, base: &str) -> Vec<u8> {
        let Self { kind, detail, errors, reasons, .. } = self;
        let document = Document {
            kind: format!("{base}{}", kind.uri()),
            title: kind.title(),
            status: kind.status().as_u16(),
            detail,
            errors: errors.iter().cloned().map(FieldError::from).collect(),
            reasons,
        };
        // Serializing strings and numbers cannot fail.
        serde_json::to_vec(&document).unwrap_or_default()
    }

    /// The invalid inputs.
    pub fn errors(&self) -> &[Invalid] {
        &self.errors
    }
}

/// Error response (RFC 9457). `type` identifies the kind of problem and is stable; it is the path of a documentation
/// page on this server.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Problem)]
struct Document<'a> {
    /// Problem type: path of its documentation page.
    #[serde(rename = "type")]
    #[schema(examples("/problems/invalid-request"))]
    kind: String,
    /// Short summary of the problem type.
    #[schema(examples("Invalid request"))]
    title: &'static str,
    /// HTTP status code.
    #[schema(minimum = 400, maximum = 599, examples(422))]
    status: u16,
    /// Explanation of this occurrence.
    #[schema(examples("objective.channel: 1000 is not valid; expected a channel from 0 to 999"))]
    detail: &'a str,
    /// The invalid inputs.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    errors: Vec<FieldError>,
    /// Why the server is not ready.
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    #[schema(required = false)]
    reasons: &'a [String],
}

/// An invalid input.
#[derive(Debug, Serialize, ToSchema)]
struct FieldError {
    /// Path of the field in the request, or name of the parameter or header.
    #[schema(examples("objective.channel"))]
    field: String,
    /// The value found, as text.
    #[schema(examples("1000"))]
    value: String,
    /// What was expected.
    #[schema(examples("a channel from 0 to 999"))]
    expected: String,
}

impl From<Invalid> for FieldError {
    fn from(Invalid { field, value, expected, .. }: Invalid) -> Self {
        Self { field, value, expected }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let (kind, retry_after) = (self.kind, self.retry_after);
        let content_type = [(header::CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE))];
        let mut response = (kind.status(), content_type, self.document("")).into_response();
        let headers = response.headers_mut();
        if let Some(seconds) = retry_after {
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
        if kind == Kind::UnsupportedMediaType {
            headers.insert(header::ACCEPT, HeaderValue::from_static("application/json, multipart/form-data"));
        }
        response.extensions_mut().insert(self);
        response
    }
}

/// Components that [`Kind::responses`] refers to.
#[derive(utoipa::OpenApi)]
#[openapi(components(schemas(Document, FieldError)))]
pub(super) struct Components;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_kind_has_its_own_type_and_an_error_status() {
        let types: HashSet<String> = Kind::ALL.into_iter().map(Kind::uri).collect();
        assert_eq!(types.len(), Kind::ALL.len());
        assert!(Kind::ALL.is_sorted_by_key(|kind| kind.status()));
        for kind in Kind::ALL {
            assert!(kind.status().is_client_error() || kind.status().is_server_error(), "{kind:?}");
            assert_eq!(Kind::find(kind.uri().strip_prefix("/problems/").unwrap()), Some(kind));
            assert!(!kind.title().ends_with('.') && kind.description().ends_with('.'), "{kind:?}");
        }
    }

    #[test]
    fn kinds_with_the_same_status_share_a_response() {
        let responses = Kind::responses(&[Kind::InvalidParameter, Kind::MalformedJson, Kind::QueueFull]);
        assert_eq!(responses.keys().collect::<Vec<_>>(), ["400", "500", "503"]);
        let RefOr::T(bad) = &responses["400"] else { panic!("not inline") };
        assert!(bad.description.contains("/problems/invalid-parameter"), "{}", bad.description);
        assert!(bad.description.contains("/problems/malformed-json"), "{}", bad.description);
        let RefOr::T(full) = &responses["503"] else { panic!("not inline") };
        assert!(full.headers.contains_key("Retry-After"));
    }
}
