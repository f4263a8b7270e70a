//! `GET /v1/models/{id}/layers`: layers of a model.

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
    /// Layers from input to output.
    layers: Vec<LayerDocument>,
    /// Nodes of the model file without a layer, because they or their inputs are not supported.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    unavailable: Vec<UnavailableDocument>,
}

/// A node of the model file without a layer.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = UnavailableLayer)]
struct UnavailableDocument {
    /// Name of the node.
    #[schema(examples("label"))]
    name: String,
    /// Operation in the file.
    #[schema(examples("ArgMax"))]
    op: String,
    /// Why it is not available.
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
    /// Name used in objectives.
    #[schema(examples("layer1/Relu_1"))]
    name: String,
    /// Operation: `conv`, `relu`, `max-pool`, ...
    #[schema(examples("relu"))]
    op: &'static str,
    /// Output shape at the model's default input size: channels, height, width, in whatever order the model stores
    /// them; or the number of neurons. Of tokens, the patches.
    shape: Vec<usize>,
    /// Number of channels, or of neurons.
    units: usize,
    /// Tokens besides the patches, such as `class`: `LAYER@class` is the layer of that token, with the same channels.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(examples(json!(["class"])))]
    tokens: Vec<String>,
    /// Paths of the PyTorch modules with this output, if the file has them; they can be used as layer names.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(examples(json!(["layer1"])))]
    modules: Vec<String>,
    /// An objective for a unit of this layer.
    #[schema(examples("layer1/Relu_1:0"))]
    example: String,
}

impl From<Layer<'_>> for LayerDocument {
    fn from(Layer { name, op, shape, tokens, modules }: Layer<'_>) -> Self {
        let example = format!("{name}:0");
        let (name, tokens, modules) = (name.to_owned(), tokens.to_vec(), modules.to_vec());
        Self { name, op, shape: shape.to_vec(), units: shape.channels(), tokens, modules, example }
    }
}

declare_problems!(Problems: InvalidParameter, UnknownModel, BrokenModel, ModelUnavailable, CrossSiteRequest);

/// List the layers of a model
///
/// A model that is not available locally is downloaded first.
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
