//! Problem details (RFC 9457): the one form of every error answer.

use std::collections::BTreeMap;

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa::openapi::{ContentBuilder, HeaderBuilder, Ref, RefOr, Response as Declared, ResponseBuilder};

use crate::jobs::{StorageFault, StoreError};
use proxygrad::Invalid;

/// Media type of every error answer.
pub const MEDIA_TYPE: &str = "application/problem+json";

/// Kinds of problems. Their `type` is stable; [`Kind::ALL`] is the whole list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// A path, query or header parameter cannot be used.
    InvalidParameter,
    /// The body is not JSON.
    MalformedJson,
    /// The body is declared as a form, and is none.
    MalformedForm,
    /// No such call.
    NotFound,
    /// No such job.
    UnknownJob,
    /// No such study.
    UnknownStudy,
    /// No such stimulus.
    UnknownStimulus,
    /// No such image.
    UnknownImage,
    /// No such model.
    UnknownModel,
    /// No such layer.
    UnknownLayer,
    /// No such unit.
    UnknownUnit,
    /// No such patch.
    UnknownPatch,
    /// The path exists, the method does not.
    MethodNotAllowed,
    /// A page of another site asks for something that changes something.
    CrossSiteRequest,
    /// The body did not arrive in time.
    RequestTimeout,
    /// The job has not ended.
    JobNotFinished,
    /// The study has not ended.
    StudyNotFinished,
    /// The study has no runs yet.
    NoRunsYet,
    /// The file of something that exists is gone.
    FileGone,
    /// The body is too large.
    BodyTooLarge,
    /// The body is not declared as JSON.
    UnsupportedMediaType,
    /// The body is JSON but not a request that can be carried out.
    InvalidRequest,
    /// The request takes more memory than a run may.
    TooMuchMemory,
    /// The key was used for another request.
    IdempotencyKeyReused,
    /// The request is for a host that is not this server's.
    UnknownHost,
    /// A failure of the server.
    Internal,
    /// The model's files are there but cannot be used.
    BrokenModel,
    /// No room for another job.
    QueueFull,
    /// The model cannot be fetched now.
    ModelUnavailable,
    /// The server cannot run jobs yet.
    NotReady,
    /// Too many connections or streams.
    Overloaded,
    /// Nothing can be stored now, for another reason than a full disk.
    StorageUnavailable,
    /// The disk is full.
    NoSpace,
}

/// One line of the table of problems.
struct Entry {
    /// Last part of the `type`.
    slug: &'static str,
    status: StatusCode,
    title: &'static str,
    /// What it means and what to do, for people.
    meaning: &'static str,
}

impl Kind {
    /// Every kind, by status.
    pub const ALL: [Self; 33] = [
        Self::InvalidParameter,
        Self::MalformedJson,
        Self::MalformedForm,
        Self::CrossSiteRequest,
        Self::NotFound,
        Self::UnknownJob,
        Self::UnknownStudy,
        Self::UnknownStimulus,
        Self::UnknownImage,
        Self::UnknownModel,
        Self::UnknownLayer,
        Self::UnknownUnit,
        Self::UnknownPatch,
        Self::MethodNotAllowed,
        Self::RequestTimeout,
        Self::JobNotFinished,
        Self::StudyNotFinished,
        Self::NoRunsYet,
        Self::FileGone,
        Self::BodyTooLarge,
        Self::UnsupportedMediaType,
        Self::UnknownHost,
        Self::InvalidRequest,
        Self::TooMuchMemory,
        Self::IdempotencyKeyReused,
        Self::Internal,
        Self::BrokenModel,
        Self::QueueFull,
        Self::ModelUnavailable,
        Self::NotReady,
        Self::Overloaded,
        Self::StorageUnavailable,
        Self::NoSpace,
    ];

    /// The table of problems.
    const fn entry(self) -> Entry {
        let (status, slug, title, meaning) = match self {
            Self::InvalidParameter => (
                StatusCode::BAD_REQUEST,
                "invalid-parameter",
                "A parameter is not valid",
                "A parameter in the path, the query or a header cannot be used. `errors` names it, the value found and \
                 what would be right.",
            ),
            Self::MalformedJson => (
                StatusCode::BAD_REQUEST,
                "malformed-json",
                "The body is not valid JSON",
                "The body cannot be read as JSON. `detail` says where it breaks off.",
            ),
            Self::MalformedForm => (
                StatusCode::BAD_REQUEST,
                "malformed-form",
                "The body is not a valid form",
                "The body is declared as multipart/form-data (RFC 7578), but cannot be taken apart. `detail` says why.",
            ),
            Self::CrossSiteRequest => (
                StatusCode::FORBIDDEN,
                "cross-site-request",
                "A page of another site may not do this",
                "The request comes from a page of another origin, by its Origin or Sec-Fetch-RequestSite header, and would change \
                 something. Only pages of this server may do that, and those of the origins that the server was started \
                 with (--cors-origin).",
            ),
            Self::NotFound => (
                StatusCode::NOT_FOUND,
                "not-found",
                "There is nothing here",
                "No call of this service has this path. /openapi.json lists the calls.",
            ),
            Self::UnknownJob => (
                StatusCode::NOT_FOUND,
                "unknown-job",
                "There is no such job",
                "No job has this id: it was never accepted, or it was deleted.",
            ),
            Self::UnknownStudy => (
                StatusCode::NOT_FOUND,
                "unknown-study",
                "There is no such study",
                "No study has this id: it was never accepted, or it was deleted.",
            ),
            Self::UnknownStimulus => (
                StatusCode::NOT_FOUND,
                "unknown-stimulus",
                "There is no such stimulus",
                "The job has no stimulus with this number: stimuli are counted from 0 in the order of the objectives, \
                 and exist once the job has succeeded.",
            ),
            Self::UnknownImage => (
                StatusCode::NOT_FOUND,
                "unknown-image",
                "There is no such image",
                "The job brought no image with this digest. Its objectives and its start tell the digests of its images.",
            ),
            Self::UnknownModel => (
                StatusCode::NOT_FOUND,
                "unknown-model",
                "There is no such model",
                "No model has this id. /v1/models lists the models.",
            ),
            Self::UnknownLayer => (
                StatusCode::NOT_FOUND,
                "unknown-layer",
                "There is no such layer",
                "The model has no layer with this name. /v1/models/{id}/layers lists the layers; in a path, `/` in a name \
                 is written `%2F`.",
            ),
            Self::UnknownUnit => (
                StatusCode::NOT_FOUND,
                "unknown-unit",
                "There is no such unit",
                "The layer has no unit with this number: units are its channels or neurons, counted from 0.",
            ),
            Self::UnknownPatch => (
                StatusCode::NOT_FOUND,
                "unknown-patch",
                "There is no such patch",
                "No natural image is kept for this unit under this number, or the model is not calibrated: \
                 `proxygrad models calibrate` does that.",
            ),
            Self::MethodNotAllowed => (
                StatusCode::METHOD_NOT_ALLOWED,
                "method-not-allowed",
                "The method is not allowed here",
                "The path exists, but not with this method. The Allow header lists the methods it has.",
            ),
            Self::RequestTimeout => (
                StatusCode::REQUEST_TIMEOUT,
                "request-timeout",
                "The request did not arrive in time",
                "The body of the request took too long to arrive. Send it again.",
            ),
            Self::JobNotFinished => (
                StatusCode::CONFLICT,
                "job-not-finished",
                "The job has not ended",
                "Only a job that has ended can be deleted. Cancel it first, or wait.",
            ),
            Self::StudyNotFinished => (
                StatusCode::CONFLICT,
                "study-not-finished",
                "The study has not ended",
                "Only a study that has ended can be deleted. Cancel it first, or wait.",
            ),
            Self::NoRunsYet => (
                StatusCode::CONFLICT,
                "no-runs-yet",
                "The study has no runs yet",
                "There is nothing to show of this study: none of its runs is done. `detail` says where it stands.",
            ),
            Self::FileGone => (
                StatusCode::GONE,
                "file-gone",
                "The file is gone",
                "The job or study is there, but this file of it is not, or has other bytes than were written: somebody \
                 removed it, or the data directory was restored in part. The same request with the same seed makes the \
                 same image again.",
            ),
            Self::BodyTooLarge => (
                StatusCode::PAYLOAD_TOO_LARGE,
                "body-too-large",
                "The body is too large",
                "The body is larger than this server accepts. Send less, for example fewer objectives at a time, or smaller images.",
            ),
            Self::UnsupportedMediaType => (
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "unsupported-media-type",
                "The body is not declared as JSON",
                "The body must be JSON and say so: Content-Type: application/json. A request for stimuli may also be \
                 multipart/form-data.",
            ),
            Self::InvalidRequest => (
                StatusCode::UNPROCESSABLE_ENTITY,
                "invalid-request",
                "The request cannot be carried out",
                "The body is JSON, but a field is missing, unknown, of the wrong type, out of range or does not fit the \
                 model. `errors` names it, the value found and what would be right.",
            ),
            Self::TooMuchMemory => (
                StatusCode::UNPROCESSABLE_ENTITY,
                "too-much-memory",
                "The request takes too much memory",
                "Carrying out the request, or unpacking one of its images, would take more memory than this server allows. \
                 `detail` tells how many bytes it would take and how many are allowed, `errors` names the fields that \
                 could be less. Nothing was run.",
            ),
            Self::IdempotencyKeyReused => (
                StatusCode::UNPROCESSABLE_ENTITY,
                "idempotency-key-reused",
                "The idempotency key belongs to another request",
                "The same Idempotency-Key was sent before with another request. Use a new key for a new request.",
            ),
            Self::UnknownHost => (
                StatusCode::MISDIRECTED_REQUEST,
                "unknown-host",
                "The server does not answer for this host",
                "The host of the request is not one of this server's. It answers for loopback names, for addresses when it \
                 listens on more than loopback, and for the hosts that it was started with (--allowed-host).",
            ),
            Self::Internal => (
                StatusCode::INTERNAL_SERVER_ERROR,
                "internal",
                "The server failed",
                "Something went wrong in the server. Its log tells more, under the answer's X-Request-Id.",
            ),
            Self::BrokenModel => (
                StatusCode::INTERNAL_SERVER_ERROR,
                "broken-model",
                "The model cannot be used",
                "The model's files are there, but they cannot be read as a network. `detail` says why; whoever runs the \
                 server has to repair or remove them.",
            ),
            Self::QueueFull => (
                StatusCode::SERVICE_UNAVAILABLE,
                "queue-full",
                "The queue is full",
                "As many jobs, or studies, wait as this server accepts. Send the request again after the time in Retry-After.",
            ),
            Self::ModelUnavailable => (
                StatusCode::SERVICE_UNAVAILABLE,
                "model-unavailable",
                "The model is not available now",
                "The model has to be fetched first, and that has failed or not ended yet. `detail` says why. Send the \
                 request again after the time in Retry-After.",
            ),
            Self::NotReady => (
                StatusCode::SERVICE_UNAVAILABLE,
                "not-ready",
                "The server is not ready",
                "The server is up but cannot run jobs yet, cannot store them, or is shutting down. `reasons` says why.",
            ),
            Self::StorageUnavailable => (
                StatusCode::SERVICE_UNAVAILABLE,
                "storage-unavailable",
                "Nothing can be stored now",
                "The server cannot write its data directory: the disk fails, is read-only, or another program keeps the \
                 database locked. `detail` says which. Nothing of the request was carried out; send it again after the time \
                 in Retry-After.",
            ),
            Self::NoSpace => (
                StatusCode::INSUFFICIENT_STORAGE,
                "no-space",
                "There is no space left",
                "The disk with the server's data directory is full (RFC 4918, section 11.5). Nothing of the request was \
                 carried out; send it again after the time in Retry-After, once jobs or studies have been deleted or \
                 whoever runs the server has made room.",
            ),
            Self::Overloaded => (
                StatusCode::SERVICE_UNAVAILABLE,
                "overloaded",
                "The server is overloaded",
                "There are too many connections, or streams of events. Send the request again after the time in \
                 Retry-After.",
            ),
        };
        Entry { slug, status, title, meaning }
    }

    /// Last part of the `type`.
    pub const fn slug(self) -> &'static str {
        self.entry().slug
    }

    /// The kind with this slug.
    pub fn find(slug: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.slug() == slug)
    }

    /// The `type` of the problem: a path on this server, where the problem is explained.
    pub fn uri(self) -> String {
        format!("/problems/{}", self.slug())
    }

    /// HTTP status of the answer.
    pub const fn status(self) -> StatusCode {
        self.entry().status
    }

    /// What the problem is, in general.
    pub const fn title(self) -> &'static str {
        self.entry().title
    }

    /// What the problem means and what to do.
    pub const fn meaning(self) -> &'static str {
        self.entry().meaning
    }

    /// Declares these kinds, and [`Kind::Internal`], as answers of a call: one response per status.
    pub fn declare(kinds: &[Self]) -> BTreeMap<String, RefOr<Declared>> {
        let mut by_status: BTreeMap<StatusCode, Vec<Self>> = BTreeMap::new();
        for &kind in kinds.iter().chain(&[Self::Internal]) {
            by_status.entry(kind.status()).or_default().push(kind);
        }
        by_status.into_iter().map(|(status, kinds)| (status.as_u16().to_string(), declared(&kinds).into())).collect()
    }
}

/// These kinds, of one status, as an answer of a call.
pub(super) fn declared(kinds: &[Kind]) -> Declared {
    let lines: Vec<String> = kinds.iter().map(|kind| format!("`{}`: {}.", kind.uri(), kind.title())).collect();
    let schema = Ref::from_schema_name(Document::name());
    let content = ContentBuilder::new().schema(Some(schema)).build();
    let mut response = ResponseBuilder::new().description(lines.join("\n\n")).content(MEDIA_TYPE, content);
    let later = [Kind::QueueFull, Kind::ModelUnavailable, Kind::Overloaded, Kind::StorageUnavailable, Kind::NoSpace];
    if kinds.iter().any(|kind| later.contains(kind)) {
        let description = Some("Seconds after which another try makes sense.");
        let seconds = utoipa::openapi::ObjectBuilder::new().schema_type(utoipa::openapi::Type::Integer).build();
        response =
            response.header("Retry-After", HeaderBuilder::new().schema(Some(seconds)).description(description).build());
    }
    response.build()
}

/// Declares, for `#[utoipa::path(responses(...))]`, which problems a call may answer with.
macro_rules! declare_problems {
    ($name:ident: $($kind:ident),*) => {
        struct $name;

        impl utoipa::IntoResponses for $name {
            fn responses() -> std::collections::BTreeMap<String, utoipa::openapi::RefOr<utoipa::openapi::Response>> {
                $crate::api::problem::Kind::declare(&[$($crate::api::problem::Kind::$kind),*])
            }
        }
    };
}
pub(super) use declare_problems;

/// An error answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    kind: Kind,
    detail: String,
    errors: Vec<Invalid>,
    reasons: Vec<String>,
    /// Seconds.
    retry_after: Option<u32>,
}

/// Seconds after which it makes sense to try to write again: what keeps from it is often over soon, or long lasting.
const STORAGE_RECOVERS: u32 = 5;

/// What a handler returns.
pub type ApiResult<T> = Result<T, Problem>;

impl Problem {
    /// A problem of this kind; `detail` explains this occurrence.
    pub fn new(kind: Kind, detail: impl Into<String>) -> Self {
        Self { kind, detail: detail.into(), errors: Vec::new(), reasons: Vec::new(), retry_after: None }
    }

    /// An input that is wrong.
    pub fn invalid(kind: Kind, error: Invalid) -> Self {
        Self { errors: vec![error.clone()], ..Self::new(kind, error.to_string()) }
    }

    /// Inputs that each could be less; `detail` explains why they should.
    pub fn too_large(kind: Kind, detail: impl Into<String>, errors: Vec<Invalid>) -> Self {
        Self { errors, ..Self::new(kind, detail) }
    }

    /// A failure of the server itself. The cause goes to the log and never to the client.
    pub fn internal(cause: impl std::fmt::Display) -> Self {
        tracing::error!(cause = %cause, "request failed");
        Self::new(Kind::Internal, "The server failed; its log tells more.")
    }

    /// A file that cannot be read; [`Kind::FileGone`] where it is gone or damaged.
    pub fn unreadable(error: StoreError) -> Self {
        match error {
            StoreError::Lost { id, file, why } => {
                tracing::warn!(%id, file, why, "a file of a job is lost");
                Self::new(Kind::FileGone, format!("the file {file} of job {id} {why} on this server"))
            }
            error => Self::internal(error),
        }
    }

    /// A failure of the store: a problem of its own when nothing can be written now, else one of the server itself.
    pub fn store(error: StoreError) -> Self {
        let Some(fault) = error.fault() else { return Self::internal(error) };
        tracing::error!(cause = %error, "request failed");
        let kind = if fault == StorageFault::NoSpace { Kind::NoSpace } else { Kind::StorageUnavailable };
        Self::new(kind, format!("{fault}; nothing of this request was carried out")).retry_after(STORAGE_RECOVERS)
    }

    /// The same problem, with the time after which another try makes sense.
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

    /// What is wrong this time.
    pub fn detail(&self) -> &str {
        &self.detail
    }

    /// The document, its `type` below the path `base`.
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
        // Texts and numbers always make JSON.
        serde_json::to_vec(&document).unwrap_or_default()
    }

    /// The inputs that are wrong.
    pub fn errors(&self) -> &[Invalid] {
        &self.errors
    }
}

/// An error answer, as RFC 9457 describes it. `type` says which kind of problem it is and never changes; a path on this
/// server explains it.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Problem)]
struct Document<'a> {
    /// The kind of problem: a path that can be opened for an explanation.
    #[serde(rename = "type")]
    #[schema(examples("/problems/invalid-request"))]
    kind: String,
    /// The kind of problem in words.
    #[schema(examples("The request cannot be carried out"))]
    title: &'static str,
    /// The HTTP status.
    #[schema(minimum = 400, maximum = 599, examples(422))]
    status: u16,
    /// What is wrong this time.
    #[schema(examples("objective.channel: 1000 is not valid; expected a channel from 0 to 999"))]
    detail: &'a str,
    /// Which inputs are wrong.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    errors: Vec<FieldError>,
    /// What the server waits for.
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    #[schema(required = false)]
    reasons: &'a [String],
}

/// An input that is wrong.
#[derive(Debug, Serialize, ToSchema)]
struct FieldError {
    /// Path of the field in the request, or name of the parameter or header.
    #[schema(examples("objective.channel"))]
    field: String,
    /// The value found there, as text.
    #[schema(examples("1000"))]
    value: String,
    /// What would be right.
    #[schema(examples("a channel from 0 to 999"))]
    expected: String,
}

impl From<Invalid> for FieldError {
    fn from(Invalid { field, value, expected }: Invalid) -> Self {
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

/// The components that [`Kind::declare`] refers to.
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
            assert!(!kind.title().ends_with('.') && kind.meaning().ends_with('.'), "{kind:?}");
        }
    }

    #[test]
    fn kinds_with_the_same_status_share_a_declaration() {
        let declared = Kind::declare(&[Kind::InvalidParameter, Kind::MalformedJson, Kind::QueueFull]);
        assert_eq!(declared.keys().collect::<Vec<_>>(), ["400", "500", "503"]);
        let RefOr::T(bad) = &declared["400"] else { panic!("not inline") };
        assert!(bad.description.contains("/problems/invalid-parameter"), "{}", bad.description);
        assert!(bad.description.contains("/problems/malformed-json"), "{}", bad.description);
        let RefOr::T(full) = &declared["503"] else { panic!("not inline") };
        assert!(full.headers.contains_key("Retry-After"));
    }
}
