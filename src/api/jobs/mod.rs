//! Routes of jobs.

mod animation;
mod cancel;
mod create;
mod delete;
mod document;
mod events;
mod get;
mod image;
mod include;
mod list;
mod stimulus;
mod submission;

use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::Api;
use super::problem::{Kind, Problem};

pub(super) fn router() -> OpenApiRouter<Api> {
    OpenApiRouter::new()
        .routes(routes!(create::create, list::list))
        .routes(routes!(get::get, delete::delete))
        .routes(routes!(cancel::cancel))
        .routes(routes!(stimulus::stimulus))
        .routes(routes!(animation::animation))
        .routes(routes!(image::image))
        .routes(routes!(events::events))
}

/// Content that can be embedded in a job document.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[expect(dead_code, reason = "only describes a parameter")]
enum IncludeDocument {
    /// The images.
    Png,
}

/// The problem of an unknown job id.
pub(super) fn job_not_found(id: Uuid) -> Problem {
    Problem::new(Kind::UnknownJob, format!("job {id} does not exist"))
}
