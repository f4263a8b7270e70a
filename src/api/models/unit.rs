//! `GET /v1/models/{id}/layers/{layer}/units/{u}`: one unit, and what natural images do to it.

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
use proxygrad::network::calibration::{Calibration, Exciting, Statistics, UnitRecord};
use proxygrad::network::{Model, Reduction, Selection, Shape, Unit};

/// Largest number of a unit that a path may have.
pub(super) const LARGEST: usize = u32::MAX as usize;

/// A unit: a channel of a layer, or a neuron of a layer that is no feature map.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ModelUnit)]
pub(super) struct UnitDocument {
    /// Id of the model.
    model: String,
    /// Name of the layer.
    #[schema(examples("layer1/Relu_1"))]
    layer: String,
    /// Channel or neuron, from 0.
    channel: usize,
    /// The unit as an objective names it.
    #[schema(examples("layer1/Relu_1:3"))]
    objective: String,
    /// Name of the class whose logit (or probability) it is; null for other units and unknown classes.
    #[schema(required)]
    class: Option<String>,
    /// What natural images do to it; null until the model is calibrated with this layer.
    #[schema(required)]
    calibration: Option<UnitCalibration>,
}

/// What natural images do to a unit.
#[derive(Debug, Serialize, ToSchema)]
struct UnitCalibration {
    /// How many images were shown.
    images: usize,
    /// Height and width that the images were brought to: scaled until they just cover it, the middle cut out.
    #[schema(min_items = 2, max_items = 2)]
    size: [usize; 2],
    /// Of the mean over the unit's positions.
    mean: StatisticsDocument,
    /// Of the value at row `H/2`, column `W/2`; null where the layer has positions, but no rows and columns.
    #[schema(required)]
    center: Option<StatisticsDocument>,
    /// Of the largest value.
    max: StatisticsDocument,
    /// The images that reach the largest values, the best first.
    top: Vec<TopDocument>,
}

/// Statistics over images.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = UnitStatistics)]
struct StatisticsDocument {
    /// Smallest value.
    min: f32,
    /// Largest value: the natural maximum.
    max: f32,
    /// Arithmetic mean.
    mean: f32,
    /// Standard deviation of these images (their number in the divisor).
    std: f32,
}

/// A natural image that excites the unit.
#[derive(Debug, Serialize, ToSchema)]
struct TopDocument {
    /// Name of the image, relative to the folder that was shown.
    image: String,
    /// The unit's largest value on it.
    score: f32,
    /// Row and column of that value in the layer's output; null where the layer has no positions.
    #[schema(required, min_items = 2, max_items = 2)]
    position: Option<[usize; 2]>,
    /// Rows `[from, to)` of the image, at `size`, that this position looks at: its receptive field.
    #[schema(min_items = 2, max_items = 2)]
    rows: [usize; 2],
    /// Columns `[from, to)` of the same.
    #[schema(min_items = 2, max_items = 2)]
    columns: [usize; 2],
    /// Path of this part of the image on this server, as a PNG.
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
        let top = |(n, exciting): (usize, &Exciting)| {
            let patch = calibration.patch(&model.network, &unit.layer, exciting);
            TopDocument {
                image: calibration.kept.get(exciting.image).cloned().unwrap_or_default(),
                score: exciting.score,
                position: exciting.position(&model.network, &unit.layer),
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

/// The unit that a path names.
pub(super) fn in_path(model: &Model, path: &PathParams) -> ApiResult<(Unit, usize)> {
    let channel = path.number("u", LARGEST)?;
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

/// What a calibration knows of a unit.
pub(super) fn record<'a>(model: &'a Model, unit: &Unit, channel: usize) -> Option<(&'a Calibration, &'a UnitRecord)> {
    let calibration = model.calibration.as_deref()?;
    Some((calibration, calibration.layers.get(&unit.layer)?.units.get(channel)?))
}

/// A text as one segment of a path (RFC 3986, section 2.3: what is not unreserved is percent-encoded).
fn segment(text: &str) -> String {
    let byte = |byte: u8| match byte {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    text.bytes().map(byte).collect()
}

declare_problems!(Problems: InvalidParameter, UnknownModel, UnknownLayer, UnknownUnit, BrokenModel, ModelUnavailable, CrossSiteRequest);

/// Look at a unit
///
/// Shows what `proxygrad models calibrate` measured of it. A model that is not there yet is fetched first.
#[utoipa::path(get, path = "/v1/models/{id}/layers/{layer}/units/{u}", operation_id = "getUnit", tag = "models",
    params(
        ("id" = String, Path, description = "The model."),
        ("layer" = String, Path, description = "The layer, percent-encoded: `/` is `%2F`."),
        ("u" = u32, Path, description = "The channel or neuron, from 0."),
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
