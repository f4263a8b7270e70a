//! `POST /v1/jobs`: submits a job.

use std::sync::Arc;

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;

use super::document::{self, JobDocument};
use super::include::Include;
use super::submission::{Form, Submission};
use crate::api::base_path::PublicBasePath;
use crate::api::client::Client;
use crate::api::model_cache::LoadError;
use crate::api::parameters::QueryParams;
use crate::api::problem::{ApiResult, declare_problems};
use crate::api::submission_response::{SubmissionHeaders, Wait};
use crate::api::{Api, idempotency, submission_response};
use crate::jobs::NewJob;
use proxygrad::maximize::Request;

declare_problems!(Problems: InvalidParameter, MalformedJson, MalformedForm, RequestTimeout, BodyTooLarge, UnsupportedMediaType,
                  InvalidRequest, TooMuchMemory, IdempotencyKeyReused, BrokenModel, QueueFull, ModelUnavailable, StorageUnavailable, NoSpace);

/// Submit a job
///
/// Once accepted, the job is stored durably: it runs even if the client disconnects or the server restarts. A model
/// that is not available locally is downloaded first.
///
/// Images for caricatures, inversions and starts are PNGs or JPEGs, either base64-encoded inside the JSON or as parts
/// of a form: the part `request` holds the JSON, which refers to the other parts as `part:NAME`.
#[utoipa::path(
    post, path = "/v1/jobs", operation_id = "createJob", tag = "jobs",
    params(
        ("include" = inline(Option<super::IncludeDocument>), Query, description = "`png` embeds the images in the response."),
        SubmissionHeaders,
    ),
    request_body(content(
        (Request = "application/json", examples(
        ("shortest" = (summary = "One class of a classifier", value = json!({
            "model": "fashion-resnet8", "objective": "logits:8"
        }))),
        ("everything" = (summary = "Two stimuli with all settings", value = json!({
            "model": "fashion-resnet8",
            "objectives": [
                "layer1/Relu_1:3@center",
                {"sum": [{"layer": "logits", "channel": 0}, {"layer": "logits", "channel": 6, "weight": -1}]}
            ],
            "gate": {"kind": "decoupled", "slope": 0.3, "anneal": 0.6, "polish": 0.1},
            "steps": 64,
            "optimizer": {"kind": "l2-ascent", "lr": 0.2},
            "transforms": ["jitter:2", "rotate:10@0.3"],
            "size": [28, 28],
            "start": {"kind": "grey", "noise": 0.01},
            "score_every": 8,
            "seed": 7
        }))),
        ("by-name" = (summary = "A class by name, four diverse stimuli", value = json!({
            "model": "fashion-resnet8", "objective": "logits:Sneaker",
            "diversity": {"layer": "layer2/Relu_1", "copies": 4, "weight": 0.5}, "steps": 32
        }))),
        ("inversion" = (summary = "Feature inversion: an image with the same activations in a layer", value = json!({
            "model": "fashion-resnet8", "steps": 32,
            "objective": {"layer": "layer1/Relu_1", "inversion": {"image": "data:image/png;base64,\
iVBORw0KGgoAAAANSUhEUgAAAAIAAAACCAAAAABX3VL4AAAADklEQVR4nGNgOMDw3wEABUQCAA/1fi8AAAAASUVORK5CYII="}}
        }))),
        )),
        (inline(Form) = "multipart/form-data"),
    )),
    responses(
        (status = 200, description = "The job, which has ended (with `Prefer: wait`), or was submitted before (with \
                                      `Idempotency-Key`).", body = JobDocument, headers(
            ("Location" = String, description = "Path of the job."),
            ("Preference-Applied" = Option<String>, description = "The granted wait: `wait=N`."),
            ("Idempotency-Replayed" = Option<String>, description = "`true` if an earlier request with the same key created the resource."),
        )),
        (status = 202, description = "The job, which was accepted and has not ended.", body = JobDocument, headers(
            ("Location" = String, description = "Path of the job."),
            ("Preference-Applied" = Option<String>, description = "The granted wait: `wait=N`."),
            ("Idempotency-Replayed" = Option<String>, description = "`true` if an earlier request with the same key created the resource."),
        )),
        Problems,
    ),
)]
pub(super) async fn create(
    State(api): State<Api>,
    mut query: QueryParams,
    headers: HeaderMap,
    client: Client,
    base: PublicBasePath,
    Submission(request): Submission,
) -> ApiResult<Response> {
    let include = Include::take(&mut query)?;
    query.end(&["include"])?;
    let idempotency = idempotency::read(&headers, &request)?;

    let model = api.load(&request.model, client).await.map_err(LoadError::in_body)?;
    let mut judges = Vec::with_capacity(request.judges().len());
    for (i, id) in request.judges().iter().enumerate() {
        let judge = api.load(id, client).await.map_err(|error| error.at(&format!("diagnostics.judges[{i}]")));
        judges.push(judge.map_err(LoadError::in_body)?);
    }
    let resolved = api.resolve(request, Arc::clone(&model), judges).await?;
    let new = NewJob { model: model.id.clone(), model_digest: model.digest.clone(), resolved, idempotency };
    let (job, replayed) = submission_response::created_or_replayed(api.store().submit(new).await)?;

    let wait = Wait::grant(&api, &headers, client, job.state.is_terminal());
    let job = match &wait {
        Some(wait) if !job.state.is_terminal() => api.wait(job, wait.remaining()).await?,
        _ => job,
    };
    let (ended, location) = (job.state.is_terminal(), base.path(&document::path(job.id)));
    submission_response::respond(ended, include.document(job, &api, &base).await?, &location, wait, replayed)
}
