//! `GET /v1/models/{id}`: a model.

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use crate::api::Api;
use crate::api::client::Client;
use crate::api::model_cache::LoadError;
use crate::api::parameters::{PathParams, QueryParams};
use crate::api::problem::{ApiResult, Kind, declare_problems};
use proxygrad::network::catalog::{ModelEntry, ModelState};

/// A model.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Model)]
pub(super) struct ModelDocument {
    #[serde(flatten)]
    entry: ModelEntry,
    /// Names of the classes, in the order of the logits; null until the model has been downloaded.
    #[schema(required)]
    class_names: Option<Vec<String>>,
}

declare_problems!(Problems: InvalidParameter, UnknownModel, ModelUnavailable);

/// Get a model
///
/// Does not start a download: for a `pullable` model, only the known fields are returned.
#[utoipa::path(get, path = "/v1/models/{id}", operation_id = "getModel", tag = "models",
    params(("id" = String, Path, description = "The model.")),
    responses((status = 200, description = "The model.", body = ModelDocument), Problems))]
pub(super) async fn get(
    State(api): State<Api>,
    path: PathParams,
    query: QueryParams,
    client: Client,
) -> ApiResult<Json<ModelDocument>> {
    query.end(&[])?;
    let id = path.text("id");
    let mut entry = api.models().entry(id).await.map_err(LoadError::in_path)?;
    let mut class_names = None;
    if entry.state == ModelState::Ready {
        match api.load(id, client).await {
            Ok(model) => class_names = Some(model.classes.clone()),
            // The entry describes the error.
            Err(LoadError::Problem(problem)) if problem.kind() == Kind::BrokenModel => {}
            Err(error) => return Err(error.in_path()),
        }
        entry = api.models().entry(id).await.map_err(LoadError::in_path)?;
    }
    Ok(Json(ModelDocument { entry, class_names }))
}
