//! `GET /v1/models/{id}`: one model.

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
    /// Names of the classes, in the order of the logits; null while the model is not here.
    #[schema(required)]
    class_names: Option<Vec<String>>,
}

declare_problems!(Problems: InvalidParameter, UnknownModel, ModelUnavailable);

/// Look at a model
///
/// This fetches nothing: a model that is `pullable` is shown as far as it is known.
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
            // What is wrong with it stands in the entry.
            Err(LoadError::Problem(problem)) if problem.kind() == Kind::BrokenModel => {}
            Err(error) => return Err(error.in_path()),
        }
        entry = api.models().entry(id).await.map_err(LoadError::in_path)?;
    }
    Ok(Json(ModelDocument { entry, class_names }))
}
