//! Routes of studies.

mod cancel;
mod create;
mod delete;
mod document;
mod events;
mod files;
mod get;
mod list;
mod submission;
mod summary_cache;

use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::Api;
use super::problem::{Kind, Problem};
pub(super) use summary_cache::SummaryCache;

pub(super) fn router() -> OpenApiRouter<Api> {
    OpenApiRouter::new()
        .routes(routes!(create::create, list::list))
        .routes(routes!(get::get, delete::delete))
        .routes(routes!(cancel::cancel))
        .routes(routes!(events::events))
        .routes(routes!(files::report))
        .routes(routes!(files::runs))
        .routes(routes!(files::summary_csv))
        .routes(routes!(files::summary_json))
        .routes(routes!(files::plan))
}

/// The problem of an unknown study id.
pub(super) fn study_not_found(id: Uuid) -> Problem {
    Problem::new(Kind::UnknownStudy, format!("study {id} does not exist"))
}
