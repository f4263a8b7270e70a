//! `GET /v1/models`: what can be looked into.

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use crate::api::Api;
use crate::api::parameters::InQuery;
use crate::api::problem::{Answer, declare_problems};
use proxygrad::network::catalog::ModelEntry;

/// Every model of this server.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ModelList {
    /// By id.
    models: Vec<ModelEntry>,
}

declare_problems!(Refused: InvalidParameter);

/// List models
#[utoipa::path(get, path = "/v1/models", operation_id = "listModels", tag = "models",
    responses((status = 200, description = "Every model of this server.", body = ModelList), Refused))]
pub(super) async fn list(State(api): State<Api>, query: InQuery) -> Answer<Json<ModelList>> {
    query.end(&[])?;
    Ok(Json(ModelList { models: api.models().list().await? }))
}
