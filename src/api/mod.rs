//! HTTP API: routes, request and response documents, problem details, OpenAPI.
//!
//! [`router`] holds every route. A handler validates the request, calls the job store or the model cache, and responds;
//! it never runs a network itself. Every error is a [`problem`] document.

mod admission;
mod base_path;
mod body;
mod client;
mod concurrency_limit;
mod cors;
mod docs;
mod error_layer;
mod etag;
mod events;
mod health;
mod idempotency;
mod image_memory;
mod jobs;
mod json_error;
mod metrics;
mod model_cache;
mod models;
mod openapi;
mod parameters;
mod prefer;
pub mod problem;
mod problem_pages;
mod request_log;
mod security_headers;
mod server;
mod studies;
mod submission_response;
mod trainings;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::middleware::{from_fn, from_fn_with_state};
use metrics_exporter_prometheus::{BuildError, PrometheusHandle};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;
use tower_http::catch_panic::CatchPanicLayer;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

pub use server::{Server, listen};

use crate::config::Config;
use crate::jobs::{Job, Store, Study, Training};
use crate::worker::Pool;
use client::{Client, RequestSite};
use concurrency_limit::ConcurrencyLimit;
use image_memory::ImageMemory;
use model_cache::{LoadError, ModelCache};
use problem::{Kind, Problem};
use proxygrad::Invalid;
use proxygrad::engine::MemoryModel;
use proxygrad::maximize::{Limits, Request, Resolved, TooLarge, judges_too_large};
use proxygrad::network::Model;
use proxygrad::network::catalog::{ModelState, Models};
use proxygrad::train::data::DatasetRoot;
use studies::SummaryCache;

/// Shared state of the handlers. Clones share it.
#[derive(Clone)]
pub struct Api(Arc<ApiState>);

struct ApiState {
    config: Config,
    store: Store,
    models: ModelCache,
    pool: Arc<Pool>,
    metrics: PrometheusHandle,
    shutdown: CancellationToken,
    summary_cache: SummaryCache,
    /// Requests that wait for a job, a study, a training or a model.
    waiting: ConcurrencyLimit,
    /// Event streams.
    streams: ConcurrencyLimit,
    /// Studies that are being planned.
    planning: Arc<Semaphore>,
    image_memory: ImageMemory,
    run_memory: RunMemoryLimit,
    /// The datasets of trainings; without them, trainings are refused.
    datasets: Option<DatasetRoot>,
}

/// Time after which a pending request counts as waiting.
const QUICK_RESPONSE: Duration = Duration::from_secs(1);

/// Number of studies that may be planned concurrently.
const MAX_PLANNING: usize = 2;

/// Limit on the estimated memory of a run.
#[derive(Clone)]
struct RunMemoryLimit {
    /// Memory model of each kind of device.
    models: Arc<[MemoryModel]>,
    /// In bytes.
    allowed: u64,
}

impl RunMemoryLimit {
    fn new(config: &Config) -> Self {
        let cpu = config.cpu.settings(&config.storage.data_dir);
        let names: BTreeSet<&String> = config.devices.iter().collect();
        let models = names.into_iter().map(|name| MemoryModel::of_device(name, &cpu)).collect();
        Self { models, allowed: config.memory.run_bytes() }
    }

    /// Rejects a request that would exceed the limit on any device.
    fn check(&self, resolved: &Resolved, model: &Model, judges: &[Arc<Model>]) -> Result<(), Problem> {
        for memory in self.models.iter() {
            let run = resolved.too_large(memory, model, self.allowed).map_err(Problem::internal)?;
            let judge = || {
                let located = |error: Invalid| error.within("diagnostics");
                let too_large = judges_too_large(memory, judges, self.allowed);
                let too_large = too_large.map_err(|error| Problem::invalid(Kind::InvalidRequest, located(error)))?;
                Ok::<_, Problem>(
                    too_large
                        .map(|found| TooLarge { fields: found.fields.into_iter().map(located).collect(), ..found }),
                )
            };
            let too_large = if run.is_some() { run } else { judge()? };
            if let Some(too_large) = too_large {
                return Err(Problem::too_large(Kind::TooMuchMemory, too_large.to_string(), too_large.fields));
            }
        }
        Ok(())
    }
}

impl Api {
    /// Creates the handlers' state. Cancelling `shutdown` answers requests that wait for jobs and ends event streams.
    ///
    /// # Errors
    /// If another metrics recorder is installed in this process.
    pub fn new(
        config: Config,
        store: Store,
        models: Arc<Models>,
        pool: Arc<Pool>,
        datasets: Option<DatasetRoot>,
        shutdown: CancellationToken,
    ) -> Result<Self, BuildError> {
        let models = ModelCache::new(models, config.model_timeout);
        let metrics = metrics::recorder()?;
        let (summary_cache, planning) = (SummaryCache::default(), Arc::new(Semaphore::new(MAX_PLANNING)));
        let (waiting, streams) =
            (ConcurrencyLimit::new(config.max_waiting()), ConcurrencyLimit::new(config.max_streams()));
        let image_memory = ImageMemory::new(config.max_image_memory as u64);
        let run_memory = RunMemoryLimit::new(&config);
        let state = ApiState {
            config,
            store,
            models,
            pool,
            metrics,
            shutdown,
            summary_cache,
            waiting,
            streams,
            planning,
            image_memory,
            run_memory,
            datasets,
        };
        Ok(Self(Arc::new(state)))
    }

    fn config(&self) -> &Config {
        &self.0.config
    }

    fn store(&self) -> &Store {
        &self.0.store
    }

    fn models(&self) -> &ModelCache {
        &self.0.models
    }

    fn metrics(&self) -> &PrometheusHandle {
        &self.0.metrics
    }

    /// The datasets of trainings.
    fn datasets(&self) -> Option<&DatasetRoot> {
        self.0.datasets.as_ref()
    }

    fn pool(&self) -> &Pool {
        &self.0.pool
    }

    fn shutdown(&self) -> &CancellationToken {
        &self.0.shutdown
    }

    /// Limit on waiting requests.
    fn waiting(&self) -> &ConcurrencyLimit {
        &self.0.waiting
    }

    /// Limit on event streams.
    fn streams(&self) -> &ConcurrencyLimit {
        &self.0.streams
    }

    /// Loads a model. A request that is still pending after [`QUICK_RESPONSE`] counts as waiting.
    async fn load(&self, id: &str, client: Client) -> Result<Arc<Model>, LoadError> {
        if client.site == RequestSite::CrossSite && self.models().entry(id).await?.state == ModelState::Pullable {
            let detail =
                format!("model {id} is not downloaded yet, and a page of another site may not start a download");
            return Err(LoadError::Problem(Problem::new(Kind::CrossSiteRequest, detail)));
        }
        let mut load = std::pin::pin!(self.models().load(id, client.received_at.elapsed()));
        if let Ok(loaded) = tokio::time::timeout(QUICK_RESPONSE, load.as_mut()).await {
            return loaded;
        }
        let Some(_permit) = self.waiting().try_acquire(client.key) else {
            let detail = format!("model {id} is still being downloaded, and too many requests are already waiting");
            let problem = Problem::new(Kind::ModelUnavailable, detail).retry_after(model_cache::RETRY_AFTER);
            return Err(LoadError::Problem(problem));
        };
        load.await
    }

    /// Resolves a request against its model; rejects one that exceeds the memory limit.
    async fn resolve(&self, request: Request, model: Arc<Model>, judges: Vec<Arc<Model>>) -> Result<Resolved, Problem> {
        let invalid = |error| Problem::invalid(Kind::InvalidRequest, error);
        // Invalid images are reported by `resolve` below, after errors in fields before them.
        let bytes = request.image_memory(&model).unwrap_or_default();
        let permit = match bytes {
            Some(bytes) => Some(self.0.image_memory.acquire(bytes).await?),
            None => None,
        };
        let (limits, run_memory) = (self.config().limits(), self.0.run_memory.clone());
        let resolved = tokio::task::spawn_blocking(move || {
            // The work continues after the client disconnects, so it holds the permit itself.
            let _permit = permit;
            let resolved = request.resolve(&model, &limits).map_err(invalid)?;
            let resolved = resolved.judged_by(&model, &judges).map_err(invalid)?;
            run_memory.check(&resolved, &model, &judges)?;
            Ok(resolved)
        });
        resolved.await.map_err(Problem::internal)?
    }

    /// Plans a study on a blocking thread, at most [`MAX_PLANNING`] at a time. `images`: its requests hold images to
    /// decode.
    async fn plan<T: Send + 'static>(
        &self,
        images: bool,
        work: impl FnOnce(&RunMemoryLimit) -> Result<T, Problem> + Send + 'static,
    ) -> Result<T, Problem> {
        let planning = Arc::clone(&self.0.planning).acquire_owned().await.map_err(Problem::internal)?;
        let memory = if images { Some(self.0.image_memory.acquire_all_large().await?) } else { None };
        let run_memory = self.0.run_memory.clone();
        let planned = tokio::task::spawn_blocking(move || {
            let _permits = (planning, memory);
            work(&run_memory)
        });
        planned.await.map_err(Problem::internal)?
    }

    /// The job with this id.
    async fn job(&self, id: Uuid) -> Result<Job, Problem> {
        let job = self.store().get(id).await.map_err(Problem::internal)?;
        job.ok_or_else(|| jobs::job_not_found(id))
    }

    /// The study with this id.
    async fn study(&self, id: Uuid) -> Result<Study, Problem> {
        let study = self.store().study(id).await.map_err(Problem::internal)?;
        study.ok_or_else(|| studies::study_not_found(id))
    }

    /// The training with this id.
    async fn training(&self, id: Uuid) -> Result<Training, Problem> {
        let training = self.store().training(id).await.map_err(Problem::internal)?;
        training.ok_or_else(|| trainings::training_not_found(id))
    }

    /// Waits until the job has ended, the time limit is reached or the server shuts down; returns the job.
    async fn wait(&self, job: Job, limit: Duration) -> Result<Job, Problem> {
        let ended = self.store().wait(job.id, limit);
        match self.shutdown().run_until_cancelled(ended).await {
            Some(ended) => Ok(ended.map_err(Problem::internal)?.unwrap_or(job)),
            None => self.job(job.id).await,
        }
    }

    /// Waits for a study, as [`Api::wait`] does for a job.
    async fn wait_for_study(&self, study: Study, limit: Duration) -> Result<Study, Problem> {
        let ended = self.store().wait_for_study(study.id, limit);
        match self.shutdown().run_until_cancelled(ended).await {
            Some(ended) => Ok(ended.map_err(Problem::internal)?.unwrap_or(study)),
            None => self.study(study.id).await,
        }
    }

    /// Waits for a training, as [`Api::wait`] does for a job.
    async fn wait_for_training(&self, training: Training, limit: Duration) -> Result<Training, Problem> {
        let ended = self.store().wait_for_training(training.id, limit);
        match self.shutdown().run_until_cancelled(ended).await {
            Some(ended) => Ok(ended.map_err(Problem::internal)?.unwrap_or(training)),
            None => self.training(training.id).await,
        }
    }
}

/// All documented routes.
fn documented_routes() -> OpenApiRouter<Api> {
    OpenApiRouter::with_openapi(openapi::skeleton())
        .merge(jobs::router())
        .merge(studies::router())
        .merge(trainings::router())
        .merge(models::router())
        .routes(routes!(health::livez))
        .routes(routes!(health::readyz))
        .routes(routes!(metrics::metrics))
        .routes(routes!(problem_pages::list))
        .routes(routes!(problem_pages::get))
}

/// The router of the service, with all middleware.
///
/// # Errors
/// If the OpenAPI document cannot be written as JSON.
pub fn router(api: Api) -> Result<Router, serde_json::Error> {
    let (routes, document) = documented_routes().split_for_parts();
    let document = openapi::render(&document, &api.config().limits())?;
    let router = routes
        .merge(openapi::router(document)?)
        .merge(docs::router())
        .layer(CatchPanicLayer::custom(error_layer::panic_response))
        .layer(from_fn_with_state(api.clone(), admission::admit))
        .layer(from_fn_with_state(api.clone(), error_layer::convert_errors));
    // Outside the layers that reject requests: a page of an allowed origin may read their problems, too.
    let router = match cors::layer(&api.config().cors_origin) {
        Some(cors) => router.layer(cors),
        None => router,
    };
    let router = router.layer(from_fn(security_headers::add)).layer(from_fn(request_log::log_request));
    // Routes are matched without the base path.
    let base_path = api.config().base_path.clone();
    let service = router
        .with_state(api)
        .map_request(move |request: axum::extract::Request| base_path::strip(&base_path, request));
    Ok(Router::new().fallback_service(service))
}

/// The OpenAPI document of a server with default limits, which is committed as `openapi/openapi.json`.
///
/// # Errors
/// If it cannot be written as JSON.
pub fn openapi_document() -> Result<String, serde_json::Error> {
    let document = openapi::render(&documented_routes().into_openapi(), &Limits::default())?;
    Ok(serde_json::to_string_pretty(&document)? + "\n")
}
