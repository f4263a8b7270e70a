//! Routes of models.

mod get;
mod layers;
mod list;
mod patch;
mod unit;

use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Api;

pub(super) fn router() -> OpenApiRouter<Api> {
    OpenApiRouter::new()
        .routes(routes!(list::list))
        .routes(routes!(get::get))
        .routes(routes!(layers::layers))
        .routes(routes!(unit::unit))
        .routes(routes!(patch::patch))
}
