//! `GET /v1/jobs/{id}`: one job.

use axum::Json;
use axum::extract::State;

use super::document::JobDocument;
use super::include::Include;
use crate::api::Api;
use crate::api::base::Base;
use crate::api::parameters::{InPath, InQuery};
use crate::api::problem::{Answer, declare_problems};

declare_problems!(Refused: InvalidParameter, UnknownJob);

/// Look at a job
#[utoipa::path(
    get, path = "/v1/jobs/{id}", operation_id = "getJob", tag = "jobs",
    params(
        ("id" = uuid::Uuid, Path, description = "The job."),
        ("include" = inline(Option<super::IncludeDocument>), Query, description = "`png` puts the images into the answer."),
    ),
    responses((status = 200, description = "The job.", body = JobDocument), Refused),
)]
pub(super) async fn get(
    State(api): State<Api>,
    path: InPath,
    mut query: InQuery,
    base: Base,
) -> Answer<Json<JobDocument>> {
    let include = Include::take(&mut query)?;
    query.end(&["include"])?;
    let job = api.job(path.job()?).await?;
    include.show(job, &api, &base).await.map(Json)
}
