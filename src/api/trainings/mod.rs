//! Routes of trainings.

mod cancel;
mod create;
mod delete;
mod document;
mod events;
mod files;
mod get;
mod list;

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
        .routes(routes!(events::events))
        .routes(routes!(files::metrics))
        .routes(routes!(files::model))
}

/// The problem of an unknown training id.
pub(super) fn training_not_found(id: Uuid) -> Problem {
    Problem::new(Kind::UnknownTraining, format!("training {id} does not exist"))
}
