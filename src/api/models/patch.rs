//! `GET /v1/models/{id}/layers/{layer}/units/{u}/patches/{n}`: a natural image patch that excites a unit.

use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue};
use axum::response::Response;
use sha2::{Digest, Sha256};
use utoipa::ToSchema;

use super::unit;
use crate::api::Api;
use crate::api::client::Client;
use crate::api::etag::{Conditional, IfNoneMatch, NotModified};
use crate::api::model_cache::LoadError;
use crate::api::parameters::{PathParams, QueryParams};
use crate::api::problem::{ApiResult, Kind, Problem, declare_problems};
use proxygrad::network::calibration::cut;

/// Largest index of a patch in a path.
const MAX_INDEX: usize = 65_535;
/// A new calibration may change the patch.
const REVALIDATE: HeaderValue = HeaderValue::from_static("private, no-cache");

/// An 8-bit PNG, greyscale or RGB.
#[derive(ToSchema)]
#[schema(value_type = String, format = Binary)]
#[expect(dead_code, reason = "only describes a response")]
struct PatchImage(Vec<u8>);

declare_problems!(
    Problems: InvalidParameter, UnknownModel, UnknownLayer, UnknownUnit, UnknownPatch, BrokenModel, ModelUnavailable,
    CrossSiteRequest
);

/// Get a patch
///
/// Crop of a natural image, scaled to the network's input size, to the receptive field of the unit's best position; the
/// whole image if the layer has no positions.
#[utoipa::path(
    get, path = "/v1/models/{id}/layers/{layer}/units/{u}/patches/{n}", operation_id = "getPatch", tag = "models",
    params(
        ("id" = String, Path, description = "The model."),
        ("layer" = String, Path, description = "The layer, percent-encoded: `/` is `%2F`."),
        ("u" = u32, Path, description = "Index of the channel or neuron, from 0."),
        ("n" = u32, Path, minimum = 0, maximum = 65535, description = "Index of the patch, from 0, best first."),
        IfNoneMatch,
    ),
    responses(
        (status = 200, description = "The patch.", content((PatchImage = "image/png")), headers(
            ("Cache-Control" = String, description = "The response can be cached, but must be revalidated."),
        )),
        NotModified,
        Problems,
    ),
)]
pub(super) async fn patch(
    State(api): State<Api>,
    path: PathParams,
    query: QueryParams,
    client: Client,
    headers: HeaderMap,
) -> ApiResult<Response> {
    query.end(&[])?;
    let model = api.load(path.text("id"), client).await.map_err(LoadError::in_path)?;
    let (unit, channel) = unit::in_path(&model, &path)?;
    let n = path.number("n", MAX_INDEX)?;
    let missing = |detail: String| Problem::new(Kind::UnknownPatch, detail);
    let Some((calibration, record)) = unit::record(&model, &unit, channel) else {
        return Err(missing(format!("{} is not calibrated with layer {}", model.id, unit.layer)));
    };
    let Some(top) = record.top.get(n) else {
        return Err(missing(format!("unit {channel} of {} has {} patches, not {n}", unit.layer, record.top.len())));
    };
    let patch = calibration.patch(&model.network, &unit.layer, top);
    let (id, image) = (model.id.clone(), top.image);
    let png = api.models().blocking(move |models| {
        let Some(image) = models.natural_image(&id, image).map_err(|e| e.to_string())? else { return Ok(None) };
        cut(&image, &patch).map(Some).map_err(|e| e.to_string())
    });
    let png = png.await?.map_err(Problem::internal)?;
    // The model may have been recalibrated or removed in between.
    let png = png.ok_or_else(|| missing(format!("the image of patch {n} no longer exists")))?;
    let tag = hex::encode(Sha256::digest(&png));
    Ok(Conditional::new(&headers, &tag, REVALIDATE)?.with_bytes("image/png", png))
}
