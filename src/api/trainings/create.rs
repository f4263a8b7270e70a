//! `POST /v1/trainings`: submits a training.

use std::sync::Arc;

use axum::extract::{FromRequest, State};
use axum::http::HeaderMap;
use axum::response::Response;

use super::document::{self, TrainingDocument};
use crate::api::base_path::PublicBasePath;
use crate::api::body::{Body, MediaType};
use crate::api::client::Client;
use crate::api::parameters::QueryParams;
use crate::api::problem::{ApiResult, Kind, Problem, declare_problems};
use crate::api::submission_response::{SubmissionHeaders, Wait};
use crate::api::{Api, idempotency, json_error, submission_response};
use crate::jobs::{NewTraining, TrainingOrder};
use proxygrad::Invalid;
use proxygrad::network::Model;
use proxygrad::network::catalog::check_id;
use proxygrad::train::TrainingRequest;

declare_problems!(Problems: InvalidParameter, MalformedJson, TrainingsDisabled, RequestTimeout, BodyTooLarge,
                  UnsupportedMediaType, InvalidRequest, IdempotencyKeyReused, BrokenModel, QueueFull, ModelUnavailable,
                  StorageUnavailable, NoSpace);

/// The request for a training in the body.
pub(super) struct Submission(TrainingRequest);

impl FromRequest<Api> for Submission {
    type Rejection = Problem;

    async fn from_request(request: axum::extract::Request, api: &Api) -> Result<Self, Problem> {
        let Body { media_type, bytes } = Body::from_request(request, api).await?;
        if media_type != MediaType::Json {
            let detail = "the body's Content-Type is multipart/form-data; expected application/json";
            return Err(Problem::new(Kind::UnsupportedMediaType, detail));
        }
        // A list would count as the fields in their order.
        json_error::parse::<serde_json::Map<String, serde_json::Value>>(&bytes)?;
        json_error::parse(&bytes).map(Self)
    }
}

/// Submit a training
///
/// Trains a classifier on a dataset of the server, from random weights or from those of a model, with ProxyGrad's or
/// another surrogate gradient. The accepted training is stored durably: it runs even if the client disconnects, and
/// resumes after a restart of the server with the same numbers. Jobs have priority: a device trains only while no job is
/// queued. The dataset is read when the training starts; if it cannot be used, the training fails with the code
/// `dataset`.
#[utoipa::path(
    post, path = "/v1/trainings", operation_id = "createTraining", tag = "trainings",
    params(
        SubmissionHeaders,
    ),
    request_body(content = TrainingRequest, content_type = "application/json", examples(
        ("shortest" = (summary = "ResNet-8 with a decoupled slope that fades", value = json!({
            "dataset": "fashion-mnist"
        }))),
        ("everything" = (summary = "All settings of a network with random weights", value = json!({
            "dataset": "flowers", "add": "my-flowers", "size": [32, 32], "grey": false, "test_share": 0.2,
            "limit": 5000, "crop": 4, "flip": true, "architecture": "vgg8-bn", "width": 16, "stem_stride": 1,
            "leaky": 0, "initialization": "he", "surrogate": "decoupled:0.1@0.4", "optimizer": "sgd",
            "learning_rate": 0.1, "schedule": "cosine", "warm_up": 0.05, "momentum": 0.9, "weight_decay": 0.0005,
            "clip": 1, "label_smoothing": 0.1, "epochs": 20, "batch": 64, "patience": 5, "seed": 1
        }))),
        ("fine-tuning" = (summary = "A model for other classes, with frozen first layers", value = json!({
            "dataset": "flowers", "model": "fashion-resnet8", "freeze": ["layer1*"], "epochs": 3, "add": "flowers-tuned"
        }))),
    )),
    responses(
        (status = 200, description = "The training, which has ended (with `Prefer: wait`), or was submitted before (with \
                                      `Idempotency-Key`).", body = TrainingDocument, headers(
            ("Location" = String, description = "Path of the training."),
            ("Preference-Applied" = Option<String>, description = "The granted wait: `wait=N`."),
            ("Idempotency-Replayed" = Option<String>, description = "`true` if an earlier request with the same key created the resource."),
        )),
        (status = 202, description = "The training, which was accepted and has not ended.", body = TrainingDocument, headers(
            ("Location" = String, description = "Path of the training."),
            ("Preference-Applied" = Option<String>, description = "The granted wait: `wait=N`."),
            ("Idempotency-Replayed" = Option<String>, description = "`true` if an earlier request with the same key created the resource."),
        )),
        Problems,
    ),
)]
pub(super) async fn create(
    State(api): State<Api>,
    query: QueryParams,
    headers: HeaderMap,
    client: Client,
    base: PublicBasePath,
    Submission(request): Submission,
) -> ApiResult<Response> {
    query.end(&[])?;
    let idempotency = idempotency::read(&headers, &request)?;
    let known = match &idempotency {
        // A replay is answered although the model that its training became exists now.
        Some(idempotency) => api.store().known_training(idempotency).await.map_err(Problem::store)?,
        None => false,
    };
    let order = order(&api, request, client, known).await?;
    let new = NewTraining { order, idempotency };
    let (training, replayed) = submission_response::created_or_replayed(api.store().submit_training(new).await)?;

    let wait = Wait::grant(&api, &headers, client, training.state.is_terminal());
    let training = match &wait {
        Some(wait) if !training.state.is_terminal() => api.wait_for_training(training, wait.remaining()).await?,
        _ => training,
    };
    let (ended, location) = (training.state.is_terminal(), base.path(&document::path(training.id)));
    submission_response::respond(ended, TrainingDocument::new(training, &base), &location, wait, replayed)
}

/// Resolves the request. `known`: it was accepted before.
async fn order(api: &Api, request: TrainingRequest, client: Client, known: bool) -> ApiResult<TrainingOrder> {
    let invalid = |error: Invalid| Problem::invalid(Kind::InvalidRequest, error);
    let Some(datasets) = api.datasets().cloned() else {
        let detail = "this server has no folder of datasets; its operator can name one with --datasets";
        return Err(Problem::new(Kind::TrainingsDisabled, detail));
    };
    let model: Option<Arc<Model>> = match &request.model {
        Some(id) => Some(api.load(id, client).await.map_err(|error| error.in_body())?),
        None => None,
    };
    let recipe = request.recipe(model.as_deref()).map_err(invalid)?;
    let data = request.data_options(model.as_deref()).map_err(invalid)?;
    let most = api.config().max_training_steps;
    if recipe.epochs as u64 > most {
        let expected = format!("at most {most}: an epoch has at least one step, and this is the limit of steps");
        return Err(invalid(Invalid::new("epochs", recipe.epochs, expected)));
    }
    if let (Some(id), false) = (&request.add, known) {
        check_id(id).map_err(|error| invalid(Invalid { field: "add".into(), ..error }))?;
        let name = id.clone();
        if api.models().blocking(move |models| models.entry(&name).is_some()).await? {
            return Err(invalid(Invalid::new("add", id, "an id that no model has")));
        }
    }
    let name = request.dataset.clone();
    let found = tokio::task::spawn_blocking(move || datasets.find(&name)).await.map_err(Problem::internal)?;
    found.map_err(invalid)?;
    Ok(TrainingOrder { dataset: request.dataset, data, recipe, add: request.add })
}
