//! `GET /v1/jobs/{id}`: a job.

use axum::Json;
use axum::extract::State;

use super::document::JobDocument;
use super::include::Include;
use crate::api::Api;
use crate::api::base_path::PublicBasePath;
use crate::api::parameters::{PathParams, QueryParams};
use crate::api::problem::{ApiResult, declare_problems};

declare_problems!(Problems: InvalidParameter, UnknownJob);

/// Get a job
#[utoipa::path(
    get, path = "/v1/jobs/{id}", operation_id = "getJob", tag = "jobs",
    params(
        ("id" = uuid::Uuid, Path, description = "The job."),
        ("include" = inline(Option<super::IncludeDocument>), Query, description = "`png` embeds the images in the response."),
    ),
    responses((status = 200, description = "The job.", body = JobDocument), Problems),
)]
pub(super) async fn get(
    State(api): State<Api>,
    path: PathParams,
    mut query: QueryParams,
    base: PublicBasePath,
) -> ApiResult<Json<JobDocument>> {
    let include = Include::take(&mut query)?;
    query.end(&["include"])?;
    let job = api.job(path.job()?).await?;
    include.document(job, &api, &base).await.map(Json)
}
