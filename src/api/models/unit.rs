//! `GET /v1/models/{id}/layers/{layer}/units/{u}`: a unit and its calibration on natural images.

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use crate::api::Api;
use crate::api::base_path::PublicBasePath;
use crate::api::client::Client;
use crate::api::model_cache::LoadError;
use crate::api::parameters::{PathParams, QueryParams};
use crate::api::problem::{ApiResult, Kind, Problem, declare_problems};
use proxygrad::Invalid;
use proxygrad::network::calibration::{Calibration, Statistics, TopImage, UnitRecord};
use proxygrad::network::{Model, Reduction, Selection, Shape, Unit};

/// Largest index of a unit in a path.
pub(super) const MAX_INDEX: usize = u32::MAX as usize;

/// A unit: a channel of a feature map, or a neuron of another layer.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ModelUnit)]
pub(super) struct UnitDocument {
    /// Id of the model.
    model: String,
    /// Name of the layer.
    #[schema(examples("layer1/Relu_1"))]
    layer: String,
    /// Index of the channel or neuron, from 0.
    channel: usize,
    /// The unit as an objective.
    #[schema(examples("layer1/Relu_1:3"))]
    objective: String,
    /// Name of the class, if the unit is its logit or probability; null for other units and unnamed classes.
    #[schema(required)]
    class: Option<String>,
    /// Its activation on natural images; null until the model is calibrated with this layer.
    #[schema(required)]
    calibration: Option<UnitCalibration>,
}

/// Activation of a unit on natural images.
#[derive(Debug, Serialize, ToSchema)]
struct UnitCalibration {
    /// Number of calibration images.
    images: usize,
    /// Height and width of the images after scaling and center cropping.
    #[schema(min_items = 2, max_items = 2)]
    size: [usize; 2],
    /// Statistics of the mean over the unit's positions.
    mean: StatisticsDocument,
    /// Statistics of the value at row `H/2`, column `W/2`; null if the layer's positions are not a grid.
    #[schema(required)]
    center: Option<StatisticsDocument>,
    /// Statistics of the maximum over the unit's positions.
    max: StatisticsDocument,
    /// The images with the highest values, best first.
    top: Vec<TopDocument>,
}

/// Statistics over images.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = UnitStatistics)]
struct StatisticsDocument {
    /// Minimum.
    min: f32,
    /// Maximum: the natural maximum.
    max: f32,
    /// Arithmetic mean.
    mean: f32,
    /// Population standard deviation (divided by the number of images).
    std: f32,
}

/// A natural image with a high activation of the unit.
#[derive(Debug, Serialize, ToSchema)]
struct TopDocument {
    /// Path of the image, relative to the calibration folder.
    image: String,
    /// The unit's maximum on the image.
    score: f32,
    /// Row and column of the maximum in the layer's output; null if the layer has no positions.
    #[schema(required, min_items = 2, max_items = 2)]
    position: Option<[usize; 2]>,
    /// Rows `[from, to)` of the position's receptive field in the scaled image.
    #[schema(min_items = 2, max_items = 2)]
    rows: [usize; 2],
    /// Columns `[from, to)` of the receptive field.
    #[schema(min_items = 2, max_items = 2)]
    columns: [usize; 2],
    /// Path of the receptive field's PNG on this server.
    #[schema(examples("/v1/models/fashion-resnet8/layers/layer1%2FRelu_1/units/3/patches/0"))]
    patch: String,
}

impl From<Statistics> for StatisticsDocument {
    fn from(Statistics { min, max, mean, std }: Statistics) -> Self {
        Self { min, max, mean, std }
    }
}

impl UnitCalibration {
    fn new(model: &Model, unit: &Unit, path: &str, calibration: &Calibration, record: &UnitRecord) -> Self {
        let top = |(n, image): (usize, &TopImage)| {
            let patch = calibration.patch(&model.network, &unit.layer, image);
            TopDocument {
                image: calibration.kept.get(image.image).cloned().unwrap_or_default(),
                score: image.score,
                position: image.position(&model.network, &unit.layer),
                rows: [patch.rows.start, patch.rows.end],
                columns: [patch.columns.start, patch.columns.end],
                patch: format!("{path}/patches/{n}"),
            }
        };
        let shape = model.network.find(&unit.layer).map(|id| &model.network.node(id).shape);
        let has_center = shape.is_some_and(Shape::has_center);
        Self {
            images: calibration.images,
            size: calibration.size,
            mean: record.mean.into(),
            center: has_center.then(|| record.center.into()),
            max: record.max.into(),
            top: record.top.iter().enumerate().map(top).collect(),
        }
    }
}

/// The unit in the path, with its index.
pub(super) fn in_path(model: &Model, path: &PathParams) -> ApiResult<(Unit, usize)> {
    let channel = path.number("u", MAX_INDEX)?;
    let selection = Selection::Channel { channel, reduction: Reduction::Mean };
    let mut unit = Unit { layer: path.text("layer").to_owned(), selection };
    let found = model.network.layer(&unit.layer).and_then(|id| {
        let node = model.network.node(id);
        unit.layer.clone_from(&node.name);
        unit.check(&node.shape)
    });
    match found {
        Ok(()) => Ok((unit, channel)),
        Err(error) if error.field == "layer" => Err(Problem::invalid(Kind::UnknownLayer, error)),
        Err(error) => Err(Problem::invalid(Kind::UnknownUnit, Invalid { field: "u".into(), ..error })),
    }
}

/// The calibration record of a unit.
pub(super) fn record<'a>(model: &'a Model, unit: &Unit, channel: usize) -> Option<(&'a Calibration, &'a UnitRecord)> {
    let calibration = model.calibration.as_deref()?;
    Some((calibration, calibration.layers.get(&unit.layer)?.units.get(channel)?))
}

/// Percent-encodes a text as a path segment (RFC 3986, section 2.3).
fn segment(text: &str) -> String {
    let byte = |byte: u8| match byte {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    text.bytes().map(byte).collect()
}

declare_problems!(Problems: InvalidParameter, UnknownModel, UnknownLayer, UnknownUnit, BrokenModel, ModelUnavailable, CrossSiteRequest);

/// Get a unit
///
/// Includes the measurements of `proxygrad models calibrate`. A model that is not available locally is downloaded
/// first.
#[utoipa::path(get, path = "/v1/models/{id}/layers/{layer}/units/{u}", operation_id = "getUnit", tag = "models",
    params(
        ("id" = String, Path, description = "The model."),
        ("layer" = String, Path, description = "The layer, percent-encoded: `/` is `%2F`."),
        ("u" = u32, Path, description = "Index of the channel or neuron, from 0."),
    ),
    responses((status = 200, description = "The unit.", body = UnitDocument), Problems))]
pub(super) async fn unit(
    State(api): State<Api>,
    path: PathParams,
    query: QueryParams,
    client: Client,
    base: PublicBasePath,
) -> ApiResult<Json<UnitDocument>> {
    query.end(&[])?;
    let model = api.load(path.text("id"), client).await.map_err(LoadError::in_path)?;
    let (unit, channel) = in_path(&model, &path)?;
    let (id, layer) = (&model.id, segment(&unit.layer));
    let path = base.path(&format!("/v1/models/{id}/layers/{layer}/units/{channel}"));
    let calibration = record(&model, &unit, channel)
        .map(|(calibration, record)| UnitCalibration::new(&model, &unit, &path, calibration, record));
    Ok(Json(UnitDocument {
        objective: unit.to_string(),
        class: model.class_of(&unit).map(str::to_owned),
        calibration,
        model: model.id.clone(),
        layer: unit.layer,
        channel,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_layer_is_one_segment_of_a_path() {
        assert_eq!(segment("layer1/Relu_1"), "layer1%2FRelu_1");
        assert_eq!(segment("a b?%#é~.-"), "a%20b%3F%25%23%C3%A9~.-");
    }
}
