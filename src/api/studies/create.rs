//! `POST /v1/studies`: submits a study.

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;

use super::document::{self, StudyDocument};
use super::submission::Submission;
use crate::api::base_path::PublicBasePath;
use crate::api::client::Client;
use crate::api::model_cache::LoadError;
use crate::api::parameters::QueryParams;
use crate::api::problem::{ApiResult, Kind, Problem, declare_problems};
use crate::api::submission_response::{SubmissionHeaders, Wait};
use crate::api::{Api, idempotency, submission_response};
use crate::jobs::NewStudy;
use proxygrad::study::{ModelChoice, Plan, StudyRequest};

declare_problems!(Problems: InvalidParameter, MalformedJson, RequestTimeout, BodyTooLarge, UnsupportedMediaType,
                  InvalidRequest, TooMuchMemory, IdempotencyKeyReused, BrokenModel, QueueFull, ModelUnavailable, StorageUnavailable, NoSpace);

/// Submit a study
///
/// Compares several settings on the same units, starts and number of passes. Units are sampled and settings are
/// resolved before the response. The accepted study is stored durably: it runs even if the client disconnects, and
/// resumes after a restart of the server. Jobs have priority: a device runs the next batch of a study only while no job
/// is queued. A model that is not available locally is downloaded first.
#[utoipa::path(
    post, path = "/v1/studies", operation_id = "createStudy", tag = "studies",
    params(
        SubmissionHeaders,
    ),
    request_body(content = StudyRequest, content_type = "application/json", examples(
        ("shortest" = (summary = "The default arms on units of a classifier", value = json!({
            "models": ["fashion-resnet8"]
        }))),
        ("everything" = (summary = "All settings, with custom arms", value = json!({
            "models": [{"id": "fashion-resnet8", "layers": ["layer2/Relu", "layer3/Relu@center"]}],
            "units_per_layer": 3, "logits": 2, "reduce": "mean", "seed": 11, "seeds": 2, "steps": 32,
            "arms": ["plain", "slope:0.1",
                     {"name": "steep", "request": {"gate": {"kind": "decoupled", "slope": 0.5, "anneal": 0.6}}}],
            "methods": ["pixel", {"name": "shaken", "request": {"transforms": ["jitter:2"]}}],
            "base": {"size": [28, 28]},
            "images": 1
        }))),
    )),
    responses(
        (status = 200, description = "The study, which has ended (with `Prefer: wait`), or was submitted before (with \
                                      `Idempotency-Key`).", body = StudyDocument, headers(
            ("Location" = String, description = "Path of the study."),
            ("Preference-Applied" = Option<String>, description = "The granted wait: `wait=N`."),
            ("Idempotency-Replayed" = Option<String>, description = "`true` if an earlier request with the same key created the resource."),
        )),
        (status = 202, description = "The study, which was accepted and has not ended.", body = StudyDocument, headers(
            ("Location" = String, description = "Path of the study."),
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

    let plan = plan(&api, &request, client).await?;
    let new = NewStudy { plan, images: request.images, idempotency };
    let (study, replayed) = submission_response::created_or_replayed(api.store().submit_study(new).await)?;

    let wait = Wait::grant(&api, &headers, client, study.state.is_terminal());
    let study = match &wait {
        Some(wait) if !study.state.is_terminal() => api.wait_for_study(study, wait.remaining()).await?,
        _ => study,
    };
    let (ended, location) = (study.state.is_terminal(), base.path(&document::path(study.id)));
    submission_response::respond(ended, StudyDocument::of(&api, study, &base).await?, &location, wait, replayed)
}

/// Resolves the request for its models.
async fn plan(api: &Api, request: &StudyRequest, client: Client) -> ApiResult<Plan> {
    let mut devices = api.config().devices.clone();
    devices.sort();
    devices.dedup();
    let design = request.design(&devices.join(", "));
    let mut design = design.map_err(|error| Problem::invalid(Kind::InvalidRequest, error))?;
    for (i, choice) in request.models.iter().enumerate() {
        let model = api.load(choice.id(), client).await.map_err(|error| error.at(&id_field(i, choice)));
        design.models.push((model.map_err(LoadError::in_body)?, choice.layers().to_vec()));
    }
    for (i, id) in request.judges.iter().enumerate() {
        let judge = api.load(id, client).await.map_err(|error| error.at(&format!("judges[{i}]")));
        design.judges.push(judge.map_err(LoadError::in_body)?);
    }
    let bounds = api.config().bounds();
    let invalid = |error| Problem::invalid(Kind::InvalidRequest, error);
    let images = design.has_images();
    api.plan(images, move |bound| {
        let plan = Plan::within(&design, &bounds).map_err(invalid)?;
        for memory in bound.models.iter() {
            if let Some(too_large) = plan.too_large(&design, memory, bound.allowed).map_err(invalid)? {
                return Err(Problem::too_large(Kind::TooMuchMemory, too_large.to_string(), too_large.fields));
            }
        }
        Ok(plan)
    })
    .await
}

/// Path of the field with the id of a model.
fn id_field(i: usize, choice: &ModelChoice) -> String {
    match choice {
        ModelChoice::Id(_) => format!("models[{i}]"),
        ModelChoice::Layers(_) => format!("models[{i}].id"),
    }
}
