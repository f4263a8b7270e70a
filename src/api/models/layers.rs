//! `GET /v1/models/{id}/layers`: where units are.

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use crate::api::Api;
use crate::api::client::Client;
use crate::api::model_cache::LoadError;
use crate::api::parameters::{PathParams, QueryParams};
use crate::api::problem::{ApiResult, declare_problems};
use proxygrad::network::{Layer, Unavailable};

/// The layers of a model.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct LayerList {
    /// Id of the model.
    model: String,
    /// From the input to the output.
    layers: Vec<LayerDocument>,
    /// Nodes of the model's file that have no layer, because they or what they depend on cannot be computed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    unavailable: Vec<UnavailableDocument>,
}

/// A node of the model's file that has no layer.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = UnavailableLayer)]
struct UnavailableDocument {
    /// The name that the layer would have.
    #[schema(examples("label"))]
    name: String,
    /// Operation, as the file has it.
    #[schema(examples("ArgMax"))]
    op: String,
    /// What cannot be computed, and why.
    #[schema(examples("label (ArgMax) cannot be computed: the operation is not supported"))]
    problem: String,
}

impl From<&Unavailable> for UnavailableDocument {
    fn from(unavailable: &Unavailable) -> Self {
        let Unavailable { name, op, .. } = unavailable.clone();
        Self { name, op, problem: unavailable.to_string() }
    }
}

/// A layer.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Layer)]
struct LayerDocument {
    /// Name by which units refer to it.
    #[schema(examples("layer1/Relu_1"))]
    name: String,
    /// Operation: `conv`, `relu`, `max-pool`, ...
    #[schema(examples("relu"))]
    op: &'static str,
    /// Shape of its output at the model's own input size: channels, height, width; or the number of neurons.
    shape: Vec<usize>,
    /// Number of channels, or of neurons.
    units: usize,
    /// Paths of PyTorch modules whose output it is, where the file tells; each names the layer, too.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(examples(json!(["layer1"])))]
    modules: Vec<String>,
    /// A unit of this layer, as an objective names it.
    #[schema(examples("layer1/Relu_1:0"))]
    example: String,
}

impl From<Layer<'_>> for LayerDocument {
    fn from(Layer { name, op, shape, modules }: Layer<'_>) -> Self {
        let example = format!("{name}:0");
        let (name, modules, units) = (name.to_owned(), modules.to_vec(), shape.channels());
        Self { name, op, shape: shape.to_vec(), units, modules, example }
    }
}

declare_problems!(Problems: InvalidParameter, UnknownModel, BrokenModel, ModelUnavailable, CrossSiteRequest);

/// List the layers of a model
///
/// A model that is not there yet is fetched first.
#[utoipa::path(get, path = "/v1/models/{id}/layers", operation_id = "listLayers", tag = "models",
    params(("id" = String, Path, description = "The model.")),
    responses((status = 200, description = "The layers of the model.", body = LayerList), Problems))]
pub(super) async fn layers(
    State(api): State<Api>,
    path: PathParams,
    query: QueryParams,
    client: Client,
) -> ApiResult<Json<LayerList>> {
    query.end(&[])?;
    let model = api.load(path.text("id"), client).await.map_err(LoadError::in_path)?;
    let layers = model.network.layers().map(LayerDocument::from).collect();
    let unavailable = model.network.unavailable().iter().map(UnavailableDocument::from).collect();
    Ok(Json(LayerList { model: model.id.clone(), layers, unavailable }))
}
