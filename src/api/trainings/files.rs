//! `GET /v1/trainings/{id}/metrics.csv`, `model.onnx`: result files of a training.

use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue};
use axum::response::Response;
use sha2::{Digest, Sha256};
use utoipa::ToSchema;

use crate::api::Api;
use crate::api::etag::{Conditional, IMMUTABLE, IfNoneMatch, NotModified};
use crate::api::parameters::{PathParams, QueryParams};
use crate::api::problem::{ApiResult, Kind, Problem, declare_problems};
use crate::jobs::{RunState, Training};
use proxygrad::train::{LAST_MODEL_FILE, METRICS_FILE, MODEL_FILE};

/// `Cache-Control` of files that may still change.
const REVALIDATE: HeaderValue = HeaderValue::from_static("no-cache");

/// Comma-separated values (RFC 4180) with a header line.
#[derive(ToSchema)]
#[schema(value_type = String, as = EpochTable)]
#[expect(dead_code, reason = "only describes a response")]
struct Csv(String);

/// An ONNX file.
#[derive(ToSchema)]
#[schema(value_type = String, format = Binary, as = OnnxFile)]
#[expect(dead_code, reason = "only describes a response")]
struct Onnx(Vec<u8>);

declare_problems!(Problems: InvalidParameter, UnknownTraining, NoResultYet, FileGone);

/// Get all epochs as CSV
///
/// One line per epoch: loss and accuracy on the training images before each update, on the test images after the epoch,
/// the learning rate of its last step, and the share of dead units.
#[utoipa::path(
    get, path = "/v1/trainings/{id}/metrics.csv", operation_id = "getTrainingMetrics", tag = "trainings",
    params(
        ("id" = uuid::Uuid, Path, description = "The training."),
        IfNoneMatch,
    ),
    responses(
        (status = 200, description = "The table.", body = Csv, content_type = "text/csv", headers(
            ("Cache-Control" = String, description = "Once the training has ended, the response can be cached indefinitely."),
        )),
        NotModified,
        Problems,
    ),
)]
pub(super) async fn metrics(
    State(api): State<Api>,
    path: PathParams,
    query: QueryParams,
    headers: HeaderMap,
) -> ApiResult<Response> {
    query.end(&[])?;
    let training = api.training(path.training()?).await?;
    if training.progress.epochs_done == 0 {
        let detail = format!("training {} is {}, and none of its epochs has ended", training.id, training.state);
        return Err(Problem::new(Kind::NoResultYet, detail));
    }
    let cache_control = if training.state.is_terminal() { IMMUTABLE } else { REVALIDATE };
    file(&api, &training, METRICS_FILE, &headers, cache_control, "text/csv; charset=utf-8; header=present").await
}

/// Get the trained network
///
/// An ONNX file with the weights after the epoch with the best test accuracy (the first of several), or with the last ones, and
/// an open batch size. Its input is an image normalized as the
/// model's `preprocessing` says, if it was added as a model.
#[utoipa::path(
    get, path = "/v1/trainings/{id}/model.onnx", operation_id = "getTrainingModel", tag = "trainings",
    params(
        ("id" = uuid::Uuid, Path, description = "The training."),
        ("epoch" = Option<String>, Query, pattern = "^(best|last)$",
            description = "`best` (the default, also what `add` makes a model) or `last`."),
        IfNoneMatch,
    ),
    responses(
        (status = 200, description = "The file.", body = Onnx, content_type = "application/octet-stream", headers(
            ("Cache-Control" = String, description = "The response can be cached indefinitely."),
        )),
        NotModified,
        Problems,
    ),
)]
pub(super) async fn model(
    State(api): State<Api>,
    path: PathParams,
    mut query: QueryParams,
    headers: HeaderMap,
) -> ApiResult<Response> {
    let name = query.take_choice("epoch", &[("best", MODEL_FILE), ("last", LAST_MODEL_FILE)])?.unwrap_or(MODEL_FILE);
    query.end(&["epoch"])?;
    let training = api.training(path.training()?).await?;
    if training.state != RunState::Succeeded {
        let detail =
            format!("training {} is {}; its network exists once it has succeeded", training.id, training.state);
        return Err(Problem::new(Kind::NoResultYet, detail));
    }
    file(&api, &training, name, &headers, IMMUTABLE, "application/octet-stream").await
}

/// A file in the folder of a training.
async fn file(
    api: &Api,
    training: &Training,
    name: &str,
    headers: &HeaderMap,
    cache_control: HeaderValue,
    media_type: &'static str,
) -> ApiResult<Response> {
    let id = training.id;
    let bytes = match tokio::fs::read(api.store().training_folder(id).join(name)).await {
        Ok(bytes) => bytes,
        Err(error) => {
            // The training may have been deleted in between.
            api.training(id).await?;
            if error.kind() == std::io::ErrorKind::NotFound {
                tracing::warn!(%id, file = name, "training file is missing");
                let detail = format!("the file {name} of training {id} is missing on this server");
                return Err(Problem::new(Kind::FileGone, detail));
            }
            return Err(Problem::internal(error));
        }
    };
    let tag = hex::encode(Sha256::digest(&bytes));
    Ok(Conditional::new(headers, &tag, cache_control)?.with_bytes(media_type, bytes))
}
