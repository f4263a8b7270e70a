//! `GET /v1/studies/{id}/report`, `runs.csv`, `summary.csv`, `summary.json`, `plan.json`: result files of a study.
//!
//! Until the study has succeeded, they are generated from the finished runs.

use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::Response;
use sha2::{Digest, Sha256};
use utoipa::ToSchema;

use super::study_not_found;
use crate::api::Api;
use crate::api::etag::{Conditional, IMMUTABLE, IfNoneMatch, NotModified};
use crate::api::parameters::{PathParams, QueryParams};
use crate::api::problem::{ApiResult, Kind, Problem, declare_problems};
use crate::jobs::{RunState, Study};
use proxygrad::study::{StudyError, page};

/// `Cache-Control` of files that may still change.
const REVALIDATE: HeaderValue = HeaderValue::from_static("no-cache");

/// Content security policy of the report: inline styles and images only.
const REPORT_POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; form-action 'none'; base-uri 'none'; \
     frame-ancestors 'none'",
);

/// A result file of a study.
#[derive(Clone, Copy)]
enum File {
    Report,
    Runs,
    SummaryCsv,
    SummaryJson,
}

impl File {
    fn name(self) -> &'static str {
        match self {
            Self::Report => "report.html",
            Self::Runs => "runs.csv",
            Self::SummaryCsv => "summary.csv",
            Self::SummaryJson => "summary.json",
        }
    }

    fn media_type(self) -> &'static str {
        match self {
            Self::Report => "text/html; charset=utf-8",
            Self::Runs | Self::SummaryCsv => "text/csv; charset=utf-8; header=present",
            Self::SummaryJson => "application/json",
        }
    }
}

/// Comma-separated values (RFC 4180) with a header line.
#[derive(ToSchema)]
#[schema(value_type = String)]
#[expect(dead_code, reason = "only describes a response")]
struct Csv(String);

/// A self-contained HTML page.
#[derive(ToSchema)]
#[schema(value_type = String)]
#[expect(dead_code, reason = "only describes a response")]
struct Html(String);

declare_problems!(Problems: InvalidParameter, UnknownStudy, NoRunsYet, FileGone);
declare_problems!(PlanProblems: InvalidParameter, UnknownStudy);

/// Get the report
///
/// HTML page with tables, plots and images. While the study runs, it shows the finished runs.
#[utoipa::path(
    get, path = "/v1/studies/{id}/report", operation_id = "getStudyReport", tag = "studies",
    params(
        ("id" = uuid::Uuid, Path, description = "The study."),
        IfNoneMatch,
    ),
    responses(
        (status = 200, description = "The page.", body = Html, content_type = "text/html", headers(
            ("Cache-Control" = String, description = "Once the study has succeeded, the response can be cached indefinitely."),
        )),
        NotModified,
        Problems,
    ),
)]
pub(super) async fn report(
    State(api): State<Api>,
    path: PathParams,
    query: QueryParams,
    headers: HeaderMap,
) -> ApiResult<Response> {
    file(&api, &path, query, &headers, File::Report).await
}

/// Get all runs as CSV
///
/// One line per finished run: its unit, start, arm and seed, its scores, and its trajectory. A run can be repeated as a
/// job: the request is in `plan.json`.
#[utoipa::path(
    get, path = "/v1/studies/{id}/runs.csv", operation_id = "getStudyRuns", tag = "studies",
    params(
        ("id" = uuid::Uuid, Path, description = "The study."),
        IfNoneMatch,
    ),
    responses(
        (status = 200, description = "The table.", body = Csv, content_type = "text/csv", headers(
            ("Cache-Control" = String, description = "Once the study has succeeded, the response can be cached indefinitely."),
        )),
        NotModified,
        Problems,
    ),
)]
pub(super) async fn runs(
    State(api): State<Api>,
    path: PathParams,
    query: QueryParams,
    headers: HeaderMap,
) -> ApiResult<Response> {
    file(&api, &path, query, &headers, File::Runs).await
}

/// Get the summary as CSV
///
/// One line per model, method, layer and arm.
#[utoipa::path(
    get, path = "/v1/studies/{id}/summary.csv", operation_id = "getStudySummaryTable", tag = "studies",
    params(
        ("id" = uuid::Uuid, Path, description = "The study."),
        IfNoneMatch,
    ),
    responses(
        (status = 200, description = "The table.", body = Csv, content_type = "text/csv", headers(
            ("Cache-Control" = String, description = "Once the study has succeeded, the response can be cached indefinitely."),
        )),
        NotModified,
        Problems,
    ),
)]
pub(super) async fn summary_csv(
    State(api): State<Api>,
    path: PathParams,
    query: QueryParams,
    headers: HeaderMap,
) -> ApiResult<Response> {
    file(&api, &path, query, &headers, File::SummaryCsv).await
}

/// Get the summary
///
/// The data of the report, except for the individual runs.
#[utoipa::path(
    get, path = "/v1/studies/{id}/summary.json", operation_id = "getStudySummary", tag = "studies",
    params(
        ("id" = uuid::Uuid, Path, description = "The study."),
        IfNoneMatch,
    ),
    responses(
        (status = 200, description = "The summary.", body = Object, content_type = "application/json", headers(
            ("Cache-Control" = String, description = "Once the study has succeeded, the response can be cached indefinitely."),
        )),
        NotModified,
        Problems,
    ),
)]
pub(super) async fn summary_json(
    State(api): State<Api>,
    path: PathParams,
    query: QueryParams,
    headers: HeaderMap,
) -> ApiResult<Response> {
    file(&api, &path, query, &headers, File::SummaryJson).await
}

/// Get the plan
///
/// The units, the arms, and the resolved request of each arm for each model, including defaults. It never changes.
#[utoipa::path(
    get, path = "/v1/studies/{id}/plan.json", operation_id = "getStudyPlan", tag = "studies",
    params(
        ("id" = uuid::Uuid, Path, description = "The study."),
        IfNoneMatch,
    ),
    responses(
        (status = 200, description = "The plan.", body = Object, content_type = "application/json", headers(
            ("Cache-Control" = String, description = "The response can be cached indefinitely."),
        )),
        NotModified,
        PlanProblems,
    ),
)]
pub(super) async fn plan(
    State(api): State<Api>,
    path: PathParams,
    query: QueryParams,
    headers: HeaderMap,
) -> ApiResult<Response> {
    query.end(&[])?;
    let id = path.study()?;
    let plan = api.store().plan(id).await.map_err(Problem::internal)?.ok_or_else(|| study_not_found(id))?;
    let text = plan.to_json().map_err(Problem::internal)?;
    conditional(&headers, IMMUTABLE, "application/json", text.into())
}

/// A file of the study in the path.
async fn file(
    api: &Api,
    path: &PathParams,
    query: QueryParams,
    headers: &HeaderMap,
    file: File,
) -> ApiResult<Response> {
    query.end(&[])?;
    let study = api.study(path.study()?).await?;
    let (cache_control, bytes) = match study.state {
        RunState::Succeeded => (IMMUTABLE, written(api, &study, file).await?),
        _ => (REVALIDATE, generated(api, &study, file).await?),
    };
    let mut response = conditional(headers, cache_control, file.media_type(), bytes)?;
    if matches!(file, File::Report) {
        response.headers_mut().insert(header::CONTENT_SECURITY_POLICY, REPORT_POLICY);
    }
    Ok(response)
}

/// The file that was written when the study succeeded.
async fn written(api: &Api, study: &Study, file: File) -> ApiResult<Vec<u8>> {
    let path = api.store().study_folder(study.id).file(file.name());
    match tokio::fs::read(&path).await {
        Ok(bytes) => Ok(bytes),
        Err(error) => {
            // The study may have been deleted in between.
            api.study(study.id).await?;
            if error.kind() == std::io::ErrorKind::NotFound {
                tracing::warn!(id = %study.id, file = file.name(), "study file is missing");
                let detail = format!("the file {} of study {} is missing on this server", file.name(), study.id);
                return Err(Problem::new(Kind::FileGone, detail));
            }
            Err(Problem::internal(error))
        }
    }
}

/// The file generated from the finished runs.
async fn generated(api: &Api, study: &Study, file: File) -> ApiResult<Vec<u8>> {
    let summary = api.summary(study.id).await?.ok_or_else(|| {
        let detail = format!("study {} is {}, and none of its runs has finished", study.id, study.state);
        Problem::new(Kind::NoRunsYet, detail)
    })?;
    let (id, folder) = (study.id, api.store().study_folder(study.id));
    let make = move || -> Result<String, StudyError> {
        match file {
            File::Report => page(&folder, &summary),
            File::Runs => Ok(folder.table()?.unwrap_or_default()),
            File::SummaryCsv => Ok(summary.to_csv()),
            File::SummaryJson => summary.to_json(),
        }
    };
    let made = tokio::task::spawn_blocking(make).await.map_err(Problem::internal)?;
    match made {
        Ok(text) if !text.is_empty() => Ok(text.into_bytes()),
        // The study was deleted in between.
        Ok(_) => Err(study_not_found(id)),
        Err(error) => {
            api.study(id).await?;
            Err(Problem::internal(error))
        }
    }
}

fn conditional(
    headers: &HeaderMap,
    cache_control: HeaderValue,
    media_type: &'static str,
    bytes: Vec<u8>,
) -> ApiResult<Response> {
    let tag = hex::encode(Sha256::digest(&bytes));
    Ok(Conditional::new(headers, &tag, cache_control)?.with_bytes(media_type, bytes))
}
