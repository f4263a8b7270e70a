//! `GET /v1/models`: all models.

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use crate::api::Api;
use crate::api::parameters::QueryParams;
use crate::api::problem::{ApiResult, declare_problems};
use proxygrad::network::catalog::ModelEntry;

/// All models of this server.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ModelList {
    /// Models sorted by id.
    models: Vec<ModelEntry>,
}

declare_problems!(Problems: InvalidParameter);

/// List models
#[utoipa::path(get, path = "/v1/models", operation_id = "listModels", tag = "models",
    responses((status = 200, description = "All models of this server.", body = ModelList), Problems))]
pub(super) async fn list(State(api): State<Api>, query: QueryParams) -> ApiResult<Json<ModelList>> {
    query.end(&[])?;
    Ok(Json(ModelList { models: api.models().list().await? }))
}
